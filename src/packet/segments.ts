/**
 * How many segments one super-packet may be cut into. A gateway that writes a super-packet to a device
 * pays for every segment of it, inside of its own system call where the device cannot segment: 65,000
 * segments of one byte hold the event loop for 50 ms. So the bound holds wherever a virtio-net header is
 * judged, whoever does the cutting.
 *
 * Linux makes at most 128 datagrams of one call (`UDP_MAX_SEGMENTS` in include/linux/udp.h), and
 * advertises an MSS of no less than 256 bytes (`net.ipv4.route.min_adv_mss`), of which TCP options take
 * up to 40. So any super-packet may make 128 segments, and one of TCP more where each has 216 bytes or
 * more: 304 at most. A sender whose segments are shorter loses a super-packet only when it has more than
 * 128 of them to send at once, and sends fewer then.
 * @module
 */

/** Segments of any size that a super-packet may make. */
export const MAX_SHORT_SEGMENTS = 128;

/** TCP segments of this many payload bytes or more are not counted. */
export const MIN_LONG_SEGMENT: number = 256 - 40;

/**
 * Returns whether a super-packet makes more segments than it may.
 *
 * @param isUdp it is a UDP super-packet; otherwise it is one of TCP
 * @param payload bytes of the super-packet behind its transport header
 * @param segment payload bytes of each segment, `gso_size`
 */
export function makesTooManySegments(isUdp: boolean, payload: number, segment: number): boolean {
  return (isUdp || segment < MIN_LONG_SEGMENT) && payload > segment * MAX_SHORT_SEGMENTS;
}
