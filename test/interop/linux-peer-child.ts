/**
 * The program of `LinuxPeer`: exchanges bytes over sockets of Node, which are those of the kernel.
 * @module
 */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { exchange } from './exchange.ts';
import type { PeerAnswer, PeerOrder } from './linux-peer.ts';

const answer = (message: PeerAnswer): void => void process.send!(message);

async function socketOf({ id, host, port }: PeerOrder): Promise<Socket> {
  if (port !== 0) return connect({ host, port, allowHalfOpen: true });
  const server = createServer({ allowHalfOpen: true }).listen(0, host);
  await once(server, 'listening');
  answer({ id, port: (server.address() as AddressInfo).port });
  const [socket] = await once(server, 'connection');
  server.close();
  return socket;
}

async function follow(order: PeerOrder): Promise<void> {
  const { id, spec } = order;
  try {
    const socket = await socketOf(order);
    const before = process.cpuUsage();
    const report = await exchange(socket, spec);
    const { user, system } = process.cpuUsage(before);
    answer({ id, report, cpuMs: (user + system) / 1_000 });
  } catch (error) {
    answer({ id, error: String(error) });
  }
}

process.on('message', (order: PeerOrder) => void follow(order));
process.on('disconnect', () => process.exit());
process.send!({ id: 0 } satisfies PeerAnswer);
