/**
 * Offsets of the fields in the records of paths, routes and policies, in 32-bit words. The file has only constants
 * and no imports, so that a bundler can inline them.
 * @module
 */

/** Offsets in the value of a path. This one is the path's route. */
export const PATH_ROUTE = 0;
/** The checksum delta of both addresses. */
export const PATH_DELTA = 1;
/** A number of the pair of hosts; both directions have the same number except for its lowest bit. */
export const PATH_PAIR = 2;
/** The new source, then the new destination; if the IP version changes, an index into `PathTable.wide`. */
export const PATH_ADDRESSES = 3;

/** Offsets in the value of a route. */
export const ROUTE_EGRESS = 0;
export const ROUTE_POLICY = 1;
/** The IP version in the egress realm. */
export const ROUTE_FAMILY = 2;
/** The largest packet in bytes, after translation, that the fast path may forward; 0 if it may forward none. */
export const ROUTE_MTU = 3;
/** The largest MSS of a TCP segment with SYN; `MAX_MSS` if every value fits. */
export const ROUTE_MSS = 4;
export const MAX_MSS = 65_535;
/** The largest packet in bytes, after translation, that leaves unfragmented although it may be fragmented. */
export const ROUTE_FRAGMENT_MTU = 5;
/** The realm of the client. The paths count against this realm's share of the table. */
export const ROUTE_CLIENT_REALM = 6;
/** The largest packet in bytes, after translation. */
export const ROUTE_LARGEST = 7;

/** What a packet may be to a permit, a request or a reply; both bits are set if it may be either. */
export const REQUEST = 1;
export const REPLY = 2;
/** The mask of both bits. */
export const SIDE_BITS = 3;
/** The number of these bits. */
export const SIDE_WIDTH = 2;

/** Offsets in the record of a policy. These are the rules: protocol and side, first and last port. */
export const RULES = 1;
export const RULES_OF_RECORD = 3;
/** The number of words of a rule. */
export const RULE_WORDS = 2;
/** How many hold the policy; behind the rules. */
export const RULE_HOLDERS = 7;
/** The policy that lets no packet pass. */
export const NOTHING = 0;
