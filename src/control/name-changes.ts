/**
 * The difference between the names of two snapshots, so that a zone is patched instead of compiled anew. A comparison
 * costs a small part of compiling.
 * @module
 */
import type { IpPrefix } from '../base/prefix.ts';
import type { NameChanges, Snapshot, SnapshotHost } from './snapshot.ts';

/**
 * Returns what has changed in the names of a site since a snapshot. Returns undefined if more has changed than names: the
 * zone, the TTL or the pools.
 */
export function nameChangesBetween(before: Snapshot, after: Snapshot): NameChanges | undefined {
  const isSameZone =
    before.zone === after.zone &&
    before.ttlSeconds === after.ttlSeconds &&
    isSameList(before.pools, after.pools, isSamePrefix);
  if (!isSameZone) return undefined;
  const hosts = changedGroups(before.hosts, after.hosts, ({ name }) => name, isSameHost);
  const pointers = changedGroups(
    before.pointers,
    after.pointers,
    ({ address }) => address.toString(),
    (a, b) => a.name === b.name
  );
  return {
    revision: after.revision,
    names: hosts.removed.map(({ name }) => name),
    hosts: hosts.present,
    addresses: pointers.removed.map(({ address }) => address),
    pointers: pointers.present,
  };
}

/**
 * Compares the entries of each key. Returns the entries with a key that has changed: those of before whose key is gone,
 * and all those of after.
 */
function changedGroups<T>(
  before: readonly T[],
  after: readonly T[],
  keyOf: (entry: T) => string,
  isSame: (a: T, b: T) => boolean
): { removed: T[]; present: T[] } {
  const old = groupsOf(before, keyOf);
  const removed: T[] = [];
  const present: T[] = [];
  for (const [key, entries] of groupsOf(after, keyOf)) {
    if (!isSameList(old.get(key) ?? [], entries, isSame)) present.push(...entries);
    old.delete(key);
  }
  for (const [entry] of old.values()) removed.push(entry!);
  return { removed, present };
}

function groupsOf<T>(entries: readonly T[], keyOf: (entry: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const entry of entries) {
    const key = keyOf(entry);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [entry]);
    else group.push(entry);
  }
  return groups;
}

function isSameHost(a: SnapshotHost, b: SnapshotHost): boolean {
  return (
    a === b ||
    (isSameList(a.addresses, b.addresses, (one, other) => one.equals(other)) &&
      isSameList(a.ports, b.ports, (one, other) => one.toString() === other.toString()) &&
      isSameList(a.former ?? [], b.former ?? [], (one, other) => one.equals(other)) &&
      a.wildcard === b.wildcard &&
      isSameJson(a.aliases, b.aliases) &&
      isSameJson(a.https, b.https) &&
      isSameJson(a.svcb, b.svcb))
  );
}

function isSamePrefix(a: IpPrefix, b: IpPrefix): boolean {
  return a.toString() === b.toString();
}

function isSameList<T>(a: readonly T[], b: readonly T[], isSame: (a: T, b: T) => boolean): boolean {
  return a.length === b.length && a.every((each, i) => isSame(each, b[i]!));
}

/** Compares what most hosts do not have. */
function isSameJson(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}
