import { describe, expect, test } from 'vitest';
import { Congestion, MAX_WINDOW } from '../../src/tcp/congestion.ts';
import { Random } from '../support/random.ts';

const UNIT = 1_460;

/** A round trip at which the whole window is acknowledged by ACKs for two units each. */
function round(congestion: Congestion, now: number, rttMs: number, acked = 2 * UNIT): void {
  const window = congestion.cwnd;
  for (let left = window; left > 0; left -= acked) {
    const bytes = Math.min(left, acked);
    const at = now + rttMs * (1 - left / window);
    congestion.onAck(bytes, at, rttMs, rttMs, true, left <= acked);
  }
}

/** An episode of fast recovery after one loss, without the round trip that it takes. */
function recover(congestion: Congestion, now: number): void {
  congestion.enterRecovery(congestion.cwnd, now);
  congestion.onRecoveryAck(UNIT, congestion.cwnd - 2 * UNIT, false, UNIT);
  congestion.exitRecovery();
}

/** A window in congestion avoidance whose last loss was at `units`. */
function afterLossAt(units: number, now = 0): Congestion {
  const congestion = new Congestion(UNIT);
  congestion.onAck(10 * UNIT, now, -1, 100, true, false);
  congestion.cwnd = units * UNIT;
  recover(congestion, now);
  return congestion;
}

describe('slow start', () => {
  test('begins with ten units and doubles the window in a round trip', () => {
    const congestion = new Congestion(UNIT);
    expect(congestion.cwnd).toBe(10 * UNIT);
    for (let i = 1; i <= 5; i++) {
      round(congestion, 100 * i, 100);
      expect(congestion.cwnd).toBe(10 * UNIT * 2 ** i);
    }
  });

  test('counts all bytes of an ACK for a segment of 64 KiB, but no ACK more than doubles the window', () => {
    const congestion = new Congestion(UNIT);
    for (let i = 0; i < 5; i++) round(congestion, 100 * i, 100);
    const before = congestion.cwnd;
    congestion.onAck(65_475, 600, 100, 100, true, false);
    expect(congestion.cwnd).toBe(before + 65_475);
    congestion.onAck(4_000_000, 600, 100, 100, true, false);
    expect(congestion.cwnd).toBe(2 * (before + 65_475));
  });

  test('does not grow while the window is not used', () => {
    const congestion = new Congestion(UNIT);
    for (let i = 0; i < 100; i++) congestion.onAck(2 * UNIT, i, 10, 10, false, true);
    expect(congestion.cwnd).toBe(10 * UNIT);
  });

  test('ends where the delay has grown for five rounds', () => {
    const congestion = new Congestion(UNIT);
    for (let i = 0; i < 4; i++) round(congestion, 100 * i, 20);
    round(congestion, 500, 40);
    expect(congestion.isInSlowStart).toBe(true);
    const atDelay = congestion.cwnd;
    for (let i = 1; i < 5; i++) round(congestion, 500 + 100 * i, 40);
    expect(congestion.isInSlowStart).toBe(false);
    // The ACK that ends it is the first of congestion avoidance.
    expect(congestion.cwnd - congestion.ssthresh).toBeLessThan(10);
    expect(congestion.cwnd / atDelay).toBeGreaterThan(2);
    expect(congestion.cwnd / atDelay).toBeLessThan(2.6);
  });

  test('stops at ssthresh and counts the rest for congestion avoidance', () => {
    const congestion = new Congestion(UNIT);
    congestion.onTimeout(10 * UNIT, 0);
    expect(congestion.ssthresh).toBe(7 * UNIT);
    congestion.exitRecovery();
    let now = 0;
    while (congestion.isInSlowStart) {
      congestion.onAck(congestion.cwnd, now, 10, 10, true, true);
      now += 10;
    }
    expect(congestion.cwnd).toBeGreaterThanOrEqual(7 * UNIT);
    expect(congestion.cwnd).toBeLessThan(8 * UNIT);
  });

  test('the initial window is one unit after SYNs were lost', () => {
    const congestion = new Congestion(UNIT);
    congestion.onSynTimedOut();
    expect(congestion.cwnd).toBe(UNIT);
  });
});

describe('congestion avoidance', () => {
  test.each([
    [1_000, 100],
    [2_000, 50],
    [4_000, 30],
  ])('comes back to %d units after K, as RFC 9438 says, at %d ms', (units, rttMs) => {
    const congestion = afterLossAt(units);
    expect(Math.abs(congestion.cwnd - 0.7 * units * UNIT)).toBeLessThanOrEqual(1);
    const k = Math.cbrt((0.3 * units) / 0.4);
    let now = 0;
    let reno = 0.7 * units;
    let isRenoSlower = true;
    while (congestion.cwnd < 0.999 * units * UNIT && now < 2e5) {
      round(congestion, now, rttMs);
      now += rttMs;
      reno += (3 * 0.3) / 1.7;
      const t = now / 1_000;
      const cubic = 0.4 * (t - k) ** 3 + units;
      if (cubic < reno) isRenoSlower = false;
      // The window leads the curve by the round trip that it is planned for, and follows it by one.
      const slope = 1.2 * (t - k) ** 2 * (rttMs / 1_000);
      const window = congestion.cwnd / UNIT;
      expect(Math.abs(window - cubic), `at ${t} s`).toBeLessThan(2 * slope + 0.01 * units);
    }
    expect(isRenoSlower).toBe(true);
    // The curve is flat here, so the last 0.1 % take a seventh of K.
    const expected = k - Math.cbrt((0.001 * units) / 0.4);
    expect(Math.abs(now / 1_000 - expected)).toBeLessThan(0.05 * k + rttMs / 1_000);
  });

  test('stays near the maximum around K, then probes faster and faster', () => {
    const congestion = afterLossAt(1_000);
    const k = Math.cbrt(300 / 0.4);
    const at = new Map<number, number>();
    for (let now = 0; now < 2_000 * k; now += 100) {
      at.set(now, congestion.cwnd / UNIT);
      round(congestion, now, 100);
    }
    const near = (seconds: number): number => at.get(100 * Math.round(10 * seconds))!;
    expect(near(1.2 * k) - near(0.8 * k)).toBeLessThan(10);
    expect(near(1.9 * k) - near(1.6 * k)).toBeGreaterThan(100);
  });

  test('grows like a Reno flow with the same average on short paths', () => {
    const congestion = afterLossAt(100);
    const start = congestion.cwnd;
    const alpha = (3 * 0.3) / 1.7;
    for (let i = 0; i < 50; i++) round(congestion, i, 1);
    expect((congestion.cwnd - start) / UNIT).toBeCloseTo(50 * alpha, 0);
    // Above the former window it grows like Reno, one unit in a round trip.
    for (let i = 50; i < 70; i++) round(congestion, i, 1);
    const above = congestion.cwnd;
    for (let i = 70; i < 90; i++) round(congestion, i, 1);
    expect((congestion.cwnd - above) / UNIT).toBeCloseTo(20, 0);
  });

  test('grows the same by one ACK for 64 KiB as by many', () => {
    const many = afterLossAt(1_000);
    const few = afterLossAt(1_000);
    for (let now = 0; now < 5_000; now += 100) {
      round(many, now, 100);
      round(few, now, 100, 65_475);
    }
    expect(Math.abs(many.cwnd / few.cwnd - 1)).toBeLessThan(0.01);
  });

  test('does not lose growth of less than a byte for each ACK', () => {
    const congestion = afterLossAt(100);
    const start = congestion.cwnd;
    for (let i = 0; i < 100_000; i++) congestion.onAck(1, 0, -1, 0.001, true, false);
    // Reno's growth for 100,000 bytes.
    const expected = (((3 * 0.3) / 1.7) * UNIT * 100_000) / start;
    expect(Math.abs(congestion.cwnd - start - expected)).toBeLessThan(5);
  });

  test('sets the maximum lower if the window did not come back to the last one', () => {
    const congestion = afterLossAt(1_000);
    recover(congestion, 0);
    // The loss was at 700 units, so the aim is 700 * 0.85 = 595 and not 700: a plateau at K of (595 - 490) units.
    const k = Math.cbrt((595 - 490) / 0.4);
    for (let now = 0; now < 1_000 * k; now += 100) round(congestion, now, 100);
    expect(Math.abs(congestion.cwnd / UNIT - 595)).toBeLessThan(5);
  });

  test('does not count time in which the window was not used, nor idle time', () => {
    const busy = afterLossAt(1_000);
    const pausing = afterLossAt(1_000);
    const idling = afterLossAt(1_000);
    for (let now = 0; now < 3_000; now += 100) {
      round(busy, now, 100);
      round(pausing, now, 100);
      round(idling, now, 100);
    }
    for (let now = 3_000; now < 60_000; now += 100) {
      pausing.onAck(2 * UNIT, now, 100, 100, false, true);
    }
    // Idle for a minute, yet with a timeout that is longer: the window stays.
    idling.onIdle(57_000, 100_000);
    for (let now = 3_000; now < 6_000; now += 100) {
      round(busy, now, 100);
      round(pausing, now + 57_000, 100);
      round(idling, now + 57_000, 100);
    }
    expect(Math.abs(pausing.cwnd / busy.cwnd - 1)).toBeLessThan(0.01);
    expect(Math.abs(idling.cwnd / busy.cwnd - 1)).toBeLessThan(0.01);
  });
});

describe('recovery', () => {
  test('reduces the window to seven tenths, by PRR and then for good', () => {
    const congestion = afterLossAt(100);
    congestion.cwnd = 100 * UNIT;
    congestion.enterRecovery(100 * UNIT, 0);
    expect(congestion.ssthresh).toBe(70 * UNIT);
    congestion.onRecoveryAck(2 * UNIT, 96 * UNIT, false, 2 * UNIT);
    expect(congestion.cwnd).toBe(96 * UNIT + Math.ceil(1.4 * UNIT));
    congestion.onTransmit(UNIT);
    congestion.onRecoveryAck(2 * UNIT, 95 * UNIT, true, 0);
    expect(congestion.cwnd).toBe(95 * UNIT + Math.ceil(1.8 * UNIT));
    congestion.exitRecovery();
    expect(congestion.cwnd).toBe(70 * UNIT);
    expect(congestion.phase).toBe('open');
  });

  test('reduces once, however often a loss is reported during the episode', () => {
    const congestion = afterLossAt(100);
    congestion.cwnd = 100 * UNIT;
    for (let i = 0; i < 5; i++) congestion.enterRecovery(90 * UNIT, i);
    congestion.onTimeout(90 * UNIT, 5);
    congestion.onTimeout(90 * UNIT, 6);
    expect(congestion.ssthresh).toBe(70 * UNIT);
    expect(congestion.cwnd).toBe(UNIT);
  });

  test('allows one retransmission when a timer found the loss', () => {
    const congestion = afterLossAt(100);
    congestion.enterRecovery(70 * UNIT, 0);
    congestion.onRecoveryAck(0, 60 * UNIT, false, 10 * UNIT);
    expect(congestion.cwnd).toBe(61 * UNIT);
  });

  test('reduces from what was in flight if the window was not used', () => {
    const congestion = afterLossAt(1_000);
    congestion.onAck(2 * UNIT, 0, 10, 10, false, true);
    congestion.enterRecovery(20 * UNIT, 0);
    expect(congestion.ssthresh).toBe(14 * UNIT);
  });

  test('a timeout begins slow start from one unit, up to ssthresh', () => {
    const congestion = afterLossAt(100);
    congestion.onTimeout(70 * UNIT, 0);
    expect([congestion.cwnd, congestion.ssthresh]).toEqual([UNIT, 49 * UNIT]);
    for (let i = 0; i < 5; i++) round(congestion, 100 * i, 100);
    expect(congestion.cwnd).toBe(32 * UNIT);
    congestion.exitRecovery();
    expect(congestion.cwnd).toBe(32 * UNIT);
  });

  test('a local drop reduces the window like a loss', () => {
    const congestion = new Congestion(UNIT);
    for (let i = 0; i < 4; i++) round(congestion, 100 * i, 10);
    congestion.onLocalDrop(160 * UNIT);
    expect([congestion.cwnd, congestion.ssthresh]).toEqual([112 * UNIT, 112 * UNIT]);
    congestion.undo(500);
    expect(congestion.cwnd).toBe(112 * UNIT);
  });
});

describe('undo', () => {
  test('gives back the window after a spurious recovery, and the curve goes on', () => {
    const undone = afterLossAt(1_000);
    const plain = afterLossAt(1_000);
    for (let now = 0; now < 3_000; now += 100) {
      round(undone, now, 100);
      round(plain, now, 100);
    }
    undone.enterRecovery(undone.cwnd, 3_000);
    undone.onRecoveryAck(2 * UNIT, 500 * UNIT, false, UNIT);
    undone.undo(3_200);
    expect([undone.cwnd, undone.ssthresh, undone.phase]).toEqual([
      plain.cwnd,
      plain.ssthresh,
      'open',
    ]);
    for (let now = 3_000; now < 8_000; now += 100) {
      round(undone, now + 200, 100);
      round(plain, now, 100);
    }
    expect(Math.abs(undone.cwnd / plain.cwnd - 1)).toBeLessThan(0.01);
  });

  test('gives back slow start after a spurious timeout', () => {
    const congestion = new Congestion(UNIT);
    congestion.onTimeout(10 * UNIT, 0);
    congestion.onTimeout(10 * UNIT, 1_000);
    congestion.undo(1_100);
    expect([congestion.cwnd, congestion.ssthresh]).toEqual([10 * UNIT, Number.POSITIVE_INFINITY]);
    congestion.onAck(10 * UNIT, 1_200, 10, 10, true, true);
    expect(congestion.cwnd).toBe(20 * UNIT);
  });

  test('never makes the window smaller, and acts once', () => {
    const congestion = afterLossAt(10);
    for (let i = 0; i < 100; i++) round(congestion, 100 * i, 1);
    const grown = congestion.cwnd;
    congestion.undo(10_000);
    expect(congestion.cwnd).toBe(grown);
    congestion.undo(10_000);
    expect(congestion.cwnd).toBe(grown);
  });

  test('does nothing after idle time has reduced the window', () => {
    const congestion = afterLossAt(1_000);
    congestion.onIdle(10_000, 200);
    const { cwnd } = congestion;
    congestion.undo(20_000);
    expect(congestion.cwnd).toBe(cwnd);
  });
});

describe('idle time', () => {
  test('halves the window for each timeout, down to the initial window', () => {
    for (const [idle, expected] of [
      [200, 160],
      [201, 80],
      [401, 40],
      [601, 20],
      [801, 10],
      [1e9, 10],
    ] as const) {
      const congestion = new Congestion(UNIT);
      for (let i = 0; i < 4; i++) round(congestion, 100 * i, 10);
      congestion.onIdle(idle, 200);
      expect(congestion.cwnd, `${idle} ms`).toBe(expected * UNIT);
      expect(congestion.ssthresh).toBe(Number.POSITIVE_INFINITY);
    }
  });

  test('slow start then leads back to three quarters of the window', () => {
    const congestion = afterLossAt(100);
    for (let i = 0; i < 100; i++) round(congestion, i, 1);
    const before = congestion.cwnd;
    congestion.onIdle(1e6, 200);
    expect(congestion.cwnd).toBe(10 * UNIT);
    expect(congestion.ssthresh).toBe(Math.floor(0.75 * before));
  });

  test('does not enlarge a window that is below the initial one', () => {
    const congestion = new Congestion(UNIT);
    congestion.onTimeout(10 * UNIT, 0);
    congestion.exitRecovery();
    congestion.onIdle(1e6, 200);
    expect(congestion.cwnd).toBe(UNIT);
  });
});

describe('the unit', () => {
  test('may change: the window stays in bytes, but is at least a unit', () => {
    const congestion = new Congestion(500);
    congestion.onTimeout(5_000, 0);
    expect(congestion.cwnd).toBe(500);
    congestion.unit = UNIT;
    expect([congestion.unit, congestion.cwnd]).toEqual([UNIT, UNIT]);
    const large = afterLossAt(100);
    large.unit = 536;
    expect(large.cwnd).toBe(70 * UNIT);
  });
});

test('for any events the window is between a unit and its maximum, and no ACK makes it smaller (seeds 1 to 200)', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = new Random(seed);
    const congestion = new Congestion(random.pick([48, 536, 1_200, 1_460]));
    let now = random.next() * 1e6;
    for (let i = 0; i < 300; i++) {
      now += random.next() * 10 ** random.between(-2, 4);
      const before = congestion.cwnd;
      const flight = random.between(0, random.pick([congestion.cwnd, 10_000, 5_000_000]));
      const bytes = random.between(0, random.pick([3_000, 65_475, 5_000_000]));
      const rtt = random.chance(0.3) ? -1 : random.next() * 10 ** random.between(-3, 4);
      const event = random.below(14);
      const check = (holds: boolean): void => {
        if (!holds) throw new Error(`seed ${seed}, step ${i}, event ${event}: ${congestion.cwnd}`);
      };
      if (event < 6) {
        const wasRecovering = congestion.phase === 'recovery';
        const srtt = Math.max(0.001, rtt);
        congestion.onAck(bytes, now, rtt, srtt, random.chance(0.8), random.chance(0.3));
        check(congestion.cwnd >= before);
        check(congestion.cwnd <= 2 * before + congestion.unit);
        if (wasRecovering) check(congestion.cwnd === before);
      } else if (event === 6) {
        congestion.enterRecovery(flight, now);
      } else if (event === 7) {
        const newlyLost = random.pick([0, 0, 1_460, 64_000]);
        congestion.onRecoveryAck(bytes, flight, random.chance(0.5), newlyLost);
      } else if (event === 8) {
        congestion.onTransmit(random.chance(0.2) ? -bytes : bytes);
      } else if (event === 9) {
        congestion.exitRecovery();
      } else if (event === 10) {
        if (random.chance(0.3)) congestion.onTimeout(flight, now);
        else congestion.unit = random.pick([48, 536, 1_200, 1_460]);
      } else if (event === 11) {
        congestion.onLocalDrop(flight);
      } else if (event === 12) {
        congestion.undo(now);
        check(congestion.cwnd >= before);
      } else {
        congestion.onIdle(random.next() * 1e4, random.pick([0, 200, 1_000, 120_000]));
        check(congestion.cwnd <= before);
      }
      check(Number.isInteger(congestion.cwnd));
      check(congestion.cwnd >= congestion.unit);
      check(congestion.cwnd <= MAX_WINDOW);
      check(congestion.ssthresh > 0);
    }
  }
});
