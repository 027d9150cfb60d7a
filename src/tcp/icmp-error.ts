/**
 * What an ICMP error about a segment does to its connection
 * ([RFC 1122 section 4.2.3.9](https://www.rfc-editor.org/rfc/rfc1122#page-103),
 * [RFC 5461](https://www.rfc-editor.org/rfc/rfc5461)): it ends an attempt to connect, and is only remembered later.
 * Anybody may send one, so it counts only if the sequence number that it quotes is outstanding
 * ([RFC 5927](https://www.rfc-editor.org/rfc/rfc5927#section-4)).
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { ControlBlock } from './control-block.ts';
import { seqAtMost, seqBefore } from './sequence.ts';
import { type TcpFailure, TcpState } from './state.ts';

export type IcmpErrorKind =
  | 'port-unreachable'
  | 'protocol-unreachable'
  | 'host-unreachable'
  | 'network-unreachable'
  | 'prohibited'
  | 'time-exceeded'
  | 'too-big';

/** An ICMP error that quotes a TCP segment which this endpoint has sent. */
export interface IcmpError {
  readonly kind: IcmpErrorKind;
  readonly local: IpAddress;
  readonly localPort: number;
  readonly remote: IpAddress;
  readonly remotePort: number;
  /** The sequence number of the quoted segment. */
  readonly sequence: number;
  /** The MTU of the next hop in bytes. Valid iff `kind` is `too-big`. */
  readonly mtu: number;
}

export function onIcmpError(block: ControlBlock, error: IcmpError): boolean {
  const { sequence, kind } = error;
  const isOutstanding = seqAtMost(block.sndUna, sequence) && seqBefore(sequence, block.sndNxt);
  // RFC 8201 section 4: a report below the minimum of IPv6 must be discarded.
  const isTooSmall = kind === 'too-big' && block.flow.family === 6 && error.mtu < LEAST_MTU[6];
  if (!isOutstanding || isTooSmall) {
    block.host.counters.dropIcmp++;
    return false;
  }
  if (kind === 'too-big') {
    lowerMtu(block, error.mtu);
    return true;
  }
  const failure = FAILURES[kind];
  if (failure === undefined) return true;
  if (block.state === TcpState.SynSent || block.state === TcpState.SynReceived) block.end(failure);
  else block.softFailure = failure;
  return true;
}

/** Returns the path MTU that follows from a report: an attacker must not make us send tiny segments. */
export function usableMtu(family: 4 | 6, reported: number): number {
  return Math.max(reported, LEAST_MTU[family]);
}

/**
 * Follows the path's MTU down (RFC 1191, RFC 8201). What is outstanding is sent again in smaller segments, and that is no
 * sign of congestion.
 */
function lowerMtu(block: ControlBlock, mtu: number): void {
  const { mss } = block;
  block.pathMtu = Math.min(block.pathMtu, usableMtu(block.flow.family, mtu));
  if (block.mss === mss) return;
  block.adaptUnit();
  block.loss.markUnsent();
  block.host.update(block);
}

const FAILURES: Readonly<Partial<Record<IcmpErrorKind, TcpFailure>>> = {
  'port-unreachable': 'refused',
  'protocol-unreachable': 'refused',
  'host-unreachable': 'host-unreachable',
  'network-unreachable': 'network-unreachable',
  prohibited: 'host-unreachable',
};

/** As Linux's `min_pmtu`: IPv4 networks with less are not in use. IPv6 has a minimum (RFC 8200 section 5). */
export const LEAST_MTU: Readonly<Record<4 | 6, number>> = { 4: 552, 6: 1_280 };
