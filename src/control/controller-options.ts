/**
 * The options of a `PresenceController`, with their checks and defaults.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import {
  checkClock,
  checkFlag,
  checkFunction,
  checkMethods,
  checkObject,
  checkText,
  checkThat,
  checkWhole,
} from '../base/option-check.ts';
import { ApiMisuseError } from '../errors.ts';
import type { Registry } from '../registry/index.ts';
import type { Store } from '../store/index.ts';
import type { PlanChanges, PlannedRealm, TranslationPlan } from '../translator/index.ts';
import { type Allocation, checkAllocation } from './allocation.ts';
import type { PresenceUse } from './presence-uses.ts';

/** Receives the plan of the controller. `PacketTranslator` is one. */
export interface PlanTarget {
  /** Replaces the whole plan: at the start, and when changes do not fit. */
  load(plan: TranslationPlan): void;
  /** Changes the plan. If it throws, nothing is changed, and the controller loads the whole plan. */
  apply(changes: PlanChanges): unknown;
  /**
   * Returns what there is of a realm now; undefined if the plan does not have it. Without this method, the plan is not
   * compared with what it has to be.
   */
  planned?(realm: string): PlannedRealm | undefined;
}

export interface PresenceControllerOptions {
  readonly registry: Registry;
  /** The store of the leases. */
  readonly store: Store;
  readonly translator: PlanTarget;
  /** The TTL of addresses in DNS; default 30. */
  readonly ttlSeconds?: number;
  /**
   * How long a released address stays in quarantine, in ms, and at least the TTL; default 60,000, or twice the TTL if that
   * is set.
   */
  readonly quarantineMs?: number;
  /**
   * How long a presence keeps its address after the pools of its realm have lost it, beside the new one, in ms. Names
   * answer with the new one at once, and connections on the former one go on until then; then it goes into quarantine.
   * 0: no time. Default 330,000, or the TTL and 300,000 more, the time after which idle flows end, if the TTL is set.
   */
  readonly overlapMs?: number;
  /**
   * Returns the presences that have carried packets since the last call. It is called once an hour, or more often where
   * leases end sooner; while it fails, no lease ends. Without it, no client's lease ends for lack of use.
   * `PresenceUses` provides it for a translator.
   */
  readonly presenceUses?: (() => Promise<Iterable<PresenceUse>>) | undefined;
  /**
   * How long a client's lease is kept without use, in ms; default 30 days. Its address then goes into quarantine. The
   * client gets it again unless another client has needed it. This does not end the presences of services.
   */
  readonly clientIdleMs?: number;
  /**
   * The same for a site that holds four fifths of what it can have in that realm, until it holds seven tenths; the
   * longest unused leases end first. In ms; default 1 day, or `clientIdleMs` if that is less.
   */
  readonly pressedIdleMs?: number;
  /**
   * Whether the clients of a suspended site lose their leases at once; default false: they keep them until these have
   * been idle for long, so that a reinstated site gets its addresses again; `releaseClients` releases them on request.
   */
  readonly releaseSuspended?: boolean;
  /**
   * A site whose names this process serves by itself (`NameIndex`), because it may have those of all others. Its snapshot
   * is made only when `snapshot` is called; no event tells its changes. By default there is none.
   */
  readonly ownSite?: string | undefined;
  /** How long the changes of a site are collected before its snapshot is made, in ms; default 20. */
  readonly coalesceMs?: number;
  /** The time after which a failed allocation or commit is tried again, in ms; default 5000. */
  readonly retryMs?: number;
  /**
   * How often each site is compared with its records and its stored leases, in ms; default 60,000, or as long as it takes
   * at 200 sites a second. `Infinity`: never.
   */
  readonly auditMs?: number;
  /** The sites that are suspended at the start; default none. */
  readonly suspended?: Iterable<string>;
  /**
   * The realm that packets cross between sites of different translators (`PlanPartition`). A service that one site
   * exposes to another, and the clients there, also get presences in this realm, without names. By default packets
   * cross no realm.
   */
  readonly transit?: string | undefined;
  /**
   * Says whether this process allocates addresses, where several run on one store. By default it always does, and no
   * other process may run on the store.
   */
  readonly allocation?: Allocation | undefined;
  /**
   * Its wall clock begins the revisions of snapshots; its monotonic clock counts leases and quarantines. Default: the
   * system's clock.
   */
  readonly clock?: Clock;
}

/** What is used where an option is absent. */
export const PRESENCE_CONTROLLER_DEFAULTS: Readonly<{
  ttlSeconds: number;
  /** In ms, with the default TTL; twice the TTL with another one. */
  quarantineMs: number;
  /** In ms, with the default TTL; the TTL and 300,000 more with another one. */
  overlapMs: number;
  /** In ms. */
  clientIdleMs: number;
  /** In ms; `clientIdleMs` if that is less. */
  pressedIdleMs: number;
  releaseSuspended: boolean;
  /** In ms. */
  coalesceMs: number;
  /** In ms. */
  retryMs: number;
  /** In ms. */
  auditMs: number;
}> = Object.freeze({
  ttlSeconds: 30,
  quarantineMs: 60_000,
  overlapMs: 330_000,
  clientIdleMs: 30 * 86_400_000,
  pressedIdleMs: 86_400_000,
  releaseSuspended: false,
  coalesceMs: 20,
  retryMs: 5000,
  auditMs: 60_000,
});

export type ResolvedControllerOptions = Required<
  Omit<PresenceControllerOptions, 'transit' | 'ownSite' | 'presenceUses' | 'allocation'>
> &
  Pick<PresenceControllerOptions, 'transit' | 'ownSite' | 'presenceUses' | 'allocation'>;

/**
 * Checks the options, and fills in the defaults.
 *
 * @throws {ApiMisuseError} naming the option that is wrong: it has a wrong type, the quarantine is shorter than the
 *   TTL, or a time is out of range.
 */
export function resolveControllerOptions(
  options: PresenceControllerOptions
): ResolvedControllerOptions {
  const defaults = PRESENCE_CONTROLLER_DEFAULTS;
  const { registry, store, translator, presenceUses } = checkObject('options', options);
  const { transit, ownSite } = options;
  checkMethods('registry', registry, ['site', 'on', 'off']);
  checkMethods('store', store, ['get', 'list', 'commit']);
  if (options.allocation !== undefined) {
    checkMethods('store', store, ['watch']);
    checkAllocation(options.allocation);
  }
  checkMethods('translator', translator, ['load', 'apply']);
  if (presenceUses !== undefined) checkFunction('presenceUses', presenceUses);
  if (transit !== undefined) checkText('transit', transit);
  if (ownSite !== undefined) checkText('ownSite', ownSite);
  const { ttlSeconds = defaults.ttlSeconds, quarantineMs = 2000 * ttlSeconds } = options;
  const { coalesceMs = defaults.coalesceMs, retryMs = defaults.retryMs, suspended = [] } = options;
  checkWhole('ttlSeconds', ttlSeconds, 0, MAX_TTL_SECONDS);
  const { overlapMs = 1000 * ttlSeconds + FLOW_IDLE_MS } = options;
  checkWhole('overlapMs', overlapMs, 0, MAX_REST_MS);
  checkTime('quarantineMs', quarantineMs, MAX_REST_MS);
  if (quarantineMs < 1000 * ttlSeconds) {
    throw new ApiMisuseError(
      `quarantineMs ${quarantineMs} is shorter than the TTL of ${ttlSeconds} s: cached names would lead to other hosts`
    );
  }
  checkTime('coalesceMs', coalesceMs, MAX_TIMER_MS);
  checkTime('retryMs', retryMs, MAX_TIMER_MS);
  const { auditMs = defaults.auditMs } = options;
  const isAuditTime =
    auditMs === Number.POSITIVE_INFINITY ||
    (typeof auditMs === 'number' && auditMs >= 1000 && auditMs <= MAX_TIMER_MS);
  checkThat('auditMs', auditMs, isAuditTime, `a number from 1000 to ${MAX_TIMER_MS}, or Infinity`);
  const { clientIdleMs = defaults.clientIdleMs } = options;
  const { pressedIdleMs = Math.min(defaults.pressedIdleMs, clientIdleMs) } = options;
  if (!(typeof pressedIdleMs === 'number' && pressedIdleMs > 0)) {
    throw new ApiMisuseError(`pressedIdleMs must be more than 0: ${pressedIdleMs}`);
  }
  if (!(typeof clientIdleMs === 'number' && clientIdleMs >= pressedIdleMs)) {
    throw new ApiMisuseError(
      `clientIdleMs ${clientIdleMs} is shorter than pressedIdleMs, ${pressedIdleMs}`
    );
  }
  return {
    ...options,
    ttlSeconds,
    quarantineMs,
    overlapMs,
    clientIdleMs,
    pressedIdleMs,
    releaseSuspended: checkFlag(
      'releaseSuspended',
      options.releaseSuspended ?? defaults.releaseSuspended
    ),
    coalesceMs,
    retryMs,
    auditMs,
    suspended: checkNames('suspended', suspended),
    clock: checkClock(options.clock),
  };
}

function checkTime(name: string, value: number, most: number): void {
  const isOk = typeof value === 'number' && value >= 0 && value <= most;
  checkThat(name, value, isOk, `a number from 0 to ${most}`);
}

function checkNames(name: string, value: Iterable<string>): readonly string[] {
  const isList = typeof value === 'object' && value !== null && Symbol.iterator in value;
  checkThat(name, value, isList, 'a list of names');
  return Array.from(value, (each, i) => checkText(`${name}[${i}]`, each));
}

/** The time after which idle flows end (RFC 4787 section 4.3). */
const FLOW_IDLE_MS = 300_000;
/** RFC 2181 section 8. */
const MAX_TTL_SECONDS = 0x7fffffff;
/** The longest time for which an address may rest or overlap, in ms: the default of the longest TTL. */
const MAX_REST_MS: number = 2000 * MAX_TTL_SECONDS;
/** The longest time of a timer of Node. */
const MAX_TIMER_MS = 2 ** 31 - 1;
