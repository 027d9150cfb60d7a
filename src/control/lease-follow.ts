/**
 * Keeps the leases in memory as the store shows them, while another process allocates. Nothing is leased, released or
 * written here. A lease that the desired state does not need is kept, and is not used (`HeldLease.isStored`).
 *
 * The desired state and the leases come by two ways. So a lease may come before its site, and is kept until then; an
 * address may come before its pool, and is used when the pool has come; and a pool may be gone before the store shows its
 * overlap, which is begun in memory then.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { StoreError } from '../errors.ts';
import type { Site } from '../registry/index.ts';
import type { Change, Entry, Json } from '../store/index.ts';
import type { HeldLease } from './held-lease.ts';
import type { IndexChanges } from './index-changes.ts';
import type { LeaseState } from './lease-state.ts';
import { OVERLAP_PREFIX, Overlaps } from './overlaps.ts';
import type { RealmLeases } from './realm-leases.ts';
import { type FoundLease, LEASE_PREFIX, LeaseReader } from './stored-lease.ts';

/** What the store had, until the pools are known. Both are keyed by realm. */
export interface FoundLeases {
  readonly leases: Map<string, readonly FoundLease[]>;
  readonly overlaps: Map<string, Overlaps>;
}

export class LeaseFollow {
  readonly #state: LeaseState;
  /** The leases of realms without a site. */
  readonly #found: FoundLeases;
  readonly #renew: (site: Site, overlaps: Overlaps) => void;
  /** Keyed by realm: what the store has of overlaps, where more have begun in memory. */
  readonly #begun = new Map<string, Json>();
  /** The realms in which a host has several addresses of the pools, so that their overlaps say which one is the newest. */
  readonly #unordered = new Set<string>();

  /** @param renew makes the leases of a site anew because its overlaps have changed */
  constructor(
    state: LeaseState,
    found: FoundLeases,
    renew: (site: Site, overlaps: Overlaps) => void
  ) {
    this.#state = state;
    this.#found = found;
    this.#renew = renew;
  }

  /** Takes over what the store shows. Returns why entries are no leases; these count as deleted. */
  show(changes: Iterable<Change>): StoreError[] {
    const errors: StoreError[] = [];
    const reader = new LeaseReader();
    const leases: ShownLease[] = [];
    // The last one of several changes of an entry counts.
    const last = new Map(Array.from(changes, (change) => [change.key, change]));
    for (const change of last.values()) {
      try {
        if (change.key.startsWith(OVERLAP_PREFIX)) this.#showOverlap(change);
        else leases.push(...readChange(reader, change));
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        errors.push(error);
        leases.push(...readChange(reader, { ...change, value: undefined }));
      }
    }
    // A host with a new address has lost the one before first.
    const ended = leases.filter(({ lease }) => lease?.of === undefined);
    const held = leases.filter(({ lease }) => lease?.of !== undefined);
    for (const each of [...ended, ...held]) this.#showLease(each);
    for (const name of this.#unordered) {
      const overlaps = this.#state.realms.get(name)?.overlaps;
      if (overlaps !== undefined) this.#remake(name, overlaps);
    }
    this.#unordered.clear();
    this.#endBegun();
    return errors;
  }

  /** Ends overlaps that have begun in memory and that no lease needs. */
  #endBegun(): void {
    for (const [name, stored] of this.#begun) {
      if (this.#state.realms.get(name)?.hasOutside !== true) this.#replaceOverlaps(name, stored);
    }
  }

  /** Notes that an overlap has begun in memory. @param stored what the store has */
  noteBegun(name: string, stored: Json): void {
    if (!this.#begun.has(name)) this.#begun.set(name, stored);
  }

  /** Returns the realms whose overlaps the store does not have, and forgets them. */
  takeUnstored(): ReadonlySet<string> {
    const names = new Set(this.#begun.keys());
    this.#begun.clear();
    return names;
  }

  /** Keeps the leases of a site that is gone, until the store shows that they have ended. */
  setAside(name: string): void {
    const realm = this.#state.realms.get(name);
    this.#begun.delete(name);
    if (realm === undefined) return;
    const leases: FoundLease[] = [...realm.released()];
    for (const held of realm.all()) {
      const { key, address, of } = held;
      const usedAtMs = realm.uses.get(key)?.storedAtMs;
      leases.push({ key, address, of, usedAtMs });
      this.#state.touchPlace(held);
    }
    for (const held of realm.held()) this.#state.endClient(realm, held);
    this.#found.leases.set(name, leases);
    if (!realm.overlaps.isEmpty) this.#found.overlaps.set(name, realm.overlaps);
    this.#state.realms.delete(name);
  }

  /** Notes whether a lease is a service's or a client's, and whether it may be used. */
  fitLease(realm: RealmLeases, { realm: name, key, of, address }: HeldLease): void {
    const { desired, clock } = this.#state;
    const newest = realm.get(key);
    const isService = desired.hostIn(name, key) !== undefined;
    if (newest !== undefined) {
      realm.setService(newest, isService);
      if (isService) this.#state.endClient(realm, newest);
      else if (realm.uses.get(key) === undefined) {
        this.#state.setUse(realm, newest, clock.now(), clock.now());
      }
    }
    const isNeeded = isService || desired.isAdmitted(name, of, address.family);
    for (const held of realm.allOf(key)) {
      const isThere = !realm.isOutside(held) || realm.overlaps.untilOf(held.address) !== undefined;
      if (held.isStored !== (isNeeded && isThere)) {
        this.#state.setStored(held, isNeeded && isThere);
      }
    }
  }

  /** Looks at the leases of clients of which more may be needed than before. */
  fitWidened({ permits, sites }: IndexChanges): void {
    this.#endBegun();
    const { clientRealms, desired } = this.#state;
    const pairs = new Map<string, { readonly realm: string; readonly site: string }>();
    const add = (realm: string | undefined, site: string): void => {
      if (realm !== undefined) pairs.set(`${realm} ${site}`, { realm, site });
    };
    for (const { realm: site, service } of permits.values()) {
      add(service.realm, site);
      add(desired.transit, site);
    }
    for (const site of sites) for (const realm of clientRealms.of(site)) add(realm, site);
    for (const { realm: name, site } of pairs.values()) {
      const realm = this.#state.realms.get(name);
      for (const key of [...(realm?.uses.of(site).keys() ?? [])]) {
        this.fitLease(realm!, realm!.get(key)!);
      }
    }
  }

  #showOverlap({ key, value = [], version }: Change): void {
    const name = key.slice(OVERLAP_PREFIX.length);
    const { overlaps } = Overlaps.read({ key, value, version });
    this.#begun.delete(name);
    if (this.#state.realms.has(name)) this.#replaceOverlaps(name, value);
    else if (overlaps.isEmpty) this.#found.overlaps.delete(name);
    else this.#found.overlaps.set(name, overlaps);
  }

  #replaceOverlaps(name: string, value: Json): void {
    this.#begun.delete(name);
    this.#remake(name, Overlaps.read(entryOf(name, value)).overlaps);
  }

  /** Makes the leases of a realm anew with these overlaps. */
  #remake(name: string, overlaps: Overlaps): void {
    const site = this.#state.desired.sites.get(name);
    if (site === undefined) return;
    this.#renew(site, overlaps);
    const realm = this.#state.realms.get(name)!;
    for (const held of realm.all()) this.fitLease(realm, held);
    for (const held of realm.all()) this.#state.touchPlace(held);
  }

  #showLease({ key, realm: name, address, lease, version }: ShownLease): void {
    const { realms, releases, retired, clock } = this.#state;
    const realm = realms.get(name);
    const held = realm?.heldAt(address);
    if (lease !== undefined && lease.of === undefined) releases!.note(key, version);
    else if (lease === undefined && held !== undefined) releases!.note(key, version);
    else if (lease !== undefined || realm?.allocator.isResting(address) !== true) {
      releases!.delete(key);
    }
    if (realm === undefined) {
      this.#keep(name, address, lease);
    } else if (lease?.of !== undefined) {
      if (held?.key === lease.key) this.#used(realm, held);
      else this.#begin(realm, held, lease, name);
    } else {
      if (held !== undefined) this.#state.endOne(realm, held);
      if (lease === undefined) {
        retired.remove(name, address);
        return;
      }
      const lost = realm.adoptReleased(lease.key, address, clock.now());
      if (lost !== undefined) retired.add(name, lost);
      this.#state.touchPool(name, lease.key.slice(0, lease.key.indexOf('/')));
    }
  }

  /** Begins the use of an address. @param before its holder until now */
  #begin(
    realm: RealmLeases,
    before: HeldLease | undefined,
    { key, of, address }: FoundLease,
    name: string
  ): void {
    if (before !== undefined) this.#state.endOne(realm, before);
    this.#state.retired.remove(name, address);
    const isService = this.#state.desired.hostIn(name, key) !== undefined;
    const held = { realm: name, key, of: of!, address, isStored: false, isService };
    realm.adopt(held);
    if (realm.allOf(key).filter((each) => !realm.isOutside(each)).length > 1) {
      this.#unordered.add(name);
    }
    this.#state.touchPool(name, held.of.realm);
    this.fitLease(realm, held);
  }

  /** Notes that the use of a client's address was stored. */
  #used(realm: RealmLeases, held: HeldLease): void {
    const nowMs = this.#state.clock.now();
    const isNewest = realm.get(held.key) === held;
    if (isNewest && realm.uses.get(held.key) !== undefined) {
      this.#state.setUse(realm, held, nowMs, nowMs);
    }
  }

  /** Keeps a lease in mind whose site is not there. */
  #keep(name: string, address: IpAddress, lease: FoundLease | undefined): void {
    const others = this.#found.leases.get(name)?.filter((each) => !each.address.equals(address));
    const leases = [...(others ?? []), ...(lease === undefined ? [] : [lease])];
    if (lease === undefined) this.#state.retired.remove(name, address);
    if (leases.length === 0) this.#found.leases.delete(name);
    else this.#found.leases.set(name, leases);
  }
}

/** What the store shows of one address. */
interface ShownLease {
  readonly key: string;
  readonly realm: string;
  readonly address: IpAddress;
  /** Undefined if the entry is gone. */
  readonly lease: FoundLease | undefined;
  readonly version: number;
}

/** Returns nothing for an entry that is gone and was none of a lease. @throws {StoreError} if the entry is not a lease. */
function readChange(reader: LeaseReader, { key, value, version }: Change): ShownLease[] {
  if (value !== undefined) {
    const { realm, lease } = reader.read({ key, value, version });
    return [{ key, realm, address: lease.address, lease, version }];
  }
  const slash = key.indexOf('/', LEASE_PREFIX.length);
  const realm = key.slice(LEASE_PREFIX.length, Math.max(slash, 0));
  try {
    const address = IpAddress.parse(key.slice(slash + 1));
    return [{ key, realm, address, lease: undefined, version }];
  } catch {
    return [];
  }
}

function entryOf(name: string, value: Json): Entry {
  return { key: `${OVERLAP_PREFIX}${name}`, value, version: 0 };
}
