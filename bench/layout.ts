/**
 * The layout of packets in the buffer of a scene. The constants are in their own file so that the bundler inlines
 * them and the timed loop does not read them from memory.
 * @module
 */

/** Bytes of a cache line: 2 ** 6. */
export const CACHE_LINE_BITS = 6;
/** Bytes of the virtio-net header. */
export const VNET_LENGTH = 10;
/** Bytes in front of the packet that an ICMP error quotes. */
export const ERROR_HEADERS = 28;
/** Verdict.Forward. */
export const FORWARD = 0;
/** Clients of a class take turns in slots of that class. */
export const MAX_CLASSES = 16;
/** The number of packets of a batch, at most the number of classes, so that each has its own slot. */
export const BATCH = 16;
/** A multiple of the number of classes. */
export const SCHEDULE_LENGTH = 16_384;
/** A multiple of the size of a batch. */
export const TRIPS_PER_LOOK_AT_THE_CLOCK = 5_120;
