/**
 * A realm of the plan with all its defaults, and what two states of it differ in.
 * @module
 */
import type { IpPrefix } from '../base/prefix.ts';
import type { Realm, Reject } from './plan.ts';

/** A realm of the plan. */
export interface CompiledRealm {
  readonly name: string;
  readonly sources: readonly IpPrefix[];
  readonly pools: readonly IpPrefix[];
  readonly poolsMaySend: boolean;
  /** The largest packet in bytes; infinite if there is no limit. */
  readonly mtu: number;
  readonly reject: Reject;
}

export function compiledRealmOf(realm: Realm): CompiledRealm {
  const { name, sources, pools = [], poolsMaySend = false, reject = 'drop' } = realm;
  return { name, sources, pools, poolsMaySend, mtu: realm.mtu ?? Number.POSITIVE_INFINITY, reject };
}

/** Returns the prefixes whose hosts have other paths in the one than in the other. */
export function changedPrefixes(before: CompiledRealm, after: CompiledRealm): IpPrefix[] {
  return [
    ...difference(before.sources, after.sources),
    ...difference(before.pools, after.pools),
    ...(before.poolsMaySend === after.poolsMaySend ? [] : after.pools),
  ];
}

/** Returns the prefixes that are in only one of two lists. */
function difference(a: readonly IpPrefix[], b: readonly IpPrefix[]): IpPrefix[] {
  const [inA, inB] = [new Set(a.map(String)), new Set(b.map(String))];
  return [
    ...a.filter((prefix) => !inB.has(prefix.toString())),
    ...b.filter((prefix) => !inA.has(prefix.toString())),
  ];
}
