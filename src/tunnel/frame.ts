/**
 * Frames: the layout of packets and messages in the byte stream of a connection (docs/wire-format.md).
 *
 * ```
 *  0        1                    4
 * +--------+--------------------+----------------+
 * |  type  |  payload length    |  payload ...   |   length: bytes, big-endian
 * +--------+--------------------+----------------+
 * ```
 * @module
 */
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../packet/virtio.ts';

export const FRAME_HEADER_LENGTH = 4;

/** Type octet of a frame. Unknown types are a protocol error below 0x80, and skipped from 0x80 on. */
export const FrameType = {
  /** Virtio-net header and IP packet. */
  Packet: 0x01,
  /** One JSON message of the control layer. */
  Control: 0x02,
  /** First frame of the dialling side. */
  Hello: 0x03,
  /** Answer of the listening side to HELLO: the connection is up. */
  Welcome: 0x04,
  Ping: 0x05,
  Pong: 0x06,
  /** Last frame of either side; it says why the connection ends. */
  Close: 0x07,
  /** The sender puts no packets or control messages on this connection any more. */
  Drain: 0x08,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/** Why a stream cannot be decoded further; `None` while it can. */
export const FrameFault = {
  None: 0,
  /** A type that this version does not know, or not at this point of the conversation. */
  BadType: 1,
  /** A length that the type does not allow. */
  BadLength: 2,
} as const;
export type FrameFault = (typeof FrameFault)[keyof typeof FrameFault];

/** Payload lengths by type, in bytes: from `min[type]` to `max[type]`; a `max` of -1 refuses it. */
export interface FrameLimits {
  readonly min: Int32Array;
  readonly max: Int32Array;
}

/** Types from here on are skipped, so that later versions can add frames. */
export const FIRST_EXTENSION_TYPE = 0x80;

/** The largest length that fits in the header, in bytes. */
export const MAX_FRAME_PAYLOAD = 0xffffff;

/** Payload of the largest packet frame, in bytes. */
export const MAX_PACKET_PAYLOAD: number = VNET_HEADER_LENGTH + MAX_PACKET_LENGTH;

/** Payload of PING and PONG, in bytes. */
export const PING_LENGTH = 8;

/** Limits before the connection is up: only `first` may come, or a CLOSE instead. */
export function handshakeLimits(first: FrameType): FrameLimits {
  return limitsOf([
    [first, 2, MAX_HANDSHAKE_LENGTH],
    [FrameType.Close, 2, MAX_HANDSHAKE_LENGTH],
  ]);
}

/** Limits for a peer that waits for an answer to its HELLO: only a CLOSE may come. */
export function waitingLimits(): FrameLimits {
  return limitsOf([[FrameType.Close, 2, MAX_HANDSHAKE_LENGTH]]);
}

/** Limits of a connection that is up. Frames of unknown types are as long as a control message at most. */
export function openLimits(maxControlBytes: number): FrameLimits {
  const limits = limitsOf([
    [FrameType.Packet, VNET_HEADER_LENGTH + 1, MAX_PACKET_PAYLOAD],
    [FrameType.Control, 1, maxControlBytes],
    [FrameType.Ping, PING_LENGTH, PING_LENGTH],
    [FrameType.Pong, PING_LENGTH, PING_LENGTH],
    [FrameType.Close, 2, MAX_HANDSHAKE_LENGTH],
    [FrameType.Drain, 0, 0],
  ]);
  limits.max.fill(maxControlBytes, FIRST_EXTENSION_TYPE);
  return limits;
}

/** Limits of a connection on which DRAIN has come. */
export function drainedLimits(maxControlBytes: number): FrameLimits {
  const limits = openLimits(maxControlBytes);
  for (const type of [FrameType.Packet, FrameType.Control, FrameType.Drain]) {
    limits.max[type] = REFUSED;
  }
  return limits;
}

/** Writes the header of a frame whose payload begins at `offset + FRAME_HEADER_LENGTH`. */
export function writeFrameHeader(
  buffer: Buffer,
  offset: number,
  type: number,
  payloadLength: number
): void {
  buffer[offset] = type;
  buffer[offset + 1] = payloadLength >>> 16;
  buffer[offset + 2] = payloadLength >>> 8;
  buffer[offset + 3] = payloadLength;
}

/** Returns the length in bytes of the whole frame whose header is at `offset`. */
export function frameLength(buffer: Buffer, offset: number): number {
  const high = (buffer[offset + 1]! << 16) | (buffer[offset + 2]! << 8);
  return FRAME_HEADER_LENGTH + (high | buffer[offset + 3]!);
}

function limitsOf(rows: readonly (readonly [FrameType, min: number, max: number])[]): FrameLimits {
  const limits = { min: new Int32Array(256), max: new Int32Array(256).fill(REFUSED) };
  for (const [type, min, max] of rows) {
    limits.min[type] = min;
    limits.max[type] = max;
  }
  return limits;
}

/** Below every length. */
const REFUSED = -1;
/** Bounds what an unauthenticated peer can make this side hold, in bytes. */
export const MAX_HANDSHAKE_LENGTH = 4096;
