/**
 * The transports of the corpus: those of the shared builders with ports that the plan permits, and a text to carry.
 * @module
 */
import { bytesOf } from '../support/address.ts';
import { bytes, counting, NOTHING, padded, u8, u16, u32 } from '../support/bytes.ts';
import { checksumOf, wordsOf } from '../support/checksum.ts';
import type { Extension, Transport } from '../support/packets.ts';
import * as packets from '../support/packets.ts';

export const TEXT: Uint8Array = new TextEncoder().encode('the quick brown fox');

const SOURCE_PORT = 40_000;

export function tcp(fields: Partial<packets.TcpFields> = {}): Transport {
  return packets.tcp({ sourcePort: SOURCE_PORT, destinationPort: 5672, ...fields });
}

export function udp(fields: Partial<packets.UdpFields> = {}): Transport {
  return packets.udp({ sourcePort: SOURCE_PORT, destinationPort: 53, payload: TEXT, ...fields });
}

/** Covers everything by default, and says so by the length (RFC 3828). */
export function udpLite(fields: Partial<packets.UdpLiteFields> = {}): Transport {
  const { payload = TEXT } = fields;
  const ports = { sourcePort: SOURCE_PORT, destinationPort: 7 };
  return packets.udpLite({ ...ports, coverage: 8 + payload.length, ...fields, payload });
}

export interface SctpFields {
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  /** Type of the chunk. */
  readonly chunk?: number;
  readonly payload?: Uint8Array;
}

/** An SCTP packet of one chunk. */
export function sctp({ chunk = 0, payload = NOTHING, ...ports }: SctpFields = {}): Transport {
  const header = bytes(u8(chunk), u8(3), u16(4 + payload.length));
  return packets.sctp({
    sourcePort: SOURCE_PORT,
    destinationPort: 5060,
    ...ports,
    payload: bytes(header, padded(payload, 4)),
  });
}

export function echo(fields: packets.EchoFields = {}): Transport {
  return packets.echo({ payload: TEXT, ...fields });
}

/** A type 0 routing header with one address. */
export function routingHeader(segmentsLeft: number): Extension {
  const address = bytesOf('2001:db8::77');
  const header = [u8(0), u8(2), u8(0), u8(segmentsLeft), u32(0)];
  return { type: packets.ROUTING, bytes: bytes(...header, address) };
}

/** RFC 4302: with 12 bytes of integrity check value. */
export function authenticationHeader(): Extension {
  const header = [u8(0), u8(4), u16(0), u32(0x1001), u32(7)];
  return { type: packets.AUTHENTICATION, bytes: bytes(...header, counting(12)) };
}

export function onesChecksum(data: Uint8Array): number {
  return checksumOf(wordsOf(data));
}
