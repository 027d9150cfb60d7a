/**
 * How packets lie in the buffer of a scene. These are in a file of their own because then the bundler puts
 * them where they are used, and the loop that is timed does not read them from memory.
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
/** Packets of a batch; no more than classes, so that each has a slot of its own. */
export const BATCH = 16;
/** A multiple of the number of classes. */
export const SCHEDULE_LENGTH = 16_384;
/** A multiple of the size of a batch. */
export const TRIPS_PER_LOOK_AT_THE_CLOCK = 5_120;
