/**
 * Real hosts, and their presences in a realm, as keys.
 *
 * An endpoint's key is `<site>/<address>`. It may have one presence of each IP version in a realm: the
 * one of its own version has the endpoint's key there, the other one has the version behind it, as in
 * `<site>/<address> IPv6`.
 * @module
 */
import { type Family, IpAddress } from '../base/address.ts';
import type { Endpoint } from '../translator/index.ts';

/** The address must be in its canonical form, as `IpAddress` prints it. */
export function endpointKey({ realm, address }: Endpoint): string {
  return `${realm}/${address}`;
}

export function parseEndpoint(key: string): Endpoint {
  const [realm, address] = splitAtSlash(key);
  return { realm, address };
}

/** The key of an endpoint's presence of an IP version. */
export function presenceKey(endpoint: string, family: Family): string {
  const own: Family = endpoint.includes(':') ? 6 : 4;
  return family === own ? endpoint : `${endpoint} IPv${family}`;
}

/** IP version of the presence that has this key. */
export function familyOfKey(presence: string): Family {
  const [endpoint, version] = presence.split(' ', 2);
  if (version !== undefined) return version === 'IPv6' ? 6 : 4;
  return endpoint!.includes(':') ? 6 : 4;
}

/** The key of the endpoint whose presence has this key. */
export function endpointOf(presence: string): string {
  const [endpoint] = presence.split(' ', 1);
  return endpoint!;
}

/** Splits at the first slash; without one, the second part is empty. */
export function splitAtSlash(text: string): [string, string] {
  const at = text.indexOf('/');
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

/** Whether the text is an address in its canonical form. */
export function isCanonicalAddress(text: string): boolean {
  try {
    return IpAddress.parse(text).toString() === text;
  } catch {
    return false;
  }
}
