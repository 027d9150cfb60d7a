/**
 * Compares the pools of a gateway's own site with what its machine uses itself, and warns of each conflict: the traffic
 * to an address of both goes either to a presence or to the machine's own destination, and never to both.
 *
 * Only a gateway with a TUN is checked, at its start and when the pools change. With any other device, the kernel does
 * not route the pools to the gateway, so that nothing of the machine can be in conflict with them.
 * @module
 */
import type { IpPrefix } from '../base/prefix.ts';
import {
  type HostAddress,
  type HostPrefixes,
  type HostRoute,
  readHostPrefixes,
} from '../device/host-prefixes.ts';
import { isPacketDevice, LinuxTun, type TunDeviceOptions } from '../device/index.ts';
import type { Logger } from '../observe/index.ts';
import type { ResolvedCommonOptions } from './common-options.ts';

/** What the check needs to know of the gateway's TUN. */
type OwnTun = Pick<TunDeviceOptions, 'name' | 'proxyArp' | 'lan'>;

/** Something that the machine of a gateway uses itself, and that overlaps a pool. */
export interface HostConflict {
  /** `interface`: an address or the network of an interface; `route`: a route of the kernel; `resolver`: a name server. */
  readonly kind: 'interface' | 'route' | 'resolver';
  readonly pool: string;
  /** An address or a prefix, with its interface: `10.0.0.1 (lan0)`; only the address if it is a resolver's. */
  readonly subject: string;
  /** One sentence that says what is in conflict, what follows and what to do. */
  readonly message: string;
}

/**
 * Returns the conflicts of each pool. These are conflicts:
 *
 * - The pool contains the address of an interface, or of a resolver.
 * - A route leads to a part of the pool, or to the whole pool.
 * - The pool is a part of the network of an interface that is none of `lans`, or of the prefix of a route. Only the
 *   longest such prefix counts, because it has the traffic without the pool. Default routes do not count.
 *
 * @param lans the interfaces of the LAN that the gateway serves: a pool may be a part of their networks, because the
 *   gateway answers ARP for it there, or the hosts have a route to the gateway. Default none.
 */
export function hostConflicts(
  pools: readonly IpPrefix[],
  host: HostPrefixes,
  lans: readonly string[] = []
): HostConflict[] {
  return pools.flatMap((pool) => [
    ...addressConflicts(pool, host),
    ...routeConflicts(pool, host),
    ...coverConflicts(pool, host, lans),
    ...resolverConflicts(pool, host),
  ]);
}

/** The check of one gateway, which remembers what it has warned of. */
export class HostCheck {
  readonly #tun: OwnTun | undefined;
  readonly #logger: Logger;
  /** The pools that were checked last, joined by commas. */
  #checked = '';
  #conflicts: readonly HostConflict[] = [];
  /** The checks, one after the other. */
  #work: Promise<void> = Promise.resolve();

  constructor({ device, logger }: Pick<ResolvedCommonOptions, 'device' | 'logger'>) {
    this.#tun = tunOf(device);
    this.#logger = logger;
  }

  /** The conflicts of the last check, at most 20. */
  get conflicts(): readonly HostConflict[] {
    return this.#conflicts;
  }

  /**
   * Reads the machine and warns of new conflicts. If the pools are those of the last call, nothing is read. Never
   * rejects. Must be called before the pools are routed: a route to the same prefix would be replaced.
   */
  check(pools: readonly IpPrefix[]): Promise<void> {
    const tun = this.#tun;
    // Changes are frequent, and each check starts programs.
    if (tun !== undefined && pools.join() !== this.#checked) {
      this.#checked = pools.join();
      this.#work = this.#work.then(() => this.#compare(pools, tun));
    }
    return this.#work;
  }

  async #compare(pools: readonly IpPrefix[], tun: OwnTun): Promise<void> {
    const host = await readHostPrefixes(tun.name);
    const found = hostConflicts(pools, host, [...(tun.proxyArp ?? []), ...(tun.lan ?? [])]);
    const known = new Set(this.#conflicts.map(({ message }) => message));
    this.#conflicts = found.slice(0, MAX_CONFLICTS);
    for (const { message, kind, pool, subject } of this.#conflicts) {
      if (known.has(message)) continue;
      const fields = { event: 'pool_conflict', kind, pool, subject } as const;
      this.#logger.warn(fields, `pools: ${message}`);
    }
    const more = found.length - MAX_CONFLICTS;
    if (more > 0) {
      const text = `pools: ${more} more conflicts with this host are not shown`;
      this.#logger.warn({ event: 'pool_conflicts_hidden' }, text);
    }
    for (const what of host.unread) {
      const text = `pools: they are not compared with ${what}, which cannot be read`;
      this.#logger.warn({ event: 'pool_check_failed' }, text);
    }
  }
}

function addressConflicts(pool: IpPrefix, { interfaces }: HostPrefixes): HostConflict[] {
  return interfaces
    .filter(({ address }) => pool.contains(address))
    .map(({ device, address }) => ({
      kind: 'interface',
      pool: `${pool}`,
      subject: `${address} (${device})`,
      message: `the pool ${pool} contains ${address}, the address of the interface ${device} of this host: packets to it stay in this host and reach no presence; take a pool without this address`,
    }));
}

function routeConflicts(pool: IpPrefix, { interfaces, routes }: HostPrefixes): HostConflict[] {
  return routes
    .filter(({ prefix }) => prefix.length >= pool.length && pool.contains(prefix.base))
    .filter((route) => !interfaces.some((each) => isRouteOf(each, route)))
    .map((route) => {
      const { prefix } = route;
      const message =
        prefix.length === pool.length
          ? `the pool ${pool} has a route of this host already, ${leadingTo(route)}: either the presences or the hosts behind that route cannot be reached from here; take another pool, or remove the route`
          : `the pool ${pool} contains ${prefix}, for which this host has a route ${leadingTo(route)}: packets to presences there take that route; take another pool, or remove the route`;
      return routeConflict(pool, route, message);
    });
}

function coverConflicts(
  pool: IpPrefix,
  { interfaces, routes }: HostPrefixes,
  lans: readonly string[]
): HostConflict[] {
  const covers = (prefix: IpPrefix): boolean =>
    prefix.length < pool.length && prefix.contains(pool.base);
  const around = interfaces.filter(({ network }) => covers(network));
  const leading = routes.filter(
    ({ prefix, device }) =>
      device !== undefined && prefix.length > MAX_DEFAULT_LENGTH[pool.family] && covers(prefix)
  );
  const lengths = [...around.map(({ network }) => network), ...leading.map(({ prefix }) => prefix)];
  const longest = Math.max(...lengths.map(({ length }) => length));
  const networks = around.filter(
    // The address of the interface itself is reported when it is in the pool.
    ({ network, device, address }) =>
      network.length === longest && !lans.includes(device) && !pool.contains(address)
  );
  const others = leading.filter(
    (route) =>
      route.prefix.length === longest &&
      !(route.via === undefined && lans.includes(route.device!)) &&
      !around.some((each) => isRouteOf(each, route))
  );
  return [
    ...networks.map(
      ({ device, network }): HostConflict => ({
        kind: 'interface',
        pool: `${pool}`,
        subject: `${network} (${device})`,
        message: `the pool ${pool} is a part of ${network}, the network of the interface ${device} of this host: hosts of that network whose addresses are in the pool cannot be reached from here; take a pool outside of it, or, if the pool is taken from that network for presences, name ${device} in device.proxyArp or device.lan`,
      })
    ),
    ...others.map((route) =>
      routeConflict(
        pool,
        route,
        `the pool ${pool} is a part of ${route.prefix}, for which this host has a route ${leadingTo(route)}: hosts behind that route whose addresses are in the pool cannot be reached from here; take another pool if there are such hosts`
      )
    ),
  ];
}

function resolverConflicts(pool: IpPrefix, { resolvers }: HostPrefixes): HostConflict[] {
  return resolvers
    .filter((address) => pool.contains(address))
    .map((address) => ({
      kind: 'resolver',
      pool: `${pool}`,
      subject: `${address}`,
      message: `the pool ${pool} contains ${address}, a resolver of this host: its queries go to the pool and not to the resolver; take another pool, or name another resolver in /etc/resolv.conf`,
    }));
}

function routeConflict(pool: IpPrefix, route: HostRoute, message: string): HostConflict {
  const { prefix, device } = route;
  const subject = device === undefined ? `${prefix}` : `${prefix} (${device})`;
  return { kind: 'route', pool: `${pool}`, subject, message };
}

/** Returns whether the kernel has made the route for the network of the interface. */
function isRouteOf({ device, network }: HostAddress, { prefix, ...route }: HostRoute): boolean {
  const isSame = network.length === prefix.length && network.contains(prefix.base);
  return isSame && device === route.device && route.via === undefined;
}

function leadingTo({ device, via }: HostRoute): string {
  if (device === undefined) return 'that leads nowhere';
  return via === undefined ? `to ${device}` : `to ${device} via ${via}`;
}

/** Returns the TUN of a gateway; undefined if its device is another one. */
function tunOf(device: ResolvedCommonOptions['device']): OwnTun | undefined {
  if (isPacketDevice(device)) return device instanceof LinuxTun ? device : undefined;
  return device.type === 'tun' ? device : undefined;
}

/** Bounds what a pool with thousands of routes in it makes. */
const MAX_CONFLICTS = 20;
/** Some programs divide a default route into two halves; 2000::/3 has all public IPv6 addresses. */
const MAX_DEFAULT_LENGTH: Readonly<Record<4 | 6, number>> = { 4: 1, 6: 3 };
