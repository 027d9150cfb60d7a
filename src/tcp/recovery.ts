/**
 * The recovery of one connection: the time from the first loss that is suspected until everything sent before it is
 * acknowledged, or until it proves needless. With SACK, RACK says what is lost; without it, duplicate and partial ACKs
 * do, as NewReno has it ([RFC 6582 section 3.2](https://www.rfc-editor.org/rfc/rfc6582#section-3.2)).
 * @module
 */
import { delivery } from './delivery.ts';
import { findings } from './findings.ts';
import { NewReno } from './new-reno.ts';
import { DUP_THRESH, type Rack } from './rack.ts';
import type { RttEstimator } from './rtt.ts';
import { seqAdd, seqAtMost, seqBefore, seqDistance } from './sequence.ts';
import { SpuriousDetector } from './spurious.ts';
import { IN_FLIGHT } from './transmission.ts';
import type { Transmissions } from './transmissions.ts';

/** `recovery`: RACK or duplicate ACKs found a loss. `loss`: the retransmission timer expired. */
export type LossPhase = 'open' | 'recovery' | 'loss';

export class Recovery {
  phase: LossPhase = 'open';
  /** Exists from the first recovery on. */
  spurious: SpuriousDetector | undefined;
  /** It ends when this is acknowledged: SND.NXT when it began (`recover` of RFC 6582 plus one). */
  private point = 0;
  /** Exists from the first duplicate ACK of a peer without SACK on. */
  private newReno: NewReno | undefined;

  /** The bytes that duplicate ACKs of a peer without SACK have reported as delivered. */
  get reported(): number {
    return this.newReno === undefined ? 0 : this.newReno.bytes;
  }

  /** The connection sends its first byte. RFC 6582 begins with ISS, so that the first segment may be missed as well. */
  start(first: number): void {
    this.point = seqAdd(first, -1);
  }

  /** A loss was found, or the timer has expired. */
  enter(phase: 'recovery' | 'loss', records: Transmissions): void {
    if (this.phase === 'open') {
      this.spurious ??= new SpuriousDetector();
      this.spurious.begin(records.start, records.end, records.repeatedInFlight());
    }
    if (phase === 'loss' && this.spurious !== undefined) this.spurious.isTimeout = true;
    this.phase = phase;
    this.point = records.end;
    findings.hasEntered = true;
    findings.hasRepairedTail = false;
  }

  /**
   * Ends the recovery that goes on if all that was sent before it is acknowledged, or if it was needless. One that is
   * over may prove needless too, by DSACKs that come late.
   */
  judge(
    una: number,
    isAdvancing: boolean,
    now: number,
    records: Transmissions,
    rack: Rack,
    rtt: RttEstimator
  ): void {
    const { spurious } = this;
    if (spurious === undefined) return;
    if (this.phase === 'open') {
      if (!findings.sawDsack || !spurious.areAllDuplicates()) return;
      spurious.stop();
      findings.isSpurious = true;
      return;
    }
    const isOld = isAdvancing && spurious.isEchoOlder(delivery.echoMs);
    if (isOld || (findings.sawDsack && spurious.areAllDuplicates())) {
      // RFC 4015, section 3: go on with new data, as if nothing had been lost.
      if (spurious.isTimeout) rtt.adaptToSpurious(isOld ? now - delivery.echoMs : -1, now);
      else rack.isReorderingSeen = true;
      spurious.stop();
      records.forgetLost();
      findings.isSpurious = true;
      this.leave();
    } else if (seqAtMost(this.point, una)) {
      if (spurious.onRecoveryEnd()) findings.isSpurious = true;
      rack.onRecoveryEnd();
      this.leave();
    }
  }

  /** Fast retransmit and recovery for a peer without SACK. */
  judgeDuplicates(
    ack: number,
    una: number,
    isAdvancing: boolean,
    isPlain: boolean,
    records: Transmissions,
    segment: number
  ): void {
    if (isAdvancing) {
      if (this.newReno !== undefined) {
        findings.delivered -= this.newReno.onAdvance(records, segment, findings.acked);
      }
      // A partial ACK: the next segment is missing as well.
      if (this.phase === 'recovery') this.loseFirst(records, segment);
      // Keeps the number close, so that it does not seem to lie ahead after 2^31 bytes.
      else if (seqBefore(this.point, una)) this.point = seqAdd(una, -1);
      return;
    }
    if (!isPlain || ack !== una || this.phase === 'loss') return;
    this.newReno ??= new NewReno();
    findings.delivered += this.newReno.onDuplicate(records, segment);
    const isThird = this.newReno.duplicates === DUP_THRESH;
    // Duplicate ACKs also follow a retransmission that was needless: they must cover more than the last recovery.
    if (isThird && this.phase === 'open' && seqBefore(this.point, una))
      this.loseFirst(records, segment);
  }

  /** Something in flight was marked as lost: duplicate ACKs have not reported it. */
  onMarked(records: Transmissions, segment: number): void {
    this.newReno?.limit(records, segment);
  }

  /** What duplicate ACKs have said does not hold any more. */
  forgetDuplicates(): void {
    this.newReno?.reset();
  }

  private leave(): void {
    this.phase = 'open';
    findings.hasLeft = true;
    this.newReno?.reset();
  }

  /** Marks the segment at SND.UNA as lost, unless this recovery has sent it again already. */
  private loseFirst(records: Transmissions, segment: number): void {
    if (records.count === 0) return;
    const first = records.at(0);
    if (first.state !== IN_FLIGHT) return;
    const { spurious } = this;
    if (this.phase === 'recovery' && spurious !== undefined && first.isRetransmitted) {
      if (first.time >= spurious.firstAt) return;
    }
    if (seqDistance(first.start, first.end) > segment) records.cut(0, segment, segment);
    findings.newlyLost += records.markLost(first);
    this.newReno?.limit(records, segment);
  }
}
