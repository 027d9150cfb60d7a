/**
 * Addresses and routes for a TUN interface, by `ip` of iproute2, and forwarding between it and the LAN.
 * @module
 */
import { existsSync } from 'node:fs';
import { IpAddress } from '../base/address.ts';
import { IpPrefix, type PrefixInput } from '../base/prefix.ts';
import { ApiMisuseError, EnvironmentError } from '../errors.ts';
import { checkMtu, checkTexts, checkType } from './contract.ts';
import { checkRuleName } from './gateway-table.ts';
import { ip, ipBatch } from './ip-command.ts';
import {
  flushRoutes,
  HostRoutes,
  NO_SUCH_ROUTE,
  ROUTE_PROTOCOL,
  type TunRoutes,
  type TunSetup,
} from './tun-routes.ts';
import { checkTunName } from './tun-setup.ts';

export interface TunConfiguration extends TunRoutes {
  /** The interface, which must be there. */
  readonly name: string;
  /**
   * Further TUNs of the same gateway, which must be there too: `changeRoutes` may lead parts of the prefixes
   * to them. What holds for `name` holds for each of them, except `addresses` and `mtu`. Default: none.
   */
  readonly otherTuns?: readonly string[];
  /** In bytes; unchanged by default. */
  readonly mtu?: number;
  /** The interface's own addresses, each with its prefix length: `192.0.2.1/32`. Default: none. */
  readonly addresses?: readonly string[];
  /**
   * LAN interfaces at which the kernel answers ARP for whatever it routes elsewhere, at once. For
   * IPv4 routes only: for IPv6 the kernel answers for single addresses, to be named one by one with
   * `ip -6 neighbour add proxy ADDRESS dev LAN`. Default: none.
   */
  readonly proxyArp?: readonly string[];
  /**
   * The interfaces of the LAN, besides those in `proxyArp`. The kernel then forwards between them and the
   * TUN, for the IP versions of the prefixes, and nothing passes between the TUN and any other interface.
   * Packets whose source is in one of the prefixes are dropped if they come from an interface other than the
   * TUN. Between other interfaces the machine forwards what it forwarded before, and no more. An empty list
   * forwards nothing; without the list, forwarding is left as it is.
   */
  readonly lan?: readonly string[];
  /**
   * Is called when somebody else has removed the rules while the gateway runs, which is looked for every 5 s, with
   * one sentence that says what was done; nobody is told by default. The rules are installed again in any case.
   */
  readonly onProblem?: (problem: string) => void;
}

/** A route that `changeRoutes` sets or removes. */
export interface RouteSetting {
  readonly prefix: PrefixInput;
  /** The interface it leads to; undefined: the route is removed. */
  readonly device: string | undefined;
}

/**
 * Sets what is asked for and leaves the rest; the same call again changes nothing. Takes the
 * interface up. Needs CAP_NET_ADMIN, and nftables (the command `nft`) if `lan` is given.
 *
 * Rules and settings of a process that was killed stay; the next call for the same interface takes them
 * over. When a second call in one process fails, the rules and settings of the first stay in force.
 * `docs/SECURITY.md` lists everything that is set on the machine.
 *
 * @throws {ApiMisuseError} if a name, address, prefix or the MTU is not one.
 * @throws {EnvironmentError} if a LAN interface is not there (then nothing is changed), `ip` is missing
 *   or refuses, with what it said, a setting cannot be written, `nft` does not answer, or IPv6 would have to be
 *   forwarded without rules, on a machine that does not forward it already.
 */
export async function configureTun(configuration: TunConfiguration): Promise<TunSetup> {
  const { name, otherTuns = [], mtu, addresses = [], proxyArp = [], lan } = configuration;
  const { onProblem = () => {} } = configuration;
  for (const [option, value] of Object.entries({ otherTuns, addresses, proxyArp, lan })) {
    checkTexts(option, value);
  }
  checkType('onProblem', onProblem, 'function');
  const lans = lan && [...new Set([...lan, ...proxyArp])];
  const tuns = [name, ...otherTuns];
  for (const each of [...tuns, ...(lans ?? proxyArp)]) {
    checkTunName(each);
    if (lans !== undefined) checkRuleName(each);
  }
  if (mtu !== undefined) checkMtu(mtu);
  for (const address of addresses) checkInterfaceAddress(address);
  const routes = new HostRoutes({ tuns, lans, proxyArp, onProblem }, configuration);
  for (const each of lans ?? proxyArp) checkInterface(each);

  const mtuArguments = mtu === undefined ? [] : ['mtu', String(mtu)];
  await ip('link', 'set', 'dev', name, ...mtuArguments, 'up');
  for (const address of addresses) await ip('address', 'replace', address, 'dev', name);
  await routes.open();
  return routes;
}

/**
 * Sets and removes routes in this order, all in one go. To remove one that is not there is no fault.
 *
 * @throws {ApiMisuseError} if a name or prefix is not one; then nothing is changed.
 * @throws {EnvironmentError} if `ip` is missing, or refuses one; the others are changed then.
 */
export async function changeRoutes(settings: readonly RouteSetting[]): Promise<void> {
  const lines = settings.map(({ prefix, device }) => {
    const checked = IpPrefix.from(prefix);
    if (device === undefined) return `route delete ${checked} proto ${ROUTE_PROTOCOL}`;
    checkTunName(device);
    return `route replace ${checked} dev ${device} proto ${ROUTE_PROTOCOL}`;
  });
  if (lines.length === 0) return;
  await ipBatch(lines, NO_SUCH_ROUTE);
}

/** Removes the routes within a prefix that `changeRoutes` and `unreachable` have ever set. */
export async function forgetRoutes(within: PrefixInput): Promise<void> {
  await flushRoutes(IpPrefix.from(within));
}

/** An address with host bits: `IpPrefix` alone would refuse them. */
function checkInterfaceAddress(text: string): void {
  const [address, length, ...rest] = text.split('/');
  const bits = IpAddress.parse(address!).family === 4 ? 32 : 128;
  if (rest.length > 0 || !/^\d{1,3}$/.test(length ?? '') || Number(length) > bits) {
    throw new ApiMisuseError(`"${text}" is not an address with its prefix length`);
  }
}

/** `all` and `default` have settings, but are no interfaces. */
function checkInterface(name: string): void {
  const isOne = name !== 'all' && name !== 'default';
  if (isOne && existsSync(`/proc/sys/net/ipv4/conf/${name}`)) return;
  throw new EnvironmentError(`there is no interface ${name}`);
}
