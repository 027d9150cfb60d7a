/**
 * Policies: what may pass on a path, as a list of rules. A rule is a protocol, a side (request or reply) and a range
 * of ports. Equal lists of rules are one policy, whatever permits they come from, and a policy exists as long as
 * somebody holds it. To find a policy allocates nothing, because a refused packet has no path and looks it up each time.
 * @module
 */

import type { PortRange } from '../base/port-range.ts';
import { KIND_ECHO, PacketKind } from '../packet/fields.ts';
import { IntTable } from './int-table.ts';
import { REPLY, REQUEST, SIDE_BITS, SIDE_WIDTH } from './layout.ts';

/** The policy that lets no packet pass. */
export const NOTHING = 0;

/**
 * The policies of a plan. Each is another policy with one more rule:
 *
 * ```
 *  other policy | protocol and side | first and last port | holders
 * ```
 *
 * A policy is the index of its record in `words`. The holders are counted: routes, callers, and longer policies.
 */
export class PolicyTable extends IntTable {
  constructor() {
    super(3, 1, MAX_RECORDS);
    // The record of `NOTHING`. No policy has its key, because every rule has a side.
    this.insert();
  }

  /**
   * Returns the policy that allows what `policy` and the ports allow. On the side `REQUEST` the source is the
   * client of the permit with these ports, on the side `REPLY` the destination is. What is added last is asked first,
   * so replies are added before requests, and the ports from the last to the first. The caller has to hold the result before it extends or drops another policy.
   */
  extend(policy: number, ports: readonly PortRange[], side: number): number {
    for (let i = ports.length - 1; i >= 0; i--) {
      const { protocol, first, last } = ports[i]!;
      const rule = (PROTOCOL_KIND[protocol] << SIDE_WIDTH) | side;
      policy = this.#withRule(policy, rule, (first << 16) | last);
    }
    return policy;
  }

  /** Keeps a policy until `drop` has been called as often as `hold`. */
  hold(policy: number): void {
    if (policy !== NOTHING) this.words[policy + RULE_HOLDERS]!++;
  }

  drop(policy: number): void {
    while (policy !== NOTHING && --this.words[policy + RULE_HOLDERS]! === 0) {
      const shorter = this.words[policy]!;
      this.release(policy / this.stride);
      policy = shorter;
    }
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
    const { words } = this;
    const protocol = kind >= KIND_ECHO ? KIND_ECHO : kind;
    for (let at = policy; at !== NOTHING; at = words[at]!) {
      const rule = words[at + RULE]!;
      const side = rule & SIDE_BITS;
      if (rule >>> SIDE_WIDTH !== protocol || (side & sides) === 0) continue;
      const port = side === REQUEST ? destinationPort : sourcePort;
      const range = words[at + RULE_PORTS]!;
      if (port >= range >>> 16 && port <= (range & 0xffff)) return side;
    }
    return 0;
  }

  /** Returns whether the policy allows any requests: they are added last. */
  hasRequests(policy: number): boolean {
    return (this.words[policy + RULE]! & SIDE_BITS) === REQUEST;
  }

  #withRule(policy: number, rule: number, ports: number): number {
    this.key[0] = policy;
    this.key[RULE] = rule;
    this.key[RULE_PORTS] = ports;
    let record = this.find();
    if (record < 0) {
      record = this.insert();
      this.hold(policy);
    }
    return record * this.stride;
  }
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

/** Offsets in the record of a policy. */
const RULE = 1;
const RULE_PORTS = 2;
const RULE_HOLDERS = 3;
/** The routes bound the number of policies; this limit only keeps an index a small integer. */
const MAX_RECORDS = 2 ** 26;
/** An echo reply is looked up as an echo request; the side distinguishes them. */
const PROTOCOL_KIND = {
  tcp: PacketKind.Tcp,
  udp: PacketKind.Udp,
  udplite: PacketKind.UdpLite,
  sctp: PacketKind.Sctp,
  icmp: PacketKind.EchoRequest,
  ip: PacketKind.Other,
} as const;
