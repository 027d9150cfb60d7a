/**
 * A connection over a link, with both ends in this process: ours is a `PresenceSocket`, the other one a socket of Node,
 * which is Linux's.
 * @module
 */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { PresenceServer, PresenceSocket } from '../../src/sockets/index.ts';
import type { End, Link } from './link.ts';

export interface Pair {
  readonly stack: PresenceSocket;
  readonly linux: Socket;
}

/** Connects from this end to the other one. Both ends may be half closed. */
export async function connected(link: Link, opener: End, family: 4 | 6 = 4): Promise<Pair> {
  const server = await listening(link, opener === 'stack' ? 'linux' : 'stack', family);
  const accepted = once(server, 'connection');
  const socket = await open(link, opener, portOf(server), family);
  const [other] = await accepted;
  server.close();
  return (opener === 'stack'
    ? { stack: socket, linux: other }
    : { stack: other, linux: socket }) as unknown as Pair;
}

export async function listening(
  link: Link,
  end: End,
  family: 4 | 6 = 4
): Promise<Server | PresenceServer> {
  const host = link.addresses(family)[end];
  const options = { allowHalfOpen: true };
  const server = end === 'stack' ? link.stack.createServer(options) : createServer(options);
  server.listen(0, host);
  await once(server, 'listening');
  return server;
}

/** Connects from this end to a port of the other one. */
export async function open(
  link: Link,
  opener: End,
  port: number,
  family: 4 | 6 = 4
): Promise<Duplex> {
  const addresses = link.addresses(family);
  const socket =
    opener === 'stack'
      ? link.stack.connect({ host: addresses.linux, port, allowHalfOpen: true })
      : connect({ host: addresses.stack, port, allowHalfOpen: true });
  await once(socket, 'connect');
  return socket;
}

export function portOf(server: Server | PresenceServer): number {
  return (server.address() as AddressInfo).port;
}

/** Resolves with the code of the error with which the socket is destroyed; undefined if there was none. */
export function ending(socket: Duplex): Promise<string | undefined> {
  return new Promise((resolve) => {
    let code: string | undefined;
    socket.once('error', (error: NodeJS.ErrnoException) => {
      code = error.code;
    });
    socket.once('close', () => resolve(code));
  });
}
