/**
 * Addresses and ports of this host at which the gateway itself listens: a backend never connects to them.
 * @module
 */
import { networkInterfaces } from 'node:os';
import { IpAddress } from '../base/address.ts';

export class HostTargets {
  /** The addresses of each port. */
  readonly #addresses = new Map<number, IpAddress[]>();

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
    const host = unmapped(address);
    return addresses.some((it) => it.equals(host) || (isUnspecified(it) && isOfThisHost(host)));
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

/** Addresses come and go while a program runs, so this is looked up; only ports of the gateway make it necessary. */
function isOfThisHost(address: IpAddress): boolean {
  if (isUnspecified(address) || isLoopback(address)) return true;
  const text = address.toString();
  return Object.values(networkInterfaces()).some((list) =>
    list?.some((each) => IpAddress.parse(each.address).toString() === text)
  );
}

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
