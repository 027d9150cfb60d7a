/**
 * What is revoked, as sets in memory, for a check in every handshake. A copy in another process is kept up to date by
 * the latest changes instead of the whole table.
 * @module
 */

/** What is revoked, as plain data that may be sent to another process (structured clone). */
export interface RevocationTable {
  readonly sites: ReadonlySet<string>;
  /** Lower-case hex. */
  readonly serials: ReadonlySet<string>;
  /** Keys that were revoked themselves, and the keys of revoked certificates. */
  readonly spkis: ReadonlySet<string>;
  /** How many changes there have been. Only the live table of `Revocations` has it, a copy does not. */
  readonly revision?: number;
  /**
   * Returns what has changed since a revision, or undefined if that is too long ago. Only the live table of
   * `Revocations` has it.
   */
  changesSince?(revision: number): RevocationChanges | undefined;
}

/** What a copy of a table has to take over. Taking it over twice is the same as once. */
export interface RevocationChanges {
  /** Whether a site is revoked now, by site. */
  readonly sites: ReadonlyMap<string, boolean>;
  /** These are revoked, and stay revoked. */
  readonly serials: readonly string[];
  readonly spkis: readonly string[];
}

/** A table that remembers its latest changes. */
export class LiveRevocationTable implements Required<RevocationTable> {
  readonly sites: Set<string> = new Set();
  readonly serials: Set<string> = new Set();
  readonly spkis: Set<string> = new Set();
  /** The latest changes, the oldest first. */
  #changes: (readonly [kind: Kind, name: string])[] = [];
  /** How many changes there were before these. */
  #forgotten = 0;

  get revision(): number {
    return this.#forgotten + this.#changes.length;
  }

  changesSince(revision: number): RevocationChanges | undefined {
    if (revision < this.#forgotten) return undefined;
    const sites = new Map<string, boolean>();
    const serials: string[] = [];
    const spkis: string[] = [];
    for (const [kind, name] of this.#changes.slice(revision - this.#forgotten)) {
      if (kind === 'sites') sites.set(name, this.sites.has(name));
      else if (kind === 'serials') serials.push(name);
      else spkis.push(name);
    }
    return { sites, serials, spkis };
  }

  /** Returns false if it was revoked before. */
  add(kind: Kind, name: string): boolean {
    if (this[kind].has(name)) return false;
    this[kind].add(name);
    this.#note(kind, name);
    return true;
  }

  /** Returns false if the site was not revoked. */
  reinstate(site: string): boolean {
    if (!this.sites.delete(site)) return false;
    this.#note('sites', site);
    return true;
  }

  #note(kind: Kind, name: string): void {
    this.#changes.push([kind, name]);
    if (this.#changes.length < 2 * MIN_REMEMBERED) return;
    this.#changes = this.#changes.slice(MIN_REMEMBERED);
    this.#forgotten += MIN_REMEMBERED;
  }
}

type Kind = 'sites' | 'serials' | 'spkis';

/** A copy that misses more changes than this may get the whole table. */
const MIN_REMEMBERED = 1000;
