/**
 * What programs and operators see of the bounds of a stack: the codes of errors, the counters, and that other sockets
 * go on.
 */
import { once } from 'node:events';
import { expect, test } from 'vitest';
import type { PresenceSocket } from '../../src/sockets/stream/socket.ts';
import { StackNetwork } from './stack-network.ts';
import { RoundClock } from './storm-kit.ts';

const SERVER = '10.2.0.1';

const failure = (socket: PresenceSocket): Promise<NodeJS.ErrnoException> =>
  new Promise((resolve) => socket.once('error', resolve));

test('a connection too many fails with ENOBUFS, and the next one works when another has ended', async () => {
  const network = new StackNetwork();
  const client = network.stackWith({ address: ['10.1.0.1'], limits: { connections: 2 } });
  const server = network.stack(SERVER);
  server.createServer((socket) => socket.on('error', () => {}).resume()).listen(80);
  const first = client.connect(80, SERVER);
  const second = client.connect(80, SERVER);
  await Promise.all([once(first, 'connect'), once(second, 'connect')]);
  const error = await failure(client.connect(80, SERVER));
  expect(error).toMatchObject({ code: 'ENOBUFS', syscall: 'connect', address: SERVER, port: 80 });
  expect(error.errno).toBeLessThan(0);
  first.resetAndDestroy();
  await once(first, 'close');
  const next = client.connect(80, SERVER);
  await once(next, 'connect');
  expect(second.readyState).toBe('open');
});

test('a reset gives the memory back of what nobody has read', async () => {
  const network = new StackNetwork();
  const client = network.stack('10.1.0.1');
  const server = network.stack(SERVER);
  const listener = server.createServer({ pauseOnConnect: true }).listen(80);
  const socket = client.connect(80, SERVER).on('error', () => {});
  socket.write(Buffer.alloc(200_000));
  const [accepted] = (await once(listener, 'connection')) as [PresenceSocket];
  while (server.tcp.memory.used < 65_536) await new Promise((resolve) => setImmediate(resolve));
  accepted.resetAndDestroy();
  await once(accepted, 'close');
  const { used, usedSmall } = server.tcp.memory;
  expect({ used, usedSmall }).toEqual({ used: 0, usedSmall: 0 });
});

test('a socket without progress whose memory others need fails with ENOBUFS', async () => {
  const clock = new RoundClock();
  const network = new StackNetwork(clock);
  const client = network.stack('10.1.0.1');
  const server = network.stackWith({ address: [SERVER], limits: { bufferBytes: 65_536 } });
  const accepted: PresenceSocket[] = [];
  const listener = server.createServer({ pauseOnConnect: true }, (socket) => {
    accepted.push(socket);
  });
  listener.listen(80);
  const connect = async (): Promise<PresenceSocket> => {
    const socket = client.connect(80, SERVER);
    socket.on('error', () => {});
    await clock.during(once(socket, 'connect'));
    await clock.until(
      () => accepted.length > 0 && accepted.at(-1)!.remotePort === socket.localPort
    );
    return socket;
  };
  const stuck = await connect();
  const other = await connect();
  const [held, reader] = accepted as [PresenceSocket, PresenceSocket];
  const evicted = failure(held);
  // More than the stream takes: the rest fills the memory of the stack.
  stuck.write(Buffer.alloc(200_000));
  await clock.pass(1_000);
  expect(server.tcp.memory.isTight).toBe(true);
  // The client probes for a window, ever more seldom.
  await clock.pass(400_000, 1_000);
  other.write(Buffer.alloc(200_000));
  await clock.pass(2_000);
  held.resume();
  expect(await clock.during(evicted)).toMatchObject({ code: 'ENOBUFS', syscall: 'read' });
  let length = 0;
  reader.on('data', (chunk: Buffer) => {
    length += chunk.length;
  });
  reader.resume();
  await clock.until(() => length === 200_000, 60_000);
  expect(length).toBe(200_000);
  expect(server.allCounters['tcp.failed']).toBe(1);
});

test('every bound that a peer can reach has a counter with a name', () => {
  const names = Object.keys(new StackNetwork().stack('10.1.0.1').allCounters);
  expect(names).toEqual(
    expect.arrayContaining([
      'tcp.dropSyn',
      'tcp.dropAnswers',
      'tcp.dropNoMemory',
      'tcp.challengeAcks',
      'tcp.failed',
      'udp.receiveDrops',
      'udp.sendDrops',
      'icmp.limited',
      'icmp.sendDrops',
      'reassembly.evictions',
    ])
  );
});

test('datagrams that nobody takes fill the memory for datagrams, and then are dropped and counted', async () => {
  const network = new StackNetwork();
  const client = network.stack('10.1.0.1');
  const server = network.stackWith({ address: [SERVER], limits: { datagramBytes: 65_536 } });
  // Nobody takes the events of the endpoint's own sockets.
  const owner = { onUdpEvents: (): void => {} };
  for (const port of [1000, 1001]) server.udp.bind(4, undefined, port, owner);
  const socket = client.datagram('udp4');
  for (let i = 0; i < 100; i++) {
    await new Promise((resolve) => {
      socket.send(Buffer.alloc(768), 1000 + (i % 2), SERVER, resolve);
    });
  }
  await new Promise(setImmediate);
  expect(server.allCounters).toMatchObject({
    'udp.received': 64,
    'udp.receiveDrops': 36,
    'udp.memoryDrops': 36,
  });
});
