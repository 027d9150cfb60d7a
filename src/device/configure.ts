/**
 * Sets the addresses and routes of a TUN interface with the command `ip` of iproute2, and forwarding between the
 * TUN and the LAN.
 * @module
 */
import { existsSync } from 'node:fs';
import { bitsOf, IpAddress } from '../base/address.ts';
import { IpPrefix, type PrefixInput } from '../base/prefix.ts';
import { ApiMisuseError, EnvironmentError } from '../errors.ts';
import { checkMtu, checkTexts, checkType, checkWhole } from './contract.ts';
import { checkRuleName } from './gateway-table.ts';
import { ip, ipBatch } from './ip-command.ts';
import {
  flushRoutes,
  HostRoutes,
  MAX_METRIC,
  NO_SUCH_ROUTE,
  ROUTE_PROTOCOL,
  type TunRoutes,
  type TunSetup,
} from './tun-routes.ts';
import { checkTunName } from './tun-setup.ts';

export interface TunConfiguration extends TunRoutes {
  /** The interface, which must exist. */
  readonly name: string;
  /**
   * Further TUNs of the same gateway, which must exist too: `changeRoutes` may route parts of the prefixes
   * to them. All options except `addresses` and `mtu` apply to them as to `name`. Default none.
   */
  readonly otherTuns?: readonly string[];
  /** The MTU in bytes. Default: it is not changed. */
  readonly mtu?: number;
  /** The addresses of the interface, each with its prefix length: `192.0.2.1/32`. Default none. */
  readonly addresses?: readonly string[];
  /**
   * LAN interfaces at which the kernel answers ARP, without a delay, for all addresses that it routes to other
   * interfaces. This holds for IPv4 only. For IPv6 the kernel answers for single addresses, which
   * `ip -6 neighbour add proxy ADDRESS dev LAN` adds; see `proxyNdp`. Default none.
   */
  readonly proxyArp?: readonly string[];
  /**
   * The interfaces among `lan` and `proxyArp` at which the kernel answers neighbour solicitations, without a delay, for the
   * addresses with an entry of `ip -6 neighbour add proxy`, if one of the prefixes is of IPv6. Default none.
   */
  readonly proxyNdp?: readonly string[];
  /**
   * The interfaces of the LAN, besides those in `proxyArp`. The kernel then forwards between them and the
   * TUN, for the IP versions of the prefixes, and nothing passes between the TUN and any other interface.
   * Packets whose source is in one of the prefixes are dropped if they come from an interface other than the
   * TUN. Forwarding between other interfaces does not change. With an empty list nothing is forwarded to and
   * from the TUN; without the list, forwarding is not changed at all.
   */
  readonly lan?: readonly string[];
  /**
   * Further interfaces, of a network that only the machines of the same cloud are on. They are as those of `lan`, but
   * packets whose source is in one of the prefixes are accepted from there, because another machine may hold their
   * sites. They count only with `lan`. Default none.
   */
  readonly transit?: readonly string[];
  /**
   * Called with one sentence when another program has removed the rules while the gateway runs, which is checked
   * every 5 s. The rules are installed again in any case. By default nothing is called.
   */
  readonly onProblem?: (problem: string) => void;
}

/** A route that `changeRoutes` sets or removes. */
export interface RouteSetting {
  readonly prefix: PrefixInput;
  /** The interface of the route; `undefined` removes the route. */
  readonly device: string | undefined;
  /**
   * The metric, from 1 to 2^32 - 1. Of several routes of a prefix the kernel uses the one with the smallest metric, and
   * a routing daemon may announce it. Routes with different metrics exist beside each other. Default: that of the
   * kernel; a removal without it removes one route, whatever its metric.
   */
  readonly metric?: number | undefined;
}

/**
 * Sets what the configuration lists, changes nothing else, and sets the interface up. The same call again
 * changes nothing. Needs CAP_NET_ADMIN, and nftables (the command `nft`) if `lan` is given.
 *
 * Rules and settings of a process that was killed stay; the next call for the same interface takes them
 * over. When a second call in one process fails, the rules and settings of the first stay in force.
 * `docs/threat-model.md` lists everything that is set on the machine.
 *
 * @throws {ApiMisuseError} if a name, an address, a prefix or the MTU is invalid.
 * @throws {EnvironmentError} if a LAN interface does not exist (nothing is changed then), `ip` is missing or fails
 *   (the message has what it printed), a setting cannot be written, `nft` does not answer, or IPv6 would have to be
 *   forwarded without rules on a machine that does not forward it yet.
 */
export async function configureTun(configuration: TunConfiguration): Promise<TunSetup> {
  const { name, otherTuns = [], mtu, addresses = [], proxyArp = [], lan } = configuration;
  const { proxyNdp = [], transit = [], onProblem = () => {} } = configuration;
  const lists = { otherTuns, addresses, proxyArp, proxyNdp, lan, transit };
  for (const [option, value] of Object.entries(lists)) {
    checkTexts(option, value);
  }
  checkType('onProblem', onProblem, 'function');
  const lans = lan && [...new Set([...lan, ...proxyArp, ...transit])];
  const tuns = [name, ...otherTuns];
  for (const each of [...tuns, ...(lans ?? [...proxyArp, ...transit]), ...proxyNdp]) {
    checkTunName(each);
    if (lans !== undefined) checkRuleName(each);
  }
  if (mtu !== undefined) checkMtu(mtu);
  for (const address of addresses) checkInterfaceAddress(address);
  const routes = new HostRoutes(
    { tuns, lans, proxyArp, proxyNdp, transit, onProblem },
    configuration
  );
  for (const each of [...(lans ?? proxyArp), ...proxyNdp]) checkInterface(each);

  const mtuArguments = mtu === undefined ? [] : ['mtu', String(mtu)];
  await ip('link', 'set', 'dev', name, ...mtuArguments, 'up');
  for (const address of addresses) await ip('address', 'replace', address, 'dev', name);
  await routes.open();
  return routes;
}

/**
 * Sets and removes routes in this order, with one command. Removing a route that does not exist is no error.
 *
 * @throws {ApiMisuseError} if a name, a prefix or a metric is invalid; nothing is changed then.
 * @throws {EnvironmentError} if `ip` is missing or refuses a route; the others are changed then.
 */
export async function changeRoutes(settings: readonly RouteSetting[]): Promise<void> {
  const lines = settings.map(({ prefix, device, metric }) => {
    const checked = IpPrefix.from(prefix);
    if (metric !== undefined) checkWhole('metric', metric, 1, MAX_METRIC);
    const which = `proto ${ROUTE_PROTOCOL}${metric === undefined ? '' : ` metric ${metric}`}`;
    if (device === undefined) return `route delete ${checked} ${which}`;
    checkTunName(device);
    return `route replace ${checked} dev ${device} ${which}`;
  });
  if (lines.length === 0) return;
  await ipBatch(lines, NO_SUCH_ROUTE);
}

/** Removes all routes within a prefix that `changeRoutes`, `unreachable` and `blackhole` have set. */
export async function forgetRoutes(within: PrefixInput): Promise<void> {
  await flushRoutes(IpPrefix.from(within));
}

/** Checks an address with its prefix length; `IpPrefix` does not accept host bits. */
function checkInterfaceAddress(text: string): void {
  const [address, length, ...rest] = text.split('/');
  const bits = bitsOf(IpAddress.parse(address!).family);
  if (rest.length > 0 || !/^\d{1,3}$/.test(length ?? '') || Number(length) > bits) {
    throw new ApiMisuseError(`"${text}" is not an address with its prefix length`);
  }
}

/** Checks that the interface exists. `all` and `default` have settings, but are no interfaces. */
function checkInterface(name: string): void {
  const isName = name !== 'all' && name !== 'default';
  if (isName && existsSync(`/proc/sys/net/ipv4/conf/${name}`)) return;
  throw new EnvironmentError(`there is no interface ${name}`);
}
