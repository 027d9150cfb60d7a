/**
 * Frames: how packets and messages stand in the byte stream of a tunnel (docs/wire-format.md).
 *
 * ```
 *  0        1                    4
 * +--------+--------------------+----------------+
 * |  type  |  payload length    |  payload ...   |   length: bytes, big-endian
 * +--------+--------------------+----------------+
 * ```
 *
 * The decoder's way with a chunk of the stream:
 * 1. what is left of a frame that began in an earlier chunk is copied behind that beginning
 * 2. frames that lie wholly in the chunk are handed over where they are
 * 3. the beginning of a frame that the chunk cuts is copied into the one assembly buffer
 * @module
 */
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../packet/virtio.ts';

export const FRAME_HEADER_LENGTH = 4;

/** Type octet of a frame. Others are a protocol error below 0x80 and skipped from there on. */
export const FrameType = {
  /** Virtio-net header and IP packet. */
  Packet: 0x01,
  /** One JSON message of the control layer. */
  Control: 0x02,
  /** First frame of the dialling side. */
  Hello: 0x03,
  /** Acknowledgement by the listening side: the tunnel is up. */
  Welcome: 0x04,
  Ping: 0x05,
  Pong: 0x06,
  /** Last frame of either side: why it ends. */
  Close: 0x07,
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

/** Payload lengths by type, in bytes: from `min[type]` to `max[type]`; a `max` of 0 refuses it. */
export interface FrameLimits {
  readonly min: Int32Array;
  readonly max: Int32Array;
}

/** Takes a frame's payload, `buffer[start .. end)`. Returns false to have the rest not decoded. */
export type FrameHandler = (type: number, buffer: Buffer, start: number, end: number) => boolean;

/** The largest length that the header can say, in bytes. */
export const MAX_FRAME_PAYLOAD = 0xffffff;

/** Payload of the largest packet frame. */
export const MAX_PACKET_PAYLOAD: number = VNET_HEADER_LENGTH + MAX_PACKET_LENGTH;

/** Payload of PING and PONG. */
export const PING_LENGTH = 8;

/** Limits before the tunnel is up: only `first` may come, or a CLOSE instead. */
export function handshakeLimits(first: FrameType): FrameLimits {
  return limitsOf([
    [first, 2, MAX_HANDSHAKE_LENGTH],
    [FrameType.Close, 2, MAX_HANDSHAKE_LENGTH],
  ]);
}

/** Limits of a tunnel that is up. Frames of unknown types are as long as a control message at most. */
export function openLimits(maxControlBytes: number): FrameLimits {
  const limits = limitsOf([
    [FrameType.Packet, VNET_HEADER_LENGTH + 1, MAX_PACKET_PAYLOAD],
    [FrameType.Control, 1, maxControlBytes],
    [FrameType.Ping, PING_LENGTH, PING_LENGTH],
    [FrameType.Pong, PING_LENGTH, PING_LENGTH],
    [FrameType.Close, 2, MAX_HANDSHAKE_LENGTH],
  ]);
  limits.max.fill(maxControlBytes, FIRST_EXTENSION_TYPE);
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

/** Bytes of the whole frame whose header stands at `offset`. */
export function frameLength(buffer: Buffer, offset: number): number {
  const high = (buffer[offset + 1]! << 16) | (buffer[offset + 2]! << 8);
  return FRAME_HEADER_LENGTH + (high | buffer[offset + 3]!);
}

/**
 * Finds the frames in a stream that arrives in arbitrary pieces. It never throws, holds at most one
 * frame, and copies only frames that are cut. A payload is handed over with `FRAME_HEADER_LENGTH`
 * bytes or more in front of it; all bytes of the buffer up to its end may be overwritten, and belong to
 * the decoder again when the handler returns.
 */
export class FrameDecoder {
  /** May be replaced between frames, also by the handler. */
  limits: FrameLimits;
  #header = 0;
  #headerLength = 0;
  #assembly: Buffer = EMPTY;
  /** Payload bytes of the cut frame that are there, of `#need`; -1: no frame is cut. */
  #have = -1;
  #need = 0;
  #type = 0;

  constructor(limits: FrameLimits) {
    this.limits = limits;
  }

  /** Decodes one piece. After anything but `None` the decoder is not to be used again. */
  push(chunk: Buffer, handler: FrameHandler): FrameFault {
    const length = chunk.length;
    let at = 0;
    while (at < length) {
      if (this.#have >= 0) {
        at = this.#append(chunk, at);
        if (this.#have < this.#need) return FrameFault.None;
        this.#have = -1;
        if (!this.#handOver(handler)) return FrameFault.None;
        continue;
      }
      if (this.#headerLength > 0 || length - at < FRAME_HEADER_LENGTH) {
        at = this.#appendHeader(chunk, at);
        if (this.#headerLength < FRAME_HEADER_LENGTH) return FrameFault.None;
        this.#headerLength = 0;
        const fault = this.#beginCut(this.#header >>> 24, this.#header & 0xffffff);
        if (fault !== FrameFault.None) return fault;
        continue;
      }
      const type = chunk[at]!;
      const size = (chunk[at + 1]! << 16) | (chunk[at + 2]! << 8) | chunk[at + 3]!;
      at += FRAME_HEADER_LENGTH;
      if (size > length - at) {
        const fault = this.#beginCut(type, size);
        if (fault !== FrameFault.None) return fault;
        continue;
      }
      const fault = this.#check(type, size);
      if (fault !== FrameFault.None) return fault;
      const end = at + size;
      if (type < FIRST_EXTENSION_TYPE && !handler(type, chunk, at, end)) return FrameFault.None;
      at = end;
    }
    return FrameFault.None;
  }

  #check(type: number, size: number): FrameFault {
    const { min, max } = this.limits;
    if (max[type] === 0) return FrameFault.BadType;
    return size < min[type]! || size > max[type]! ? FrameFault.BadLength : FrameFault.None;
  }

  #beginCut(type: number, size: number): FrameFault {
    const fault = this.#check(type, size);
    if (fault !== FrameFault.None) return fault;
    this.#type = type;
    this.#need = size;
    this.#have = 0;
    const isKept = type < FIRST_EXTENSION_TYPE;
    if (isKept && this.#assembly.length < HEADROOM + size) {
      // At once for any packet, so that it does not grow step by step.
      const least = size > SMALL_ASSEMBLY ? MAX_PACKET_PAYLOAD : SMALL_ASSEMBLY;
      this.#assembly = Buffer.allocUnsafeSlow(HEADROOM + Math.max(size, least));
    }
    return FrameFault.None;
  }

  #append(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#need - this.#have);
    if (this.#type < FIRST_EXTENSION_TYPE)
      chunk.copy(this.#assembly, HEADROOM + this.#have, at, end);
    this.#have += end - at;
    return end;
  }

  #appendHeader(chunk: Buffer, at: number): number {
    while (at < chunk.length && this.#headerLength < FRAME_HEADER_LENGTH) {
      this.#header = (this.#header << 8) | chunk[at++]!;
      this.#headerLength++;
    }
    return at;
  }

  #handOver(handler: FrameHandler): boolean {
    if (this.#type >= FIRST_EXTENSION_TYPE) return true;
    const assembly = this.#assembly;
    const goOn = handler(this.#type, assembly, HEADROOM, HEADROOM + this.#need);
    if (assembly.length > HEADROOM + MAX_PACKET_PAYLOAD) this.#assembly = EMPTY;
    return goOn;
  }
}

function limitsOf(rows: readonly (readonly [FrameType, min: number, max: number])[]): FrameLimits {
  const limits = { min: new Int32Array(256), max: new Int32Array(256) };
  for (const [type, min, max] of rows) {
    limits.min[type] = min;
    limits.max[type] = max;
  }
  return limits;
}

const EMPTY: Buffer = Buffer.alloc(0);
/** Types from here on are skipped, so that later versions can add frames. */
const FIRST_EXTENSION_TYPE = 0x80;
/** HELLO, WELCOME and CLOSE are small, so that a stranger cannot make us hold much. */
const MAX_HANDSHAKE_LENGTH = 4096;
/** Writable bytes in front of an assembled payload. */
const HEADROOM = 64;
/** One control message or a few packets of Ethernet size. */
const SMALL_ASSEMBLY = 4096;
