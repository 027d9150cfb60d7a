/**
 * Derives presences, the translator's plan and every site's snapshot from the desired state.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import { IpAddress, IpPrefix } from '../address.ts';
import { AddressAllocator, type AllocatorStats, type Lease } from '../allocator/index.ts';
import { AllocatorError, ApiMisuseError, QuotaExceededError } from '../errors.ts';
import {
  type DesiredState,
  type Exposure,
  exposureName,
  type Registry,
  type Service,
  type Site,
} from '../registry/index.ts';
import type { Json, Store, Write } from '../store/index.ts';
import type { Endpoint, Permit, Presence, TranslationPlan } from '../translator/index.ts';
import type { Snapshot, SnapshotHost } from './snapshot.ts';

/** What the controller tells its plan to; `PacketTranslator` is one. */
export interface PlanTarget {
  load(plan: TranslationPlan): void;
  bind(presence: Presence): void;
}

export interface PresenceControllerOptions {
  readonly registry: Registry;
  /** Keeps the leases. */
  readonly store: Store;
  readonly translator: PlanTarget;
  /** TTL of the names' addresses in DNS. */
  readonly ttlSeconds?: number;
  /** How long a released address rests, in ms; at least the TTL. */
  readonly quarantineMs?: number;
  /** How long changes of one site are gathered before its snapshot is made, in ms. */
  readonly coalesceMs?: number;
  /** Sites whose certificates are revoked at the start. */
  readonly blocked?: Iterable<string>;
  /** Wall clock in ms. */
  readonly now?: () => number;
}

export interface PresenceControllerEvents {
  /** A site's snapshot has changed. */
  snapshot: [snapshot: Snapshot];
  /** A presence could not be had; the rest of the state is in force all the same. */
  problem: [error: Error];
}

/** Whom a presence stands for. */
export interface Whois {
  readonly site: string;
  readonly address: string;
  /** Services at home there. */
  readonly services: readonly string[];
}

/**
 * One per cloud. Changes are serialised, and derived anew from the whole desired state; a client that
 * appears is added alone.
 */
export class PresenceController extends EventEmitter<PresenceControllerEvents> {
  readonly #registry: Registry;
  readonly #store: Store;
  readonly #translator: PlanTarget;
  readonly #ttlSeconds: number;
  readonly #quarantineMs: number;
  readonly #coalesceMs: number;
  readonly #now: () => number;
  readonly #blocked: Set<string>;
  readonly #realms = new Map<string, RealmPool>();
  readonly #snapshots = new Map<string, Snapshot>();
  readonly #dirty = new Set<string>();
  readonly #admissions = new Map<string, Promise<void>>();
  #arrivals: Arrival[] = [];
  /** Lease changes that no commit has taken yet; more than one commit's worth only after a failure. */
  #unstored: Write[] = [];
  #revision: number;
  #work: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(options: PresenceControllerOptions) {
    super();
    const ttlSeconds = options.ttlSeconds ?? 30;
    const quarantineMs = options.quarantineMs ?? 2000 * ttlSeconds;
    if (quarantineMs < 1000 * ttlSeconds) {
      throw new ApiMisuseError(
        `quarantineMs ${quarantineMs} is shorter than the TTL of ${ttlSeconds} s: cached names would lead to other hosts`
      );
    }
    this.#registry = options.registry;
    this.#store = options.store;
    this.#translator = options.translator;
    this.#ttlSeconds = ttlSeconds;
    this.#quarantineMs = quarantineMs;
    this.#coalesceMs = options.coalesceMs ?? 20;
    this.#now = options.now ?? Date.now;
    this.#blocked = new Set(options.blocked);
    this.#revision = this.#now();
  }

  /**
   * Reads the leases and derives everything once; then follows the registry.
   *
   * @throws {StoreError} if the store cannot be read or written.
   */
  static async start(options: PresenceControllerOptions): Promise<PresenceController> {
    const controller = new PresenceController(options);
    await controller.#readLeases();
    await controller.#derive();
    options.registry.on('change', controller.#onChange);
    return controller;
  }

  /** Returns a site's view as it is now; undefined for a site that is not there, or is blocked. */
  snapshot(site: string): Snapshot | undefined {
    this.#publish();
    return this.#snapshots.get(site);
  }

  /**
   * Gives the host `source` of the site `ingress` a presence in the site `egress`. When it resolves,
   * the presence is stored and bound; hosts that ask at the same time share one commit.
   *
   * @throws {QuotaExceededError} if the site has as many clients there as it may.
   * @throws {PoolExhaustedError} if the egress site has no address left.
   * @throws {StoreError} if it cannot be stored.
   */
  admit(ingress: string, source: string, egress: string): Promise<void> {
    const key = `${egress}|${ingress}/${source}`;
    let admission = this.#admissions.get(key);
    if (admission === undefined) {
      admission = new Promise<void>((resolve, reject) => {
        this.#arrivals.push({ ingress, source, egress, resolve, reject });
        if (this.#arrivals.length === 1) this.#serialise(() => this.#admitArrivals());
      }).finally(() => this.#admissions.delete(key));
      this.#admissions.set(key, admission);
    }
    return admission;
  }

  /**
   * Takes a site out of, or back into, the plan: at once, in this call. Its addresses are kept.
   */
  setBlocked(site: string, isBlocked: boolean): void {
    if (isBlocked) this.#blocked.add(site);
    else this.#blocked.delete(site);
    this.#load();
  }

  /** Says whom an address stands for in a site. */
  whois(site: string, address: string): Whois | undefined {
    const lease = this.#realms.get(site)?.allocator.holder(IpAddress.parse(address).toString());
    if (lease === undefined) return undefined;
    const endpoint = parseEndpoint(lease.key);
    const services = this.#registry.state.services
      .filter((service) => endpointKey(homeOf(service)) === lease.key)
      .map(({ name }) => name);
    return { site: endpoint.realm, address: endpoint.address, services };
  }

  /** Lists the presences in use. */
  presences(): Presence[] {
    return [...this.#realms].flatMap(([realm, { allocator }]) =>
      allocator
        .leases()
        .filter(({ releasedAt }) => releasedAt === undefined)
        .map(({ key, address }) => ({ realm, address, of: parseEndpoint(key) }))
    );
  }

  poolStats(site: string): AllocatorStats | undefined {
    return this.#realms.get(site)?.allocator.stats;
  }

  /** Waits for what is under way and follows the registry no more. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#registry.off('change', this.#onChange);
    clearTimeout(this.#timer);
    await this.#work;
  }

  readonly #onChange = (): void => {
    this.#serialise(async () => {
      try {
        await this.#derive();
      } catch (error) {
        this.emit('problem', error as Error);
      }
    });
  };

  #serialise(work: () => Promise<void>): void {
    this.#work = this.#work.then(work);
  }

  async #readLeases(): Promise<void> {
    for (const { key, value } of await this.#store.list(LEASES)) {
      const [realm, address] = split(key.slice(LEASES.length));
      const { endpoint, releasedAt } = value as unknown as StoredLease;
      const pool = this.#realms.get(realm) ?? new RealmPool([], [], this.#quarantineMs, this.#now);
      pool.stored.push({
        key: endpoint,
        address,
        ...(releasedAt === undefined ? {} : { releasedAt }),
      });
      this.#realms.set(realm, pool);
    }
  }

  /** Makes leases fit the desired state, stores them, and only then puts them to use. */
  async #derive(): Promise<void> {
    const { state } = this.#registry;
    const writes: Write[] = [];
    const sites = new Map(state.sites.map((site) => [site.name, site]));
    for (const site of state.sites) {
      const pool = this.#realms.get(site.name);
      if (pool?.fits(site) === true) continue;
      const next = new RealmPool(site.pools, site.reserved, this.#quarantineMs, this.#now);
      const lost = next.allocator.restore([
        ...(pool?.allocator.leases() ?? []),
        ...(pool?.stored ?? []),
      ]);
      for (const lease of lost) writes.push(deletion(site.name, lease));
      this.#realms.set(site.name, next);
    }
    for (const [name, pool] of this.#realms) {
      if (sites.has(name)) continue;
      for (const lease of [...pool.allocator.leases(), ...pool.stored]) {
        writes.push(deletion(name, lease));
      }
      this.#realms.delete(name);
      this.#snapshots.delete(name);
    }
    for (const [name, pool] of this.#realms) this.#fit(name, pool, state, writes);
    await this.#commit(writes);
    this.#load();
  }

  /** What a failed commit has not stored goes with the next one, so that nothing is used unstored. */
  async #commit(writes: readonly Write[]): Promise<void> {
    this.#unstored.push(...writes);
    const batch = this.#unstored.length;
    if (batch === 0) return;
    await this.#store.commit(this.#unstored);
    this.#unstored = this.#unstored.slice(batch);
  }

  /** Leases what a site's exposures ask for, and releases what nothing asks for any more. */
  #fit(name: string, pool: RealmPool, state: DesiredState, writes: Write[]): void {
    const services = new Map(state.services.map((service) => [service.name, service]));
    const wanted = new Set<string>();
    for (const exposure of state.exposures) {
      if (exposure.site === name) wanted.add(endpointKey(homeOf(services.get(exposure.service)!)));
    }
    pool.services = wanted;
    const clientsOf = state.exposures.filter(({ service }) => services.get(service)!.site === name);
    for (const lease of pool.allocator.leases()) {
      if (lease.releasedAt !== undefined || wanted.has(lease.key)) continue;
      const client = parseEndpoint(lease.key);
      if (clientsOf.some((exposure) => admits(exposure, client, state))) continue;
      writes.push(leaseWrite(name, pool.allocator.release(lease.key)!));
    }
    for (const key of wanted) {
      if (pool.allocator.lookup(key) !== undefined) continue;
      try {
        const lease = pool.allocator.allocate(
          key,
          IpAddress.parse(parseEndpoint(key).address).family
        );
        writes.push(leaseWrite(name, lease));
      } catch (error) {
        if (!(error instanceof AllocatorError)) throw error;
        this.emit('problem', error);
      }
    }
  }

  /** Leases addresses to the clients that have arrived since the last turn, in one commit. */
  async #admitArrivals(): Promise<void> {
    const arrivals = this.#arrivals;
    this.#arrivals = [];
    const admitted: { arrival: Arrival; presence: Presence }[] = [];
    const writes: Write[] = [];
    for (const arrival of arrivals) {
      try {
        const { lease, isNew } = this.#leaseTo(arrival);
        if (isNew) writes.push(leaseWrite(arrival.egress, lease));
        const of = { realm: arrival.ingress, address: arrival.source };
        admitted.push({ arrival, presence: { realm: arrival.egress, address: lease.address, of } });
      } catch (error) {
        arrival.reject(error);
      }
    }
    try {
      await this.#commit(writes);
    } catch (error) {
      for (const { arrival, presence } of admitted) {
        const lease = this.#realms.get(presence.realm)?.allocator.release(endpointKey(presence.of));
        if (lease !== undefined) this.#unstored.push(leaseWrite(presence.realm, lease));
        arrival.reject(error);
      }
      return;
    }
    for (const { arrival, presence } of admitted) {
      try {
        this.#translator.bind(presence);
        this.#markDirty(presence.realm);
        arrival.resolve();
      } catch (error) {
        arrival.reject(error);
      }
    }
  }

  #leaseTo({ ingress, source, egress }: Arrival): { lease: Lease; isNew: boolean } {
    const site = this.#registry.site(ingress);
    const pool = this.#realms.get(egress);
    if (site === undefined || pool === undefined || this.#blocked.has(ingress)) {
      throw new ApiMisuseError(`"${ingress}" or "${egress}" is not, or no longer, a site`);
    }
    const key = endpointKey({ realm: ingress, address: source });
    const known = pool.allocator.lookup(key);
    if (known !== undefined) return { lease: known, isNew: false };
    if (pool.clientsOf(ingress) >= site.maxClients) {
      throw new QuotaExceededError(
        `${ingress} has ${site.maxClients} clients in ${egress}, as many as it may`
      );
    }
    const lease = pool.allocator.allocate(key, IpAddress.parse(source).family);
    return { lease, isNew: true };
  }

  /** Gives the translator the plan, and marks every snapshot for renewal. */
  #load(): void {
    const { state } = this.#registry;
    const isLive = (realm: string) => this.#realms.has(realm) && !this.#blocked.has(realm);
    const live = this.#liveExposures();
    this.#translator.load({
      realms: state.sites
        .filter(({ name }) => isLive(name))
        .map(({ name, sources, pools }) => ({ name, sources, pools })),
      presences: this.presences().filter(({ realm, of }) => isLive(realm) && isLive(of.realm)),
      permits: live.map(({ exposure, service }): Permit => {
        const { site: realm, clients } = exposure;
        const permit = { realm, service: homeOf(service), ports: service.ports };
        return clients === undefined ? permit : { ...permit, clients };
      }),
    });
    for (const name of this.#realms.keys()) this.#markDirty(name);
  }

  #liveExposures(): { exposure: Exposure; service: Service }[] {
    const { services, exposures } = this.#registry.state;
    const byName = new Map(services.map((service) => [service.name, service]));
    return exposures.flatMap((exposure) => {
      const service = byName.get(exposure.service);
      const isLive =
        service !== undefined &&
        !this.#blocked.has(exposure.site) &&
        !this.#blocked.has(service.site) &&
        this.#realms.has(exposure.site) &&
        this.#realms.has(service.site);
      return isLive ? [{ exposure, service }] : [];
    });
  }

  #markDirty(site: string): void {
    this.#dirty.add(site);
    if (this.#timer !== undefined || this.#closed) return;
    this.#timer = setTimeout(() => this.#publish(), this.#coalesceMs);
    this.#timer.unref();
  }

  #publish(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const sites = [...this.#dirty];
    this.#dirty.clear();
    for (const name of sites) {
      const site = this.#registry.site(name);
      if (site === undefined || this.#blocked.has(name)) {
        this.#snapshots.delete(name);
        continue;
      }
      const before = this.#snapshots.get(name);
      const snapshot = this.#snapshotOf(site, before?.revision ?? 0);
      if (before !== undefined && JSON.stringify(before) === JSON.stringify(snapshot)) continue;
      const next = { ...snapshot, revision: ++this.#revision };
      this.#snapshots.set(name, next);
      this.emit('snapshot', next);
    }
  }

  #snapshotOf(site: Site, revision: number): Snapshot {
    const { allocator } = this.#realms.get(site.name)!;
    const hosts: SnapshotHost[] = [];
    const names = new Map<string, string>();
    for (const { exposure, service } of this.#liveExposures()) {
      if (exposure.site !== site.name) continue;
      const lease = allocator.lookup(endpointKey(homeOf(service)));
      if (lease === undefined) continue;
      const name = exposureName(exposure, site);
      hosts.push({ name, addresses: [lease.address], ports: service.ports });
      if (!names.has(lease.address)) names.set(lease.address, name);
    }
    for (const lease of allocator.leases()) {
      const { realm, address } = parseEndpoint(lease.key);
      if (lease.releasedAt !== undefined || names.has(lease.address) || this.#blocked.has(realm)) {
        continue;
      }
      // A client has no name of its own: its address and its site make one.
      const name = `${address.replace(/[.:]+/g, '-').replace(/^-|-$/g, '')}.${realm}.${site.zone}`;
      names.set(lease.address, name);
      hosts.push({ name, addresses: [lease.address], ports: [] });
    }
    return {
      revision,
      site: site.name,
      sources: site.sources,
      pools: site.pools,
      zone: site.zone,
      ttlSeconds: this.#ttlSeconds,
      hosts,
      pointers: [...names].map(([address, name]) => ({ address, name })),
    };
  }
}

/** The addresses of one site. */
class RealmPool {
  readonly allocator: AddressAllocator;
  /** Leases read from the store, until the site's pools are known. */
  readonly stored: Lease[] = [];
  /** Endpoints that have a presence because a service there is exposed. */
  services: ReadonlySet<string> = new Set();
  readonly #definition: string;

  constructor(
    pools: readonly string[],
    reserved: readonly string[],
    quarantineMs: number,
    now: () => number
  ) {
    this.allocator = new AddressAllocator({ pools, reserved, quarantineMs, now });
    this.#definition = JSON.stringify([pools, reserved]);
  }

  fits({ pools, reserved }: Site): boolean {
    return this.stored.length === 0 && this.#definition === JSON.stringify([pools, reserved]);
  }

  /** How many hosts of `site` have a presence here as clients. */
  clientsOf(site: string): number {
    return this.allocator
      .leases()
      .filter(
        ({ key, releasedAt }) =>
          releasedAt === undefined && !this.services.has(key) && key.startsWith(`${site}/`)
      ).length;
  }
}

interface Arrival {
  readonly ingress: string;
  readonly source: string;
  readonly egress: string;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface StoredLease {
  readonly endpoint: string;
  readonly releasedAt?: number;
}

/** Whether the exposure lets the client in, by its site and address. */
function admits(exposure: Exposure, client: Endpoint, state: DesiredState): boolean {
  if (exposure.site !== client.realm) return false;
  const address = IpAddress.parse(client.address);
  const prefixes =
    exposure.clients ?? state.sites.find(({ name }) => name === client.realm)?.sources ?? [];
  return prefixes.some((text) => IpPrefix.parse(text).contains(address));
}

function homeOf(service: Service): Endpoint {
  return { realm: service.site, address: IpAddress.parse(service.address).toString() };
}

function endpointKey({ realm, address }: Endpoint): string {
  return `${realm}/${address}`;
}

function parseEndpoint(key: string): Endpoint {
  const [realm, address] = split(key);
  return { realm, address };
}

/** Splits at the first slash. */
function split(text: string): [string, string] {
  const at = text.indexOf('/');
  return [text.slice(0, at), text.slice(at + 1)];
}

function leaseWrite(site: string, { key, address, releasedAt }: Lease): Write {
  const value = { endpoint: key, ...(releasedAt === undefined ? {} : { releasedAt }) };
  return { key: `${LEASES}${site}/${address}`, value: value as Json };
}

function deletion(site: string, { address }: Lease): Write {
  return { key: `${LEASES}${site}/${address}`, value: undefined };
}

const LEASES = 'lease/';
