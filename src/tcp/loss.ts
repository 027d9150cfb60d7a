/**
 * Decides what of a connection is lost, and when to look again: RACK-TLP
 * ([RFC 8985](https://www.rfc-editor.org/rfc/rfc8985)) over the scoreboard of SACK (RFC 2018), and NewReno
 * ([RFC 6582](https://www.rfc-editor.org/rfc/rfc6582)) for a peer without SACK. It also takes the round-trip times, runs
 * the retransmission timer (RFC 6298, section 5), and finds out that a recovery was needless (`spurious.ts`).
 *
 * It sends nothing and knows no congestion window. The connection reports each transmission (`onTransmit`) and each ACK
 * (`onAck`), reads in `found` what followed, and sends what `firstLost` names when its window allows.
 *
 * Sequence numbers are int32, times ms, sizes bytes. SYN and FIN count one byte.
 * @module
 */
import { delivery } from './delivery.ts';
import { type Findings, findings } from './findings.ts';
import { LastTransmission } from './last-transmission.ts';
import { LossTimers } from './loss-timers.ts';
import { Rack } from './rack.ts';
import { type LossPhase, Recovery } from './recovery.ts';
import type { RttEstimator } from './rtt.ts';
import { isDsack, readBlocks, usableBlocks } from './sack-blocks.ts';
import { seqAtMost, seqBefore, seqDistance, seqMin } from './sequence.ts';
import { MIN_PTO_MS, probeTimeout, TailProbe } from './tail-probe.ts';
import { IN_FLIGHT, type Transmission } from './transmission.ts';
import { Transmissions } from './transmissions.ts';

/** What an expired timer asks for; see `expire`. */
export type LossExpiry = 'none' | 'lost' | 'retry' | 'probe' | 'timeout';

/** Loss detection and its timers for one connection. */
export class LossRecovery {
  /** SACK was negotiated. */
  hasSack = false;
  /** What stands for SMSS: min(effective MSS, 1460). */
  unit: number = DEFAULT_UNIT;
  /** The payload of a full wire segment; 0 if it is `unit`. */
  mss = 0;

  /** What the last `onAck` or `expire` found; see there how long it holds. */
  readonly found: Findings = findings;
  /** The records. Read only outside this class. */
  readonly records: Transmissions = new Transmissions();
  private readonly rtt: RttEstimator;
  private readonly last: LastTransmission;
  private readonly rack: Rack = new Rack();
  /**
   * The tail loss probe. While `isDue`, one packet is to be sent whatever cwnd says, and the next transmission is taken
   * for it: new data, or else [start, end). An ACK may come first that makes it needless.
   */
  readonly probe: TailProbe = new TailProbe();
  private readonly recovery: Recovery = new Recovery();
  readonly timers: LossTimers = new LossTimers();
  private roundEnd = 0;
  private isStarted = false;

  /** @param last that of the endpoint, of whose packets only the last one can be refused; default: one of its own */
  constructor(rtt: RttEstimator, last: LastTransmission = new LastTransmission()) {
    this.rtt = rtt;
    this.last = last;
  }

  /** The bytes in the network, as far as is known: sent, neither acknowledged nor lost, each transmission once. */
  get inFlight(): number {
    return this.records.inFlight - this.recovery.reported;
  }

  get phase(): LossPhase {
    return this.recovery.phase;
  }

  /** SND.NXT - SND.UNA. */
  get outstanding(): number {
    return seqDistance(this.records.start, this.records.end);
  }

  get isEmpty(): boolean {
    return this.records.count === 0;
  }

  /** Something is lost and was not sent again: `firstLost` tells what. */
  get hasLost(): boolean {
    return this.records.lostBytes > 0;
  }

  /** So many packets are outstanding that no new data may be sent. What was sent before may be sent again. */
  get isFull(): boolean {
    return this.records.count >= MAX_RECORDS;
  }

  /** When `expire` is due, in ms; Infinity if no timer runs. */
  get deadline(): number {
    return this.timers.deadline;
  }

  /**
   * [start, end) was sent in one packet. New data follows what was sent before; a retransmission is within it and may
   * be a part of a record.
   *
   * @param segment the payload bytes of each wire segment but the last; options make it less than `mss`
   */
  onTransmit(
    start: number,
    end: number,
    now: number,
    isRetransmission: boolean,
    segment: number = this.segment
  ): void {
    const { records, probe, timers } = this;
    const { spurious } = this.recovery;
    if (!seqBefore(start, end) || (isRetransmission && records.count === 0)) return;
    const { last } = this;
    last.note(this, start, end, now, isRetransmission, records, probe);
    last.isFirst = !(spurious !== undefined && spurious.firstAt >= 0);
    last.timeoutAt = timers.timeoutAt;
    last.probeAt = timers.probeAt;
    timers.retryAt = NEVER;
    if (isRetransmission) {
      spurious?.onRetransmit(start, end, now);
      records.retransmit(start, end, segment, now);
    } else {
      if (records.count === 0) {
        records.start = start;
        records.end = start;
        if (!this.isStarted) {
          this.isStarted = true;
          this.roundEnd = start;
          this.recovery.start(start);
        }
      }
      records.append(end, segment, now);
    }
    if (probe.isDue) {
      // RFC 8985, section 7.3.
      probe.onSent(records.end, isRetransmission ? seqDistance(start, end) : 0);
      timers.timeoutAt = now + this.rtt.rtoMs;
      return;
    }
    // RFC 6298, section 5.1. That the retransmission of the first segment restarts the timer is the more careful of the
    // two variants of RFC 6675, section 6, and what Linux does.
    if (timers.timeoutAt === NEVER || (isRetransmission && start === records.start)) {
      timers.timeoutAt = now + this.rtt.rtoMs;
    }
    if (!isRetransmission) this.armProbe(now);
  }

  /**
   * Takes the last `onTransmit` back, because the device did not take the packet: new data is unsent, a retransmission
   * is as lost as before. Nothing else may have been called since. If nothing is in flight whose ACK would cause the
   * next attempt, the probe timer does, unless nothing is outstanding at all.
   */
  onRefused(): void {
    const { last } = this;
    if (!last.take(this)) return;
    const { records } = this;
    if (last.isRetransmission) {
      this.recovery.spurious?.takeBack(last.start, last.end, last.isFirst);
      for (let i = records.indexOf(last.start); i < records.count; i++) {
        const record = records.at(i);
        if (!seqBefore(record.start, last.end)) break;
        if (record.state !== IN_FLIGHT) continue;
        records.restore(record, last.state, last.time, last.wasRetransmitted);
      }
    } else {
      records.removeLast();
    }
    this.probe.isSent = last.wasProbeSent;
    this.probe.isMeasured = last.wasMeasured;
    this.timers.timeoutAt = records.count === 0 ? NEVER : last.timeoutAt;
    this.timers.probeAt = last.probeAt;
    if (records.count !== 0 && records.inFlight <= 0) {
      const { srttMs } = this.rtt;
      const delay = srttMs === 0 ? MAX_RETRY_MS : Math.min(2 * srttMs, MAX_RETRY_MS);
      this.timers.retryAt = last.now + Math.max(delay, MIN_PTO_MS);
    }
  }

  /**
   * Takes an ACK that is acceptable: SND.UNA <= `ack` <= SND.NXT, or older than SND.UNA.
   *
   * @param sndUna SND.UNA before this ACK
   * @param sack pairs (left, right) of sequence numbers as they came; nothing about them is taken for granted
   * @param tsEcrMs when the segment was sent whose timestamp is echoed, in whole ms of `now`'s clock; -1 if unknown
   * @param isPlain the segment has no data, SYN or FIN and does not change the window. Only then it may be a duplicate
   *   ACK (RFC 5681, section 2), which matters without SACK.
   */
  onAck(
    ack: number,
    sndUna: number,
    sndNxt: number,
    sack: Int32Array,
    sackCount: number,
    tsEcrMs: number,
    now: number,
    isPlain = true
  ): void {
    this.begin();
    const { records, rtt } = this;
    delivery.begin(now, tsEcrMs, rtt.minRttMs);
    this.rack.begin();
    const wasOutstanding = records.count !== 0;
    const isAdvancing = wasOutstanding && seqBefore(records.start, ack);
    if (isAdvancing) delivery.take(records, this.rack, seqMin(ack, records.end));
    const una = records.count === 0 ? (isAdvancing ? ack : sndUna) : records.start;
    if (isAdvancing) this.rack.onAdvance(una);
    const hasSackBlock = this.hasSack && sackCount > 0 && this.takeSack(ack, sack, sackCount);

    this.measure(isAdvancing, now);
    if (isAdvancing) {
      this.probe.isDue = false;
      if (seqAtMost(this.roundEnd, una)) {
        findings.roundEnded = true;
        this.roundEnd = sndNxt;
        this.recovery.spurious?.onRoundEnd(una);
      }
    }
    const isBare = !isAdvancing && isPlain && !hasSackBlock && ack === una;
    if (this.probe.isRepair(ack, isBare) && this.phase === 'open') findings.hasRepairedTail = true;
    this.recovery.judge(una, isAdvancing, now, records, this.rack, rtt);
    if (this.hasSack) {
      if (this.rack.isAdvanced || findings.isSpurious) this.detectLosses(now);
    } else if (wasOutstanding) {
      this.recovery.judgeDuplicates(ack, una, isAdvancing, isPlain, records, this.segment);
    }
    // What was sent during a recovery and is lost when that ends is a new sign of congestion.
    const isLossLeft = findings.hasLeft && !findings.isSpurious && records.lostBytes > 0;
    if (this.phase === 'open' && (findings.newlyLost > 0 || isLossLeft)) this.enter('recovery');

    if (records.count === 0) {
      this.stopTimers();
    } else {
      // RFC 6298, section 5.3.
      if (isAdvancing || findings.isSpurious) this.timers.timeoutAt = now + rtt.rtoMs;
      if (isAdvancing) this.armProbe(now);
      else if (records.sackedBytes > 0) this.timers.probeAt = NEVER;
    }
  }

  /**
   * The lost range with the lowest sequence number. It is at most one record, which may be longer than a packet may be
   * now.
   */
  get firstLost(): Transmission | undefined {
    return this.records.firstLost();
  }

  /**
   * Acts if the timer is due, one reason at a time: `deadline` may be due again at once.
   *
   * - `lost`: more is lost, `hasEntered` tells whether recovery begins; see `firstLost`.
   * - `retry`: the device has refused the last packet, and nothing is lost: new data may be sent now.
   * - `probe`: send one packet of new data if the peer's window allows, whatever cwnd says; else
   *   that of `probe`, if it is not empty (RFC 8985, section 7.3).
   * - `timeout`: the retransmission timer expired, and is backed off. All that is outstanding is lost, and all SACKs
   *   are forgotten, because the receiver may have dropped what it acknowledged so (RFC 2018, section 8).
   */
  expire(now: number): LossExpiry {
    if (!(this.deadline <= now)) return 'none';
    this.begin();
    if (this.timers.reorderAt <= now) {
      // RFC 8985, section 6.2, step 5.
      this.detectLosses(now);
      if (findings.newlyLost === 0) return 'none';
      if (this.phase === 'open') this.enter('recovery');
      this.timers.probeAt = NEVER;
      return 'lost';
    }
    if (this.timers.retryAt <= now) return this.retry();
    if (this.timers.probeAt <= now) {
      this.timers.probeAt = NEVER;
      this.probe.isDue = true;
      this.probe.choose(this.records, this.segment);
      // The timeout may be due as well. It waits for the probe's answer, whether or not the probe can be sent.
      this.timers.timeoutAt = now + this.rtt.rtoMs;
      return 'probe';
    }
    this.onTimeout(now);
    return 'timeout';
  }

  /** The link is down: no timer runs, so that nothing backs off (in the spirit of RFC 6069). */
  suspend(): void {
    this.timers.isSuspended = true;
  }

  /**
   * The link is up again: the timeout begins anew and is not backed off. What was sent meanwhile may have arrived or
   * not; the caller sends the first segment again, and its ACK tells what else is missing.
   */
  resume(now: number): void {
    if (!this.timers.isSuspended) return;
    this.timers.isSuspended = false;
    this.timers.reorderAt = NEVER;
    this.timers.probeAt = NEVER;
    this.rtt.resetBackoff();
    if (this.records.count === 0) return;
    this.timers.timeoutAt = now + this.rtt.rtoMs;
    if (this.timers.retryAt !== NEVER) this.timers.retryAt = this.timers.timeoutAt;
  }

  /**
   * The path takes only smaller packets than thought: what is in flight in packets of more than one segment counts as
   * lost, so that it is sent again. That is no sign of congestion (RFC 1191 section 6.4, RFC 8201 section 5.4). `unit`
   * and `mss` have their new values already.
   */
  markUnsent(): void {
    this.records.markLongerLost(this.segment);
    this.timers.probeAt = NEVER;
    this.recovery.onMarked(this.records, this.segment);
  }

  /** The connection is over. */
  destroy(): void {
    this.records.clear();
    this.stopTimers();
    this.timers.retryAt = NEVER;
    this.last.take(this);
  }

  /** What a wire segment carries, as far as is known here. */
  private get segment(): number {
    return this.mss > 0 ? this.mss : this.unit;
  }

  private begin(): void {
    findings.begin(this.inFlight);
    this.last.take(this);
  }

  /** Takes the SACK blocks. Returns whether one of them is more than a DSACK. */
  private takeSack(ack: number, sack: Int32Array, sackCount: number): boolean {
    const { records } = this;
    const first = isDsack(ack, sack, sackCount) ? 1 : 0;
    if (first === 1) this.onDsack(sack[0]!, sack[1]!);
    const count = readBlocks(sack, first, sackCount, records.start, records.end);
    for (let i = 0; i < count; i++) {
      const left = usableBlocks[2 * i]!;
      const right = usableBlocks[2 * i + 1]!;
      delivery.takeBlock(records, this.rack, left, right);
    }
    return sackCount > first;
  }

  /**
   * A block about data that arrived twice. One that answers a probe says nothing about reordering, and in a timeout
   * recovery forgotten SACKs cause duplicates: neither makes RACK more patient.
   */
  private onDsack(left: number, right: number): void {
    const isProbe = this.probe.isAnsweredBy(right);
    if (isProbe) findings.sawDsack = true;
    const { spurious } = this.recovery;
    if (spurious?.onDsack(left, right) === true) {
      findings.sawDsack = true;
      if (!isProbe && !spurious.isTimeout) this.rack.onDsack(this.records.end);
    }
  }

  private measure(isAdvancing: boolean, now: number): void {
    const rtt = delivery.roundTrip(isAdvancing);
    if (rtt < 0) return;
    findings.rttMs = rtt;
    this.probe.isMeasured = true;
    this.rtt.sample(rtt, now);
  }

  private enter(phase: 'recovery' | 'loss'): void {
    this.recovery.enter(phase, this.records);
    this.probe.cancel();
    this.timers.probeAt = NEVER;
  }

  private detectLosses(now: number): void {
    const isRecovering = this.phase !== 'open';
    this.timers.reorderAt = this.rack.detect(this.records, now, isRecovering, this.rtt);
  }

  /**
   * Marks everything as lost. RFC 8985, section 6.3, would spare what was sent a short time ago; that would then fill
   * the window of one unit, and keep the first segment from being sent. What still arrives is acknowledged before its
   * turn comes.
   */
  private onTimeout(now: number): void {
    const { records, rtt } = this;
    records.forgetSacked();
    this.recovery.forgetDuplicates();
    while (records.oldest !== undefined) findings.newlyLost += records.markLost(records.oldest);
    rtt.backoff();
    this.enter('loss');
    this.timers.reorderAt = NEVER;
    this.timers.retryAt = NEVER;
    this.timers.timeoutAt = now + rtt.rtoMs;
  }

  /** An attempt after a refusal. */
  private retry(): LossExpiry {
    this.timers.retryAt = NEVER;
    return this.records.lostBytes > 0 ? 'lost' : 'retry';
  }

  /** Starts the probe timer anew if the conditions hold (RFC 8985, section 7.2), else stops it. */
  private armProbe(now: number): void {
    const { records, rtt } = this;
    this.timers.probeAt = NEVER;
    if (!this.hasSack || this.phase !== 'open' || this.probe.isSent) return;
    if (!this.probe.isMeasured || records.sackedBytes > 0 || records.lostBytes > 0) return;
    // "FlightSize is one segment": a receiver acknowledges two full ones at once, in one packet or in two.
    const wait = probeTimeout(rtt.srttMs, this.outstanding < 2 * this.unit);
    this.timers.probeAt = Math.min(now + wait, this.timers.timeoutAt);
  }

  private stopTimers(): void {
    this.timers.stop();
    this.recovery.forgetDuplicates();
  }
}

const NEVER: number = Number.POSITIVE_INFINITY;
const DEFAULT_UNIT = 1_460;
/** More than 4 MiB in segments of 1,460 bytes and the records that SACK edges may create. */
const MAX_RECORDS = 4_096;
/** Our choice: a refused packet is tried again no later than this. */
const MAX_RETRY_MS = 200;
