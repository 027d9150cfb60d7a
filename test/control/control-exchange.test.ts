import { describe, expect, test } from 'vitest';
import { parseSchema } from '../../src/base/schema.ts';
import {
  ControlClient,
  ControlServer,
  type Snapshot,
  zoneDataOf,
} from '../../src/control/index.ts';
import { SnapshotSchema } from '../../src/control/snapshot.ts';
import { RecordType, Zone } from '../../src/dns/index.ts';
import { PeerProtocolError, StoreError } from '../../src/errors.ts';
import { type Json, MemoryStore } from '../../src/store/index.ts';
import type { TextOf } from '../support/text-of.ts';
import { FakeChannel, Link } from './link.ts';
import { DESIRED, type Scene, SceneClock, startScene, turn } from './scene.ts';

function snapshotOf(more: Partial<TextOf<Snapshot>> = {}): TextOf<Snapshot> {
  return {
    revision: 7,
    site: 'site-a',
    sources: ['10.0.0.0/24'],
    pools: ['10.0.0.128/25'],
    zone: 'a.test',
    ttlSeconds: 30,
    hosts: [{ name: 'mq.a.test', addresses: ['10.0.0.129'], ports: ['tcp/5672', 'icmp'] }],
    pointers: [{ address: '10.0.0.129', name: 'mq.a.test' }],
    ...more,
  };
}

/** The same as it is known to an edge. */
function received(more: Partial<TextOf<Snapshot>>): Snapshot {
  return parseSchema(SnapshotSchema, snapshotOf(more));
}

const message = (snapshot: unknown): Json => ({ type: 'snapshot', snapshot: snapshot as Json });

async function startServer(): Promise<{ scene: Scene; server: ControlServer }> {
  const scene = await startScene(DESIRED);
  const { controller, clock } = scene;
  clock.advance(5000);
  return { scene, server: new ControlServer(controller, { clock }) };
}

const noFault = (error: Error): never => {
  throw error;
};

describe('server and client', () => {
  test('send an edge its snapshot once when it connects, and note its acknowledgement', async () => {
    const { scene, server } = await startServer();
    const link = new Link();
    const client = await ControlClient.open({ site: 'site-a' });
    client.attach(link.edge);
    expect(server.status('site-a')).toBeUndefined();
    server.attach('site-a', link.cloud, noFault);
    const { revision } = scene.controller.snapshot('site-a')!;
    expect(link.cloud.sent).toHaveLength(1);
    expect(server.status('site-a')).toEqual({
      sentRevision: revision,
      appliedRevision: 0,
      counters: {},
    });
    link.deliver();
    expect(client.snapshot).toEqual(scene.controller.snapshot('site-a'));
    expect(server.status('site-a')).toMatchObject({ appliedRevision: revision });
  });

  test('send one snapshot to an edge that connects before the snapshot is made', async () => {
    const { scene, server } = await startServer();
    await scene.registry.expose({ service: 'glance', site: 'site-a' }, 'admin');
    await turn();
    const link = new Link();
    server.attach('site-a', link.cloud, noFault);
    scene.clock.advance(5000);
    expect(link.cloud.sent).toHaveLength(1);
    expect(JSON.stringify(link.cloud.sent)).toContain('glance');
  });

  test('send a change only to the site that it concerns', async () => {
    const { scene, server } = await startServer();
    const [a, b] = [new Link(), new Link()];
    server.attach('site-a', a.cloud, noFault);
    server.attach('site-b', b.cloud, noFault);
    a.deliver();
    b.deliver();
    await scene.registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    scene.clock.advance(5000);
    expect(a.cloud.sent).toHaveLength(0);
    expect(b.cloud.sent).toHaveLength(1);
  });

  test('send any change of pools to the edge of that site', async () => {
    const { scene, server } = await startServer();
    const [link, other] = [new Link(), new Link()];
    const client = await ControlClient.open({ site: 'site-a' });
    client.attach(link.edge);
    server.attach('site-a', link.cloud, noFault);
    server.attach('site-b', other.cloud, noFault);
    link.deliver();
    other.deliver();
    const seen: (readonly string[])[] = [];
    client.on('snapshot', ({ pools }) => seen.push(pools.map(String)));
    const changes = [
      ['10.0.0.128/26', 'fd00::/64'],
      ['fd00::/64', '10.0.0.128/26'],
      ['fd00::/64'],
      [],
    ];
    for (const pools of changes) {
      const site = { ...DESIRED.sites[1]!, pools };
      await scene.registry.apply({ sites: [DESIRED.sites[0], site, DESIRED.sites[2]] }, 'file');
      await turn();
      scene.clock.advance(5000);
      link.deliver();
    }
    expect(seen).toEqual(changes);
    expect(other.cloud.sent.every((each) => !JSON.stringify(each).includes('"fd00::/64"'))).toBe(
      true
    );
  });

  test('send the newest snapshot again when the channel was full', async () => {
    const { scene, server } = await startServer();
    const link = new Link();
    link.cloud.isFull = true;
    server.attach('site-b', link.cloud, noFault);
    scene.clock.advance(5000);
    expect(server.status('site-b')).toMatchObject({ sentRevision: 0 });
    await scene.registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    scene.clock.advance(100);
    link.cloud.isFull = false;
    scene.clock.advance(500);
    expect(link.cloud.sent).toEqual([
      { type: 'snapshot', snapshot: scene.controller.snapshot('site-b') },
    ]);
    scene.clock.advance(5000);
    expect(link.cloud.sent).toHaveLength(1);
  });

  test('report a snapshot that is too long for the tunnel as a problem', async () => {
    const { scene, server } = await startServer();
    const link = new Link();
    const problems: string[] = [];
    server.on('problem', ({ site, error }) => problems.push(`${site}: ${error.message}`));
    link.cloud.maxBytes = 100;
    server.attach('site-b', link.cloud, noFault);
    expect(problems).toEqual(['site-b: the message is too long']);
    scene.clock.advance(5000);
    expect(problems).toHaveLength(1);
    link.cloud.maxBytes = 1e6;
    await scene.registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    scene.clock.advance(5000);
    expect(link.cloud.sent).toHaveLength(1);
  });

  test('use a newer tunnel, and ignore the end of the older one', async () => {
    const { scene, server } = await startServer();
    const [older, newer] = [new Link(), new Link()];
    older.cloud.isFull = true;
    const endOlder = server.attach('site-a', older.cloud, noFault);
    const endNewer = server.attach('site-a', newer.cloud, noFault);
    expect(older.cloud.listeners).toBe(0);
    endOlder();
    older.cloud.isFull = false;
    scene.clock.advance(5000);
    expect(older.cloud.sent).toEqual([]);
    await scene.registry.expose({ service: 'glance', site: 'site-a' }, 'admin');
    await turn();
    scene.clock.advance(5000);
    expect(newer.cloud.sent).toHaveLength(2);
    endNewer();
    expect(server.status('site-a')).toBeUndefined();
    expect(newer.cloud.listeners).toBe(0);
  });

  test('send nothing to the older tunnel while the newer one takes over', async () => {
    const { scene, server } = await startServer();
    const [older, newer] = [new Link(), new Link()];
    server.attach('site-a', older.cloud, noFault);
    older.deliver();
    await scene.registry.expose({ service: 'glance', site: 'site-a' }, 'admin');
    await turn();
    server.attach('site-a', newer.cloud, noFault);
    expect(older.cloud.sent).toEqual([]);
    expect(newer.cloud.sent).toHaveLength(1);
  });

  test('send no snapshot to a suspended site, and one when it is reinstated', async () => {
    const { scene, server } = await startServer();
    scene.controller.suspend('site-a', true);
    const link = new Link();
    server.attach('site-a', link.cloud, noFault);
    scene.clock.advance(5000);
    expect(link.cloud.sent).toEqual([]);
    scene.controller.suspend('site-a', false);
    scene.clock.advance(2000);
    expect(link.cloud.sent).toHaveLength(1);
  });

  test('have no listener and no timer after the server is closed', async () => {
    const { scene, server } = await startServer();
    const link = new Link();
    link.cloud.isFull = true;
    server.attach('site-a', link.cloud, noFault);
    await server.close();
    await scene.controller.close();
    expect(link.cloud.listeners).toBe(0);
    expect(scene.controller.listenerCount('snapshot')).toBe(0);
    expect(scene.clock.delays).toEqual([]);
  });
});

const MANY_COUNTERS = Object.fromEntries(Array.from({ length: 257 }, (_, i) => [`c${i}`, 1]));

describe('ControlServer', () => {
  test.each<[string, Json, string]>([
    ['no object', 5, 'control message: expected a mapping, got 5'],
    ['null', null, 'control message: expected a mapping, got null'],
    ['a list', [], 'control message: type: is missing'],
    ['no type', {}, 'control message: type: is missing'],
    ['a type that is no text', { type: 7 }, 'control message: type: expected a string, got 7'],
    ['an ack without revision', { type: 'ack' }, 'control message: revision: is missing'],
    [
      'an ack with a negative revision',
      { type: 'ack', revision: -1 },
      `control message: revision: expected a whole number from 1 to ${Number.MAX_SAFE_INTEGER}, got -1`,
    ],
    [
      'an ack with a fraction',
      { type: 'ack', revision: 1.5 },
      `control message: revision: expected a whole number from 1 to ${Number.MAX_SAFE_INTEGER}, got 1.5`,
    ],
    ['a status without counters', { type: 'status' }, 'control message: counters: is missing'],
    [
      'a counter that is no number',
      { type: 'status', counters: { a: '1' } },
      'control message: counters.a: expected a number, got "1"',
    ],
    [
      'a counter of 1e999',
      JSON.parse('{"type":"status","counters":{"a":1e999}}'),
      `control message: counters.a: expected a whole number from 0 to ${Number.MAX_SAFE_INTEGER}, got Infinity`,
    ],
    [
      'too many counters',
      { type: 'status', counters: MANY_COUNTERS },
      'control message: counters: has more than 256 counters',
    ],
    [
      'a counter with a name that is long and forges a log line',
      { type: 'status', counters: { [`\nerror: ${'x'.repeat(100_000)}`]: 1 } },
      `control message: counters["\\nerror: ${'x'.repeat(47)}...]: expected at most 64 characters, got "\\nerror: ${'x'.repeat(47)}...`,
    ],
    ['a snapshot', message(snapshotOf()), 'control message: an edge sent one of type snapshot'],
  ])('reports %s as a fault of the edge', async (_what, json, sentence) => {
    const { server } = await startServer();
    const link = new Link();
    const faults: Error[] = [];
    server.attach('site-a', link.cloud, (error) => faults.push(error));
    const before = server.status('site-a');
    link.cloud.receive(json);
    expect(faults.map((error) => error.message)).toEqual([sentence]);
    expect(faults[0]).toBeInstanceOf(PeerProtocolError);
    expect(server.status('site-a')).toEqual(before);
  });

  test('ignores unknown types and unknown members', async () => {
    const { server } = await startServer();
    const link = new Link();
    server.attach('site-a', link.cloud, noFault);
    link.cloud.receive({ type: 'hologram', counters: 7 });
    link.cloud.receive({ type: '__proto__' });
    link.cloud.receive({ type: 'ack', revision: 3, mood: 'fine' });
    link.cloud.receive(JSON.parse('{"type":"status","counters":{"__proto__":1,"a":2}}'));
    expect(server.status('site-a')).toMatchObject({ appliedRevision: 3, counters: { a: 2 } });
  });
});

describe('ControlClient', () => {
  test('acknowledges when all listeners have returned, and not when one throws', async () => {
    const client = await ControlClient.open({ site: 'site-a' });
    const channel = new FakeChannel();
    const problems: string[] = [];
    client.on('problem', ({ error }) => problems.push(error.message));
    client.attach(channel);
    let sentBefore = -1;
    client.once('snapshot', () => {
      sentBefore = channel.sent.length;
    });
    channel.receive(message(snapshotOf()));
    expect(sentBefore).toBe(0);
    expect(channel.sent).toEqual([{ type: 'ack', revision: 7 }]);
    client.once('snapshot', () => {
      throw new Error('the zone does not compile');
    });
    channel.receive(message(snapshotOf({ revision: 8 })));
    expect(channel.sent).toHaveLength(1);
    expect(problems).toEqual(['the zone does not compile']);
  });

  test('keeps a snapshot whose listener throws', async () => {
    const store = new MemoryStore();
    const client = await ControlClient.open({ site: 'site-a', store });
    const channel = new FakeChannel();
    client.on('problem', () => {});
    client.attach(channel);
    client.once('snapshot', () => {
      throw new Error('the zone does not compile');
    });
    channel.receive(message(snapshotOf({ revision: 8 })));
    await client.close();
    const again = await ControlClient.open({ site: 'site-a', store });
    expect(again.snapshot?.revision).toBe(8);
  });

  test('takes an older revision too, because the last one to arrive counts', async () => {
    const client = await ControlClient.open({ site: 'site-a' });
    const channel = new FakeChannel();
    client.attach(channel);
    channel.receive(message(snapshotOf({ revision: 8 })));
    channel.receive(message(snapshotOf({ revision: 7 })));
    expect(client.snapshot).toMatchObject({ revision: 7 });
  });

  test.each<[string, unknown, string]>([
    [
      "another site's snapshot",
      snapshotOf({ site: 'site-b' }),
      'got the snapshot of "site-b" instead of "site-a"',
    ],
    ['no snapshot', undefined, 'control message: snapshot: is missing, expected a mapping'],
    [
      'a revision of 0',
      snapshotOf({ revision: 0 }),
      `control message: snapshot.revision: expected a whole number from 1 to ${Number.MAX_SAFE_INTEGER}, got 0`,
    ],
    [
      'an address that is none',
      snapshotOf({ pointers: [{ address: '10.0.0', name: 'a' }] }),
      'control message: snapshot.pointers[0].address: "10.0.0" is not an IP address',
    ],
    [
      'a pool that is none',
      snapshotOf({ pools: ['10.0.0.1/8'] }),
      'control message: snapshot.pools[0]: "10.0.0.1/8" has bits set behind its length; did you mean 10.0.0.0/8?',
    ],
    [
      'a TTL beyond the protocol',
      snapshotOf({ ttlSeconds: 2 ** 31 }),
      'control message: snapshot.ttlSeconds: expected a whole number from 0 to 2147483647, got 2147483648',
    ],
  ])('keeps what it has when it gets %s', async (_what, snapshot, sentence) => {
    const store = new MemoryStore();
    const client = await ControlClient.open({ site: 'site-a', store });
    const channel = new FakeChannel();
    const problems: Error[] = [];
    client.on('problem', ({ error }) => problems.push(error));
    client.attach(channel);
    channel.receive(message(snapshotOf()));
    channel.receive(message(snapshot));
    expect(problems.map((error) => error.message)).toEqual([sentence]);
    expect(problems[0]).toBeInstanceOf(PeerProtocolError);
    expect(client.snapshot).toEqual(snapshotOf());
    expect(channel.sent).toEqual([{ type: 'ack', revision: 7 }]);
    expect((await store.get('snapshot'))?.value).toEqual(snapshotOf());
  });

  test('has the last snapshot after a restart without the cloud', async () => {
    const store = new MemoryStore();
    const client = await ControlClient.open({ site: 'site-a', store });
    expect(client.snapshot).toBeUndefined();
    const channel = new FakeChannel();
    client.attach(channel);
    channel.receive(message(snapshotOf()));
    channel.receive(message(snapshotOf({ revision: 8 })));
    client.close();
    expect((await ControlClient.open({ site: 'site-a', store })).snapshot).toEqual(
      snapshotOf({ revision: 8 })
    );
  });

  test.each<[string, Json]>([
    ['of another site', snapshotOf({ site: 'site-b' }) as unknown as Json],
    ['of another version', { revision: 'new' }],
    ['that is no object', 5],
  ])('begins without a snapshot when the stored one is %s', async (_what, value) => {
    const store = new MemoryStore();
    await store.commit([{ key: 'snapshot', value }]);
    expect((await ControlClient.open({ site: 'site-a', store })).snapshot).toBeUndefined();
  });

  test('uses a snapshot that it could not store, and reports a problem', async () => {
    const store = new MemoryStore();
    const client = await ControlClient.open({ site: 'site-a', store });
    await store.close();
    const problems: Error[] = [];
    client.on('problem', ({ error }) => problems.push(error));
    const channel = new FakeChannel();
    client.attach(channel);
    channel.receive(message(snapshotOf()));
    await turn();
    expect(problems).toEqual([expect.any(StoreError)]);
    expect(channel.sent).toEqual([{ type: 'ack', revision: 7 }]);
  });

  test('reports counters when they have changed, and all of them to a new cloud', async () => {
    const clock = new SceneClock();
    const counters = { dropNoTunnel: 0 };
    const client = await ControlClient.open({
      site: 'site-a',
      counters: () => counters,
      statusIntervalMs: 100,
      clock,
    });
    const channel = new FakeChannel();
    client.attach(channel);
    clock.advance(300);
    expect(channel.sent).toEqual([{ type: 'status', counters: { dropNoTunnel: 0 } }]);
    counters.dropNoTunnel = 5;
    channel.isFull = true;
    clock.advance(300);
    channel.isFull = false;
    clock.advance(300);
    expect(channel.sent.slice(1)).toEqual([{ type: 'status', counters: { dropNoTunnel: 5 } }]);
    channel.sent.length = 0;
    channel.receive(message(snapshotOf())); // a cloud that has just come up knows nothing
    clock.advance(300);
    expect(channel.sent.map((each) => (each as { type: string }).type)).toEqual(['ack', 'status']);
  });

  test('listens to the newest channel only, and to none after close', async () => {
    const clock = new SceneClock();
    const client = await ControlClient.open({ site: 'site-a', counters: () => ({}), clock });
    const [first, second] = [new FakeChannel(), new FakeChannel()];
    client.attach(first);
    client.attach(second);
    expect([first.listeners, second.listeners]).toEqual([0, 1]);
    await client.close();
    expect(second.listeners).toBe(0);
    expect(clock.delays).toEqual([]);
  });
});

describe('zoneDataOf', () => {
  test('answers for names in either IP version, and for clients', () => {
    const zone = Zone.compile(
      zoneDataOf(
        received({
          pools: ['10.0.0.128/25', 'fd00::/64'],
          hosts: [
            {
              name: 'mq.a.test',
              addresses: ['10.0.0.129'],
              ports: ['tcp/5672', 'udp/1-9', 'icmp'],
            },
            { name: 'mq.a.test', addresses: ['fd00::1'], ports: ['tcp/5672'] },
            { name: '10-0-0-7.site-b.a.test', addresses: ['10.0.0.130'], ports: [] },
          ],
          pointers: [
            { address: '10.0.0.129', name: 'mq.a.test' },
            { address: 'fd00::1', name: 'mq.a.test' },
            { address: '10.0.0.130', name: '10-0-0-7.site-b.a.test' },
          ],
        }),
        ['10.0.0.1']
      )
    );
    const ask = (name: string, type: number) =>
      zone.lookup(name, type).answers.map(({ content }) => content.data);
    expect(ask('mq.a.test', RecordType.A)).toEqual(['10.0.0.129']);
    expect(ask('mq.a.test', RecordType.AAAA)).toEqual(['fd00::1']);
    expect(ask('130.0.0.10.in-addr.arpa', RecordType.PTR)).toEqual(['10-0-0-7.site-b.a.test.']);
    expect(ask('ns.a.test', RecordType.A)).toEqual(['10.0.0.1']);
  });

  test('names the single ports of TCP and UDP, which are those that SRV records are for', () => {
    const ports = [
      'tcp/80',
      'tcp/7-7',
      'udp/53',
      'udp/1-9',
      'icmp',
      'sctp/80',
      'udplite/80',
      'ip/47',
    ];
    const hosts = [{ name: 'mq.a.test', addresses: ['10.0.0.129'], ports }];
    const data = zoneDataOf(received({ hosts }), []);
    expect(data.hosts[0]!.ports).toEqual([
      { protocol: 'tcp', port: 80 },
      { protocol: 'tcp', port: 7 },
      { protocol: 'udp', port: 53 },
    ]);
  });

  test('keeps the serial within 32 bits', () => {
    const revision = 1_700_000_000_000;
    expect(zoneDataOf(received({ revision }), []).serial).toBe(revision % 2 ** 32);
  });
});
