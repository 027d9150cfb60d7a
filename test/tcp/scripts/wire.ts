/**
 * TCP segments as bytes: decodes what the subject sends, and checks its checksums. It shares no code with `src`.
 * @module
 */
import { textOf } from '../../support/address.ts';
import { isRight, onesSum, pseudoHeader, wordsOf } from '../../support/checksum.ts';
import { TCP, transportOf } from '../../support/packets.ts';

/** A segment as it was sent. Numbers are absolute and unsigned. */
export interface Segment {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly ack: number;
  /** Of `SFRPUEW.`, in this order. */
  readonly flags: string;
  readonly window: number;
  readonly urgent: number;
  readonly options: readonly Option[];
  readonly payload: Uint8Array;
  /** What is wrong with the packet as such: a checksum, its lengths. */
  readonly fault: string | undefined;
}

export type Option =
  | { readonly kind: 'mss' | 'wscale'; readonly value: number }
  | { readonly kind: 'sackOK' }
  | { readonly kind: 'TS'; readonly value: number; readonly echo: number }
  | { readonly kind: 'sack'; readonly blocks: readonly (readonly [number, number])[] }
  | { readonly kind: 'unknown'; readonly type: number };

/** Which connection a packet belongs to: the far address, as plain text, and both ports. */
export interface Route {
  readonly remote: string;
  readonly localPort: number;
  readonly remotePort: number;
}

/** Returns where a packet that the subject has sent goes, or undefined if it is no TCP segment. */
export function routeOf(packet: Uint8Array): Route | undefined {
  const { protocol, start } = transportOf(packet);
  if (protocol !== TCP || packet.length < start + 20) return undefined;
  const { destination } = addressesOf(packet);
  const view = viewOf(packet);
  const [localPort, remotePort] = [view.getUint16(start), view.getUint16(start + 2)];
  return { remote: textOf(destination), localPort, remotePort };
}

/** Decodes a whole TCP segment: no part of it may be left to an offload. */
export function decodeSegment(packet: Uint8Array): Segment {
  const { start } = transportOf(packet);
  const view = viewOf(packet);
  const header = (packet[start + 12]! >> 4) * 4;
  const bits = packet[start + 13]!;
  return {
    sourcePort: view.getUint16(start),
    destinationPort: view.getUint16(start + 2),
    sequence: view.getUint32(start + 4),
    ack: view.getUint32(start + 8),
    flags: [...FLAGS].filter((_, i) => bits & FLAG_BITS[i]!).join(''),
    window: view.getUint16(start + 14),
    urgent: view.getUint16(start + 18),
    options: decodeOptions(packet.subarray(start + 20, start + header)),
    payload: packet.slice(start + header),
    fault: faultOf(packet, start),
  };
}

/** The bits of the header for flags as a script writes them. */
export function flagBits(flags: string): number {
  return [...flags].reduce((bits, flag) => bits | FLAG_BITS[FLAGS.indexOf(flag)]!, 0);
}

/** The byte of a stream at this relative sequence number. Its period is no power of two. */
export function contentAt(sequence: number): number {
  return (sequence * 7 + ((sequence / 251) | 0) * 13) & 255;
}

export function contentOf(start: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => contentAt(start + i));
}

function decodeOptions(bytes: Uint8Array): Option[] {
  const options: Option[] = [];
  const view = viewOf(bytes);
  for (let at = 0; at < bytes.length; ) {
    const type = bytes[at]!;
    if (type === 0) break;
    if (type === 1) {
      at++;
      continue;
    }
    const length = bytes[at + 1] ?? 0;
    if (length < 2 || at + length > bytes.length) {
      options.push({ kind: 'unknown', type });
      break;
    }
    options.push(decodeOption(view, at, type, length));
    at += length;
  }
  return options;
}

function decodeOption(view: DataView, at: number, type: number, length: number): Option {
  if (type === 2 && length === 4) return { kind: 'mss', value: view.getUint16(at + 2) };
  if (type === 3 && length === 3) return { kind: 'wscale', value: view.getUint8(at + 2) };
  if (type === 4 && length === 2) return { kind: 'sackOK' };
  if (type === 8 && length === 10) {
    return { kind: 'TS', value: view.getUint32(at + 2), echo: view.getUint32(at + 6) };
  }
  if (type === 5 && length % 8 === 2) {
    const blocks = Array.from({ length: (length - 2) / 8 }, (_, i) => {
      const left = at + 2 + i * 8;
      return [view.getUint32(left), view.getUint32(left + 4)] as const;
    });
    return { kind: 'sack', blocks };
  }
  return { kind: 'unknown', type };
}

function faultOf(packet: Uint8Array, start: number): string | undefined {
  const view = viewOf(packet);
  const isIpv4 = packet[0]! >> 4 === 4;
  const length = isIpv4 ? view.getUint16(2) : view.getUint16(4) + 40;
  if (length !== packet.length) return `a packet of ${packet.length} bytes says it has ${length}`;
  if (isIpv4 && !isRight(wordsOf(packet.subarray(0, start)), 0)) return 'a wrong IP checksum';
  const { source, destination } = addressesOf(packet);
  const words = [
    ...pseudoHeader(source, destination, TCP, packet.length - start),
    ...wordsOf(packet.subarray(start)),
  ];
  return onesSum(words) === 0xffff ? undefined : 'a wrong TCP checksum';
}

function addressesOf(packet: Uint8Array): { source: Uint8Array; destination: Uint8Array } {
  const [start, size] = packet[0]! >> 4 === 4 ? [12, 4] : [8, 16];
  return {
    source: packet.subarray(start, start + size),
    destination: packet.subarray(start + size, start + 2 * size),
  };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const FLAGS = 'SFRPUEW.';
const FLAG_BITS: readonly number[] = [0x02, 0x01, 0x04, 0x08, 0x20, 0x40, 0x80, 0x10];
