/**
 * `forward`: a port or a unix socket of this host that leads to one service of a presence.
 * @module
 */
import type { AddressInfo } from 'node:net';
import * as v from 'valibot';
import { parseSchema, type Schema, wholeNumber } from '../base/schema.ts';
import {
  FORWARD_OPTIONS_ENTRIES,
  type ForwardCounters,
  type ForwardLoad,
  type ForwardOptions,
  ForwardServer,
  type ForwardTarget,
  newForwardLoad,
  type ResolvedForwardOptions,
} from './forward-server.ts';
import type { SocketHost } from './host.ts';
import { systemError } from './system-error.ts';
import { listenAtPath } from './unix-listen.ts';

/** Where a forward listens: a port of 127.0.0.1, an address and a port, or a unix socket. */
export type ForwardListen = number | ForwardListenPort | ForwardListenPath;

export interface ForwardListenPort {
  /** An address of this host. Every host that reaches it may use the forward; default `127.0.0.1`. */
  readonly host?: string | undefined;
  /** 0 takes a free port. */
  readonly port: number;
}

export interface ForwardListenPath {
  /** The path of the unix socket, 107 bytes at most. */
  readonly path: string;
  /** The mode of the socket: who may write to it may connect. Default `0o600`: the own user alone. */
  readonly mode?: number | undefined;
}

/** A listener of this host whose connections go to a presence. It ends with its stack. */
export class Forward implements AsyncDisposable {
  /** Where it listens, as `address()` of `net.Server`: the path of a unix socket is a string. */
  readonly address: AddressInfo | string;
  readonly #host: SocketHost;
  readonly #server: ForwardServer;
  readonly #counters: ForwardCounters;
  readonly #remove: () => Promise<void>;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(
    host: SocketHost,
    server: ForwardServer,
    counters: ForwardCounters,
    address: AddressInfo | string,
    remove: () => Promise<void>
  ) {
    this.#host = host;
    this.#server = server;
    this.#counters = counters;
    this.address = address;
    this.#remove = remove;
    host.servers.add(this);
  }

  get counters(): Readonly<ForwardCounters> {
    return this.#counters;
  }

  /** Stops to listen, and resets all connections. It may be called again. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#host.servers.delete(this);
    // While we listen, no other process takes the path.
    await this.#remove();
    const closed = this.#server.close();
    this.#server.reset();
    await closed;
  }
}

/**
 * Listens, and joins each connection with one to the target.
 *
 * @throws {ConfigError} with the path of the argument that is wrong.
 * @throws the system errors of `listen`, and those with which a connection to the target would fail at once.
 */
export async function forward(
  host: SocketHost,
  listen: ForwardListen,
  target: ForwardTarget,
  options: ForwardOptions = {}
): Promise<Forward> {
  const where = parseSchema<Where>(ListenSchema, listen, 'listen');
  const to = parseSchema(TargetSchema, target, 'target');
  const load = newForwardLoad(parseSchema(OptionsSchema, options));
  checkTarget(host, to);
  const server = new ForwardServer(host, to, load);
  const made = await listenAt(host, server, load, where);
  if (!host.isClosed) return made;
  await made.close();
  throw downError(host, to);
}

async function listenAt(
  host: SocketHost,
  server: ForwardServer,
  { counters }: ForwardLoad,
  where: Where
): Promise<Forward> {
  if (!('path' in where)) {
    await server.listen(where);
    const address = server.server.address() as AddressInfo;
    return new Forward(host, server, counters, address, async () => {});
  }
  const { path, mode } = where;
  const listen = (own: string): Promise<void> => server.listen({ path: own });
  const remove = await listenAtPath(server.server, path, mode, listen);
  return new Forward(host, server, counters, path, remove);
}

/** @throws what a connection would fail with, if the site is known. */
function checkTarget(host: SocketHost, target: ForwardTarget): void {
  const { host: name, port } = target;
  if (host.isClosed) throw downError(host, target);
  const isKnown = host.localAddress(4) !== undefined || host.localAddress(6) !== undefined;
  if (!isKnown) return;
  const addresses = host.resolve(name, 0);
  const own = addresses.find((address) => host.localAddress(address.family)?.equals(address));
  if (own !== undefined) {
    const cause = new Error(`${own} is the address of this stack: a forward would lead to itself`);
    throw systemError('ENETUNREACH', 'connect', { address: own.toString(), port, cause });
  }
  const refusals = addresses.map((address) => host.refusal('tcp', address, port));
  if (refusals.includes(undefined)) return;
  throw systemError(refusals[0]!, 'connect', { address: addresses[0]!.toString(), port });
}

function downError({ closedBy }: SocketHost, { host, port }: ForwardTarget): Error {
  return systemError('ENETDOWN', 'connect', { address: host, port, cause: closedBy });
}

type Where =
  | { readonly host: string; readonly port: number }
  | { readonly path: string; readonly mode: number };

const DEFAULT_HOST = '127.0.0.1';
const DEFAULT_MODE = 0o600;

const listenNumber = v.pipe(
  wholeNumber(0, 65_535),
  v.transform((port) => ({ host: DEFAULT_HOST, port }))
);
const listenPort = v.strictObject({
  host: v.optional(v.pipe(v.string(), v.nonEmpty('expected an address')), DEFAULT_HOST),
  port: wholeNumber(0, 65_535),
});
const listenPath = v.strictObject({
  path: v.pipe(v.string(), v.regex(/^[^\0]+$/, 'a path without null bytes')),
  mode: v.optional(wholeNumber(0, 0o777), DEFAULT_MODE),
});
const ListenSchema = v.lazy((input) => {
  if (typeof input !== 'object' || input === null) return listenNumber;
  return 'path' in input ? listenPath : listenPort;
}) as unknown as Schema<Where>;
const TargetSchema: Schema<ForwardTarget> = v.strictObject({
  host: v.pipe(v.string(), v.nonEmpty('expected a name of the zone or an address')),
  port: wholeNumber(1, 65_535),
});
const OptionsSchema = v.strictObject(
  FORWARD_OPTIONS_ENTRIES
) as unknown as Schema<ResolvedForwardOptions>;
