/**
 * `RevocationFeed`: what one worker process has to learn of the revocations: all of them once, and then what changes.
 * @module
 */
import type { RevocationTable } from '../pki/index.ts';
import type { AccessChange } from './access.ts';

export class RevocationFeed {
  #table: RevocationTable | undefined;
  /** The revision of that table that the worker has. */
  #revision: number | undefined;

  /**
   * Returns what to send so that the worker has the present content of the table; empty if it has it. A table without
   * `changesSince` is sent whole each time.
   */
  next(table: RevocationTable): Pick<AccessChange, 'revocations' | 'revocationChanges'> {
    const { sites, serials, spkis, revision } = table;
    const had = this.#table === table ? this.#revision : undefined;
    if (had !== undefined && had === revision) return {};
    const revocationChanges = had === undefined ? undefined : table.changesSince?.(had);
    this.#table = table;
    this.#revision = revision;
    if (revocationChanges !== undefined) return { revocationChanges };
    return { revocations: { sites, serials, spkis } };
  }
}
