/**
 * Secrets whose commits fail on demand.
 * @module
 */
import type { SecretChanges, Secrets } from '../../src/store/index.ts';

export class FaultySecrets implements Secrets {
  /** How many commits succeed before one fails; undefined if none fails. */
  failAfter: number | undefined;
  /** Whether all later commits fail too. */
  isBroken = false;
  /** Whether the commit that fails takes effect nevertheless, as when only the sync of the directory fails. */
  isInPlace = false;
  readonly #secrets: Secrets;

  constructor(secrets: Secrets) {
    this.#secrets = secrets;
  }

  get(name: string): Promise<Uint8Array | undefined> {
    return this.#secrets.get(name);
  }

  async commit(changes: SecretChanges): Promise<void> {
    if (Object.keys(changes).length === 0) return;
    if (this.failAfter === undefined || this.failAfter-- > 0) return this.#secrets.commit(changes);
    if (this.isBroken) this.failAfter = 0;
    else this.failAfter = undefined;
    if (this.isInPlace) await this.#secrets.commit(changes);
    throw new Error('the disk is full');
  }

  locate(name: string): string {
    return this.#secrets.locate?.(name) ?? name;
  }
}
