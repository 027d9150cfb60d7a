/**
 * What one write to the registry changes: read from what the caller gave, and checked.
 * @module
 */
import { parseSchema } from '../base/schema.ts';
import type { Slices } from '../base/slices.ts';
import { ConfigError, ConflictError, VersionMismatchError } from '../errors.ts';
import type { Json, Write } from '../store/index.ts';
import { FitCheck, type Place } from './check.ts';
import type { Owner, Spec } from './model.ts';
import { Proposal } from './proposal.ts';
import { describe, keyOf, PREFIX, versionOf } from './records.ts';
import { AnyExposureSchema, DesiredListsSchema, ServiceSchema, SiteSchema } from './schema.ts';
import { ShardedMap } from './sharded-map.ts';
import type { DesiredTables, RecordChange } from './tables.ts';

/** A change by one owner. Methods that return steps are for `Slices`. */
export class ChangePlan {
  readonly #tables: DesiredTables;
  readonly #owner: Owner;
  readonly #changes: RecordChange[] = [];
  readonly #places = new ShardedMap<Place>();

  constructor(tables: DesiredTables, owner: Owner) {
    this.#tables = tables;
    this.#owner = owner;
  }

  /** What changes. */
  get changes(): readonly RecordChange[] {
    return this.#changes;
  }

  /**
   * Replaces all records of the owner, in steps.
   *
   * @throws {ConfigError} naming the place in `desired` that is wrong.
   * @throws {ConflictError} naming the place of a record that another owner keeps.
   */
  *replaceAll(desired: unknown): Generator<void> {
    const lists = parseSchema(DesiredListsSchema, desired);
    const specs: { readonly spec: Spec; readonly path: string }[] = [];
    for (const [name, list, schema] of [
      ['sites', lists.sites, SiteSchema],
      ['services', lists.services, ServiceSchema],
      ['exposures', lists.exposures, AnyExposureSchema],
    ] as const) {
      for (const [i, input] of list.entries()) {
        const path = `${name}[${i}]`;
        specs.push({ spec: parseSchema<Spec>(schema, input, path), path });
        yield;
      }
    }
    for (const { spec, path } of specs) {
      const key = keyOf(spec);
      const other = this.#tables.records.get(key)?.owner ?? this.#owner;
      if (other !== this.#owner) {
        throw new ConflictError(`${describe(spec)} is kept by the ${other} already`, path);
      }
      if (this.#places.has(key)) throw new ConfigError(path, `${describe(spec)} is there twice`);
      this.#set(key, spec, path);
      yield;
    }
    for (const [key, { owner }] of this.#tables.records.entries()) {
      if (owner === this.#owner && !this.#places.has(key)) {
        this.#changes.push({ key, record: undefined });
      }
      yield;
    }
  }

  /**
   * Checks the version of one record before it is changed.
   *
   * @param version `absent` if there must be no record, `present` if there must be one; undefined for any
   * @throws {VersionMismatchError} if the record has another version.
   */
  expect(key: string, version: string | undefined): void {
    if (version === undefined) return;
    const record = this.#tables.records.get(key);
    const present = record === undefined ? ABSENT : versionOf(record);
    if (present === version || (version === PRESENT && record !== undefined)) return;
    const name = key.slice(PREFIX.length);
    if (version === ABSENT) throw new VersionMismatchError(`${name}: it is there already`);
    const reason = record === undefined ? 'it is not there' : 'it has been changed meanwhile';
    throw new VersionMismatchError(`${name}: ${reason}; read it again`);
  }

  /**
   * Adds or replaces one record.
   *
   * @throws {ConflictError} if it belongs to another owner.
   */
  put(spec: Spec): void {
    const key = keyOf(spec);
    this.#assertOwned(key);
    this.#set(key, spec, '');
  }

  /**
   * Removes one record.
   *
   * @throws {ConflictError} if it belongs to another owner.
   */
  remove(key: string): void {
    this.#assertOwned(key);
    this.#changes.push({ key, record: undefined });
  }

  /**
   * Checks that the records fit together after the change, in steps.
   *
   * @throws {ConfigError} naming the first fault.
   */
  check(): Generator<void> {
    return this.#check(this.#changes);
  }

  /** Returns whether the records fit together after a part of the change. */
  async fits(part: readonly RecordChange[], slices: Slices): Promise<boolean> {
    try {
      await slices.all(this.#check(part));
      return true;
    } catch (error) {
      if (error instanceof ConfigError) return false;
      throw error;
    }
  }

  #check(changes: readonly RecordChange[]): Generator<void> {
    const proposal = new Proposal(this.#tables);
    return new FitCheck(this.#tables, proposal, this.#places).run(changes);
  }

  #set(key: string, spec: Spec, path: string): void {
    this.#places.set(key, { path, rank: this.#places.size });
    const record = { owner: this.#owner, spec };
    const before = this.#tables.records.get(key);
    if (before !== undefined && JSON.stringify(before) === JSON.stringify(record)) return;
    this.#changes.push({ key, record });
  }

  #assertOwned(key: string): void {
    const record = this.#tables.records.get(key);
    if (record === undefined || record.owner === this.#owner) return;
    throw new ConflictError(
      `${describe(record.spec)} is kept by the ${record.owner}; change it there`
    );
  }
}

/** Returns the write that stores a change. */
export function writeOf({ key, record }: RecordChange): Write {
  // The values in it, such as addresses, are stored as text.
  return { key, value: record && (JSON.parse(JSON.stringify(record)) as Json) };
}

/** The version of a record that is not there. */
const ABSENT = 'absent';
/** Any version of a record that is there. */
const PRESENT = 'present';
