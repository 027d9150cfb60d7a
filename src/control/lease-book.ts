/**
 * The leases of all realms, and which of them are stored: only those may be used.
 *
 * An entry of the store, `lease/<realm>/<address>`, says which endpoint's the address is, and since when
 * it is nobody's any more. In memory a lease is under the key of the presence, for an endpoint may have
 * one of each IP version. `fit` and `admit` change leases in memory; `commit` stores the changes; what is
 * read here is in use *and* stored. What a failed commit has not stored goes with the next one. These
 * three are called one after the other; reading is possible at any time.
 * @module
 */
import * as v from 'valibot';
import { type Family, IpAddress } from '../address.ts';
import { AddressAllocator, type AllocatorStats, type Lease } from '../allocator/index.ts';
import { AllocatorError, PoolExhaustedError, QuotaExceededError, StoreError } from '../errors.ts';
import type { Site } from '../registry/index.ts';
import { parseSchema, type Schema } from '../schema.ts';
import type { Entry, Json, Store } from '../store/index.ts';
import type { Endpoint, Presence } from '../translator/index.ts';
import type { DesiredIndex, PresentService } from './desired-index.ts';
import {
  endpointKey,
  endpointOf,
  isCanonicalAddress,
  parseEndpoint,
  presenceKey,
  splitAtSlash,
} from './endpoint.ts';

export interface LeaseBookOptions {
  readonly store: Store;
  readonly quarantineMs: number;
  /** Wall clock in ms. */
  readonly now: () => number;
}

export class LeaseBook {
  readonly #options: LeaseBookOptions;
  readonly #realms = new Map<string, RealmLeases>();
  /** What the store had, by realm, until the pools are known. */
  readonly #found = new Map<string, Lease[]>();
  /** By key in the store: what the next commit brings. */
  readonly #pending = new Map<string, PendingWrite>();

  private constructor(options: LeaseBookOptions) {
    this.#options = options;
  }

  /** @throws {StoreError} if the store cannot be read, or has what is not a lease. */
  static async open(options: LeaseBookOptions): Promise<LeaseBook> {
    const book = new LeaseBook(options);
    const entries = await options.store.list(PREFIX);
    const holders = new Map<string, string>();
    for (const entry of entries) {
      const { realm, lease } = readLease(entry);
      if (lease.releasedAt === undefined) {
        const holder = `${realm} ${lease.key}`;
        const other = holders.get(holder);
        if (other !== undefined) {
          const endpoint = endpointOf(lease.key);
          throw new StoreError(`${other} and ${entry.key} in the store are both of ${endpoint}`);
        }
        holders.set(holder, entry.key);
      }
      const found = book.#found.get(realm);
      if (found === undefined) book.#found.set(realm, [lease]);
      else found.push(lease);
    }
    return book;
  }

  /**
   * Leases what the desired state asks for and releases what it does not, in memory.
   *
   * @returns what could not be had, by realm and IP version
   */
  fit(desired: DesiredIndex): ReadonlyMap<string, AllocatorError> {
    const problems = new Map<string, AllocatorError>();
    for (const name of [...this.#realms.keys(), ...this.#found.keys()]) {
      if (!desired.sites.has(name)) this.#drop(name);
    }
    for (const [name, site] of desired.sites) {
      const realm = this.#realmOf(site);
      const present = desired.presentIn(name);
      realm.services = new Set(present.map((each) => each.presenceKey));
      this.#release(name, realm, desired);
      this.#lease(name, realm, present, problems);
    }
    this.#found.clear();
    if (desired.transit !== undefined) this.#leaseTransit(desired.transit, desired, problems);
    for (const realm of this.#realms.values()) realm.countClients();
    return problems;
  }

  /**
   * Leases an address of `realm` to a client, in memory, unless it has one of that IP version.
   *
   * @throws {QuotaExceededError} if the client's site has `maxClients` of them there.
   * @throws {PoolExhaustedError} if no address is free.
   */
  admit(realm: string, client: Endpoint, family: Family, maxClients: number): void {
    const leases = this.#realms.get(realm)!;
    const endpoint = endpointKey(client);
    const key = presenceKey(endpoint, family);
    if (leases.allocator.lookup(key) !== undefined) return;
    const clients = leases.clientsOf(client.realm);
    if (!clients.has(endpoint) && clients.size >= maxClients) {
      throw new QuotaExceededError(
        `"${client.realm}" has ${clients.size} clients in "${realm}", as many as it may`
      );
    }
    this.#write(realm, leases.allocator.allocate(key, family));
    clients.add(endpoint);
  }

  /**
   * Stores all changes, in one commit. Returns false if there were none.
   *
   * @throws {StoreError} if that fails; they go with the next commit then.
   */
  async commit(): Promise<boolean> {
    const batch = [...this.#pending];
    if (batch.length === 0) return false;
    await this.#options.store.commit(batch.map(([key, { value }]) => ({ key, value })));
    for (const [key, { realm, lease }] of batch) {
      this.#pending.delete(key);
      if (lease !== undefined && lease.releasedAt === undefined)
        this.#realms.get(realm)?.use(lease);
    }
    return true;
  }

  /** Whether there are changes that no commit has stored yet. */
  get hasPending(): boolean {
    return this.#pending.size > 0;
  }

  /** The address in a realm of the presence that has this key. */
  address(realm: string, key: string): string | undefined {
    return this.#realms.get(realm)?.addresses.get(key);
  }

  /** Key of the endpoint that an address, in canonical form, stands for in a realm. */
  holder(realm: string, address: string): string | undefined {
    const key = this.#realms.get(realm)?.holders.get(address);
    return key === undefined ? undefined : endpointOf(key);
  }

  /** The presences in a realm: address by their key. */
  addressesIn(realm: string): ReadonlyMap<string, string> {
    return this.#realms.get(realm)?.addresses ?? NONE;
  }

  presences(): Presence[] {
    const presences: Presence[] = [];
    for (const [realm, { addresses }] of this.#realms) {
      for (const [key, address] of addresses) {
        presences.push({ realm, address, of: parseEndpoint(endpointOf(key)) });
      }
    }
    return presences;
  }

  stats(realm: string): AllocatorStats | undefined {
    return this.#realms.get(realm)?.allocator.stats;
  }

  /** The leases of a site, in pools that are as the site says now. */
  #realmOf(site: Site): RealmLeases {
    const definition = JSON.stringify([site.pools, site.reserved]);
    const before = this.#realms.get(site.name);
    if (before?.definition === definition) return before;
    const { quarantineMs, now } = this.#options;
    const { pools, reserved } = site;
    const allocator = new AddressAllocator({ pools, reserved, quarantineMs, now, groupOf });
    const realm = new RealmLeases(allocator, definition);
    const leases = before?.allocator.leases() ?? this.#found.get(site.name) ?? [];
    for (const lost of allocator.restore(leases)) this.#erase(site.name, lost.address);
    for (const lease of before === undefined ? allocator.leases() : []) {
      if (lease.releasedAt === undefined) realm.use(lease);
    }
    for (const [key, address] of before?.addresses ?? []) {
      if (allocator.lookup(key) !== undefined) realm.use({ key, address });
    }
    this.#realms.set(site.name, realm);
    return realm;
  }

  #drop(name: string): void {
    const leases = this.#realms.get(name)?.allocator.leases() ?? this.#found.get(name) ?? [];
    for (const { address } of leases) this.#erase(name, address);
    this.#realms.delete(name);
  }

  #release(name: string, realm: RealmLeases, desired: DesiredIndex): void {
    for (const { key, address, releasedAt } of realm.allocator.leases()) {
      if (releasedAt !== undefined || realm.services.has(key)) continue;
      const client = parseEndpoint(endpointOf(key));
      const real = IpAddress.parse(client.address);
      if (desired.isAdmitted(name, client.realm, real, familyOf(address))) continue;
      realm.disuse(key);
      this.#write(name, realm.allocator.release(key)!);
    }
  }

  #lease(
    name: string,
    realm: RealmLeases,
    present: readonly PresentService[],
    problems: Map<string, AllocatorError>
  ): void {
    const exhausted = new Map<Family, { readonly error: Error; readonly services: string[] }>();
    for (const { presenceKey: key, presenceFamily: family, service } of present) {
      if (realm.allocator.lookup(key) !== undefined) continue;
      const known = exhausted.get(family);
      if (known !== undefined) {
        known.services.push(service.name);
        continue;
      }
      try {
        this.#write(name, realm.allocator.allocate(key, family));
      } catch (error) {
        if (!(error instanceof AllocatorError)) throw error;
        exhausted.set(family, { error, services: [service.name] });
      }
    }
    for (const [family, { error, services }] of exhausted) {
      const more = services.length === 1 ? '' : ` and ${services.length - 1} more`;
      const message = `no presence in "${name}" for "${services[0]}"${more}: ${error.message}`;
      problems.set(`${name} IPv${family}`, new PoolExhaustedError(message));
    }
  }

  /** What has a presence in another site needs one on the way there too, so that the site may move. */
  #leaseTransit(
    transit: string,
    desired: DesiredIndex,
    problems: Map<string, AllocatorError>
  ): void {
    const { allocator } = this.#realms.get(transit) ?? {};
    if (allocator === undefined) return;
    for (const [name, realm] of this.#realms) {
      for (const { key, address, releasedAt } of realm.allocator.leases()) {
        if (releasedAt !== undefined || realm.services.has(key)) continue;
        const endpoint = endpointOf(key);
        const client = parseEndpoint(endpoint);
        const own = familyOf(client.address);
        const family = desired.transitFamily(name, client.realm, familyOf(address), own);
        if (family === undefined) continue;
        const transitKey = presenceKey(endpoint, family);
        if (allocator.lookup(transitKey) !== undefined) continue;
        try {
          this.#write(transit, allocator.allocate(transitKey, family));
        } catch (error) {
          if (!(error instanceof AllocatorError)) throw error;
          const message = `no presence in "${transit}" for clients of other sites: ${error.message}`;
          problems.set(`${transit} transit IPv${family}`, new PoolExhaustedError(message));
          return;
        }
      }
    }
  }

  #write(realm: string, lease: Lease): void {
    const { key, address, releasedAt } = lease;
    const value = {
      endpoint: endpointOf(key),
      ...(releasedAt === undefined ? {} : { releasedAt }),
    };
    this.#pending.set(leaseKey(realm, address), { realm, lease, value });
  }

  #erase(realm: string, address: string): void {
    this.#pending.set(leaseKey(realm, address), { realm, lease: undefined, value: undefined });
  }
}

/** The leases of one realm. */
class RealmLeases {
  readonly allocator: AddressAllocator;
  /** The pools they are of, as text. */
  readonly definition: string;
  /** In use and stored: address by the presence's key, and the other way round. */
  readonly addresses = new Map<string, string>();
  readonly holders = new Map<string, string>();
  /** Keys of the presences that are there because a service is exposed. */
  services: ReadonlySet<string> = new Set();
  /** By site: the endpoints that have a presence as clients only. */
  readonly #clients = new Map<string, Set<string>>();

  constructor(allocator: AddressAllocator, definition: string) {
    this.allocator = allocator;
    this.definition = definition;
  }

  use({ key, address }: Lease): void {
    this.addresses.set(key, address);
    this.holders.set(address, key);
  }

  disuse(key: string): void {
    const address = this.addresses.get(key);
    if (address === undefined) return;
    this.addresses.delete(key);
    this.holders.delete(address);
  }

  /** The clients of a site, to be read, and to be added to. */
  clientsOf(site: string): Set<string> {
    let clients = this.#clients.get(site);
    if (clients === undefined) {
      clients = new Set();
      this.#clients.set(site, clients);
    }
    return clients;
  }

  countClients(): void {
    this.#clients.clear();
    for (const { key, releasedAt } of this.allocator.leases()) {
      if (releasedAt !== undefined || this.services.has(key)) continue;
      const endpoint = endpointOf(key);
      this.clientsOf(parseEndpoint(endpoint).realm).add(endpoint);
    }
  }
}

interface PendingWrite {
  readonly realm: string;
  /** Undefined to delete the entry. */
  readonly lease: Lease | undefined;
  readonly value: Json | undefined;
}

interface StoredLease {
  readonly endpoint: string;
  readonly releasedAt?: number | undefined;
}

/** @throws {StoreError} if the entry is not a lease. */
function readLease({ key, value }: Entry): { realm: string; lease: Lease } {
  const [realm, address] = splitAtSlash(key.slice(PREFIX.length));
  let reason = `"${address}" is not an address`;
  try {
    const { endpoint, releasedAt } = parseSchema(StoredLeaseSchema, value);
    const isFree = releasedAt !== undefined;
    if (!isFree && !isCanonicalAddress(parseEndpoint(endpoint).address)) {
      reason = `"${endpoint}" is not an endpoint`;
    } else if (realm !== '' && isCanonicalAddress(address)) {
      const lease = { key: presenceKey(endpoint, familyOf(address)), address };
      return { realm, lease: isFree ? { ...lease, releasedAt } : lease };
    }
  } catch (error) {
    reason = (error as Error).message;
  }
  throw new StoreError(`${key} in the store is not a lease: ${reason}`);
}

function leaseKey(realm: string, address: string): string {
  return `${PREFIX}${realm}/${address}`;
}

/** One site's presences in a realm are kept together, so that few routes lead to the site. */
function groupOf(presence: string): string {
  return parseEndpoint(presence).realm;
}

function familyOf(address: string): Family {
  return IpAddress.parse(address).family;
}

const PREFIX = 'lease/';
const NONE: ReadonlyMap<string, string> = new Map();

const StoredLeaseSchema: Schema<StoredLease> = v.strictObject({
  endpoint: v.string(),
  releasedAt: v.optional(v.number()),
}) as Schema<StoredLease>;
