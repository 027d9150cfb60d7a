/**
 * A TUN as a gateway's operator asks for it: opened, and the machine's kernel set up around it.
 * @module
 */
import type { PrefixInput } from '../base/prefix.ts';
import { LinuxTun } from './linux-tun.ts';

export interface TunDeviceOptions {
  /** Name of the interface, at most 15 characters. */
  readonly name: string;
  /** In bytes; default 1500. */
  readonly mtu?: number;
  /**
   * Prefixes to route to the TUN: the pools of the gateway's own site. Without them they are not known yet, and
   * `LinuxTun.setRoutes` tells them; an empty list means that there are none.
   */
  readonly routes?: readonly PrefixInput[];
  /** LAN interfaces on which the kernel answers ARP for the routes. Default: none. */
  readonly proxyArp?: readonly string[];
  /**
   * Further LAN interfaces. The kernel forwards between the LAN and the TUN, and nowhere else. An operator who gives
   * an empty list of routes and no LAN sets up routes and forwarding himself. Default: none.
   */
  readonly lan?: readonly string[] | undefined;
}

export const TUN_DEFAULT_MTU = 1500;

export const TUN_DEVICE_DEFAULTS: Readonly<Required<Pick<TunDeviceOptions, 'mtu' | 'proxyArp'>>> =
  Object.freeze({ mtu: TUN_DEFAULT_MTU, proxyArp: Object.freeze([]) });

/**
 * Opens the TUN, routes the prefixes to it and has the kernel forward between it and the LAN. Closing the device
 * undoes that.
 *
 * @param onProblem is told what the machine lacks, and what was mended, one sentence each
 * @throws {EnvironmentError} if the device cannot be had, or the machine cannot be set up; then nothing is left open.
 */
export async function openTun(
  options: TunDeviceOptions,
  onProblem: (problem: string) => void
): Promise<LinuxTun> {
  const { name, mtu = TUN_DEVICE_DEFAULTS.mtu, routes = [] } = options;
  const { proxyArp = TUN_DEVICE_DEFAULTS.proxyArp } = options;
  const device = await LinuxTun.open({ name, mtu });
  try {
    const problems = await device.configure({ routes, proxyArp, ...lanOf(options), onProblem });
    for (const problem of [...problems, ...lackOfLan(options)]) onProblem(problem);
  } catch (error) {
    await device.close();
    throw error;
  }
  return device;
}

/** The interfaces of the LAN as `configureTun` takes them. */
export function lanOf({ routes, lan }: TunDeviceOptions): { readonly lan?: readonly string[] } {
  return routes?.length === 0 && lan === undefined ? {} : { lan: lan ?? [] };
}

/** Says that hosts beyond this machine would wait in vain, if that is so. */
export function lackOfLan({ name, routes, proxyArp = [], lan = [] }: TunDeviceOptions): string[] {
  const isComplete = routes?.length === 0 || proxyArp.length > 0 || lan.length > 0;
  return isComplete
    ? []
    : [`nothing is forwarded to and from ${name}; name the interfaces of the LAN in device.lan`];
}
