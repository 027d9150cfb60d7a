/**
 * Checks of options that both sides of a tunnel have. Each says what is wrong in one sentence, also to a caller that
 * has no types.
 * @module
 */
import { type Clock, systemClock } from '../base/clock.ts';
import { ApiMisuseError } from '../errors.ts';
import type { NotSentLowat } from './connection-types.ts';

/** What both sides of a tunnel may be told besides the limits of their connections. */
export interface TunnelOptions {
  /** Told to the peer, as text of 1 to 256 characters; default `virtual-presence`. */
  readonly software?: string;
  /** Size of the buffers in which packets are collected, in bytes; default 256 KiB. */
  readonly slabBytes?: number;
  /** Where there is one, the system's own queues are kept as short as the tunnel's. Default: none. */
  readonly limitUnsent?: NotSentLowat | undefined;
  /** By which everything waits, and certificates run out; default `systemClock`. */
  readonly clock?: Clock;
}

export const SHARED_DEFAULTS: Readonly<{
  software: string;
  slabBytes: number;
  connections: number;
  clock: Clock;
  handshakeTimeoutMs: number;
}> = Object.freeze({
  software: 'virtual-presence',
  slabBytes: 256 * 1024,
  connections: 8,
  clock: systemClock,
  handshakeTimeoutMs: 10_000,
});

/** @throws {ApiMisuseError} if the caller has passed no options at all. */
export function checkOptions(options: unknown): void {
  if (typeof options !== 'object' || options === null) {
    throw new ApiMisuseError(`the options must be an object, not ${show(options)}`);
  }
}

/** @throws {ApiMisuseError} if one of them is of another type than it must be. */
export function checkShared(options: TunnelOptions): void {
  const { software, clock, limitUnsent, slabBytes } = options;
  checkSoftware(software);
  checkFunction('limitUnsent', limitUnsent);
  if (slabBytes !== undefined && !Number.isSafeInteger(slabBytes)) {
    throw new ApiMisuseError(`slabBytes must be a whole number, not ${show(slabBytes)}`);
  }
  if (clock === undefined) return;
  for (const name of ['wallMs', 'monotonicMs', 'after'] as const) {
    if (typeof (clock as Partial<Clock> | null)?.[name] !== 'function') {
      throw new ApiMisuseError(`clock must be a Clock, but its ${name} is no function`);
    }
  }
}

/** @throws {ApiMisuseError} if it is there and is no function. */
export function checkFunction(name: string, value: unknown): void {
  if (value === undefined || typeof value === 'function') return;
  throw new ApiMisuseError(`${name} must be a function, not ${show(value)}`);
}

/** @throws {ApiMisuseError} if it is not a whole number within the bounds, both included. */
export function checkRange(name: string, value: number, first: number, last: number): number {
  if (Number.isInteger(value) && value >= first && value <= last) return value;
  throw new ApiMisuseError(
    `${name} must be a whole number from ${first} to ${last}, not ${show(value)}`
  );
}

/** Without what is undefined, which is as good as left out. */
export function given<T extends object>(options: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}

/** A value as a message quotes it: on one line, and not long. */
export function show(value: unknown): string {
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}...` : text;
}

/** The peer takes no HELLO or WELCOME with a longer one. */
function checkSoftware(software: unknown): void {
  if (software === undefined) return;
  if (typeof software === 'string' && software.length >= 1 && software.length <= 256) return;
  throw new ApiMisuseError(`software must be a text of 1 to 256 characters, not ${show(software)}`);
}

const MAX_SHOWN = 60;
