import { beforeEach, describe, expect, test, vi } from 'vitest';
import { DeadlineTimer } from '../../src/sockets/deadline-timer.ts';
import { turn } from '../device/conformance.ts';
import { FakeClock } from '../support/fake-clock.ts';

describe('the timer of a stack', () => {
  let clock: FakeClock;
  let timer: DeadlineTimer;
  /** When it has called, after the start. */
  let calls: number[];
  /** Up to when a deadline was due, in each call. */
  let due: number[];
  let startMs: number;

  beforeEach(() => {
    clock = new FakeClock();
    startMs = clock.monotonicMs();
    calls = [];
    due = [];
    timer = new DeadlineTimer(clock, (dueMs) => {
      calls.push(clock.monotonicMs() - startMs);
      due.push(dueMs - startMs);
    });
  });

  test('calls once, at the deadline or less than 1 ms behind it', async () => {
    timer.set(startMs + 10.25);
    expect(clock.delays).toEqual([11]);
    clock.advance(11);
    await turn();
    expect(calls).toEqual([11]);
    clock.advance(1000);
    await turn();
    expect(calls).toEqual([11]);
  });

  test('calls behind the next poll, not from the timer', async () => {
    timer.set(startMs + 10);
    clock.advance(10);
    expect(calls).toEqual([]);
    // Nothing else is set meanwhile, whatever the deadline is.
    timer.set(startMs + 20);
    expect(clock.delays).toEqual([]);
    await turn();
    expect(calls).toEqual([10]);
  });

  test('says up to when packets were read, also if the poll itself took long', async () => {
    timer.set(startMs + 10);
    clock.advance(10);
    clock.advance(300);
    await turn();
    expect([calls, due]).toEqual([[310], [10]]);
  });

  test.each([
    [15, 15],
    [300, 50],
  ])('is put off once, if it is %i ms late, by %i ms', async (late, putOff) => {
    timer.set(startMs + 10);
    clock.stall(10 + late);
    await turn();
    expect([calls, clock.delays]).toEqual([[], [putOff]]);
    // A second stall puts nothing off.
    clock.stall(1000);
    await turn();
    expect([calls, due]).toEqual([[late + 1010], [late + 1010]]);
    timer.set(startMs + late + 1030);
    clock.stall(20 + late);
    expect(clock.delays).toEqual([putOff]);
  });

  test('does not call if the deadline is gone when the poll is over', async () => {
    timer.set(startMs + 10);
    clock.advance(50);
    timer.set(Number.POSITIVE_INFINITY);
    await turn();
    expect(calls).toEqual([]);
  });

  test('clears no immediate: Node would call for ever if a listener throws in the same tick', async () => {
    const clear = vi.spyOn(globalThis, 'clearImmediate');
    timer.set(startMs + 10);
    clock.advance(50);
    timer.set(Number.POSITIVE_INFINITY);
    timer.set(startMs + 60);
    clock.advance(10);
    timer.close();
    await turn();
    expect(calls).toEqual([]);
    expect(clear).not.toHaveBeenCalled();
    clear.mockRestore();
  });

  test('stays as it is when the deadline moves away, and is set anew when it comes closer', () => {
    timer.set(startMs + 100);
    timer.set(startMs + 200);
    expect(clock.delays).toEqual([100]);
    timer.set(startMs + 50);
    expect(clock.delays).toEqual([50]);
  });

  test('is off while there is no deadline', () => {
    timer.set(startMs + 100);
    timer.set(Number.POSITIVE_INFINITY);
    expect(clock.delays).toEqual([]);
    timer.set(startMs + 300);
    expect(clock.delays).toEqual([300]);
  });

  test('waits 1 ms for a deadline that has passed, and the longest time for one far away', async () => {
    timer.set(startMs - 5);
    expect(clock.delays).toEqual([1]);
    clock.advance(1);
    await turn();
    timer.set(startMs + 1e12);
    expect(clock.delays).toEqual([2 ** 31 - 1]);
  });

  test('never calls after it was closed', async () => {
    timer.set(startMs + 10);
    clock.advance(10);
    timer.close();
    timer.set(startMs + 20);
    clock.advance(100);
    await turn();
    expect([calls, clock.delays]).toEqual([[], []]);
  });
});
