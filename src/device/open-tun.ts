/**
 * Opens the TUN of a gateway and sets up the kernel for it, as the operator's options say.
 * @module
 */
import type { PrefixInput } from '../base/prefix.ts';
import { LinuxTun } from './linux-tun.ts';

export interface TunDeviceOptions {
  /** Name of the interface, at most 15 characters. */
  readonly name: string;
  /** The longest packet in bytes, from 1280 to 65,535; default 1500. */
  readonly mtu?: number;
  /**
   * Prefixes to route to the TUN; an empty list means none. Default: the pools of its own site for a gateway, which follows
   * their changes; otherwise none until `LinuxTun.setRoutes`.
   */
  readonly routes?: readonly PrefixInput[];
  /** LAN interfaces on which the kernel answers ARP for the routes. Default none. */
  readonly proxyArp?: readonly string[];
  /**
   * Further LAN interfaces. The kernel forwards between the LAN and the TUN, and nowhere else. With an empty list of
   * routes and no LAN, the operator sets up routes and forwarding. Default none.
   */
  readonly lan?: readonly string[] | undefined;
  /**
   * Interfaces of a network that only the machines of one cloud are on. Packets between sites that different machines
   * hold pass there, so that packets whose source is in the routes are accepted from there too. Default none.
   */
  readonly transit?: readonly string[];
}

export const TUN_DEFAULT_MTU = 1500;

export const TUN_DEVICE_DEFAULTS: Readonly<
  Required<Pick<TunDeviceOptions, 'mtu' | 'proxyArp' | 'transit'>>
> = Object.freeze({
  mtu: TUN_DEFAULT_MTU,
  proxyArp: Object.freeze([]),
  transit: Object.freeze([]),
});

/**
 * Opens the TUN, routes the prefixes to it and makes the kernel forward between it and the LAN. `close` of the
 * device undoes that.
 *
 * @param onProblem called with one sentence for each thing that the machine lacks, and for each repair.
 * @throws {EnvironmentError} if the device cannot be opened or the machine cannot be set up; nothing is left open
 *   then.
 */
export async function openTun(
  options: TunDeviceOptions,
  onProblem: (problem: string) => void
): Promise<LinuxTun> {
  const { name, mtu = TUN_DEVICE_DEFAULTS.mtu, routes = [] } = options;
  const { proxyArp = TUN_DEVICE_DEFAULTS.proxyArp } = options;
  const { transit = TUN_DEVICE_DEFAULTS.transit } = options;
  const device = await LinuxTun.open({ name, mtu });
  try {
    const lans = { proxyArp, transit, ...lanOf(options) };
    const problems = await device.configure({ routes, ...lans, onProblem });
    for (const problem of [...problems, ...lackOfLan(options)]) onProblem(problem);
  } catch (error) {
    await device.close();
    throw error;
  }
  return device;
}

/** Returns the interfaces of the LAN in the form of `configureTun`. */
export function lanOf({ routes, lan }: TunDeviceOptions): { readonly lan?: readonly string[] } {
  return routes?.length === 0 && lan === undefined ? {} : { lan: lan ?? [] };
}

/** Returns a sentence if no LAN interface is given, so that only this machine can use the TUN. */
export function lackOfLan({ name, routes, proxyArp = [], lan = [] }: TunDeviceOptions): string[] {
  const isComplete = routes?.length === 0 || proxyArp.length > 0 || lan.length > 0;
  return isComplete
    ? []
    : [`nothing is forwarded to and from ${name}; name the interfaces of the LAN in device.lan`];
}
