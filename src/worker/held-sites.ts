/**
 * Which sites a pool holds and which of its workers has each of them, and what moves with a site: its part of the plan,
 * the kernel's routes to its presences, and its tunnel.
 * @module
 */
import { ELSEWHERE, PlanPartition } from '../control/index.ts';
import { CLOUD } from '../registry/index.ts';
import type { TranslationPlan } from '../translator/index.ts';
import { redirect } from './access.ts';
import type { Answers } from './answers.ts';
import { Placement } from './placement.ts';
import type { PoolAccess } from './pool-access.ts';
import type { PoolTuns } from './pool-tuns.ts';
import type { TunnelClose, Worker } from './worker.ts';

export interface HeldSitesOptions {
  /** Whether the pool holds all sites, or those that `take` has given to it. */
  readonly sites: 'all' | 'taken';
  readonly workers: readonly Worker[];
  readonly tuns: PoolTuns;
  readonly access: PoolAccess;
  readonly answers: Answers;
  readonly portOf: (worker: number) => number | undefined;
}

export class HeldSites {
  readonly #options: HeldSitesOptions;
  readonly #placement: Placement;
  /** Absent if there is one worker that holds all sites: it has the whole plan. */
  readonly #partition: PlanPartition | undefined;
  /** The sites that `take` has given to the pool, with their epochs; undefined if it holds all sites. */
  readonly #taken: Map<string, number> | undefined;
  /** The changes of which worker has a site, one after the other, by site. */
  readonly #work = new Map<string, Promise<void>>();

  constructor(options: HeldSitesOptions) {
    this.#options = options;
    const { sites, workers, tuns } = options;
    this.#placement = new Placement(workers.length);
    if (sites === 'taken') this.#taken = new Map();
    if (workers.length === 1 && sites === 'all') return;
    this.#partition = new PlanPartition({
      shared: CLOUD,
      targets: workers,
      holderOf: (site) => this.holderHere(site) ?? ELSEWHERE,
      onRoutes: (changes) => tuns.update(changes),
    });
  }

  /** Whether each worker has a part of the plan. */
  get isDivided(): boolean {
    return this.#partition !== undefined;
  }

  /** Receives the plan for all workers. */
  get plan(): PlanPartition | Worker {
    return this.#partition ?? this.#options.workers[0]!;
  }

  /** Returns the part of the plan that a worker has; undefined if it has the whole plan. */
  part(worker: number): TranslationPlan | undefined {
    return this.#partition?.part(worker);
  }

  /**
   * Returns the number of the worker that holds a site, or would if the pool held it. The first call for a site places it.
   */
  holderOf(site: string): number {
    return this.#placement.holderOf(site);
  }

  /** Returns the number of the worker that holds a site; undefined if the pool does not hold it. */
  holderHere(site: string): number | undefined {
    return this.#isHere(site) ? this.holderOf(site) : undefined;
  }

  /** Returns the sites of each worker. */
  sites(): string[][] {
    return this.#placement.sites();
  }

  /** There is no such site any more. */
  forget(site: string): void {
    this.#placement.forget(site);
    if (this.#taken?.delete(site) !== true) return;
    // A site of the same name may come later, and another machine may hold it.
    void this.#inTurn(site, async () => {
      if (!this.#isHere(site)) await this.#options.tuns.release(site);
    });
  }

  /** Moves a site to another worker. */
  move(site: string, to: number): Promise<void> {
    return this.#inTurn(site, () => this.#move(site, to));
  }

  /**
   * Holds a site from now on, or since another epoch. When it resolves, its worker has its part of the plan, and the
   * kernel routes its presences there.
   */
  take(site: string, epoch: number): Promise<void> {
    return this.#inTurn(site, async () => {
      if (this.#taken === undefined || this.#taken.get(site) === epoch) return;
      const isNew = !this.#taken.has(site);
      this.#taken.set(site, epoch);
      if (isNew) {
        this.#partition!.moved(site)();
        await this.#settled(this.holderOf(site));
      }
      await this.#options.tuns.hold(site, epoch);
    });
  }

  /** Does not hold a site any more. When it resolves, no packet of the site passes here. */
  giveUp(site: string, close: TunnelClose): Promise<void> {
    return this.#inTurn(site, async () => {
      if (this.#taken?.delete(site) !== true) return;
      await this.#options.tuns.release(site);
      await this.#terminate(this.holderOf(site), site, close);
      this.#partition!.moved(site)();
      await this.#settled(this.holderOf(site));
    });
  }

  /** Resolves when the changes so far are made, or have failed. */
  async settled(): Promise<void> {
    await Promise.all(this.#work.values());
  }

  #isHere(site: string): boolean {
    return this.#taken?.has(site) ?? true;
  }

  /** Resolves when a worker has processed all earlier notifications, or hangs. */
  async #settled(worker: number): Promise<void> {
    const { workers, answers } = this.#options;
    await answers.of(workers[worker]!, (each) => each.settled(), { value: undefined });
  }

  /** Ends a site's tunnel at a worker, which is killed if it hangs. */
  async #terminate(worker: number, site: string, close: TunnelClose): Promise<void> {
    const { workers, answers } = this.#options;
    await answers.orKill(workers[worker]!, (each) => each.terminate({ site }, close));
  }

  /**
   * The order of the steps ensures that no worker answers a packet of the site with a refusal: the new worker receives
   * the site, the kernel routes its packets there, its edge dials there, the other workers receive the change. Packets
   * in transit meanwhile are dropped without an answer.
   */
  async #move(site: string, to: number): Promise<void> {
    const { access, tuns, portOf } = this.#options;
    const from = this.holderOf(site);
    if (from === to || this.#partition === undefined) return;
    this.#placement.move(site, to);
    const leave = this.#partition.moved(site);
    access.moved(site);
    await this.#settled(to);
    await tuns.moved(site);
    const close = { ...redirect(site, to, portOf(to)), drain: true };
    await this.#terminate(from, site, close);
    leave();
  }

  /** Calls `step` when all earlier steps of the site have ended, also if they failed. */
  #inTurn(site: string, step: () => Promise<void>): Promise<void> {
    const done = (this.#work.get(site) ?? Promise.resolve()).then(step);
    const ended = done
      .catch(() => {})
      .then(() => {
        if (this.#work.get(site) === ended) this.#work.delete(site);
      });
    this.#work.set(site, ended);
    return done;
  }
}
