/**
 * The routes that lead to a TUN, with the rules and the forwarding that they need: set when the gateway starts, and
 * changed while it runs.
 * @module
 */
import { IpPrefix, type PrefixInput } from '../base/prefix.ts';
import { ApiMisuseError } from '../errors.ts';
import { checkGiven } from './contract.ts';
import { type HostOptions, HostSetup } from './host-setup.ts';
import { ip, ipBatch } from './ip-command.ts';

export interface TunRoutes {
  /** Prefixes to route to the interface, for example `10.0.0.128/25`. */
  readonly routes: readonly PrefixInput[];
  /** Prefixes that lead nowhere as a whole; parts of them may be routed with `changeRoutes`. Default: none. */
  readonly unreachable?: readonly PrefixInput[];
}

/** What `configureTun` has set on the machine, besides the addresses of the interface. */
export interface TunSetup extends AsyncDisposable {
  /**
   * What the machine lacks, and what an earlier gateway had left, one sentence each. The gateway works without,
   * but its operator has to know: without nftables nothing but `forwarding` and `rp_filter` of single interfaces
   * protects an IPv4 network.
   */
  readonly problems: readonly string[];
  /**
   * Puts these routes in the place of all that this setup has set, and adapts the rules and the forwarding. A route
   * that stays is there all the time, and no route is there without its rules. Calls run one after the other. The
   * same call again changes nothing, and mends what somebody else has removed.
   *
   * @returns what the machine lacks now, as `problems` says it from then on.
   * @throws {ApiMisuseError} if a prefix is not one, or this setup is closed or was replaced by a later one of the
   *   same interface; then nothing is changed.
   * @throws {EnvironmentError} for the reasons of `configureTun`; then the former routes, rules and settings are in
   *   force again.
   */
  setRoutes(routes: TunRoutes): Promise<readonly string[]>;
  /**
   * Removes the rules and the routes that lead nowhere, and restores the kernel settings that still have the value
   * that was set and that no other gateway on this machine needs. The other routes go with the interface. The same a
   * second time changes nothing, and so does the call when this process has called `configureTun` for the same
   * interface since: the last setup undoes what all have set.
   *
   * @throws {EnvironmentError} if a setting cannot be restored or the rules cannot be removed. The other settings
   *   are restored all the same; the rules stay if one could not be restored. Another call tries again.
   */
  close(): Promise<void>;
}

/** Prefixes by the words with which `ip route` sets and removes their routes. */
type Routes = ReadonlyMap<string, IpPrefix>;

export class HostRoutes implements TunSetup {
  readonly #options: Omit<HostOptions, 'prefixes'>;
  #routes: Routes;
  /** Routes of a change that has failed, which could not be taken back. */
  #leftovers: readonly string[] = [];
  #host: HostSetup | undefined;
  #problems: readonly string[] = [];
  /** Whether `close` has undone the rules and settings; a setup that was replaced has nothing to undo. */
  #isUndone = false;
  #lastTurn: Promise<unknown> = Promise.resolve();

  /** @throws {ApiMisuseError} if a prefix is not one. */
  constructor(options: Omit<HostOptions, 'prefixes'>, routes: TunRoutes) {
    this.#options = options;
    this.#routes = this.#parse(routes);
  }

  get problems(): readonly string[] {
    return this.#problems;
  }

  /** Sets everything; to be called once, before the other methods. */
  open(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#addRoutes(NO_ROUTES, this.#routes);
      this.#problems = await this.#openHost(this.#routes);
    });
  }

  async setRoutes(routes: TunRoutes): Promise<readonly string[]> {
    const wanted = this.#parse(routes);
    return this.#inTurn(async () => {
      if (this.#host?.isInForce !== true) {
        const [tun] = this.#options.tuns;
        throw new ApiMisuseError(
          `the setup of ${tun} is closed, or a later one has replaced it: it can set no routes`
        );
      }
      const former = this.#routes;
      try {
        await this.#removeLeftovers();
        this.#problems = await this.#change(former, wanted);
        this.#routes = wanted;
      } catch (error) {
        const added = [...wanted.keys()].filter((words) => !former.has(words));
        this.#leftovers = [...this.#leftovers, ...added];
        await this.#takeBack(former).catch(() => {});
        throw error;
      }
      return this.#problems;
    });
  }

  close(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#host?.isInForce === true) {
        await this.#host.close();
        this.#isUndone = true;
      }
      if (!this.#isUndone) return;
      await this.#removeLeftovers();
      await removeRoutes([...this.#routes.keys()].filter((words) => words.startsWith(NOWHERE)));
      this.#routes = NO_ROUTES;
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Leads from one state to another; returns what the machine lacks. */
  async #change(from: Routes, to: Routes): Promise<readonly string[]> {
    const all = new Map([...from, ...to]);
    // Rules before routes, and routes before rules when they go.
    const problems = await this.#openHost(all);
    await this.#addRoutes(from, to);
    const gone = [...all.keys()].filter((words) => !to.has(words));
    await removeRoutes(gone);
    if (gone.length > 0) problems.push(...(await this.#openHost(to)));
    return [...new Set(problems)];
  }

  /** What fails here is done by the next call. */
  async #takeBack(former: Routes): Promise<void> {
    await this.#removeLeftovers();
    await this.#openHost(former);
    await this.#addRoutes(former, former);
  }

  async #removeLeftovers(): Promise<void> {
    await removeRoutes(this.#leftovers);
    this.#leftovers = [];
  }

  async #openHost(routes: Routes): Promise<string[]> {
    this.#host = await HostSetup.open({ ...this.#options, prefixes: [...routes.values()] });
    return [...this.#host.problems];
  }

  async #addRoutes(from: Routes, to: Routes): Promise<void> {
    for (const [words, prefix] of to) {
      // A gateway with several TUNs that was killed may have left routes within the prefix.
      if (!from.has(words) && this.#isForOneTun(to)) await flushRoutes(prefix);
      await ip(`-${prefix.family}`, 'route', 'replace', ...words.split(' '));
    }
  }

  /** Whether `changeRoutes` has nothing to share out within these routes. */
  #isForOneTun(routes: Routes): boolean {
    const isNowhere = [...routes.keys()].some((words) => words.startsWith(NOWHERE));
    return this.#options.tuns.length === 1 && !isNowhere;
  }

  #parse({ routes, unreachable = [] }: TunRoutes): Routes {
    const parsed = new Map<string, IpPrefix>();
    const nowhere = prefixesOf('unreachable', unreachable);
    for (const prefix of prefixesOf('routes', routes)) {
      parsed.set(`${prefix} dev ${this.#options.tuns[0]}`, prefix);
    }
    for (const prefix of nowhere) {
      parsed.set(`${NOWHERE} ${prefix} proto ${ROUTE_PROTOCOL}`, prefix);
    }
    return parsed;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const working = this.#lastTurn.then(work);
    this.#lastTurn = working.catch(() => {});
    return working;
  }
}

function prefixesOf(name: string, inputs: readonly PrefixInput[]): IpPrefix[] {
  checkGiven(name, inputs, 'array');
  return inputs.map((input, i) => {
    if (!(input instanceof IpPrefix)) checkGiven(`${name}[${i}]`, input, 'string');
    return IpPrefix.from(input);
  });
}

/** Removes the routes within a prefix that `changeRoutes` and `unreachable` have ever set. */
export async function flushRoutes(prefix: IpPrefix): Promise<void> {
  const within = ['root', prefix.toString(), 'proto', ROUTE_PROTOCOL];
  try {
    await ip(`-${prefix.family}`, 'route', 'flush', ...within);
  } catch (error) {
    // A machine that has never had a route has no table of routes either.
    if (!NO_ROUTE_YET.test((error as Error).message)) throw error;
  }
}

/** To remove a route that is not there, for example because another one has replaced it, is no fault. */
async function removeRoutes(routes: readonly string[]): Promise<void> {
  if (routes.length === 0) return;
  await ipBatch(
    routes.map((words) => `route delete ${words}`),
    NO_SUCH_ROUTE
  );
}

/** Says in the kernel's tables whose the routes are, so that no others are removed. */
export const ROUTE_PROTOCOL = '118';
/** What `ip -batch` says about a route that is not there. */
export const NO_SUCH_ROUTE: RegExp = /No such process|^Command failed -:\d+$/;
const NO_ROUTE_YET = /FIB table does not exist/;
const NOWHERE = 'unreachable';
const NO_ROUTES: Routes = new Map();
