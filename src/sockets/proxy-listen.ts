/**
 * Where a proxy listens: a TCP port of this machine, or a unix socket whose mode says who may use it.
 * @module
 */
import type { AddressInfo, ListenOptions, Server } from 'node:net';
import * as v from 'valibot';
import { type Schema, wholeNumber } from '../base/schema.ts';
import { listenAtPath } from './unix-listen.ts';

/** Where a proxy listens: a port of 127.0.0.1, an address and a port, or a unix socket. */
export type ProxyListen = number | ProxyListenPort | ProxyListenPath;

export interface ProxyListenPort {
  /** An address of this host. Every host that reaches it may connect; default `127.0.0.1`. */
  readonly host?: string | undefined;
  /** 0 takes a free port. */
  readonly port: number;
}

export interface ProxyListenPath {
  /** The path of the unix socket, 107 bytes at most. */
  readonly path: string;
  /** The mode of the socket: who may write to it may connect. Default `0o600`: the own user alone. */
  readonly mode?: number | undefined;
}

/** A `ProxyListen` with its defaults. */
export type ProxyPlace =
  | { readonly host: string; readonly port: number }
  | { readonly path: string; readonly mode: number };

/** What a server has that listens. */
export interface Listening {
  readonly address: AddressInfo | string;
  /** Removes the file of a unix socket, unless another one is there by then. */
  remove(): Promise<void>;
}

/** @throws Node's errors of `listen`. */
export async function listenAt(server: Server, place: ProxyPlace): Promise<Listening> {
  if ('path' in place) {
    const { path, mode } = place;
    const remove = await listenAtPath(server, path, mode, (own) => listen(server, { path: own }));
    return { address: path, remove };
  }
  await listen(server, place);
  return { address: server.address()!, remove: async () => {} };
}

function listen(server: Server, options: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // In a worker of `node:cluster` the primary would listen, and share connections out.
    server.listen({ ...options, exclusive: true }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

const LOOPBACK = '127.0.0.1';
const OWNER_ALONE = 0o600;

const listenNumber = v.pipe(
  wholeNumber(0, 65_535),
  v.transform((port) => ({ host: LOOPBACK, port }))
);
const listenPort = v.strictObject({
  host: v.optional(v.pipe(v.string(), v.nonEmpty('expected an address')), LOOPBACK),
  port: wholeNumber(0, 65_535),
});
const listenPath = v.strictObject({
  path: v.pipe(v.string(), v.regex(/^[^\0]+$/, 'a path without null bytes')),
  mode: v.optional(wholeNumber(0, 0o777), OWNER_ALONE),
});

export const ProxyListenSchema: Schema<ProxyPlace> = v.lazy((input) => {
  if (typeof input !== 'object' || input === null) return listenNumber;
  return 'path' in input ? listenPath : listenPort;
}) as unknown as Schema<ProxyPlace>;
