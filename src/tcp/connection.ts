/**
 * A connection as its owner sees it: the calls of
 * [RFC 9293 section 3.9.1](https://www.rfc-editor.org/rfc/rfc9293#section-3.9.1) and their effect on the control block.
 * @module
 */
import { checkWhole } from '../base/option-check.ts';
import type { ControlBlock } from './control-block.ts';
import type { Flow } from './flow.ts';
import { Keepalive } from './probes.ts';
import { type TcpFailure, TcpState } from './state.ts';
import { limitFinWait2 } from './timers.ts';

/** Learns of the events of its connections. */
export interface TcpOwner {
  /** @param events bits of `TcpEvent` that were raised since the last call */
  onTcpEvents(connection: TcpConnection, events: number): void;
}

/** One connection. No call runs code of the owner; events follow by `TcpEndpoint.takeEvents`. */
export class TcpConnection {
  /** Who learns of the events; undefined until somebody takes an accepted connection. */
  owner: TcpOwner | undefined;
  /** Why `abort` was called, if the caller said so. */
  cause: Error | undefined;
  readonly #block: ControlBlock;

  /** @internal */
  constructor(block: ControlBlock, owner: TcpOwner | undefined) {
    block.connection = this;
    this.#block = block;
    this.owner = owner;
  }

  get flow(): Flow {
    return this.#block.flow;
  }

  get state(): TcpState {
    return this.#block.state;
  }

  /** Why the connection ended out of order. */
  get failure(): TcpFailure | undefined {
    return this.#block.failure;
  }

  /** The bytes that can be read now. */
  get available(): number {
    return this.#block.receive.available;
  }

  /** Whether the peer has ended its direction; `available` bytes may still be read. */
  get isReadEnded(): boolean {
    return this.#block.isFinReceived;
  }

  /** The bytes that were written and not acknowledged yet. */
  get unacknowledged(): number {
    return this.#block.send.length;
  }

  /** The smoothed round-trip time in ms; 0 while it is not known. */
  get rttMs(): number {
    return this.#block.rtt.srttMs;
  }

  /**
   * Writes `bytes[from ..]`. Returns how many bytes were taken: 0 if there is no room, or if the connection does not
   * take bytes any more. If not all were taken, the event `Writable` follows when there is room.
   */
  write(bytes: Uint8Array, from: number = 0): number {
    const block = this.#block;
    const { state } = block;
    const takes =
      !block.isFinQueued &&
      (state === TcpState.SynSent ||
        state === TcpState.SynReceived ||
        state === TcpState.Established ||
        state === TcpState.CloseWait);
    if (!takes) return 0;
    // What holds nothing before this begins now to hold something.
    block.onProgress(0, block.host.now);
    const taken = block.send.write(bytes, from);
    if (taken < bytes.length - from) block.isWriterWaiting = true;
    if (taken > 0) block.host.update(block);
    return taken;
  }

  /** Takes up to `length` bytes out of the receive buffer into `target` at `at`. Returns how many. */
  read(target: Uint8Array, at: number, length: number): number {
    const block = this.#block;
    const count = block.receive.read(target, at, length);
    if (count === 0) return 0;
    const { window, host } = block;
    block.onProgress(count, host.now);
    if (block.hasEnded) {
      host.keepUnread(block);
      return count;
    }
    window.onRead(count, host.now, block.rtt.srttMs, !block.memory.isTight);
    if (!block.isFinReceived && window.isUpdateDue(block.receive.available, block.spare)) {
      block.isAckDue = true;
      host.update(block);
    }
    return count;
  }

  /** Ends our direction behind what was written. Reading goes on. */
  shutdown(): void {
    const block = this.#block;
    if (block.isFinQueued) return;
    switch (block.state) {
      case TcpState.SynSent:
      case TcpState.SynReceived:
        break;
      case TcpState.Established:
        block.state = TcpState.FinWait1;
        break;
      case TcpState.CloseWait:
        block.state = TcpState.LastAck;
        break;
      default:
        return;
    }
    block.isFinQueued = true;
    block.host.update(block);
  }

  /**
   * Resets the connection.
   *
   * @param cause why, for the owner
   */
  abort(cause?: Error): void {
    const block = this.#block;
    if (block.hasEnded) return;
    this.cause = cause;
    const isKnownToPeer = block.state !== TcpState.SynSent;
    if (isKnownToPeer) block.host.answer(block, true);
    block.end('aborted');
  }

  /**
   * The application has left. What was written is still sent, unless bytes are left that nobody has read: then the peer
   * must learn that they were lost, by a reset (RFC 9293 section 3.6.1, RFC 2525 section 2.17). Data that comes later
   * is answered by a reset too.
   */
  release(): void {
    const block = this.#block;
    if (block.isReleased) return;
    block.isReleased = true;
    this.owner = undefined;
    const hasUnread = block.receive.available > 0;
    const { state } = block;
    if (block.hasEnded) {
      block.dropUnread();
    } else if (hasUnread || state === TcpState.SynSent) {
      this.abort();
      block.receive.destroy();
    } else {
      block.isReceiveShut = true;
      this.shutdown();
      if (block.state === TcpState.FinWait2) {
        block.host.advance();
        limitFinWait2(block, block.host.now);
      }
      block.host.update(block);
    }
  }

  /** Switches Nagle's algorithm off (`true`) or on, as TCP_NODELAY. */
  setNoDelay(isNoDelay: boolean): void {
    this.#block.isNoDelay = isNoDelay;
    if (isNoDelay) this.#block.host.update(this.#block);
  }

  /**
   * Probes an idle peer (RFC 9293 section 3.8.4).
   *
   * @param delayMs the idle time before the first probe; 0 ends the probing
   */
  setKeepAlive(delayMs: number): void {
    checkWhole('delayMs', delayMs, 0, MAX_DELAY_MS);
    const block = this.#block;
    block.host.advance();
    block.keepalive ??= new Keepalive();
    block.keepalive.delayMs = delayMs;
    block.keepalive.restart(block.host.now);
    block.host.update(block);
  }

  /** How long in ms written bytes may wait for an acknowledgement (RFC 5482); default 924,600, as Linux. */
  setUserTimeout(timeoutMs: number): void {
    this.#block.userTimeoutMs = checkWhole('timeoutMs', timeoutMs, 1, MAX_DELAY_MS);
    this.#block.host.update(this.#block);
  }
}

/** The connection of a control block. @internal */
export function connectionOf(block: ControlBlock): TcpConnection {
  return block.connection as TcpConnection;
}

const MAX_DELAY_MS = 0x7fff_ffff;
