/**
 * What may pass on a path, compiled to words: a list of rules, each a protocol, a side and a range of
 * ports. Paths with the same permits share one list.
 * @module
 */
import { PacketKind } from '../packet/header.ts';
import type { PortRange } from '../port-range.ts';
import type { CompiledPermit } from './plan.ts';

/** Which of the two things a packet may be; or-ed when it may be either. */
export const REQUEST = 1;
export const REPLY = 2;

/** All policies of one plan, one behind the other in one array; a policy is its first index. */
export class PolicyTable {
  /** Pairs of (protocol and side, first port and last port); a list ends with a 0. */
  #rules = new Int32Array(64);
  #length = 0;
  readonly #byPermits = new Map<string, number>();

  /**
   * Returns the policy for `requests`, the permits of the source as a client of the destination, and
   * `replies`, those of the destination as a client of the source. Each permit comes with its number.
   */
  intern(requests: readonly NumberedPermit[], replies: readonly NumberedPermit[]): number {
    const name = `${requests.map(numberOf).join()};${replies.map(numberOf).join()}`;
    let policy = this.#byPermits.get(name);
    if (policy === undefined) {
      policy = this.#length;
      for (const { permit } of requests) this.#append(permit.ports, REQUEST);
      for (const { permit } of replies) this.#append(permit.ports, REPLY);
      this.#push(0);
      this.#byPermits.set(name, policy);
    }
    return policy;
  }

  /**
   * Whether a packet of `kind` passes as one of `sides`. For an echo both ports are 0.
   */
  allows(
    policy: number,
    kind: PacketKind,
    sides: number,
    sourcePort: number,
    destinationPort: number
  ): boolean {
    const rules = this.#rules;
    const protocol = kind >= PacketKind.EchoRequest ? PacketKind.EchoRequest : kind;
    for (let i = policy; rules[i] !== 0; i += 2) {
      const side = rules[i]! & SIDE_BITS;
      if (rules[i]! >>> PROTOCOL_SHIFT !== protocol || (side & sides) === 0) continue;
      const port = side === REQUEST ? destinationPort : sourcePort;
      const range = rules[i + 1]!;
      if (port >= range >>> 16 && port <= (range & 0xffff)) return true;
    }
    return false;
  }

  #append(ports: readonly PortRange[], side: number): void {
    for (const { protocol, first, last } of ports) {
      this.#push((PROTOCOL_KIND[protocol] << PROTOCOL_SHIFT) | side);
      this.#push((first << 16) | last);
    }
  }

  #push(word: number): void {
    if (this.#length === this.#rules.length) {
      const larger = new Int32Array(this.#rules.length * 2);
      larger.set(this.#rules);
      this.#rules = larger;
    }
    this.#rules[this.#length++] = word;
  }
}

export interface NumberedPermit {
  readonly number: number;
  readonly permit: CompiledPermit;
}

/** The sides a packet may be on by itself; a SYN opens a session, so it is never a reply. */
export function sidesOf(kind: PacketKind, isPureSyn: boolean): number {
  if (kind === PacketKind.EchoRequest || isPureSyn) return REQUEST;
  return kind === PacketKind.EchoReply ? REPLY : REQUEST | REPLY;
}

function numberOf(numbered: NumberedPermit): number {
  return numbered.number;
}

const SIDE_BITS = 3;
const PROTOCOL_SHIFT = 2;
/** Both echoes are looked up as the request: the side tells them apart. */
const PROTOCOL_KIND = {
  tcp: PacketKind.Tcp,
  udp: PacketKind.Udp,
  icmp: PacketKind.EchoRequest,
} as const;
