/**
 * Whether this machine can carry packets for a TUN: the device, the rules, the interfaces of the LAN with their MTU,
 * forwarding, reverse path filters, and what else uses the addresses of the pools.
 * @module
 */
import { accessSync, constants } from 'node:fs';
import type { IpPrefix } from '../../base/prefix.ts';
import { readHostPrefixes } from '../../device/host-prefixes.ts';
import type { TunDeviceOptions } from '../../device/index.ts';
import { ip } from '../../device/ip-command.ts';
import { type InterfaceSetting, pathOfSetting, readSetting } from '../../device/kernel-settings.ts';
import { hostConflicts } from '../../gateway/host-check.ts';
import { isOnPath, whyNoTun } from '../machine.ts';
import { type Finding, fail, ok, warn } from './finding.ts';

/** A TUN, and what is known of the site that it leads to. */
export interface TunSite {
  readonly tun: TunDeviceOptions;
  /** The pools that are routed to the TUN; empty if the cloud sends them. */
  readonly pools: readonly IpPrefix[];
  /** The hosts of the site; empty if the cloud sends them. */
  readonly sources: readonly IpPrefix[];
}

export async function deviceFindings({ tun, pools, sources }: TunSite): Promise<Finding[]> {
  const lans = [...new Set([...(tun.proxyArp ?? []), ...(tun.lan ?? [])])];
  const noTun = await whyNoTun();
  const links = new Map(lans.map((lan) => [lan, mtuOf(lan)]));
  const mtus = await Promise.all([...links].map(async ([lan, mtu]) => [lan, await mtu] as const));
  const existing = mtus.flatMap(([lan, mtu]) => (mtu === undefined ? [] : [lan]));
  return [
    noTun === undefined
      ? ok('tun', `this user can open the TUN ${tun.name}`)
      : fail('tun', noTun, 'run the gateway with it, or take a device of the type sockets'),
    ...(isOnPath('nft') ? [] : [WITHOUT_RULES]),
    ...mtus.map(([lan, mtu]) => interfaceFinding(lan, mtu, tun)),
    ...forwardingFindings(tun, lans, existing),
    ...(await filterFindings(existing, sources)),
    ...(await poolFindings(tun, pools, lans)),
  ];
}

const WITHOUT_RULES: Finding = warn(
  'rules',
  'the command nft is not installed, so that no rules keep packets of the TUN from other interfaces',
  'install nftables'
);

/** Returns the MTU of an interface; undefined if there is none of this name. */
async function mtuOf(name: string): Promise<number | undefined> {
  try {
    const [link] = JSON.parse(await ip('-json', 'link', 'show', 'dev', name)) as { mtu?: number }[];
    return link?.mtu;
  } catch {
    return undefined;
  }
}

function interfaceFinding(
  lan: string,
  mtu: number | undefined,
  { name, mtu: own = DEFAULT_MTU }: TunDeviceOptions
): Finding {
  if (mtu === undefined) {
    return fail(
      'lan',
      `there is no interface ${lan}, which the device names`,
      'name an interface of this machine in device.lan or device.proxyArp: see "ip link"'
    );
  }
  if (mtu >= own) return ok('lan', `${lan} carries packets of ${mtu} bytes, and ${name} of ${own}`);
  return warn(
    'lan',
    `${lan} carries packets of ${mtu} bytes, and ${name} of ${own}: longer ones are cut or refused on their way`,
    `set device.mtu to ${mtu}`
  );
}

function forwardingFindings(
  tun: TunDeviceOptions,
  named: readonly string[],
  lans: readonly string[]
): Finding[] {
  if (tun.routes?.length === 0 && tun.lan === undefined) {
    const all = { kind: 'ipv4_forwarding', of: 'all' } as const;
    if (readSetting(all) === 1) return [ok('forwarding', 'this machine forwards IPv4')];
    return [
      warn(
        'forwarding',
        `this machine does not forward IPv4, and without routes and LAN in the file the gateway does not change that: hosts of the LAN do not reach ${tun.name}`,
        'sysctl -w net.ipv4.ip_forward=1, or name the interfaces of the LAN in device.lan'
      ),
    ];
  }
  if (named.length === 0) {
    return [
      warn(
        'forwarding',
        `nothing is forwarded to and from ${tun.name}, so that only programs of this machine reach presences`,
        'name the interfaces of the LAN in device.lan'
      ),
    ];
  }
  return lans.map((lan) => {
    const setting: InterfaceSetting = { kind: 'ipv4_forwarding', of: lan };
    if (readSetting(setting) === 1) return ok('forwarding', `${lan} forwards IPv4`);
    if (isWritable(setting)) {
      return ok('forwarding', `${lan} does not forward IPv4 yet, and the gateway switches it on`);
    }
    return fail(
      'forwarding',
      `${lan} does not forward IPv4, and this user may not change that`,
      `sysctl -w net.ipv4.conf.${lan}.forwarding=1, or run the gateway as a user who may write to /proc/sys/net`
    );
  });
}

function isWritable(setting: InterfaceSetting): boolean {
  try {
    accessSync(pathOfSetting(setting), constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** A strict filter drops what comes from a host that this machine would answer through another interface (RFC 3704). */
async function filterFindings(
  lans: readonly string[],
  sources: readonly IpPrefix[]
): Promise<Finding[]> {
  const strict = lans.filter((lan) => {
    const values = ['all', lan].map((of) => readSetting({ kind: 'rp_filter', of }) ?? 0);
    // The kernel takes the greater of both; 2 is the loose filter.
    return Math.max(...values) === STRICT;
  });
  const { interfaces, routes } = await readHostPrefixes();
  return lans.map((lan) => {
    if (!strict.includes(lan)) return ok('rp_filter', `${lan} takes packets of every source`);
    const known = [
      ...interfaces.flatMap(({ device, network }) => (device === lan ? [network] : [])),
      ...routes.flatMap(({ device, prefix }) => (device === lan ? [prefix] : [])),
    ];
    const lost = sources.filter(
      (source) => source.family === 4 && !known.some((each) => each.overlaps(source))
    );
    if (lost.length === 0) {
      return ok('rp_filter', `${lan} takes packets of hosts alone that are reached through ${lan}`);
    }
    return warn(
      'rp_filter',
      `${lan} has a strict reverse path filter, and no route leads through it to the sources ${lost.join(', ')}: their packets are dropped there`,
      `add the route, or sysctl -w net.ipv4.conf.${lan}.rp_filter=2`
    );
  });
}

async function poolFindings(
  { name }: TunDeviceOptions,
  pools: readonly IpPrefix[],
  lans: readonly string[]
): Promise<Finding[]> {
  if (pools.length === 0) return [];
  const conflicts = hostConflicts(pools, await readHostPrefixes(name), lans);
  if (conflicts.length === 0) {
    return [ok('pools', `this machine uses no address of ${pools.join(', ')}`)];
  }
  return conflicts.map(({ message }) => {
    const at = message.lastIndexOf('; ');
    return warn('pools', message.slice(0, at), message.slice(at + 2));
  });
}

const DEFAULT_MTU = 1500;
const STRICT = 1;
