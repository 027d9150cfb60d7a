/**
 * Settings below `/proc/sys/net` ([ip-sysctl](https://docs.kernel.org/networking/ip-sysctl.html)). All functions
 * are synchronous, because the directory shows the network namespace of the thread that reads it, and this must
 * be the caller's thread.
 * @module
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { EnvironmentError } from '../errors.ts';

/** A setting of one interface. */
export interface InterfaceSetting {
  readonly kind: SettingKind;
  /** The name of the interface, or `all`. */
  readonly of: string;
}

export type SettingKind =
  | 'ipv4_forwarding'
  | 'ipv6_forwarding'
  | 'accept_ra'
  | 'proxy_arp'
  | 'proxy_delay'
  | 'proxy_ndp'
  | 'proxy_ndp_delay'
  | 'rp_filter';

/** The values that a gateway sets. */
export const GATEWAY_VALUES: Readonly<Record<SettingKind, number>> = {
  ipv4_forwarding: 1,
  ipv6_forwarding: 1,
  accept_ra: 2,
  proxy_arp: 1,
  // The kernel's default is to wait up to 0.8 s before it answers, because the host itself might answer.
  proxy_delay: 0,
  proxy_ndp: 1,
  proxy_ndp_delay: 0,
  rp_filter: 1,
};

/** Returns the current value, or undefined if the setting does not exist, for example without the interface. */
export function readSetting({ kind, of }: InterfaceSetting): number | undefined {
  try {
    return Number(readFileSync(pathOfSetting({ kind, of }), 'latin1').trim());
  } catch {
    return undefined;
  }
}

/**
 * Sets the value. A setting that has the value already is not written, so that the directory may be read-only
 * if everything was set before.
 *
 * @throws {EnvironmentError} if the kernel does not let this process write the setting.
 */
export function writeSetting(setting: InterfaceSetting, value: number): void {
  if (readSetting(setting) === value) return;
  const path = pathOf(setting);
  try {
    writeFileSync(`/proc/sys/${path}`, String(value));
  } catch (cause) {
    const { message } = cause as Error;
    throw new EnvironmentError(
      `kernel setting ${path.replaceAll('/', '.')} cannot be set to ${value}: ${message}`,
      { cause }
    );
  }
}

/** Returns the names of all interfaces that have settings of this IP version. */
export function interfaceNames(family: 'ipv4' | 'ipv6'): readonly string[] {
  try {
    const names = readdirSync(`/proc/sys/net/${family}/conf`);
    return names.filter((name) => name !== 'all' && name !== 'default');
  } catch {
    return [];
  }
}

/** Returns the file of a setting. */
export function pathOfSetting(setting: InterfaceSetting): string {
  return `/proc/sys/${pathOf(setting)}`;
}

function pathOf({ kind, of }: InterfaceSetting): string {
  return PATHS[kind].replace('*', () => of);
}

const PATHS: Readonly<Record<SettingKind, string>> = {
  ipv4_forwarding: 'net/ipv4/conf/*/forwarding',
  ipv6_forwarding: 'net/ipv6/conf/*/forwarding',
  accept_ra: 'net/ipv6/conf/*/accept_ra',
  proxy_arp: 'net/ipv4/conf/*/proxy_arp',
  proxy_delay: 'net/ipv4/neigh/*/proxy_delay',
  proxy_ndp: 'net/ipv6/conf/*/proxy_ndp',
  proxy_ndp_delay: 'net/ipv6/neigh/*/proxy_delay',
  rp_filter: 'net/ipv4/conf/*/rp_filter',
};
