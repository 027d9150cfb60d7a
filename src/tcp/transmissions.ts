/**
 * The records of what was sent and is not yet acknowledged: the scoreboard of one connection
 * ([RFC 2018 section 8](https://www.rfc-editor.org/rfc/rfc2018#section-8)).
 *
 * The records cover [SND.UNA, SND.NXT) without gaps, each a range that was sent in one packet. A record is in one of
 * three states: in flight, selectively acknowledged, or lost and not yet sent again. The records are in two orders:
 *
 * - by sequence number, in a ring, so that the record of a SACK edge is found by bisection;
 * - by the time of the last transmission, as a linked list of the records in flight, so that RACK looks only at those
 *   which were sent before the latest one that was delivered.
 *
 * Neighbours that were selectively acknowledged become one record. The blocks of an ACK repeat what earlier ACKs said;
 * so a repeated block meets one record, however much it covers.
 * @module
 */
import { seqBefore, seqDistance, seqMax, seqMin } from './sequence.ts';
import {
  giveRecord,
  IN_FLIGHT,
  isLater,
  LOST,
  SACKED,
  segmentsOf,
  type Transmission,
  takeRecord,
} from './transmission.ts';
import { TransmissionRing } from './transmission-ring.ts';

/** The records of one connection. It holds no memory while nothing is outstanding. */
export class Transmissions extends TransmissionRing {
  /** The first sequence number that is not acknowledged: SND.UNA. */
  start = 0;
  /** The sequence number behind the last one sent: SND.NXT. Equal to `start` iff there is no record. */
  end = 0;
  sackedBytes = 0;
  /** How many segments the selectively acknowledged records stand for: `RACK.segs_sacked` of RFC 8985. */
  sackedSegments = 0;
  lostBytes = 0;
  /** The record in flight that was sent first, and the one that was sent last. */
  oldest: Transmission | undefined = undefined;
  newest: Transmission | undefined = undefined;
  /** The result of `select`: indices [selectedFrom, selectedTo). */
  selectedFrom = 0;
  selectedTo = 0;

  /** How many records exist only because of a SACK edge. */
  private splits = 0;
  /** No record in front of this sequence number is lost. Valid iff `lostBytes` is not 0. */
  private lostFrom = 0;

  /** The bytes in the network, as far as is known. */
  get inFlight(): number {
    return seqDistance(this.start, this.end) - this.sackedBytes - this.lostBytes;
  }

  /** The index of the record that holds a sequence number of [start, end). */
  indexOf(sequence: number): number {
    const offset = seqDistance(this.start, sequence);
    let low = 0;
    let high = this.count - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (seqDistance(this.start, this.at(middle).start) <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Adds what was sent for the first time, behind the last record, in wire segments of `segment` bytes. */
  append(end: number, segment: number, now: number): Transmission {
    const record = takeRecord();
    record.start = this.end;
    record.end = end;
    record.time = now;
    record.segment = segment;
    record.segments = segmentsOf(seqDistance(record.start, end), segment);
    this.insert(this.count, record);
    this.end = end;
    this.link(record);
    return record;
  }

  /** Takes the last record away, as if it had never been sent. */
  removeLast(): void {
    const record = this.at(this.count - 1);
    this.leaveState(record);
    this.end = record.start;
    this.giveBack(this.count - 1, 1);
  }

  /** Takes the first record away: all of it is acknowledged. */
  removeFirst(): void {
    const record = this.at(0);
    this.leaveState(record);
    this.start = record.end;
    this.giveBack(0, 1);
  }

  /** Takes the first bytes of the first record away, which are acknowledged. `ack` is inside that record. */
  trimFirst(ack: number): void {
    const record = this.at(0);
    const count = seqDistance(record.start, ack);
    if (record.state === SACKED) this.sackedBytes -= count;
    else if (record.state === LOST) this.lostBytes -= count;
    record.start = ack;
    this.start = ack;
  }

  /**
   * Finds the records that a SACK block covers in whole, and cuts records at its edges. An edge inside a record moves
   * inwards to the next boundary of a segment, so that a peer cannot cut records into single bytes; it moves to the edge of
   * the record when as many records were created as are allowed (CVE-2019-11478).
   *
   * The result is [selectedFrom, selectedTo); it may be empty. The block is within [start, end].
   */
  select(left: number, right: number): void {
    let from = this.indexOf(left);
    const first = this.at(from);
    this.selectedFrom = from;
    this.selectedTo = from;
    if (first.start !== left) {
      const { segment } = first;
      const cut = Math.ceil(seqDistance(first.start, left) / segment) * segment;
      if (seqBefore(right, first.end)) {
        const rightCut = Math.floor(seqDistance(first.start, right) / segment) * segment;
        if (first.state === SACKED || cut >= rightCut) return;
        if (!this.cutBySack(from, cut)) return;
      } else if (first.state !== SACKED) {
        this.cutBySack(from, cut);
        // Without a cut the block begins at the next record: `first` is not covered in whole.
        if (first.end === this.end) return;
      }
      from++;
    }
    let to = right === this.end ? this.count : this.indexOf(right);
    if (to < this.count) {
      const last = this.at(to);
      const { segment } = last;
      const cut = Math.floor(seqDistance(last.start, right) / segment) * segment;
      if (last.state !== SACKED && this.cutBySack(to, cut)) to++;
    }
    this.selectedFrom = from;
    this.selectedTo = Math.max(from, to);
  }

  /** Marks a record as selectively acknowledged. */
  markSacked(record: Transmission): void {
    this.leaveState(record);
    record.state = SACKED;
    this.sackedBytes += seqDistance(record.start, record.end);
    this.sackedSegments += record.segments;
  }

  /** Makes one record of the neighbours within and around [from, to) that are all selectively acknowledged. */
  mergeSacked(from: number, to: number): void {
    if (from >= to) return;
    if (from > 0 && this.at(from - 1).state === SACKED) from--;
    if (to < this.count && this.at(to).state === SACKED) to++;
    if (to - from < 2) return;
    const record = this.at(from);
    for (let index = from + 1; index < to; index++) {
      const other = this.at(index);
      record.end = other.end;
      record.segments += other.segments;
      if (other.time > record.time) record.time = other.time;
      if (other.isRetransmitted) record.isRetransmitted = true;
    }
    if (record.isSplit) {
      record.isSplit = false;
      this.splits--;
    }
    this.giveBack(from + 1, to - from - 1);
  }

  /** Marks a record in flight as lost. Returns its length. */
  markLost(record: Transmission): number {
    const length = seqDistance(record.start, record.end);
    this.leaveState(record);
    record.state = LOST;
    this.lostFrom = this.lostBytes === 0 ? record.start : seqMin(this.lostFrom, record.start);
    this.lostBytes += length;
    return length;
  }

  /**
   * Notes that [start, end), inside one or more records, was sent again in wire segments of `segment` bytes. What was
   * selectively acknowledged stays so.
   */
  retransmit(start: number, end: number, segment: number, now: number): void {
    let index = this.indexOf(start);
    const first = this.at(index);
    if (first.start !== start) {
      if (first.state !== SACKED) this.cut(index, seqDistance(first.start, start), segment);
      index++;
    }
    for (; index < this.count; index++) {
      const record = this.at(index);
      if (!seqBefore(record.start, end)) break;
      if (record.state === SACKED) continue;
      if (seqBefore(end, record.end)) this.cut(index, seqDistance(record.start, end), segment);
      this.leaveState(record);
      record.state = IN_FLIGHT;
      record.time = now;
      record.segment = segment;
      record.isRetransmitted = true;
      this.link(record);
    }
  }

  /** Takes the last transmission of a record back: what is given was true before it. */
  restore(record: Transmission, state: number, time: number, isRetransmitted: boolean): void {
    this.leaveState(record);
    record.state = IN_FLIGHT;
    record.time = time;
    record.isRetransmitted = isRetransmitted;
    this.link(record);
    if (state === LOST) this.markLost(record);
  }

  /** The record that is lost and has the lowest sequence number. */
  firstLost(): Transmission | undefined {
    if (this.lostBytes === 0) return undefined;
    let index = this.indexOf(seqMax(this.lostFrom, this.start));
    while (this.at(index).state !== LOST) index++;
    const record = this.at(index);
    this.lostFrom = record.start;
    return record;
  }

  /**
   * Cuts a record in two, `length` bytes behind its start. The number of these cuts is not bounded here: the caller
   * makes them where it sends packets.
   */
  cut(index: number, length: number, mss: number): void {
    const record = this.at(index);
    const rest = takeRecord();
    rest.start = (record.start + length) | 0;
    rest.end = record.end;
    rest.time = record.time;
    rest.state = record.state;
    rest.isRetransmitted = record.isRetransmitted;
    rest.segment = record.segment;
    rest.segments = segmentsOf(seqDistance(rest.start, rest.end), mss);
    record.end = rest.start;
    const segments = record.segments;
    record.segments = segmentsOf(length, mss);
    if (record.state === SACKED) this.sackedSegments += record.segments + rest.segments - segments;
    else if (record.state === IN_FLIGHT) this.linkBehind(rest, record);
    this.insert(index + 1, rest);
  }

  /** The bytes in flight that were sent more than once. */
  repeatedInFlight(): number {
    let bytes = 0;
    for (let record = this.oldest; record !== undefined; record = record.later) {
      if (record.isRetransmitted) bytes += seqDistance(record.start, record.end);
    }
    return bytes;
  }

  /** Forgets all selective acknowledgments: the records count as in flight until something else is known. */
  forgetSacked(): void {
    if (this.sackedBytes === 0) return;
    for (let index = 0; index < this.count; index++) {
      const record = this.at(index);
      if (record.state !== SACKED) continue;
      this.leaveState(record);
      record.state = IN_FLIGHT;
      // What is acknowledged again later may have been delivered at any time: it gives no round-trip time.
      record.isRetransmitted = true;
    }
    this.relink();
  }

  /** Takes back that records were lost: they were in flight all the time. */
  forgetLost(): void {
    if (this.lostBytes === 0) return;
    for (let index = 0; index < this.count; index++) {
      const record = this.at(index);
      if (record.state === LOST) record.state = IN_FLIGHT;
    }
    this.lostBytes = 0;
    this.relink();
  }

  /** Gives all records back. */
  clear(): void {
    for (let index = 0; index < this.count; index++) giveRecord(this.at(index));
    this.empty();
    this.start = this.end;
    this.sackedBytes = this.sackedSegments = this.lostBytes = this.splits = 0;
    this.oldest = this.newest = undefined;
  }

  /** Marks what is in flight in packets of more than `segment` bytes as lost. */
  markLongerLost(segment: number): void {
    let record = this.oldest;
    while (record !== undefined) {
      const { later }: Transmission = record;
      if (seqDistance(record.start, record.end) > segment) this.markLost(record);
      record = later;
    }
  }

  /** Takes `count` records away, which are in no list of a state any more. */
  private giveBack(index: number, count: number): void {
    for (let i = index; i < index + count; i++) {
      const record = this.at(i);
      if (record.isSplit) this.splits--;
      giveRecord(record);
    }
    this.remove(index, count);
  }

  private cutBySack(index: number, length: number): boolean {
    const record = this.at(index);
    if (length <= 0 || length >= seqDistance(record.start, record.end)) return false;
    if (this.splits >= MAX_SPLITS) return false;
    this.cut(index, length, record.segment);
    this.at(index + 1).isSplit = true;
    this.splits++;
    return true;
  }

  /** Takes a record out of the sum or the list of its state. */
  private leaveState(record: Transmission): void {
    if (record.state === IN_FLIGHT) {
      this.unlink(record);
    } else if (record.state === SACKED) {
      this.sackedBytes -= seqDistance(record.start, record.end);
      this.sackedSegments -= record.segments;
    } else {
      this.lostBytes -= seqDistance(record.start, record.end);
    }
  }

  /** Links a record that was just sent. Of those sent at the same time, the one that ends first comes first. */
  private link(record: Transmission): void {
    let before = this.newest;
    while (before !== undefined && isLater(before, record)) before = before.earlier;
    this.linkBehind(record, before);
  }

  private linkBehind(record: Transmission, before: Transmission | undefined): void {
    const behind = before === undefined ? this.oldest : before.later;
    record.earlier = before;
    record.later = behind;
    if (before === undefined) this.oldest = record;
    else before.later = record;
    if (behind === undefined) this.newest = record;
    else behind.earlier = record;
  }

  private unlink(record: Transmission): void {
    const { earlier, later } = record;
    if (earlier === undefined) this.oldest = later;
    else earlier.later = later;
    if (later === undefined) this.newest = earlier;
    else later.earlier = earlier;
    record.earlier = undefined;
    record.later = undefined;
  }

  /** Makes the list of the records in flight anew. It sorts, because the times may be in any order. */
  private relink(): void {
    const records: Transmission[] = [];
    for (let index = 0; index < this.count; index++) {
      const record = this.at(index);
      if (record.state === IN_FLIGHT) records.push(record);
    }
    records.sort((a, b) => (isLater(a, b) ? 1 : -1));
    this.oldest = this.newest = undefined;
    for (const record of records) this.linkBehind(record, this.newest);
  }
}

/** Our choice: the bound of CVE-2019-11478 for one connection. */
const MAX_SPLITS = 256;
