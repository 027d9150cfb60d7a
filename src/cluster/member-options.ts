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
import type { RecallRules, RecallWait } from './recall.ts';

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
  /** The name of the cloud, by which the store's data is told from that of another one; default: it is not. */
  readonly cloud?: string | undefined;
  /**
   * For how long an answer may be cached that names an address, in ms; default 30,000. A restored store waits for it
   * before addresses are leased again.
   */
  readonly dnsTtlMs?: number | undefined;
  /** Which entries a restored store gets back from memory; default: those of machines. */
  readonly recalled?: RecallRules | undefined;
  /** Called when the store was restored, and whenever this machine waits for other ones. Default: nothing. */
  readonly onRecall?: ((wait: RecallWait) => void) | undefined;
  /** Ends `Member.join` early. Default: nothing does. */
  readonly signal?: AbortSignal | undefined;
  /** Default: the system's clock. */
  readonly clock?: Clock | undefined;
}

export interface ResolvedMemberOptions extends MemberOptions {
  readonly ttlMs: number;
  readonly maxDetachedMs: number;
  readonly appliedEveryMs: number;
  readonly dnsTtlMs: number;
  readonly recalled: RecallRules;
  readonly clock: Clock;
}

export const MEMBER_DEFAULTS: Readonly<
  Pick<ResolvedMemberOptions, 'ttlMs' | 'maxDetachedMs' | 'appliedEveryMs' | 'dnsTtlMs'>
> = Object.freeze({
  ttlMs: 2000,
  maxDetachedMs: 3_600_000,
  appliedEveryMs: 1000,
  dnsTtlMs: 30_000,
});
const NOTHING_MORE: RecallRules = { prefixes: [], voidPrefix: 'token/', isVoid: () => false };

/** @throws {ApiMisuseError | ConfigError} if an option is invalid; the message names it. */
export function checkMemberOptions(options: MemberOptions): ResolvedMemberOptions {
  const given = checkObject('the options of Member', options);
  const { store, machine, endpoints, clock, cloud, onRecall, signal } = given;
  const {
    ttlMs = MEMBER_DEFAULTS.ttlMs,
    maxDetachedMs = MEMBER_DEFAULTS.maxDetachedMs,
    appliedEveryMs = MEMBER_DEFAULTS.appliedEveryMs,
    dnsTtlMs = MEMBER_DEFAULTS.dnsTtlMs,
    recalled = NOTHING_MORE,
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
    dnsTtlMs: dnsTtlMs === 0 ? 0 : checkDuration('dnsTtlMs', dnsTtlMs),
    cloud,
    recalled,
    onRecall,
    signal,
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
