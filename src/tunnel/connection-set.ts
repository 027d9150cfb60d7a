/**
 * The connections of one tunnel, and how they come and go.
 *
 * The primary connection carries the control messages, and when it ends, the tunnel does. Further ones carry packets
 * only. Connections that are not needed any more, or whose certificate is replaced by a newer one, are drained: each
 * side stops putting anything on them, sends what waits, then DRAIN. The side that began ends the connection when the
 * other's DRAIN has come. So nothing is lost. README.md draws this, and how the next connection becomes the primary one.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Json } from '../store/store.ts';
import type { TunnelConnection } from './connection.ts';
import { SteeredSender } from './flow-steering.ts';
import { type Close, CloseCode } from './messages.ts';
import type { ConnectionOptions } from './options.ts';
import { SlabBudget } from './slab-pool.ts';
import type { CloseCause, ConnectionCounters, ConnectionInfo } from './tunnel.ts';

export interface ConnectionSetEvents {
  control: [message: Json];
  /** A further connection has come or gone; `count` connections carry packets now. */
  connections: [connections: { readonly count: number }];
  /** A connection has ended by itself, not because the tunnel was lost. */
  ended: [cause: CloseCause];
  /** Another connection is the primary one. */
  renewed: [info: ConnectionInfo];
  /** The tunnel has ended, and all its connections with it. */
  lost: [cause: CloseCause];
}

export class ConnectionSet extends EventEmitter<ConnectionSetEvents> {
  onPacket: (buffer: Buffer, start: number, end: number) => void = ignore;
  onBatchEnd: () => void = ignore;
  readonly counters: ConnectionCounters;
  /** Sends packets over those that carry packets. */
  readonly sender: SteeredSender;
  readonly #options: ConnectionOptions;
  readonly #budget: SlabBudget;
  readonly #entries = new Set<Entry>();
  #primary: Entry | undefined;
  /** Will be the primary one. */
  #next: Entry | undefined;
  /** Was the primary one; control messages may still be on their way over it. */
  #former: Entry | undefined;
  #isRenewing = false;
  #controlWindowMs = 0;
  #controlInWindow = 0;
  #bytesInWindow = 0;

  constructor(options: ConnectionOptions, counters: ConnectionCounters) {
    super();
    this.counters = counters;
    this.sender = new SteeredSender(counters, options.clock);
    this.#options = options;
    this.#budget = new SlabBudget(options.maxSlabs);
  }

  get primary(): TunnelConnection | undefined {
    return this.#primary?.connection;
  }

  /** What is known of the primary connection. */
  get info(): ConnectionInfo | undefined {
    return this.#primary?.info;
  }

  /** The certificates of the peer, one for each connection that has not ended. */
  get certificates(): readonly X509Certificate[] {
    return [...this.#entries].map(({ info }) => info.certificate);
  }

  /** Whether there are connections from before the one that has become the primary one, or will. */
  get isRenewing(): boolean {
    return this.#isRenewing;
  }

  /** Whether there is a connection that will be the primary one. */
  get hasNext(): boolean {
    return this.#next !== undefined;
  }

  /** How many connections have come since the renewal began, or in all if there is none, drained ones included. */
  get size(): number {
    return [...this.#entries].filter(({ isNew }) => isNew === this.#isRenewing).length;
  }

  /** How many connections have not ended. */
  get total(): number {
    return this.#entries.size;
  }

  /**
   * Begins with a connection whose handshake is done, as the primary one.
   *
   * @param mayGrow whether this side may add further ones
   */
  begin(connection: TunnelConnection, info: ConnectionInfo, mayGrow: boolean): void {
    this.sender.reset(mayGrow);
    this.#primary = this.#add(connection, info);
  }

  /** Adds a further connection whose handshake is done. It carries packets from now on. */
  add(connection: TunnelConnection, info: ConnectionInfo): void {
    this.#add(connection, info);
  }

  /** Begins a renewal with the connection that will be the primary one. No other renewal may be under way. */
  addNext(connection: TunnelConnection, info: ConnectionInfo): void {
    this.#isRenewing = true;
    connection.holdControl();
    this.#next = this.#add(connection, info);
  }

  /** Drains further connections, so that `count` are left that carry packets. */
  shrink(count: number): void {
    const further = this.sender.connections.filter((connection) => connection !== this.primary);
    const surplus = further.slice(Math.max(count - 1, 0));
    for (const entry of this.#entries) {
      if (surplus.includes(entry.connection)) this.#drain(entry, IDLE);
    }
  }

  /** Drains the connections from before the renewal. Resolves when they are gone. */
  async drainOld(): Promise<void> {
    const old = [...this.#entries].filter(({ isNew }) => !isNew);
    this.#switch();
    for (const entry of old) this.#drain(entry, RENEWED);
    await Promise.all(old.map(({ connection }) => connection.gone));
  }

  /** Ends all connections, the primary one last. Resolves when they are gone. */
  async end(how: 'close' | 'abort' | 'destroy', close: Close): Promise<void> {
    const primary = this.#primary;
    const others = [...this.#entries].filter((entry) => entry !== primary);
    // The former primary connection may end now without the tunnel being lost.
    this.#former = undefined;
    for (const { connection } of others) endConnection(connection, how, close);
    const gone = Promise.all(others.map(({ connection }) => connection.gone));
    // When the primary one ends, the peer takes nothing of the others any more.
    if (how === 'close' && others.length > 0)
      primary?.connection.close(close, this.#withPatience(gone));
    else if (primary !== undefined) endConnection(primary.connection, how, close);
    await Promise.all([gone, primary?.connection.gone]);
  }

  /** Resolves when `done` does, but after `PATIENCE_MS` at most. */
  #withPatience(done: Promise<unknown>): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#options.clock.after(PATIENCE_MS, resolve);
      void done.then(() => {
        cancel();
        resolve();
      });
    });
  }

  #add(connection: TunnelConnection, info: ConnectionInfo): Entry {
    const entry: Entry = {
      connection,
      info,
      isNew: this.#isRenewing,
      isDraining: false,
      close: undefined,
      isComplete: false,
      cancelTimer: ignore,
    };
    this.#entries.add(entry);
    connection.joinTunnel(this.counters, this.#budget);
    connection.onPacket = this.onPacket;
    connection.onBatchEnd = this.onBatchEnd;
    connection.onDrain = () => this.sender.drained();
    connection.on('control', ({ message, bytes }) => this.#onControl(entry, message, bytes));
    connection.on('drained', () => this.#onPeerDrained(entry));
    connection.on('silent', () => this.#askOthers(entry));
    connection.on('closed', (cause) => this.#onClosed(entry, cause));
    this.sender.add(connection);
    if (this.sender.connections.length > 1) this.#emitCount();
    return entry;
  }

  /** The peer is silent on one connection: if it is gone, all find out at the same time. */
  #askOthers(silent: Entry): void {
    for (const entry of this.#entries) if (entry !== silent) void entry.connection.isAlive();
  }

  #stopSending(connection: TunnelConnection): void {
    if (this.sender.remove(connection)) this.#emitCount();
  }

  #emitCount(): void {
    this.emit('connections', { count: this.sender.connections.length });
  }

  /** The rate is that of all connections together, so that a peer gains nothing by opening more. */
  #onControl(entry: Entry, message: Json, bytes: number): void {
    if (entry !== this.#primary && entry !== this.#next && entry !== this.#former) {
      entry.connection.failProtocol('a control message came on a further connection');
      return;
    }
    const { maxControlRate, maxControlByteRate, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    if (nowMs - this.#controlWindowMs >= CONTROL_WINDOW_MS) {
      this.#controlWindowMs = nowMs;
      this.#controlInWindow = 0;
      this.#bytesInWindow = 0;
    }
    this.#controlInWindow++;
    this.#bytesInWindow += bytes;
    const seconds = CONTROL_WINDOW_MS / 1000;
    const isOften = this.#controlInWindow > maxControlRate * seconds;
    if (isOften || this.#bytesInWindow > maxControlByteRate * seconds) {
      const what = isOften
        ? `${maxControlRate} control messages`
        : `${maxControlByteRate} bytes of them`;
      const reason = `more than ${what} a second`;
      void this.end('abort', { code: CloseCode.ControlRate, reason });
      return;
    }
    this.counters.receivedControl++;
    this.emit('control', message);
  }

  #onPeerDrained(entry: Entry): void {
    const { connection } = entry;
    if (entry === this.#next) {
      connection.failProtocol('the connection that is to be the primary one is drained');
      return;
    }
    if (entry === this.#primary && this.#next === undefined) {
      connection.failProtocol('the primary connection is drained, and there is none to follow it');
      return;
    }
    if (entry === this.#primary) this.#switch();
    if (!entry.isDraining) {
      this.#drain(entry, undefined);
      return;
    }
    entry.isComplete = true;
    this.#settle(entry);
    if (entry.close !== undefined) connection.close(entry.close);
  }

  /** Makes the next connection the primary one, if there is a next one. */
  #switch(): void {
    const next = this.#next;
    if (next === undefined) return;
    this.#former = this.#primary;
    this.#primary = next;
    this.#next = undefined;
    this.emit('renewed', next.info);
  }

  /** @param close how this side ends the connection, if this side is the one that began */
  #drain(entry: Entry, close: Close | undefined): void {
    if (entry.isDraining || !this.#entries.has(entry)) return;
    entry.isDraining = true;
    entry.close = close;
    this.#stopSending(entry.connection);
    const { clock, drainTimeoutMs } = this.#options;
    entry.cancelTimer = clock.after(drainTimeoutMs, () => {
      this.counters.drainTimeouts++;
      const reason = `it was not drained within ${drainTimeoutMs} ms`;
      entry.connection.close({ code: (close ?? RENEWED).code, reason });
    });
    entry.connection.drain();
  }

  #onClosed(entry: Entry, cause: CloseCause): void {
    if (!this.#entries.delete(entry)) return;
    entry.cancelTimer();
    this.emit('ended', cause);
    // The peer ends a connection that it has begun to drain when everything has come.
    const isComplete = entry.isComplete || (entry.isDraining && cause.by === 'peer');
    if (entry === this.#primary || (entry === this.#former && !isComplete)) {
      this.#lose(cause);
      return;
    }
    this.#settle(entry);
    if (entry === this.#next) this.#next = undefined;
    if (!entry.isDraining) this.#stopSending(entry.connection);
    if (!this.#isRenewing) return;
    if (this.#primary?.isNew !== true && this.#next === undefined) this.#giveUpRenewal();
    else if ([...this.#entries].every(({ isNew }) => isNew)) this.#endRenewal();
  }

  /** The next connection is lost. The others of the renewal would exceed what a tunnel may have, so they end too. */
  #giveUpRenewal(): void {
    const further = [...this.#entries].filter(({ isNew }) => isNew);
    this.#endRenewal();
    for (const entry of further) this.#drain(entry, IDLE);
  }

  #endRenewal(): void {
    this.#isRenewing = false;
    for (const entry of this.#entries) entry.isNew = false;
  }

  /** Nothing comes over the former primary connection any more, so control messages may go over the new one. */
  #settle(entry: Entry): void {
    if (entry !== this.#former) return;
    this.#former = undefined;
    this.#primary?.connection.releaseControl();
  }

  #lose(cause: CloseCause): void {
    const others = [...this.#entries];
    this.#entries.clear();
    this.#primary = undefined;
    this.#next = undefined;
    this.#former = undefined;
    this.#isRenewing = false;
    for (const { connection, cancelTimer } of others) {
      cancelTimer();
      if (cause.by === 'us') connection.abort(cause);
      else connection.destroy(cause.code, cause.reason);
    }
    this.sender.reset(false);
    this.emit('lost', cause);
  }
}

interface Entry {
  readonly connection: TunnelConnection;
  readonly info: ConnectionInfo;
  /** It came since the renewal that is under way has begun. */
  isNew: boolean;
  /** This side puts nothing on it any more. */
  isDraining: boolean;
  /** How this side ends it, if this side began to drain it. */
  close: Close | undefined;
  /** The peer's DRAIN has answered that of this side. */
  isComplete: boolean;
  cancelTimer: () => void;
}

function endConnection(
  connection: TunnelConnection,
  how: 'close' | 'abort' | 'destroy',
  close: Close
): void {
  if (how === 'destroy') connection.destroy(close.code, close.reason);
  else connection[how](close);
}

function ignore(): void {}

const IDLE: Close = { code: CloseCode.Idle, reason: 'the connection is not needed' };
const RENEWED: Close = {
  code: CloseCode.Renewed,
  reason: 'another connection has taken its place',
};
/** How long the primary connection of a tunnel that is closed waits for the others, in ms: half of what it may take. */
const PATIENCE_MS = 1_000;
/** The time in ms over which the rate of control messages is averaged, so that bursts pass. */
const CONTROL_WINDOW_MS = 10_000;
