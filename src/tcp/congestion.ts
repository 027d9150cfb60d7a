/**
 * The congestion window of one connection: CUBIC ([RFC 9438](https://www.rfc-editor.org/rfc/rfc9438)) in congestion
 * avoidance, HyStart++ ([RFC 9406](https://www.rfc-editor.org/rfc/rfc9406)) in the initial slow start, PRR
 * ([RFC 9937](https://www.rfc-editor.org/rfc/rfc9937)) in fast recovery.
 *
 * Windows are bytes. `unit` stands for SMSS: a segment on our wire may have 64 KiB, and with that as SMSS the window
 * would grow 45 times as fast as that of other flows and never fall below 128 KiB. Bytes acknowledged count in full,
 * however many segments one ACK is for, but an ACK never more than doubles the window.
 *
 * The calls of the connection, for each ACK that `LossRecovery` has judged:
 *
 * 1. `undo` if the episode was spurious;
 * 2. `exitRecovery` if recovery or the repair after a timeout is over;
 * 3. `enterRecovery` if a loss was found;
 * 4. then `onRecoveryAck` during recovery, also for the ACK that began it, else `onAck` if SND.UNA advanced.
 *
 * `cwnd` is a whole number, at least one unit and at most 8 MiB. Outside of recovery only `onTimeout`, `onLocalDrop`
 * and `onIdle` reduce it.
 * @module
 */
import { BETA, CubicCurve } from './cubic.ts';
import { HyStart } from './hystart.ts';
import { Prr } from './prr.ts';

export class Congestion {
  /** How many bytes may be in flight. */
  cwnd: number;
  /** Below it, slow start; Infinity until the first congestion event. */
  ssthresh: number = Number.POSITIVE_INFINITY;
  /** `recovery` is fast recovery, `loss` the repair after a timeout. */
  phase: 'open' | 'recovery' | 'loss' = 'open';

  private smss: number;
  /** The growth that is less than a byte. */
  private fraction = 0;
  /** Whether the window was used to the full at the last ACK. */
  private wasLimited = true;
  /** Exists during the initial slow start. */
  private hystart: HyStart | undefined = new HyStart();
  private readonly curve: CubicCurve = new CubicCurve();
  /** Exists from the first recovery on. */
  private prr: Prr | undefined;
  /** What the window was before the last episode, as long as that may prove spurious. */
  private before: Before | undefined;

  /**
   * @param unit bytes that stand for SMSS: the lesser of the effective MSS and 1,460. It must be known: the initial
   * window is ten of it ([RFC 6928](https://www.rfc-editor.org/rfc/rfc6928#section-2)).
   */
  constructor(unit: number) {
    this.smss = Math.max(1, unit);
    this.cwnd = INITIAL_UNITS * this.smss;
  }

  get unit(): number {
    return this.smss;
  }

  /** The path MTU changed. The window stays what it is in bytes, but at least a unit. */
  set unit(bytes: number) {
    this.smss = Math.max(1, bytes);
    this.cwnd = Math.max(this.cwnd, this.smss);
  }

  get isInSlowStart(): boolean {
    return this.cwnd < this.ssthresh;
  }

  /** The SYN or its answer was lost, more than once as Linux counts: the initial window is one unit (RFC 6928). */
  onSynTimedOut(): void {
    this.cwnd = this.smss;
  }

  /**
   * SND.UNA advanced, not in recovery. The window grows if it was used to the full.
   *
   * @param acked bytes by which SND.UNA advanced
   * @param rttMs the round-trip time that this ACK gives, -1 if none
   * @param srttMs the smoothed round-trip time
   * @param isCwndLimited whether the window kept the connection from sending since the last ACK; in slow start also if
   * more than half of it was used, as Linux has it, for slow start is to find out what the path can carry
   * @param roundEnded whether this ACK covers what was SND.NXT when the round began
   */
  onAck(
    acked: number,
    now: number,
    rttMs: number,
    srttMs: number,
    isCwndLimited: boolean,
    roundEnded: boolean
  ): void {
    if (this.phase === 'recovery' || !(acked > 0)) return;
    if (this.hystart !== undefined) {
      this.hystart.onAck(acked, this.smss, rttMs, roundEnded);
      if (this.hystart.isDone) {
        this.hystart = undefined;
        this.ssthresh = this.cwnd;
      }
    }
    this.wasLimited = isCwndLimited;
    if (!isCwndLimited) {
      this.curve.pause(now);
      return;
    }
    let counted = Math.min(acked, this.cwnd);
    if (this.cwnd < this.ssthresh) counted = this.slowStart(counted);
    if (counted <= 0) return;
    this.growTo(this.curve.grow(this.cwnd, counted, now, srttMs, this.smss));
  }

  /**
   * A loss was found: fast recovery begins. The window follows with `onRecoveryAck`, which must be called for the same
   * event, also if it was a timer (`delivered` is then 0).
   *
   * @param flight bytes sent and neither acknowledged nor SACKed before this ACK, lost or not (RecoverFS of RFC 9937)
   * @param hasSack whether the connection uses SACK; if not, what is delivered is an estimate, which PRR limits
   */
  enterRecovery(flight: number, now: number, hasSack = true): void {
    if (this.phase === 'recovery') return;
    this.remember(now);
    this.reduce(flight);
    this.phase = 'recovery';
    this.prr ??= new Prr();
    this.prr.begin(flight, this.ssthresh, hasSack);
  }

  /**
   * An ACK during recovery.
   *
   * @param delivered bytes newly acknowledged or SACKed
   * @param inFlight bytes in flight after this ACK, without those that are lost
   * @param isUnaAdvanced whether SND.UNA advanced
   * @param newlyLost bytes that this ACK showed to be lost
   */
  onRecoveryAck(
    delivered: number,
    inFlight: number,
    isUnaAdvanced: boolean,
    newlyLost: number
  ): void {
    if (this.phase !== 'recovery' || this.prr === undefined) return;
    const isSafe = isUnaAdvanced && newlyLost <= 0;
    const allowed = this.prr.onAck(delivered, inFlight, isSafe, this.smss);
    if (allowed >= 0) this.set(inFlight + allowed, this.smss);
  }

  /** Bytes were sent, new ones or again; negative if the device refused the packet. PRR needs them in recovery. */
  onTransmit(bytes: number): void {
    if (this.phase === 'recovery') this.prr?.onTransmit(bytes);
  }

  /** What was outstanding when the episode began is acknowledged: recovery, or the repair after a timeout, is over. */
  exitRecovery(): void {
    if (this.phase === 'recovery') this.set(this.ssthresh, 2 * this.smss);
    this.phase = 'open';
  }

  /**
   * The retransmission timer expired: slow start from one unit. A timeout that follows another or a recovery, before
   * that episode is over, does not reduce ssthresh again (RFC 5681, section 3.1).
   *
   * @param flight bytes sent and neither acknowledged nor SACKed
   */
  onTimeout(flight: number, now: number): void {
    if (this.phase === 'open') {
      this.remember(now);
      this.reduce(flight);
    }
    this.curve.onTimeout();
    this.phase = 'loss';
    this.set(this.smss, this.smss);
  }

  /**
   * The device refused a packet: the queue in front of the tunnel is full. The window is reduced as for a loss, but
   * nothing needs repair. The caller sees to it that this is called once in a round trip.
   */
  onLocalDrop(flight: number): void {
    if (this.phase !== 'open') return;
    this.before = undefined;
    this.reduce(flight);
    this.set(Math.min(this.cwnd, this.ssthresh), 2 * this.smss);
  }

  /**
   * The last episode was spurious: nothing was lost. The window is what it was before, unless it is larger now
   * (RFC 9438, section 4.9; RFC 4015). It may be called after the episode has ended, and does nothing if the episode was
   * undone already.
   */
  undo(now: number): void {
    const { before } = this;
    if (before === undefined) return;
    this.before = undefined;
    this.phase = 'open';
    this.set(Math.max(this.cwnd, before.cwnd), this.smss);
    this.ssthresh = Math.max(this.ssthresh, before.ssthresh);
    // The window did not follow the curve meanwhile: if the time counted, it would jump.
    this.curve.copyFrom(before.curve);
    this.curve.skip(Math.max(0, now - before.at));
    if (this.ssthresh === Number.POSITIVE_INFINITY) this.hystart = new HyStart();
  }

  /**
   * Something will be sent after nothing was in flight for a time. The window says nothing about the path any more: it
   * is halved for each timeout that has passed, down to the initial window, as Linux does (RFC 5681, section 4.1, would
   * go down at once). Call it before the first packet, also after a short time, which CUBIC does not count.
   *
   * @param idleMs time since the last packet was sent or acknowledged
   * @param rtoMs the retransmission timeout
   */
  onIdle(idleMs: number, rtoMs: number): void {
    if (!(idleMs > 0)) return;
    this.curve.skip(idleMs);
    if (this.phase !== 'open' || !(idleMs > rtoMs)) return;
    this.before = undefined;
    // Slow start then leads back to three quarters at once, and congestion avoidance from there.
    this.ssthresh = Math.max(this.ssthresh, Math.floor(0.75 * this.cwnd));
    const floor = Math.min(INITIAL_UNITS * this.smss, this.cwnd);
    let window = this.cwnd;
    for (let left = idleMs - rtoMs; left > 0 && window > floor; left -= rtoMs) window /= 2;
    if (window === this.cwnd) return;
    this.set(Math.max(window, floor), this.smss);
    this.curve.restart();
  }

  /** Grows up to ssthresh, and returns the bytes acknowledged that are left for congestion avoidance. */
  private slowStart(acked: number): number {
    const divisor = this.hystart?.divisor ?? 1;
    const room = this.ssthresh - this.cwnd;
    const growth = acked / divisor;
    if (growth <= room) {
      this.growTo(this.cwnd + growth);
      return 0;
    }
    this.growTo(this.ssthresh);
    return acked - room * divisor;
  }

  /** Sets ssthresh for a congestion event. */
  private reduce(flight: number): void {
    // RFC 9438, section 4.6: a window that was not used says nothing about the path, so what was in flight counts. One
    // that was used counts itself, as in Linux: large segments leave a part of it free.
    const window = this.wasLimited ? this.cwnd : Math.min(this.cwnd, flight);
    this.hystart = undefined;
    this.curve.onCongestion(window);
    this.ssthresh = Math.max(Math.floor(BETA * window), 2 * this.smss);
  }

  private remember(now: number): void {
    this.before ??= { at: 0, cwnd: 0, ssthresh: 0, curve: new CubicCurve() };
    this.before.at = now;
    this.before.cwnd = this.cwnd;
    this.before.ssthresh = this.ssthresh;
    this.before.curve.copyFrom(this.curve);
  }

  /** Grows to a window that may have a fraction; the fraction is kept for the next growth. */
  private growTo(window: number): void {
    const exact = Math.min(window + this.fraction, MAX_WINDOW);
    const whole = Math.floor(exact);
    this.fraction = exact - whole;
    this.cwnd = Math.max(this.cwnd, whole);
  }

  private set(window: number, floor: number): void {
    this.fraction = 0;
    this.cwnd = Math.min(Math.max(Math.floor(window), floor), MAX_WINDOW);
  }
}

/** The state before an episode. */
interface Before {
  at: number;
  cwnd: number;
  ssthresh: number;
  readonly curve: CubicCurve;
}

/** RFC 6928. Its bound of 14,600 bytes is kept, as a unit has at most 1,460. */
const INITIAL_UNITS = 10;
/** The largest window: twice the largest send buffer, so that it never holds anybody back. */
export const MAX_WINDOW: number = 8 * 1_024 * 1_024;
