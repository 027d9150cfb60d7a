import { describe, expect, test } from 'vitest';
import { verifyChecksums } from '../oracle/verify.ts';
import {
  type Ends,
  echoPacket,
  icmpError,
  repairIpv4Checksum,
  tcpPacket,
  udpPacket,
} from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { ADDRESSES, FAMILIES, PAYLOAD, PLAN, pathOf, presenceOf, Scene } from './scene.ts';

/** Type and code of "port unreachable", by IP version. */
const UNREACHABLE = { 4: { type: 3, code: 3 }, 6: { type: 1, code: 4 } } as const;
/** The same of "packet too big", with a next-hop MTU of 1280. */
const TOO_BIG = {
  4: { type: 3, code: 4, rest: 1280 },
  6: { type: 2, code: 0, rest: 1280 },
} as const;
const HOP_LIMIT_EXCEEDED = { 4: { type: 11, code: 0 }, 6: { type: 3, code: 0 } } as const;

const query = (ends: Ends, options = {}): Uint8Array =>
  udpPacket(ends, { sourcePort: 40_000, destinationPort: 53, payload: PAYLOAD, ...options });
const segment = (ends: Ends, options = {}): Uint8Array =>
  tcpPacket(ends, { sourcePort: 49_500, destinationPort: 5672, payload: PAYLOAD, ...options });
const echo = (ends: Ends): Uint8Array => echoPacket(ends, { payload: PAYLOAD });

describe.each(FAMILIES)('ICMP errors over IPv%i', (family) => {
  const { host, router, unbound, foreign, unknownHost } = ADDRESSES[family];
  const toCloud = pathOf(family, 'site-a', 'cloud');
  const back = pathOf(family, 'cloud', 'site-a', 'reply');

  test.each([
    ['UDP', query],
    ['TCP', segment],
    ['echo', echo],
  ])('%s: what the host rejects comes back as the very packet that the client sent', (_, build) => {
    const scene = new Scene();
    const sent = build(toCloud.before);
    const received = scene.forward('site-a', sent);
    const rejected = icmpError(back.before, { ...UNREACHABLE[family], quoted: received });
    const error = scene.forward('cloud', rejected);
    expect(error).toEqual(icmpError(back.after, { ...UNREACHABLE[family], quoted: sent }));
    expect(verifyChecksums(framed(error))).toEqual([]);
  });

  test('a quote that has passed some hops returns as it was sent, except for its hop limit', () => {
    const scene = new Scene();
    const received = scene.forward('site-a', query(toCloud.before, { hopLimit: 64 }));
    received[family === 4 ? 8 : 7] = 61;
    repairIpv4Checksum(received);
    const rejected = icmpError(back.before, { ...UNREACHABLE[family], quoted: received });
    const quoted = query(toCloud.before, { hopLimit: 61 });
    expect(scene.forward('cloud', rejected)).toEqual(
      icmpError(back.after, { ...UNREACHABLE[family], quoted })
    );
  });

  test.each([
    ['hop limit exceeded', HOP_LIMIT_EXCEEDED[family]],
    ['packet too big', TOO_BIG[family]],
  ])('%s, sent by a router, leaves as if the quoted destination had sent it', (_, kind) => {
    const scene = new Scene();
    const sent = segment(toCloud.before);
    const received = scene.forward('site-a', sent);
    for (const source of [router, foreign, unbound, unknownHost]) {
      const ends = { source, destination: back.before.destination };
      const left = scene.forward('cloud', icmpError(ends, { ...kind, quoted: received }));
      expect(left).toEqual(icmpError(back.after, { ...kind, quoted: sent }));
    }
  });

  test('an error about a reply reaches the service, from the presence of its client', () => {
    const scene = new Scene();
    const reply = { sourcePort: 53, destinationPort: 40_000, payload: PAYLOAD };
    const sent = udpPacket(back.before, reply);
    scene.forward('site-a', query(toCloud.before));
    const received = scene.forward('cloud', sent);
    const ends = { source: host, destination: toCloud.before.destination };
    const left = scene.forward(
      'site-a',
      icmpError(ends, { ...UNREACHABLE[family], quoted: received })
    );
    expect(left).toEqual(icmpError(toCloud.after, { ...UNREACHABLE[family], quoted: sent }));
  });

  test('an error about a SYN passes, although the SYN itself would not pass in that direction', () => {
    const scene = new Scene();
    const sent = segment(toCloud.before, { flags: 0x02 });
    const received = scene.forward('site-a', sent);
    const rejected = icmpError(back.before, { ...UNREACHABLE[family], quoted: received });
    expect(scene.forward('cloud', rejected)).toEqual(
      icmpError(back.after, { ...UNREACHABLE[family], quoted: sent })
    );
  });

  test('an error passes from site to site', () => {
    const scene = new Scene();
    const over = pathOf(family, 'site-b', 'site-a');
    const build = (ends: Ends): Uint8Array => segment(ends, { destinationPort: 49_200 });
    const received = scene.forward('site-b', build(over.before));
    const backToB = pathOf(family, 'site-a', 'site-b');
    const rejected = icmpError(
      { source: router, destination: presenceOf(family, 'site-b') },
      { ...TOO_BIG[family], quoted: received }
    );
    const sent = scene.send('site-a', rejected);
    expect(sent).toEqual({
      verdict: 'Forward',
      egress: 'site-b',
      packet: icmpError(backToB.after, { ...TOO_BIG[family], quoted: build(over.before) }),
    });
  });

  test.each([
    ['UDP', query],
    ['TCP', segment],
    ['echo', echo],
  ])('%s: a quote of every length from 8 bytes of transport header on', (_, build) => {
    const headerLength = family === 4 ? 20 : 40;
    const received = build(toCloud.after);
    for (let length = 0; length <= received.length; length++) {
      const quoteOf = (quoted: Uint8Array): Uint8Array =>
        icmpError(
          { source: router, destination: back.before.destination },
          { ...UNREACHABLE[family], quoted, quoteLength: length }
        );
      const scene = new Scene();
      const sent = scene.send('cloud', quoteOf(received));
      if (length < headerLength + 8) {
        expect([length, sent.verdict]).toEqual([length, 'DropMalformed']);
        continue;
      }
      const quoted = build(toCloud.before).slice(0, length);
      // Half a checksum cannot be updated.
      const isHalved = build === segment && length === headerLength + 17;
      if (isHalved) quoted[length - 1] = received[length - 1]!;
      const expected = icmpError(back.after, { ...UNREACHABLE[family], quoted });
      expect([length, sent.verdict]).toEqual([length, 'Forward']);
      expect(sent.packet).toEqual(expected);
      expect(verifyChecksums(framed(sent.packet))).toEqual([]);
    }
  });

  test('padding and extensions (RFC 4884) behind the quote do not change', () => {
    const extension = Uint8Array.of(0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 0, 1, 1, 1);
    const padded = (quoted: Uint8Array): Uint8Array => {
      const bytes = new Uint8Array(128 + extension.length);
      bytes.set(quoted);
      bytes.set(extension, 128);
      return bytes;
    };
    // The length of the padded quote, in words of 4 or 8 bytes, stands behind the ICMP checksum.
    const kind = { ...HOP_LIMIT_EXCEEDED[family], rest: family === 4 ? 32 << 16 : 16 << 24 };
    const error = icmpError(
      { source: router, destination: back.before.destination },
      { ...kind, quoted: padded(query(toCloud.after)) }
    );
    expect(new Scene().forward('cloud', error)).toEqual(
      icmpError(back.after, { ...kind, quoted: padded(query(toCloud.before)) })
    );
  });

  test('a wrong ICMP checksum stays wrong', () => {
    const error = icmpError(back.before, {
      ...UNREACHABLE[family],
      quoted: query(toCloud.after),
      checksum: 0x1234,
    });
    expect(verifyChecksums(framed(new Scene().forward('cloud', error)))).toEqual(['icmp']);
  });

  test('a wrong checksum in the quote stays wrong, and the ICMP checksum stays correct', () => {
    const quoted = query(toCloud.after, { checksum: 0x1234 });
    const error = icmpError(back.before, { ...UNREACHABLE[family], quoted });
    expect(verifyChecksums(framed(new Scene().forward('cloud', error)))).toEqual(['quoted udp']);
  });

  test.each<[reason: string, verdict: string, ends: Partial<Ends>, quoted: Uint8Array]>([
    ['nothing quoted', 'DropMalformed', {}, new Uint8Array(0)],
    ['a quote of noise', 'DropMalformed', {}, new Uint8Array(64).fill(0xff)],
    [
      'a quoted packet of somebody else',
      'DropMalformed',
      {},
      query({ source: unbound, destination: host }),
    ],
    [
      'a quote of the other IP version',
      'DropMalformed',
      {},
      query(pathOf(family === 4 ? 6 : 4, 'site-a', 'cloud').after),
    ],
    [
      'an error about an error',
      'DropUnsupported',
      {},
      icmpError(toCloud.after, { ...UNREACHABLE[family], quoted: query(back.before) }),
    ],
    [
      'an error about a packet to a host that is no client',
      'DropNotPermitted',
      {},
      segment(toCloud.after, { destinationPort: 22 }),
    ],
    [
      'an error about a port that is not exposed',
      'DropNotPermitted',
      {},
      query(toCloud.after, { destinationPort: 54 }),
    ],
    [
      'an error to an unused address',
      'DropNoPresence',
      { destination: unbound },
      query({ source: unbound, destination: host }),
    ],
    [
      'an error about a packet to an address that is no host of the realm',
      'DropSpoofed',
      {},
      query({ source: toCloud.after.source, destination: foreign }),
    ],
  ])('%s: %s', (_reason, verdict, ends, quoted) => {
    const error = icmpError({ ...back.before, ...ends }, { ...UNREACHABLE[family], quoted });
    const scene = new Scene();
    expect(scene.send('cloud', error).verdict).toBe(verdict);
    expect(scene.counters('cloud')).toEqual({ [verdict]: 1 });
  });

  test('an error with a partial checksum is malformed', () => {
    const error = icmpError(back.before, { ...UNREACHABLE[family], quoted: query(toCloud.after) });
    const header = { flags: 1, checksumStart: family === 4 ? 20 : 40, checksumOffset: 2 };
    expect(new Scene().send('cloud', error, header).verdict).toBe('DropMalformed');
  });

  test('an error takes the path of replies, and is counted there', () => {
    const scene = new Scene();
    const error = icmpError(
      { source: router, destination: back.before.destination },
      { ...UNREACHABLE[family], quoted: query(toCloud.after) }
    );
    const reply = udpPacket(back.before, { sourcePort: 53, destinationPort: 40_000 });
    scene.forward('site-a', query(toCloud.before));
    scene.forward('cloud', error);
    scene.forward('cloud', reply);
    expect(scene.paths().filter(({ ingress }) => ingress === 'cloud')).toEqual([
      {
        ingress: 'cloud',
        source: host,
        destination: back.before.destination,
        egress: 'site-a',
        newSource: back.after.source,
        newDestination: host,
        packets: 2,
        bytes: error.length + reply.length,
      },
    ]);
  });

  test('the host that needs a presence is the quoted destination, not the router', () => {
    const presences = PLAN.presences.filter(({ realm }) => realm !== 'site-a');
    const scene = new Scene({ plan: { ...PLAN, presences } });
    const error = icmpError(
      { source: router, destination: back.before.destination },
      { ...UNREACHABLE[family], quoted: query(toCloud.after) }
    );
    const sent = scene.send('cloud', error);
    expect([sent.verdict, sent.egress]).toEqual(['NeedsPresence', 'site-a']);
    const address = scene.translator.lackingPresence().toString();
    expect(address).toBe(host);
    scene.translator.bind({
      realm: 'site-a',
      address: back.after.source,
      of: { realm: 'cloud', address },
    });
    expect(scene.forward('cloud', error)).toEqual(
      icmpError(back.after, { ...UNREACHABLE[family], quoted: query(toCloud.before) })
    );
  });
});

test('a quoted UDP checksum of 0 stays 0', () => {
  const toCloud = pathOf(4, 'site-a', 'cloud');
  const back = pathOf(4, 'cloud', 'site-a', 'reply');
  const quoted = query(toCloud.after, { checksum: 'none' });
  const error = icmpError(back.before, { ...UNREACHABLE[4], quoted });
  expect(new Scene().forward('cloud', error)).toEqual(
    icmpError(back.after, {
      ...UNREACHABLE[4],
      quoted: query(toCloud.before, { checksum: 'none' }),
    })
  );
});

test('an error about a first fragment is forwarded like one about an unfragmented packet', () => {
  const { before, after } = pathOf(4, 'cloud', 'site-a', 'reply');
  const build = (ends: Ends): Uint8Array =>
    query(ends, { fragment: 0x2000, payload: new Uint8Array(16) });
  const error = icmpError(before, {
    ...UNREACHABLE[4],
    quoted: build(pathOf(4, 'site-a', 'cloud').after),
  });
  expect(new Scene().forward('cloud', error)).toEqual(
    icmpError(after, { ...UNREACHABLE[4], quoted: build(pathOf(4, 'site-a', 'cloud').before) })
  );
});

test.each([
  ['a later fragment', 0x2010],
  ['a last fragment', 0x0010],
])('an error about %s is dropped as a fragment', (_name, fragment) => {
  const quoted = query(pathOf(4, 'site-a', 'cloud').after, { fragment });
  const { before } = pathOf(4, 'cloud', 'site-a', 'reply');
  const error = icmpError(before, { ...UNREACHABLE[4], quoted });
  expect(new Scene().send('cloud', error).verdict).toBe('DropFragment');
});

test.each(FAMILIES)('an error before any packet needs no session, IPv%i', (family) => {
  const scene = new Scene();
  const toCloud = pathOf(family, 'site-a', 'cloud');
  const error = icmpError(pathOf(family, 'cloud', 'site-a', 'reply').before, {
    ...UNREACHABLE[family],
    quoted: query(toCloud.after),
  });
  expect(scene.send('cloud', error).verdict).toBe('Forward');
  // An error opens no session either.
  const answer = { sourcePort: 53, destinationPort: 40_000 };
  const reply = udpPacket(pathOf(family, 'cloud', 'site-a', 'reply').before, answer);
  expect(scene.send('cloud', reply).verdict).toBe('DropNoSession');
});
