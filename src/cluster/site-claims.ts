/**
 * `SiteClaims` decides at which machine a site is: where its tunnel is. That machine has the key `holder/<site>` under its
 * lease; the key's version is the epoch of the site.
 *
 * The rules are those of `test/model/holder.ts`:
 *
 * - A machine to which an edge connects creates the key where there is none. If another machine has it, it asks that one
 *   (`want`), which deletes the key unless the site has a live tunnel there (rule `want`).
 * - A hand-over writes the key under the lease of the next machine, so the epoch changes (rule `handOver`).
 * - A machine gives a key up whose tunnel has not come up after a while (rule `settle`).
 * - A machine that sees another one's key ends its tunnel of the site. One that sees no key, and has a tunnel, makes the
 *   key again.
 * - A detached machine takes back an edge whose last epoch is the one that it gave last (rule `takeBack`). It claims
 *   nothing.
 * @module
 */
import { Emitter } from '../base/emitter.ts';
import type { HostPort } from '../base/host-port.ts';
import { checkDuration, checkMethods, checkObject } from '../base/option-check.ts';
import { ConflictError, NotFoundError, StoreConflictError, StoreError } from '../errors.ts';
import { type Holder, HolderKeys } from './holder-keys.ts';
import type { Member, MemberState } from './member.ts';
import { mayTake, nextMachine } from './next-machine.ts';
import { pause } from './pause.ts';
import { isSameEpoch, type SiteEpoch } from './site-epoch.ts';
import { Wants } from './wants.ts';

/** What this process knows of the tunnels of sites. */
export interface TunnelLiveness {
  /**
   * Returns whether the site has a tunnel here whose edge answers: false if there is none, or if several PINGs in a row
   * got no answer. It takes a second or so at most.
   */
  isAlive(site: string): Promise<boolean>;
}

/** The answer to an edge that connects. */
export type Claim =
  /** The site is held here: its tunnel may come up, with this epoch. */
  | { readonly kind: 'held'; readonly epoch: SiteEpoch }
  /** The site has a live tunnel at another machine, which is reached there. */
  | { readonly kind: 'moved'; readonly endpoints: readonly HostPort[] }
  /** It could not be decided; the edge should come again. */
  | { readonly kind: 'busy'; readonly retryAfterMs: number };

export interface SiteClaimsOptions {
  readonly member: Member;
  readonly liveness: TunnelLiveness;
  /** For how long an edge waits for the end of another machine's claim, in ms; default 2000. */
  readonly waitMs?: number;
  /** How long after a claim its tunnel has to be up, in ms; default 10,000. */
  readonly settleMs?: number;
}

export const SITE_CLAIMS_DEFAULTS: Readonly<
  Required<Pick<SiteClaimsOptions, 'waitMs' | 'settleMs'>>
> = Object.freeze({ waitMs: 2000, settleMs: 10_000 });

export interface SiteClaimsEvents {
  /** This machine has the site, or has it with another epoch: its routes lead here. */
  held: [site: { readonly site: string; readonly epoch: SiteEpoch }];
  /**
   * The site is not here any more: its routes and its tunnel have to end now. `endpoints` are those of the machine that has
   * it; empty if none has.
   */
  lost: [site: { readonly site: string; readonly endpoints: readonly HostPort[] }];
  /** The key of a site could not be written; it is tried again. */
  problem: [problem: { readonly error: Error; readonly site: string }];
}

/** A site that is here. */
interface Held {
  epoch: SiteEpoch;
  /** The epoch with which its tunnel was last let in, which its edge knows; undefined if none was. */
  given: SiteEpoch | undefined;
  /** When its tunnel was last let in. */
  grantedAtMs: number;
  /** Whether its tunnel has ended while this machine is detached, so that the edge may come back. */
  isWaiting: boolean;
}

/** The sites that this machine holds, and those of the others. */
export class SiteClaims extends Emitter<SiteClaimsEvents> implements AsyncDisposable {
  readonly #member: Member;
  readonly #liveness: TunnelLiveness;
  readonly #waitMs: number;
  readonly #settleMs: number;
  readonly #held = new Map<string, Held>();
  /** The claims in progress, and what wakes each when the store shows something of its site. */
  readonly #claiming = new Map<string, Promise<Claim>>();
  readonly #waiting = new Map<string, AbortController>();
  /** What cancels the timer of a site whose tunnel has to be up then. */
  readonly #settling = new Map<string, () => void>();
  /** When the keys of sites came here that have no tunnel yet: their edges may be on their way. */
  readonly #cameAtMs = new Map<string, number>();
  /** The sites that are answered for. */
  readonly #answering = new Set<string>();
  readonly #end = new AbortController();
  #holders: HolderKeys | undefined;
  #wants: Wants | undefined;
  #restoring: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(options: Required<SiteClaimsOptions>) {
    super();
    this.#member = options.member;
    this.#liveness = options.liveness;
    this.#waitMs = options.waitMs;
    this.#settleMs = options.settleMs;
  }

  /**
   * @throws {StoreError} if the store cannot be read.
   * @throws {ApiMisuseError} if an option is invalid; the message names it.
   */
  static async open(options: SiteClaimsOptions): Promise<SiteClaims> {
    const given = {
      ...SITE_CLAIMS_DEFAULTS,
      ...checkObject('the options of SiteClaims', options),
    };
    checkMethods('liveness', given.liveness, ['isAlive']);
    checkDuration('waitMs', given.waitMs);
    checkDuration('settleMs', given.settleMs);
    const claims = new SiteClaims(given);
    const { member } = given;
    claims.#holders = await HolderKeys.open(member, (sites) => claims.#onHolders(sites));
    claims.#wants = await Wants.open(member, (sites) => claims.#onWants(sites));
    member.on('state', claims.#onState);
    member.on('stop', claims.#onStop);
    // Sites may have been handed over, and asked for, before this process has looked.
    claims.#onHolders([...claims.#holders.here()]);
    return claims;
  }

  /** The sites that are here, with their epochs. */
  get held(): ReadonlyMap<string, { readonly epoch: SiteEpoch }> {
    return this.#held;
  }

  /** Returns who has a site, as this process sees it; undefined if nobody has. */
  holderOf(site: string): Holder | undefined {
    return this.#holders?.get(site);
  }

  /** Returns the sites of a machine, as this process sees it. */
  sitesOf(machine: string): readonly string[] {
    return [...(this.#holders?.sitesOf(machine) ?? [])];
  }

  /**
   * Decides where a site is whose edge connects here. It does not throw, and takes `waitMs` and the answers of the store
   * at most. After `held`, the tunnel has `settleMs` to come up; call `release` when the site has no tunnel here any more.
   *
   * @param lastEpoch the epoch of the last WELCOME that the edge has got
   */
  claim(site: string, lastEpoch?: SiteEpoch): Promise<Claim> {
    if (this.#member.lease === undefined) return Promise.resolve(this.#takeBack(site, lastEpoch));
    let claim = this.#claiming.get(site);
    if (claim === undefined) {
      claim = this.#claim(site).finally(() => {
        this.#claiming.delete(site);
        void this.#withdraw(site);
        // Its tunnel may have ended meanwhile.
        if (this.#held.has(site) && !this.#settling.has(site)) this.#settle(site, this.#settleMs);
      });
      this.#claiming.set(site, claim);
    }
    return claim;
  }

  /**
   * The site has no tunnel here any more, so another machine may claim it. A site whose tunnel was let in a moment ago is
   * looked at again a second later, since its earlier tunnel may have ended.
   */
  release(site: string): void {
    const held = this.#held.get(site);
    if (held === undefined || this.#claiming.has(site)) return;
    if (this.#freshMs(held) > 0) this.#settle(site, this.#freshMs(held));
    else void this.#free(site);
  }

  /**
   * Hands a site over to another machine: its key is written under that one's lease, and then this one emits `lost`.
   *
   * @throws {NotFoundError} if the site is not here.
   * @throws {ConflictError} if the other machine is not alive or takes no sites, or the site has just been moved.
   * @throws {StoreError} if this machine is detached, or the store does not answer.
   */
  async handOver(site: string, machine: string): Promise<void> {
    const holder = this.#holders!.get(site);
    if (holder?.isHere !== true) throw new NotFoundError(`site "${site}" is not at this machine`);
    const status = this.#member.machines.get(machine);
    const worker = this.#member.machines.worker(machine);
    if (status === undefined || !mayTake(status) || worker === undefined) {
      throw new ConflictError(`machine "${machine}" is not alive, or takes no sites`);
    }
    if (await this.#holders!.move(site, holder, machine, worker)) return;
    throw new ConflictError(`site "${site}" or machine "${machine}" has just changed`);
  }

  /** Ends all claims of this machine; its keys end with the lease of the member. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#end.abort();
    this.#member.off('state', this.#onState);
    this.#member.off('stop', this.#onStop);
    for (const cancel of this.#settling.values()) cancel();
    for (const waiting of this.#waiting.values()) waiting.abort();
    await Promise.all(this.#claiming.values());
    await this.#restoring;
    this.#holders?.close();
    this.#wants?.close();
    this.removeAllListeners();
  }

  async #claim(site: string): Promise<Claim> {
    const { clock, name } = this.#member;
    const endMs = clock.monotonicMs() + this.#waitMs;
    const wants = this.#wants!;
    let hasAsked = false;
    try {
      while (this.#member.lease !== undefined && !this.#end.signal.aborted) {
        const holder = this.#holders!.get(site);
        if (holder === undefined && this.#member.isDraining) {
          const next = nextMachine(site, this.#member.machines.list(), name);
          if (next !== undefined) return { kind: 'moved', endpoints: next.endpoints };
        }
        if (holder === undefined || holder.isHere) {
          await this.#holders!.take([site]);
          if (this.#holders!.get(site)?.isCurrent === true) return this.#grant(site);
        } else if (!hasAsked) {
          await wants.ask(site);
          hasAsked = true;
          continue;
        } else if (!wants.isAsking(site)) {
          const endpoints = this.#member.endpointsOf(holder.machine);
          return endpoints.length > 0 ? { kind: 'moved', endpoints } : BUSY;
        }
        // What is waited for may have come already.
        if (this.#holders!.get(site)?.epoch.number !== holder?.epoch.number) continue;
        const leftMs = endMs - clock.monotonicMs();
        if (leftMs <= 0) return BUSY;
        await this.#changeOf(site, leftMs);
      }
    } catch (error) {
      if (!(error instanceof StoreError || error instanceof StoreConflictError)) throw error;
    }
    return BUSY;
  }

  /** Takes the question back that a claim has left. */
  async #withdraw(site: string): Promise<void> {
    while (this.#member.lease !== undefined && !this.#end.signal.aborted) {
      if (!this.#wants!.isAsking(site) || this.#claiming.has(site)) return;
      try {
        await this.#wants!.withdraw(site);
      } catch (error) {
        if (error instanceof StoreConflictError) return;
        await pause(this.#member.clock, RETRY_MS, this.#end.signal);
      }
    }
  }

  /** Resolves when the store shows something of the site, or after `ms`. */
  async #changeOf(site: string, ms: number): Promise<void> {
    const changed = new AbortController();
    this.#waiting.set(site, changed);
    await pause(this.#member.clock, ms, changed.signal);
    this.#waiting.delete(site);
  }

  /** Lets the tunnel of a site in that this machine has. */
  #grant(site: string): Claim {
    const { epoch } = this.#holders!.get(site)!;
    this.#hold(site, epoch);
    return this.#letIn(site, this.#held.get(site)!);
  }

  #takeBack(site: string, lastEpoch: SiteEpoch | undefined): Claim {
    const held = this.#held.get(site);
    if (held === undefined || !isSameEpoch(held.given, lastEpoch)) return BUSY;
    held.isWaiting = false;
    return this.#letIn(site, held);
  }

  #letIn(site: string, held: Held): Claim {
    held.given = held.epoch;
    held.grantedAtMs = this.#member.clock.monotonicMs();
    this.#settle(site, this.#settleMs);
    return { kind: 'held', epoch: held.epoch };
  }

  #hold(site: string, epoch: SiteEpoch): void {
    const before = this.#held.get(site);
    if (isSameEpoch(before?.epoch, epoch)) return;
    const grantedAtMs = before?.grantedAtMs ?? Number.NEGATIVE_INFINITY;
    const { given, isWaiting = false } = before ?? {};
    this.#cameAtMs.delete(site);
    this.#held.set(site, { epoch, given, grantedAtMs, isWaiting });
    this.emit('held', { site, epoch });
  }

  /** Looks after `ms` whether the site has a tunnel here, and gives it up if not. */
  #settle(site: string, ms: number): void {
    this.#settling.get(site)?.();
    const cancel = this.#member.clock.after(
      ms,
      () => {
        this.#settling.delete(site);
        void this.#tried(site, this.#freeUnlessAlive(site));
      },
      true
    );
    this.#settling.set(site, cancel);
  }

  async #freeUnlessAlive(site: string): Promise<boolean> {
    const isAlive = await this.#liveness.isAlive(site);
    if (!isAlive && !this.#end.signal.aborted) await this.#free(site);
    return isAlive;
  }

  /** Gives a site up that has no tunnel here. While this machine is detached, its edge may come back. */
  async #free(site: string): Promise<void> {
    const held = this.#held.get(site);
    if (this.#member.lease === undefined) {
      if (held !== undefined) held.isWaiting = true;
      return;
    }
    this.#lose(site, []);
    const holder = this.#holders!.get(site);
    if (holder?.isHere === true) await this.#tried(site, this.#holders!.drop(site, holder));
  }

  /** A key of a site has come here, for example by a hand-over. Its tunnel should come up soon. */
  #expect(site: string): void {
    this.#cameAtMs.set(site, this.#member.clock.monotonicMs());
    this.#settle(site, this.#settleMs);
  }

  #lose(site: string, endpoints: readonly HostPort[]): void {
    this.#cameAtMs.delete(site);
    this.#settling.get(site)?.();
    this.#settling.delete(site);
    if (this.#held.delete(site)) this.emit('lost', { site, endpoints });
  }

  #onHolders(sites: readonly string[]): void {
    for (const site of sites) {
      this.#waiting.get(site)?.abort();
      const holder = this.#holders?.get(site);
      const held = this.#held.get(site);
      if (holder === undefined) {
        // Its lease has ended, or somebody has deleted it by hand.
        if (held !== undefined) this.#restore();
      } else if (!holder.isHere) {
        this.#lose(site, this.#member.endpointsOf(holder.machine));
      } else {
        if (held !== undefined) this.#hold(site, holder.epoch);
        else if (!this.#claiming.has(site)) this.#expect(site);
        this.#answer(site);
      }
    }
  }

  #onWants(sites: readonly string[]): void {
    for (const site of sites) {
      this.#waiting.get(site)?.abort();
      this.#answer(site);
    }
  }

  /** Answers the machines that ask for a site that is here. While this machine is detached, it can answer nobody. */
  #answer(site: string): void {
    if (!this.#isAskedHere(site) || this.#answering.has(site)) return;
    this.#answering.add(site);
    void this.#answerUntilDone(site);
  }

  #isAskedHere(site: string): boolean {
    const isHere = this.#holders?.get(site)?.isHere === true;
    const mayWrite = this.#member.lease !== undefined && !this.#end.signal.aborted;
    return isHere && mayWrite && this.#wants?.isAsked(site) === true;
  }

  async #answerUntilDone(site: string): Promise<void> {
    while (this.#isAskedHere(site)) {
      await this.#tried(site, this.#answerAll(site));
      // The store did not take the answer, or another machine has asked meanwhile.
      if (this.#isAskedHere(site)) await pause(this.#member.clock, RETRY_MS, this.#end.signal);
    }
    this.#answering.delete(site);
  }

  async #answerAll(site: string): Promise<void> {
    const cameAtMs = this.#cameAtMs.get(site) ?? Number.NEGATIVE_INFINITY;
    const freshMs = this.#freshMs(this.#held.get(site) ?? { grantedAtMs: cameAtMs });
    if (freshMs > 0) await pause(this.#member.clock, freshMs, this.#end.signal);
    const isAlive = await this.#freeUnlessAlive(site);
    if (isAlive) await this.#wants!.refuse(site);
  }

  /** Returns for how many ms a tunnel that was let in has time to come up. */
  #freshMs({ grantedAtMs }: Pick<Held, 'grantedAtMs'>): number {
    return Math.max(0, grantedAtMs + FRESH_MS - this.#member.clock.monotonicMs());
  }

  readonly #onState = ({ state }: { readonly state: MemberState }): void => {
    if (state !== 'attached') return;
    for (const [site, { isWaiting }] of this.#held) if (isWaiting) void this.#free(site);
    for (const site of this.#holders!.here()) {
      if (!this.#held.has(site) && !this.#claiming.has(site)) this.#expect(site);
      this.#answer(site);
    }
    this.#restore();
  };

  readonly #onStop = (): void => {
    for (const site of [...this.#held.keys()]) this.#lose(site, []);
  };

  /** Makes the keys of sites again whose tunnels are here. */
  #restore(): void {
    this.#restoring ??= this.#restoreAll().finally(() => {
      this.#restoring = undefined;
    });
  }

  async #restoreAll(): Promise<void> {
    // The watch may be in the middle of telling of one commit.
    await Promise.resolve();
    while (this.#member.lease !== undefined && !this.#end.signal.aborted) {
      const missing = this.#missing();
      if (missing.length === 0) return;
      await this.#tried(missing[0]!, this.#holders!.take(missing));
      // Where another machine was first, the watch is about to show it.
      if (this.#missing().length > 0) {
        await pause(this.#member.clock, RETRY_MS, this.#end.signal);
      }
    }
  }

  /** The sites that have a tunnel here, and no key under the present lease. */
  #missing(): readonly string[] {
    return [...this.#held].flatMap(([site, { isWaiting }]) =>
      !isWaiting && this.#holders!.get(site)?.isCurrent !== true ? [site] : []
    );
  }

  /** Waits for work of a site, and emits `problem` if it fails. */
  async #tried(site: string, work: Promise<unknown>): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (!this.#end.signal.aborted) this.emit('problem', { error: error as Error, site });
    }
  }
}

const BUSY: Claim = { kind: 'busy', retryAfterMs: 1000 };
/** For how long a tunnel that was let in is not asked for, while its handshake ends. */
const FRESH_MS = 1000;
/** How long to wait until the store is asked again. */
const RETRY_MS = 100;
