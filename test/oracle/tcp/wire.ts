/**
 * Segments as packets, and packets as segments. Checksums are verified by `verify.ts`.
 * @module
 */
import { bytes, u8, u16, u32 } from '../../support/bytes.ts';
import { type Ends, tcpPacket, transportOf } from '../../support/packets.ts';
import type { Control, Options, Segment } from './segment.ts';

export interface Ports {
  readonly sourcePort: number;
  readonly destinationPort: number;
}

export function packetOf(ends: Ends, ports: Ports, segment: Segment): Uint8Array {
  return tcpPacket(ends, {
    ...ports,
    sequence: segment.SEQ,
    acknowledgment: segment.ACK,
    flags: segment.CTL.reduce((flags, control) => flags | BITS[control], 0),
    window: segment.WND,
    urgent: segment.UP,
    tcpOptions: optionsField(segment.options),
    payload: Uint8Array.from(segment.text),
  });
}

/** Reads a packet that is known to be whole. */
export function segmentFrom(packet: Uint8Array): Ports & { readonly segment: Segment } {
  const { start } = transportOf(packet);
  const end = packet[0]! >> 4 === 4 ? u16At(packet, 2) : 40 + u16At(packet, 4);
  const tcp = packet.subarray(start, end);
  const headerLength = (tcp[12]! >> 4) * 4;
  const controls = Object.keys(BITS) as Control[];
  const segment: Segment = {
    SEQ: u32At(tcp, 4),
    ACK: u32At(tcp, 8),
    CTL: controls.filter((control) => (tcp[13]! & BITS[control]) !== 0),
    WND: u16At(tcp, 14),
    UP: u16At(tcp, 18),
    text: [...tcp.subarray(headerLength)],
    options: optionsFrom(tcp.subarray(20, headerLength)),
  };
  return { sourcePort: u16At(tcp, 0), destinationPort: u16At(tcp, 2), segment };
}

function optionsField(options: Options): Uint8Array {
  const parts: Uint8Array[] = [];
  if (options.mss !== undefined) parts.push(bytes(u8(2), u8(4), u16(options.mss)));
  if (options.isSackPermitted) parts.push(Uint8Array.of(4, 2));
  if (options.windowScale !== undefined) parts.push(Uint8Array.of(3, 3, options.windowScale));
  if (options.timestamps !== undefined) {
    const { TSval, TSecr } = options.timestamps;
    parts.push(bytes(u8(8), u8(10), u32(TSval), u32(TSecr)));
  }
  if (options.sack !== undefined) {
    const edges = options.sack.flat().map(u32);
    parts.push(bytes(u8(5), u8(2 + 4 * edges.length), ...edges));
  }
  return bytes(...parts);
}

function optionsFrom(field: Uint8Array): Options {
  let options: Options = {};
  for (let at = 0; at < field.length && field[at] !== 0; ) {
    if (field[at] === 1) {
      at++;
      continue;
    }
    const body = field.subarray(at + 2, at + field[at + 1]!);
    if (field[at] === 2) options = { ...options, mss: u16At(body, 0) };
    if (field[at] === 3) options = { ...options, windowScale: body[0]! };
    if (field[at] === 4) options = { ...options, isSackPermitted: true };
    if (field[at] === 5) options = { ...options, sack: pairsIn(body) };
    if (field[at] === 8) {
      options = { ...options, timestamps: { TSval: u32At(body, 0), TSecr: u32At(body, 4) } };
    }
    at += field[at + 1]!;
  }
  return options;
}

function pairsIn(body: Uint8Array): (readonly [number, number])[] {
  return Array.from({ length: body.length / 8 }, (_, i) => [
    u32At(body, 8 * i),
    u32At(body, 8 * i + 4),
  ]);
}

function u16At(from: Uint8Array, at: number): number {
  return from[at]! * 256 + from[at + 1]!;
}

function u32At(from: Uint8Array, at: number): number {
  return u16At(from, at) * 65_536 + u16At(from, at + 2);
}

const BITS: Readonly<Record<Control, number>> = {
  FIN: 1,
  SYN: 2,
  RST: 4,
  PSH: 8,
  ACK: 16,
  URG: 32,
};
