/**
 * `ForwardServer`: a server of the operating system whose connections go on to a presence.
 *
 * Each connection is joined with one over the stack (`splice.ts`) at once, while that one still connects, so that a
 * local client that gives up ends the attempt. If the attempt fails, the local client gets a reset.
 * @module
 */
import { createServer, type Server, type Socket } from 'node:net';
import * as v from 'valibot';
import { wholeNumber } from '../../base/schema.ts';
import { type HostPlace, type Listening, listenAt } from '../host/host-listen.ts';
import { onreadTo, reset, splice } from '../host/splice.ts';
import type { SocketHost } from '../socket-host.ts';
import { connect } from '../stream/socket.ts';

/** The service of a presence that connections go to. */
export interface ForwardTarget {
  /** A name of the site's zone, or the address of a presence. */
  readonly host: string;
  readonly port: number;
}

/** The bounds of a forward. */
export interface ForwardOptions {
  /** How many connections may be open at once, 1 to 1,048,576; default 1,024. More are reset at once. */
  readonly maxConnections?: number | undefined;
  /** After how many ms without traffic both sides of a connection are probed; default 60,000. 0 switches probes off. */
  readonly keepAliveMs?: number | undefined;
}

export interface ForwardCounters {
  /** Connections that are open now. */
  open: number;
  /** Connections that were accepted, also those that failed later. */
  accepted: number;
  /** Connections that were reset at once, because `maxConnections` were open. */
  refused: number;
  /** Connections that ended by an error after the presence was connected. */
  broken: number;
  /** Connections whose presence could not be connected, by the code of the error, for example `ECONNREFUSED`. */
  readonly failed: Record<string, number>;
}

export interface ResolvedForwardOptions {
  readonly maxConnections: number;
  readonly keepAliveMs: number;
}

/** What several servers share: one bound, and the counters. */
export interface ForwardLoad extends ResolvedForwardOptions {
  readonly counters: ForwardCounters;
}

/** The values of options that are left out. */
export const FORWARD_DEFAULTS: Readonly<{
  maxConnections: number;
  keepAliveMs: number;
}> = Object.freeze({
  maxConnections: 1024,
  keepAliveMs: 60_000,
});

/** The entries of a schema for `ForwardOptions`, and for options that have these too. */
export const FORWARD_OPTIONS_ENTRIES: v.ObjectEntries = {
  maxConnections: v.optional(wholeNumber(1, 1_048_576), FORWARD_DEFAULTS.maxConnections),
  keepAliveMs: v.optional(wholeNumber(0, 32_767_000), FORWARD_DEFAULTS.keepAliveMs),
};

export function newForwardLoad({
  maxConnections,
  keepAliveMs,
}: ResolvedForwardOptions): ForwardLoad {
  const counters = { open: 0, accepted: 0, refused: 0, broken: 0, failed: {} };
  return { maxConnections, keepAliveMs, counters };
}

export class ForwardServer {
  readonly #server: Server;
  readonly #host: SocketHost;
  readonly #target: ForwardTarget;
  readonly #load: ForwardLoad;
  readonly #locals = new Set<Socket>();
  #closed: Promise<void> | undefined;
  /** Is called when the last connection has ended, after the server was closed. */
  #onLast: (() => void) | undefined;

  constructor(host: SocketHost, target: ForwardTarget, load: ForwardLoad) {
    this.#host = host;
    this.#target = target;
    this.#load = load;
    this.#server = createServer({ allowHalfOpen: true }, (local) => this.#accept(local));
  }

  /** Resolves when it listens, also if it is closed meanwhile. @throws the errors of `listen` of `net.Server`. */
  async listen(place: HostPlace): Promise<Listening> {
    const server = this.#server;
    const listening = await listenAt(server, place, this.#host.targets);
    // It is one of accepting a connection.
    server.on('error', (error) => count(this.#load.counters.failed, error));
    if (this.#closed !== undefined) server.close();
    return listening;
  }

  /** Resets all connections. */
  reset(): void {
    for (const local of this.#locals) reset(local);
  }

  /** Accepts no more connections; those that are open go on. Resolves when there are none. */
  close(): Promise<void> {
    this.#closed ??= new Promise((resolve) => {
      this.#server.close(() => {
        if (this.#locals.size === 0) resolve();
        else this.#onLast = resolve;
      });
    });
    return this.#closed;
  }

  #accept(local: Socket): void {
    const { counters, maxConnections, keepAliveMs } = this.#load;
    if (this.#closed !== undefined || counters.open >= maxConnections) {
      counters.refused++;
      local.on('error', () => {});
      reset(local);
      return;
    }
    counters.accepted++;
    counters.open++;
    this.#locals.add(local);
    let isConnected = false;
    const presence = connect(this.#host, {
      ...this.#target,
      allowHalfOpen: true,
      onread: onreadTo(local),
    });
    presence.once('connect', () => {
      isConnected = true;
    });
    const onClosed = (failure: Error | undefined): void => {
      counters.open--;
      this.#locals.delete(local);
      if (failure !== undefined) {
        if (isConnected) counters.broken++;
        else count(counters.failed, failure);
      }
      if (this.#locals.size === 0) this.#onLast?.();
    };
    splice(local, presence, { keepAliveMs, onClosed });
  }
}

/** The codes are those of system errors, which are few. */
function count(failed: Record<string, number>, error: NodeJS.ErrnoException): void {
  const code = error.code ?? error.name;
  failed[code] = (failed[code] ?? 0) + 1;
}
