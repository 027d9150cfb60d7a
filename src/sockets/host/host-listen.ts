/**
 * Where a forward, a published service or a proxy listens: a TCP port of this machine, or a unix socket whose mode says
 * who may use it.
 * @module
 */
import type { AddressInfo, ListenOptions, Server } from 'node:net';
import * as v from 'valibot';
import { chosen, type Schema, wholeNumber } from '../../base/schema.ts';
import type { HostTargets } from './host-targets.ts';
import { listenAtPath } from './unix-listen.ts';

/** Where something listens: a port of 127.0.0.1, an address and a port, or a unix socket. */
export type HostListen = number | HostListenPort | HostListenPath;

export interface HostListenPort {
  /** An address of this host. Every host that reaches it may connect; default `127.0.0.1`. */
  readonly host?: string | undefined;
  /** 0 takes a free port. */
  readonly port: number;
}

export interface HostListenPath {
  /** The path of the unix socket, 107 bytes at most. */
  readonly path: string;
  /** The mode of the socket: who may write to it may connect. Default `0o600`: the own user alone. */
  readonly mode?: number | undefined;
}

/** A `HostListen` with its defaults. */
export type HostPlace =
  | { readonly host: string; readonly port: number }
  | { readonly path: string; readonly mode: number };

/** What a server has that listens. */
export interface Listening {
  readonly address: AddressInfo | string;
  /** Removes the file of a unix socket, unless another one is there by then. */
  remove(): Promise<void>;
}

/**
 * Listens. Resolves also if the server is closed meanwhile.
 *
 * @param targets gets the address and the port, as long as the server listens there
 * @throws Node's errors of `listen`.
 */
export async function listenAt(
  server: Server,
  place: HostPlace,
  targets: HostTargets
): Promise<Listening> {
  if ('path' in place) {
    const { path, mode } = place;
    const remove = await listenAtPath(server, path, mode, (own) => listen(server, { path: own }));
    return { address: path, remove };
  }
  await listen(server, place);
  const address = server.address() as AddressInfo | null;
  // It is closed already.
  if (address === null) return { address: '', remove: async () => {} };
  // A link-local address has the name of its interface behind it.
  const [text] = address.address.split('%');
  server.once('close', targets.add(text!, address.port));
  return { address, remove: async () => {} };
}

function listen(server: Server, options: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('close', resolve);
    server.once('listening', () => {
      server.off('error', reject).off('close', resolve);
      resolve();
    });
    // In a worker of `node:cluster` the primary would listen, and share connections out.
    server.listen({ ...options, exclusive: true });
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
  path: v.pipe(
    v.string(),
    v.regex(/^[^\0]+$/, 'a path without null bytes'),
    v.metadata({ title: 'path' })
  ),
  mode: v.optional(v.pipe(wholeNumber(0, 0o777), v.metadata({ title: 'mode' })), OWNER_ALONE),
});

export const HostListenSchema: Schema<HostPlace> = chosen(
  [listenNumber, listenPort, listenPath],
  (input) => {
    if (typeof input !== 'object' || input === null) return listenNumber;
    return 'path' in input ? listenPath : listenPort;
  }
);
