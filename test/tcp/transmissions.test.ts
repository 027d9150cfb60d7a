import { expect, test } from 'vitest';
import { seqAdd, seqDistance } from '../../src/tcp/sequence.ts';
import { IN_FLIGHT, LOST, SACKED } from '../../src/tcp/transmission.ts';
import { Transmissions } from '../../src/tcp/transmissions.ts';
import { Random } from '../support/random.ts';

const MSS = 10;

function sack(records: Transmissions, left: number, right: number): void {
  records.select(left, right);
  const { selectedFrom, selectedTo } = records;
  for (let i = selectedFrom; i < selectedTo; i++) {
    if (records.at(i).state !== SACKED) records.markSacked(records.at(i));
  }
  records.mergeSacked(selectedFrom, selectedTo);
}

/** One character a byte. */
function picture(records: Transmissions): string {
  let text = '';
  for (let i = 0; i < records.count; i++) {
    const record = records.at(i);
    text += 'fsl'[record.state]!.repeat(seqDistance(record.start, record.end));
  }
  return text;
}

test('the records say of each byte what a plain list of bytes says', () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = new Random(seed);
    const isn = random.pick([0x7fff_ff00, -300, 5]);
    const records = new Transmissions();
    records.start = isn;
    records.end = isn;
    let una = 0;
    let bytes: string[] = [];
    let now = 0;
    for (let step = 0; step < 200; step++) {
      if (random.chance(0.7)) now += random.below(3);
      const length = bytes.length;
      const at = (offset: number): number => seqAdd(isn, una + offset);
      const action = random.below(6);
      if ((action === 0 && length < 1_500) || length === 0) {
        const count = random.pick([MSS, MSS, 6 * MSS]);
        records.append(at(length + count), MSS, now);
        for (let i = 0; i < count; i++) bytes.push('f');
      } else if (action === 1) {
        // On boundaries of segments, so that edges need not move.
        const left = MSS * random.below(length / MSS);
        const right = left + MSS * random.between(1, (length - left) / MSS);
        sack(records, at(left), at(right));
        bytes.fill('s', left, right);
      } else if (action === 2) {
        const from = MSS * random.below(length / MSS);
        const to = from + MSS * random.between(1, Math.min(9, (length - from) / MSS));
        records.retransmit(at(from), at(to), MSS, now);
        for (let i = from; i < to; i++) if (bytes[i] === 'l') bytes[i] = 'f';
      } else if (action === 3) {
        const index = random.below(records.count);
        const record = records.at(index);
        if (record.state === IN_FLIGHT) {
          const from = seqDistance(at(0), record.start);
          bytes.fill('l', from, from + records.markLost(record));
        }
      } else if (action === 4 && random.chance(0.5)) {
        let count = MSS * random.below(length / MSS + 1);
        una += count;
        bytes = bytes.slice(count);
        for (; count > 0; ) {
          const first = records.at(0);
          const whole = seqDistance(first.start, first.end);
          if (whole <= count) records.removeFirst();
          else records.trimFirst(seqAdd(first.start, count));
          count -= Math.min(whole, count);
        }
      } else if (random.chance(0.1)) {
        if (random.chance(0.5)) {
          records.forgetSacked();
          bytes = bytes.map((byte) => (byte === 's' ? 'f' : byte));
        } else {
          records.forgetLost();
          bytes = bytes.map((byte) => (byte === 'l' ? 'f' : byte));
        }
      }
      const expected = bytes.join('');
      const lost = records.firstLost();
      const isRight =
        picture(records) === expected &&
        records.inFlight === expected.split('f').length - 1 &&
        records.lostBytes === expected.split('l').length - 1 &&
        records.sackedBytes === expected.split('s').length - 1 &&
        (lost === undefined ? -1 : seqDistance(seqAdd(isn, una), lost.start)) ===
          expected.indexOf('l');
      if (!isRight) throw new Error(`seed ${seed}, step ${step}`);
    }
    records.clear();
    expect(records.inFlight).toBe(0);
    expect(records.oldest).toBeUndefined();
  }
});

test('edges that are not on boundaries never mark more than the block says', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed);
    const records = new Transmissions();
    const told: string[] = [];
    for (let packet = 0; packet < 20; packet++) {
      const length = random.between(1, 95);
      records.append(seqAdd(records.end, length), MSS, packet);
      for (let i = 0; i < length; i++) told.push('f');
    }
    for (let i = 0; i < 60; i++) {
      const left = random.below(told.length);
      const right = random.between(left + 1, told.length);
      if (right - left > 200) continue;
      sack(records, left, right);
      told.fill('s', left, right);
      const text = picture(records);
      for (let at = 0; at < text.length; at++) {
        if (text[at] === 's' && told[at] !== 's') throw new Error(`seed ${seed}, byte ${at}`);
      }
    }
  }
});

test('a block inside one packet marks whole segments, and neighbours become one record', () => {
  const records = new Transmissions();
  records.append(100, MSS, 1);
  sack(records, 20, 40);
  expect(records.count).toBe(3);
  expect(records.sackedSegments).toBe(2);
  sack(records, 40, 60);
  expect(records.count).toBe(3);
  expect(records.at(1).start).toBe(20);
  expect(records.at(1).end).toBe(60);
  sack(records, 61, 69);
  expect(records.count).toBe(3);
  sack(records, 55, 100);
  expect(picture(records)).toBe('f'.repeat(20) + 's'.repeat(80));
  expect(records.sackedSegments).toBe(8);
});

test('records in flight are linked by time, then by sequence number', () => {
  const records = new Transmissions();
  for (let end = 10; end <= 50; end += 10) records.append(end, MSS, 7);
  records.markLost(records.at(1));
  records.markLost(records.at(3));
  records.retransmit(30, 40, MSS, 7);
  records.retransmit(10, 20, MSS, 8);
  const order: number[] = [];
  for (let record = records.oldest; record !== undefined; record = record.later) {
    order.push(record.start);
  }
  expect(order).toEqual([0, 20, 30, 40, 10]);
  expect(records.newest?.start).toBe(10);
  expect(records.lostBytes).toBe(0);
  expect(records.at(1).state).not.toBe(LOST);
});

test('SACK edges are at the boundaries of the segments that were sent, which options make shorter', () => {
  const records = new Transmissions();
  records.append(80, 8, 1);
  records.append(180, MSS, 1);
  sack(records, 16, 40);
  sack(records, 100, 120);
  expect(picture(records)).toBe(
    'f'.repeat(16) + 's'.repeat(24) + 'f'.repeat(60) + 's'.repeat(20) + 'f'.repeat(60)
  );
});
