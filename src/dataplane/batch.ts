/**
 * Bounds what a data plane reads from a device in one turn of the event loop.
 * @module
 */

/** The default of the option `batch`, in packets. */
export const DEFAULT_BATCH = 128;
export const MAX_BATCH = 65_536;
/**
 * A batch ends after this many bytes: they are still in the processor's cache when they are encrypted, and
 * the tunnels get their turn.
 */
export const BATCH_BYTES: number = 256 * 1024;
