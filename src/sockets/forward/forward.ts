/**
 * `forward`: a port or a unix socket of this host that leads to one service of a presence.
 * @module
 */
import type { AddressInfo } from 'node:net';
import * as v from 'valibot';
import { parseSchema, type Schema, wholeNumber } from '../../base/schema.ts';
import { type HostListen, HostListenSchema, type Listening } from '../host/host-listen.ts';
import { systemError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';
import {
  FORWARD_OPTIONS_ENTRIES,
  type ForwardCounters,
  type ForwardOptions,
  ForwardServer,
  type ForwardTarget,
  newForwardLoad,
  type ResolvedForwardOptions,
} from './forward-server.ts';

/** A listener of this host whose connections go to a presence. It ends with its stack. */
export class Forward implements AsyncDisposable {
  readonly #host: SocketHost;
  readonly #server: ForwardServer;
  readonly #counters: ForwardCounters;
  readonly #listening: Listening;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(
    host: SocketHost,
    server: ForwardServer,
    counters: ForwardCounters,
    listening: Listening
  ) {
    this.#host = host;
    this.#server = server;
    this.#counters = counters;
    this.#listening = listening;
    host.servers.add(this);
    host.hostCounters.add('forward', this);
  }

  /** Where it listens, as `address()` of `net.Server`: the path of a unix socket is a string. */
  get address(): AddressInfo | string {
    return this.#listening.address;
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
    await this.#listening.remove();
    const closed = this.#server.close();
    this.#server.reset();
    await closed;
    this.#host.hostCounters.delete(this);
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
  listen: HostListen,
  target: ForwardTarget,
  options: ForwardOptions = {}
): Promise<Forward> {
  const place = parseSchema(HostListenSchema, listen, 'listen');
  const to = parseSchema(TargetSchema, target, 'target');
  const load = newForwardLoad(parseSchema(OptionsSchema, options));
  checkTarget(host, to);
  const server = new ForwardServer(host, to, load);
  const made = new Forward(host, server, load.counters, await server.listen(place));
  if (!host.isClosed) return made;
  await made.close();
  throw downError(host, to);
}

/** @throws what a connection would fail with, if the site is known. */
function checkTarget(host: SocketHost, target: ForwardTarget): void {
  const { host: name, port } = target;
  if (host.isClosed) throw downError(host, target);
  const isKnown = host.localAddress(4) !== undefined || host.localAddress(6) !== undefined;
  if (!isKnown) return;
  const addresses = host.resolve(name, 0);
  const refusals = addresses.map((address) => host.refusal('tcp', address, port));
  if (refusals.includes(undefined)) return;
  const [address] = addresses;
  const cause = host.addressFault(address!.family);
  throw systemError(refusals[0]!, 'connect', { address: address!.toString(), port, cause });
}

function downError({ closedBy }: SocketHost, { host, port }: ForwardTarget): Error {
  return systemError('ENETDOWN', 'connect', { address: host, port, cause: closedBy });
}

/** The entries of a target, for a schema that has others too. */
export const FORWARD_TARGET_ENTRIES: v.ObjectEntries = {
  host: v.pipe(v.string(), v.nonEmpty('expected a name of the zone or an address')),
  port: wholeNumber(1, 65_535),
};
const TargetSchema = v.strictObject(FORWARD_TARGET_ENTRIES) as unknown as Schema<ForwardTarget>;
const OptionsSchema = v.strictObject(
  FORWARD_OPTIONS_ENTRIES
) as unknown as Schema<ResolvedForwardOptions>;
