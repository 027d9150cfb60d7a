import { describe, expect, test } from 'vitest';
import { parseSchema } from '../../src/base/schema.ts';
import type { Snapshot } from '../../src/control/index.ts';
import { SnapshotSchema } from '../../src/control/snapshot.ts';
import { type DnsServer, RecordType, type Zone } from '../../src/dns/index.ts';
import { hostsNamed, serveNames } from '../../src/gateway/site-names.ts';

const { A, NS } = RecordType;
const MQ = { name: 'mq.a.test', addresses: ['10.0.0.129'], ports: ['tcp/5672'] };
const WEB = { name: 'web.a.test', addresses: ['10.0.0.130'], ports: ['tcp/443'] };

function snapshotOf(revision: number, hosts: readonly object[], more: object = {}): Snapshot {
  return parseSchema(SnapshotSchema, {
    revision,
    site: 'site-a',
    sources: ['10.0.0.0/24'],
    pools: ['10.0.0.128/25'],
    zone: 'a.test',
    ttlSeconds: 30,
    hosts,
    pointers: [],
    ...more,
  });
}

/** Takes the place of a server; it has the different zones that were set. */
function startServer(): { dns: DnsServer; zones: Zone[]; ask: (name: string) => unknown[] } {
  const zones: Zone[] = [];
  const server: Pick<DnsServer, 'address' | 'setSources' | 'setZone'> = {
    address: { host: '10.0.0.254', port: 53 },
    setSources: () => {},
    setZone: (zone) => {
      if (zones.at(-1) !== zone) zones.push(zone);
    },
  };
  const ask = (name: string): unknown[] =>
    zones
      .at(-1)!
      .lookup(name, A)
      .answers.map(({ content }) => content.data);
  return { dns: server as DnsServer, zones, ask };
}

describe('serveNames', () => {
  test('patches the zone when names change, and replaces it when the pools do', () => {
    const { dns, zones, ask } = startServer();
    serveNames(dns, snapshotOf(1, [MQ]));
    serveNames(dns, snapshotOf(2, [{ ...MQ, addresses: ['10.0.0.131'] }, WEB]));
    expect(zones).toHaveLength(1);
    expect(zones[0]!.serial).toBe(2);
    expect(ask('mq.a.test')).toEqual(['10.0.0.131']);
    expect(ask('web.a.test')).toEqual(['10.0.0.130']);

    serveNames(dns, snapshotOf(3, [WEB], { pools: ['10.0.0.192/26'] }));
    serveNames(dns, snapshotOf(4, [MQ], { pools: ['10.0.0.192/26'] }));
    expect(zones).toHaveLength(2);
    expect(ask('mq.a.test')).toEqual(['10.0.0.129']);
    expect(ask('web.a.test')).toEqual([]);
    expect(zones[1]!.lookup('a.test', NS).additional[0]!.content.data).toBe('10.0.0.254');
  });

  test('keeps the servers of two gateways apart', () => {
    const [one, other] = [startServer(), startServer()];
    serveNames(one.dns, snapshotOf(1, [MQ]));
    serveNames(other.dns, snapshotOf(1, [WEB]));
    serveNames(one.dns, snapshotOf(2, [MQ, WEB]));
    expect(one.ask('web.a.test')).toEqual(['10.0.0.130']);
    expect(other.ask('mq.a.test')).toEqual([]);
  });
});

describe('hostsNamed', () => {
  const snapshot = snapshotOf(1, [
    { ...MQ, aliases: ['queue.a.test'] },
    { ...MQ, addresses: ['2001:db8::1'] },
    { ...WEB, wildcard: true },
  ]);

  test.each([
    ['mq', ['10.0.0.129', '2001:db8::1']],
    ['MQ.a.test.', ['10.0.0.129', '2001:db8::1']],
    ['queue', ['10.0.0.129', '2001:db8::1']],
    ['shop.web.a.test', ['10.0.0.130']],
    ['shop.a.test', []],
  ])('finds the hosts of %s', (name, expected) => {
    const found = hostsNamed(snapshot, name);
    expect(found.flatMap(({ addresses }) => addresses.map(String))).toEqual(expected);
  });

  test('finds none before the first snapshot', () => {
    expect(hostsNamed(undefined, 'mq')).toEqual([]);
  });
});
