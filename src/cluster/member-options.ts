/**
 * The options of a `Member`, with their checks and defaults.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { formatHostPort, type HostPort } from '../base/host-port.ts';
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
  /** Where edges reach this machine. */
  readonly endpoints: readonly HostPort[];
  /**
   * For how long this machine counts as alive without a renewal of its lease, in ms; default 2000. A store may lengthen
   * it.
   */
  readonly ttlMs?: number;
  /**
   * After how long without the store this machine ends all its tunnels, in ms; default 3,600,000. Infinity: never.
   * Addresses that it may use are not leased again before.
   */
  readonly maxDetachedMs?: number;
  /** How often at most this machine writes which changes it has applied, in ms; default 1000. */
  readonly appliedEveryMs?: number;
  /** Default: the system's clock. */
  readonly clock?: Clock;
}

export const MEMBER_DEFAULTS: Readonly<
  Required<Pick<MemberOptions, 'ttlMs' | 'maxDetachedMs' | 'appliedEveryMs'>>
> = Object.freeze({ ttlMs: 2000, maxDetachedMs: 3_600_000, appliedEveryMs: 1000 });

/** @throws {ApiMisuseError | ConfigError} if an option is invalid; the message names it. */
export function checkMemberOptions(options: MemberOptions): Required<MemberOptions> {
  const given = { ...MEMBER_DEFAULTS, ...checkObject('the options of Member', options) };
  checkMethods('store', given.store, ['get', 'list', 'commit', 'watch', 'grant']);
  parseSchema(NameText, given.machine, 'machine');
  checkThat('endpoints', given.endpoints, Array.isArray(given.endpoints), 'a list');
  for (const [n, endpoint] of given.endpoints.entries()) {
    parseSchema(HostPortSchema, formatHostPort(endpoint), `endpoints[${n}]`);
  }
  checkDuration('ttlMs', given.ttlMs);
  checkDuration('appliedEveryMs', given.appliedEveryMs);
  const { maxDetachedMs } = given;
  if (maxDetachedMs !== Number.POSITIVE_INFINITY) checkDuration('maxDetachedMs', maxDetachedMs);
  return { ...given, clock: checkClock(given.clock) };
}
