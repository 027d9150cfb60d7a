/**
 * The keys of presences in a realm.
 *
 * An endpoint may have one presence of each IP version in a realm. The presence of the endpoint's own version has the
 * endpoint's key, `<site>/<address>`. The key of the other one ends with the version: `<site>/<address> IPv6`.
 * @module
 */
import type { Family } from '../base/address.ts';

/** Returns the key of the presence of an IP version of the endpoint that has this key. */
export function presenceKey(endpointKey: string, family: Family): string {
  const own: Family = endpointKey.includes(':') ? 6 : 4;
  return family === own ? endpointKey : `${endpointKey} IPv${family}`;
}

/** Returns the IP version of the presence that has this key. */
export function familyOfKey(key: string): Family {
  const [endpoint, version] = key.split(' ', 2);
  if (version !== undefined) return version === 'IPv6' ? 6 : 4;
  return endpoint!.includes(':') ? 6 : 4;
}

/** Returns the key of the endpoint whose presence has this key. */
export function endpointKeyOf(key: string): string {
  const end = key.indexOf(' ');
  return end < 0 ? key : key.slice(0, end);
}

/** Returns the site of the endpoint whose presence has this key. */
export function siteOfKey(key: string): string {
  const end = key.indexOf('/');
  return end < 0 ? key : key.slice(0, end);
}
