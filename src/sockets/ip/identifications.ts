/**
 * Chooses the identification of datagrams that may be fragmented
 * ([RFC 6864](https://www.rfc-editor.org/rfc/rfc6864) for IPv4,
 * [RFC 7739](https://www.rfc-editor.org/rfc/rfc7739) for IPv6).
 *
 * A counter for all destinations would tell one of them how much is sent to the others, and what identification to
 * forge. A random number for each datagram would repeat too soon in the 16 bits of IPv4. So there are some counters,
 * each with a random start, and a keyed hash of the destination chooses one.
 * @module
 */
import type { IpAddress } from '../../base/address.ts';

export class Identifications {
  readonly #counters: Uint32Array = new Uint32Array(COUNTERS);
  readonly #key: number;

  /** @param random returns an unsigned 32-bit integer that nobody can predict */
  constructor(random: () => number) {
    this.#key = random();
    for (let i = 0; i < COUNTERS; i++) this.#counters[i] = random();
  }

  /** Returns the next identification for this destination, an unsigned 32-bit integer; IPv4 takes its low half. */
  next(remote: IpAddress): number {
    let hash = this.#key;
    for (const word of remote.words) {
      hash = Math.imul(hash ^ word, 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    const index = (Math.imul(hash, 0x85ebca6b) >>> 24) & (COUNTERS - 1);
    const value = this.#counters[index]!;
    this.#counters[index] = value + 1;
    return value;
  }
}

const COUNTERS = 256;
