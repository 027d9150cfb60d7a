/**
 * What this process asks of the one that allocates: an entry of the store for each request, which ends with this process.
 * The one that allocates deletes it in the commit with which it has done it, or has refused it. Each machine has keys of
 * its own, so that no request ends with another machine.
 *
 * | key | value | asks for |
 * | --- | --- | --- |
 * | `admit/<name>/<site>/<hash>` | client, egress site, IP version | the presence of a client |
 * | `release/<name>/<site>` | | the end of the leases of a site's clients |
 * | `uses/<name>` | realms and addresses | that these presences were used |
 *
 * A request that nobody answers ends after `REQUEST_MS`.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { Change, Json, Store, StoreLease, Write } from '../store/index.ts';
import { type Allocation, AllocatorUnavailableError } from './allocation.ts';

export interface AllocatorRequestsOptions {
  readonly store: Store;
  readonly allocation: Allocation;
  readonly clock: Clock;
}

export class AllocatorRequests {
  readonly #options: AllocatorRequestsOptions;
  /** Keyed by the key in the store. */
  readonly #requests = new Map<string, Request>();
  /** Keyed by site: how many of its requests are sent and not answered, and those that wait for that. */
  readonly #sites = new Map<string, { open: number; readonly waiting: Request[] }>();
  #unsent: Request[] = [];
  #lastId = 0;
  #isClosed = false;

  constructor(options: AllocatorRequestsOptions) {
    this.#options = options;
  }

  /**
   * Asks for something, and resolves when the entry was deleted. What was written in the same commit has been shown then.
   * A request that is open already is not made twice.
   *
   * @param site the site whose requests are limited together
   * @throws {AllocatorUnavailableError} if nobody answers, or this process cannot ask.
   */
  ask(key: string, site: string, value: { readonly [name: string]: Json }): Promise<void> {
    const known = this.#requests.get(key);
    if (known !== undefined) return known.answered;
    if (this.#isClosed) return Promise.reject(unavailable('the controller is closed'));
    const id = ++this.#lastId;
    const request = new Request(key, site, { ...value, id });
    this.#requests.set(key, request);
    const seconds = REQUEST_MS / 1000;
    const endTimer = this.#options.clock.after(
      REQUEST_MS,
      () => this.#giveUp(request, unavailable(`no machine has answered within ${seconds} s`)),
      true
    );
    request.answered.finally(endTimer).catch(() => {});
    const ofSite = this.#sites.get(site) ?? { open: 0, waiting: [] };
    this.#sites.set(site, ofSite);
    if (ofSite.open >= MAX_OPEN) ofSite.waiting.push(request);
    else this.#send(request);
    return request.answered;
  }

  /** Takes what the store shows, after the leases that were shown with it. */
  show(changes: Iterable<Change>): void {
    for (const { key, value, version } of changes) {
      const request = this.#requests.get(key);
      if (request === undefined) continue;
      if (value !== undefined) {
        const isThis = (value as { readonly id?: Json }).id === request.value.id;
        request.version = isThis ? version : undefined;
      } else if (request.version !== undefined) {
        const hasEnded = request.lease?.ended.aborted === true;
        this.#end(request, hasEnded ? unavailable('this machine is detached') : undefined);
      }
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const request of [...this.#requests.values()]) {
      this.#giveUp(request, unavailable('the controller is closed'));
    }
  }

  /** Requests of the same turn go in one commit. */
  #send(request: Request): void {
    this.#sites.get(request.site)!.open++;
    request.isSent = true;
    this.#unsent.push(request);
    if (this.#unsent.length === 1) queueMicrotask(() => this.#commit());
  }

  #commit(): void {
    const { store, allocation } = this.#options;
    const requests = this.#unsent.filter((each) => this.#requests.get(each.key) === each);
    this.#unsent = [];
    const most = Math.min(store.maxWrites ?? MOST_WRITES, MOST_WRITES);
    const { lease } = allocation;
    for (let at = 0; at < requests.length; at += most) {
      const some = requests.slice(at, at + most);
      if (lease === undefined) {
        for (const each of some) this.#end(each, unavailable('this machine is detached'));
        continue;
      }
      for (const each of some) each.lease = lease;
      const writes = some.map(({ key, value }): Write => ({ key, value, lease }));
      store.commit(writes).catch((error: Error) => {
        const reason = unavailable(error.message, error);
        for (const each of some) this.#end(each, reason);
      });
    }
  }

  /** Takes a request back that nobody has answered. */
  #giveUp(request: Request, reason: AllocatorUnavailableError): void {
    const { key, version } = request;
    this.#end(request, reason);
    if (version === undefined) return;
    // Otherwise it ends with this process, or is answered late.
    this.#options.store.commit([{ key, value: undefined, expect: version }]).catch(() => {});
  }

  #end(request: Request, reason: AllocatorUnavailableError | undefined): void {
    if (this.#requests.get(request.key) !== request) return;
    this.#requests.delete(request.key);
    if (reason === undefined) request.resolve();
    else request.reject(reason);
    const ofSite = this.#sites.get(request.site)!;
    if (request.isSent) ofSite.open--;
    else ofSite.waiting.splice(ofSite.waiting.indexOf(request), 1);
    const next = this.#isClosed ? undefined : ofSite.waiting[0];
    if (next !== undefined && ofSite.open < MAX_OPEN) {
      ofSite.waiting.shift();
      this.#send(next);
    }
    if (ofSite.open + ofSite.waiting.length === 0) this.#sites.delete(request.site);
  }
}

class Request {
  readonly key: string;
  readonly site: string;
  readonly value: { readonly [name: string]: Json };
  readonly answered: Promise<void>;
  resolve!: () => void;
  reject!: (reason: Error) => void;
  isSent = false;
  /** The lease with which its entry ends. */
  lease: StoreLease | undefined;
  /** The version of its entry; undefined while the store has not shown it. */
  version: number | undefined;

  constructor(key: string, site: string, value: { readonly [name: string]: Json }) {
    this.key = key;
    this.site = site;
    this.value = value;
    this.answered = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }
}

function unavailable(reason: string, cause?: Error): AllocatorUnavailableError {
  return new AllocatorUnavailableError(
    `the machine that allocates addresses cannot be asked: ${reason}`,
    { cause }
  );
}

/** How many requests of one site are in the store at most; the others wait. */
const MAX_OPEN = 32;
/** For how long a request waits for its answer, in ms. */
const REQUEST_MS = 10_000;
/** How many requests one commit has at most. */
const MOST_WRITES = 256;
