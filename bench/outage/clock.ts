/**
 * A clock that all programs of the benchmark have in common.
 * @module
 */

/** The time on the monotonic clock of the machine, the same for all its processes, in ms. */
export function machineMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
