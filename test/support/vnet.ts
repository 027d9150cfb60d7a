/**
 * The virtio-net header in front of a packet (virtio 1.2 section 5.1.6, without `num_buffers`), little-endian.
 * @module
 */
import { bytes } from './bytes.ts';

/** Its length in bytes. */
export const VNET = 10;

export const NEEDS_CSUM = 1;
export const GSO_TCPV4 = 1;
export const GSO_UDP = 3;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;
export const GSO_ECN = 0x80;

export interface VnetHeader {
  readonly flags?: number;
  readonly gsoType?: number;
  readonly headerLength?: number;
  readonly gsoSize?: number;
  readonly checksumStart?: number;
  readonly checksumOffset?: number;
}

export function vnetHeader(fields: VnetHeader = {}): Uint8Array {
  const header = new Uint8Array(VNET);
  const view = new DataView(header.buffer);
  view.setUint8(0, fields.flags ?? 0);
  view.setUint8(1, fields.gsoType ?? 0);
  view.setUint16(2, fields.headerLength ?? 0, true);
  view.setUint16(4, fields.gsoSize ?? 0, true);
  view.setUint16(6, fields.checksumStart ?? 0, true);
  view.setUint16(8, fields.checksumOffset ?? 0, true);
  return header;
}

/** Puts a virtio-net header, by default all zero, in front of the packet. */
export function framed(packet: Uint8Array, header: VnetHeader = {}): Uint8Array {
  return bytes(vnetHeader(header), packet);
}
