/**
 * Measures the round-trip time of a site's tunnel now, on each of its connections, a few times one after the other.
 * @module
 */
import * as v from 'valibot';
import type { Clock } from '../base/clock.ts';
import { parseSchema, type Schema, wholeNumber } from '../base/schema.ts';
import { EnvironmentError } from '../errors.ts';

export interface PingOptions {
  /** How many times, 1 to 100. Default 5. */
  readonly count?: number | undefined;
  /** The time from one to the next, in ms, 0 to 10,000. Default 200. */
  readonly intervalMs?: number | undefined;
  /** How long an answer may take, in ms, 1 to 10,000. Default 2,000. */
  readonly timeoutMs?: number | undefined;
  /** Ends the measurement; what was measured until then is the result. */
  readonly signal?: AbortSignal | undefined;
}

/** Round-trip times in ms; undefined if nothing was answered. */
export interface PingTimes {
  readonly sent: number;
  readonly received: number;
  readonly minMs: number | undefined;
  readonly avgMs: number | undefined;
  readonly maxMs: number | undefined;
}

export interface PingReport extends PingTimes {
  readonly site: string;
  /** The same by connection, in the order in which the tunnel has them. */
  readonly connections: readonly PingTimes[];
}

/**
 * @param measure measures once on each connection, in ms, `null` for one without an answer; undefined without a tunnel
 * @throws {ConfigError} if an option is wrong.
 * @throws {EnvironmentError} if there is no tunnel at the first time.
 */
export async function ping(
  site: string,
  measure: (timeoutMs: number) => Promise<readonly (number | null)[] | undefined>,
  options: PingOptions,
  clock: Clock
): Promise<PingReport> {
  const { signal, ...given } = options;
  const { count = 5, intervalMs = 200, timeoutMs = 2000 } = parseSchema(OptionsSchema, given);
  const all: (number | null)[][] = [];
  for (let i = 0; i < count; i++) {
    if (i > 0) await pause(clock, intervalMs, signal);
    if (isAborted(signal)) break;
    const times = await untilAborted(measure(timeoutMs), signal);
    if (times === ABORTED) break;
    if (times === undefined || times.length === 0) {
      if (i === 0) throw new EnvironmentError(`${site} has no tunnel`);
      // Each connection that was there has lost this one.
      for (const each of all) each.push(null);
      continue;
    }
    for (const [connection, time] of times.entries()) {
      all[connection] ??= [];
      all[connection].push(time);
    }
  }
  return { site, ...summaryOf(all.flat()), connections: all.map(summaryOf) };
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function summaryOf(times: readonly (number | null)[]): PingTimes {
  const answered = times.filter((time) => time !== null);
  const sum = answered.reduce((total, time) => total + time, 0);
  const isAny = answered.length > 0;
  return {
    sent: times.length,
    received: answered.length,
    minMs: isAny ? Math.min(...answered) : undefined,
    avgMs: isAny ? sum / answered.length : undefined,
    maxMs: isAny ? Math.max(...answered) : undefined,
  };
}

function pause(clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      cancel();
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.after(ms, done);
    signal?.addEventListener('abort', done);
  });
}

async function untilAborted<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined
): Promise<T | typeof ABORTED> {
  if (signal === undefined) return work;
  let onAbort = (): void => {};
  const aborted = new Promise<typeof ABORTED>((resolve) => {
    onAbort = () => resolve(ABORTED);
    signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

const ABORTED: unique symbol = Symbol('aborted');
const OptionsSchema: Schema<Omit<PingOptions, 'signal'>> = v.strictObject({
  count: v.optional(wholeNumber(1, 100)),
  intervalMs: v.optional(wholeNumber(0, 10_000)),
  timeoutMs: v.optional(wholeNumber(1, 10_000)),
}) as Schema<Omit<PingOptions, 'signal'>>;
