/**
 * Policies: what may pass on a path, as a list of rules. A rule is a protocol, a side (request or reply) and a range
 * of ports. Equal lists of rules are one policy, whatever permits they come from, and a policy exists as long as
 * somebody holds it. To find a policy allocates nothing, because a refused packet has no path and looks it up each time.
 * @module
 */

import type { PortRange } from '../base/port-range.ts';
import { KIND_ECHO, PacketKind } from '../packet/fields.ts';
import { IntTable } from './int-table.ts';
import {
  NOTHING,
  REPLY,
  REQUEST,
  RULE_HOLDERS,
  RULE_WORDS,
  RULES,
  RULES_OF_RECORD,
  SIDE_BITS,
  SIDE_WIDTH,
} from './layout.ts';

/**
 * The policies of a plan. Each is another policy with one to three more rules, which are asked first:
 *
 * ```
 *  other policy | 3 times: protocol and side, first and last port; or zeros | holders
 * ```
 *
 * A policy is the index of its record in `words`. The holders are counted: routes, callers, and longer policies.
 */
export class PolicyTable extends IntTable {
  constructor() {
    super(RULE_HOLDERS, 1, MAX_RECORDS);
    // The record of `NOTHING`. No policy has its key, because every rule has a side.
    this.insert();
  }

  /**
   * Returns the policy that allows what `policy` and the ports allow. On the side `REQUEST` the source is the
   * client of the permit with these ports, on the side `REPLY` the destination is. What is added last is asked first,
   * so replies are added before requests, and the ports from the last to the first. The caller has to hold the result
   * before it extends or drops another policy.
   */
  extend(policy: number, ports: readonly PortRange[], side: number): number {
    const { key } = this;
    for (let end = ports.length; end > 0; end -= RULES_OF_RECORD) {
      key.fill(0);
      key[0] = policy;
      const begin = Math.max(0, end - RULES_OF_RECORD);
      for (let i = begin, at = RULES; i < end; i++, at += RULE_WORDS) {
        const { protocol, first, last } = ports[i]!;
        key[at] = (PROTOCOL_KIND[protocol] << SIDE_WIDTH) | side;
        key[at + 1] = (first << 16) | last;
      }
      let record = this.find();
      if (record < 0) {
        record = this.insert();
        this.hold(policy);
      }
      policy = record * this.stride;
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
    let i = policy + RULES;
    // The record of `NOTHING` has no rules.
    for (let end = i + RULES_OF_RECORD * RULE_WORDS; ; i += RULE_WORDS) {
      if (i === end) {
        const shorter = words[end - RULE_HOLDERS]!;
        if (shorter === NOTHING) return 0;
        i = shorter + RULES;
        end = shorter + RULE_HOLDERS;
      }
      const rule = words[i]!;
      const side = rule & SIDE_BITS;
      if (rule >>> SIDE_WIDTH !== protocol || (side & sides) === 0) continue;
      const port = side === REQUEST ? destinationPort : sourcePort;
      const range = words[i + 1]!;
      if (port >= range >>> 16 && port <= (range & 0xffff)) return side;
    }
  }

  /** Returns whether the policy allows any requests: they are added last. */
  hasRequests(policy: number): boolean {
    return (this.words[policy + RULES]! & SIDE_BITS) === REQUEST;
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
