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
  /**
   * LAN interfaces at which the kernel answers ARP for whatever it routes elsewhere, at once. For
   * IPv4 routes only: for IPv6 the kernel answers for single addresses, to be named one by one with
   * `ip -6 neighbour add proxy ADDRESS dev LAN`.
   */
  readonly proxyArp?: readonly string[];
  /** Forwards between all interfaces, for the IP versions of `routes`; false leaves it as it is. */
  readonly forwarding?: boolean;
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
  const { name, mtu, addresses = [], routes, proxyArp = [], forwarding = false } = configuration;
  checkTunName(name);
  for (const lan of proxyArp) checkTunName(lan);
  if (mtu !== undefined) checkMtu(mtu);
  for (const address of addresses) checkInterfaceAddress(address);
  const prefixes = routes.map((route) => IpPrefix.parse(route));
  for (const lan of proxyArp) {
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
  if (forwarding) {
    if (prefixes.some(({ family }) => family === 4)) setKernel('net/ipv4/ip_forward', '1');
    if (prefixes.some(({ family }) => family === 6)) {
      setKernel('net/ipv6/conf/all/forwarding', '1');
    }
  }
  for (const lan of proxyArp) {
    setKernel(`net/ipv4/conf/${lan}/proxy_arp`, '1');
    // else the kernel waits up to 0.8 s, for the sake of a host that might answer itself
    setKernel(`net/ipv4/neigh/${lan}/proxy_delay`, '0');
  }
}

/** An address with host bits: `IpPrefix` alone would refuse them. */
function checkInterfaceAddress(text: string): void {
  const [address, length, ...rest] = text.split('/');
  const bits = IpAddress.parse(address!).family === 4 ? 32 : 128;
  if (rest.length > 0 || !/^\d{1,3}$/.test(length ?? '') || Number(length) > bits) {
    throw new ApiMisuseError(`"${text}" is not an address with its prefix length`);
  }
}

async function ip(...args: string[]): Promise<void> {
  try {
    await promisify(execFile)('ip', args, { timeout: IP_TIMEOUT_MS });
  } catch (cause) {
    const { code, stderr, message } = cause as NodeJS.ErrnoException & { stderr?: string };
    throw new EnvironmentError(
      String(code) === 'ENOENT'
        ? 'the command ip is missing; install iproute2'
        : `ip ${args.join(' ')} failed: ${stderr?.trim().replace(/\s*\n\s*/g, '; ') || message}`,
      { cause }
    );
  }
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
