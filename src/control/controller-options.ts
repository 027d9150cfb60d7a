/**
 * What a `PresenceController` is given, and its defaults.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';
import type { Registry } from '../registry/index.ts';
import type { Store } from '../store/index.ts';
import type { Presence, TranslationPlan } from '../translator/index.ts';

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
  /** Wall clock in ms. */
  readonly now?: () => number;
}

export type ResolvedControllerOptions = Required<Omit<PresenceControllerOptions, 'transit'>> &
  Pick<PresenceControllerOptions, 'transit'>;

/**
 * Fills in the defaults.
 *
 * @throws {ApiMisuseError} if the quarantine is shorter than the TTL.
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
  return { ...options, ttlSeconds, quarantineMs, coalesceMs, retryMs, blocked, now };
}
