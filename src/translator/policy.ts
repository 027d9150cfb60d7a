/**
 * Policies: what may pass on a path, as a list of rules in words. A rule is a protocol, a side (request or
 * reply) and a range of ports. Paths with the same permits share one policy. To find a policy allocates
 * nothing, because a refused packet has no path and looks it up each time.
 * @module
 */

import type { PortRange } from '../base/port-range.ts';
import { KIND_ECHO, PacketKind } from '../packet/fields.ts';
import { IntTable } from './int-table.ts';
import { REPLY, REQUEST, SIDE_BITS, SIDE_WIDTH } from './layout.ts';
import type { Permit } from './plan.ts';

/** The policy that lets no packet pass. */
export const NOTHING = 0;

/** The policies of a plan, one after the other in an array. A policy is the index of its first rule. */
export class PolicyTable {
  /** Pairs of (protocol and side, first and last port). A policy ends with a 0. */
  #rules = new Int32Array(64);
  /** The first word is a 0: the policy `NOTHING`. */
  #length = 1;
  /** Key: (policy, permit and side). Value: the policy extended by that permit on that side. */
  readonly #extended = new IntTable(2, 1, MAX_POLICIES);

  /**
   * Returns the policy that allows what `policy` and the permit allow. On the side `REQUEST` the source is
   * the permit's client, on the side `REPLY` the destination is.
   */
  extend(policy: number, { number, permit }: NumberedPermit, side: number): number {
    const table = this.#extended;
    table.key[0] = policy;
    table.key[1] = (number << SIDE_WIDTH) | side;
    let record = table.find();
    if (record < 0) {
      record = table.insert();
      table.words[record * table.stride + table.keyWords] = this.#length;
      for (let i = policy; this.#rules[i] !== 0; i += 2) {
        this.#push(this.#rules[i]!);
        this.#push(this.#rules[i + 1]!);
      }
      this.#append(permit.ports, side);
      this.#push(0);
    }
    return table.words[record * table.stride + table.keyWords]!;
  }

  /**
   * Returns the side, one of `sides`, on which a packet of `kind` passes; a request has precedence. Returns 0
   * if it does not pass. For an echo both ports are 0, for a protocol without ports its number.
   */
  sideOf(
    policy: number,
    kind: PacketKind,
    sides: number,
    sourcePort: number,
    destinationPort: number
  ): number {
    const rules = this.#rules;
    const protocol = kind >= KIND_ECHO ? KIND_ECHO : kind;
    for (let i = policy; rules[i] !== 0; i += 2) {
      const side = rules[i]! & SIDE_BITS;
      if (rules[i]! >>> SIDE_WIDTH !== protocol || (side & sides) === 0) continue;
      const port = side === REQUEST ? destinationPort : sourcePort;
      const range = rules[i + 1]!;
      if (port >= range >>> 16 && port <= (range & 0xffff)) return side;
    }
    return 0;
  }

  /** Returns whether the policy allows any requests. */
  hasRequests(policy: number): boolean {
    const rules = this.#rules;
    for (let i = policy; rules[i] !== 0; i += 2) {
      if ((rules[i]! & SIDE_BITS) === REQUEST) return true;
    }
    return false;
  }

  #append(ports: readonly PortRange[], side: number): void {
    for (const { protocol, first, last } of ports) {
      this.#push((PROTOCOL_KIND[protocol] << SIDE_WIDTH) | side);
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
  readonly permit: Permit;
}

/** Returns the sides that a packet may be on. A packet that opens a session is never a reply. */
export function sidesOf(kind: PacketKind, opensSession: boolean): number {
  if (kind === PacketKind.EchoRequest || opensSession) return REQUEST;
  return kind === PacketKind.EchoReply ? REPLY : REQUEST | REPLY;
}

/** Returns whether a reply of this kind needs a recent request. TCP and SCTP do not: their flags are enough. */
export function needsSession(kind: PacketKind): boolean {
  return kind !== PacketKind.Tcp && kind !== PacketKind.Sctp;
}

/** The host bounds its plans; this limit only keeps a record number a small integer. */
const MAX_POLICIES = 2 ** 26;
/** An echo reply is looked up as an echo request; the side distinguishes them. */
const PROTOCOL_KIND = {
  tcp: PacketKind.Tcp,
  udp: PacketKind.Udp,
  udplite: PacketKind.UdpLite,
  sctp: PacketKind.Sctp,
  icmp: PacketKind.EchoRequest,
  ip: PacketKind.Other,
} as const;
