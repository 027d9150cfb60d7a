/**
 * Captures written byte by byte, independently of the library: both formats, in both byte orders.
 * @module
 */

/** A packet to write. */
export interface Written {
  readonly bytes: Uint8Array;
  /** In ms since 1970. */
  readonly timeMs?: number;
  /** How many bytes are captured; all by default. */
  readonly captured?: number;
}

const little = (isLittle: boolean | undefined): boolean => isLittle ?? true;

/** A classic pcap file. */
export function pcapOf(
  packets: readonly Written[],
  options: { linkType?: number; isLittle?: boolean; isNano?: boolean } = {}
): Uint8Array {
  const isLittle = little(options.isLittle);
  const magic = options.isNano ? 0xa1b23c4d : 0xa1b2c3d4;
  const parts = [
    u32(magic, isLittle),
    u16(2, isLittle),
    u16(4, isLittle),
    new Uint8Array(8),
    u32(262_144, isLittle),
    u32(options.linkType ?? 101, isLittle),
  ];
  for (const { bytes, timeMs = 0, captured = bytes.length } of packets) {
    const seconds = Math.floor(timeMs / 1000);
    const fraction = Math.round((timeMs - seconds * 1000) * (options.isNano ? 1e6 : 1e3));
    parts.push(u32(seconds, isLittle), u32(fraction, isLittle));
    parts.push(u32(captured, isLittle), u32(bytes.length, isLittle), bytes.subarray(0, captured));
  }
  return joined(parts);
}

/** The header of a section. */
export function section(isLittle?: boolean): Uint8Array {
  const order = little(isLittle);
  const body = [u32(0x1a2b3c4d, order), u16(1, order), u16(0, order), new Uint8Array(8).fill(255)];
  return block(0x0a0d0d0a, joined(body), isLittle);
}

/** The description of an interface. Options are pairs of a code and a value. */
export function interfaceBlock(
  linkType: number,
  options: readonly (readonly [number, Uint8Array])[] = [],
  isLittle?: boolean,
  snapLength = 0
): Uint8Array {
  const order = little(isLittle);
  const body = [u16(linkType, order), u16(0, order), u32(snapLength, order)];
  for (const [code, value] of options) {
    body.push(u16(code, order), u16(value.length, order), padded(value));
  }
  return block(1, joined(body), isLittle);
}

/** An enhanced packet block, of the time in the units of its interface. */
export function enhanced(
  bytes: Uint8Array,
  options: { isLittle?: boolean; index?: number; time?: bigint; captured?: number } = {}
): Uint8Array {
  const order = little(options.isLittle);
  const { index = 0, time = 0n, captured = bytes.length } = options;
  const body = [
    u32(index, order),
    u32(Number(time >> 32n), order),
    u32(Number(time & 0xffffffffn), order),
    u32(captured, order),
    u32(bytes.length, order),
    padded(bytes.subarray(0, captured)),
  ];
  return block(6, joined(body), options.isLittle);
}

/** A block with its lengths. */
export function block(type: number, body: Uint8Array, isLittle?: boolean): Uint8Array {
  const order = little(isLittle);
  const length = u32(body.length + 12, order);
  return joined([u32(type, order), length, body, length]);
}

export function u16(value: number, isLittle = true): Uint8Array {
  const bytes = new Uint8Array(2);
  new DataView(bytes.buffer).setUint16(0, value, isLittle);
  return bytes;
}

export function u32(value: number, isLittle = true): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, isLittle);
  return bytes;
}

export function joined(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

function padded(bytes: Uint8Array): Uint8Array {
  return joined([bytes, new Uint8Array((4 - (bytes.length % 4)) % 4)]);
}
