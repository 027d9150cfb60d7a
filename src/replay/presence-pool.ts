/**
 * The addresses that stand for hosts of the other realm in a replay. They are out of prefixes that no host of the capture
 * is in: a /16 of IPv4 and a /64 of IPv6 for each realm.
 * @module
 */
import { type Family, IpAddress } from '../base/address.ts';
import { IpPrefix } from '../base/prefix.ts';
import { CaptureError } from '../errors.ts';

/** Which /16 and /64 prefixes the addresses of a capture are in. */
export class UsedPrefixes {
  readonly #used = new Set<string>();

  /** @param address the bytes of an address, as a text of 4 or 16 characters */
  add(address: string): void {
    this.#used.add(address.slice(0, address.length / 2));
  }

  /** Whether an address of the prefix, a /16 of IPv4 or a /64 of IPv6, was added. */
  has(prefix: IpPrefix): boolean {
    return this.#used.has(textOf(prefix.base).slice(0, prefix.length / 8));
  }
}

/** Gives one address after the other out of a prefix of each IP version. */
export class PresencePool {
  readonly prefixes: Readonly<Record<Family, IpPrefix>>;
  readonly #next: Record<Family, number> = { 4: 1, 6: 1 };

  constructor(prefixes: Readonly<Record<Family, IpPrefix>>) {
    this.prefixes = prefixes;
  }

  /** Returns undefined if 65,534 addresses are taken. */
  take(family: Family): IpAddress | undefined {
    const index = this.#next[family];
    if (index > MAX_PRESENCES) return undefined;
    this.#next[family] = index + 1;
    return this.prefixes[family].at(index);
  }
}

/**
 * Returns two pools whose prefixes have no address in common with each other and with the capture.
 *
 * @throws {CaptureError} if the capture has hosts in nearly all prefixes.
 */
export function freePools(used: UsedPrefixes): readonly [PresencePool, PresencePool] {
  const v4 = firstTwo(candidatesV4(), used);
  const v6 = firstTwo(candidatesV6(), used);
  return [new PresencePool({ 4: v4[0], 6: v6[0] }), new PresencePool({ 4: v4[1], 6: v6[1] })];
}

function firstTwo(candidates: Iterable<IpPrefix>, used: UsedPrefixes): [IpPrefix, IpPrefix] {
  let first: IpPrefix | undefined;
  for (const prefix of candidates) {
    if (used.has(prefix)) continue;
    if (first !== undefined) return [first, prefix];
    first = prefix;
  }
  throw new CaptureError(
    0,
    'the capture has hosts in nearly all prefixes, so that there is none for presences: ' +
      'use a part of it, for example by editcap -c'
  );
}

/** 198.18.0.0/15 is for benchmarks (RFC 2544), 100.64.0.0/10 is shared (RFC 6598); then every other prefix. */
function* candidatesV4(): Generator<IpPrefix> {
  for (const upper of [0xc612, 0xc613]) yield slash16(upper);
  for (let upper = 0x6440; upper < 0x6480; upper++) yield slash16(upper);
  for (let upper = 0x0100; upper < 0xe000; upper++) yield slash16(upper);
}

/** 2001:2::/48 is for benchmarks (RFC 5180). */
function* candidatesV6(): Generator<IpPrefix> {
  for (let subnet = 1; subnet < 0x10000; subnet++) {
    yield IpPrefix.around(IpAddress.fromWords([0x2001_0002, subnet, 0, 0]), 64);
  }
}

function slash16(upper: number): IpPrefix {
  return IpPrefix.around(IpAddress.fromWords([upper << 16]), 16);
}

/** Returns the bytes of an address, as a text of as many characters. */
export function textOf(address: IpAddress): string {
  const bytes = new Uint8Array(4 * address.words.length);
  address.writeTo(bytes, 0);
  return String.fromCharCode(...bytes);
}

/** Returns the address whose bytes the text has. */
export function addressOf(text: string): IpAddress {
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  return IpAddress.fromBytes(bytes.length === 4 ? 4 : 6, bytes, 0);
}

const MAX_PRESENCES = 65_534;
