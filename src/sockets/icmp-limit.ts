/**
 * How many ICMP messages of one kind a stack sends in a second. A site gets a quarter of them, so that the flood of one
 * does not silence the stack for the others; where no site is known, one limit holds for all.
 * @module
 */
import { RateLimit } from '../base/rate-limit.ts';

export class IcmpLimit {
  readonly #all: RateLimit;
  readonly #sites: RateLimit;

  /** @param perSecond also how many may be sent at once; 4 at least */
  constructor(perSecond: number) {
    this.#all = new RateLimit(perSecond, perSecond, 1);
    this.#sites = new RateLimit(perSecond / 4, perSecond / 4);
  }

  /** Returns whether one more may be sent now to a host of this site, and counts it. */
  take(site: string | undefined, nowMs: number): boolean {
    if (site !== undefined && !this.#sites.take(site, nowMs)) return false;
    return this.#all.take('', nowMs);
  }
}
