/**
 * Addresses as bytes, and one plain text for each (dotted quad, or eight uncompressed groups), which serves as key.
 * It shares no code with `src`.
 * @module
 */

export interface Prefix {
  readonly bytes: Uint8Array;
  readonly length: number;
}

/** 4 or 16 bytes of an address as people write it. The array is shared: do not write to it. */
export function bytesOf(text: string): Uint8Array {
  const known = KNOWN.get(text);
  if (known !== undefined) return known;
  const bytes = text.includes(':') ? ipv6Bytes(text) : Uint8Array.from(text.split('.'), Number);
  if (KNOWN.size > 100_000) KNOWN.clear();
  KNOWN.set(text, bytes);
  return bytes;
}

export function textOf(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups: string[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((bytes[i]! << 8) | bytes[i + 1]!).toString(16));
  return groups.join(':');
}

/** The one text by which the oracle knows an address, however it was written. */
export function plainText(text: string): string {
  return textOf(bytesOf(text));
}

export function prefixOf(text: string): Prefix {
  const [address, length] = text.split('/');
  const bytes = bytesOf(address!);
  return { bytes, length: length === undefined ? bytes.length * 8 : Number(length) };
}

export function isInside(address: Uint8Array, prefix: Prefix): boolean {
  if (address.length !== prefix.bytes.length) return false;
  for (let bit = 0; bit < prefix.length; bit++) {
    const mask = 0x80 >> (bit & 7);
    if ((address[bit >> 3]! & mask) !== (prefix.bytes[bit >> 3]! & mask)) return false;
  }
  return true;
}

function ipv6Bytes(text: string): Uint8Array {
  const [head, tail] = text.split('::');
  const groupsOf = (part: string | undefined): string[] => (part ? part.split(':') : []);
  const front = groupsOf(head);
  const back = groupsOf(tail);
  const zeros = tail === undefined ? 0 : 8 - front.length - back.length;
  const groups = [...front, ...Array<string>(zeros).fill('0'), ...back];
  return Uint8Array.from(
    groups.flatMap((group) => {
      const value = Number.parseInt(group, 16);
      return [value >> 8, value & 255];
    })
  );
}

const KNOWN = new Map<string, Uint8Array>();
