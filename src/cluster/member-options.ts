/**
 * The options of a `Member`, with their checks and defaults.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { HostPort } from '../base/host-port.ts';
import { HostPortSchema } from '../base/host-port-schema.ts';
import {
  checkClock,
  checkDuration,
  checkMethods,
  checkObject,
  checkThat,
} from '../base/option-check.ts';
import { NameText, parseSchema } from '../base/schema.ts';
import type { LeasingStore } from '../store/index.ts';

export interface MemberOptions {
  /** The store that all machines of the cloud share. */
  readonly store: LeasingStore;
  /** The name of this machine, a DNS label that no other machine of the cloud has. */
  readonly machine: string;
  /** Where edges reach this machine; see also `Member.setEndpoints`. */
  readonly endpoints: readonly HostPort[];
  /**
   * For how long this machine counts as alive without a renewal of its lease, in ms; default 2000. A store may lengthen
   * it.
   */
  readonly ttlMs?: number | undefined;
  /**
   * After how long without the store this machine ends all its tunnels, in ms; default 3,600,000. Infinity: never.
   * Addresses that it may use are not leased again before.
   */
  readonly maxDetachedMs?: number | undefined;
  /** How often at most this machine writes which changes it has applied, in ms; default 1000. */
  readonly appliedEveryMs?: number | undefined;
  /** Default: the system's clock. */
  readonly clock?: Clock | undefined;
}

export interface ResolvedMemberOptions extends MemberOptions {
  readonly ttlMs: number;
  readonly maxDetachedMs: number;
  readonly appliedEveryMs: number;
  readonly clock: Clock;
}

export const MEMBER_DEFAULTS: Readonly<
  Pick<ResolvedMemberOptions, 'ttlMs' | 'maxDetachedMs' | 'appliedEveryMs'>
> = Object.freeze({ ttlMs: 2000, maxDetachedMs: 3_600_000, appliedEveryMs: 1000 });

/** @throws {ApiMisuseError | ConfigError} if an option is invalid; the message names it. */
export function checkMemberOptions(options: MemberOptions): ResolvedMemberOptions {
  const given = checkObject('the options of Member', options);
  const { store, machine, endpoints, clock } = given;
  const {
    ttlMs = MEMBER_DEFAULTS.ttlMs,
    maxDetachedMs = MEMBER_DEFAULTS.maxDetachedMs,
    appliedEveryMs = MEMBER_DEFAULTS.appliedEveryMs,
  } = given;
  checkMethods('store', store, ['get', 'list', 'commit', 'watch', 'grant']);
  if (maxDetachedMs !== Number.POSITIVE_INFINITY) checkDuration('maxDetachedMs', maxDetachedMs);
  return {
    store,
    machine: parseSchema(NameText, machine, 'machine'),
    endpoints: checkEndpoints(endpoints),
    ttlMs: checkDuration('ttlMs', ttlMs),
    maxDetachedMs,
    appliedEveryMs: checkDuration('appliedEveryMs', appliedEveryMs),
    clock: checkClock(clock),
  };
}

/** @throws {ApiMisuseError | ConfigError} if they are not a list of hosts with ports. */
export function checkEndpoints(endpoints: readonly HostPort[]): readonly HostPort[] {
  checkThat('endpoints', endpoints, Array.isArray(endpoints), 'a list');
  return endpoints.map((endpoint, n) =>
    parseSchema(HostPortSchema, { ...endpoint }, `endpoints[${n}]`)
  );
}
