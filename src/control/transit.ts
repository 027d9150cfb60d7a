/**
 * The realm between sites that different translators hold. Each of these translators knows only its own
 * sites and that realm, so a packet from one such site to another crosses it: there both its addresses
 * are presences.
 * @module
 */
import type { Family } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { presenceFamily } from '../registry/index.ts';

/**
 * IP version of both presences in the transit realm, for packets between hosts of these versions; in
 * either direction the same.
 *
 * @param pools of the transit realm
 */
export function transitFamily(one: Family, other: Family, pools: readonly IpPrefix[]): Family {
  return presenceFamily(one === other ? one : 4, pools);
}
