/**
 * The fields of a TCP segment in a packet without IP options or extension headers, as a test looks at it.
 * @module
 */
export interface SegmentFields {
  readonly isFin: boolean;
  readonly isSyn: boolean;
  readonly isRst: boolean;
  readonly sequence: number;
  /** As it is in the header, without the scale. */
  readonly window: number;
  /** Bytes of payload. */
  readonly payload: number;
}

/** Undefined if it is not TCP. */
export function segmentOf(packet: Buffer): SegmentFields | undefined {
  const isIPv4 = packet[0]! >>> 4 === 4;
  if (packet[isIPv4 ? 9 : 6] !== TCP) return undefined;
  const at = isIPv4 ? 20 : 40;
  const flags = packet[at + 13]!;
  return {
    isFin: (flags & 1) !== 0,
    isSyn: (flags & 2) !== 0,
    isRst: (flags & 4) !== 0,
    sequence: packet.readUInt32BE(at + 4),
    window: packet.readUInt16BE(at + 14),
    payload: packet.length - at - ((packet[at + 12]! >>> 4) << 2),
  };
}

const TCP = 6;
