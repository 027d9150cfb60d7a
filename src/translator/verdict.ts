/**
 * What becomes of a packet. The order of the steps that give a verdict is in the room's README.
 * @module
 */
import { Parse } from '../packet/fields.ts';

export const Verdict = {
  /** Rewritten; give it to the egress realm. */
  Forward: 0,
  /** Permitted, but the source has no presence in the egress realm yet: bind one and try again. */
  NeedsPresence: 1,
  /** Permitted, but grows in front by more than the headroom: try again where there is room. */
  NeedsHeadroom: 2,
  /** The headers contradict each other or the packet is cut. */
  DropMalformed: 3,
  /** A protocol, ICMP type, option or extension header that is not handled. */
  DropUnsupported: 4,
  /** A fragment that is tiny, overlaps another, or cannot be translated. */
  DropFragment: 5,
  /** A later fragment whose first one is not known, or not any more. */
  DropFragmentOrphan: 6,
  /** The destination stands for nothing in the realm the packet came from. */
  DropNoPresence: 7,
  /** The source is not one the realm may use. */
  DropSpoofed: 8,
  /** The destination is not exposed to this source, or not on this protocol and port. */
  DropNotPermitted: 9,
  /** A reply, other than of TCP or SCTP, to no recent request. */
  DropNoSession: 10,
  /** Larger than the egress realm takes, and not to be cut. */
  DropTooBig: 11,
  /** The table of paths is full. */
  DropTableFull: 12,
  /** A super-packet that makes more segments than one may. */
  DropTooManySegments: 13,
} as const;
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

export type VerdictName = keyof typeof Verdict;

/** Names by number, for counters and messages. */
export const VERDICT_NAMES: readonly VerdictName[] = /* @__PURE__ */ Object.keys(
  Verdict
) as VerdictName[];

/** How many packets got which verdict. */
export type VerdictCounters = Readonly<Record<VerdictName, number>>;

/** Names the counters `counts[at]` on, which are in the order of the verdicts' numbers. */
export function nameCounters(counts: Float64Array, at: number): VerdictCounters {
  const named = VERDICT_NAMES.map((name, i) => [name, counts[at + i]]);
  return Object.fromEntries(named) as VerdictCounters;
}

/** The verdict on a packet whose headers did not pass, by outcome of the check. */
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
