/**
 * The connections of one tunnel, and how they come and go.
 *
 * The first connection is the tunnel: it carries the control messages, and when it ends, the tunnel does.
 * Further ones carry packets only. Connections that are not needed any more, or whose certificate is to make
 * way for a newer one, are drained: each side stops giving them anything, sends what waits, then DRAIN;
 * who began ends the connection when the other's DRAIN has come. So nothing is lost.
 *
 * How the first connection is followed by another one (docs/wire-format.md):
 * 1. `succeed`: the new one is up. It carries packets at once; control messages go over the old one still
 * 2. `drainOld` on the side that dialled, the peer's DRAIN on the other: the new one is the first
 * 3. control messages wait until this side knows that the peer has had all that went over the old one:
 *    the peer's DRAIN says so to who began, its CLOSE to the other. So they stay in order
 * 4. if the old one breaks before that, some may be lost, and the tunnel ends, as with a first connection
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { Json } from '../store/store.ts';
import type { TunnelConnection } from './connection.ts';
import type {
  CloseCause,
  ConnectionCounters,
  ConnectionOptions,
  ConnectionOwner,
} from './connection-types.ts';
import { type Close, CloseCode } from './messages.ts';
import { SlabBudget } from './slab-pool.ts';
import type { ConnectionInfo } from './tunnel.ts';

/** What the tunnel does with what its connections bring. */
export interface ConnectionSetOwner
  extends Pick<ConnectionOwner, 'onPacket' | 'onBatchEnd' | 'onDrain'> {
  readonly counters: ConnectionCounters;
  onControl(message: Json): void;
  /** The connection carries packets from now on. */
  onCarrier(connection: TunnelConnection): void;
  /** It takes none any more; told of each connection once. */
  onCarrierGone(connection: TunnelConnection): void;
  /** Another connection is the first one. */
  onRenewed(info: ConnectionInfo): void;
  /** A connection has ended, whichever. */
  onConnectionEnded(cause: CloseCause): void;
  /** The tunnel has ended, and all its connections with it. */
  onLost(cause: CloseCause): void;
}

export class ConnectionSet {
  readonly #owner: ConnectionSetOwner;
  readonly #options: ConnectionOptions;
  readonly #budget: SlabBudget;
  readonly #members = new Set<Member>();
  #first: Member | undefined;
  /** Is to be the first one. */
  #successor: Member | undefined;
  /** Was the first one; control messages may still be on their way over it. */
  #former: Member | undefined;
  #isRenewing = false;
  #controlWindowMs = 0;
  #controlInWindow = 0;
  #bytesInWindow = 0;

  constructor(options: ConnectionOptions, owner: ConnectionSetOwner) {
    this.#owner = owner;
    this.#options = options;
    this.#budget = new SlabBudget(options.maxSlabs);
  }

  get first(): TunnelConnection | undefined {
    return this.#first?.connection;
  }

  /** Of the peer, one for each connection that is not ended. */
  get certificates(): readonly X509Certificate[] {
    return [...this.#members].map(({ info }) => info.certificate);
  }

  /** Connections are there that came before the one that has taken over, or will. */
  get isRenewing(): boolean {
    return this.#isRenewing;
  }

  /** Whether a connection is there that is to be the first one. */
  get hasSuccessor(): boolean {
    return this.#successor !== undefined;
  }

  /** Connections that came since the last renewal has begun, those that are drained included. */
  get size(): number {
    return [...this.#members].filter(({ isNew }) => isNew === this.#isRenewing).length;
  }

  /** All connections that are not ended. */
  get total(): number {
    return this.#members.size;
  }

  /** A connection whose handshake is done is the first one. */
  begin(connection: TunnelConnection, info: ConnectionInfo): void {
    this.#first = this.#add(connection, info);
  }

  /** A further connection whose handshake is done carries packets from now on. */
  join(connection: TunnelConnection, info: ConnectionInfo): void {
    this.#add(connection, info);
  }

  /** Connections are drained for this one from now on, which will be the first. Not while that is under way. */
  succeed(connection: TunnelConnection, info: ConnectionInfo): void {
    this.#isRenewing = true;
    connection.holdControl();
    this.#successor = this.#add(connection, info);
  }

  /** Drains a further connection. */
  retire(connection: TunnelConnection): void {
    for (const member of this.#members) {
      if (member.connection === connection) this.#drain(member, IDLE);
    }
  }

  /** Drains the connections that were there before the successor. Resolves when they are gone. */
  async drainOld(): Promise<void> {
    const old = [...this.#members].filter(({ isNew }) => !isNew);
    this.#switch();
    for (const member of old) this.#drain(member, RENEWED);
    await Promise.all(old.map(({ connection }) => connection.gone));
  }

  /** Ends all connections, the first one last. Resolves when they are gone. */
  async end(how: 'close' | 'abort' | 'destroy', close: Close): Promise<void> {
    const first = this.#first;
    const others = [...this.#members].filter((member) => member !== first);
    // From here on the loss of a former first connection is no accident.
    this.#former = undefined;
    for (const { connection } of others) endConnection(connection, how, close);
    const gone = Promise.all(others.map(({ connection }) => connection.gone));
    // When the first one ends, the peer takes nothing of the others any more.
    if (how === 'close' && others.length > 0) first?.connection.close(close, this.#within(gone));
    else if (first !== undefined) endConnection(first.connection, how, close);
    await Promise.all([gone, first?.connection.gone]);
  }

  /** Resolves when `done` does, but not after more than half of the time that a connection may take. */
  #within(done: Promise<unknown>): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#options.clock.after(PATIENCE_MS, resolve);
      void done.then(() => {
        cancel();
        resolve();
      });
    });
  }

  #add(connection: TunnelConnection, info: ConnectionInfo): Member {
    const member: Member = {
      connection,
      info,
      isNew: this.#isRenewing,
      isDraining: false,
      close: undefined,
      isComplete: false,
      cancelTimer: () => {},
    };
    this.#members.add(member);
    const owner = this.#owner;
    connection.handTo({
      counters: owner.counters,
      budget: this.#budget,
      onPacket: owner.onPacket,
      onBatchEnd: owner.onBatchEnd,
      onDrain: owner.onDrain,
      onHandshake: () => 'the handshake is done already',
      onControl: (message, bytes) => this.#onControl(member, message, bytes),
      onPeerDrained: () => this.#onPeerDrained(member),
      onConnectionClosed: (cause) => this.#onClosed(member, cause),
    });
    owner.onCarrier(connection);
    return member;
  }

  /** The rate is that of all connections together, so that no more may come by opening some. */
  #onControl(member: Member, message: Json, bytes: number): Close | undefined {
    if (member !== this.#first && member !== this.#successor && member !== this.#former) {
      const reason = 'a control message came on a further connection';
      return { code: CloseCode.ProtocolError, reason };
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
      return undefined;
    }
    this.#owner.counters.receivedControl++;
    this.#owner.onControl(message);
    return undefined;
  }

  #onPeerDrained(member: Member): string | undefined {
    if (member === this.#successor) return 'the connection that is to be the first one is drained';
    if (member === this.#first && this.#successor === undefined) {
      return 'the first connection is drained, and there is none to follow it';
    }
    if (member === this.#first) this.#switch();
    if (!member.isDraining) {
      this.#drain(member, undefined);
      return undefined;
    }
    member.isComplete = true;
    this.#settle(member);
    if (member.close !== undefined) member.connection.close(member.close);
    return undefined;
  }

  #switch(): void {
    const successor = this.#successor;
    if (successor === undefined) return;
    this.#former = this.#first;
    this.#first = successor;
    this.#successor = undefined;
    this.#owner.onRenewed(successor.info);
  }

  /** @param close how this side ends it, if it is the one that began */
  #drain(member: Member, close: Close | undefined): void {
    if (member.isDraining || !this.#members.has(member)) return;
    member.isDraining = true;
    member.close = close;
    this.#owner.onCarrierGone(member.connection);
    const { clock, drainTimeoutMs } = this.#options;
    member.cancelTimer = clock.after(drainTimeoutMs, () => {
      this.#owner.counters.drainTimeouts++;
      const reason = `it was not drained within ${drainTimeoutMs} ms`;
      member.connection.close({ code: (close ?? RENEWED).code, reason });
    });
    member.connection.drain();
  }

  #onClosed(member: Member, cause: CloseCause): void {
    if (!this.#members.delete(member)) return;
    member.cancelTimer();
    this.#owner.onConnectionEnded(cause);
    // The peer ends a connection that it has begun to drain when it has had all.
    const isComplete = member.isComplete || (member.isDraining && cause.by === 'peer');
    if (member === this.#first || (member === this.#former && !isComplete)) {
      this.#lose(cause);
      return;
    }
    this.#settle(member);
    if (member === this.#successor) this.#successor = undefined;
    if (!member.isDraining) this.#owner.onCarrierGone(member.connection);
    if (!this.#isRenewing) return;
    if (this.#first?.isNew !== true && this.#successor === undefined) this.#giveUpRenewal();
    else if ([...this.#members].every(({ isNew }) => isNew)) this.#endRenewal();
  }

  /** The successor is lost: what came with it would otherwise be there beyond what a tunnel may have. */
  #giveUpRenewal(): void {
    const further = [...this.#members].filter(({ isNew }) => isNew);
    this.#endRenewal();
    for (const member of further) this.#drain(member, IDLE);
  }

  #endRenewal(): void {
    this.#isRenewing = false;
    for (const member of this.#members) member.isNew = false;
  }

  /** Nothing comes over the former first connection any more: control messages may go over the new one. */
  #settle(member: Member): void {
    if (member !== this.#former) return;
    this.#former = undefined;
    this.#first?.connection.releaseControl();
  }

  #lose(cause: CloseCause): void {
    const others = [...this.#members];
    this.#members.clear();
    this.#first = undefined;
    this.#successor = undefined;
    this.#former = undefined;
    this.#isRenewing = false;
    for (const { connection, cancelTimer } of others) {
      cancelTimer();
      if (cause.by === 'us') connection.abort(cause);
      else connection.destroy(cause.code, cause.reason);
    }
    this.#owner.onLost(cause);
  }
}

interface Member {
  readonly connection: TunnelConnection;
  readonly info: ConnectionInfo;
  /** Came since the renewal that is under way has begun. */
  isNew: boolean;
  /** This side gives it nothing any more. */
  isDraining: boolean;
  /** How this side ends it, if it began to drain it. */
  close: Close | undefined;
  /** The peer's DRAIN has answered ours. */
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

const IDLE: Close = { code: CloseCode.Idle, reason: 'the connection is not needed' };
const RENEWED: Close = {
  code: CloseCode.Renewed,
  reason: 'another connection has taken its place',
};
/** How long the first connection of a tunnel that is closed waits for the others, in ms. */
const PATIENCE_MS = 1_000;
/** Over how long the rate of control messages is averaged, in ms: bursts pass. */
const CONTROL_WINDOW_MS = 10_000;
