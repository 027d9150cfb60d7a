/**
 * Bounds the number of segments of a super-packet. A gateway that writes a super-packet to a device pays for
 * every segment, within its own system call where the kernel has to segment it: 65,000 segments of one byte
 * block the event loop for 50 ms. So the bound applies wherever a virtio-net header is checked.
 *
 * Linux makes at most 128 datagrams of one call (`UDP_MAX_SEGMENTS` in include/linux/udp.h) and advertises
 * an MSS of at least 256 bytes (`net.ipv4.route.min_adv_mss`), of which TCP options take up to 40. So every
 * super-packet may make 128 segments. A TCP super-packet may make more if each has at least 216 bytes: 304
 * at most. A sender with shorter segments loses a super-packet only if it sends more than 128 of them at
 * once, and sends fewer afterwards.
 * @module
 */

/** The number of segments of any size that a super-packet may make. */
export const MAX_SHORT_SEGMENTS = 128;

/** TCP segments with at least this many payload bytes are not counted. */
export const MIN_LONG_SEGMENT: number = 256 - 40;

/**
 * Returns whether a super-packet makes more segments than it may.
 *
 * @param isUdp whether it is a UDP super-packet; otherwise it is a TCP one
 * @param payload the bytes of the super-packet behind its transport header
 * @param segment the payload bytes of each segment, `gso_size`
 */
export function makesTooManySegments(isUdp: boolean, payload: number, segment: number): boolean {
  return (isUdp || segment < MIN_LONG_SEGMENT) && payload > segment * MAX_SHORT_SEGMENTS;
}
