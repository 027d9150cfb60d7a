/**
 * IPv6 extension headers ([RFC 8200](https://www.rfc-editor.org/rfc/rfc8200) section 4), with contents
 * left to chance.
 * @module
 */
import type { Extension } from '../../support/packets.ts';
import type { Random } from '../../support/random.ts';

export function hopByHop(random: Random): Extension {
  return { type: 0, bytes: random.pick(OPTIONS).slice() };
}

export function destinationOptions(random: Random): Extension {
  return { type: 60, bytes: random.pick(OPTIONS).slice() };
}

/** A routing header that has done its work. */
export function routing(random: Random): Extension {
  const bytes = random.bytes(random.pick([8, 24]));
  bytes.set([0, bytes.length / 8 - 1, random.pick([0, 2, 3, 4]), 0]);
  return { type: 43, bytes };
}

/** RFC 4302, its length in words of 4 bytes. */
export function authentication(random: Random): Extension {
  const bytes = random.bytes(random.pick([16, 24]));
  bytes.set([0, bytes.length / 4 - 2]);
  return { type: 51, bytes };
}

/** Padding of one byte and of several, router alert, and an option that nobody knows. */
const OPTIONS = [
  [0, 0, 1, 4, 0, 0, 0, 0],
  [0, 0, 5, 2, 0, 0, 0, 0],
  [0, 1, 0x1e, 3, 1, 2, 3, 1, 7, 0, 0, 0, 0, 0, 0, 0],
  [0, 0, 1, 0, 0, 0, 1, 0],
].map((bytes) => Uint8Array.from(bytes));

/** Options that run over the end of their header. */
export const BAD_OPTIONS: readonly Uint8Array[] = [
  [0, 0, 1, 5, 0, 0, 0, 0],
  [0, 0, 0, 0, 0, 0, 0, 1],
  [0, 0, 5, 2, 0, 0, 5, 9],
].map((bytes) => Uint8Array.from(bytes));

/** A home address, at the front and behind padding. */
export const HOME_ADDRESS_OPTIONS: readonly Uint8Array[] = [
  [0, 2, 0xc9, 16, 32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0],
  [0, 2, 1, 2, 0, 0, 0xc9, 16, 32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
].map((bytes) => Uint8Array.from(bytes));
