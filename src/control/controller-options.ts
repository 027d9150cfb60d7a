/**
 * What a `PresenceController` is given, and its defaults.
 * @module
 */
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
  /** How long a released address rests, in ms; at least the TTL, by default twice that. */
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
  readonly releaseBlocked?: boolean;
  /** How long changes of one site are gathered before its snapshot is made, in ms; default 20. */
  readonly coalesceMs?: number;
  /** When what could not be had or stored is tried again, in ms; default 5000. */
  readonly retryMs?: number;
  /** Sites whose certificates are revoked at the start. */
  readonly blocked?: Iterable<string>;
  /**
   * The realm that packets between other sites cross where these are held by different translators
   * (`PlanPartition`). Services that are exposed from one site to another, and the clients they are
   * exposed to, get a presence in it too, without a name there. By default no packet crosses a realm.
   */
  readonly transit?: string | undefined;
  /** Wall clock in ms, for the revisions of snapshots. */
  readonly now?: () => number;
  /** A clock that never goes back, in ms, which leases and their rest are judged by; default `performance.now`. */
  readonly elapsedMs?: () => number;
}

export type ResolvedControllerOptions = Required<
  Omit<PresenceControllerOptions, 'transit' | 'presenceUses'>
> &
  Pick<PresenceControllerOptions, 'transit' | 'presenceUses'>;

/**
 * Fills in the defaults.
 *
 * @throws {ApiMisuseError} if the quarantine is shorter than the TTL, or a time is out of range.
 */
export function resolveControllerOptions(
  options: PresenceControllerOptions
): ResolvedControllerOptions {
  const { ttlSeconds = 30, quarantineMs = 2000 * ttlSeconds } = options;
  const { coalesceMs = 20, retryMs = 5000, blocked = [], now = Date.now } = options;
  if (!(quarantineMs >= 1000 * ttlSeconds)) {
    throw new ApiMisuseError(
      `quarantineMs ${quarantineMs} is shorter than the TTL of ${ttlSeconds} s: cached names would lead to other hosts`
    );
  }
  const { clientIdleMs = 30 * DAY_MS, pressedIdleMs = Math.min(DAY_MS, clientIdleMs) } = options;
  const { releaseBlocked = false, elapsedMs = () => performance.now() } = options;
  if (!(pressedIdleMs > 0)) {
    throw new ApiMisuseError(`pressedIdleMs must be more than 0: ${pressedIdleMs}`);
  }
  if (!(clientIdleMs >= pressedIdleMs)) {
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
    releaseBlocked,
    coalesceMs,
    retryMs,
    blocked,
    now,
    elapsedMs,
  };
}

const DAY_MS = 86_400_000;
