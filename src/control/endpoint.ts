/**
 * Real hosts as the keys that leases are kept under: `<site>/<address>`.
 * @module
 */
import { IpAddress } from '../address.ts';
import type { Endpoint } from '../translator/index.ts';

/** The address must be in its canonical form, as `IpAddress` prints it. */
export function endpointKey({ realm, address }: Endpoint): string {
  return `${realm}/${address}`;
}

export function parseEndpoint(key: string): Endpoint {
  const [realm, address] = splitAtSlash(key);
  return { realm, address };
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
