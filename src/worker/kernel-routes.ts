/**
 * Keeps the kernel's routes to the presences in the cloud: each leads to the TUN of the worker that holds the
 * presence's site. These routes distribute the packets; no worker forwards packets to another.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { RouteChange, SiteRoute } from '../control/index.ts';
import { changeRoutes, type RouteSetting } from '../device/index.ts';
import type { Logger } from '../observe/index.ts';

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
  /** The routes that the kernel has, by the text of their prefixes. */
  readonly #installed = new Map<string, RouteSetting>();
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
      if (site === undefined) this.#wanted.delete(prefix.toString());
      else this.#wanted.set(prefix.toString(), { prefix, site });
    }
    if (changes.length > 0) void this.sync();
  }

  /** Sets the routes of an interface again. Must be called when the interface was created again, without routes. */
  forget(device: string): void {
    for (const [text, installed] of this.#installed) {
      if (installed.device === device) this.#installed.delete(text);
    }
    void this.sync();
  }

  /** Resolves when the kernel has the present routes, or setting them has failed; then it is tried again. */
  sync(): Promise<void> {
    if (this.#isOpen && !this.#isQueued) {
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

  async #apply(): Promise<void> {
    const settings: RouteSetting[] = [];
    for (const [text, { prefix, site }] of this.#wanted) {
      const device = this.#options.deviceOf(site);
      if (this.#installed.get(text)?.device !== device) settings.push({ prefix, device });
    }
    // Removals come last, so that no address is without a route in between.
    for (const [text, { prefix }] of this.#installed) {
      if (!this.#wanted.has(text)) settings.push({ prefix, device: undefined });
    }
    try {
      await changeRoutes(settings);
      for (const setting of settings) {
        const text = setting.prefix.toString();
        if (setting.device === undefined) this.#installed.delete(text);
        else this.#installed.set(text, setting);
      }
    } catch (error) {
      const { logger, clock } = this.#options;
      logger.warn({ err: error }, `routes: ${(error as Error).message}`);
      if (this.#isOpen) this.#cancelRetry = clock.after(RETRY_MS, () => void this.sync(), true);
    }
  }
}

const RETRY_MS = 1000;
