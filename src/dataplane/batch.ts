/**
 * How much is read from a device in a turn of the event loop.
 * @module
 */

/** Packets. */
export const DEFAULT_BATCH = 128;
export const MAX_BATCH = 65_536;
/**
 * No packet is read any more after so many bytes: what was read is still in the processor's cache when
 * it is encrypted, and the tunnels' own events are served in between.
 */
export const BATCH_BYTES: number = 256 * 1024;
