import { decode } from 'dns-packet';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeFrame, FrameDecoder } from '../../src/dns/framing.ts';
import { SiteResolver } from '../../src/dns/index.ts';
import { decodeAnswer, LOCAL, query, ZONE } from './scene.ts';

const resolver = new SiteResolver({ zone: ZONE });

function resolve(bytes: Uint8Array, transport: 'udp' | 'tcp' = 'udp'): Buffer | undefined {
  const answer = resolver.resolve(bytes, transport, LOCAL);
  if (answer instanceof Promise) throw new Error('nothing is forwarded here');
  return answer && Buffer.from(answer);
}

/** A message with the id 0x1234, given in hexadecimal; blanks are ignored. */
function message(hex: string): Buffer {
  return Buffer.from(`1234${hex.replaceAll(' ', '')}`, 'hex');
}

const ONE_QUESTION = '0100 0001 0000 0000 0000';
const ONE_OPT = '0100 0001 0000 0000 0001';
const NOVA = '046e6f7661 00 0001 0001';
const OPT = '00 0029 04d0 00000000 0000';

describe('a message that is no query', () => {
  test.each([
    ['nothing', Buffer.alloc(0)],
    ['a header cut short', Buffer.alloc(11)],
    ['a response', message(`8180 0001 0000 0000 0000 ${NOVA}`)],
    ['a response of another opcode', message('a800 0000 0000 0000 0000')],
  ])('is not answered: %s', (_, bytes) => {
    expect(resolve(bytes)).toBeUndefined();
  });

  test.each([
    ['no question', '0100 0000 0000 0000 0000'],
    ['two questions', `0100 0002 0000 0000 0000 ${NOVA} ${NOVA}`],
    ['65535 questions', `0100 ffff 0000 0000 0000 ${NOVA}`],
    ['65535 of everything', `0100 ffff ffff ffff ffff ${NOVA}`],
    ['an answer record', `0100 0001 0001 0000 0000 ${NOVA}`],
    ['an authority record', `0100 0001 0000 0001 0000 ${NOVA}`],
    ['two additional records', `0100 0001 0000 0000 0002 ${NOVA} ${OPT} ${OPT}`],
    ['an additional record that is not there', `${ONE_OPT} ${NOVA}`],
    ['an additional record other than OPT', `${ONE_OPT} ${NOVA} 00 00fa 00ff 00000000 0000`],
    ['an OPT record with an owner', `${ONE_OPT} ${NOVA} 0161 00 0029 04d0 00000000 0000`],
    ['an OPT record cut short', `${ONE_OPT} ${NOVA} 00 0029 04d0 0000`],
    ['OPT data longer than the message', `${ONE_OPT} ${NOVA} 00 0029 04d0 00000000 0004 0000`],
    ['bytes behind the question', `${ONE_QUESTION} ${NOVA} 00`],
    ['bytes behind the OPT record', `${ONE_OPT} ${NOVA} ${OPT} 00`],
    ['a pointer to itself', `${ONE_QUESTION} c00c 0001 0001`],
    ['a pointer to the header', `${ONE_QUESTION} c000 0001 0001`],
    ['a pointer behind a label', `${ONE_QUESTION} 0161 c00c 0001 0001`],
    ['a pointer beyond the end', `${ONE_QUESTION} ffff 0001 0001`],
    ['a label of the type 01', `${ONE_QUESTION} 4161 00 0001 0001`],
    ['a label of the type 10', `${ONE_QUESTION} 8161 00 0001 0001`],
    ['a label beyond the end', `${ONE_QUESTION} 3f61 00 0001 0001`],
    ['a name of 256 bytes', `${ONE_QUESTION} ${'0161'.repeat(126)} 026161 00 0001 0001`],
    ['a name without an end', `${ONE_QUESTION} ${'0161'.repeat(1000)}`],
    [
      'a message of 4097 bytes',
      `${ONE_OPT} ${NOVA} 00 0029 04d0 00000000 0fe0 ${'00'.repeat(4064)}`,
    ],
  ])('is answered FORMERR with its id: %s', (_, hex) => {
    expect(resolve(message(hex))).toEqual(message('8101 0000 0000 0000 0000'));
  });

  test.each([
    ['IQUERY', '0800', '8804'],
    ['STATUS', '1000', '9004'],
    ['NOTIFY with an answer record', '2400', 'a004'],
    ['UPDATE', '2800', 'a804'],
    ['opcode 15 with RD', '7900', 'f904'],
  ])('is answered NOTIMP: %s', (_, flags, expected) => {
    expect(resolve(message(`${flags} 0001 0001 0000 0000 ${NOVA}`))).toEqual(
      message(`${expected} 0000 0000 0000 0000`)
    );
  });

  test('is answered FORMERR wherever it is cut off, and not at all when the header is', () => {
    const whole = query('rabbit.mq.openstack.test', 'AAAA', 1232);
    for (let length = 0; length < whole.length; length++) {
      const answer = resolve(whole.subarray(0, length));
      expect(answer?.toString('hex'), `cut at ${length}`).toBe(
        length < 12 ? undefined : '123481010000000000000000'
      );
    }
    expect(decodeAnswer(resolve(whole)).rcode).toBe('NOERROR');
  });
});

describe('a query', () => {
  test('may have a name of 255 bytes', () => {
    const answer = decodeAnswer(
      resolve(message(`${ONE_QUESTION} ${'0161'.repeat(127)} 00 0001 0001`))
    );
    expect(answer.rcode).toBe('REFUSED');
  });

  test.each([
    ['a dot', '0a6b657973746f6e652e61'],
    ['a NUL', '0a6b657973746f6e650061'],
    ['a dot that would end in the zone', '036e6f76 12612e6f70656e737461636b2e74657374612e'],
  ])('with %s in a label does not match any name of the zone', (_, labels) => {
    const inside = `${labels} 096f70656e737461636b 0474657374 00 0001 0001`;
    expect(decodeAnswer(resolve(message(`${ONE_QUESTION} ${inside}`))).rcode).toBe('NXDOMAIN');
  });

  test('with a label "x.openstack" below "test" is foreign', () => {
    const hex = '0b782e6f70656e737461636b 0474657374 00 0001 0001';
    expect(decodeAnswer(resolve(message(`${ONE_QUESTION} ${hex}`))).rcode).toBe('REFUSED');
  });

  test('gets its question back in its own case, and an answer with the same name (0x20)', () => {
    const answer = decodeAnswer(resolve(query('kEySTOne.OPENstack.teST', 'A')));
    expect(answer.questions![0]!.name).toBe('kEySTOne.OPENstack.teST');
    expect(answer.answers).toMatchObject([
      { name: 'kEySTOne.OPENstack.teST', type: 'A', ttl: 60, data: '100.64.0.2' },
    ]);
  });

  test('gets RD and CD back, AA set, and RA clear if there are no upstreams', () => {
    const asked = query('keystone.openstack.test', 'A');
    asked.writeUInt16BE(0x0130, 2); // RD, AD, CD
    const answer = decodeAnswer(resolve(asked));
    expect(answer).toMatchObject({
      id: 0x1234,
      type: 'response',
      flag_aa: true,
      flag_rd: true,
      flag_cd: true,
      flag_ra: false,
      flag_ad: false,
      flag_tc: false,
    });
    asked.writeUInt16BE(0, 2);
    expect(decodeAnswer(resolve(asked))).toMatchObject({ flag_rd: false, flag_cd: false });
  });

  test('gets an OPT record with its DO bit if it has one, and none otherwise', () => {
    expect(decodeAnswer(resolve(query('keystone.openstack.test', 'A'))).additionals).toEqual([]);
    const asked = query('keystone.openstack.test', 'A', 4096);
    expect(decodeAnswer(resolve(asked)).additionals).toMatchObject([
      { type: 'OPT', name: '.', udpPayloadSize: 1232, ednsVersion: 0, flag_do: false },
    ]);
    asked[asked.length - 4] = 0x80;
    expect(decodeAnswer(resolve(asked)).additionals).toMatchObject([{ flag_do: true }]);
  });

  test('may have EDNS options, which are ignored', () => {
    const cookie = '00 0029 04d0 00000000 000c 000a 0008 0102030405060708';
    const answer = decodeAnswer(resolve(message(`${ONE_OPT} ${NOVA} ${cookie}`)));
    expect(answer.additionals).toMatchObject([{ type: 'OPT', options: [] }]);
  });

  test('with EDNS version 1 is answered BADVERS', () => {
    const asked = query('keystone.openstack.test', 'A', 1232);
    asked[asked.length - 5] = 1;
    const answer = decodeAnswer(resolve(asked));
    expect(answer.rcode).toBe('NOERROR'); // the lower four bits of the code
    expect(answer.answers).toEqual([]);
    expect(answer.additionals).toMatchObject([{ extendedRcode: 1, ednsVersion: 0 }]);
  });

  test.each([
    ['class CH', 'version.bind', 'TXT', 3],
    ['class ANY', 'keystone.openstack.test', 'A', 255],
    ['class 0', 'keystone.openstack.test', 'A', 0],
    ['type AXFR', 'openstack.test', 'AXFR', 1],
    ['type OPT', 'openstack.test', 'OPT', 1],
    ['a foreign name', 'example.org', 'A', 1],
  ])('for %s is refused', (_, name, type, klass) => {
    const asked = query(name, type);
    asked.writeUInt16BE(klass, asked.length - 2);
    const answer = decodeAnswer(resolve(asked));
    expect(answer).toMatchObject({
      rcode: 'REFUSED',
      flag_aa: false,
      answers: [],
      authorities: [],
    });
    expect(answer.questions).toHaveLength(1);
  });

  test('for a missing type or name gets the SOA with the negative TTL, its owner compressed', () => {
    for (const [name, rcode] of [
      ['keystone.openstack.test', 'NOERROR'],
      ['nova.openstack.test', 'NXDOMAIN'],
    ] as const) {
      const bytes = resolve(query(name, 'AAAA'));
      const answer = decodeAnswer(bytes);
      expect(answer).toMatchObject({ rcode, flag_aa: true, answers: [] });
      expect(answer.authorities).toMatchObject([{ name: 'openstack.test', type: 'SOA', ttl: 10 }]);
      const questionEnd = 12 + name.length + 2 + 4;
      const pointer = bytes!.readUInt16BE(questionEnd);
      expect(pointer).toBe(0xc000 + 12 + name.indexOf('openstack'));
    }
  });

  test('for SRV gets the addresses of the target as additional records', () => {
    const answer = decodeAnswer(resolve(query('_amqp._tcp.rabbit.mq.openstack.test', 'SRV', 1232)));
    expect(answer.answers).toMatchObject([
      { type: 'SRV', data: { port: 5672, target: 'rabbit.mq.openstack.test' } },
    ]);
    expect(answer.additionals).toMatchObject([
      { name: 'rabbit.mq.openstack.test', type: 'A', data: '100.64.0.3' },
      { name: 'rabbit.mq.openstack.test', type: 'AAAA', data: '2001:db8:64::3' },
      { type: 'OPT' },
    ]);
  });

  // 38 bytes of header and question, 60 records of 16 bytes, 11 of OPT
  test.each([
    ['no EDNS', undefined, 'udp', 1232, true],
    ['a size below 512, which counts as 512', 100, 'udp', 1232, true],
    ['one byte less than it takes', 1008, 'udp', 1232, true],
    ['exactly what it takes', 1009, 'udp', 1232, false],
    ['more than we send', 4096, 'udp', 1008, true],
    ['TCP', undefined, 'tcp', 512, false],
  ] as const)(
    'for 60 addresses is truncated or not with %s',
    (_, size, transport, maxUdpBytes, truncated) => {
      const small = new SiteResolver({ zone: ZONE, maxUdpBytes });
      const bytes = small.resolve(
        query('large.openstack.test', 'A', size),
        transport,
        LOCAL
      ) as Buffer;
      const answer = decodeAnswer(bytes);
      expect(answer.flag_tc).toBe(truncated);
      expect(answer.answers).toHaveLength(truncated ? 0 : 60);
      expect(answer.additionals).toHaveLength(size === undefined ? 0 : 1);
      expect(small.counters.truncated).toBe(truncated ? 1 : 0);
    }
  );
});

describe('any bytes', () => {
  const names = fc.constantFrom(
    'openstack.test',
    'keystone.openstack.test',
    'mq.openstack.test',
    'large.openstack.test',
    'huge.openstack.test',
    'x.apps.openstack.test',
    'x.y.sites.openstack.test',
    '_amqp._tcp.rabbit.mq.openstack.test',
    '2.0.64.100.in-addr.arpa',
    'example.org'
  );
  const types = fc.constantFrom(
    'A',
    'AAAA',
    'SRV',
    'PTR',
    'SOA',
    'NS',
    'TXT',
    'ANY',
    'AXFR',
    'UNKNOWN_65'
  );
  const wellFormed = fc
    .tuple(names, types, fc.option(fc.nat(65_535), { nil: undefined }))
    .map(([name, type, size]) => query(name, type, size));
  const mutated = fc
    .tuple(wellFormed, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), fc.nat(20))
    .map(([bytes, changes, cut]) => {
      for (const [offset, value] of changes) bytes[offset % bytes.length] = value;
      return cut < 4 ? bytes.subarray(0, bytes.length - cut) : bytes;
    });
  const random = fc.uint8Array({ maxLength: 600 });

  test('get an answer that dns-packet decodes and that is within the limit, or none', () => {
    let answered = 0;
    fc.assert(
      fc.property(
        fc.oneof(wellFormed, mutated, random),
        fc.constantFrom('udp' as const, 'tcp' as const),
        (bytes, transport) => {
          const answer = resolve(bytes, transport);
          if (answer === undefined) {
            expect(bytes.length < 12 || bytes[2]! >= 0x80).toBe(true);
            return;
          }
          answered++;
          expect(answer.length).toBeLessThanOrEqual(transport === 'udp' ? 1232 : 65_535);
          const decoded = decode(answer);
          expect(decoded.type).toBe('response');
          expect(decoded.id).toBe((bytes[0]! << 8) | bytes[1]!);
          expect(decode.bytes).toBe(answer.length);
        }
      ),
      { numRuns: 20_000, seed: 1035 }
    );
    expect(answered).toBeGreaterThan(10_000);
  });
});

describe('FrameDecoder', () => {
  const messages = [
    query('a.test', 'A'),
    Buffer.alloc(0),
    Buffer.alloc(300, 1),
    query('b.test', 'A'),
  ];
  const stream = Buffer.concat(messages.map((bytes) => encodeFrame(bytes)));

  function decodeAll(chunks: readonly Buffer[]): Buffer[] {
    const decoder = new FrameDecoder();
    const found: Buffer[] = [];
    for (const chunk of chunks) {
      decoder.push(chunk);
      for (let next = decoder.next(); next !== undefined; next = decoder.next()) found.push(next);
    }
    return found;
  }

  test('returns the same messages from single bytes, from one piece and from any two pieces', () => {
    expect(decodeAll([...stream].map((byte) => Buffer.of(byte)))).toEqual(messages);
    expect(decodeAll([stream])).toEqual(messages);
    for (let cut = 1; cut < stream.length; cut++) {
      expect(decodeAll([stream.subarray(0, cut), stream.subarray(cut)])).toEqual(messages);
    }
  });

  test('returns messages that were pushed while others waited', () => {
    const decoder = new FrameDecoder();
    for (const byte of stream) decoder.push(Buffer.of(byte));
    expect(messages.map(() => decoder.next())).toEqual(messages);
    expect(decoder.next()).toBeUndefined();
  });
});
