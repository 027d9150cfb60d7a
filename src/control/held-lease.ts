/**
 * A lease in use, as the controller has it in memory.
 * @module
 */
import type { Presence } from '../translator/index.ts';

export interface HeldLease extends Presence {
  /** The key of the presence. */
  readonly key: string;
  /**
   * Whether the store has it. Only then may it be used. While another process allocates, it is false too for a lease that
   * the desired state does not need: that process is about to release it.
   */
  isStored: boolean;
  /** Whether it is of a host with an exposed service, and not of a client. */
  isService: boolean;
}

/** Returns the presence alone. @param formerUntil undefined unless it is a former one */
export function presenceOf(
  { realm, address, of }: Presence,
  formerUntil: number | undefined
): Presence {
  return formerUntil === undefined ? { realm, address, of } : { realm, address, of, formerUntil };
}
