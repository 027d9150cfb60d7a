/**
 * The keys `want/<site>/<machine>`, by which a machine asks the holder of a site whether the site has a live tunnel there.
 * The holder deletes its own key if not, and otherwise the `want`.
 * @module
 */
import { FollowedRecords } from './followed-records.ts';
import { MarkSchema, splitName, WANTS } from './keys.ts';
import type { Member } from './member.ts';

export class Wants {
  readonly #member: Member;
  readonly #records: FollowedRecords<object>;
  /** The machines that ask, by site. */
  readonly #askers: Map<string, Set<string>>;

  private constructor(
    member: Member,
    records: FollowedRecords<object>,
    askers: Map<string, Set<string>>
  ) {
    this.#member = member;
    this.#records = records;
    this.#askers = askers;
  }

  /**
   * @param onChange called with the sites that are asked for, or not any more
   * @throws {StoreError} if the store cannot be read.
   */
  static async open(member: Member, onChange: (sites: readonly string[]) => void): Promise<Wants> {
    const askers = new Map<string, Set<string>>();
    const store = member.leasing;
    const records = await FollowedRecords.open(store, WANTS, MarkSchema, (names) => {
      for (const name of names) take(askers, name, records.get(name) !== undefined);
      onChange(names.map((name) => splitName(name)[0]));
    });
    for (const [name] of records) take(askers, name, true);
    return new Wants(member, records, askers);
  }

  /** Whether this machine asks for a site, and has got no answer. */
  isAsking(site: string): boolean {
    return this.#askers.get(site)?.has(this.#member.name) ?? false;
  }

  /** Whether another machine asks for a site. */
  isAsked(site: string): boolean {
    const askers = this.#askers.get(site);
    return askers !== undefined && (askers.size > 1 || !askers.has(this.#member.name));
  }

  /** @throws {StoreError} if this machine is detached, or the store does not answer. */
  async ask(site: string): Promise<void> {
    const lease = this.#member.lease;
    const write = { key: keyOf(site, this.#member.name), value: {} };
    await this.#member.store.commit([lease === undefined ? write : { ...write, lease }]);
  }

  /**
   * Deletes the question of this machine, unless it has just asked again.
   *
   * @throws {StoreError} if this machine is detached, or the store does not answer.
   * @throws {StoreConflictError} if it was answered, or has asked again.
   */
  async withdraw(site: string): Promise<void> {
    const name = `${site}/${this.#member.name}`;
    const record = this.#records.get(name);
    if (record === undefined) return;
    const write = { key: WANTS + name, value: undefined, expect: record.version };
    await this.#member.store.commit([write]);
  }

  /**
   * Answers all other machines that ask for the site that it has a live tunnel here.
   *
   * @throws {StoreError} if this machine is detached, or the store does not answer.
   */
  async refuse(site: string): Promise<void> {
    const others = [...(this.#askers.get(site) ?? [])].filter((name) => name !== this.#member.name);
    if (others.length === 0) return;
    await this.#member.store.commit(
      others.map((name) => ({ key: keyOf(site, name), value: undefined }))
    );
  }

  close(): void {
    this.#records.close();
  }
}

function keyOf(site: string, machine: string): string {
  return `${WANTS}${site}/${machine}`;
}

function take(askers: Map<string, Set<string>>, name: string, isThere: boolean): void {
  const [site, machine] = splitName(name);
  const machines = askers.get(site) ?? new Set();
  if (isThere) machines.add(machine);
  else machines.delete(machine);
  if (machines.size > 0) askers.set(site, machines);
  else askers.delete(site);
}
