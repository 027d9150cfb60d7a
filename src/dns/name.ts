/**
 * Domain names in the inner form of this module: lower case, fully qualified, with the trailing dot
 * (`keystone.openstack.test.`). The root is `.`. A dot always separates labels, because an octet of a
 * message that is a dot, a backslash or not printable becomes `\DDD`
 * ([RFC 4343 section 2.1](https://www.rfc-editor.org/rfc/rfc4343#section-2.1)).
 * @module
 */
import { bitsOf, type IpAddress } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { ConfigError } from '../errors.ts';

/** Converts a text to the inner form without a check; a lookup of a bad name finds nothing. */
export function canonicalName(text: string): string {
  const lower = text.toLowerCase();
  return lower.endsWith('.') ? lower : `${lower}.`;
}

/** Returns the name without its first label, or `undefined` for the root. */
export function parentOf(name: string): string | undefined {
  if (name === '.') return undefined;
  const dot = name.indexOf('.');
  return dot === name.length - 1 ? '.' : name.slice(dot + 1);
}

/** Returns whether `name` is `ancestor` or below it; both are in the inner form. */
export function isWithin(name: string, ancestor: string): boolean {
  return name === ancestor || ancestor === '.' || name.endsWith(`.${ancestor}`);
}

/**
 * Reads a name of the configuration. It may have letters, digits, hyphens and underscores only: a name
 * that needs escapes in a zone file is a mistake.
 *
 * @param allowsWildcard whether the first label may be `*`
 * @throws {ConfigError} at `path` if the name or a label is empty, too long or has other characters.
 */
export function parseName(path: string, text: string, allowsWildcard = false): string {
  const name = canonicalName(text);
  if (name.length - 1 > MAX_NAME_LENGTH) {
    throw new ConfigError(
      path,
      `the name "${name.slice(0, 40)}..." has ${name.length - 1} characters, more than ${MAX_NAME_LENGTH}`
    );
  }
  const labels = name.slice(0, -1).split('.');
  if (allowsWildcard && labels.length > 1 && labels[0] === '*') labels.shift();
  for (const label of labels) {
    if (label === '') throw new ConfigError(path, `"${text}" has an empty label`);
    if (label.length > MAX_LABEL_LENGTH) {
      throw new ConfigError(
        path,
        `the label "${label.slice(0, 40)}..." has ${label.length} characters, more than ${MAX_LABEL_LENGTH}`
      );
    }
    if (!LABEL.test(label)) {
      throw new ConfigError(
        path,
        `the label ${JSON.stringify(label)} has characters other than letters, digits, "-" and "_", or a hyphen at its edge`
      );
    }
  }
  return name;
}

/**
 * Reads a name that may be relative to `origin`: `keystone`, `keystone.openstack.test` and
 * `keystone.openstack.test.` are the same name in `openstack.test.`. A name outside of the origin needs
 * the trailing dot.
 *
 * @throws {ConfigError} as `parseName` does.
 */
export function parseRelativeName(
  path: string,
  text: string,
  origin: string,
  allowsWildcard = false
): string {
  const absolute = text.endsWith('.') || isWithin(canonicalName(text), origin);
  return parseName(path, absolute ? text : `${text}.${origin}`, allowsWildcard);
}

/**
 * Encodes a name in the inner form, for a message without compression. Returns `undefined` if the name or a label is
 * empty, too long or has characters that the inner form has not.
 */
export function nameBytes(name: string): Buffer | undefined {
  const octets: number[] = [];
  for (const label of name.slice(0, -1).split('.')) {
    const start = octets.push(0);
    for (const [character] of label.matchAll(CHARACTER)) {
      octets.push(character[0] === '\\' ? Number(character.slice(1)) : character.charCodeAt(0));
    }
    const length = octets.length - start;
    if (length === 0 || length > MAX_LABEL_LENGTH || !INNER_LABEL.test(label)) return undefined;
    octets[start - 1] = length;
  }
  octets.push(0);
  return octets.length > MAX_NAME_LENGTH + 2 ? undefined : Buffer.from(octets);
}

/** Returns the name of the PTR records of `address` (RFC 1035 section 3.5, RFC 3596 section 2.5). */
export function reverseName(address: IpAddress): string {
  return `${reverseLabels(address).join('.')}.${REVERSE_ROOT[address.family]}`;
}

/**
 * Returns the reverse zones that cover `prefix` exactly: one zone if the prefix ends at a label (every 8
 * bits for IPv4, every 4 for IPv6), else up to 128 (IPv4) or 8 (IPv6) zones one label longer.
 */
export function reverseZones(prefix: IpPrefix): string[] {
  const labelBits = prefix.family === 4 ? 8 : 4;
  const addressBits = bitsOf(prefix.family);
  const labels = Math.ceil(prefix.length / labelBits);
  const zones = 2 ** (labels * labelBits - prefix.length);
  const zoneSize = 2 ** (addressBits - labels * labelBits);
  const root = REVERSE_ROOT[prefix.family];
  return Array.from({ length: zones }, (_, index) =>
    [
      ...reverseLabels(prefix.at(index * zoneSize)).slice(addressBits / labelBits - labels),
      root,
    ].join('.')
  );
}

/** Returns the octets (IPv4) or nibbles (IPv6), the least significant first. */
function reverseLabels(address: IpAddress): string[] {
  const [step, radix, perWord] = address.family === 4 ? [8, 10, 4] : [4, 16, 8];
  return address.words
    .flatMap((word) =>
      Array.from({ length: perWord }, (_, i) =>
        ((word >>> (32 - step * (i + 1))) & (2 ** step - 1)).toString(radix)
      )
    )
    .reverse();
}

/** Characters of a name without the trailing dot: 255 bytes on the wire (RFC 1035 section 2.3.4). */
const MAX_NAME_LENGTH = 253;
const MAX_LABEL_LENGTH = 63;
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?$/;
/** A character of a label in the inner form: a printable octet, or `\DDD` for another one. */
const CHARACTER = /\\\d{3}|[!-~]/g;
const INNER_LABEL = /^(?:\\(?:[01]\d\d|2[0-4]\d|25[0-5])|[!-[\]-~])*$/;
const REVERSE_ROOT = { 4: 'in-addr.arpa.', 6: 'ip6.arpa.' } as const;
