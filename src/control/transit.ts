/**
 * The transit realm between the sites of different translators. Each of these translators knows only its own sites and
 * this realm, so a packet from one such site to another crosses the realm. There both its addresses are presences.
 * @module
 */
import type { Family } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { presenceFamily } from '../registry/index.ts';

/**
 * Returns the IP version of both presences in the transit realm for packets between hosts of these versions. It is the
 * same in both directions.
 *
 * @param pools the pools of the transit realm
 */
export function transitFamily(one: Family, other: Family, pools: readonly IpPrefix[]): Family {
  return presenceFamily(one === other ? one : 4, pools);
}
