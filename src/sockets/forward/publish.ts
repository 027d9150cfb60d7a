/**
 * `publish`: every TCP service of the site's zone at a loopback address of its own, with its own ports, so that programs
 * of this host that know nothing of this library can use them.
 *
 * It follows the snapshots, at a cost of what they change. Many listeners begin in several turns of the event loop. What
 * could not be bound is tried again with every snapshot, and every 30 s.
 * @module
 */
import * as v from 'valibot';
import { Emitter } from '../../base/emitter.ts';
import { IpPrefix, type PrefixInput } from '../../base/prefix.ts';
import { PrefixText, parseSchema, type Schema, wholeNumber } from '../../base/schema.ts';
import { systemError } from '../node/system-error.ts';
import type { SiteView } from '../site/site-view.ts';
import type { SocketHost } from '../socket-host.ts';
import {
  FORWARD_DEFAULTS,
  FORWARD_OPTIONS_ENTRIES,
  type ForwardCounters,
  type ForwardLoad,
  type ForwardOptions,
  newForwardLoad,
  type ResolvedForwardOptions,
} from './forward-server.ts';
import { LoopbackAddresses } from './publish-addresses.ts';
import { byName, planListeners, type ServicePlan } from './publish-plan.ts';
import { LocalService, type PublishedService } from './publish-service.ts';

/** The bounds are those of all services together. */
export interface PublishOptions extends ForwardOptions {
  /**
   * The prefix of the loopback addresses: within 127.0.0.0/8, without 127.0.0.1, of 4 addresses at least; default
   * `127.64.0.0/16`.
   */
  readonly loopback?: PrefixInput | undefined;
  /** How many ports are listened on at most, 1 to 65,535; default 1,024. Services with few ports come first. */
  readonly maxListeners?: number | undefined;
}

/** The values of options that are left out. */
export const PUBLISH_DEFAULTS: Readonly<{
  loopback: string;
  maxListeners: number;
  maxConnections: number;
  keepAliveMs: number;
}> = Object.freeze({ loopback: '127.64.0.0/16', maxListeners: 1024, ...FORWARD_DEFAULTS });

/** The connections of all services, and what is published now. */
export interface PublishCounters extends ForwardCounters {
  readonly services: number;
  /** Ports that are listened on. */
  readonly listening: number;
  /** Ports that could not be bound. */
  readonly unbound: number;
  /** Ports that are not listened on, because there are `maxListeners`. */
  readonly overLimit: number;
}

export interface PublicationEvents {
  /** What `entries` returns has changed; what `hosts` returns may have changed too. */
  change: [];
}

/** What the publication needs of its stack. */
export interface SiteSource {
  readonly view: SiteView;
  /** Are called when there is another view. */
  readonly followers: Set<(view: SiteView) => void>;
}

interface ResolvedPublishOptions extends ResolvedForwardOptions {
  readonly loopback: IpPrefix;
  readonly maxListeners: number;
}

/** The services of the site at loopback addresses of this host. It ends with its stack. */
export class Publication extends Emitter<PublicationEvents> implements AsyncDisposable {
  readonly #host: SocketHost;
  readonly #site: SiteSource;
  readonly #options: ResolvedPublishOptions;
  readonly #load: ForwardLoad;
  readonly #addresses: LoopbackAddresses;
  /** Keyed by the name. */
  readonly #services = new Map<string, LocalService>();
  readonly #follow: (view: SiteView) => void;
  /** Keyed by the name. */
  #plans: ReadonlyMap<string, ServicePlan> = new Map();
  /** The names for which there was no address. */
  readonly #withoutAddress = new Set<string>();
  /** The names of the services that have listeners to be started, and of those that are gone. */
  readonly #due = new Set<string>();
  /** The names of the services that have ports that could not be bound. */
  readonly #failing = new Set<string>();
  /** The entries that were announced, as texts, by the name. */
  readonly #known = new Map<string, string>();
  #stopTimer: (() => void) | undefined;
  #settling: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(host: SocketHost, site: SiteSource, options: ResolvedPublishOptions) {
    super();
    this.#host = host;
    this.#site = site;
    this.#options = options;
    this.#load = newForwardLoad(options);
    this.#addresses = new LoopbackAddresses(options.loopback);
    this.#follow = (view) => this.#update(view);
    host.servers.add(this);
    host.hostCounters.add('publish', this);
    site.followers.add(this.#follow);
    this.#update(site.view);
  }

  /** What is published, in the order of the names. */
  entries(): readonly PublishedService[] {
    return [...this.#services]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, service]) => service.entry);
  }

  /** The lines of the services that are listened on for a file as `/etc/hosts`: an address, a name and its aliases. */
  hosts(): string {
    return this.entries()
      .filter(({ name, ports }) => ports.length > 0 && HOST_NAME.test(name))
      .map(({ name, aliases, loopback }) => {
        const names = [name, ...aliases.filter((alias) => HOST_NAME.test(alias))];
        return `${loopback}\t${names.join(' ')}\n`;
      })
      .join('');
  }

  get counters(): Readonly<PublishCounters> {
    let [listening, unbound] = [0, 0];
    for (const { counts } of this.#services.values()) {
      listening += counts.listening;
      unbound += counts.unbound;
    }
    let overLimit = 0;
    for (const plan of this.#plans.values()) {
      for (const { first, last } of plan.overLimit) overLimit += last - first + 1;
    }
    const services = this.#services.size;
    return { ...this.#load.counters, services, listening, unbound, overLimit };
  }

  /** Resolves when every port is listened on or has failed. @internal */
  async settled(): Promise<void> {
    await this.#settling;
  }

  /** Stops to listen, and resets all connections. It may be called again. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#host.servers.delete(this);
    this.#site.followers.delete(this.#follow);
    this.#stopTimer?.();
    const services = [...this.#services.values()];
    this.#services.clear();
    this.#due.clear();
    this.#plans = new Map();
    await Promise.all(services.map((service) => service.close()));
    this.#host.hostCounters.delete(this);
  }

  #update(view: SiteView): void {
    const before = this.#plans;
    this.#plans = planListeners(view.services(), this.#options.maxListeners, before);
    for (const name of before.keys()) if (!this.#plans.has(name)) this.#withdraw(name);
    const touched = [...this.#plans.values()].filter(
      (plan) => before.get(plan.service.name) !== plan
    );
    for (const plan of touched.sort(byName)) {
      const { name } = plan.service;
      // What is not exposed any more is closed at once; a new service has its turn.
      if (this.#services.has(name)) this.#apply(plan);
      this.#due.add(name);
    }
    // An address may be free again.
    for (const name of this.#withoutAddress) this.#due.add(name);
    this.#retry();
  }

  #withdraw(name: string): void {
    void this.#services.get(name)?.close();
    this.#services.delete(name);
    this.#addresses.release(name);
    this.#withoutAddress.delete(name);
    this.#failing.delete(name);
    this.#due.add(name);
  }

  #apply(plan: ServicePlan): LocalService {
    const { name } = plan.service;
    const loopback = this.#addresses.assign(name)?.toString();
    if (loopback === undefined) this.#withoutAddress.add(name);
    else this.#withoutAddress.delete(name);
    let service = this.#services.get(name);
    if (service === undefined) {
      service = new LocalService(this.#host, this.#load, plan, loopback);
      this.#services.set(name, service);
    } else {
      service.update(plan, loopback);
    }
    return service;
  }

  #retry(): void {
    for (const name of this.#failing) {
      this.#services.get(name)!.retry();
      this.#due.add(name);
    }
    if (this.#due.size > 0) this.#settling ??= this.#settle();
  }

  /** Listens on what is due, and tells what has changed. */
  async #settle(): Promise<void> {
    while (this.#due.size > 0) {
      const names = await this.#start();
      if (this.#closing !== undefined) break;
      this.#stopTimer?.();
      const isNews = names.map((name) => this.#look(name)).includes(true);
      this.#stopTimer =
        this.#failing.size > 0
          ? this.#host.clock.after(RETRY_MS, () => this.#retry(), true)
          : undefined;
      if (isNews) this.emit('change');
    }
    this.#settling = undefined;
  }

  /** Starts what is due. Resolves with the names when all of it is listened on or has failed. */
  async #start(): Promise<readonly string[]> {
    const names = new Set<string>();
    let room = STARTS_OF_TURN;
    for (const name of this.#due) {
      // What changes during a wait is due again.
      this.#due.delete(name);
      names.add(name);
      const service = this.#serviceOf(name);
      room--;
      for (;;) {
        room -= service?.start(room) ?? 0;
        if (room > 0) break;
        await new Promise((resolve) => setImmediate(resolve));
        room = STARTS_OF_TURN;
      }
    }
    const started = [...names];
    await Promise.all(started.map((name) => this.#services.get(name)?.settled()));
    return started;
  }

  /** Returns the service, which may be new, or get its address now; undefined if it is gone. */
  #serviceOf(name: string): LocalService | undefined {
    const plan = this.#plans.get(name);
    if (plan === undefined) return undefined;
    const service = this.#services.get(name);
    return service === undefined || this.#withoutAddress.has(name) ? this.#apply(plan) : service;
  }

  /** Returns whether the service is not as it was announced. */
  #look(name: string): boolean {
    const service = this.#services.get(name);
    const text = service && JSON.stringify(service.entry);
    if (service !== undefined && service.counts.unbound > 0) this.#failing.add(name);
    else this.#failing.delete(name);
    if (text === this.#known.get(name)) return false;
    if (text === undefined) this.#known.delete(name);
    else this.#known.set(name, text);
    return true;
  }
}

/**
 * Publishes the services of the site, now and with every snapshot. Resolves when those of the present snapshot are
 * listened on, or have failed, which `entries` says.
 *
 * @throws {ConfigError} with the path of the option that is wrong.
 * @throws a system error ENETDOWN, if the stack is closed.
 */
export async function publish(
  host: SocketHost,
  site: SiteSource,
  options: PublishOptions = {}
): Promise<Publication> {
  const resolved = parseSchema(OptionsSchema, options);
  if (!host.isClosed) {
    const publication = new Publication(host, site, resolved);
    await publication.settled();
    if (!host.isClosed) return publication;
    await publication.close();
  }
  throw systemError('ENETDOWN', 'listen', { cause: host.closedBy });
}

const LOOPBACK = IpPrefix.parse('127.0.0.0/8');
const LOCALHOST = IpPrefix.parse('127.0.0.1/32');

/** The entries of `PublishOptions`, for a schema that has others too. */
export const PUBLISH_ENTRIES: v.ObjectEntries = {
  ...FORWARD_OPTIONS_ENTRIES,
  loopback: v.optional(
    v.pipe(
      PrefixText,
      v.check(
        (prefix) =>
          LOOPBACK.contains(prefix.base) &&
          prefix.length >= LOOPBACK.length &&
          prefix.length <= 30 &&
          !prefix.overlaps(LOCALHOST),
        'expected a prefix of 4 addresses or more within 127.0.0.0/8, without 127.0.0.1'
      )
    ),
    PUBLISH_DEFAULTS.loopback
  ),
  maxListeners: v.optional(wholeNumber(1, 65_535), PUBLISH_DEFAULTS.maxListeners),
};
const OptionsSchema = v.strictObject(PUBLISH_ENTRIES) as unknown as Schema<ResolvedPublishOptions>;

/** A name that may stand in a file of hosts. */
const HOST_NAME = /^[a-z0-9_.-]+$/;
/** How many services and listeners begin in one turn of the event loop: each takes up to 0.2 ms. */
const STARTS_OF_TURN = 32;
/** After how long ports that could not be bound are tried again. */
const RETRY_MS = 30_000;
