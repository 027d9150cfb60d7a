/**
 * Notes the uses of clients' leases and ends such leases, on request or for lack of use. Where another process
 * allocates, that one is told or asked.
 * @module
 */
import type { AllocationRole } from './allocation-role.ts';
import { IdleSweep, type IdleSweepOptions } from './idle-sweep.ts';
import type { PresenceUse } from './presence-uses.ts';

export interface ClientLeasesOptions extends Omit<IdleSweepOptions, 'ask' | 'touch'> {
  /** Returns the presences that were used since the last call; undefined if nobody knows. */
  readonly presenceUses?: IdleSweepOptions['ask'] | undefined;
  /** Undefined if this process always allocates. */
  readonly role: AllocationRole | undefined;
}

export class ClientLeases {
  readonly #options: ClientLeasesOptions;
  #sweep: IdleSweep | undefined;
  #isClosed = false;

  constructor(options: ClientLeasesOptions) {
    this.#options = options;
  }

  /** Ends idle leases from now on, if it is known which presences are used. */
  beginSweeps(): void {
    const { presenceUses: ask } = this.#options;
    if (ask === undefined || this.#isClosed) return;
    this.#sweep = new IdleSweep({ ...this.#options, ask, touch: (uses) => this.#touch(uses) });
  }

  close(): void {
    this.#isClosed = true;
    this.#sweep?.close();
  }

  /**
   * Ends the leases of a site's clients. Returns how many.
   *
   * @throws {StoreError} if it cannot be stored.
   * @throws {AllocatorUnavailableError} if another process allocates, and does not answer.
   */
  async release(site: string): Promise<number> {
    const { enqueue, leases, storeEnded, role } = this.#options;
    let count = 0;
    let isDone = false;
    await enqueue(async () => {
      count = leases().countClients(site);
      if (leases().isFollowing) return;
      if (leases().releaseClients(site) > 0) await storeEnded();
      // If the store has refused it, another process allocates now.
      isDone = !leases().isFollowing;
    });
    if (!isDone) await role!.release(site);
    return count;
  }

  /** Ends the leases of the clients of suspended sites. Where another process allocates, that one does it. */
  releaseLater(sites: Iterable<string>): void {
    if (this.#isClosed || this.#options.leases().isFollowing) return;
    for (const site of sites) this.release(site).catch(this.#options.onError);
  }

  async #touch(uses: readonly PresenceUse[]): Promise<void> {
    const { enqueue, leases, storeEnded, role } = this.#options;
    let told: readonly PresenceUse[] = [];
    await enqueue(async () => {
      if (leases().isFollowing) {
        told = leases().usesToTell(uses);
        return;
      }
      leases().touch(uses);
      await storeEnded();
    });
    if (told.length > 0) await role!.tell(told);
  }
}
