/**
 * What the failures of TCP, and the errors of ICMP, are called in the socket API.
 * @module
 */
import type { IcmpErrorKind, TcpFailure } from '../../tcp/index.ts';

/** Returns the code of the system error for the end of a TCP connection. */
export function codeOfFailure(failure: TcpFailure | undefined): string {
  return failure === undefined ? 'ECONNRESET' : TCP_CODES[failure];
}

const TCP_CODES: Readonly<Record<TcpFailure, string>> = {
  refused: 'ECONNREFUSED',
  reset: 'ECONNRESET',
  aborted: 'ECONNRESET',
  evicted: 'ENOBUFS',
  'timed-out': 'ETIMEDOUT',
  'host-unreachable': 'EHOSTUNREACH',
  'network-unreachable': 'ENETUNREACH',
};

/** The code that a UDP socket or a `ping` gets for an ICMP error. */
export const ICMP_CODES: Readonly<
  Record<IcmpErrorKind, 'ECONNREFUSED' | 'EHOSTUNREACH' | 'ENETUNREACH' | 'EMSGSIZE'>
> = {
  'port-unreachable': 'ECONNREFUSED',
  'protocol-unreachable': 'ECONNREFUSED',
  'host-unreachable': 'EHOSTUNREACH',
  'network-unreachable': 'ENETUNREACH',
  prohibited: 'EHOSTUNREACH',
  'too-big': 'EMSGSIZE',
  'time-exceeded': 'EHOSTUNREACH',
};
