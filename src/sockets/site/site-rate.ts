/**
 * How often a stack does something in a second for its hosts: ICMP messages of one kind, new UDP flows to services. A site
 * gets a quarter, so that the flood of one leaves the rest to the others; where no site is known, one limit holds for all.
 * @module
 */
import { RateLimit } from '../../base/rate-limit.ts';

export class SiteRate {
  readonly #all: RateLimit;
  readonly #sites: RateLimit;

  /** @param perSecond also how often it may be done at once; 4 at least */
  constructor(perSecond: number) {
    this.#all = new RateLimit(perSecond, perSecond, 1);
    this.#sites = new RateLimit(perSecond / 4, perSecond / 4);
  }

  /** Returns whether it may be done once more now for a host of this site, and counts it. */
  take(site: string | undefined, nowMs: number): boolean {
    if (site !== undefined && !this.#sites.take(site, nowMs)) return false;
    return this.#all.take('', nowMs);
  }
}
