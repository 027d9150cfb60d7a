/**
 * Reads which prefixes a machine itself uses: the addresses of its interfaces, the kernel's routes and the resolvers.
 * Reading changes nothing, needs no privileges and never fails; what cannot be read is named.
 * @module
 */
import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { type Family, IpAddress } from '../base/address.ts';
import { IpPrefix } from '../base/prefix.ts';
import { ip } from './ip-command.ts';
import { NO_ROUTE_YET, ROUTE_PROTOCOL } from './tun-routes.ts';

/** What a machine uses, without what gateways have set on it. */
export interface HostPrefixes {
  /** The addresses of the interfaces that are up. */
  readonly interfaces: readonly HostAddress[];
  /** The routes of the table `main`, without default routes. */
  readonly routes: readonly HostRoute[];
  /**
   * The name servers of `/etc/resolv.conf`. If one of them is a loopback address, also those of systemd-resolved,
   * which is asked at a loopback address and forwards to them.
   */
  readonly resolvers: readonly IpAddress[];
  /** One entry for each of these that could not be read, with the reason; empty if all were read. */
  readonly unread: readonly string[];
}

export interface HostAddress {
  /** The name of the interface. */
  readonly device: string;
  readonly address: IpAddress;
  /** The network of the address. */
  readonly network: IpPrefix;
}

export interface HostRoute {
  readonly prefix: IpPrefix;
  /** The interface; undefined if the route leads nowhere, as an unreachable one does. */
  readonly device: string | undefined;
  /** The next router as text; undefined if the hosts are at the interface itself. */
  readonly via: string | undefined;
}

/**
 * Reads the prefixes. Routes that are marked as those of gateways are left out.
 *
 * @param ownDevice an interface to leave out, with its routes: the TUN of the calling gateway. Default none.
 */
export async function readHostPrefixes(ownDevice?: string): Promise<HostPrefixes> {
  const unread: string[] = [];
  const attempt = async <T>(what: string, read: () => T[] | Promise<T[]>): Promise<T[]> => {
    try {
      return await read();
    } catch (error) {
      unread.push(`${what} (${(error as Error).message})`);
      return [];
    }
  };
  const [interfaces, routes4, routes6, resolvers] = await Promise.all([
    attempt('the addresses of the interfaces', readInterfaces),
    attempt('the IPv4 routes', () => readRoutes(4)),
    attempt('the IPv6 routes', () => readRoutes(6)),
    attempt('the resolvers', readResolvers),
  ]);
  const isOfOthers = ({ device }: { readonly device: string | undefined }): boolean =>
    device === undefined || device !== ownDevice;
  return {
    interfaces: interfaces.filter(isOfOthers),
    routes: [...routes4, ...routes6].filter(isOfOthers),
    resolvers,
    unread,
  };
}

function readInterfaces(): HostAddress[] {
  return Object.entries(networkInterfaces()).flatMap(([device, entries = []]) =>
    entries.map(({ address: text, cidr }) => {
      const address = IpAddress.parse(text);
      // A mask with gaps has no length.
      const length = cidr === null ? undefined : Number(cidr.split('/')[1]);
      return { device, address, network: IpPrefix.around(address, length) };
    })
  );
}

/** A route as `ip -json` prints it; a route over several interfaces has `nexthops`. */
interface PrintedRoute {
  readonly type?: string;
  readonly dst: string;
  readonly dev?: string;
  readonly gateway?: string;
  readonly via?: { readonly host?: string };
  readonly protocol?: string;
  readonly nexthops?: readonly Pick<PrintedRoute, 'dev' | 'gateway' | 'via'>[];
}

async function readRoutes(family: Family): Promise<HostRoute[]> {
  let text: string;
  try {
    text = await ip('-json', `-${family}`, 'route', 'show', 'table', 'main');
  } catch (error) {
    if (NO_ROUTE_YET.test((error as Error).message)) return [];
    throw error;
  }
  const printed = JSON.parse(text.trim() || '[]') as readonly PrintedRoute[];
  return printed.flatMap(({ dst, protocol, nexthops, ...only }) => {
    // An operator's routes through a gateway's TUN are left out by the name of the TUN.
    if (dst === 'default' || protocol === ROUTE_PROTOCOL) return [];
    const prefix = IpPrefix.parse(dst);
    return (nexthops ?? [only]).map(({ dev, gateway, via }) => ({
      prefix,
      // The kernel shows unreachable IPv6 routes with the interface `lo`.
      device: LEADS_NOWHERE.has(only.type ?? '') ? undefined : dev,
      via: gateway ?? via?.host,
    }));
  });
}

async function readResolvers(): Promise<IpAddress[]> {
  const asked = await nameServersOf('/etc/resolv.conf');
  const isStub = asked.some((address) => LOOPBACK.some((prefix) => prefix.contains(address)));
  if (!isStub) return asked;
  return [...asked, ...(await nameServersOf('/run/systemd/resolve/resolv.conf'))];
}

/** Returns the name servers of a file in the form of resolv.conf(5); none if the file does not exist. */
async function nameServersOf(path: string): Promise<IpAddress[]> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
  return [...text.matchAll(NAME_SERVER)].flatMap(([, address]) => {
    try {
      return [IpAddress.parse(address!)];
    } catch {
      // The C library ignores a line that it cannot read, too.
      return [];
    }
  });
}

/** Matches the address of a `nameserver` line without the zone of a link-local address. */
const NAME_SERVER = /^nameserver[ \t]+([^\s%]+)/gm;
const LOOPBACK: readonly IpPrefix[] = [IpPrefix.parse('127.0.0.0/8'), IpPrefix.parse('::1')];
const LEADS_NOWHERE: ReadonlySet<string> = new Set([
  'unreachable',
  'blackhole',
  'prohibit',
  'throw',
]);
