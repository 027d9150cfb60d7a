/**
 * PING and PONG of one connection: the round-trip time, and when the peer counts as dead.
 *
 * 1. A PING goes out every `keepaliveMs`. After three intervals without a byte the peer is dead.
 * 2. A connection that is used is watched: from the first packet or message, in either direction, until the peer was
 *    heard after the last one. While nothing comes, a PING goes out every `PROBE_MS`, or twice the round-trip time if
 *    that is longer. If the third one is not answered in that time, the peer is dead. Every byte of the peer is an
 *    answer, so a watched connection with traffic in both directions sends no PING.
 * 3. Checks are counted, not time: when this process was held up, or the clock has jumped, that is one check, and what
 *    has come meanwhile is read before it.
 * 4. A PING that waits behind other bytes has not reached the peer yet. While these bytes go out, as far as this side
 *    can know (`Progress`), the check does not count. Three intervals of rule 1 end that too.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { FRAME_HEADER_LENGTH, FrameType, PING_LENGTH, writeFrameHeader } from './frame.ts';

/** How far the bytes of a connection have got. */
export interface Progress {
  /** Bytes that the peer's system has acknowledged, cumulative; where that is not known, that this system has taken. */
  readonly done: number;
  /** Bytes that this system has taken: the value that `done` has when all of them are done. */
  readonly end: number;
}

export interface KeepaliveOptions {
  readonly clock: Clock;
  readonly send: (frame: Buffer) => void;
  /** Whether messages wait that the socket has not taken: a peer that does not read gets no more PINGs. */
  readonly isBlocked: () => boolean;
  /** Whether the socket has not taken the message that was sent last. */
  readonly isPending: () => boolean;
  readonly progress: () => Progress;
  /** A PING was sent because the peer is silent; called once for each silence. */
  readonly onSilent: () => void;
  readonly onDead: (reason: string) => void;
  /** Called every `keepaliveMs`. */
  readonly onTick: () => void;
}

export class Keepalive {
  /** Round-trip time of the last PING that was answered, in ms. */
  rttMs: number | undefined;
  readonly #options: KeepaliveOptions;
  #keepaliveMs = 0;
  #isRunning = false;
  #cancelTick: () => void = ignore;
  #cancelCheck: () => void = ignore;
  #wasHeardSinceTick = false;
  #silentTicks = 0;
  #isWatching = false;
  /** Whether a packet or a message has passed since the last check. */
  #isUsed = false;
  #wasHeardSinceCheck = false;
  #heardMs = 0;
  /** When the next check is due. */
  #dueMs = 0;
  #silentChecks = 0;
  /** What was done at the last check. */
  #doneBytes = 0;
  /** The number of bytes up to the end of the last PING; infinite until the system has taken it. */
  #pingEnd = 0;
  /** When the PINGs were sent that are not answered, in ms; oldest first. */
  readonly #sentMs: number[] = [];
  /** The measurement under way. */
  #probe: Probe | undefined;
  /** The question under way whether the peer is there. */
  #question: Question | undefined;

  constructor(options: KeepaliveOptions) {
    this.#options = options;
  }

  start(keepaliveMs: number): void {
    this.#isRunning = true;
    this.#keepaliveMs = keepaliveMs;
    this.#ping();
    this.#cancelTick = this.#options.clock.after(keepaliveMs, this.#onTick);
  }

  stop(): void {
    this.#isRunning = false;
    this.#cancelTick();
    this.#cancelCheck();
    this.#probe?.settle(undefined);
    this.#answer(false);
  }

  /** Something has come from the peer. */
  heard(): void {
    this.#wasHeardSinceTick = true;
    this.#wasHeardSinceCheck = true;
    this.#heardMs = this.#options.clock.monotonicMs();
    if (this.#question !== undefined) this.#answer(true);
  }

  /** A packet or a message was sent, or has come. */
  used(): void {
    this.#isUsed = true;
    if (!this.#isWatching) this.#watch();
  }

  /** A PONG has come. */
  pong(buffer: Buffer, start: number): void {
    const number = buffer.readDoubleBE(start);
    const nowMs = this.#options.clock.monotonicMs();
    const at = this.#sentMs.indexOf(number);
    // Any other PONG is late or made up.
    if (at >= 0) {
      this.#sentMs.splice(0, at + 1);
      this.rttMs = nowMs - number;
    } else if (this.#probe?.number === number) {
      this.#probe.settle(nowMs + number);
    }
  }

  /** See `TunnelConnection.measure`. */
  measure(timeoutMs: number): Promise<number | undefined> {
    if (this.#probe !== undefined) return this.#probe.result;
    const { clock, send, isBlocked } = this.#options;
    if (!this.#isRunning || isBlocked()) return Promise.resolve(undefined);
    // No PING of the keepalive has a negative number.
    const number = -clock.monotonicMs();
    let settle!: Probe['settle'];
    const result = new Promise<number | undefined>((resolve) => {
      const cancel = clock.after(timeoutMs, () => settle(undefined));
      settle = (rttMs) => {
        cancel();
        this.#probe = undefined;
        resolve(rttMs);
      };
    });
    this.#probe = { number, result, settle };
    send(pingOf(number));
    return result;
  }

  /** See `TunnelConnection.isAlive`. */
  isAlive(): Promise<boolean> {
    if (!this.#isRunning) return Promise.resolve(false);
    if (this.#question === undefined) {
      let settle!: Question['settle'];
      const result = new Promise<boolean>((resolve) => {
        settle = resolve;
      });
      this.#question = { result, settle };
    }
    const { result } = this.#question;
    this.#isWatching = true;
    // If it is silent already, a PING is under way.
    if (this.#silentChecks === 0) this.#probePeer(this.#options.clock.monotonicMs());
    return result;
  }

  readonly #onTick = (): void => {
    this.#silentTicks = this.#wasHeardSinceTick ? 0 : this.#silentTicks + 1;
    this.#wasHeardSinceTick = false;
    if (this.#silentTicks >= DEAD_AFTER) {
      this.#options.onDead(`nothing came from the peer for ${DEAD_AFTER * this.#keepaliveMs} ms`);
      return;
    }
    this.#options.onTick();
    this.#ping();
    this.#cancelTick = this.#options.clock.after(this.#keepaliveMs, this.#onTick);
  };

  #watch(): void {
    if (!this.#isRunning) return;
    this.#isWatching = true;
    this.#silentChecks = 0;
    this.#checkAfter(this.#options.clock.monotonicMs(), this.#intervalMs);
  }

  readonly #onCheck = (): void => {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#dueMs > LATE_MS) {
      // This process was held up. What has come meanwhile is read first.
      this.#cancelCheck = this.#options.clock.after(LOOK_MS, () =>
        this.#check(this.#options.clock.monotonicMs())
      );
      return;
    }
    this.#check(nowMs);
  };

  #check(nowMs: number): void {
    if (this.#wasHeardSinceCheck) {
      this.#silentChecks = 0;
      this.#isWatching = this.#isUsed;
      this.#isUsed = false;
      if (!this.#isWatching) return;
      const intervalMs = this.#intervalMs;
      const leftMs = this.#heardMs + intervalMs - nowMs;
      this.#checkAfter(nowMs, Math.max(leftMs, intervalMs / 2));
      return;
    }
    if (this.#silentChecks > 0 && this.#isOnItsWay()) {
      this.#checkAfter(nowMs, this.#intervalMs);
      return;
    }
    if (this.#silentChecks >= DEAD_AFTER) {
      this.#options.onDead(`the peer has not answered ${DEAD_AFTER} PINGs in a row`);
      return;
    }
    this.#probePeer(nowMs);
    if (this.#silentChecks === 1) this.#options.onSilent();
  }

  /** Sends a PING because the peer is silent, or to ask it. */
  #probePeer(nowMs: number): void {
    this.#silentChecks++;
    // The answer stands for all that was sent before.
    this.#isUsed = false;
    const before = this.#options.progress();
    this.#ping();
    const { end } = this.#options.progress();
    this.#doneBytes = before.done;
    this.#pingEnd = end > before.end ? end : Number.POSITIVE_INFINITY;
    this.#checkAfter(nowMs, this.#intervalMs);
  }

  #checkAfter(nowMs: number, delayMs: number): void {
    this.#cancelCheck();
    this.#wasHeardSinceCheck = false;
    this.#dueMs = nowMs + delayMs;
    this.#cancelCheck = this.#options.clock.after(delayMs, this.#onCheck);
  }

  /** Whether the last PING has not reached the peer, and more bytes have since the last check. */
  #isOnItsWay(): boolean {
    const { progress, isPending } = this.#options;
    const { done, end } = progress();
    const isMoving = done > this.#doneBytes;
    this.#doneBytes = done;
    if (!isPending()) this.#pingEnd = Math.min(this.#pingEnd, end);
    return isMoving && done < this.#pingEnd;
  }

  get #intervalMs(): number {
    const byRttMs = Math.min(2 * (this.rttMs ?? 0), MAX_PROBE_MS);
    return Math.min(Math.max(PROBE_MS, byRttMs), this.#keepaliveMs);
  }

  #ping(): void {
    const { clock, send, isBlocked } = this.#options;
    if (isBlocked()) return;
    const nowMs = clock.monotonicMs();
    if (this.#sentMs.length >= MAX_UNANSWERED) this.#sentMs.shift();
    this.#sentMs.push(nowMs);
    send(pingOf(nowMs));
  }

  #answer(isAlive: boolean): void {
    const question = this.#question;
    this.#question = undefined;
    question?.settle(isAlive);
  }
}

/** A measurement of the round-trip time; `number` is that of its PING. */
interface Probe {
  readonly number: number;
  readonly result: Promise<number | undefined>;
  readonly settle: (rttMs: number | undefined) => void;
}

interface Question {
  readonly result: Promise<boolean>;
  readonly settle: (isAlive: boolean) => void;
}

/** Returns a PING whose payload is a number. */
function pingOf(number: number): Buffer {
  const frame = Buffer.alloc(FRAME_HEADER_LENGTH + PING_LENGTH);
  writeFrameHeader(frame, 0, FrameType.Ping, PING_LENGTH);
  frame.writeDoubleBE(number, FRAME_HEADER_LENGTH);
  return frame;
}

function ignore(): void {}

/** PINGs, or intervals of the keepalive, without a byte after which the peer counts as dead. */
export const DEAD_AFTER = 3;
/** How long a watched connection may be silent before the first PING, and how long each has for its answer, in ms. */
const PROBE_MS = 300;
/** The same on a slow network, in ms, at most. */
const MAX_PROBE_MS = 1_000;
/** How late a check comes if this process was held up, in ms, and how long it waits then for what has come meanwhile. */
const LATE_MS = 150;
const LOOK_MS = 20;
/** How many PINGs are remembered until their PONG comes. */
const MAX_UNANSWERED = 4;
