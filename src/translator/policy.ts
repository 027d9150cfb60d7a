/**
 * What may pass on a path, compiled to words: a list of rules, each a protocol, a side and a range of
 * ports. Paths with the same permits share one list, and finding it costs no allocation: packets that
 * are refused have no path, so for each of them it is found anew.
 * @module
 */

import type { PortRange } from '../base/port-range.ts';
import { KIND_ECHO, PacketKind } from '../packet/fields.ts';
import { IntTable } from './int-table.ts';
import { REPLY, REQUEST, SIDE_BITS, SIDE_WIDTH } from './layout.ts';
import type { Permit } from './plan.ts';

/** The policy that lets nothing pass. */
export const NOTHING = 0;

/** All policies of one plan, one behind the other in one array; a policy is its first index. */
export class PolicyTable {
  /** Pairs of (protocol and side, first port and last port); a list ends with a 0. */
  #rules = new Int32Array(64);
  /** `NOTHING` is the end of a list. */
  #length = 1;
  /** (policy, permit and side) to the policy that is extended by that permit on that side. */
  readonly #extended = new IntTable(2, 1, MAX_POLICIES);

  /**
   * Returns the policy that lets pass what `policy` does and what the permit does: as requests, with
   * the source as its client, or as replies, with the destination as its client.
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
   * As which of `sides` a packet of `kind` passes, rather as a request than as a reply; 0 if as neither.
   * For an echo both ports are 0, for a protocol without ports both are its number.
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

  /** Whether it lets anything pass as a request. */
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

/** The sides a packet may be on by itself; one that opens a session is never a reply. */
export function sidesOf(kind: PacketKind, opensSession: boolean): number {
  if (kind === PacketKind.EchoRequest || opensSession) return REQUEST;
  return kind === PacketKind.EchoReply ? REPLY : REQUEST | REPLY;
}

/** Whether a reply of this kind needs a recent request; TCP and SCTP tell by their flags. */
export function needsSession(kind: PacketKind): boolean {
  return kind !== PacketKind.Tcp && kind !== PacketKind.Sctp;
}

/** Policies come from plans, which the host bounds; this only keeps a record number a small integer. */
const MAX_POLICIES = 2 ** 26;
/** Both echoes are looked up as the request: the side tells them apart. */
const PROTOCOL_KIND = {
  tcp: PacketKind.Tcp,
  udp: PacketKind.Udp,
  udplite: PacketKind.UdpLite,
  sctp: PacketKind.Sctp,
  icmp: PacketKind.EchoRequest,
  ip: PacketKind.Other,
} as const;
