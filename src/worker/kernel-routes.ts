/**
 * Keeps the kernel's routes to the presences in the cloud: each leads to the TUN of the worker that holds the
 * presence's site. These routes distribute the packets; no worker forwards packets to another.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { IpPrefix } from '../base/prefix.ts';
import type { RouteChange, SiteRoute } from '../control/index.ts';
import { changeRoutes } from '../device/index.ts';
import { errorFields, type Logger } from '../observe/index.ts';

export interface KernelRoutesOptions {
  /** Returns the interface that leads to a site. */
  readonly deviceOf: (site: string) => string;
  readonly logger: Logger;
  readonly clock: Clock;
}

export class KernelRoutes {
  readonly #options: KernelRoutesOptions;
  /** The wanted routes, by the text of their prefixes. */
  readonly #wanted = new Map<string, SiteRoute>();
  /** The texts of the prefixes that lead to a site, by site. */
  readonly #ofSite = new Map<string, Set<string>>();
  /** The routes that the kernel has, by the text of their prefixes. */
  readonly #installed = new Map<string, Setting>();
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

  /** Routes a site to another interface. Must be called when the result of `deviceOf` has changed. */
  moved(site: string): Promise<void> {
    for (const text of this.#ofSite.get(site) ?? []) {
      this.#changed.set(text, this.#wanted.get(text)!.prefix);
    }
    return this.sync();
  }

  /** Sets the routes of an interface again. Must be called when the interface was created again, without routes. */
  forget(device: string): void {
    for (const [text, installed] of this.#installed) {
      if (installed.device !== device) continue;
      this.#installed.delete(text);
      this.#changed.set(text, installed.prefix);
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
    const settings: Setting[] = [];
    const removals: Setting[] = [];
    for (const [text, prefix] of changed) {
      const site = this.#wanted.get(text)?.site;
      const device = site === undefined ? undefined : this.#options.deviceOf(site);
      if (this.#installed.get(text)?.device === device) continue;
      (device === undefined ? removals : settings).push({ prefix, device });
    }
    // Removals come last, so that no address is without a route in between.
    settings.push(...removals);
    if (settings.length === 0) return;
    try {
      await changeRoutes(settings);
      for (const setting of settings) {
        const text = setting.prefix.toString();
        if (setting.device === undefined) this.#installed.delete(text);
        else this.#installed.set(text, setting);
      }
    } catch (error) {
      const { logger, clock } = this.#options;
      const fields = { event: 'kernel_routes_failed', ...errorFields(error) } as const;
      logger.warn(fields, `routes: ${(error as Error).message}`);
      for (const { prefix } of settings) {
        const text = prefix.toString();
        this.#changed.set(text, prefix);
        // A part of the routes may be set.
        this.#installed.set(text, { prefix, device: UNKNOWN });
      }
      if (this.#isOpen) this.#cancelRetry = clock.after(RETRY_MS, () => void this.sync(), true);
    }
  }
}

/** The interface that a prefix is routed to; undefined to remove the route. */
interface Setting {
  readonly prefix: IpPrefix;
  readonly device: string | undefined;
}

/** In place of the name of an interface: whether the kernel has a route is not known. No interface has this name. */
const UNKNOWN = '';
const RETRY_MS = 1000;
