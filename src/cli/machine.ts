/**
 * What the machine of a new gateway is like, as far as its first configuration depends on it. Nothing is changed, and
 * no packet is sent.
 * @module
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { accessSync, constants, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { delimiter, join } from 'node:path';
import { IpPrefix } from '../base/prefix.ts';
import { type HostAddress, type HostPrefixes, readHostPrefixes } from '../device/host-prefixes.ts';
import { ConfigError } from '../errors.ts';
import { hostConflicts } from '../gateway/host-check.ts';

export interface Machine {
  /** Why this user cannot open a TUN device here; undefined if it can. */
  readonly noTun: string | undefined;
  /** The IPv4 address that other machines reach it by; a loopback address if it has no other. */
  readonly address: string;
  /** The interface to the hosts that the gateway serves; undefined if there is none but loopback. */
  readonly lan: Lan | undefined;
  /** A prefix that the machine uses for nothing else. */
  readonly pool: string;
  /** Whether this user may listen on port 53 of the address in the LAN, and no program does. */
  readonly hasDnsPort: boolean;
}

export interface Lan {
  /** The name of the interface. */
  readonly device: string;
  /** Its IPv4 address, and the network of the address. */
  readonly address: string;
  readonly network: string;
}

/**
 * @param device the interface to the hosts that the gateway serves; default: the one with the address that other
 *   machines reach this one by
 * @throws {ConfigError} naming `--lan`, if the interface has no IPv4 address.
 */
export async function inspectMachine(device?: string): Promise<Machine> {
  const address = (await sourceAddress()) ?? firstAddress() ?? LOOPBACK;
  const host = await readHostPrefixes();
  const lan = device === undefined ? lanWith(address, host) : lanOf(device, host);
  const isFree = (pool: string): boolean => hostConflicts([IpPrefix.from(pool)], host).length === 0;
  return {
    noTun: await whyNoTun(),
    address,
    lan,
    pool: POOLS.find(isFree) ?? POOLS[0],
    hasDnsPort: await canListen(lan?.address ?? address, DNS_PORT),
  };
}

function lanWith(address: string, { interfaces }: HostPrefixes): Lan | undefined {
  const own = interfaces.find((each) => String(each.address) === address);
  return own === undefined || address === LOOPBACK ? undefined : toLan(own);
}

function lanOf(device: string, { interfaces }: HostPrefixes): Lan {
  const usable = interfaces.filter(({ address }) => address.family === 4);
  const own = usable.find((each) => each.device === device);
  if (own !== undefined) return toLan(own);
  const names = [...new Set(usable.map((each) => each.device))].join(', ');
  const reason = `no interface ${device} with an IPv4 address is up; there are ${names}`;
  throw new ConfigError('--lan', reason);
}

function toLan({ device, address, network }: HostAddress): Lan {
  return { device, address: String(address), network: String(network) };
}

/** The address that packets to the internet have as their source; undefined if there is no route. */
async function sourceAddress(): Promise<string | undefined> {
  const socket = createSocket('udp4');
  try {
    const connected = once(socket, 'connect');
    // Connecting a UDP socket looks up the route, and sends nothing.
    socket.connect(DISCARD_PORT, FAR_ADDRESS);
    await connected;
    return socket.address().address;
  } catch {
    return undefined;
  } finally {
    socket.close();
  }
}

function firstAddress(): string | undefined {
  return Object.values(networkInterfaces())
    .flatMap((all) => all ?? [])
    .find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
}

/** A TUN needs a capability, the device file, the package koffi and the command ip. */
export async function whyNoTun(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'a TUN device needs Linux';
  if (!hasNetAdmin()) return 'this user has no CAP_NET_ADMIN, which a TUN device needs';
  try {
    accessSync(TUN_FILE, constants.R_OK | constants.W_OK);
  } catch {
    return `this user may not open ${TUN_FILE}, or it is not there`;
  }
  if (!isOnPath('ip')) return 'the command ip, which a TUN device needs, is not installed';
  try {
    await import('koffi');
    return undefined;
  } catch {
    return 'the package koffi, which a TUN device needs, is not installed';
  }
}

function hasNetAdmin(): boolean {
  const [, effective] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))!;
  return (BigInt(`0x${effective}`) & CAP_NET_ADMIN) !== 0n;
}

export function isOnPath(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

async function canListen(host: string, port: number): Promise<boolean> {
  const socket = createSocket('udp4');
  const server = createServer();
  try {
    const bound = once(socket, 'listening');
    socket.bind(port, host);
    await bound;
    const listening = once(server, 'listening');
    server.listen(port, host);
    await listening;
    return true;
  } catch {
    return false;
  } finally {
    socket.close();
    server.close();
  }
}

const LOOPBACK = '127.0.0.1';
/** An address of a documentation prefix (RFC 5737). */
const FAR_ADDRESS = '192.0.2.1';
const DISCARD_PORT = 9;
const DNS_PORT = 53;
const TUN_FILE = '/dev/net/tun';
/** Bit 12 of a set of capabilities (capabilities(7)). */
const CAP_NET_ADMIN = 1n << 12n;
/**
 * Prefixes that few networks use, the shared address space of carriers first (RFC 6598, RFC 1918). Each has room for the
 * clients of three sites that set no `maxClients`.
 */
const POOLS = ['100.64.0.0/20', '100.127.240.0/20', '10.255.240.0/20', '172.31.240.0/20'] as const;
