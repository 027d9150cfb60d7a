/**
 * Addresses, routes and forwarding for a TUN interface, by `ip` of iproute2 and `/proc/sys/net`.
 * @module
 */
import { execFile } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { IpAddress, IpPrefix } from '../address.ts';
import { ApiMisuseError, EnvironmentError } from '../errors.ts';
import { checkMtu } from './contract.ts';
import { checkTunName } from './tun-setup.ts';

export interface TunConfiguration {
  /** The interface, which must be there. */
  readonly name: string;
  /** In bytes; unchanged by default. */
  readonly mtu?: number;
  /** The interface's own addresses, each with its prefix length: `192.0.2.1/32`. */
  readonly addresses?: readonly string[];
  /** Prefixes to route to the interface. */
  readonly routes: readonly string[];
  /** Prefixes that lead nowhere as a whole; parts of them may be routed with `changeRoutes`. */
  readonly unreachable?: readonly string[];
  /**
   * LAN interfaces at which the kernel answers ARP for whatever it routes elsewhere, at once. For
   * IPv4 routes only: for IPv6 the kernel answers for single addresses, to be named one by one with
   * `ip -6 neighbour add proxy ADDRESS dev LAN`.
   */
  readonly proxyArp?: readonly string[];
  /** Drops IPv4 packets from these interfaces whose source is routed to another one (`rp_filter` 1). */
  readonly strictSources?: readonly string[];
  /** Forwards between all interfaces, for the IP versions of the prefixes; false leaves it as it is. */
  readonly forwarding?: boolean;
}

/** A route that `changeRoutes` sets or removes. */
export interface RouteSetting {
  readonly prefix: string;
  /** The interface it leads to; undefined: the route is removed. */
  readonly device: string | undefined;
}

/**
 * Sets what is asked for and leaves the rest; the same call again changes nothing. Takes the
 * interface up. Needs CAP_NET_ADMIN.
 *
 * @throws {ApiMisuseError} if a name, address, prefix or the MTU is not one.
 * @throws {EnvironmentError} if a LAN interface is not there (then nothing is changed), `ip` is missing
 *   or refuses, with what it said, or a setting cannot be written.
 */
export async function configureTun(configuration: TunConfiguration): Promise<void> {
  const { name, mtu, addresses = [], routes, unreachable = [] } = configuration;
  const { proxyArp = [], strictSources = [], forwarding = false } = configuration;
  checkTunName(name);
  const lans = [...proxyArp, ...strictSources];
  for (const lan of lans) checkTunName(lan);
  if (mtu !== undefined) checkMtu(mtu);
  for (const address of addresses) checkInterfaceAddress(address);
  const prefixes = routes.map((route) => IpPrefix.parse(route));
  const nowhere = unreachable.map((prefix) => IpPrefix.parse(prefix));
  for (const lan of lans) {
    if (!existsSync(`/proc/sys/net/ipv4/conf/${lan}`)) {
      throw new EnvironmentError(`there is no interface ${lan}`);
    }
  }

  const mtuArguments = mtu === undefined ? [] : ['mtu', String(mtu)];
  await ip('link', 'set', 'dev', name, ...mtuArguments, 'up');
  for (const address of addresses) await ip('address', 'replace', address, 'dev', name);
  for (const prefix of prefixes) {
    await ip(`-${prefix.family}`, 'route', 'replace', prefix.toString(), 'dev', name);
  }
  for (const prefix of nowhere) {
    await ip(`-${prefix.family}`, 'route', 'replace', 'unreachable', prefix.toString(), ...OURS);
  }
  if (forwarding) {
    const all = [...prefixes, ...nowhere];
    if (all.some(({ family }) => family === 4)) setKernel('net/ipv4/ip_forward', '1');
    if (all.some(({ family }) => family === 6)) {
      setKernel('net/ipv6/conf/all/forwarding', '1');
    }
  }
  for (const lan of proxyArp) {
    setKernel(`net/ipv4/conf/${lan}/proxy_arp`, '1');
    // else the kernel waits up to 0.8 s, for the sake of a host that might answer itself
    setKernel(`net/ipv4/neigh/${lan}/proxy_delay`, '0');
  }
  for (const lan of strictSources) setKernel(`net/ipv4/conf/${lan}/rp_filter`, '1');
}

/**
 * Sets and removes routes in this order, all in one go. To remove one that is not there is no fault.
 *
 * @throws {ApiMisuseError} if a name or prefix is not one; then nothing is changed.
 * @throws {EnvironmentError} if `ip` is missing, or refuses one; the others are changed then.
 */
export async function changeRoutes(settings: readonly RouteSetting[]): Promise<void> {
  const lines = settings.map(({ prefix, device }) => {
    const checked = IpPrefix.parse(prefix);
    if (device === undefined) return `route delete ${checked} proto ${ROUTE_PROTOCOL}`;
    checkTunName(device);
    return `route replace ${checked} dev ${device} proto ${ROUTE_PROTOCOL}`;
  });
  if (lines.length === 0) return;
  const running = promisify(execFile)('ip', ['-force', '-batch', '-'], { timeout: IP_TIMEOUT_MS });
  running.child.stdin!.on('error', () => {});
  running.child.stdin!.end(`${lines.join('\n')}\n`);
  await running.catch((cause: ExecFault) => {
    const faults = (cause.stderr ?? '').trim().split('\n');
    const isHarmless = faults.every((line) => /No such process|^Command failed -:\d+$/.test(line));
    if (!isHarmless) throw ipFault(['-batch', ...lines.slice(0, 1)], cause);
  });
}

/** Removes the routes within a prefix that `changeRoutes` and `unreachable` have ever set. */
export async function forgetRoutes(within: string): Promise<void> {
  const prefix = IpPrefix.parse(within);
  await ip(`-${prefix.family}`, 'route', 'flush', 'root', prefix.toString(), ...OURS);
}

/** An address with host bits: `IpPrefix` alone would refuse them. */
function checkInterfaceAddress(text: string): void {
  const [address, length, ...rest] = text.split('/');
  const bits = IpAddress.parse(address!).family === 4 ? 32 : 128;
  if (rest.length > 0 || !/^\d{1,3}$/.test(length ?? '') || Number(length) > bits) {
    throw new ApiMisuseError(`"${text}" is not an address with its prefix length`);
  }
}

type ExecFault = NodeJS.ErrnoException & { readonly stderr?: string };

async function ip(...args: string[]): Promise<void> {
  try {
    await promisify(execFile)('ip', args, { timeout: IP_TIMEOUT_MS });
  } catch (cause) {
    throw ipFault(args, cause as ExecFault);
  }
}

function ipFault(args: readonly string[], cause: ExecFault): EnvironmentError {
  const { code, stderr, message } = cause;
  return new EnvironmentError(
    String(code) === 'ENOENT'
      ? 'the command ip is missing; install iproute2'
      : `ip ${args.join(' ')} failed: ${stderr?.trim().replace(/\s*\n\s*/g, '; ') || message}`,
    { cause }
  );
}

/** Synchronous: /proc/sys/net shows the network namespace of the thread that writes, this one. */
function setKernel(setting: string, value: string): void {
  try {
    writeFileSync(`/proc/sys/${setting}`, value);
  } catch (cause) {
    throw new EnvironmentError(
      `kernel setting ${setting.replaceAll('/', '.')} cannot be set to ${value}: ${(cause as Error).message}`,
      { cause }
    );
  }
}

const IP_TIMEOUT_MS = 10_000;
/** Says in the kernel's tables whose the routes are, so that no others are removed. */
const ROUTE_PROTOCOL = '118';
const OURS: readonly string[] = ['proto', ROUTE_PROTOCOL];
