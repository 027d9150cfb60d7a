/**
 * A sender with `LossRecovery`, a receiver and a path that loses, delays, reorders and repeats packets, in simulated
 * time. After each step the records are compared with a naive recomputation.
 * @module
 */
import { LossRecovery } from '../../src/tcp/loss.ts';
import { RttEstimator } from '../../src/tcp/rtt.ts';
import { seqAdd, seqBefore, seqDistance } from '../../src/tcp/sequence.ts';
import { IN_FLIGHT, LOST, SACKED } from '../../src/tcp/transmission.ts';
import type { Random } from '../support/random.ts';

export interface PathOptions {
  readonly random: Random;
  readonly hasSack: boolean;
  readonly hasTimestamps: boolean;
  readonly hasDsack: boolean;
  /** Probabilities for each packet and each ACK. */
  readonly loss: number;
  readonly ackLoss: number;
  readonly duplication: number;
  readonly reordering: number;
  readonly refusal: number;
  /** One way, in ms; reordered packets take up to `extraDelayMs` longer. */
  readonly delayMs: number;
  readonly extraDelayMs: number;
  /** Bytes to transfer, in segments of `mss` and packets of up to `packet` bytes. */
  readonly total: number;
  readonly mss: number;
  readonly packet: number;
  readonly window: number;
  readonly isn: number;
}

interface Event {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

export class LossyPath {
  readonly loss: LossRecovery;
  readonly rtt: RttEstimator = new RttEstimator();
  now = 1_000.25;
  retransmissions = 0;
  timeouts = 0;
  probes = 0;
  spurious = 0;
  recoveries = 0;
  steps = 0;
  /** Called after each ACK. */
  afterAck: () => void = () => {};

  private readonly options: PathOptions;
  private readonly events: Event[] = [];
  private order = 0;
  /** One flag a byte: the receiver has it; the sender was told so, and did not forget it. */
  private readonly received: Uint8Array;
  private readonly known: Uint8Array;
  private inOrder = 0;
  private echo = -1;
  private recent: number[] = [];
  private una = 0;
  private nxt = 0;
  /** Set for a while, so that nothing arrives. */
  private isCut = false;

  constructor(options: PathOptions) {
    this.options = options;
    this.loss = new LossRecovery(this.rtt);
    this.loss.hasSack = options.hasSack;
    this.loss.unit = options.mss;
    this.received = new Uint8Array(options.total);
    this.known = new Uint8Array(options.total);
  }

  get isDone(): boolean {
    return this.una === this.options.total;
  }

  /** Everything that is sent in [from, to) is lost, both ways. */
  cut(from: number, to: number): void {
    this.at(from, () => {
      this.isCut = true;
    });
    this.at(to, () => {
      this.isCut = false;
    });
  }

  /** Runs until all is delivered and acknowledged, or until too many steps were made. */
  run(): void {
    this.send();
    while (!this.isDone && this.steps++ < 200_000) {
      const event = this.nextEvent();
      const { deadline } = this.loss;
      if (event === undefined && deadline === Number.POSITIVE_INFINITY) {
        throw new Error(`nothing goes on: ${this.una} of ${this.options.total} are acknowledged`);
      }
      if (event !== undefined && event.at <= deadline) {
        this.events.splice(this.events.indexOf(event), 1);
        this.now = Math.max(this.now, event.at);
        event.run();
      } else {
        this.now = Math.max(this.now, deadline);
        this.expire();
      }
      this.check();
      this.send();
      this.check();
    }
    if (!this.isDone) throw new Error(`stuck at ${this.una} of ${this.options.total}`);
  }

  /** Compares the records with what follows from each of them. */
  check(): void {
    const { records } = this.loss;
    let sacked = 0;
    let lost = 0;
    let segments = 0;
    let flying = 0;
    let at = records.start;
    for (let i = 0; i < records.count; i++) {
      const record = records.at(i);
      const length = seqDistance(record.start, record.end);
      if (record.start !== at || length <= 0) throw new Error('the records have a gap');
      at = record.end;
      if (record.state === SACKED) {
        sacked += length;
        segments += record.segments;
      } else if (record.state === LOST) {
        lost += length;
        const from = seqDistance(this.options.isn, record.start);
        if (this.known.subarray(from, from + length).includes(1)) {
          throw new Error('acknowledged data is marked as lost');
        }
      } else {
        flying++;
      }
    }
    const expected = seqDistance(records.start, records.end) - sacked - lost;
    if (
      at !== records.end ||
      sacked !== records.sackedBytes ||
      lost !== records.lostBytes ||
      segments !== records.sackedSegments ||
      records.inFlight !== expected ||
      this.loss.inFlight < 0 ||
      this.loss.outstanding !== this.nxt - this.una
    ) {
      throw new Error('the sums differ from the records');
    }
    let previous = records.oldest;
    if (previous?.earlier !== undefined) throw new Error('the list has no beginning');
    for (let record = previous; record !== undefined; record = record.later) {
      if (record.state !== IN_FLIGHT) throw new Error('the list holds what is not in flight');
      flying--;
      if (
        record !== previous &&
        (previous!.time > record.time ||
          (previous!.time === record.time && !seqBefore(previous!.end, record.end)) ||
          record.earlier !== previous)
      ) {
        throw new Error('the list is not sorted');
      }
      previous = record;
    }
    if (flying !== 0 || records.newest !== previous) throw new Error('the list is incomplete');
    if (records.count === 0 && !this.isDone && this.loss.inFlight !== 0) throw new Error('leak');
  }

  private at(at: number, run: () => void): void {
    this.events.push({ at, order: this.order++, run });
  }

  private nextEvent(): Event | undefined {
    let next: Event | undefined;
    for (const event of this.events) {
      if (
        next === undefined ||
        event.at < next.at ||
        (event.at === next.at && event.order < next.order)
      ) {
        next = event;
      }
    }
    return next;
  }

  private expire(): void {
    const { loss } = this;
    const result = loss.expire(this.now);
    this.count();
    if (result === 'timeout') {
      this.timeouts++;
      this.known.fill(0, this.una);
    }
    if (result === 'retry') this.sendNew();
    if (result !== 'probe') return;
    this.probes++;
    if (!this.sendNew()) {
      const { start, end } = loss.probe;
      if (start !== end) this.transmit(start, end, true);
    }
  }

  private count(): void {
    if (this.loss.found.isSpurious) this.spurious++;
    if (this.loss.found.hasEntered) this.recoveries++;
  }

  /** Sends what is lost, then new data, within a fixed window. */
  private send(): void {
    const { loss, options } = this;
    for (let budget = 200; budget > 0 && loss.inFlight < options.window; budget--) {
      const lost = loss.firstLost;
      if (lost !== undefined) {
        const most = seqAdd(lost.start, options.packet);
        const end = seqBefore(most, lost.end) ? most : lost.end;
        if (!this.transmit(lost.start, end, true)) return;
      } else if (!this.sendNew()) {
        return;
      }
    }
  }

  private sendNew(): boolean {
    const { isn, total, packet } = this.options;
    const length = Math.min(packet, total - this.nxt);
    if (length === 0) return false;
    return this.transmit(seqAdd(isn, this.nxt), seqAdd(isn, this.nxt + length), false);
  }

  private transmit(start: number, end: number, isRetransmission: boolean): boolean {
    const { options, loss } = this;
    const { random } = options;
    loss.onTransmit(start, end, this.now, isRetransmission);
    if (!isRetransmission) this.nxt = seqDistance(options.isn, end);
    if (random.chance(options.refusal)) {
      this.check();
      loss.onRefused();
      if (!isRetransmission) this.nxt = seqDistance(options.isn, start);
      if (loss.isEmpty) this.at(this.now + 10, () => {});
      return false;
    }
    if (isRetransmission) this.retransmissions++;
    // A kernel behind the far device cuts the packet into segments, each of which may be lost.
    for (let at = start; seqBefore(at, end); at = seqAdd(at, options.mss)) {
      const next = seqAdd(at, options.mss);
      const segmentEnd = seqBefore(next, end) ? next : end;
      const copies = random.chance(options.duplication) ? 2 : 1;
      for (let copy = 0; copy < copies; copy++) {
        if (this.isCut || random.chance(options.loss)) continue;
        this.deliver(
          seqDistance(options.isn, at),
          seqDistance(options.isn, segmentEnd),
          Math.floor(this.now)
        );
      }
    }
    return true;
  }

  private delay(): number {
    const { random, delayMs, extraDelayMs, reordering } = this.options;
    return delayMs + (random.chance(reordering) ? random.next() * extraDelayMs : 0);
  }

  private deliver(from: number, to: number, timestamp: number): void {
    this.at(this.now + this.delay(), () => {
      const { options } = this;
      const isDuplicate = !this.received.subarray(from, to).includes(0);
      // RFC 7323, section 4.3.
      if (from <= this.inOrder && timestamp >= this.echo) this.echo = timestamp;
      this.received.fill(1, from, to);
      const before = this.inOrder;
      while (this.inOrder < options.total && this.received[this.inOrder] === 1) this.inOrder++;
      this.recent = [from, ...this.recent.filter((start) => start !== from)].slice(0, 8);
      const sack: number[] = [];
      if (options.hasSack) {
        if (isDuplicate && options.hasDsack)
          sack.push(seqAdd(options.isn, from), seqAdd(options.isn, to));
        for (const start of this.recent) {
          if (sack.length === 6 || start < this.inOrder || this.received[start] !== 1) continue;
          let left = start;
          let right = start;
          while (left > this.inOrder && this.received[left - 1] === 1) left--;
          while (right < options.total && this.received[right] === 1) right++;
          const block = seqAdd(options.isn, left);
          if (sack.some((edge, i) => i % 2 === 0 && i >= (isDuplicate ? 2 : 0) && edge === block))
            continue;
          sack.push(block, seqAdd(options.isn, right));
        }
      }
      const isDelayed = this.inOrder > before && sack.length === 0 && options.random.chance(0.3);
      if (isDelayed && this.inOrder < options.total) return;
      if (this.isCut || options.random.chance(options.ackLoss)) return;
      const ack = this.inOrder;
      const echo = options.hasTimestamps ? this.echo : -1;
      this.at(this.now + this.delay(), () => this.acknowledge(ack, sack, echo));
    });
  }

  private acknowledge(ack: number, sack: number[], echo: number): void {
    const { loss, options } = this;
    const sndUna = this.una;
    this.known.fill(1, Math.min(sndUna, ack), ack);
    for (let i = 0; i < sack.length; i += 2) {
      const left = seqDistance(options.isn, sack[i]!);
      // The sender may not know all of it: edges are taken inwards. `check` needs whole segments only.
      this.known.fill(1, left, seqDistance(options.isn, sack[i + 1]!));
    }
    const isOld = ack < sndUna;
    this.una = Math.max(this.una, ack);
    loss.onAck(
      seqAdd(options.isn, ack),
      seqAdd(options.isn, sndUna),
      seqAdd(options.isn, this.nxt),
      Int32Array.from(sack),
      sack.length / 2,
      isOld ? -1 : echo,
      this.now
    );
    this.count();
    this.afterAck();
  }
}
