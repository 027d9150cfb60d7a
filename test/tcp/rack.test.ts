import { expect, test } from 'vitest';
import { Rack } from '../../src/tcp/rack.ts';
import { RttEstimator } from '../../src/tcp/rtt.ts';
import { Transmissions } from '../../src/tcp/transmissions.ts';

const COUNT = 1_000;

/** Counts how many records are looked at. */
class CountingRack extends Rack {
  looks = 0;

  override isSentBefore(...[record]: Parameters<Rack['isSentBefore']>): boolean {
    this.looks++;
    return super.isSentBefore(record);
  }
}

test('an ACK looks at no more records than are overdue and one, and one expiry finds the others', () => {
  const rtt = new RttEstimator();
  rtt.sample(100, 5_000);
  const records = new Transmissions();
  for (let i = 1; i <= COUNT; i++) records.append(i * 1_000, 1_000, 5_000 + i / 100);
  const rack = new CountingRack();
  const last = records.at(COUNT - 1);
  // The last one is delivered first: all others may be on the way still.
  const now = last.time + 100;
  rack.begin();
  rack.onDelivered(last, last.end, now, -1, rtt.minRttMs);
  records.markSacked(last);
  const lookAt = rack.detect(records, now, false, rtt);
  expect(rack.looks).toBeLessThanOrEqual(2);
  expect(records.lostBytes).toBe(0);
  expect(lookAt).toBeCloseTo(now + 25, 6);
  rack.detect(records, lookAt, false, rtt);
  expect(records.lostBytes).toBe((COUNT - 1) * 1_000);
});
