/**
 * The routes to a TUN, with the rules and the forwarding that they need. They are set when the gateway starts, and
 * can change while it runs.
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
  /** Prefixes with an unreachable route; `changeRoutes` may route parts of them. Default none. */
  readonly unreachable?: readonly PrefixInput[];
  /**
   * Prefixes whose packets are dropped without an answer, because another machine may have the address a moment later;
   * `changeRoutes` may route parts of them, or with a metric all of one. A routing daemon announces them as the rest of
   * the routes. Default none.
   */
  readonly blackhole?: readonly PrefixInput[];
}

/** The routes, rules and settings that `configureTun` has set on the machine. */
export interface TunSetup extends AsyncDisposable {
  /**
   * One sentence for each thing that the machine lacks, and for each thing that an earlier gateway had left. The
   * gateway works nevertheless, but its operator has to know: without nftables, only `forwarding` and `rp_filter`
   * of single interfaces protect an IPv4 network.
   */
  readonly problems: readonly string[];
  /**
   * Replaces all routes of this setup, and adapts the rules and the forwarding. A route that stays is never removed
   * in between, and no route exists without its rules. Calls run one after the other. The same call again changes
   * nothing, and restores what another program has removed.
   *
   * @returns the new value of `problems`.
   * @throws {ApiMisuseError} if a prefix is invalid, or this setup is closed or was replaced by a later one of the
   *   same interface; nothing is changed then.
   * @throws {EnvironmentError} for the reasons of `configureTun`; the former routes, rules and settings are in force
   *   again then.
   */
  setRoutes(routes: TunRoutes): Promise<readonly string[]>;
  /**
   * Removes the rules and the routes that lead nowhere, and restores the kernel settings that still have the value of the
   * gateway and that no other gateway on this machine needs. The other routes end with the interface. A second call
   * changes nothing, nor does a call after this process has called `configureTun` again for the same interface:
   * the last setup undoes what all have set.
   *
   * @throws {EnvironmentError} if a setting cannot be restored or the rules cannot be removed. The other settings
   *   are restored nevertheless; the rules stay if a setting could not be restored. Another call tries again.
   */
  close(): Promise<void>;
}

/** The prefixes of routes; a key has the arguments of `ip route` that set and remove the route. */
type Routes = ReadonlyMap<string, IpPrefix>;

/** The setup of one gateway: its routes, and a `HostSetup` for the rules and settings. */
export class HostRoutes implements TunSetup {
  readonly #options: Omit<HostOptions, 'prefixes'>;
  #routes: Routes;
  /** Routes of a failed change that could not be removed again. */
  #leftovers: readonly string[] = [];
  #host: HostSetup | undefined;
  #problems: readonly string[] = [];
  /** Whether `close` has undone the rules and settings; a setup that was replaced undoes nothing. */
  #isUndone = false;
  #lastTurn: Promise<unknown> = Promise.resolve();

  /** @throws {ApiMisuseError} if a prefix is invalid. */
  constructor(options: Omit<HostOptions, 'prefixes'>, routes: TunRoutes) {
    this.#options = options;
    this.#routes = this.#parse(routes);
  }

  get problems(): readonly string[] {
    return this.#problems;
  }

  /** Sets everything. Must be called once, before the other methods. */
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
        const added = [...wanted.keys()].filter((args) => !former.has(args));
        this.#leftovers = [...this.#leftovers, ...added];
        await this.#rollBack(former).catch(() => {});
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
      await removeRoutes([...this.#routes.keys()].filter(leadsNowhere));
      this.#routes = NO_ROUTES;
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Changes the routes and returns the problems of the machine. */
  async #change(from: Routes, to: Routes): Promise<readonly string[]> {
    const all = new Map([...from, ...to]);
    // Rules are added before routes, and removed after routes.
    const problems = await this.#openHost(all);
    await this.#addRoutes(from, to);
    const gone = [...all.keys()].filter((args) => !to.has(args));
    await removeRoutes(gone);
    if (gone.length > 0) problems.push(...(await this.#openHost(to)));
    return [...new Set(problems)];
  }

  /** Restores the former routes. If this fails, the next call does it. */
  async #rollBack(former: Routes): Promise<void> {
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
    for (const [args, prefix] of to) {
      // A killed gateway with several TUNs may have left routes within the prefix.
      if (!from.has(args) && this.#isForOneTun(to)) await flushRoutes(prefix);
      await ip(`-${prefix.family}`, 'route', 'replace', ...args.split(' '));
    }
  }

  /** Returns whether no routes within these can belong to `changeRoutes`. */
  #isForOneTun(routes: Routes): boolean {
    return this.#options.tuns.length === 1 && ![...routes.keys()].some(leadsNowhere);
  }

  #parse({ routes, unreachable = [], blackhole = [] }: TunRoutes): Routes {
    const parsed = new Map<string, IpPrefix>();
    const nowhere = prefixesOf('unreachable', unreachable);
    const dropped = prefixesOf('blackhole', blackhole);
    for (const prefix of prefixesOf('routes', routes)) {
      parsed.set(`${prefix} dev ${this.#options.tuns[0]}`, prefix);
    }
    for (const prefix of nowhere) {
      parsed.set(`${UNREACHABLE} ${prefix} proto ${ROUTE_PROTOCOL}`, prefix);
    }
    for (const prefix of dropped) {
      // A pool may be as small as a block, and each route of the block must win.
      parsed.set(`${BLACKHOLE} ${prefix} proto ${ROUTE_PROTOCOL} metric ${MAX_METRIC}`, prefix);
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
    if (!IpPrefix.isPrefix(input)) checkGiven(`${name}[${i}]`, input, 'string');
    return IpPrefix.from(input);
  });
}

function leadsNowhere(args: string): boolean {
  return args.startsWith(UNREACHABLE) || args.startsWith(BLACKHOLE);
}

/** Removes all routes within a prefix that `changeRoutes`, `unreachable` and `blackhole` have set. */
export async function flushRoutes(prefix: IpPrefix): Promise<void> {
  const within = ['root', prefix.toString(), 'proto', ROUTE_PROTOCOL];
  try {
    await ip(`-${prefix.family}`, 'route', 'flush', ...within);
  } catch (error) {
    // A machine that has never had a route has no routing table.
    if (!NO_ROUTE_YET.test((error as Error).message)) throw error;
  }
}

/** Removes routes. It is no error if one does not exist, for example because another has replaced it. */
async function removeRoutes(routes: readonly string[]): Promise<void> {
  if (routes.length === 0) return;
  await ipBatch(
    routes.map((args) => `route delete ${args}`),
    NO_SUCH_ROUTE
  );
}

/** Marks the routes of gateways in the kernel's tables, so that no others are removed. */
export const ROUTE_PROTOCOL = '118';
/** Matches what `ip -batch` prints about a route that does not exist. */
export const NO_SUCH_ROUTE: RegExp = /No such process|^Command failed -:\d+$/;
/** Matches what `ip` prints about routes of a machine that has never had one. */
export const NO_ROUTE_YET: RegExp = /FIB table does not exist/;
/** The metric is a number of 32 bits, and 0 is the kernel's default. */
export const MAX_METRIC: number = 2 ** 32 - 1;
const UNREACHABLE = 'unreachable';
const BLACKHOLE = 'blackhole';
const NO_ROUTES: Routes = new Map();
