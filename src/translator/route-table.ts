/**
 * The table of routes. A route is what many paths have in common: both realms, the IP versions in them, the policy, the
 * MTU and the MSS. It exists as long as a path has it.
 *
 * Every path is in the list of its route (`PathTable`), and every route is in two lists, of its ingress realm and of its
 * egress realm. So what a change of a realm, or of what two realms share, may have changed is found without a look at
 * any other path.
 * @module
 */
import type { Family } from '../base/address.ts';
import { MAX_PACKET_LENGTH } from '../packet/virtio.ts';
import type { Resolution } from './bindings.ts';
import type { CompiledRealm } from './compiled-realm.ts';
import { IntLists } from './int-lists.ts';
import { IntTable } from './int-table.ts';
import {
  MAX_MSS,
  ROUTE_CLIENT_REALM,
  ROUTE_EGRESS,
  ROUTE_FAMILY,
  ROUTE_FRAGMENT_MTU,
  ROUTE_LARGEST,
  ROUTE_MSS,
  ROUTE_MTU,
  ROUTE_POLICY,
} from './layout.ts';
import type { PolicyTable } from './policy.ts';

/** The routes. A route is the index in `words` of its value. */
export class RouteTable extends IntTable {
  readonly #policies: PolicyTable;
  /** The numbers of the routes from each realm, and to each realm. */
  readonly #from = new IntLists();
  readonly #to = new IntLists();

  constructor(policies: PolicyTable) {
    super(KEY_WORDS, VALUE_WORDS, MAX_ROUTES);
    this.#policies = policies;
  }

  /** Returns the route of a resolution. A new one holds the policy; it needs a path, or to be closed. */
  routeOf(
    family: Family,
    ingress: number,
    from: CompiledRealm,
    { egress, family: newFamily, policy, isOverlapping }: Resolution,
    to: CompiledRealm
  ): number {
    const { key } = this;
    key[0] = ingress;
    key[1] = egress;
    key[2] = policy;
    key[KEY_FAMILIES] = (isOverlapping ? OVERLAPPING : 0) | (family << 8) | newFamily;
    const known = this.find();
    if (known >= 0) return known * ROUTE_STRIDE + KEY_WORDS;
    const number = this.insert();
    const route = number * ROUTE_STRIDE + KEY_WORDS;
    this.words[route + ROUTE_EGRESS] = egress;
    this.words[route + ROUTE_POLICY] = policy;
    this.words[route + ROUTE_CLIENT_REALM] = this.clientRealm(ingress, egress, policy);
    this.words[route + ROUTE_FAMILY] = newFamily;
    this.setSizes(route, from, to);
    this.#policies.hold(policy);
    this.#from.add(ingress, number);
    this.#to.add(egress, number);
    return route;
  }

  /** Returns the realm of the client. If hosts at both ends are clients, each direction counts against its ingress realm. */
  clientRealm(ingress: number, egress: number, policy: number): number {
    return this.#policies.hasRequests(policy) ? ingress : egress;
  }

  /** Derives the MTU and the MSS from both realms. */
  setSizes(route: number, from: CompiledRealm, to: CompiledRealm): void {
    const { words } = this;
    const family = this.familyOf(route);
    const newFamily = words[route + ROUTE_FAMILY]! as Family;
    const mtu = Math.min(mtuTo(newFamily, to.mtu), LARGEST[newFamily]);
    words[route + ROUTE_LARGEST] = mtu;
    words[route + ROUTE_MTU] = this.isOverlapping(route) ? 0 : mtu;
    // RFC 7915 section 4: the MTU behind the realm is not known, so use the least that IPv6 allows.
    const isUnknown = family === 4 && newFamily === 6 && to.mtu === Number.POSITIVE_INFINITY;
    words[route + ROUTE_FRAGMENT_MTU] = isUnknown ? MIN_IPV6_MTU : mtu;
    const mss = Math.min(segmentIn(family, from.mtu), segmentIn(newFamily, to.mtu));
    words[route + ROUTE_MSS] = Math.min(mss, MAX_MSS);
  }

  /** Removes a route that no path has any more. */
  close(route: number): void {
    const number = routeNumber(route);
    this.#from.remove(this.ingressOf(route), number);
    this.#to.remove(this.words[route + ROUTE_EGRESS]!, number);
    this.#policies.drop(this.words[route + ROUTE_POLICY]!);
    this.release(number);
  }

  ingressOf(route: number): number {
    return this.words[route - KEY_WORDS]!;
  }

  /** Returns the IP version in the ingress realm. */
  familyOf(route: number): Family {
    return ((this.words[route - KEY_WORDS + KEY_FAMILIES]! >>> 8) & 0xff) as Family;
  }

  /** Returns whether a packet's flow decides under which address it leaves: the slow path forwards all of these. */
  isOverlapping(route: number): boolean {
    return (this.words[route - KEY_WORDS + KEY_FAMILIES]! & OVERLAPPING) !== 0;
  }

  /** Returns the routes from and to a realm. */
  ofRealm(realm: number): number[] {
    const numbers = [...this.#from.membersOf(realm), ...this.#to.membersOf(realm)];
    return numbers.map((number) => number * ROUTE_STRIDE + KEY_WORDS);
  }

  /** Returns the routes between two realms, in both directions; it looks through those of the realm with fewer. */
  between(a: number, b: number): number[] {
    const realm = this.#countOf(a) < this.#countOf(b) ? a : b;
    const other = realm === a ? b : a;
    return this.ofRealm(realm).filter(
      (route) => this.ingressOf(route) === other || this.words[route + ROUTE_EGRESS] === other
    );
  }

  override get byteLength(): number {
    return super.byteLength + this.#from.byteLength + this.#to.byteLength;
  }

  /** Returns the number of routes from and to a realm. */
  #countOf(realm: number): number {
    return this.#from.length(realm) + this.#to.length(realm);
  }
}

/** Returns the number of a route's record. */
export function routeNumber(route: number): number {
  return Math.floor(route / ROUTE_STRIDE);
}

/** The least MTU of an IPv6 link ([RFC 8200 section 5](https://www.rfc-editor.org/rfc/rfc8200#section-5)). */
export const MIN_IPV6_MTU = 1280;

function mtuTo(family: Family, mtu: number): number {
  return family === 6 ? Math.max(mtu, MIN_IPV6_MTU) : mtu;
}

/** The largest TCP payload in a packet without options and extension headers. */
function segmentIn(family: Family, mtu: number): number {
  return family === 4 ? mtu - 40 : mtuTo(6, mtu) - 60;
}

/** Ingress realm, egress realm, policy, and the IP versions in both realms with `OVERLAPPING`. */
const KEY_WORDS = 4;
const KEY_FAMILIES = 3;
const OVERLAPPING: number = 1 << 16;
const VALUE_WORDS = 8;
const ROUTE_STRIDE: number = KEY_WORDS + VALUE_WORDS;
/** The largest packet that the length field can describe, by IP version. */
const LARGEST = { 4: MAX_PACKET_LENGTH, 6: 40 + 65_535 } as const;
/** The host bounds its plans, and so the number of routes; this only keeps an index a small integer. */
const MAX_ROUTES = 2 ** 26;
