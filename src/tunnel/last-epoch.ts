/**
 * The epoch of the last gateway that a dialling side has taken. It takes none with a lower number of the same cluster:
 * that one has lost the site to another since. It is kept in memory only.
 * @module
 */
import type { TunnelEpoch } from './messages.ts';

export class LastEpoch {
  #value: TunnelEpoch | undefined;

  get value(): TunnelEpoch | undefined {
    return this.#value;
  }

  /** Whether a gateway with this epoch may be taken; undefined stands for a gateway that has none. */
  accepts(epoch: TunnelEpoch | undefined): boolean {
    const last = this.#value;
    if (epoch === undefined || last === undefined || epoch.cluster !== last.cluster) return true;
    return epoch.number >= last.number;
  }

  /** A gateway with this epoch was taken. */
  take(epoch: TunnelEpoch | undefined): void {
    if (epoch !== undefined && this.accepts(epoch)) this.#value = epoch;
  }
}
