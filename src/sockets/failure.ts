/**
 * What the end of a TCP connection is called in the socket API.
 * @module
 */
import type { TcpFailure } from '../tcp/index.ts';

/** Returns the code of the system error. */
export function codeOfFailure(failure: TcpFailure | undefined): string {
  return failure === undefined ? 'ECONNRESET' : CODES[failure];
}

const CODES: Readonly<Record<TcpFailure, string>> = {
  refused: 'ECONNREFUSED',
  reset: 'ECONNRESET',
  aborted: 'ECONNRESET',
  evicted: 'ENOBUFS',
  'timed-out': 'ETIMEDOUT',
  'host-unreachable': 'EHOSTUNREACH',
  'network-unreachable': 'ENETUNREACH',
};
