/**
 * The path MTUs that routers have reported ([RFC 1191](https://www.rfc-editor.org/rfc/rfc1191),
 * [RFC 8201](https://www.rfc-editor.org/rfc/rfc8201)).
 *
 * A report can be forged. It therefore never raises a value, never lowers it below a floor, and is forgotten after ten
 * minutes. Whoever learns one must have checked that the quoted packet was really sent.
 * @module
 */
import type { IpAddress } from '../../base/address.ts';
import { LEAST_MTU, usableMtu } from '../../tcp/icmp-error.ts';

export class PathMtus {
  readonly #now: () => number;
  readonly #limit: number;
  /** Keyed by the text of the destination; the entry that was learned longest ago is the first. */
  readonly #entries = new Map<string, Entry>();

  /**
   * @param now returns the time in ms, monotonic
   * @param limit how many destinations are remembered; then the oldest ones are forgotten
   */
  constructor(now: () => number, limit: number = DEFAULT_LIMIT) {
    this.#now = now;
    this.#limit = limit;
  }

  /** How many destinations are remembered. */
  get size(): number {
    return this.#entries.size;
  }

  /** Returns the longest packet in bytes that is known to reach the destination; 0 if no report is known. */
  get(remote: IpAddress): number {
    if (this.#entries.size === 0) return 0;
    const key = remote.toString();
    const entry = this.#entries.get(key);
    if (entry === undefined) return 0;
    if (this.#now() - entry.atMs < AGE_MS) return entry.mtu;
    this.#entries.delete(key);
    return 0;
  }

  /**
   * Learns the MTU of a report, raised to the floor of IPv4.
   *
   * @returns the MTU that holds from now on; 0 if the report says nothing new, or is below the minimum of IPv6, where
   *   it must be discarded ([RFC 8201 section 4](https://www.rfc-editor.org/rfc/rfc8201#section-4)).
   */
  learn(remote: IpAddress, reported: number): number {
    if (remote.family === 6 && reported < LEAST_MTU[6]) return 0;
    const mtu = usableMtu(remote.family, reported);
    const known = this.get(remote);
    if (known !== 0 && mtu >= known) return 0;
    const key = remote.toString();
    this.#entries.delete(key);
    if (this.#entries.size >= this.#limit) this.#forgetOldest();
    this.#entries.set(key, { mtu, atMs: this.#now() });
    return mtu;
  }

  #forgetOldest(): void {
    for (const key of this.#entries.keys()) {
      this.#entries.delete(key);
      return;
    }
  }
}

/**
 * Returns the MTU that a router without RFC 1191 probably means, which reports 0: the next plateau below the length of
 * the packet that it refused ([RFC 1191 section 7](https://www.rfc-editor.org/rfc/rfc1191#section-7)).
 */
export function plateauBelow(length: number): number {
  for (const plateau of PLATEAUS) if (plateau < length) return plateau;
  return LEAST_MTU[4];
}

interface Entry {
  readonly mtu: number;
  readonly atMs: number;
}

/** Recommended in RFC 1191 section 6.3 and RFC 8201 section 4. */
const AGE_MS = 10 * 60_000;
const DEFAULT_LIMIT = 1024;
const PLATEAUS: readonly number[] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006];
