import { describe, expect, test } from 'vitest';
import { Prr } from '../../src/tcp/prr.ts';
import { Random } from '../support/random.ts';

const UNIT = 1_000;

describe('Prr', () => {
  test('allows the first retransmission although nothing else may be sent', () => {
    const prr = new Prr();
    prr.begin(100 * UNIT, 70 * UNIT, true);
    expect(prr.onAck(0, 99 * UNIT, false, UNIT)).toBe(UNIT);
    prr.onTransmit(UNIT);
    expect(prr.onAck(0, 100 * UNIT, false, UNIT)).toBe(-1);
    expect(prr.onAck(UNIT, 99 * UNIT, false, UNIT)).toBe(0);
  });

  test('sends in proportion to what was delivered while more than ssthresh is in flight', () => {
    const prr = new Prr();
    prr.begin(100 * UNIT, 70 * UNIT, true);
    expect(prr.onAck(10 * UNIT, 89 * UNIT, false, UNIT)).toBe(7 * UNIT);
    prr.onTransmit(7 * UNIT);
    expect(prr.onAck(UNIT, 95 * UNIT, true, UNIT)).toBe(700);
    expect(prr.onAck(UNIT, 94 * UNIT, true, UNIT)).toBe(1_400);
  });

  test('sends what was delivered while less is in flight, and one unit more if all goes well', () => {
    const prr = new Prr();
    prr.begin(100 * UNIT, 70 * UNIT, true);
    expect(prr.onAck(3 * UNIT, 20 * UNIT, false, UNIT)).toBe(3 * UNIT);
    prr.onTransmit(3 * UNIT);
    expect(prr.onAck(2 * UNIT, 21 * UNIT, true, UNIT)).toBe(3 * UNIT);
    prr.onTransmit(3 * UNIT);
    expect(prr.onAck(2 * UNIT, 69_500, true, UNIT)).toBe(500);
    expect(prr.onAck(2 * UNIT, 70 * UNIT, true, UNIT)).toBe(0);
  });

  test('a packet that the device refused may be sent again', () => {
    const prr = new Prr();
    prr.begin(100 * UNIT, 70 * UNIT, true);
    prr.onAck(10 * UNIT, 90 * UNIT, false, UNIT);
    prr.onTransmit(7 * UNIT);
    prr.onTransmit(-7 * UNIT);
    expect(prr.onAck(UNIT, 89 * UNIT, false, UNIT)).toBe(7_700);
  });

  test('without SACK duplicate ACKs without end do not deliver more than was in flight', () => {
    const prr = new Prr();
    prr.begin(10 * UNIT, 7 * UNIT, false);
    let sent = 0;
    for (let i = 0; i < 1_000; i++) {
      const allowed = Math.max(0, prr.onAck(UNIT, 0, false, UNIT));
      prr.onTransmit(allowed);
      sent += allowed;
    }
    expect(sent).toBeLessThanOrEqual(10 * UNIT);
  });

  test('never allows more than RFC 9937 does (seeds 1 to 300)', () => {
    for (let seed = 1; seed <= 300; seed++) {
      const random = new Random(seed);
      const flight = random.between(1, 400) * UNIT;
      const ssthresh = Math.max(2 * UNIT, Math.floor(flight * random.next()));
      const prr = new Prr();
      prr.begin(flight, ssthresh, true);
      let delivered = 0;
      let out = 0;
      for (let i = 0; i < 50; i++) {
        const newly = random.chance(0.1) ? 0 : random.between(1, 64 * UNIT);
        const inFlight = random.between(0, flight);
        const isSafe = random.chance(0.5);
        const allowed = prr.onAck(newly, inFlight, isSafe, UNIT);
        delivered += newly;
        const context = `seed ${seed}, step ${i}`;
        if (newly === 0) {
          expect(allowed, context).toBe(out === 0 ? UNIT : -1);
        } else {
          // The two bounds of the RFC, as sums and not step by step.
          const proportional = Math.ceil((delivered * ssthresh) / flight) - out;
          const bound = Math.max(delivered - out, newly) + (isSafe ? UNIT : 0);
          const limit = inFlight > ssthresh ? proportional : Math.min(bound, ssthresh - inFlight);
          expect(allowed, context).toBeLessThanOrEqual(Math.max(limit, out === 0 ? UNIT : 0));
          expect(allowed, context).toBeGreaterThanOrEqual(0);
        }
        const sent = Math.floor(Math.max(0, allowed) * random.next());
        prr.onTransmit(sent);
        out += sent;
      }
    }
  });

  test.each([
    ['one loss', 1],
    ['a tenth', 0.1],
    ['a third, so that less than ssthresh is left in flight', 0.35],
    ['nine tenths', 0.9],
  ])('ends with ssthresh in flight: %s', (_, loss) => {
    // One packet is one unit; ACKs come in the order of sending, each for two units.
    const flight = 200;
    const ssthresh = 140;
    const lost = loss === 1 ? 1 : Math.floor(flight * loss);
    const prr = new Prr();
    prr.begin(flight * UNIT, ssthresh * UNIT, true);
    const arriving: number[] = [];
    for (let i = 0; i < flight - lost; i++) arriving.push(i);
    let inFlight = flight - lost;
    let rounds = 0;
    for (let acked = 0; acked < flight; ) {
      const packets = Math.min(2, arriving.length);
      arriving.splice(0, packets);
      inFlight -= packets;
      acked += packets;
      const allowed = prr.onAck(packets * UNIT, inFlight * UNIT, rounds > 0, UNIT);
      const sent = Math.floor(Math.max(0, allowed) / UNIT);
      prr.onTransmit(sent * UNIT);
      inFlight += sent;
      for (let i = 0; i < sent; i++) arriving.push(0);
      if (acked >= flight - lost) rounds = 1;
    }
    expect(inFlight).toBeGreaterThanOrEqual(loss === 0.9 ? 35 : 0.95 * ssthresh);
    expect(inFlight).toBeLessThanOrEqual(ssthresh + 1);
  });
});
