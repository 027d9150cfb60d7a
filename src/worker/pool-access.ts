/**
 * Which sites the workers of a pool admit, and what the workers know of it: each receives all of it once, and then what
 * changes.
 * @module
 */
import type { AccessChange, AccessRules } from './access.ts';
import type { Worker } from './worker.ts';

export interface PoolAccessOptions {
  /** Returns the present rules. */
  readonly rules: () => AccessRules;
  readonly workers: () => readonly Worker[];
  /** Returns the number of the worker that holds a site, and places a new site. */
  readonly holderOf: (site: string) => number;
  /** Returns the port where a worker listens for tunnels; undefined until it has taken one. */
  readonly portOf: (worker: number) => number | undefined;
  /** A site is not admitted any more, and the workers were told. */
  readonly onGone: (site: string) => void;
}

export class PoolAccess {
  readonly #options: PoolAccessOptions;
  readonly #sites = new Set<string>();
  /** The retired CAs that the workers know. */
  #retired: readonly string[] = [];

  constructor(options: PoolAccessOptions) {
    this.#options = options;
  }

  /** Returns all that a worker has to know before it opens. */
  all(): AccessChange {
    const { revocations, retired } = this.#options.rules();
    const holders = new Map(
      Array.from(this.#sites, (site) => [site, this.#options.holderOf(site)] as const)
    );
    return { holders, ports: this.#ports(), revocations, retired };
  }

  /** Reads the rules, and tells the workers what has changed. It costs what all sites have. */
  refresh(): void {
    const { sites: names, revocations, retired } = this.#options.rules();
    const sites = new Set(names);
    const changed = [...sites, ...this.#sites].filter(
      (site) => sites.has(site) !== this.#sites.has(site)
    );
    this.#setSites(new Map(changed.map((site) => [site, sites.has(site)])));
    this.#update({ revocations, ...this.#newRetired(retired) });
  }

  setSite(site: string, isAdmitted: boolean): void {
    if (this.#sites.has(site) !== isAdmitted) this.#setSites(new Map([[site, isAdmitted]]));
  }

  /** Tells the workers what is revoked, and which CAs are retired. */
  refreshRevocations(): void {
    const { revocations, retired } = this.#options.rules();
    this.#update({ revocations, ...this.#newRetired(retired) });
  }

  /** Tells the workers where each of them listens. */
  refreshPorts(): void {
    this.#update({ ports: this.#ports() });
  }

  /** Tells the workers that another one holds a site. */
  moved(site: string): void {
    if (!this.#sites.has(site)) return;
    this.#update({ holders: new Map([[site, this.#options.holderOf(site)]]) });
  }

  /** @param changed whether each of these sites is admitted now */
  #setSites(changed: ReadonlyMap<string, boolean>): void {
    if (changed.size === 0) return;
    const holders = new Map<string, number | undefined>();
    for (const [site, isAdmitted] of changed) {
      holders.set(site, isAdmitted ? this.#options.holderOf(site) : undefined);
      if (isAdmitted) this.#sites.add(site);
      else this.#sites.delete(site);
    }
    this.#update({ holders });
    for (const [site, isAdmitted] of changed) if (!isAdmitted) this.#options.onGone(site);
  }

  /** Returns the retired CAs if they have changed: a worker then checks the certificate of every tunnel again. */
  #newRetired(retired: readonly string[]): Pick<AccessChange, 'retired'> {
    const known = this.#retired;
    const isKnown =
      retired.length === known.length && retired.every((pem, number) => pem === known[number]);
    if (isKnown) return {};
    this.#retired = [...retired];
    return { retired };
  }

  #update(change: AccessChange): void {
    for (const worker of this.#options.workers()) worker.updateAccess(change);
  }

  #ports(): ReadonlyMap<number, number> {
    const ports = new Map<number, number>();
    for (const worker of this.#options.workers().keys()) {
      const port = this.#options.portOf(worker);
      if (port !== undefined) ports.set(worker, port);
    }
    return ports;
  }
}
