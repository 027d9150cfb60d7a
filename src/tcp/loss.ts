/**
 * Decides what of a connection is lost, and when to look again: RACK-TLP
 * ([RFC 8985](https://www.rfc-editor.org/rfc/rfc8985)) over the scoreboard of SACK (RFC 2018), and NewReno
 * ([RFC 6582](https://www.rfc-editor.org/rfc/rfc6582)) for a peer without SACK. It also takes the round-trip times, runs
 * the retransmission timer (RFC 6298, section 5), and finds out that a recovery was needless (`spurious.ts`).
 *
 * It sends nothing and knows no congestion window. The connection reports each transmission (`onTransmit`) and each ACK
 * (`onAck`), reads the fields that say what followed, and sends what `nextLost` names when its window allows.
 *
 * Sequence numbers are int32, times ms, sizes bytes. SYN and FIN count one byte.
 * @module
 */
import { lastTransmission } from './last-transmission.ts';
import { NewReno } from './new-reno.ts';
import { DUP_THRESH, Rack } from './rack.ts';
import type { RttEstimator } from './rtt.ts';
import { isDsack, readBlocks, usableBlocks } from './sack-blocks.ts';
import { seqAdd, seqAtMost, seqBefore, seqDistance, seqMin } from './sequence.ts';
import { SpuriousDetector } from './spurious.ts';
import { TailProbe } from './tail-probe.ts';
import {
  IN_FLIGHT,
  SACKED,
  segmentsOf,
  type Transmission,
  Transmissions,
} from './transmissions.ts';

/** `recovery`: RACK or duplicate ACKs found a loss. `loss`: the retransmission timer expired. */
export type LossPhase = 'open' | 'recovery' | 'loss';

/** What the timer of `deadline` is for. */
export type LossTimer = 'none' | 'reorder' | 'probe' | 'timeout';

/** What an expired timer asks for; see `expire`. */
export type LossExpiry = 'none' | 'lost' | 'probe' | 'timeout';

/** Loss detection and its timers for one connection. */
export class LossRecovery {
  /** SACK was negotiated. */
  hasSack = false;
  /** What stands for SMSS: min(effective MSS, 1460). */
  unit: number = DEFAULT_UNIT;
  /** The payload of a full wire segment; 0 if it is `unit`. */
  mss = 0;

  phase: LossPhase = 'open';

  // What the last `onAck` or `expire` found.
  /** Bytes that the ACK number newly covers. */
  acked = 0;
  /** Bytes newly acknowledged, by number or selectively; without SACK an estimate (RFC 9937, section 5). */
  delivered = 0;
  /** Bytes newly marked as lost. */
  newlyLost = 0;
  /** The round-trip time measured, -1 if there is none. The estimator has taken it already. */
  rttMs = -1;
  /** The ACK advances nothing and tells of data that arrived out of order (RFC 5681 section 2, RFC 6675 section 2). */
  isDuplicate = false;
  /** The ACK has a DSACK block that answers a retransmission of ours. */
  sawDsack = false;
  /**
   * The recovery that goes on, or that ended last, proved needless: undo what congestion control did. In this order:
   * undo if `isSpurious`; leave recovery if `hasLeft`; enter it if `hasEntered`; reduce once if `hasRepairedTail`.
   */
  isSpurious = false;
  /** Recovery ended with this ACK. */
  hasLeft = false;
  /** Recovery begins now. `inFlightBefore` is what was in flight before the loss was seen. */
  hasEntered = false;
  /** A tail loss probe repaired the only loss: reduce the congestion window, without a recovery (RFC 8985, 7.4). */
  hasRepairedTail = false;
  /** All that was sent before the last end of a round is acknowledged (for HyStart++). */
  roundEnded = false;
  /** `inFlight` before the last `onAck` or `expire`. */
  inFlightBefore = 0;

  /** The result of `nextLost`. */
  lostStart = 0;
  lostEnd = 0;
  /** The records. Read only outside this class. */
  readonly records: Transmissions = new Transmissions();
  private readonly rtt: RttEstimator;
  private readonly rack: Rack = new Rack();
  /** Exists from the first recovery on. */
  private spurious: SpuriousDetector | undefined;
  private readonly probe: TailProbe = new TailProbe();
  /** Exists from the first duplicate ACK of a peer without SACK on. */
  private newReno: NewReno | undefined;

  /** Recovery ends when this is acknowledged: SND.NXT when it began (`recover` of RFC 6582 plus one). */
  private recoveryPoint = 0;
  private roundEnd = 0;
  private isStarted = false;

  /** Deadlines in ms; Infinity if the timer is off. */
  private timeoutAt: number = NEVER;
  private probeAt: number = NEVER;
  private reorderAt: number = NEVER;
  /** The device refused the packet that was to cause an ACK: try again. */
  private retryAt: number = NEVER;
  private isSuspended = false;

  constructor(rtt: RttEstimator) {
    this.rtt = rtt;
  }

  /** The bytes in the network, as far as is known: sent, neither acknowledged nor lost, each transmission once. */
  get inFlight(): number {
    return this.records.inFlight - (this.newReno === undefined ? 0 : this.newReno.bytes);
  }

  /** SND.NXT - SND.UNA. */
  get outstanding(): number {
    return seqDistance(this.records.start, this.records.end);
  }

  get isEmpty(): boolean {
    return this.records.count === 0;
  }

  /** Something is lost and was not sent again: `nextLost` tells what. */
  get hasLost(): boolean {
    return this.records.lostBytes > 0;
  }

  /**
   * `expire` asked for a probe, and it is still needed: an ACK since then may have answered it. The next transmission
   * is taken for the probe.
   */
  get isProbeDue(): boolean {
    return this.probe.isDue;
  }

  /** What a probe repeats if there is no new data: [probeStart, probeEnd); empty if nothing is outstanding. */
  get probeStart(): number {
    return this.probe.start;
  }

  get probeEnd(): number {
    return this.probe.end;
  }

  /** So many packets are outstanding that no new data may be sent. What was sent before may be sent again. */
  get isFull(): boolean {
    return this.records.count >= MAX_RECORDS;
  }

  /** When `expire` is due, in ms; Infinity if no timer runs. */
  get deadline(): number {
    if (this.isSuspended) return NEVER;
    return Math.min(this.timeoutAt, this.probeAt, this.reorderAt, this.retryAt);
  }

  /** Which timer `deadline` is that of. */
  get timer(): LossTimer {
    const deadline = this.deadline;
    if (deadline === NEVER) return 'none';
    if (deadline === this.reorderAt) return 'reorder';
    return deadline === this.probeAt || deadline === this.retryAt ? 'probe' : 'timeout';
  }

  /**
   * [start, end) was sent in one packet. New data follows what was sent before; a retransmission is within it and may
   * be a part of a record.
   */
  onTransmit(start: number, end: number, now: number, isRetransmission: boolean): void {
    const { records, probe } = this;
    if (!seqBefore(start, end) || (isRetransmission && records.count === 0)) return;
    const last = lastTransmission;
    last.note(this, start, end, now, isRetransmission, records, probe);
    last.isFirst = !(this.spurious !== undefined && this.spurious.firstAt >= 0);
    last.timeoutAt = this.timeoutAt;
    last.probeAt = this.probeAt;
    this.retryAt = NEVER;
    if (isRetransmission) {
      this.spurious?.onRetransmit(start, end, now);
      records.retransmit(start, end, this.segment, now);
    } else {
      if (records.count === 0) {
        records.start = start;
        records.end = start;
        if (!this.isStarted) {
          this.isStarted = true;
          this.roundEnd = start;
          // RFC 6582, section 3.2: ISS, so that the first segment may be missed as well.
          this.recoveryPoint = seqAdd(start, -1);
        }
      }
      records.append(end, segmentsOf(seqDistance(start, end), this.segment), now);
    }
    if (probe.isDue) {
      // RFC 8985, section 7.3.
      probe.onSent(records.end, isRetransmission ? seqDistance(start, end) : 0);
      this.timeoutAt = now + this.rtt.rtoMs;
      return;
    }
    // RFC 6298, section 5.1. That the retransmission of the first segment restarts the timer is the more careful of the
    // two variants of RFC 6675, section 6, and what Linux does.
    if (this.timeoutAt === NEVER || (isRetransmission && start === records.start)) {
      this.timeoutAt = now + this.rtt.rtoMs;
    }
    if (!isRetransmission) this.armProbe(now);
  }

  /**
   * Takes the last `onTransmit` back, because the device did not take the packet: new data is unsent, a retransmission
   * is as lost as before. Nothing else may have been called since. If nothing is in flight whose ACK would cause the
   * next attempt, the probe timer does, unless nothing is outstanding at all.
   */
  onRefused(): void {
    const last = lastTransmission;
    if (!last.take(this)) return;
    const { records } = this;
    if (last.isRetransmission) {
      this.spurious?.takeBack(last.start, last.end, last.isFirst);
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
    this.timeoutAt = records.count === 0 ? NEVER : last.timeoutAt;
    this.probeAt = last.probeAt;
    if (records.count !== 0 && records.inFlight <= 0) {
      const { srttMs } = this.rtt;
      const delay = srttMs === 0 ? MAX_RETRY_MS : Math.min(2 * srttMs, MAX_RETRY_MS);
      this.retryAt = last.now + Math.max(delay, MIN_PTO_MS);
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
    this.beginResult(now);
    const { records, rtt } = this;
    scratch.echoMs = tsEcrMs;
    scratch.ackedSince = Number.NaN;
    scratch.sackedSince = Number.NaN;
    scratch.hasAckedRetransmission = false;
    this.rack.begin();
    const wasOutstanding = records.count !== 0;
    const isAdvancing = wasOutstanding && seqBefore(records.start, ack);
    if (isAdvancing) this.acknowledge(seqMin(ack, records.end));
    const una = records.count === 0 ? (isAdvancing ? ack : sndUna) : records.start;
    if (isAdvancing) this.rack.onAdvance(una);
    const hasSackBlock = this.hasSack && sackCount > 0 && this.takeSack(ack, sack, sackCount);

    this.measure(isAdvancing);
    if (isAdvancing) {
      this.probe.isDue = false;
      if (seqAtMost(this.roundEnd, una)) {
        this.roundEnded = true;
        this.roundEnd = sndNxt;
        this.spurious?.onRoundEnd(una);
      }
    }
    const isBare = !isAdvancing && isPlain && !hasSackBlock && ack === una;
    if (this.probe.isRepair(ack, isBare) && this.phase === 'open') this.hasRepairedTail = true;
    if (this.phase !== 'open') {
      this.judgeRecovery(una, isAdvancing);
    } else if (this.sawDsack && this.spurious?.areAllDuplicates() === true) {
      this.spurious.stop();
      this.isSpurious = true;
    }
    if (this.hasSack) {
      this.isDuplicate = !isAdvancing && this.delivered > 0;
      if (this.rack.isAdvanced || this.isSpurious) this.detectLosses();
    } else if (wasOutstanding) {
      this.judgeDuplicates(ack, una, isAdvancing, isPlain);
    }
    // What was sent during a recovery and is lost when that ends is a new sign of congestion.
    const isLossLeft = this.hasLeft && !this.isSpurious && records.lostBytes > 0;
    if (this.phase === 'open' && (this.newlyLost > 0 || isLossLeft)) this.enter('recovery');

    if (records.count === 0) {
      this.stopTimers();
    } else {
      // RFC 6298, section 5.3.
      if (isAdvancing || this.isSpurious) this.timeoutAt = now + rtt.rtoMs;
      if (isAdvancing) this.armProbe(now);
      else if (records.sackedBytes > 0) this.probeAt = NEVER;
    }
  }

  /**
   * Finds the lost range with the lowest sequence number, which `lostStart` and `lostEnd` then tell. It is at most one
   * record, which may be longer than a packet may be now. Returns false if nothing is lost.
   */
  nextLost(): boolean {
    const record = this.records.firstLost();
    if (record === undefined) return false;
    this.lostStart = record.start;
    this.lostEnd = record.end;
    return true;
  }

  /**
   * Acts if the timer is due, one reason at a time: `deadline` may be due again at once.
   *
   * - `lost`: more is lost, `hasEntered` tells whether recovery begins; see `nextLost`.
   * - `probe`: send one packet of new data if the peer's window allows, whatever cwnd says; else
   *   [probeStart, probeEnd), if it is not empty (RFC 8985, section 7.3).
   * - `timeout`: the retransmission timer expired, and is backed off. All that is outstanding is lost, and all SACKs
   *   are forgotten, because the receiver may have dropped what it acknowledged so (RFC 2018, section 8).
   */
  expire(now: number): LossExpiry {
    if (!(this.deadline <= now)) return 'none';
    this.beginResult(now);
    if (this.reorderAt <= now) {
      // RFC 8985, section 6.2, step 5.
      this.detectLosses();
      if (this.newlyLost === 0) return 'none';
      if (this.phase === 'open') this.enter('recovery');
      this.probeAt = NEVER;
      return 'lost';
    }
    if (this.retryAt <= now) return this.retry();
    if (this.probeAt <= now) {
      this.probeAt = NEVER;
      this.probe.isDue = true;
      this.probe.choose(this.records, this.segment);
      // The timeout may be due as well. It waits for the probe's answer, whether or not the probe can be sent.
      this.timeoutAt = now + this.rtt.rtoMs;
      return 'probe';
    }
    this.onTimeout();
    return 'timeout';
  }

  /** The link is down: no timer runs, so that nothing backs off (in the spirit of RFC 6069). */
  suspend(): void {
    this.isSuspended = true;
  }

  /**
   * The link is up again: the timeout begins anew and is not backed off. What was sent meanwhile may have arrived or
   * not; the caller sends the first segment again, and its ACK tells what else is missing.
   */
  resume(now: number): void {
    if (!this.isSuspended) return;
    this.isSuspended = false;
    this.reorderAt = NEVER;
    this.probeAt = NEVER;
    this.rtt.resetBackoff();
    if (this.records.count === 0) return;
    this.timeoutAt = now + this.rtt.rtoMs;
    if (this.retryAt !== NEVER) this.retryAt = this.timeoutAt;
  }

  /**
   * The path takes only smaller packets than thought: what is in flight in packets of more than one segment counts as
   * lost, so that it is sent again. That is no sign of congestion (RFC 1191 section 6.4, RFC 8201 section 5.4). `unit`
   * and `mss` have their new values already.
   */
  markUnsent(): void {
    const { records, segment } = this;
    let record = records.oldest;
    while (record !== undefined) {
      const { later }: Transmission = record;
      if (seqDistance(record.start, record.end) > segment) records.markLost(record);
      record = later;
    }
    this.probeAt = NEVER;
    this.newReno?.limit(records, this.segment);
  }

  /** The connection is over. */
  destroy(): void {
    this.records.clear();
    this.stopTimers();
    this.retryAt = NEVER;
    this.newReno = undefined;
    lastTransmission.take(this);
  }

  /** Where SACK edges inside a packet are expected: at multiples of this. */
  private get segment(): number {
    return this.mss > 0 ? this.mss : this.unit;
  }

  private beginResult(now: number): void {
    scratch.now = now;
    this.inFlightBefore = this.inFlight;
    this.acked = 0;
    this.delivered = 0;
    this.newlyLost = 0;
    this.rttMs = -1;
    this.isDuplicate = false;
    this.sawDsack = false;
    this.isSpurious = false;
    this.hasLeft = false;
    this.hasEntered = false;
    this.hasRepairedTail = false;
    this.roundEnded = false;
    lastTransmission.take(this);
  }

  /** Everything before `ack` arrived; `ack` is in (SND.UNA, SND.NXT]. */
  private acknowledge(ack: number): void {
    const { records } = this;
    this.acked = seqDistance(records.start, ack);
    while (records.count !== 0) {
      const record = records.at(0);
      if (!seqBefore(record.start, ack)) break;
      const isWhole = seqAtMost(record.end, ack);
      if (record.state !== SACKED) {
        const end = isWhole ? record.end : ack;
        this.delivered += seqDistance(record.start, end);
        if (record.isRetransmitted) scratch.hasAckedRetransmission = true;
        else if (Number.isNaN(scratch.ackedSince)) scratch.ackedSince = record.time;
        this.rack.onDelivered(record, end, scratch.now, scratch.echoMs, this.rtt.minRttMs);
      }
      if (isWhole) records.removeFirst();
      else records.trimFirst(ack);
    }
  }

  /** Takes the SACK blocks. Returns whether one of them is more than a DSACK. */
  private takeSack(ack: number, sack: Int32Array, sackCount: number): boolean {
    const { records } = this;
    const first = isDsack(ack, sack, sackCount) ? 1 : 0;
    if (first === 1) this.onDsack(sack[0]!, sack[1]!);
    const count = readBlocks(sack, first, sackCount, records.start, records.end);
    for (let i = 0; i < count; i++) this.takeBlock(usableBlocks[2 * i]!, usableBlocks[2 * i + 1]!);
    return sackCount > first;
  }

  private takeBlock(left: number, right: number): void {
    const { records } = this;
    records.select(left, right, this.segment);
    const { selectedFrom, selectedTo } = records;
    for (let i = selectedFrom; i < selectedTo; i++) {
      const record = records.at(i);
      if (record.state === SACKED) continue;
      this.delivered += seqDistance(record.start, record.end);
      if (!record.isRetransmitted && Number.isNaN(scratch.sackedSince))
        scratch.sackedSince = record.time;
      this.rack.onDelivered(record, record.end, scratch.now, scratch.echoMs, this.rtt.minRttMs);
      records.markSacked(record);
    }
    records.mergeSacked(selectedFrom, selectedTo);
  }

  /**
   * A block about data that arrived twice. One that answers a probe says nothing about reordering, and in a timeout
   * recovery forgotten SACKs cause duplicates: neither makes RACK more patient.
   */
  private onDsack(left: number, right: number): void {
    const isProbe = this.probe.isAnsweredBy(right);
    if (isProbe) this.sawDsack = true;
    const { spurious } = this;
    if (spurious?.onDsack(left, right) === true) {
      this.sawDsack = true;
      if (!isProbe && !spurious.isTimeout) this.rack.onDsack(this.records.end);
    }
  }

  /** Takes the round-trip time, of data that was sent once (Karn's algorithm), else by the echoed timestamp. */
  private measure(isAdvancing: boolean): void {
    let rtt = -1;
    if (!scratch.hasAckedRetransmission && !Number.isNaN(scratch.ackedSince)) {
      rtt = scratch.now - scratch.ackedSince;
    } else if (!Number.isNaN(scratch.sackedSince)) {
      rtt = scratch.now - scratch.sackedSince;
    } else if (isAdvancing && this.delivered > 0 && scratch.echoMs >= 0) {
      // RFC 7323, section 4.1: only an ACK that advances the left edge.
      rtt = scratch.now - scratch.echoMs;
    }
    if (!(rtt >= 0)) return;
    this.rttMs = rtt;
    this.probe.isMeasured = true;
    this.rtt.sample(rtt, scratch.now);
  }

  /** Ends the recovery that goes on if all that was sent before it is acknowledged, or if it was needless. */
  private judgeRecovery(una: number, isAdvancing: boolean): void {
    const { spurious } = this;
    if (spurious === undefined) return;
    const isOld = isAdvancing && spurious.isEchoOlder(scratch.echoMs);
    if (isOld || (this.sawDsack && spurious.areAllDuplicates())) {
      // RFC 4015, section 3: go on with new data, as if nothing had been lost.
      if (spurious.isTimeout)
        this.rtt.adaptToSpurious(isOld ? scratch.now - scratch.echoMs : -1, scratch.now);
      else this.rack.isReorderingSeen = true;
      spurious.stop();
      this.records.forgetLost();
      this.isSpurious = true;
      this.leave();
    } else if (seqAtMost(this.recoveryPoint, una)) {
      if (spurious.onRecoveryEnd()) this.isSpurious = true;
      this.rack.onRecoveryEnd();
      this.leave();
    }
  }

  private leave(): void {
    this.phase = 'open';
    this.hasLeft = true;
    this.newReno?.reset();
  }

  private enter(phase: 'recovery' | 'loss'): void {
    const { records } = this;
    if (this.phase === 'open') {
      this.spurious ??= new SpuriousDetector();
      this.spurious.begin(records.start, records.end, records.repeatedInFlight());
    }
    this.phase = phase;
    this.hasEntered = true;
    this.hasRepairedTail = false;
    this.recoveryPoint = records.end;
    this.probe.cancel();
    this.probeAt = NEVER;
  }

  /** Step 5 of RFC 8985, section 6.2: marks what is overdue, and sets the timer for what may become so. */
  private detectLosses(): void {
    const { records, rack, rtt } = this;
    this.reorderAt = NEVER;
    if (records.oldest === undefined || !rack.isSentBefore(records.oldest)) return;
    const window = rack.window(
      this.phase !== 'open',
      records.sackedSegments,
      rtt.minRttMs,
      rtt.srttMs
    );
    let record: Transmission | undefined = records.oldest;
    while (record !== undefined && rack.isSentBefore(record)) {
      const { later }: Transmission = record;
      const overdueAt = record.time + rack.rttMs + window;
      if (overdueAt <= scratch.now) this.newlyLost += records.markLost(record);
      // The last of them is overdue last: one expiry of the timer finds them all.
      else this.reorderAt = overdueAt;
      record = later;
    }
  }

  /** Fast retransmit and recovery without SACK (RFC 6582, section 3.2). */
  private judgeDuplicates(ack: number, una: number, isAdvancing: boolean, isPlain: boolean): void {
    const { records } = this;
    if (isAdvancing) {
      if (this.newReno !== undefined) {
        this.delivered -= this.newReno.onAdvance(records, this.segment, this.acked);
      }
      // A partial ACK: the next segment is missing as well.
      if (this.phase === 'recovery') this.loseFirst();
      // Keeps the number close, so that it does not seem to lie ahead after 2^31 bytes.
      else if (seqBefore(this.recoveryPoint, una)) this.recoveryPoint = seqAdd(una, -1);
      return;
    }
    if (!isPlain || ack !== una || this.phase === 'loss') return;
    this.isDuplicate = true;
    this.newReno ??= new NewReno();
    this.delivered += this.newReno.onDuplicate(records, this.segment);
    const isThird = this.newReno.duplicates === DUP_THRESH;
    // Duplicate ACKs also follow a retransmission that was needless: they must cover more than the last recovery.
    if (isThird && this.phase === 'open' && seqBefore(this.recoveryPoint, una)) this.loseFirst();
  }

  /** Marks the segment at SND.UNA as lost, unless this recovery has sent it again already. */
  private loseFirst(): void {
    const { records } = this;
    if (records.count === 0) return;
    const first = records.at(0);
    if (first.state !== IN_FLIGHT) return;
    const { spurious } = this;
    if (this.phase === 'recovery' && spurious !== undefined && first.isRetransmitted) {
      if (first.time >= spurious.firstAt) return;
    }
    if (seqDistance(first.start, first.end) > this.segment)
      records.cut(0, this.segment, this.segment);
    this.newlyLost += records.markLost(first);
    this.newReno?.limit(records, this.segment);
  }

  /**
   * Marks everything as lost. RFC 8985, section 6.3, would spare what was sent a short time ago; that would then fill
   * the window of one unit, and keep the first segment from being sent. What still arrives is acknowledged before its
   * turn comes.
   */
  private onTimeout(): void {
    const { records, rtt } = this;
    records.forgetSacked();
    this.newReno?.reset();
    while (records.oldest !== undefined) this.newlyLost += records.markLost(records.oldest);
    rtt.backoff();
    this.enter('loss');
    if (this.spurious !== undefined) this.spurious.isTimeout = true;
    this.reorderAt = NEVER;
    this.retryAt = NEVER;
    this.timeoutAt = scratch.now + rtt.rtoMs;
  }

  /** An attempt after a refusal. */
  private retry(): LossExpiry {
    this.retryAt = NEVER;
    if (this.records.lostBytes > 0) return 'lost';
    this.probe.choose(this.records, this.segment);
    return 'probe';
  }

  /** Starts the probe timer anew if the conditions hold (RFC 8985, section 7.2), else stops it. */
  private armProbe(now: number): void {
    const { records, rtt } = this;
    this.probeAt = NEVER;
    if (!this.hasSack || this.phase !== 'open' || this.probe.isSent) return;
    if (!this.probe.isMeasured || records.sackedBytes > 0 || records.lostBytes > 0) return;
    let wait = 1_000;
    if (rtt.srttMs > 0) {
      wait = 2 * rtt.srttMs;
      // "FlightSize is one segment": a receiver acknowledges two full ones at once, in one packet or in two.
      if (this.outstanding < 2 * this.unit) wait += MAX_ACK_DELAY_MS;
      if (wait < MIN_PTO_MS) wait = MIN_PTO_MS;
    }
    this.probeAt = Math.min(now + wait, this.timeoutAt);
  }

  private stopTimers(): void {
    this.timeoutAt = NEVER;
    this.probeAt = NEVER;
    this.reorderAt = NEVER;
    this.newReno?.reset();
  }
}

/** Of the ACK or the timer at hand: one object serves all connections, because nothing of it is needed later. */
const scratch = {
  now: Number.NaN,
  /** When the segment was sent whose timestamp the ACK echoes; -1 if unknown. */
  echoMs: -1,
  /** When the first of the acknowledged data was sent that was sent once; NaN if there is none. */
  ackedSince: Number.NaN,
  /** The same of what is newly acknowledged selectively. */
  sackedSince: Number.NaN,
  hasAckedRetransmission: false,
};

const NEVER: number = Number.POSITIVE_INFINITY;
const DEFAULT_UNIT = 1_460;
/** More than 4 MiB in segments of 1,460 bytes and the records that SACK edges may create. */
const MAX_RECORDS = 4_096;
/** Our choice: the event loop answers no earlier when it is busy. */
const MIN_PTO_MS = 10;
/** `TLP.max_ack_delay`: the longest delay of Linux's delayed ACK. */
const MAX_ACK_DELAY_MS = 200;
/** Our choice: a refused packet is tried again no later than this. */
const MAX_RETRY_MS = 200;
