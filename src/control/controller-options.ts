/**
 * What a `PresenceController` is given, and its defaults.
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
import type { Presence, TranslationPlan } from '../translator/index.ts';
import type { PresenceUse } from './presence-uses.ts';

/** What the controller tells its plan to; `PacketTranslator` is one. */
export interface PlanTarget {
  load(plan: TranslationPlan): void;
  bind(presence: Presence): void;
}

export interface PresenceControllerOptions {
  readonly registry: Registry;
  /** Keeps the leases. */
  readonly store: Store;
  readonly translator: PlanTarget;
  /** TTL of the names' addresses in DNS; default 30. */
  readonly ttlSeconds?: number;
  /** How long a released address rests, in ms, at least the TTL; default 60,000, or twice the TTL where that is given. */
  readonly quarantineMs?: number;
  /**
   * Says which presences have carried packets since it was last called. It is called once an hour, or more
   * often where leases end sooner; while it fails, no lease ends. Without it no client's lease ends because
   * nobody uses it. `PresenceUses` makes it of a translator.
   */
  readonly presenceUses?: (() => Promise<Iterable<PresenceUse>>) | undefined;
  /**
   * How long a client's lease is kept while nobody uses it, in ms; default 30 days. Its address then rests,
   * and the client finds it again as long as no other has needed it. Presences of services never end so.
   */
  readonly clientIdleMs?: number;
  /**
   * The same while the client's site holds four fifths of what it can have in that realm, the longest unused
   * leases first and until it holds seven tenths, in ms; default 1 day, or `clientIdleMs` if that is less.
   */
  readonly pressedIdleMs?: number;
  /**
   * Whether the clients of a blocked site lose their leases at once; default false: they are kept, so that a
   * reinstated site finds its addresses, until they have been idle for long. `releaseClients` does it on request.
   */
  readonly releaseSuspended?: boolean;
  /** How long changes of one site are gathered before its snapshot is made, in ms; default 20. */
  readonly coalesceMs?: number;
  /** When what could not be had or stored is tried again, in ms; default 5000. */
  readonly retryMs?: number;
  /** Sites whose certificates are revoked at the start; default none. */
  readonly suspended?: Iterable<string>;
  /**
   * The realm that packets between other sites cross where these are held by different translators
   * (`PlanPartition`). Services that are exposed from one site to another, and the clients they are
   * exposed to, get a presence in it too, without a name there. By default no packet crosses a realm.
   */
  readonly transit?: string | undefined;
  /**
   * Snapshots have their revisions by its wall clock; leases and their rest are judged by its monotonic one.
   * Default that of the system.
   */
  readonly clock?: Clock;
}

/** What is used where an option is absent. */
export const PRESENCE_CONTROLLER_DEFAULTS: Readonly<{
  ttlSeconds: number;
  /** In ms; at a TTL of 30 s. It is twice the TTL in any case. */
  quarantineMs: number;
  /** In ms. */
  clientIdleMs: number;
  /** In ms; `clientIdleMs` if that is less. */
  pressedIdleMs: number;
  releaseSuspended: boolean;
  /** In ms. */
  coalesceMs: number;
  /** In ms. */
  retryMs: number;
}> = Object.freeze({
  ttlSeconds: 30,
  quarantineMs: 60_000,
  clientIdleMs: 30 * 86_400_000,
  pressedIdleMs: 86_400_000,
  releaseSuspended: false,
  coalesceMs: 20,
  retryMs: 5000,
});

export type ResolvedControllerOptions = Required<
  Omit<PresenceControllerOptions, 'transit' | 'presenceUses'>
> &
  Pick<PresenceControllerOptions, 'transit' | 'presenceUses'>;

/**
 * Checks what a caller gives, and fills in the defaults.
 *
 * @throws {ApiMisuseError} naming the option that is wrong: something is not what it has to be, the quarantine is
 *   shorter than the TTL, or a time is out of range.
 */
export function resolveControllerOptions(
  options: PresenceControllerOptions
): ResolvedControllerOptions {
  const defaults = PRESENCE_CONTROLLER_DEFAULTS;
  const { registry, store, translator, presenceUses, transit } = checkObject('options', options);
  checkMethods('registry', registry, ['site', 'on', 'off']);
  checkMethods('store', store, ['get', 'list', 'commit']);
  checkMethods('translator', translator, ['load', 'bind']);
  if (presenceUses !== undefined) checkFunction('presenceUses', presenceUses);
  if (transit !== undefined) checkText('transit', transit);
  const { ttlSeconds = defaults.ttlSeconds, quarantineMs = 2000 * ttlSeconds } = options;
  const { coalesceMs = defaults.coalesceMs, retryMs = defaults.retryMs, suspended = [] } = options;
  checkWhole('ttlSeconds', ttlSeconds, 0, MAX_TTL_SECONDS);
  if (!(typeof quarantineMs === 'number' && quarantineMs >= 1000 * ttlSeconds)) {
    throw new ApiMisuseError(
      `quarantineMs ${quarantineMs} is shorter than the TTL of ${ttlSeconds} s: cached names would lead to other hosts`
    );
  }
  checkTime('coalesceMs', coalesceMs, MAX_TIMER_MS);
  checkTime('retryMs', retryMs, MAX_TIMER_MS);
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
    clientIdleMs,
    pressedIdleMs,
    releaseSuspended: checkFlag(
      'releaseSuspended',
      options.releaseSuspended ?? defaults.releaseSuspended
    ),
    coalesceMs,
    retryMs,
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

/** RFC 2181 section 8. */
const MAX_TTL_SECONDS = 0x7fffffff;
/** The longest a timer of Node takes. */
const MAX_TIMER_MS = 2 ** 31 - 1;
