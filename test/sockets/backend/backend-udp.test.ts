/** A client's stack, a gateway's stack with a UDP backend, and services at real sockets of this machine. */
import { execFile, spawnSync } from 'node:child_process';
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { promisify } from 'node:util';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { DnsListener, SiteResolver } from '../../../src/dns/index.ts';
import { type BackendDialTarget, targetOf } from '../../../src/sockets/backend/backend-dial.ts';
import { UdpBackend, type UdpBackendOptions } from '../../../src/sockets/backend/backend-udp.ts';
import { HostDescriptors } from '../../../src/sockets/backend/host-descriptors.ts';
import type { PresenceDatagramSocket, SocketStack } from '../../../src/sockets/index.ts';
import type { UdpEnds } from '../../../src/sockets/udp/udp-flows.ts';
import { ZONE } from '../../dns/scene.ts';
import { counting } from '../../support/bytes.ts';
import { udpPacket } from '../../support/packets.ts';
import { Random } from '../../support/random.ts';
import { refusingUdpPort } from '../../support/refusing-port.ts';
import { framed, VNET } from '../../support/vnet.ts';
import { StackNetwork } from '../stack-network.ts';
import { address, packetOf, UdpKit } from '../udp/udp-kit.ts';

const CLIENT = { 4: '10.1.0.1', 6: '2001:db8:1::1' } as const;
const SERVICE = { 4: '10.2.0.1', 6: '2001:db8:2::1' } as const;
const LOOPBACK = { 4: '127.0.0.1', 6: '::1' } as const;

const hasDig = spawnSync('dig', ['-v']).status === 0;
const hasIpv6 = Object.values(networkInterfaces()).some((list) =>
  list?.some((each) => each.address === '::1')
);
const families = hasIpv6 ? ([4, 6] as const) : ([4] as const);

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A service of this machine, which answers what `answer` returns. */
async function service(
  family: 4 | 6,
  answer: (payload: Buffer, client: RemoteInfo) => Uint8Array | string
): Promise<{ readonly port: number; readonly clients: RemoteInfo[]; readonly socket: Socket }> {
  const socket = createSocket(`udp${family}`).bind(0, LOOPBACK[family]);
  await once(socket, 'listening');
  cleanups.push(() => socket.close());
  const clients: RemoteInfo[] = [];
  socket.on('message', (payload, client) => {
    clients.push(client);
    socket.send(answer(payload, client), client.port, client.address);
  });
  return { port: socket.address().port, clients, socket };
}

interface Scene {
  readonly network: StackNetwork;
  readonly client: SocketStack;
  readonly gateway: SocketStack;
  readonly backend: UdpBackend;
}

/** The services have other addresses on this machine than in the site: those of loopback. */
function onLoopback(ends: UdpEnds, hasLoopbackSource = false): BackendDialTarget {
  return targetOf(ends, address(LOOPBACK[ends.local.family]), hasLoopbackSource);
}

function open(options: Partial<UdpBackendOptions> = {}): Scene {
  const network = new StackNetwork();
  const client = network.stack(CLIENT[4], CLIENT[6]);
  const gateway = network.stack(SERVICE[4], SERVICE[6]);
  const backend = new UdpBackend({
    udp: gateway.udp,
    icmp: gateway.icmp,
    clock: gateway.clock,
    allows: () => true,
    targetOf: onLoopback,
    maxFlows: 4_096,
    idleMs: 300_000,
    descriptors: new HostDescriptors(65_536),
    ...options,
  });
  cleanups.push(
    () => Promise.all([client.close(), gateway.close()]),
    () => backend.close()
  );
  return { network, client, gateway, backend };
}

async function connected(
  stack: SocketStack,
  family: 4 | 6,
  port: number
): Promise<PresenceDatagramSocket> {
  const socket = stack.datagram(`udp${family}`);
  socket.connect(port, SERVICE[family]);
  await once(socket, 'connect');
  return socket;
}

async function ask(socket: PresenceDatagramSocket, payload: Uint8Array | string): Promise<Buffer> {
  const answer = once(socket, 'message');
  socket.send(payload);
  return (await answer)[0] as Buffer;
}

describe.each(families)('over IPv%i', (family) => {
  test('datagrams of every length go to the service and back, whole', async () => {
    const { port, clients } = await service(family, (payload) => payload);
    const { client, backend } = open();
    const socket = await connected(client, family, port);
    for (const length of [0, 1, 1400, 1500, 9000, 65_507]) {
      const payload = counting(length);
      expect((await ask(socket, payload)).equals(payload), `${length} bytes`).toBe(true);
    }
    expect(new Set(clients.map((each) => each.port)).size).toBe(1);
    expect(backend.size).toBe(1);
    expect(backend.counters).toMatchObject({ toServices: 6, toClients: 6 });
  });

  test('each port of a client is a flow, and the service tells them apart', async () => {
    const { port } = await service(family, (_, { port: from }) => `${from}`);
    const { client, backend } = open();
    const sockets = await Promise.all([1, 2, 3].map(() => connected(client, family, port)));
    const seen = await Promise.all(sockets.map((socket) => ask(socket, 'who am I')));
    const again = await Promise.all(sockets.map((socket) => ask(socket, 'who am I')));
    expect(new Set(seen.map(String)).size).toBe(3);
    expect(again.map(String)).toEqual(seen.map(String));
    expect(backend.size).toBe(3);
  });

  test('a service may answer several times, and by itself', async () => {
    const { port, clients, socket: host } = await service(family, () => 'first');
    const { client } = open();
    const socket = await connected(client, family, port);
    await ask(socket, 'x');
    const more = once(socket, 'message');
    host.send('second', clients[0]!.port, clients[0]!.address);
    expect(String((await more)[0])).toBe('second');
  });
});

test('a port that refuses: the client learns of it by ECONNREFUSED', async () => {
  const refusing = await refusingUdpPort();
  cleanups.push(() => refusing.close());
  const { client, backend } = open();
  const socket = await connected(client, 4, refusing.port);
  const failed = once(socket, 'error');
  socket.send('x');
  expect((await failed)[0]).toMatchObject({ code: 'ECONNREFUSED', port: refusing.port });
  expect(backend.size).toBe(0);
  expect(backend.counters).toMatchObject({ refused: 1, failed: 0 });
});

test('a port at which no service is: ECONNREFUSED, and no socket is made', async () => {
  const dial = vi.fn();
  const { client, gateway, backend } = open({ allows: (_, __, port) => port === 53, dial });
  const socket = await connected(client, 4, 54);
  const failed = once(socket, 'error');
  socket.send('x');
  expect((await failed)[0]).toMatchObject({ code: 'ECONNREFUSED' });
  expect(dial).not.toHaveBeenCalled();
  expect(backend.counters.notAllowed).toBe(1);
  expect(gateway.counters.writtenPackets).toBeGreaterThan(0);
});

test.skipIf(process.platform !== 'linux')(
  'a service on loopback sees the address that the option chose (skipped where 127/8 has one address)',
  async () => {
    const { port } = await service(4, (_, from) => from.address);
    const { client } = open({ targetOf: (ends) => onLoopback(ends, true) });
    const socket = await connected(client, 4, port);
    expect(String(await ask(socket, 'x'))).toBe('127.129.0.1');
  }
);

test('a flow that is withdrawn ends at once: the service gets and the client hears nothing more', async () => {
  const { port, clients, socket: host } = await service(4, () => 'answer');
  const { client, backend } = open();
  const socket = await connected(client, 4, port);
  await ask(socket, 'x');
  backend.withdraw(address(SERVICE[4]), ({ localPort }) => localPort === port);
  expect(backend.size).toBe(0);
  const heard: string[] = [];
  socket.on('message', (payload) => heard.push(String(payload)));
  const before = clients[0]!;
  await new Promise((resolve) => host.send('late', before.port, before.address, resolve));
  // A new datagram is a new flow: the service sees another port.
  await ask(socket, 'y');
  expect(clients[1]!.port).not.toBe(before.port);
  expect(heard).toEqual(['answer']);
});

test('one site that floods does not keep another from its service', async () => {
  const flooded = await service(4, () => '');
  const { port } = await service(4, (payload) => payload);
  const { client, gateway, backend } = open({
    maxFlows: 16,
    siteOf: (from) => (from.equals(address(CLIENT[4])) ? 'talks' : 'floods'),
  });
  const socket = await connected(client, 4, port);
  const random = new Random(1);
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < 100; i++) {
      const source = `10.1.${random.between(1, 255)}.${random.between(1, 254)}`;
      const fields = {
        sourcePort: random.between(1, 65_535),
        destinationPort: flooded.port,
        payload: Buffer.alloc(100),
      };
      const frame = Buffer.from(framed(udpPacket({ source, destination: SERVICE[4] }, fields)));
      gateway.write(frame, 0, frame.length);
    }
    expect(String(await ask(socket, `round ${round}`))).toBe(`round ${round}`);
  }
  expect(backend.size).toBeLessThanOrEqual(16);
  expect(backend.counters.evicted).toBeGreaterThan(1000);
});

test('mutated packets throw nothing, and afterwards a client still gets its answers', async () => {
  const { port } = await service(4, (payload) => payload);
  const allows: UdpBackendOptions['allows'] = (_, __, to) => to === port;
  const { client, gateway, backend } = open({ maxFlows: 64, allows });
  const socket = await connected(client, 4, port);
  const random = new Random(7);
  for (let i = 0; i < 2000; i++) {
    const fields = { sourcePort: 1 + (i % 50), destinationPort: port, payload: counting(40) };
    const packet = udpPacket({ source: '10.1.0.9', destination: SERVICE[4] }, fields);
    const frame = Buffer.from(framed(packet));
    for (let n = random.below(4); n >= 0; n--) {
      frame[VNET + random.below(frame.length - VNET)]! ^= 1 << random.below(8);
    }
    gateway.write(frame, 0, frame.length - random.below(3));
  }
  expect(String(await ask(socket, 'still here'))).toBe('still here');
  expect(backend.size).toBeLessThanOrEqual(64);
});

test('the flows end with the stack', async () => {
  const { port } = await service(4, (payload) => payload);
  const { client, gateway, backend } = open();
  await ask(await connected(client, 4, port), 'x');
  await gateway.close();
  await vi.waitFor(() => expect(backend.size).toBe(0));
});

test('without the option `dial`, the socket connects to the real address of the service', async () => {
  const { port } = await service(4, (payload) => payload);
  const kit = new UdpKit();
  const backend = new UdpBackend({
    udp: kit.udp,
    icmp: { report: () => {} },
    clock: { wallMs: () => 0, monotonicMs: () => 0, after: () => () => {} },
    allows: () => true,
    targetOf: (ends) => targetOf(ends, ends.local, false),
    maxFlows: 1,
    idleMs: 1,
    descriptors: new HostDescriptors(1),
  });
  cleanups.push(() => backend.close());
  const ready = new Promise<void>((resolve) => {
    kit.udp.onReady = resolve;
  });
  const fields = { sourcePort: 9, destinationPort: port, payload: counting(20) };
  kit.receive(udpPacket({ source: '10.1.0.9', destination: '127.0.0.1' }, fields));
  kit.udp.takeEvents();
  await ready;
  expect(
    packetOf(kit.read()!)
      .subarray(28)
      .equals(Buffer.from(counting(20)))
  ).toBe(true);
});

describe.skipIf(!hasDig)('dig (skipped where the Debian package bind9-dnsutils is missing)', () => {
  test.each([
    ['keystone.openstack.test A', /status: NOERROR.*\sA\s100\.64\.0\.2\n/s],
    ['rabbit.mq.openstack.test AAAA', /\sAAAA\s2001:db8:64::3\n/],
    ['nobody.openstack.test A', /status: NXDOMAIN/],
  ])('asks a DnsListener behind the backend: %s', async (question, expected) => {
    const listener = await DnsListener.listen({
      resolver: new SiteResolver({ zone: ZONE }),
      listen: '127.0.0.1:0',
    });
    cleanups.push(() => listener.close());
    const { client, backend } = open();
    const { port } = await forward(client, listener.address.port);
    const { stdout } = await promisify(execFile)('dig', [
      ...['@127.0.0.1', '-p', `${port}`, '+tries=1', '+notcp'],
      ...question.split(' '),
    ]);
    expect(stdout).toMatch(expected);
    expect(listener.counters.udpQueries).toBe(1);
    expect(backend.counters).toMatchObject({ toServices: 1, toClients: 1 });
  });
});

/** A port of this machine whose datagrams go by the client's stack to a port of the service, each as its own client. */
async function forward(stack: SocketStack, port: number): Promise<{ readonly port: number }> {
  const host = createSocket('udp4').bind(0, '127.0.0.1');
  await once(host, 'listening');
  cleanups.push(() => host.close());
  host.on('message', (payload, from) => {
    const socket = stack.datagram('udp4');
    socket.on('message', (answer) => host.send(answer, from.port, from.address));
    socket.send(payload, port, SERVICE[4]);
  });
  return host.address();
}
