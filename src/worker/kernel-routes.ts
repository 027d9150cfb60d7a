/**
 * Keeps the kernel's routes to the presences in the cloud: each leads to the TUN of the worker that holds the
 * presence's site. These routes distribute the packets; no worker forwards packets to another.
 *
 * On a machine of several, a site has routes only while this machine holds it, and they have the metric of the epoch in
 * which it was claimed. A routing daemon tells the routers, for which the smaller metric is the better route.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { IpPrefix } from '../base/prefix.ts';
import type { RouteChange, SiteRoute } from '../control/index.ts';
import { changeRoutes } from '../device/index.ts';
import { errorFields, type Logger } from '../observe/index.ts';

/** Where a route leads. */
export interface RouteTarget {
  /** The interface. */
  readonly device: string;
  /** From 1 to 2^32 - 1; default: the kernel's. */
  readonly metric?: number;
}

export interface KernelRoutesOptions {
  /** Returns where the routes of a site lead; undefined while it has none. */
  readonly targetOf: (site: string) => RouteTarget | undefined;
  /**
   * Is called when the kernel has got routes to prefixes, or has none any more. If it rejects, the routes are set and
   * removed again, and it is called again. Default: nothing is called.
   */
  readonly onChanged?: (change: RoutedPrefixes) => Promise<void>;
  readonly logger: Logger;
  readonly clock: Clock;
}

/** What has changed in the kernel. */
export interface RoutedPrefixes {
  readonly added: readonly IpPrefix[];
  readonly removed: readonly IpPrefix[];
}

/**
 * Returns the metric of a route: the later the epoch, the smaller the metric. An epoch is a revision of the cluster's
 * store, counted from 1. From 2^32 on the metrics begin again: then a route of a hung process that is older than this
 * point wins over a newer one, until that process is ended.
 */
export function metricOf(epoch: number): number {
  return MAX_METRIC - ((epoch - 1) % MAX_METRIC);
}

export class KernelRoutes {
  readonly #options: KernelRoutesOptions;
  /** The wanted routes, by the text of their prefixes. */
  readonly #wanted = new Map<string, SiteRoute>();
  /** The texts of the prefixes that lead to a site, by site. */
  readonly #ofSite = new Map<string, Set<string>>();
  /** The routes that the kernel has or may have, by the text of their prefixes. */
  readonly #installed = new Map<string, Installed>();
  /** The prefixes whose routes may have to be set or removed, by their text. */
  #changed = new Map<string, IpPrefix>();
  #work: Promise<void> = Promise.resolve();
  #isQueued = false;
  #cancelRetry: () => void = () => {};
  #isOpen = false;

  constructor(options: KernelRoutesOptions) {
    this.#options = options;
  }

  /** Sets the routes. Must be called when the interfaces exist. */
  open(): Promise<void> {
    this.#isOpen = true;
    return this.sync();
  }

  update(changes: readonly RouteChange[]): void {
    for (const { prefix, site } of changes) {
      const text = prefix.toString();
      const before = this.#wanted.get(text)?.site;
      if (before !== undefined) this.#forgetOf(before, text);
      if (site === undefined) this.#wanted.delete(text);
      else {
        this.#wanted.set(text, { prefix, site });
        this.#ofSite.set(site, (this.#ofSite.get(site) ?? new Set()).add(text));
      }
      this.#changed.set(text, prefix);
    }
    if (changes.length > 0) void this.sync();
  }

  /** Sets or removes the routes of a site. Must be called when the result of `targetOf` has changed. */
  moved(site: string): Promise<void> {
    for (const text of this.#ofSite.get(site) ?? []) {
      this.#changed.set(text, this.#wanted.get(text)!.prefix);
    }
    return this.sync();
  }

  /** Sets the routes of an interface again. Must be called when the interface was created again, without routes. */
  forget(device: string): void {
    for (const [text, { prefix, targets }] of this.#installed) {
      if (!targets.some((target) => target.device === device)) continue;
      this.#installed.set(text, { prefix, targets, isCertain: false });
      this.#changed.set(text, prefix);
    }
    void this.sync();
  }

  /** Resolves when the kernel has the present routes, or setting them has failed; then it is tried again. */
  sync(): Promise<void> {
    if (this.#isOpen && !this.#isQueued && this.#changed.size > 0) {
      this.#isQueued = true;
      this.#work = this.#work.then(() => {
        this.#isQueued = false;
        return this.#apply();
      });
    }
    return this.#work;
  }

  async close(): Promise<void> {
    this.#isOpen = false;
    this.#cancelRetry();
    await this.#work;
  }

  #forgetOf(site: string, text: string): void {
    const texts = this.#ofSite.get(site)!;
    texts.delete(text);
    if (texts.size === 0) this.#ofSite.delete(site);
  }

  async #apply(): Promise<void> {
    const changed = this.#changed;
    this.#changed = new Map();
    const steps = [...changed].flatMap(([text, prefix]) => this.#step(text, prefix) ?? []);
    if (steps.length === 0) return;
    const added = steps.filter(({ to }) => to !== undefined);
    const removed = steps.filter(({ to }) => to === undefined);
    try {
      // Removals come last, so that no address is without a route in between.
      await changeRoutes([
        ...added.map(({ prefix, to }) => ({ prefix, ...to! })),
        ...steps.flatMap(({ prefix, gone }) =>
          gone.map(({ metric }) => ({ prefix, device: undefined, metric }))
        ),
      ]);
      await this.#options.onChanged?.({
        added: added.map(({ prefix }) => prefix),
        removed: removed.map(({ prefix }) => prefix),
      });
      for (const { text } of removed) this.#installed.delete(text);
      for (const { text, prefix, to } of added) {
        this.#installed.set(text, { prefix, targets: [to!], isCertain: true });
      }
    } catch (error) {
      const { logger, clock } = this.#options;
      const fields = { event: 'kernel_routes_failed', ...errorFields(error) } as const;
      logger.warn(fields, `routes: ${(error as Error).message}`);
      for (const { text, prefix, to, gone } of steps) {
        this.#changed.set(text, prefix);
        // A part of the routes may be set.
        const targets = to === undefined ? gone : [to, ...gone];
        this.#installed.set(text, { prefix, targets, isCertain: false });
      }
      if (this.#isOpen) this.#cancelRetry = clock.after(RETRY_MS, () => void this.sync(), true);
    }
  }

  /** Returns what is to be done for a prefix; undefined if the kernel has what is wanted. */
  #step(text: string, prefix: IpPrefix): Step | undefined {
    const site = this.#wanted.get(text)?.site;
    const to = site === undefined ? undefined : this.#options.targetOf(site);
    const { targets, isCertain } = this.#installed.get(text) ?? NOTHING;
    // A route replaces one of the same metric; one of another metric stays beside it.
    const gone = targets.filter((each) => to === undefined || each.metric !== to.metric);
    const isThere = to === undefined || targets.some((each) => isSame(each, to));
    return isThere && isCertain && gone.length === 0 ? undefined : { text, prefix, to, gone };
  }
}

/** What the kernel has, or may have after a failure, for a prefix. */
interface Installed {
  readonly prefix: IpPrefix;
  /** Each metric has one at most. */
  readonly targets: readonly RouteTarget[];
  /** Whether the kernel has just these. */
  readonly isCertain: boolean;
}

interface Step {
  readonly text: string;
  readonly prefix: IpPrefix;
  /** The route to set; undefined for none. */
  readonly to: RouteTarget | undefined;
  /** The routes to remove. */
  readonly gone: readonly RouteTarget[];
}

function isSame(one: RouteTarget, other: RouteTarget): boolean {
  return one.device === other.device && one.metric === other.metric;
}

const NOTHING: Pick<Installed, 'targets' | 'isCertain'> = { targets: [], isCertain: true };
/** The metric is a number of 32 bits, and 0 is the kernel's default. */
const MAX_METRIC = 2 ** 32 - 1;
const RETRY_MS = 1000;
