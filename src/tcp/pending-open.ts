/**
 * A handshake that is *held*: a peer's SYN has arrived, and it is answered when the owner has decided about it. A
 * gateway first connects to the real service, so that its client learns what became of that.
 *
 * Until `accept` nothing is sent and no timer sends anything; a repeated SYN finds the handshake. It ends with its
 * acceptance, with a reset of the peer, after `HELD_MS`, or when newer handshakes take its place. Then its owner is told.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Flow } from './flow.ts';
import type { HalfOpen } from './half-open.ts';
import type { ListenerOwner } from './listener.ts';

/** Why a handshake ended that the owner has neither refused nor dropped. */
export type TcpOpenEnd =
  /** The peer has reset it, or has begun another one of the same flow. */
  | 'reset'
  /** Newer handshakes needed its place. */
  | 'evicted'
  /** It was held for too long, or the peer did not complete it. */
  | 'timed-out'
  /** The endpoint was closed. */
  | 'aborted';

/**
 * Decides about one held handshake. For each one that `onTcpSyn` has returned, exactly one of `onTcpConnection` and
 * `onTcpOpenEnded` is called, unless the owner has called `refuse` or `drop`.
 */
export interface TcpOpenOwner extends ListenerOwner {
  /** The handshake is held: call `accept`, `refuse` or `drop`, now or later. */
  onTcpOpen(open: TcpPendingOpen): void;
  /** The handshake has ended, perhaps before `onTcpOpen` was called. */
  onTcpOpenEnded(reason: TcpOpenEnd): void;
}

/** Takes the SYNs for which there is no listener. */
export interface TcpHolder {
  /** Whether this is an address at which a listener for all addresses listens. Called while a packet is handled. */
  isOwn(address: IpAddress): boolean;
  /**
   * Returns who decides about a handshake. `refuse` answers with a reset, and `drop` does not answer. Called while a
   * packet is handled: it must not run code of the application.
   */
  onTcpSyn(flow: Flow): TcpOpenOwner | 'refuse' | 'drop';
}

/** What a held handshake needs of its table. @internal */
export interface PendingOpenHost {
  accept(open: TcpPendingOpen): void;
  refuse(open: TcpPendingOpen): void;
  drop(open: TcpPendingOpen): void;
}

/** One held handshake. No call runs code of the owner. */
export class TcpPendingOpen {
  readonly owner: TcpOpenOwner;
  /** @internal */
  readonly opening: HalfOpen;
  /** @internal */
  waiting = 0;
  /** @internal */
  readonly backlog = 1;
  /** Whether the owner was told of it. @internal */
  isAnnounced = false;
  /** Why it ended, until the owner is told. @internal */
  end: TcpOpenEnd | undefined = undefined;
  /** @internal */
  isNotified = false;
  readonly #host: PendingOpenHost;
  #isOpen = true;

  /** @internal */
  constructor(opening: HalfOpen, owner: TcpOpenOwner, host: PendingOpenHost) {
    this.opening = opening;
    this.owner = owner;
    this.#host = host;
  }

  get flow(): Flow {
    return this.opening.flow;
  }

  /** The sequence number of the SYN, signed. */
  get sequence(): number {
    return this.opening.irs;
  }

  /** Whether the handshake still waits to be accepted, refused or dropped, or for the peer to complete it. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Sends the SYN-ACK, and again until the peer completes the handshake. Returns false if it has ended. */
  accept(): boolean {
    if (this.#isOpen && this.opening.isHeld) this.#host.accept(this);
    return this.#isOpen;
  }

  /** Resets the handshake. Nothing happens if it has ended. */
  refuse(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#host.refuse(this);
  }

  /** Forgets the handshake without a word: the peer's next SYN begins another one. Nothing happens if it has ended. */
  drop(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#host.drop(this);
  }

  /** It is no entry of the table any more. @internal */
  leave(): void {
    this.#isOpen = false;
  }

  /** The connection ended before its owner has learned of it. @internal */
  onLost(): void {
    this.owner.onTcpOpenEnded('reset');
  }
}

/** The held handshakes whose owners have something to learn. */
export class PendingOpenEvents {
  readonly #onEvents: () => void;
  #waiting: TcpPendingOpen[] = [];

  /** @param onEvents called when there are events, once until `deliver` */
  constructor(onEvents: () => void) {
    this.#onEvents = onEvents;
  }

  add(open: TcpPendingOpen): void {
    if (open.isNotified) return;
    open.isNotified = true;
    this.#waiting.push(open);
    if (this.#waiting.length === 1) this.#onEvents();
  }

  /** Calls the owners. If one throws, the others learn of their events by the next call. */
  deliver(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    let taken = 0;
    try {
      for (; taken < waiting.length; ) tell(waiting[taken++]!);
    } finally {
      if (taken < waiting.length) {
        const isFirst = this.#waiting.length === 0;
        this.#waiting = [...waiting.slice(taken), ...this.#waiting];
        if (isFirst) this.#onEvents();
      }
    }
  }
}

function tell(open: TcpPendingOpen): void {
  open.isNotified = false;
  const { end } = open;
  open.end = undefined;
  if (end !== undefined) {
    open.owner.onTcpOpenEnded(end);
  } else if (!open.isAnnounced && open.isOpen) {
    open.isAnnounced = true;
    open.owner.onTcpOpen(open);
  }
}

/** As long as a client sends its SYN again: 6 times, and the last wait ends after 127 s (Linux's `tcp_syn_retries`). */
export const HELD_MS = 127_000;
