/**
 * What an exposure takes of a site for itself: names of the zone, and an address.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { type ExposureTerms, nameWithin, type Site } from './model.ts';

/** A name within a zone that an exposure has. */
export interface NameUse {
  readonly kind: 'name' | 'alias' | 'binding';
  /** The full domain name, in lower case. */
  readonly name: string;
  /** The field of the exposure that says so. */
  readonly field: string;
}

/** Returns the names that an exposure has in a site: its own first, then aliases, then those of HTTPS and SVCB records. */
export function namesOf(terms: ExposureTerms, site: Pick<Site, 'zone'>): NameUse[] {
  const { dnsName, service, aliases = [], https = [], svcb = [] } = terms;
  const name = nameWithin(dnsName ?? service, site);
  const uses: NameUse[] = [{ kind: 'name', name, field: 'dnsName' }];
  for (const [i, alias] of aliases.entries()) {
    uses.push({ kind: 'alias', name: nameWithin(alias, site), field: `aliases[${i}]` });
  }
  for (const [list, bindings] of Object.entries({ https, svcb })) {
    for (const [i, { prefix }] of bindings.entries()) {
      if (prefix === undefined) continue;
      const owner = `${prefix.toLowerCase()}.${name}`;
      uses.push({ kind: 'binding', name: owner, field: `${list}[${i}].prefix` });
    }
  }
  return uses;
}

/** Returns how many names an exposure counts as: its own, each alias, and each HTTPS or SVCB record. */
export function countNames({ aliases, https, svcb }: ExposureTerms): number {
  return 1 + (aliases?.length ?? 0) + (https?.length ?? 0) + (svcb?.length ?? 0);
}

/** Returns the keys under which an exposure is found by what it takes. */
export function claimsOf(terms: ExposureTerms, site: Pick<Site, 'zone'>): string[] {
  const { dnsName, aliases, https, svcb, address, service } = terms;
  const isPlain = aliases === undefined && https === undefined && svcb === undefined;
  const claims = isPlain
    ? [nameClaim(dnsName ?? service, site)]
    : namesOf(terms, site).map(({ name }) => nameClaim(name, site));
  if (address !== undefined) claims.push(addressClaim(address));
  return claims;
}

/** Returns the key of a name, full or not: what comes before the zone. The key of a plain name is the same string. */
export function nameClaim(text: string, site: Pick<Site, 'zone'>): string {
  const name = text.toLowerCase();
  const zone = site.zone.toLowerCase();
  if (name === zone) return '';
  return name.endsWith(`.${zone}`) ? name.slice(0, -zone.length - 1) : name;
}

/** Returns the key of an address. */
export function addressClaim(address: IpAddress): string {
  return `@${address.canonical()}`;
}
