/**
 * What an ACK says has arrived: records leave the scoreboard or are marked as selectively acknowledged, RACK learns of
 * each, and the round trip is measured.
 * @module
 */
import { findings } from './findings.ts';
import type { Rack } from './rack.ts';
import { seqAtMost, seqBefore, seqDistance } from './sequence.ts';
import { SACKED } from './transmission.ts';
import type { Transmissions } from './transmissions.ts';

/** What the ACK at hand delivers. One object serves all connections, because nothing of it is needed later. */
class Delivery {
  /** When the segment was sent whose timestamp the ACK echoes, in whole ms; -1 if unknown. */
  echoMs = -1;
  private now: number = Number.NaN;
  private minRttMs = 0;
  /** When the first of the acknowledged data was sent that was sent once; NaN if there is none. */
  private ackedSince: number = Number.NaN;
  /** The same of what is newly acknowledged selectively. */
  private sackedSince: number = Number.NaN;
  private hasAckedRetransmission = false;

  /** An ACK has come. */
  begin(now: number, echoMs: number, minRttMs: number): void {
    this.now = now;
    this.echoMs = echoMs;
    this.minRttMs = minRttMs;
    this.ackedSince = Number.NaN;
    this.sackedSince = Number.NaN;
    this.hasAckedRetransmission = false;
  }

  /** Everything in front of `ack` arrived; `ack` is in (SND.UNA, SND.NXT]. */
  take(records: Transmissions, rack: Rack, ack: number): void {
    findings.acked = seqDistance(records.start, ack);
    while (records.count !== 0) {
      const record = records.at(0);
      if (!seqBefore(record.start, ack)) break;
      const isWhole = seqAtMost(record.end, ack);
      if (record.state !== SACKED) {
        const end = isWhole ? record.end : ack;
        findings.delivered += seqDistance(record.start, end);
        if (record.isRetransmitted) this.hasAckedRetransmission = true;
        else if (Number.isNaN(this.ackedSince)) this.ackedSince = record.time;
        rack.onDelivered(record, end, this.now, this.echoMs, this.minRttMs);
      }
      if (isWhole) records.removeFirst();
      else records.trimFirst(ack);
    }
  }

  /** The bytes of a SACK block arrived; it is within (SND.UNA, SND.NXT]. */
  takeBlock(records: Transmissions, rack: Rack, left: number, right: number): void {
    records.select(left, right);
    const { selectedFrom, selectedTo } = records;
    for (let i = selectedFrom; i < selectedTo; i++) {
      const record = records.at(i);
      if (record.state === SACKED) continue;
      findings.delivered += seqDistance(record.start, record.end);
      if (!record.isRetransmitted && Number.isNaN(this.sackedSince)) this.sackedSince = record.time;
      rack.onDelivered(record, record.end, this.now, this.echoMs, this.minRttMs);
      records.markSacked(record);
    }
    records.mergeSacked(selectedFrom, selectedTo);
  }

  /**
   * Returns the round-trip time of data that was sent once (Karn's algorithm), else that of the echoed timestamp; -1 if
   * there is none.
   */
  roundTrip(isAdvancing: boolean): number {
    let rtt = -1;
    if (!this.hasAckedRetransmission && !Number.isNaN(this.ackedSince)) {
      rtt = this.now - this.ackedSince;
    } else if (!Number.isNaN(this.sackedSince)) {
      rtt = this.now - this.sackedSince;
    } else if (isAdvancing && findings.delivered > 0 && this.echoMs >= 0) {
      // RFC 7323, section 4.1: only an ACK that advances the left edge.
      rtt = this.now - this.echoMs;
    }
    return rtt >= 0 ? rtt : -1;
  }
}

export const delivery: Delivery = new Delivery();
