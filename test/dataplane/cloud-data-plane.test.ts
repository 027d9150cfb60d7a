/**
 * The cloud's data plane with a real translator and a real controller. Both sites and the cloud have
 * the same addresses; the host of interest is 10.0.0.5 everywhere.
 */
import { describe, expect, test } from 'vitest';
import { CloudDataPlane, type PendingQueueOptions } from '../../src/dataplane/index.ts';
import { DESIRED, type Desired, type Scene, startScene, turn } from '../control/scene.ts';
import { FakeTunnel } from '../support/fake-tunnel.ts';
import { type Ends, SYN, tcpPacket } from '../support/packets.ts';
import { TestDevice } from '../support/test-device.ts';
import { framed } from '../support/vnet.ts';

const STATE: Desired = {
  ...DESIRED,
  exposures: [...DESIRED.exposures, { service: 'console-a', site: 'site-b' }],
};
const HOST = '10.0.0.5';
const MQ = 5672;
const CONSOLE = 6080;

interface Cloud {
  readonly scene: Scene;
  readonly lan: TestDevice;
  readonly plane: CloudDataPlane;
  /** The cloud's ends. */
  readonly tunnels: Readonly<Record<'site-a' | 'site-b', FakeTunnel>>;
  /** The edges' ends. */
  readonly edges: Readonly<Record<'site-a' | 'site-b', FakeTunnel>>;
  /** The packets that each edge received. */
  readonly received: Readonly<Record<'site-a' | 'site-b', Buffer[]>>;
  readonly detach: Readonly<Record<'site-a' | 'site-b', () => void>>;
  /** The presence of a host in a realm. */
  presence(realm: string, site: string, address?: string): string;
}

interface CloudOptions {
  readonly desired?: Desired;
  readonly capacity?: number;
  readonly batch?: number;
  readonly queueLength?: number;
  readonly waiting?: PendingQueueOptions;
}

async function startCloud(options: CloudOptions = {}): Promise<Cloud> {
  const { desired = STATE, capacity, batch, queueLength = 1024, waiting } = options;
  const scene = await startScene(desired);
  const lan = new TestDevice({ queueLength });
  const plane = new CloudDataPlane({
    cloud: 'cloud',
    device: lan.device,
    translator: scene.translator.real,
    admit: async (ingress, source, egress, family) => {
      await scene.controller.admit(ingress, source, egress, family);
    },
    ...(batch === undefined ? {} : { batch }),
    ...(waiting === undefined ? {} : { waiting }),
  });
  const [edgeA, cloudA] = FakeTunnel.pair('site-a', capacity);
  const [edgeB, cloudB] = FakeTunnel.pair('site-b', capacity);
  const received = { 'site-a': [] as Buffer[], 'site-b': [] as Buffer[] };
  collect(edgeA, received['site-a']);
  collect(edgeB, received['site-b']);
  const detach = {
    'site-a': plane.attach('site-a', cloudA),
    'site-b': plane.attach('site-b', cloudB),
  };
  plane.start();
  return {
    scene,
    lan,
    plane,
    tunnels: { 'site-a': cloudA, 'site-b': cloudB },
    edges: { 'site-a': edgeA, 'site-b': edgeB },
    received,
    detach,
    presence: (realm, site, address = HOST) => {
      const found = scene.translator.addressOf(realm, site, address);
      if (found === undefined) throw new Error(`${address} of ${site} has no presence in ${realm}`);
      return found;
    },
  };
}

function collect(edge: FakeTunnel, into: Buffer[]): void {
  edge.onPacket = (buffer, start, end) => {
    into.push(Buffer.from(buffer.subarray(start, end)));
  };
}

/** A TCP segment with a number that identifies it. */
function packet(
  ends: Ends,
  ports: { readonly from?: number; readonly to?: number },
  number: number,
  length = 200
): Uint8Array {
  const payload = new Uint8Array(length).map((_, i) => (i * 13 + number) & 255);
  const { from = 40_000, to = 40_000 } = ports;
  return framed(
    tcpPacket(ends, {
      sourcePort: from,
      destinationPort: to,
      payload,
      identification: number,
      flags: from === 40_000 && number === 0 ? SYN : 0x18,
    })
  );
}

function send(edge: FakeTunnel, ...frames: Uint8Array[]): void {
  for (const frame of frames) {
    if (!edge.sendPacket(Buffer.from(frame), 0, frame.length)) throw new Error('not taken');
  }
  edge.flush();
  edge.deliver();
}

const hex = (frames: readonly Uint8Array[]) =>
  frames.map((frame) => Buffer.from(frame).toString('hex'));
const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

/** The reply of the cloud's RabbitMQ to the host of a site, as the cloud's LAN has it. */
function reply(cloud: Cloud, site: string, number: number, length?: number): Uint8Array {
  const ends = { source: HOST, destination: cloud.presence('cloud', site) };
  return packet(ends, { from: MQ }, number, length);
}

/** The same as the site has it. */
function replyAt(cloud: Cloud, site: string, number: number, length?: number): Uint8Array {
  const ends = { source: cloud.presence(site, 'cloud'), destination: HOST };
  return packet(ends, { from: MQ }, number, length);
}

/** A request of a site's host to the cloud's RabbitMQ, as the site has it. */
function ask(cloud: Cloud, site: string, number: number, source = HOST): Uint8Array {
  return packet({ source, destination: cloud.presence(site, 'cloud') }, { to: MQ }, number);
}

/** The same as the cloud's LAN has it. */
function askedAt(cloud: Cloud, site: string, number: number, source = HOST): Uint8Array {
  const ends = { source: cloud.presence('cloud', site, source), destination: HOST };
  return packet(ends, { to: MQ }, number);
}

const NO_DROPS = {
  cut: 0,
  replies: 0,
  dropUncut: 0,
  dropNoTunnel: 0,
  sentLate: 0,
  dropTunnelFull: 0,
  dropDeviceFull: 0,
  dropWaitingFull: 0,
  dropNotAdmitted: 0,
};

describe('between cloud and sites', () => {
  test('requests and replies pass, and each side sees its own addresses', async () => {
    const cloud = await startCloud();
    await cloud.scene.controller.admit('site-b', HOST, 'cloud', 4);
    for (const site of ['site-a', 'site-b'] as const) {
      send(cloud.edges[site], ...numbers(3).map((n) => ask(cloud, site, n)));
      expect(hex(cloud.lan.taken())).toEqual(hex(numbers(3).map((n) => askedAt(cloud, site, n))));
      cloud.lan.send(...numbers(3).map((n) => reply(cloud, site, n)));
      cloud.lan.run();
      cloud.tunnels[site].deliver();
      expect(hex(cloud.received[site])).toEqual(
        hex(numbers(3).map((n) => replyAt(cloud, site, n)))
      );
    }
    expect(cloud.presence('cloud', 'site-a')).not.toBe(cloud.presence('cloud', 'site-b'));
    expect(cloud.plane.counters).toEqual(NO_DROPS);
  });

  test('packets that alternate between sites arrive at the correct site, byte for byte', async () => {
    const cloud = await startCloud({ batch: 16 });
    await cloud.scene.controller.admit('site-b', HOST, 'cloud', 4);
    const sites = ['site-a', 'site-b'] as const;
    const order = numbers(400).map((n) => sites[(n * n + (n >> 3)) % 2]!);
    const length = (n: number) => (n * 997) % 3000;
    for (let from = 0; from < order.length; from += 50) {
      const part = numbers(50).map((i) => from + i);
      cloud.lan.send(...part.map((n) => reply(cloud, order[n]!, n, length(n))));
      cloud.lan.run();
      for (const site of sites) cloud.tunnels[site].deliver();
    }
    for (const site of sites) {
      const expected = numbers(400).filter((n) => order[n] === site);
      expect(expected.length).toBeGreaterThan(50);
      expect(hex(cloud.received[site])).toEqual(
        hex(expected.map((n) => replyAt(cloud, site, n, length(n))))
      );
    }
    expect(cloud.plane.counters).toEqual(NO_DROPS);
  });

  test('a super-packet with a partial checksum is not split', async () => {
    const cloud = await startCloud();
    const offload = { flags: 1, gsoType: 1, gsoSize: 1400, checksumStart: 20, checksumOffset: 16 };
    const segment = {
      sourcePort: MQ,
      destinationPort: 40_000,
      checksum: 'partial' as const,
      payload: new Uint8Array(64_000).fill(5),
    };
    const inside = { source: HOST, destination: cloud.presence('cloud', 'site-a') };
    const outside = { source: cloud.presence('site-a', 'cloud'), destination: HOST };
    cloud.lan.send(framed(tcpPacket(inside, segment), offload));
    cloud.lan.run();
    cloud.tunnels['site-a'].deliver();
    expect(hex(cloud.received['site-a'])).toEqual(
      hex([framed(tcpPacket(outside, segment), offload)])
    );
  });

  test('a packet belongs to the site whose tunnel brought it, whatever its bytes are', async () => {
    const cloud = await startCloud({ desired: DESIRED });
    await cloud.scene.controller.admit('site-b', HOST, 'cloud', 4);
    const bytes = ask(cloud, 'site-a', 1);
    expect(hex([ask(cloud, 'site-b', 1)])).toEqual(hex([bytes]));
    send(cloud.edges['site-a'], bytes);
    send(cloud.edges['site-b'], bytes);
    expect(hex(cloud.lan.taken())).toEqual(
      hex([askedAt(cloud, 'site-a', 1), askedAt(cloud, 'site-b', 1)])
    );
  });

  test('a packet with another verdict than Forward is not sent', async () => {
    const cloud = await startCloud();
    const good = { source: HOST, destination: cloud.presence('site-a', 'cloud') };
    send(
      cloud.edges['site-a'],
      packet(good, { to: 22 }, 1), // not exposed
      packet({ ...good, destination: '10.0.0.250' }, { to: MQ }, 2), // no presence
      packet({ ...good, source: '192.0.2.1' }, { to: MQ }, 3), // not of the site
      packet({ ...good, source: '10.0.0.140' }, { to: MQ }, 4), // a presence's address
      packet(good, { to: MQ }, 5).subarray(0, 60), // truncated
      new Uint8Array(0),
      new Uint8Array(9),
      new Uint8Array(10)
    );
    const likely = { source: HOST, destination: cloud.presence('cloud', 'site-a') };
    cloud.lan.send(
      reply(cloud, 'site-a', 1),
      packet(likely, { from: 22 }, 2),
      packet({ ...likely, destination: '10.0.0.250' }, { from: MQ }, 3),
      packet({ ...likely, source: '192.0.2.1' }, { from: MQ }, 4),
      reply(cloud, 'site-a', 5)
    );
    cloud.lan.run();
    cloud.tunnels['site-a'].deliver();
    cloud.tunnels['site-b'].deliver();
    await turn();
    expect(cloud.lan.taken()).toEqual([]);
    expect(cloud.received['site-b']).toEqual([]);
    expect(hex(cloud.received['site-a'])).toEqual(
      hex([replyAt(cloud, 'site-a', 1), replyAt(cloud, 'site-a', 5)])
    );
    expect(cloud.plane.counters).toEqual(NO_DROPS);
  });

  test('nothing passes to or from a suspended site', async () => {
    const cloud = await startCloud();
    const [out, back] = [ask(cloud, 'site-a', 1), reply(cloud, 'site-a', 1)];
    send(cloud.edges['site-a'], out);
    expect(cloud.lan.taken()).toHaveLength(1);
    cloud.scene.controller.suspend('site-a', true);
    send(cloud.edges['site-a'], out);
    cloud.lan.send(back);
    cloud.lan.run();
    cloud.tunnels['site-a'].deliver();
    await turn();
    expect(cloud.lan.taken()).toEqual([]);
    expect(cloud.received['site-a']).toEqual([]);
  });
});

describe('between sites', () => {
  test('a request gets its reply, through the cloud and not over its LAN', async () => {
    const cloud = await startCloud();
    const destination = cloud.presence('site-b', 'site-a');
    send(cloud.edges['site-b'], packet({ source: HOST, destination }, { to: CONSOLE }, 0));
    await turn();
    cloud.tunnels['site-a'].deliver();
    const client = cloud.presence('site-a', 'site-b');
    expect(hex(cloud.received['site-a'])).toEqual(
      hex([packet({ source: client, destination: HOST }, { to: CONSOLE }, 0)])
    );
    send(
      cloud.edges['site-a'],
      packet({ source: HOST, destination: client }, { from: CONSOLE }, 1)
    );
    cloud.tunnels['site-b'].deliver();
    expect(hex(cloud.received['site-b'])).toEqual(
      hex([packet({ source: destination, destination: HOST }, { from: CONSOLE }, 1)])
    );
    expect(cloud.lan.taken()).toEqual([]);
  });
});

describe('a new client', () => {
  const NEW = '10.0.0.77';

  test('waits until its presence is stored, then its packets are sent in order', async () => {
    const cloud = await startCloud();
    const open = cloud.scene.store.hold();
    send(cloud.edges['site-a'], ...numbers(5).map((n) => ask(cloud, 'site-a', n, NEW)));
    await turn();
    send(cloud.edges['site-a'], ask(cloud, 'site-a', 5, NEW));
    await turn();
    expect(cloud.lan.taken()).toEqual([]);
    open();
    await turn();
    expect(hex(cloud.lan.taken())).toEqual(
      hex(numbers(6).map((n) => askedAt(cloud, 'site-a', n, NEW)))
    );
    expect(cloud.scene.translator.unstored).toEqual([]);
    expect(cloud.plane.counters).toEqual(NO_DROPS);
    send(cloud.edges['site-a'], ask(cloud, 'site-a', 6, NEW));
    expect(hex(cloud.lan.taken())).toEqual(hex([askedAt(cloud, 'site-a', 6, NEW)]));
  });

  test('does not delay the others', async () => {
    const cloud = await startCloud();
    const open = cloud.scene.store.hold();
    send(cloud.edges['site-a'], ask(cloud, 'site-a', 0, NEW), ask(cloud, 'site-a', 1));
    expect(hex(cloud.lan.taken())).toEqual(hex([askedAt(cloud, 'site-a', 1)]));
    open();
    await turn();
    expect(cloud.lan.taken()).toHaveLength(1);
  });

  test('of another site at the same address waits for its own presence', async () => {
    const cloud = await startCloud();
    send(cloud.edges['site-a'], ask(cloud, 'site-a', 1, NEW));
    send(cloud.edges['site-b'], ask(cloud, 'site-b', 2, NEW));
    await turn();
    expect(hex(cloud.lan.taken())).toEqual(
      hex([askedAt(cloud, 'site-a', 1, NEW), askedAt(cloud, 'site-b', 2, NEW)])
    );
  });

  test('may queue packets up to the limit of its site', async () => {
    const cloud = await startCloud({ waiting: { maxPackets: 3 } });
    const open = cloud.scene.store.hold();
    send(cloud.edges['site-a'], ...numbers(5).map((n) => ask(cloud, 'site-a', n, NEW)));
    send(cloud.edges['site-b'], ...numbers(2).map((n) => ask(cloud, 'site-b', n, NEW)));
    expect(cloud.plane.counters.dropWaitingFull).toBe(2);
    open();
    await turn();
    expect(hex(cloud.lan.taken())).toEqual(
      hex([
        ...numbers(3).map((n) => askedAt(cloud, 'site-a', n, NEW)),
        ...numbers(2).map((n) => askedAt(cloud, 'site-b', n, NEW)),
      ])
    );
  });

  test('whose presence is refused loses its packets, and may try again', async () => {
    const sites = STATE.sites.map((site) => ({ ...site, maxClients: 0 }));
    const cloud = await startCloud({ desired: { ...STATE, sites } });
    send(cloud.edges['site-a'], ...numbers(3).map((n) => ask(cloud, 'site-a', n, NEW)));
    await turn();
    expect(cloud.plane.counters).toEqual({ ...NO_DROPS, dropNotAdmitted: 3 });
    send(cloud.edges['site-a'], ask(cloud, 'site-a', 3, NEW));
    await turn();
    expect(cloud.plane.counters.dropNotAdmitted).toBe(4);
    expect(cloud.lan.taken()).toEqual([]);
  });

  test('whose presence cannot be stored is admitted when the store works again', async () => {
    const cloud = await startCloud();
    cloud.scene.store.isFailing = true;
    send(cloud.edges['site-a'], ask(cloud, 'site-a', 0, NEW));
    await turn();
    expect(cloud.plane.counters.dropNotAdmitted).toBe(1);
    expect(cloud.lan.taken()).toEqual([]);
    cloud.scene.store.isFailing = false;
    send(cloud.edges['site-a'], ask(cloud, 'site-a', 1, NEW));
    await turn();
    expect(hex(cloud.lan.taken())).toEqual(hex([askedAt(cloud, 'site-a', 1, NEW)]));
    await cloud.scene.controller.close();
  });

  test('of a site that is suspended while it waits sends nothing', async () => {
    const cloud = await startCloud();
    const open = cloud.scene.store.hold();
    send(cloud.edges['site-a'], ask(cloud, 'site-a', 0, NEW));
    await turn();
    cloud.scene.controller.suspend('site-a', true);
    open();
    await turn();
    expect(cloud.lan.taken()).toEqual([]);
    expect(cloud.plane.counters.dropNotAdmitted).toBe(1);
  });

  test('in the cloud is admitted to a site too', async () => {
    const cloud = await startCloud();
    const destination = cloud.presence('cloud', 'site-a');
    cloud.lan.send(
      ...numbers(3).map((n) => packet({ source: NEW, destination }, { to: CONSOLE }, n))
    );
    cloud.lan.run();
    await turn();
    cloud.tunnels['site-a'].deliver();
    const ends = { source: cloud.presence('site-a', 'cloud', NEW), destination: HOST };
    expect(hex(cloud.received['site-a'])).toEqual(
      hex(numbers(3).map((n) => packet(ends, { to: CONSOLE }, n)))
    );
  });
});

describe('limits', () => {
  test('a site that does not read loses its own packets only', async () => {
    const cloud = await startCloud({ capacity: 4, batch: 8 });
    await cloud.scene.controller.admit('site-b', HOST, 'cloud', 4);
    for (const n of numbers(20)) {
      cloud.lan.send(reply(cloud, 'site-a', n), reply(cloud, 'site-b', n));
      cloud.lan.run();
      cloud.tunnels['site-b'].deliver();
    }
    expect(hex(cloud.received['site-b'])).toEqual(
      hex(numbers(20).map((n) => replyAt(cloud, 'site-b', n)))
    );
    expect(cloud.plane.counters).toEqual({ ...NO_DROPS, dropTunnelFull: 16 });
    cloud.tunnels['site-a'].deliver();
    expect(hex(cloud.received['site-a'])).toEqual(
      hex(numbers(4).map((n) => replyAt(cloud, 'site-a', n)))
    );
    cloud.lan.send(reply(cloud, 'site-a', 20));
    cloud.lan.run();
    cloud.tunnels['site-a'].deliver();
    expect(cloud.received['site-a']).toHaveLength(5);
  });

  test('reads at most a batch in a turn, and flushes it', async () => {
    const cloud = await startCloud({ batch: 4 });
    cloud.lan.send(...numbers(10).map((n) => reply(cloud, 'site-a', n)));
    const carried: number[] = [];
    for (let i = 0; i < 3; i++) {
      cloud.lan.turn();
      carried.push(cloud.tunnels['site-a'].deliver());
    }
    expect(carried).toEqual([4, 4, 2]);
  });

  test('flushes packets from a tunnel when its batch ends', async () => {
    const cloud = await startCloud();
    await cloud.scene.controller.admit('site-b', HOST, 'site-a', 4);
    const destination = cloud.presence('site-b', 'site-a');
    const before = cloud.tunnels['site-a'].flushes;
    send(
      cloud.edges['site-b'],
      ...numbers(5).map((n) => packet({ source: HOST, destination }, { to: CONSOLE }, n))
    );
    expect(cloud.tunnels['site-a'].flushes - before).toBe(1);
    expect(cloud.tunnels['site-a'].deliver()).toBe(5);
  });

  test('leaves no tunnel with reserved memory when the device has no more packets', async () => {
    const cloud = await startCloud();
    await cloud.scene.controller.admit('site-b', HOST, 'cloud', 4);
    const steps = [
      [reply(cloud, 'site-a', 0)],
      [reply(cloud, 'site-b', 1)],
      [packet({ source: HOST, destination: '10.0.0.250' }, { from: MQ }, 2)],
      [reply(cloud, 'site-b', 3), reply(cloud, 'site-a', 4)],
    ];
    for (const frames of steps) {
      cloud.lan.send(...frames);
      cloud.lan.run();
      expect(cloud.tunnels['site-a'].isHoldingSlab).toBe(false);
      expect(cloud.tunnels['site-b'].isHoldingSlab).toBe(false);
    }
  });

  test('counts the packets that the device refuses', async () => {
    const cloud = await startCloud({ queueLength: 3 });
    send(cloud.edges['site-a'], ...numbers(5).map((n) => ask(cloud, 'site-a', n)));
    expect(hex(cloud.lan.taken())).toEqual(hex(numbers(3).map((n) => askedAt(cloud, 'site-a', n))));
    expect(cloud.plane.counters).toEqual({ ...NO_DROPS, dropDeviceFull: 2 });
  });
});

describe('tunnels that are attached and detached', () => {
  test('packets for a site without a tunnel are dropped and counted, but for the newest of a flow', async () => {
    const cloud = await startCloud();
    cloud.lan.send(reply(cloud, 'site-a', 0));
    cloud.lan.run();
    cloud.detach['site-a']();
    cloud.lan.send(reply(cloud, 'site-a', 1), reply(cloud, 'site-a', 2));
    cloud.lan.run();
    expect(cloud.plane.counters).toEqual({ ...NO_DROPS, dropNoTunnel: 1 });
    // The newest one of the flow is kept until there is a tunnel.
    let detach = (): void => {};
    const attach = (): Buffer[] => {
      const [edge, newer] = FakeTunnel.pair('site-a');
      const received: Buffer[] = [];
      collect(edge, received);
      detach = cloud.plane.attach('site-a', newer);
      newer.deliver();
      return received;
    };
    expect(hex(attach())).toEqual(hex([replyAt(cloud, 'site-a', 2)]));
    expect(cloud.plane.counters.sentLate).toBe(1);
    detach();
    cloud.lan.send(reply(cloud, 'site-a', 3));
    cloud.lan.run();
    cloud.plane.forgetKept();
    expect(attach()).toEqual([]);
    expect(cloud.plane.counters).toEqual({ ...NO_DROPS, dropNoTunnel: 2, sentLate: 1 });
    expect(cloud.tunnels['site-a'].deliver()).toBe(1);
  });

  test('a detached tunnel delivers no more packets', async () => {
    const cloud = await startCloud();
    cloud.detach['site-a']();
    send(cloud.edges['site-a'], ask(cloud, 'site-a', 0));
    expect(cloud.lan.taken()).toEqual([]);
  });

  test('a newer tunnel replaces the older one, whose end then changes nothing', async () => {
    const cloud = await startCloud();
    cloud.lan.send(reply(cloud, 'site-a', 0));
    cloud.lan.run();
    const [edge, newer] = FakeTunnel.pair('site-a');
    const received: Buffer[] = [];
    collect(edge, received);
    cloud.plane.attach('site-a', newer);
    send(cloud.edges['site-a'], ask(cloud, 'site-a', 1));
    expect(cloud.lan.taken()).toEqual([]);
    cloud.detach['site-a']();
    cloud.lan.send(reply(cloud, 'site-a', 2), reply(cloud, 'site-a', 3));
    cloud.lan.run();
    newer.deliver();
    expect(hex(received)).toEqual(hex([2, 3].map((n) => replyAt(cloud, 'site-a', n))));
    send(edge, ask(cloud, 'site-a', 4));
    expect(hex(cloud.lan.taken())).toEqual(hex([askedAt(cloud, 'site-a', 4)]));
    expect(cloud.plane.counters).toEqual(NO_DROPS);
  });

  test('a device is told of its own packets that no tunnel takes, and of no others', async () => {
    const cloud = await startCloud({ capacity: 2 });
    await cloud.scene.controller.admit('site-b', HOST, 'cloud', 4);
    await cloud.scene.controller.admit('site-b', HOST, 'site-a', 4);
    const refused: number[] = [];
    const { device } = cloud.lan;
    Object.assign(device, { refused: () => void refused.push(device.counters.readPackets) });
    cloud.lan.send(...numbers(4).map((n) => reply(cloud, 'site-a', n)));
    cloud.lan.send(reply(cloud, 'site-b', 4));
    cloud.lan.run();
    expect(refused).toEqual([3, 4]);
    // This packet is refused in the frame that it was read into.
    cloud.tunnels['site-b'].commit = () => false;
    cloud.lan.send(reply(cloud, 'site-b', 5));
    cloud.lan.run();
    expect(refused).toEqual([3, 4, 6]);
    // A packet of another site, an unknown destination, and a site without a tunnel, of which it is told.
    const destination = cloud.presence('site-b', 'site-a');
    send(cloud.edges['site-b'], packet({ source: HOST, destination }, { to: CONSOLE }, 0));
    cloud.lan.send(packet({ source: HOST, destination: '192.0.2.1' }, { from: MQ }, 6));
    cloud.detach['site-a']();
    cloud.lan.send(reply(cloud, 'site-a', 7));
    cloud.lan.run();
    expect(cloud.plane.counters).toEqual({ ...NO_DROPS, dropTunnelFull: 4 });
    expect(refused).toEqual([3, 4, 6, 8]);
  });

  test('a broken tunnel that is not detached yet loses only its own packets', async () => {
    const cloud = await startCloud();
    cloud.lan.send(reply(cloud, 'site-a', 0));
    cloud.lan.run();
    cloud.tunnels['site-a'].break();
    await cloud.scene.controller.admit('site-b', HOST, 'cloud', 4);
    cloud.lan.send(reply(cloud, 'site-a', 1), reply(cloud, 'site-b', 2), reply(cloud, 'site-a', 3));
    cloud.lan.run();
    cloud.tunnels['site-b'].deliver();
    expect(hex(cloud.received['site-b'])).toEqual(hex([replyAt(cloud, 'site-b', 2)]));
    expect(cloud.plane.counters).toEqual({ ...NO_DROPS, dropTunnelFull: 2 });
  });

  test('packets that waited for a presence leave through the current tunnel', async () => {
    const cloud = await startCloud();
    const open = cloud.scene.store.hold();
    const destination = cloud.presence('cloud', 'site-a');
    cloud.lan.send(packet({ source: '10.0.0.77', destination }, { to: CONSOLE }, 0));
    cloud.lan.run();
    cloud.detach['site-a']();
    const [edge, newer] = FakeTunnel.pair('site-a');
    const received: Buffer[] = [];
    collect(edge, received);
    cloud.plane.attach('site-a', newer);
    open();
    await turn();
    newer.deliver();
    expect(received).toHaveLength(1);
  });
});
