/**
 * The flows of a backend by the time of their last datagram, in all and for each site, so that it is known at once which
 * one has to go for a new one. The cost of a datagram does not grow with the number of flows or sites.
 *
 * A site that is alone may have all places. While others have flows too, a site that has a quarter of the places or
 * more gets a new one only instead of its own oldest flow; in a full table, another site gets the oldest one of the
 * site that has most.
 * @module
 */
import { QueueMemory } from '../ip/datagram-queue.ts';

/** A flow in the lists. */
export class FlowPlace<T> {
  readonly flow: T;
  /** What its site has. */
  readonly share: SiteShare<T>;
  readonly inAll: Link<T>;
  readonly inSite: Link<T>;

  constructor(flow: T, share: SiteShare<T>) {
    this.flow = flow;
    this.share = share;
    this.inAll = new Link(flow);
    this.inSite = new Link(flow);
  }
}

/** The flows of one site. */
export class SiteShare<T> {
  readonly site: string | undefined;
  /** The memory that the queues of its flows share. */
  readonly memory: QueueMemory;
  readonly flows: RecencyList<T> = new RecencyList();

  constructor(site: string | undefined, memory: QueueMemory) {
    this.site = site;
    this.memory = memory;
  }
}

export interface FlowSharesOptions {
  /** How many flows there may be, of which a site may have a quarter, but at least one. */
  readonly maxFlows: number;
  /** The memory of the queues of all sites. */
  readonly memory: QueueMemory;
  /** How many bytes of it a site may take. */
  readonly siteBytes: number;
  /** Called for each datagram for which a site's part of the memory has no room. */
  readonly onRefused: () => void;
}

export class FlowShares<T> {
  readonly #options: FlowSharesOptions;
  readonly #all = new RecencyList<T>();
  /** Keyed by site; undefined for flows of which no site is known, whose memory has no bound of its own. */
  readonly #sites = new Map<string | undefined, SiteShare<T>>();
  /** The sites by the number of their flows. */
  readonly #bySize = new Map<number, Set<SiteShare<T>>>();
  /** How many flows the site has that has most. */
  #largest = 0;

  constructor(options: FlowSharesOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#all.size;
  }

  /** How many sites have flows. */
  get sites(): number {
    return this.#sites.size;
  }

  /** The flow whose last datagram is the longest time ago. */
  get oldest(): T | undefined {
    return this.#all.oldest;
  }

  /** Returns the flow that has to end before a site may have a new one; undefined if none has to. */
  victimFor(site: string | undefined): T | undefined {
    const { maxFlows } = this.#options;
    const own = this.#sites.get(site);
    const share = Math.max(1, maxFlows >> 2);
    if (own !== undefined && own.flows.size >= share && this.#sites.size > 1) {
      return own.flows.oldest;
    }
    if (this.size < maxFlows) return undefined;
    const [largest] = this.#bySize.get(this.#largest) ?? [];
    return largest?.flows.oldest;
  }

  /** The flow of a site whose last datagram is the longest time ago; undefined if it has none. */
  oldestOf(site: string | undefined): T | undefined {
    return this.#sites.get(site)?.flows.oldest;
  }

  /** Adds a flow as the newest one. */
  add(flow: T, site: string | undefined): FlowPlace<T> {
    let share = this.#sites.get(site);
    if (share === undefined) {
      share = new SiteShare(site, this.#memoryOf(site));
      this.#sites.set(site, share);
    }
    const place = new FlowPlace(flow, share);
    this.#all.add(place.inAll);
    share.flows.add(place.inSite);
    this.#resized(share, share.flows.size - 1);
    return place;
  }

  /** Makes a flow the newest one. */
  touch({ share, inAll, inSite }: FlowPlace<T>): void {
    this.#all.touch(inAll);
    share.flows.touch(inSite);
  }

  /** Removes a flow that is in the lists. */
  remove({ share, inAll, inSite }: FlowPlace<T>): void {
    this.#all.remove(inAll);
    share.flows.remove(inSite);
    this.#resized(share, share.flows.size + 1);
    if (share.flows.size === 0) this.#sites.delete(share.site);
  }

  #memoryOf(site: string | undefined): QueueMemory {
    const { memory, siteBytes, onRefused } = this.#options;
    return site === undefined ? memory : new QueueMemory(siteBytes, onRefused, memory);
  }

  /** The size of a site has changed by one. */
  #resized(share: SiteShare<T>, before: number): void {
    const now = share.flows.size;
    const left = this.#bySize.get(before);
    left?.delete(share);
    if (left?.size === 0) this.#bySize.delete(before);
    if (now > 0) {
      const others = this.#bySize.get(now);
      if (others === undefined) this.#bySize.set(now, new Set([share]));
      else others.add(share);
    }
    if (now > this.#largest || (before === this.#largest && !this.#bySize.has(before))) {
      this.#largest = now;
    }
  }
}

class Link<T> {
  readonly value: T;
  older: Link<T> | undefined;
  newer: Link<T> | undefined;

  constructor(value: T) {
    this.value = value;
  }
}

/** A list whose members are moved to its end whenever they are used. */
class RecencyList<T> {
  #oldest: Link<T> | undefined;
  #newest: Link<T> | undefined;
  size = 0;

  get oldest(): T | undefined {
    return this.#oldest?.value;
  }

  add(link: Link<T>): void {
    link.older = this.#newest;
    if (this.#newest === undefined) this.#oldest = link;
    else this.#newest.newer = link;
    this.#newest = link;
    this.size++;
  }

  remove(link: Link<T>): void {
    const { older, newer } = link;
    if (older === undefined) this.#oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.#newest = older;
    else newer.older = older;
    link.older = undefined;
    link.newer = undefined;
    this.size--;
  }

  touch(link: Link<T>): void {
    if (link === this.#newest) return;
    this.remove(link);
    this.add(link);
  }
}
