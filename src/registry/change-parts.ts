/**
 * Divides a change that is too large for one commit of the store into parts. The state after each part is valid, so that
 * a process may end between two of them, and others may read and write there.
 *
 * What ends comes first, and sites and services come before the exposures that need them. An exposure whose name or
 * address another one takes is deleted before. What does not fit yet is put off. If nothing fits alone, what belongs to
 * one site is tried together, and then all exposures that change are deleted before.
 * @module
 */
import { ConflictError } from '../errors.ts';
import type { Exposure, Service, Site } from './model.ts';
import { NameSets } from './name-sets.ts';
import { claimsOf } from './names.ts';
import { EXPOSURES, SELECTORS, SERVICES, SITES, siteKey } from './records.ts';
import type { DesiredTables, RecordChange } from './tables.ts';

export class ChangeParts {
  readonly #tables: DesiredTables;
  readonly #limit: number;
  readonly #fits: (changes: readonly RecordChange[]) => Promise<boolean>;
  #todo: readonly RecordChange[] = [];
  /** The index of the next one in `#todo`. */
  #at = 0;
  /** What did not fit yet. */
  #putOff: RecordChange[] = [];
  #hasAdvanced = false;
  /** The keys of records that are deleted before they are written. */
  readonly #torn = new Set<string>();
  #isTornDown = false;

  /**
   * Call `prepare` before `next`.
   *
   * @param tables the state; each part is added to it before the next one is asked for
   * @param limit of changes in one part
   * @param fits whether the state is valid after some changes
   */
  constructor(
    tables: DesiredTables,
    limit: number,
    fits: (changes: readonly RecordChange[]) => Promise<boolean>
  ) {
    this.#tables = tables;
    this.#limit = limit;
    this.#fits = fits;
  }

  /** Puts changes, which fit together, in their order, in steps. */
  *prepare(changes: readonly RecordChange[]): Generator<void> {
    const come = { sites: [] as RecordChange[], services: [] as RecordChange[] };
    const gone = { sites: [] as RecordChange[], services: [] as RecordChange[] };
    const ended = { exposures: [] as RecordChange[], selectors: [] as RecordChange[] };
    const selectors: RecordChange[] = [];
    const bySite = new Map<string, RecordChange[]>();
    for (const change of changes) {
      const { key, record } = change;
      if (key.startsWith(EXPOSURES)) {
        if (record === undefined) ended.exposures.push(change);
        else addTo(bySite, siteOfExposure(key), change);
      } else if (key.startsWith(SELECTORS)) {
        (record === undefined ? ended.selectors : selectors).push(change);
      } else {
        const group = record === undefined ? gone : come;
        group[key.startsWith(SITES) ? 'sites' : 'services'].push(change);
      }
      yield;
    }
    // The last selector of a service makes room for no other one when it ends.
    const todo = [...ended.selectors.sort(byKey).reverse()];
    for (const group of [ended.exposures, come.sites, come.services]) {
      for (const change of group) {
        todo.push(change);
        yield;
      }
    }
    const sites = new Map(come.sites.map(({ key, record }) => [key, record!.spec as Site]));
    for (const [name, group] of bySite) {
      const before = this.#tables.site(name);
      if (before !== undefined) {
        for (const key of this.#keysInTheWay(before, sites.get(siteKey(name)) ?? before, group)) {
          this.#torn.add(key);
          todo.push({ key, record: undefined });
        }
        yield;
      }
      for (const change of group) {
        todo.push(change);
        yield;
      }
    }
    for (const group of [selectors.sort(byKey), gone.services, gone.sites]) {
      for (const change of group) {
        todo.push(change);
        yield;
      }
    }
    this.#todo = todo;
  }

  /**
   * Returns the next part; undefined if there is none left.
   *
   * @throws {ConflictError} if the rest cannot be divided.
   */
  async next(): Promise<readonly RecordChange[] | undefined> {
    for (;;) {
      while (this.#at < this.#todo.length) {
        const part = await this.#beginning();
        if (part !== undefined) {
          this.#hasAdvanced = true;
          return part;
        }
        const change = this.#todo[this.#at]!;
        this.#at++;
        // A deletion that only makes room is of no use later.
        if (change.record !== undefined || !this.#torn.has(change.key)) this.#putOff.push(change);
      }
      const rest = this.#putOff;
      if (rest.length === 0) return undefined;
      if (!this.#hasAdvanced) {
        const part = rest.length <= this.#limit ? rest : await this.#together(rest);
        if (part !== undefined) {
          const taken = new Set(part);
          this.#begin(rest.filter((change) => !taken.has(change)));
          return part;
        }
      }
      if (this.#hasAdvanced) this.#begin(rest);
      else if (!this.#isTornDown) this.#tearDown(rest);
      else throw indivisible(this.#limit);
    }
  }

  #begin(todo: readonly RecordChange[]): void {
    this.#todo = todo;
    this.#at = 0;
    this.#putOff = [];
    this.#hasAdvanced = false;
  }

  /** Takes as many as fit from the beginning of the list, and returns them; undefined if not even the first one does. */
  async #beginning(): Promise<readonly RecordChange[] | undefined> {
    for (let size = this.#limit; size > 0; size = Math.floor(size / 2)) {
      const part = new Map<string, RecordChange>();
      let end = this.#at;
      for (; end < this.#todo.length; end++) {
        const change = this.#todo[end]!;
        if (part.size === size && !part.has(change.key)) break;
        part.set(change.key, change);
      }
      const changes = [...part.values()];
      if (await this.#fits(changes)) {
        this.#at = end;
        return changes;
      }
      size = Math.min(size, changes.length);
    }
    return undefined;
  }

  /** Returns changes of one site that fit together only. */
  async #together(rest: readonly RecordChange[]): Promise<readonly RecordChange[] | undefined> {
    const bySite = new Map<string, RecordChange[]>();
    for (const change of rest) {
      const site = this.#siteOf(change);
      if (site !== undefined) addTo(bySite, site, change);
    }
    for (const group of bySite.values()) {
      if (group.length <= this.#limit && (await this.#fits(group))) return group;
    }
    return undefined;
  }

  #siteOf({ key, record }: RecordChange): string | undefined {
    if (key.startsWith(SITES)) return key.slice(SITES.length);
    if (key.startsWith(EXPOSURES)) return siteOfExposure(key);
    if (!key.startsWith(SERVICES)) return undefined;
    return ((record ?? this.#tables.records.get(key))?.spec as Service | undefined)?.site;
  }

  /** Goes on with the deletion of all exposures that change. */
  #tearDown(rest: readonly RecordChange[]): void {
    this.#isTornDown = true;
    const keys = rest
      .filter(({ key, record }) => record !== undefined && isExposure(key))
      .map(({ key }) => key)
      .filter((key) => this.#tables.records.has(key))
      .sort()
      .reverse();
    for (const key of keys) this.#torn.add(key);
    this.#begin([...keys.map((key) => ({ key, record: undefined })), ...rest]);
  }

  /** Returns the keys of those exposures of a site whose name or address another one of them takes. */
  #keysInTheWay(before: Site, after: Site, group: readonly RecordChange[]): string[] {
    const taken = new NameSets();
    for (const { record } of group) {
      const spec = record!.spec as Exposure;
      const present = this.#tables.source(spec.service, before.name);
      const kept = new Set(present && claimsOf(present, before));
      for (const claim of claimsOf(spec, after)) {
        if (!kept.has(claim)) taken.add(claim, spec.service);
      }
    }
    const keys: string[] = [];
    for (const { key } of group) {
      const present = this.#tables.records.get(key)?.spec as Exposure | undefined;
      if (present === undefined) continue;
      const isTaken = (claim: string) =>
        taken.get(claim).some((service) => service !== present.service);
      if (claimsOf(present, before).some(isTaken)) keys.push(key);
    }
    return keys;
  }
}

function addTo(groups: Map<string, RecordChange[]>, name: string, change: RecordChange): void {
  const group = groups.get(name);
  if (group === undefined) groups.set(name, [change]);
  else group.push(change);
}

function isExposure(key: string): boolean {
  return key.startsWith(EXPOSURES) || key.startsWith(SELECTORS);
}

function siteOfExposure(key: string): string {
  return key.slice(EXPOSURES.length, key.indexOf('/', EXPOSURES.length));
}

function byKey(a: RecordChange, b: RecordChange): number {
  return a.key < b.key ? -1 : 1;
}

function indivisible(limit: number): ConflictError {
  return new ConflictError(
    `the store takes at most ${limit} changed records in one transaction, and this change cannot be divided so that the state is valid in between; what was possible is stored: make the rest in two steps, of which the first gives the sites both their old and their new sources`
  );
}
