/** A patched zone: what it answers is compared with a zone compiled anew and with `NaiveZone`, after random patches. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  RecordType,
  Zone,
  type ZoneAnswer,
  type ZoneBinding,
  type ZoneData,
  type ZoneHost,
  type ZonePatch,
  type ZonePointer,
  type ZoneRecord,
} from '../../src/dns/index.ts';
import { ConfigError } from '../../src/errors.ts';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { type NaiveAnswer, NaiveZone, textOf } from './naive-zone.ts';

const RUNS = runsOf(40);

const { A, AAAA, NS, PTR, SOA, SRV, TXT, CNAME, HTTPS, SVCB, ANY } = RecordType;

const EMPTY: ZoneData = {
  origin: 't.test',
  hosts: [],
  pointers: [],
  reverse: ['10.0.0.0/24'],
  serial: 1,
  ttlSeconds: 60,
  negativeTtlSeconds: 10,
  nameserver: 'ns',
  nameserverAddresses: ['10.0.0.1'],
};

/** Few names, close to each other, so that they meet: as hosts, aliases, names of SRV records, and in between. */
const NAMES = ['a', 'b', 'a.b', 'c.a.b', 'ns', 'x.y', '_s._tcp.a', 't.test.'];
const ALIASES = [
  'a',
  'x',
  'y',
  'c.a.b',
  'w.a',
  '*.b',
  '*.y',
  '*.x',
  '_s._tcp.b',
  '_p.a',
  't.test.',
];
/** Within the reverse zone, outside of it, and next to that. */
const ADDRESSES = ['10.0.0.1', '10.0.0.7', '192.0.2.7', '192.0.2.8'];
const QUERIES = [
  ...[
    ...NAMES,
    ...ALIASES,
    'q',
    'q.a',
    'q.r.a',
    'q.b',
    'q.a.b',
    'q.x',
    'q.y',
    '*.a',
    'q.*.b',
    '_tcp.a',
    '_p.b',
  ],
].map((name) => (name.endsWith('.') ? name : `${name}.t.test.`));
const FOREIGN = [
  'test.',
  '.',
  '10.in-addr.arpa.',
  '0.0.10.in-addr.arpa.',
  ...ADDRESSES.map((address) => `${address.split('.').reverse().join('.')}.in-addr.arpa.`),
  '7.7.2.0.192.in-addr.arpa.',
];
const ASKED = [...new Set([...QUERIES, ...FOREIGN])];
const TYPES = [A, AAAA, NS, PTR, SOA, SRV, TXT, CNAME, HTTPS, SVCB, ANY, 4711];

const binding: fc.Arbitrary<ZoneBinding> = fc.record({
  type: fc.constantFrom<ZoneBinding['type']>('HTTPS', 'SVCB'),
  prefix: fc.constantFrom(undefined, '_p'),
  priority: fc.nat({ max: 2 }),
  target: fc.constantFrom(undefined, '.', 'a', 'q.b', 'example.org.'),
});
const host: fc.Arbitrary<ZoneHost> = fc.record({
  name: fc.constantFrom(...NAMES),
  addresses: fc.subarray(['10.0.0.2', '10.0.0.3', '2001:db8::2']),
  texts: fc.subarray(['one', 'two']),
  ports: fc.subarray([{ protocol: 'tcp' as const, port: 1, service: 's' }]),
  bindings: fc.array(binding, { maxLength: 2 }),
  aliases: fc.subarray(ALIASES, { maxLength: 3 }),
  wildcard: fc.boolean(),
});
const pointer: fc.Arbitrary<ZonePointer> = fc.record({
  address: fc.constantFrom(...ADDRESSES),
  name: fc.constantFrom('a', 'example.org.'),
});
const patches = fc.array(
  fc.record({
    names: fc.subarray(NAMES),
    hosts: fc.array(host, { maxLength: 3 }),
    addresses: fc.subarray(ADDRESSES),
    pointers: fc.array(pointer, { maxLength: 3 }),
    isBad: fc.boolean(),
  }),
  { minLength: 1, maxLength: 6 }
);

/** Applies a patch to plain data, as the documentation of `ZonePatch` says. */
function patched(
  data: ZoneData,
  { serial, names, hosts, addresses, pointers }: ZonePatch
): ZoneData {
  const changed = new Set([...names!, ...hosts!.map(({ name }) => name)]);
  const moved = new Set([...addresses!, ...pointers!.map(({ address }) => address)]);
  return {
    ...data,
    serial,
    hosts: [...data.hosts.filter(({ name }) => !changed.has(name)), ...hosts!],
    pointers: [...data.pointers.filter(({ address }) => !moved.has(address)), ...pointers!],
  };
}

const hex = (records: readonly ZoneRecord[]): string[] =>
  records.map(({ wire }) => Buffer.from(wire).toString('hex'));

/** Everything that a zone answers, with the order and the bytes of the records. */
function everything(zone: Zone): string {
  const lines = ASKED.flatMap((name) =>
    TYPES.map((type) => {
      const { outcome, answers, authority, additional } = zone.lookup(name, type);
      const sections = [answers, authority, additional].map((each) => hex(each).join(' '));
      return `${name} ${type} ${outcome} / ${sections.join(' / ')}`;
    })
  );
  return lines.join('\n');
}

/** Brings an answer into the form of the naive zone, which has the serial and the TTL alone of an SOA. */
function plain({ outcome, answers, authority, additional }: ZoneAnswer): NaiveAnswer {
  const texts = (records: readonly ZoneRecord[]): string[] =>
    records
      .map(({ name, content: { type, data }, ttlSeconds }) =>
        type === 'SOA'
          ? textOf({ owner: name, type, data: { serial: data.serial, ttl: ttlSeconds } })
          : textOf({ owner: name, type, data })
      )
      .sort();
  return {
    outcome,
    answers: texts(answers),
    authority: texts(authority),
    additional: texts(additional),
  };
}

test(
  'after any patches a zone answers as one compiled anew, and as RFC 1034 and RFC 4592 say',
  () => {
    fc.assert(
      fc.property(patches, (steps) => {
        const zone = Zone.compile(EMPTY);
        let data = EMPTY;
        steps.forEach(({ isBad, ...step }, i) => {
          const patch = { ...step, serial: i + 2 };
          if (isBad) {
            const bad = {
              ...patch,
              pointers: [...patch.pointers, { address: '10.0.0.7', name: '' }],
            };
            expect(() => zone.patch(bad)).toThrow(ConfigError);
          } else {
            zone.patch(patch);
            data = patched(data, patch);
          }
          expect(zone.serial).toBe(data.serial);
          expect(everything(zone)).toBe(everything(Zone.compile(data)));
        });
        const naive = new NaiveZone(data);
        for (const name of ASKED) {
          for (const type of TYPES) {
            expect(plain(zone.lookup(name, type)), `${name} ${type}`).toEqual(
              naive.lookup(name, type)
            );
          }
        }
        // A patch that removes everything leaves nothing behind.
        zone.patch({ serial: 1, names: NAMES, addresses: ADDRESSES });
        expect(everything(zone)).toBe(everything(Zone.compile(EMPTY)));
      }),
      RUNS
    );
  },
  timeoutOf(RUNS)
);

describe('patch', () => {
  const TWO: ZoneData = {
    ...EMPTY,
    hosts: [
      { name: 'a', addresses: ['10.0.0.2'], aliases: ['x'] },
      { name: 'b', addresses: ['10.0.0.3'] },
    ],
  };

  test('leaves the answers of other names as they are, and those that were given before', () => {
    const zone = Zone.compile(TWO);
    const [a, b] = [zone.lookup('a.t.test', A), zone.lookup('b.t.test', A)];
    zone.patch({ serial: 2, hosts: [{ name: 'a', addresses: ['10.0.0.9'] }] });
    expect(zone.lookup('b.t.test', A)).toBe(b);
    expect(a.answers.map(({ content }) => content.data)).toEqual(['10.0.0.2']);
    expect(zone.lookup('a.t.test', A).answers[0]!.content.data).toBe('10.0.0.9');
  });

  test('gives every zone the new serial', () => {
    const zone = Zone.compile(TWO);
    const serialOf = (name: string): unknown =>
      zone.lookup(name, SOA).authority.concat(zone.lookup(name, SOA).answers)[0]!.content.data;
    for (const name of ['t.test', 'a.t.test', 'q.t.test', '0.0.10.in-addr.arpa']) {
      expect(serialOf(name)).toMatchObject({ serial: 1 });
    }
    zone.patch({ serial: 2 });
    for (const name of ['t.test', 'a.t.test', 'q.t.test', '0.0.10.in-addr.arpa']) {
      expect(serialOf(name)).toMatchObject({ serial: 2 });
    }
  });

  test.each<[string, ZonePatch, string]>([
    ['a name that cannot be', { serial: 2, names: ['a', 'a..b'] }, 'names[1]'],
    [
      'a host of another zone',
      { serial: 2, hosts: [{ name: 'x.org.', addresses: [] }] },
      'hosts[0].name',
    ],
    ['an address that is none', { serial: 2, addresses: ['10.0.0'] }, 'addresses[0]'],
    ['a serial over 32 bits', { serial: 2 ** 32, names: ['a'] }, 'serial'],
    [
      'more addresses than a message holds',
      {
        serial: 2,
        names: ['a'],
        hosts: [
          {
            name: 'b',
            addresses: Array.from({ length: 4096 }, (_, i) => `10.1.${i >> 8}.${i & 255}`),
          },
        ],
      },
      '',
    ],
  ])('refuses %s, and changes nothing', (_, patch, path) => {
    const zone = Zone.compile(TWO);
    const before = everything(zone);
    expect(() => zone.patch(patch)).toThrow(expect.objectContaining({ name: 'ConfigError', path }));
    expect(everything(zone)).toBe(before);
  });
});
