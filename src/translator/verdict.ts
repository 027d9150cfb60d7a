/**
 * The verdicts on a packet. The module's README has the order of the checks that give them, and what else
 * to change for a new verdict.
 * @module
 */
import { Parse } from '../packet/fields.ts';

export const Verdict = {
  /** The packet was rewritten: send it into the egress realm. */
  Forward: 0,
  /** The packet is permitted, but its source has no presence in the egress realm: bind one and try again. */
  NeedsPresence: 1,
  /** The packet is permitted, but needs more headroom: try again in a buffer that has it. */
  NeedsHeadroom: 2,
  /** The headers contradict each other, or the packet is truncated. */
  DropMalformed: 3,
  /** The packet has a protocol, ICMP type, option or extension header that is not supported. */
  DropUnsupported: 4,
  /** The fragment is too small, overlaps another one, or cannot be translated. */
  DropFragment: 5,
  /** The first fragment of the datagram is not known, or no longer known. */
  DropFragmentOrphan: 6,
  /** The destination is not a presence in the ingress realm. */
  DropNoPresence: 7,
  /** The ingress realm may not use the source address. */
  DropSpoofed: 8,
  /** No permit allows this source, destination, protocol and port. */
  DropNotPermitted: 9,
  /** The packet is a reply, and no recent request is known. */
  DropNoSession: 10,
  /** The packet is larger than the egress realm's `mtu`, and must not be fragmented. */
  DropTooBig: 11,
  /** The table of paths, or the share of the client's realm in it, is full. */
  DropTableFull: 12,
  /** The super-packet would make too many segments. */
  DropTooManySegments: 13,
} as const;
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

export type VerdictName = keyof typeof Verdict;

/** The names of the verdicts by number. */
export const VERDICT_NAMES: readonly VerdictName[] = /* @__PURE__ */ Object.keys(
  Verdict
) as VerdictName[];

/** The number of packets that got each verdict. */
export type VerdictCounters = Readonly<Record<VerdictName, number>>;

/** Returns the counters from `counts[at]` on by name; they are in the order of the verdicts' numbers. */
export function nameCounters(counts: Float64Array, at: number): VerdictCounters {
  const named = VERDICT_NAMES.map((name, i) => [name, counts[at + i]]);
  return Object.fromEntries(named) as VerdictCounters;
}

/** Returns the verdict for an outcome of the header check. */
export function verdictOfParse(outcome: Parse): Verdict {
  switch (outcome) {
    case Parse.Malformed:
      return Verdict.DropMalformed;
    case Parse.Unsupported:
      return Verdict.DropUnsupported;
    case Parse.BadFragment:
      return Verdict.DropFragment;
    default:
      return Verdict.Forward;
  }
}
