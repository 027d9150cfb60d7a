import { describe, expect, test } from 'vitest';
import { LossRecovery } from '../../src/tcp/loss.ts';
import { RttEstimator } from '../../src/tcp/rtt.ts';
import { seqAdd } from '../../src/tcp/sequence.ts';
import { Random } from '../support/random.ts';

/** A sender of segments of 1,000 bytes, numbered from 0. The sequence numbers wrap in the third of them. */
class Sender {
  readonly rtt: RttEstimator = new RttEstimator();
  readonly loss: LossRecovery = new LossRecovery(this.rtt);
  now = 5_000;
  una = 0;
  nxt = 0;

  constructor(hasSack = true) {
    this.loss.hasSack = hasSack;
    this.loss.unit = 1_000;
  }

  /** A sender with a smoothed and a minimum round-trip time of 100 ms. */
  static measured(hasSack = true): Sender {
    const sender = new Sender(hasSack);
    sender.rtt.sample(100, sender.now);
    return sender;
  }

  seq(segment: number): number {
    return seqAdd(0x7fff_ffff - 2_500, segment * 1_000);
  }

  send(segments: number, each = 1): void {
    for (let i = 0; i < segments; i += each) {
      this.loss.onTransmit(this.seq(this.nxt), this.seq(this.nxt + each), this.now, false);
      this.nxt += each;
    }
  }

  ack(segment: number, sack: [number, number][] = [], echoMs = -1, isPlain = true): void {
    const blocks = sack.flat().map((edge) => this.seq(edge));
    const una = this.seq(this.una);
    this.una = Math.max(this.una, segment);
    this.loss.onAck(
      this.seq(segment),
      una,
      this.seq(this.nxt),
      Int32Array.from(blocks),
      sack.length,
      echoMs,
      this.now,
      isPlain
    );
  }

  /** Sends what is lost, and returns the segments. */
  resend(): number[] {
    const { loss } = this;
    const segments: number[] = [];
    for (let lost = loss.firstLost; lost !== undefined; lost = loss.firstLost) {
      const first = ((lost.start - this.seq(0)) | 0) / 1_000;
      const last = ((lost.end - this.seq(0)) | 0) / 1_000;
      for (let segment = first; segment < last; segment++) {
        this.loss.onTransmit(this.seq(segment), this.seq(segment + 1), this.now, true);
        segments.push(segment);
      }
    }
    return segments;
  }

  /** Waits for the deadline. */
  expire(): string {
    this.now = this.loss.deadline;
    return this.loss.expire(this.now);
  }

  get states(): string {
    const { records } = this.loss;
    let text = '';
    for (let i = 0; i < records.count; i++) text += 'fsl'[records.at(i).state];
    return text;
  }
}

describe('RACK', () => {
  test('three segments acknowledged behind a hole mark it as lost at once', () => {
    const sender = Sender.measured();
    sender.send(6);
    sender.now += 100;
    sender.ack(0, [[1, 4]]);
    expect(sender.loss.found.hasEntered).toBe(true);
    expect(sender.loss.found.newlyLost).toBe(1_000);
    expect(sender.loss.phase).toBe('recovery');
    expect(sender.loss.found.inFlightBefore).toBe(6_000);
    expect(sender.loss.inFlight).toBe(2_000);
    expect(sender.resend()).toEqual([0]);
    sender.now += 100;
    sender.ack(6);
    expect(sender.loss.found.hasLeft).toBe(true);
    expect(sender.loss.found.isSpurious).toBe(false);
    expect(sender.loss.isEmpty).toBe(true);
  });

  test('fewer segments behind a hole wait for a quarter of the minimum round-trip time', () => {
    const sender = Sender.measured();
    sender.send(4);
    sender.now += 100;
    sender.ack(0, [[1, 2]]);
    expect(sender.loss.phase).toBe('open');
    expect(nextTimer(sender.loss)).toBe('reorder');
    expect(sender.loss.deadline).toBe(sender.now + 25);
    expect(sender.expire()).toBe('lost');
    expect(sender.loss.found.hasEntered).toBe(true);
    expect(sender.states).toBe('lsff');
  });

  test('a segment that arrives late makes RACK wait, however many are behind the hole', () => {
    const sender = Sender.measured();
    sender.send(4);
    sender.now += 100;
    sender.ack(0, [[1, 2]]);
    sender.now += 1;
    sender.ack(2);
    sender.send(6);
    sender.now += 100;
    sender.ack(4);
    sender.ack(4, [[5, 9]]);
    expect(sender.loss.phase).toBe('open');
    expect(nextTimer(sender.loss)).toBe('reorder');
  });

  test('of segments sent at the same time the one with the lower number was sent before', () => {
    const sender = Sender.measured();
    sender.send(8);
    sender.now += 100;
    sender.ack(0, [[2, 5]]);
    expect(sender.states).toBe('llsfff');
    expect(sender.resend()).toEqual([0, 1]);
  });

  test('blocks of one ACK in any order do not look like reordering', () => {
    const sender = Sender.measured();
    sender.send(10);
    sender.now += 100;
    sender.ack(0, [
      [7, 8],
      [4, 5],
      [1, 2],
    ]);
    expect(sender.states).toBe('lsllsllsff');
  });

  test('a retransmission that is lost is found by what was sent after it', () => {
    const sender = Sender.measured();
    sender.send(6);
    sender.now += 100;
    sender.ack(0, [[1, 4]]);
    expect(sender.resend()).toEqual([0]);
    sender.now += 1;
    sender.send(3);
    sender.now += 100;
    sender.ack(0, [[1, 9]]);
    expect(sender.loss.found.newlyLost).toBe(1_000);
    expect(sender.loss.found.hasEntered).toBe(false);
    expect(sender.resend()).toEqual([0]);
  });

  test('a loss that is left when a recovery ends begins the next one', () => {
    const sender = Sender.measured();
    sender.send(6);
    sender.now += 100;
    sender.ack(0, [[1, 4]]);
    expect(sender.resend()).toEqual([0]);
    sender.send(6);
    sender.now += 100;
    sender.ack(4, [[7, 12]]);
    expect(sender.states).toBe('llls');
    for (const segment of [4, 5]) {
      sender.loss.onTransmit(sender.seq(segment), sender.seq(segment + 1), sender.now, true);
    }
    sender.now += 100;
    sender.ack(6, [[7, 12]]);
    expect(sender.loss.found.newlyLost).toBe(0);
    expect(sender.loss.found.hasLeft).toBe(true);
    expect(sender.loss.found.hasEntered).toBe(true);
    expect(sender.loss.phase).toBe('recovery');
    expect(sender.resend()).toEqual([6]);
  });

  test('an ACK that echoes an older timestamp is not that of a retransmission', () => {
    const sender = Sender.measured();
    sender.send(6);
    const sentAt = sender.now;
    sender.now += 100;
    sender.ack(0, [[2, 5]]);
    expect(sender.resend()).toEqual([0, 1]);
    sender.now += 120;
    sender.ack(0, [[1, 5]], sentAt);
    expect(sender.states).toBe('fsf');
    sender.ack(0, [[1, 6]], sender.now - 120);
    expect(sender.states).toBe('fs');
  });

  test('an ACK sooner than the minimum round-trip time is not that of a retransmission', () => {
    const sender = Sender.measured();
    sender.send(6);
    sender.now += 100;
    sender.ack(0, [[2, 5]]);
    expect(sender.resend()).toEqual([0, 1]);
    sender.now += 5;
    sender.ack(0, [[1, 5]]);
    // Else segment 0, sent at the same time as 1 and ending before it, would be lost again.
    expect(sender.states).toBe('fsf');
  });

  test('each round trip with a DSACK makes RACK more patient, and 16 recoveries without less', () => {
    const sender = Sender.measured();
    const wait = (): number => {
      sender.send(3);
      sender.now += 100;
      sender.ack(sender.una, [[sender.una + 1, sender.una + 2]]);
      return sender.loss.deadline - sender.now;
    };
    expect(wait()).toBe(25);
    sender.expire();
    const [first] = sender.resend();
    sender.now += 150;
    sender.ack(first! + 3, [[first!, first! + 1]]);
    expect(sender.loss.found.sawDsack).toBe(true);
    sender.ack(first! + 3, [[first!, first! + 1]]);
    expect(wait()).toBe(50);
    for (let i = 0; i < 17; i++) {
      sender.expire();
      sender.resend();
      sender.now += 100;
      sender.ack(sender.nxt);
      expect(sender.loss.found.hasLeft).toBe(true);
      wait();
    }
    expect(sender.loss.deadline - sender.now).toBe(25);
  });
});

describe('SACK', () => {
  test('an edge inside a packet moves inwards to a boundary of segments', () => {
    const sender = Sender.measured();
    sender.send(64, 64);
    const at = (offset: number): number => seqAdd(sender.seq(0), offset);
    const blocks = Int32Array.from([at(2_001), at(9_999)]);
    sender.loss.onAck(sender.seq(0), sender.seq(0), sender.seq(64), blocks, 1, -1, sender.now + 50);
    expect(sender.loss.found.delivered).toBe(6_000);
    expect(sender.states).toBe('lsf');
    expect(sender.loss.records.at(1).start).toBe(at(3_000));
    expect(sender.loss.records.at(1).end).toBe(at(9_000));
  });

  test('at most 256 records come from edges, whatever a peer sends', () => {
    const sender = Sender.measured();
    sender.send(64 * 64, 64);
    for (let segment = 1; segment < 64 * 64; segment += 2) {
      sender.ack(0, [[segment, segment + 1]]);
    }
    expect(sender.loss.records.count).toBeLessThanOrEqual(64 + 256);
    sender.ack(0, [[1, 64 * 64]]);
    expect(sender.loss.records.count).toBe(2);
    sender.ack(64 * 64);
    expect(sender.loss.isEmpty).toBe(true);
  });

  test('blocks outside of what is outstanding, empty and reversed ones are ignored', () => {
    const sender = Sender.measured();
    sender.send(6);
    sender.ack(2);
    for (const block of [
      [2, 3],
      [5, 7],
      [4, 4],
      [5, 4],
      [-3, 4],
      [1_000_000, 1_000_001],
    ] as [number, number][]) {
      sender.ack(2, [[3, 3], block]);
      expect(sender.loss.found.delivered).toBe(0);
    }
    expect(sender.loss.inFlight).toBe(4_000);
    // More blocks are announced than there are.
    sender.loss.onAck(sender.seq(2), sender.seq(2), sender.seq(6), new Int32Array(3), 4, -1, 5_000);
    expect(sender.loss.inFlight).toBe(4_000);
  });

  test('repeated blocks meet one record, and deliver nothing twice', () => {
    const sender = Sender.measured();
    sender.send(1_000);
    sender.now += 100;
    for (let segment = 2; segment <= 1_000; segment++) {
      sender.ack(0, [[1, segment]]);
      expect(sender.loss.found.delivered).toBe(1_000);
    }
    expect(sender.loss.records.count).toBe(2);
    sender.ack(1_000);
    expect(sender.loss.found.delivered).toBe(1_000);
    expect(sender.loss.found.acked).toBe(1_000_000);
  });

  test('a receiver that takes its SACKs back is served by the timeout', () => {
    const sender = Sender.measured();
    sender.send(6);
    sender.now += 100;
    sender.ack(0, [[1, 5]]);
    expect(sender.resend()).toEqual([0]);
    // It has only the first now, and says nothing more.
    sender.now += 100;
    sender.ack(1);
    while (sender.expire() !== 'timeout') sender.resend();
    expect(sender.loss.phase).toBe('loss');
    expect(sender.resend()).toEqual([1, 2, 3, 4, 5]);
  });
});

describe('a recovery that was needless', () => {
  test('is undone by the timestamp of the first ACK (Eifel)', () => {
    const sender = Sender.measured();
    sender.send(5);
    const sentAt = sender.now;
    while (sender.expire() !== 'timeout')
      sender.loss.onTransmit(sender.loss.probe.start, sender.loss.probe.end, sender.now, true);
    expect(sender.rtt.backoffs).toBe(1);
    const { start, end } = sender.loss.firstLost!;
    sender.loss.onTransmit(start, end, sender.now, true);
    sender.now += 30;
    sender.ack(1, [], Math.floor(sentAt));
    expect(sender.loss.found.isSpurious).toBe(true);
    expect(sender.loss.found.hasLeft).toBe(true);
    expect(sender.loss.phase).toBe('open');
    expect(sender.loss.hasLost).toBe(false);
    expect(sender.loss.inFlight).toBe(4_000);
    expect(sender.rtt.backoffs).toBe(0);
    // The round-trip time that was too long for the timeout is known now.
    expect(sender.rtt.srttMs).toBeGreaterThan(300);
    expect(sender.loss.deadline).toBeLessThan(Number.POSITIVE_INFINITY);
  });

  test('is not undone by the timestamp of the retransmission', () => {
    const sender = Sender.measured();
    sender.send(5);
    sender.now += 100;
    sender.ack(0, [[1, 4]]);
    sender.resend();
    const resentAt = sender.now;
    sender.now += 100;
    sender.ack(4, [], Math.floor(resentAt));
    expect(sender.loss.found.isSpurious).toBe(false);
    expect(sender.loss.phase).toBe('recovery');
  });

  test('is undone when DSACKs answer every retransmission, also after it has ended', () => {
    const sender = Sender.measured();
    sender.send(8);
    sender.now += 100;
    sender.ack(0, [[2, 5]]);
    expect(sender.resend()).toEqual([0, 1]);
    sender.now += 10;
    sender.ack(8);
    expect(sender.loss.found.hasLeft).toBe(true);
    expect(sender.loss.found.isSpurious).toBe(false);
    sender.now += 90;
    sender.ack(8, [[0, 1]]);
    expect(sender.loss.found.sawDsack).toBe(true);
    expect(sender.loss.found.isSpurious).toBe(false);
    sender.ack(8, [[1, 2]]);
    expect(sender.loss.found.isSpurious).toBe(true);
    sender.ack(8, [[1, 2]]);
    expect(sender.loss.found.isSpurious).toBe(false);
  });

  test('is undone when all is acknowledged before anything was sent again', () => {
    const sender = Sender.measured();
    sender.send(5);
    sender.now += 100;
    sender.ack(0, [[1, 4]]);
    expect(sender.loss.found.hasEntered).toBe(true);
    sender.ack(5);
    expect(sender.loss.found.isSpurious).toBe(true);
  });

  test('a DSACK about what was never sent again says nothing', () => {
    const sender = Sender.measured();
    sender.send(5);
    sender.now += 100;
    sender.ack(5, [[1, 2]]);
    expect(sender.loss.found.sawDsack).toBe(false);
    expect(sender.loss.found.isSpurious).toBe(false);
  });
});

describe('tail loss probes', () => {
  test('come after two round-trip times, with the last segment, once', () => {
    const sender = Sender.measured();
    sender.send(3);
    expect(nextTimer(sender.loss)).toBe('probe');
    expect(sender.loss.deadline).toBe(sender.now + 200);
    expect(sender.expire()).toBe('probe');
    expect(sender.loss.probe.isDue).toBe(true);
    expect(sender.loss.probe.start).toBe(sender.seq(2));
    expect(sender.loss.probe.end).toBe(sender.seq(3));
    sender.loss.onTransmit(sender.seq(2), sender.seq(3), sender.now, true);
    expect(nextTimer(sender.loss)).toBe('timeout');
    expect(sender.loss.deadline).toBe(sender.now + sender.rtt.rtoMs);
    expect(sender.expire()).toBe('timeout');
  });

  test('wait for a delayed ACK if one segment is outstanding, but not beyond the timeout', () => {
    const sender = Sender.measured();
    sender.send(1);
    expect(sender.loss.deadline).toBe(sender.now + Math.min(400, sender.rtt.rtoMs));
    expect(nextTimer(sender.loss)).toBe('probe');
  });

  test('wait anew after each ACK that advances', () => {
    const sender = Sender.measured();
    sender.send(5);
    sender.now += 100;
    sender.ack(2);
    expect(nextTimer(sender.loss)).toBe('probe');
    expect(sender.loss.deadline).toBe(sender.now + 200);
  });

  test('need a new measurement of the round-trip time before the next', () => {
    const sender = Sender.measured();
    sender.send(3);
    sender.expire();
    sender.loss.onTransmit(sender.seq(2), sender.seq(3), sender.now, true);
    sender.now += 100;
    sender.ack(3);
    sender.ack(3);
    expect(sender.loss.found.rttMs).toBe(-1);
    sender.send(2);
    expect(nextTimer(sender.loss)).toBe('timeout');
    sender.now += 100;
    sender.ack(5);
    sender.send(2);
    expect(nextTimer(sender.loss)).toBe('probe');
  });

  test('are over when an ACK comes before they are sent', () => {
    const sender = Sender.measured();
    sender.send(3);
    sender.expire();
    sender.ack(1);
    expect(sender.loss.probe.isDue).toBe(false);
  });

  test('wait at least 10 ms', () => {
    const sender = new Sender();
    sender.rtt.sample(0.1, sender.now);
    sender.send(4);
    expect(sender.loss.deadline).toBe(sender.now + 10);
  });

  test('an ACK behind the probe shows that it repaired a loss', () => {
    const sender = Sender.measured();
    sender.send(3);
    sender.expire();
    sender.loss.onTransmit(sender.seq(2), sender.seq(3), sender.now, true);
    sender.now += 100;
    sender.ack(3);
    expect(sender.loss.found.hasRepairedTail).toBe(false);
    sender.send(2);
    sender.now += 100;
    sender.ack(5);
    expect(sender.loss.found.hasRepairedTail).toBe(true);
    expect(sender.loss.phase).toBe('open');
  });

  test.each([
    ['a DSACK', [[2, 3]] as [number, number][]],
    ['a bare duplicate ACK', [] as [number, number][]],
  ])('%s shows that nothing was lost', (_, sack) => {
    const sender = Sender.measured();
    sender.send(3);
    sender.expire();
    sender.loss.onTransmit(sender.seq(2), sender.seq(3), sender.now, true);
    sender.now += 100;
    sender.ack(3);
    sender.ack(3, sack);
    sender.send(2);
    sender.now += 100;
    sender.ack(5);
    expect(sender.loss.found.hasRepairedTail).toBe(false);
  });

  test('the SACK of a probe starts a fast recovery', () => {
    const sender = Sender.measured();
    sender.send(5);
    sender.expire();
    sender.loss.onTransmit(sender.seq(4), sender.seq(5), sender.now, true);
    sender.now += 100;
    sender.ack(1, [[4, 5]]);
    if (nextTimer(sender.loss) === 'reorder') sender.expire();
    expect(sender.loss.found.hasEntered).toBe(true);
    expect(sender.resend()).toEqual([1, 2, 3]);
  });

  test('there is no probe without SACK, in recovery, nor while something is selectively acknowledged', () => {
    const reno = Sender.measured(false);
    reno.send(3);
    expect(nextTimer(reno.loss)).toBe('timeout');
    const sender = Sender.measured();
    sender.send(5);
    sender.now += 100;
    sender.ack(0, [[1, 2]]);
    sender.expire();
    sender.resend();
    expect(nextTimer(sender.loss)).toBe('timeout');
  });
});

describe('the retransmission timer', () => {
  test('starts with the first packet, anew with each ACK that advances, and stops with the last', () => {
    const sender = new Sender(false);
    expect(nextTimer(sender.loss)).toBe('none');
    sender.send(2);
    expect(sender.loss.deadline).toBe(sender.now + 1_000);
    sender.now += 500;
    sender.send(1);
    expect(sender.loss.deadline).toBe(sender.now + 500);
    sender.ack(1);
    expect(sender.loss.deadline).toBe(sender.now + sender.rtt.rtoMs);
    sender.ack(3);
    expect(sender.loss.deadline).toBe(Number.POSITIVE_INFINITY);
  });

  test('backs off until something is measured that was sent once (Karn)', () => {
    const sender = new Sender(false);
    sender.send(1);
    for (const backoffs of [1, 2, 3]) {
      expect(sender.expire()).toBe('timeout');
      expect(sender.resend()).toEqual([0]);
      expect(sender.rtt.backoffs).toBe(backoffs);
    }
    sender.now += 20;
    sender.ack(1);
    expect(sender.loss.found.rttMs).toBe(-1);
    expect(sender.rtt.backoffs).toBe(3);
    sender.send(1);
    expect(sender.loss.deadline).toBe(sender.now + 8_000);
    sender.now += 20;
    sender.ack(2);
    expect(sender.loss.found.rttMs).toBe(20);
    expect(sender.rtt.backoffs).toBe(0);
  });

  test('does not run while the link is down, and is not backed off afterwards', () => {
    const sender = Sender.measured();
    sender.send(3);
    while (sender.expire() !== 'timeout')
      sender.loss.onTransmit(sender.loss.probe.start, sender.loss.probe.end, sender.now, true);
    sender.loss.suspend();
    expect(sender.loss.deadline).toBe(Number.POSITIVE_INFINITY);
    expect(sender.loss.expire(sender.now + 1e6)).toBe('none');
    sender.now += 60_000;
    sender.loss.resume(sender.now);
    expect(sender.rtt.backoffs).toBe(0);
    expect(sender.loss.deadline).toBe(sender.now + sender.rtt.rtoMs);
  });

  test('a call that comes too early does nothing', () => {
    const sender = Sender.measured();
    sender.send(3);
    expect(sender.loss.expire(sender.loss.deadline - 0.001)).toBe('none');
    expect(nextTimer(sender.loss)).toBe('probe');
  });
});

describe('NewReno', () => {
  test('the third duplicate ACK retransmits one segment, and each partial ACK the next', () => {
    const sender = Sender.measured(false);
    sender.send(10);
    sender.now += 100;
    sender.ack(0);
    sender.ack(0);
    expect(sender.loss.inFlight).toBe(8_000);
    sender.ack(0);
    expect(sender.loss.found.hasEntered).toBe(true);
    expect(sender.resend()).toEqual([0]);
    expect(sender.loss.inFlight).toBe(7_000);
    sender.now += 100;
    sender.ack(3);
    expect(sender.loss.found.newlyLost).toBe(1_000);
    expect(sender.resend()).toEqual([3]);
    sender.now += 100;
    sender.ack(10);
    expect(sender.loss.found.hasLeft).toBe(true);
    expect(sender.loss.inFlight).toBe(0);
  });

  test('what duplicate ACKs reported is not in flight, and does not count twice', () => {
    const sender = Sender.measured(false);
    sender.send(10);
    for (let i = 0; i < 6; i++) sender.ack(0);
    sender.resend();
    expect(sender.loss.inFlight).toBe(4_000);
    sender.ack(3);
    expect(sender.loss.found.delivered).toBe(1_000);
    // Of 7 segments one is lost, and four of the six reported ones are among the others.
    expect(sender.loss.inFlight).toBe(2_000);
  });

  test('segments with data or another window are no duplicates', () => {
    const sender = Sender.measured(false);
    sender.send(5);
    for (let i = 0; i < 5; i++) sender.ack(0, [], -1, false);
    expect(sender.loss.phase).toBe('open');
  });

  test('duplicates that a retransmission causes do not start another recovery', () => {
    const sender = Sender.measured(false);
    sender.send(5);
    expect(sender.expire()).toBe('timeout');
    sender.resend();
    sender.ack(5);
    expect(sender.loss.found.hasLeft).toBe(true);
    sender.send(4);
    for (let i = 0; i < 4; i++) sender.ack(5);
    expect(sender.loss.phase).toBe('open');
  });
});

describe('a packet that the device refuses', () => {
  test('is unsent if it was new', () => {
    const sender = Sender.measured();
    sender.send(2);
    const deadline = sender.loss.deadline;
    sender.now += 5;
    sender.send(1);
    sender.loss.onRefused();
    expect(sender.loss.inFlight).toBe(2_000);
    expect(sender.loss.outstanding).toBe(2_000);
    expect(sender.loss.deadline).toBe(deadline);
    // Only once.
    sender.loss.onRefused();
    expect(sender.loss.inFlight).toBe(2_000);
  });

  test('is nothing at all if it was the only one', () => {
    const sender = Sender.measured();
    sender.send(1);
    sender.loss.onRefused();
    expect(sender.loss.isEmpty).toBe(true);
    expect(sender.loss.deadline).toBe(Number.POSITIVE_INFINITY);
  });

  test('is lost as before if it was a retransmission, and does not count for Eifel', () => {
    const sender = Sender.measured();
    sender.send(5);
    sender.now += 100;
    sender.ack(0, [[1, 4]]);
    const before = sender.loss.inFlight;
    sender.loss.onTransmit(sender.seq(0), sender.seq(1), sender.now, true);
    sender.loss.onRefused();
    expect(sender.loss.inFlight).toBe(before);
    expect(sender.states).toBe('lsf');
    sender.ack(5);
    expect(sender.loss.found.isSpurious).toBe(true);
  });

  test('was not the first retransmission of the episode', () => {
    const sender = Sender.measured();
    sender.send(5);
    sender.now += 100;
    sender.ack(0, [[1, 4]]);
    sender.loss.onTransmit(sender.seq(0), sender.seq(1), sender.now, true);
    sender.loss.onRefused();
    sender.now += 50;
    sender.resend();
    sender.now += 30;
    sender.ack(4, [], sender.now - 50);
    expect(sender.loss.found.isSpurious).toBe(true);
  });

  test('is tried again by the probe timer if no ACK will come', () => {
    const sender = Sender.measured();
    sender.send(1);
    while (sender.expire() !== 'timeout')
      sender.loss.onTransmit(sender.seq(0), sender.seq(1), sender.now, true);
    sender.loss.onTransmit(sender.seq(0), sender.seq(1), sender.now, true);
    sender.loss.onRefused();
    expect(nextTimer(sender.loss)).toBe('probe');
    expect(sender.loss.deadline).toBe(sender.now + 200);
    expect(sender.expire()).toBe('lost');
    expect(sender.resend()).toEqual([0]);
  });
});

test('a smaller path MTU makes large packets lost, without a recovery', () => {
  const sender = Sender.measured();
  sender.send(8, 4);
  sender.send(1);
  sender.loss.markUnsent();
  expect(sender.states).toBe('llf');
  expect(sender.loss.phase).toBe('open');
  expect(sender.resend()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
});

test('what an ACK covers in part stays in flight', () => {
  const sender = Sender.measured();
  sender.send(64, 64);
  sender.now += 100;
  sender.ack(10);
  expect(sender.loss.found.acked).toBe(10_000);
  expect(sender.loss.inFlight).toBe(54_000);
  expect(sender.loss.found.rttMs).toBe(100);
});

test('a round ends when all is acknowledged that was sent before it began', () => {
  const sender = Sender.measured();
  sender.send(4);
  sender.ack(1);
  expect(sender.loss.found.roundEnded).toBe(true);
  sender.ack(3);
  expect(sender.loss.found.roundEnded).toBe(false);
  sender.send(2);
  sender.ack(4);
  expect(sender.loss.found.roundEnded).toBe(true);
});

test('any ACKs leave the sums as they are, and never more records than allowed', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed);
    const sender = Sender.measured(random.chance(0.8));
    const { loss } = sender;
    for (let step = 0; step < 300; step++) {
      sender.now += random.below(40);
      if (random.chance(0.3) && sender.nxt < 500) sender.send(random.between(1, 6));
      const lost = loss.firstLost;
      if (random.chance(0.2) && lost !== undefined) {
        loss.onTransmit(lost.start, lost.end, sender.now, true);
        if (random.chance(0.3)) loss.onRefused();
      }
      if (random.chance(0.1)) loss.expire(sender.now);
      const blocks = Int32Array.from({ length: 8 }, () =>
        random.chance(0.9)
          ? seqAdd(sender.seq(sender.una), random.between(-3_000, 40_000))
          : (random.next() * 2 ** 32) | 0
      );
      const ack = random.chance(0.8) ? sender.una : random.between(sender.una, sender.nxt);
      const una = sender.seq(sender.una);
      sender.una = ack;
      loss.onAck(
        sender.seq(ack),
        una,
        sender.seq(sender.nxt),
        blocks,
        random.below(6),
        random.chance(0.5) ? -1 : random.below(20_000),
        sender.now,
        random.chance(0.7)
      );
      const { records } = loss;
      let inFlight = 0;
      let at = records.start;
      let isContiguous = true;
      for (let i = 0; i < records.count; i++) {
        const record = records.at(i);
        if (record.start !== at) isContiguous = false;
        at = record.end;
        if (record.state === 0) inFlight += (record.end - record.start) | 0;
      }
      const isRight =
        isContiguous &&
        at === records.end &&
        records.inFlight === inFlight &&
        loss.inFlight >= 0 &&
        records.count <= 500 + 256;
      if (!isRight) throw new Error(`seed ${seed}, step ${step}`);
    }
  }
});

/** Which timer is due first. */
function nextTimer({ timers }: LossRecovery): 'none' | 'reorder' | 'probe' | 'timeout' {
  const { deadline } = timers;
  if (deadline === Number.POSITIVE_INFINITY) return 'none';
  if (deadline === timers.reorderAt) return 'reorder';
  return deadline === timers.probeAt || deadline === timers.retryAt ? 'probe' : 'timeout';
}
