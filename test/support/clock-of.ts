/**
 * The system's clock with another time of day, for tests in which timers go on as ever.
 * @module
 */
import { type Clock, systemClock } from '../../src/base/clock.ts';

/** @param monotonicMs by default that of the system */
export function clockOf(
  wallMs: () => number,
  monotonicMs: () => number = systemClock.monotonicMs
): Clock {
  return { ...systemClock, wallMs, monotonicMs };
}
