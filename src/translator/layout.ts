/**
 * Where things are in the records of paths and ways, in words. Constants alone, and no imports: so a
 * bundler can put them where they are used.
 * @module
 */

/** Words of a path's value, behind its key. */
export const PATH_ROUTE = 0;
/** The checksum delta of both addresses. */
export const PATH_DELTA = 1;
/** The same number for both directions between two hosts, but for its lowest bit. */
export const PATH_PAIR = 2;
/** The new source, and behind it the new destination; or, if the IP version changes, see `PathTable.wide`. */
export const PATH_ADDRESSES = 3;

/** Words of a way's value. */
export const ROUTE_EGRESS = 0;
export const ROUTE_POLICY = 1;
/** IP version that packets leave with. */
export const ROUTE_FAMILY = 2;
/** Largest packet, as it leaves. */
export const ROUTE_MTU = 3;
/** Largest MSS of a TCP segment with SYN; `MAX_MSS` if any fits. */
export const ROUTE_MSS = 4;
export const MAX_MSS = 65_535;
/** Largest packet that was to be cut anyway, as it leaves. */
export const ROUTE_FRAGMENT_MTU = 5;
/** The realm whose share of the table the path takes: that of the client. */
export const ROUTE_CLIENT_REALM = 6;

/** Which of the two things a packet may be to a permit; or-ed when it may be either. */
export const REQUEST = 1;
export const REPLY = 2;
/** The bits of both, and how many they are. */
export const SIDE_BITS = 3;
export const SIDE_WIDTH = 2;
