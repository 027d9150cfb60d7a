/**
 * Addresses and ports of this host at which the gateway itself listens: a backend never connects to them.
 * @module
 */
import { networkInterfaces } from 'node:os';
import { IpAddress } from '../../base/address.ts';

/**
 * The addresses of this host, as they are now or were a moment ago. To ask the system takes 0.1 ms and more, and packets
 * of clients ask.
 */
export class OwnAddresses {
  readonly #nowMs: () => number;
  readonly #interfaces: typeof networkInterfaces;
  #texts: ReadonlySet<string> = new Set();
  #untilMs = Number.NEGATIVE_INFINITY;

  /**
   * @param nowMs returns the monotonic time
   * @param interfaces asks the system
   */
  constructor(
    nowMs: () => number = () => performance.now(),
    interfaces: typeof networkInterfaces = networkInterfaces
  ) {
    this.#nowMs = nowMs;
    this.#interfaces = interfaces;
  }

  has(address: IpAddress): boolean {
    const nowMs = this.#nowMs();
    if (nowMs >= this.#untilMs) {
      const all = Object.values(this.#interfaces()).flatMap((list) => list ?? []);
      this.#texts = new Set(all.map((each) => IpAddress.parse(each.address).toString()));
      this.#untilMs = nowMs + MAX_AGE_MS;
    }
    return this.#texts.has(address.toString());
  }
}

const MAX_AGE_MS = 1_000;
/** The addresses of the host are the same for all stacks. */
const OWN_ADDRESSES = new OwnAddresses();

export class HostTargets {
  /** The addresses of each port. */
  readonly #addresses = new Map<number, IpAddress[]>();
  readonly #own: OwnAddresses;

  constructor(own: OwnAddresses = OWN_ADDRESSES) {
    this.#own = own;
  }

  /**
   * @param address the unspecified address stands for all addresses of this host
   * @returns a function that removes it again
   * @throws {ApiMisuseError} if a text is not an address.
   */
  add(address: IpAddress | string, port: number): () => void {
    const added = unmapped(IpAddress.from(address));
    const addresses = this.#addresses.get(port);
    if (addresses === undefined) this.#addresses.set(port, [added]);
    else addresses.push(added);
    return () => this.#remove(added, port);
  }

  /** Returns whether a connection to this would lead to one of them. */
  has(address: IpAddress, port: number): boolean {
    const addresses = this.#addresses.get(port);
    if (addresses === undefined) return false;
    const host = reached(address);
    return addresses.some((it) => it.equals(host) || (isUnspecified(it) && this.#isOwn(host)));
  }

  /**
   * Returns the same for an address that is known to be one of this host, which may have addresses that the system does
   * not list: those of an interface that is down, and what a route makes local.
   */
  hasOwn(address: IpAddress, port: number): boolean {
    const host = reached(address);
    return this.#addresses.get(port)?.some((it) => it.equals(host) || isUnspecified(it)) === true;
  }

  #isOwn(host: IpAddress): boolean {
    return isLoopback(host) || this.#own.has(host);
  }

  #remove(added: IpAddress, port: number): void {
    const left = this.#addresses.get(port)!.filter((it) => it !== added);
    if (left.length === 0) this.#addresses.delete(port);
    else this.#addresses.set(port, left);
  }
}

function isUnspecified({ words }: IpAddress): boolean {
  return words.every((word) => word === 0);
}

/** Returns the address that a connection to this one reaches: the system takes the unspecified one for loopback. */
export function reached(address: IpAddress): IpAddress {
  const host = unmapped(address);
  return isUnspecified(host) ? LOOPBACK[host.family] : host;
}

const LOOPBACK = { 4: IpAddress.parse('127.0.0.1'), 6: IpAddress.parse('::1') } as const;

/** Returns the IPv4 address that an IPv4-mapped one stands for (RFC 4291 section 2.5.5.2), and others as they are. */
function unmapped(address: IpAddress): IpAddress {
  const { family, words } = address;
  const isMapped = family === 6 && words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
  return isMapped ? IpAddress.fromWords([words[3]!]) : address;
}

/** Returns whether it is an address of `127.0.0.0/8`, or `::1`. */
export function isLoopback({ family, words }: IpAddress): boolean {
  if (family === 4) return words[0]! >>> 24 === 127;
  return words[0] === 0 && words[1] === 0 && words[2] === 0 && words[3] === 1;
}
