/**
 * The options of an endpoint, and its bounds.
 * @module
 */

import type { IpAddress } from '../base/address.ts';
import { checkWhole } from '../base/option-check.ts';

/** Bounds of an endpoint. */
export interface TcpLimits {
  readonly connections: number;
  readonly halfOpen: number;
  /** Half-open connections of one remote address. */
  readonly halfOpenPerClient: number;
  readonly timeWait: number;
  /** All buffers of all connections, besides 4 KiB each way for each. */
  readonly bufferBytes: number;
  /** The send buffer, and the receive buffer, of one connection. */
  readonly connectionBufferBytes: number;
  readonly resetsPerSecond: number;
}

export const TCP_LIMITS: TcpLimits = Object.freeze({
  connections: 16_384,
  halfOpen: 1_024,
  halfOpenPerClient: 128,
  timeWait: 16_384,
  bufferBytes: 64 * 1_024 * 1_024,
  connectionBufferBytes: 4 * 1_024 * 1_024,
  resetsPerSecond: 1_000,
});

export interface TcpEndpointOptions {
  /** Returns a monotonic time in ms. */
  readonly now: () => number;
  /** Returns random bytes that cannot be predicted. Default: those of `node:crypto`. */
  readonly random?: (length: number) => Uint8Array;
  /** The longest packet in bytes, from 1,280 to 65,515; default 65,515, so that IPv4 that becomes IPv6 still fits. */
  readonly mtu?: number;
  /** Whether frames may be super-segments with partial checksums; default true. */
  readonly offload?: boolean;
  /** Default for each that is absent: that of `TCP_LIMITS`. */
  readonly limits?: Partial<TcpLimits>;
  /**
   * Returns the longest packet in bytes that is known to reach a destination, 0 if nothing is known. New connections ask;
   * those that exist follow ICMP errors. Default: nothing is known.
   */
  readonly pathMtu?: (remote: IpAddress) => number;
}

/** @throws {ApiMisuseError} if one is not a whole number in its range. */
export function checkedLimits(limits: Partial<TcpLimits> = {}): TcpLimits {
  const all = { ...TCP_LIMITS, ...limits };
  for (const name of Object.keys(TCP_LIMITS) as (keyof TcpLimits)[]) {
    checkWhole(`limits.${name}`, all[name], 1, Number.MAX_SAFE_INTEGER);
  }
  return all;
}

/** @throws {ApiMisuseError} if it is not in its range. */
export function checkedMtu(mtu: number = DEFAULT_TCP_MTU): number {
  return checkWhole('mtu', mtu, LEAST_TCP_MTU, DEFAULT_TCP_MTU);
}

export const DEFAULT_TCP_MTU = 65_515;
const LEAST_TCP_MTU = 1_280;
