/**
 * The host's side of a backend: sockets that are connected to themselves, and what the program's functions `dial` and
 * `dialUdp` do wrong.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { expect, test, vi } from 'vitest';
import type { PresenceSocket } from '../../src/sockets/socket.ts';
import { BackendScene, closeScenesAfterEach, closeServersAfterEach } from './backend-scene.ts';

closeScenesAfterEach();
closeServersAfterEach();

async function codeOf(socket: PresenceSocket): Promise<string | undefined> {
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
  return error.code;
}

// The system chooses the port of a service for the near end too, if the service does not run.
const LINUX = process.platform === 'linux';
/** An address of loopback at which nothing but these tests has ports. */
const LONELY = '127.83.61.7';

test.skipIf(!LINUX)('a TCP socket that is connected to itself is no service', async () => {
  const server = net.createServer().listen(0, LONELY);
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  const hosts: net.Socket[] = [];
  const scene = new BackendScene({
    dial: () => {
      const ends = { host: LONELY, port, localAddress: LONELY, localPort: port };
      const host = net.connect({ ...ends, allowHalfOpen: true });
      hosts.push(host);
      return host;
    },
  });
  const client = scene.client.connect(80, 'service.test');
  expect(await codeOf(client)).toBe('ECONNREFUSED');
  expect(hosts.map(({ destroyed }) => destroyed)).toEqual([true]);
  expect(scene.backend.counters).toMatchObject({ 'tcp.connected': 0, 'tcp.dialsRefused': 1 });
  expect(scene.backend.sizes).toEqual({ connections: 0, dials: 0, flows: 0 });
  // The service has its port again.
  const service = net.createServer().listen(port, LONELY);
  await once(service, 'listening');
  service.close();
});

test.skipIf(!LINUX)('a UDP socket that is connected to itself is no service', async () => {
  const hosts: UdpSocket[] = [];
  const scene = new BackendScene({
    dialUdp: () => {
      const host = createSocket('udp4');
      host.bind(0, LONELY, () => host.connect(host.address().port, LONELY));
      hosts.push(host);
      return host;
    },
  });
  const client = scene.client.datagram('udp4');
  client.connect(80, '10.2.0.1');
  await once(client, 'connect');
  const heard: string[] = [];
  client.on('message', (payload) => heard.push(String(payload)));
  client.send('a secret');
  await vi.waitUntil(
    () => scene.backend.counters['udp.opened'] === 1 && scene.backend.sizes.flows === 0
  );
  expect(heard).toEqual([]);
  expect(() => hosts[0]!.address()).toThrow();
  expect(scene.backend.counters).toMatchObject({ 'udp.refused': 1, 'udp.toServices': 0 });
  client.close();
});
