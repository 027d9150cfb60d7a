/**
 * Finds the frames in a stream that arrives in arbitrary pieces.
 *
 * The stream's way:
 * 1. its bytes are put where `space` says, one behind the other, so that a frame is in one piece however
 *    it was cut on the way: by whoever reads the socket, or by `push`
 * 2. `filled` redirects the frames that are whole, where they are
 * 3. as long as a frame is not whole, the decoder has a buffer of its own for it and what follows; else
 *    the next bytes come to the inlet that all decoders share, so that an idle connection holds nothing
 * @module
 */
import {
  FIRST_EXTENSION_TYPE,
  FRAME_HEADER_LENGTH,
  FrameFault,
  type FrameLimits,
  FrameType,
  MAX_HANDSHAKE_LENGTH,
} from './frame.ts';
import { type Slab, SlabPool } from './slab-pool.ts';

/** Takes a frame's payload, `buffer[start .. end)`. Returns false to have the rest not decoded. */
export type FrameHandler = (type: number, buffer: Buffer, start: number, end: number) => boolean;

/**
 * It never throws, and holds one frame and what has come behind it. A payload is redirected with
 * `FRAME_HEADER_LENGTH` bytes or more in front of it; all bytes of the buffer up to its end may be
 * overwritten, and belong to the decoder again when the handler returns.
 */
export class FrameDecoder {
  /** May be replaced between frames, also by the handler. */
  limits: FrameLimits;
  readonly #pool: SlabPool;
  /** Where the bytes are that came last; `#own` if it is this decoder's alone. */
  #buffer: Buffer;
  #own: Slab | undefined;
  /** What is not decoded yet. */
  #start = HEADROOM;
  #end = HEADROOM;
  #space: Buffer;
  /** Bytes that are still to come of a frame that is skipped. */
  #skip = 0;
  #isStopped = false;

  constructor(limits: FrameLimits, pool: SlabPool = new SlabPool()) {
    this.limits = limits;
    this.#pool = pool;
    this.#buffer = pool.inlet;
    this.#space = pool.inlet.subarray(HEADROOM);
  }

  /** Where the next bytes of the stream are to be put; another place after each `filled`. */
  get space(): Buffer {
    return this.#space;
  }

  /**
   * Decodes the `count` bytes that were put where `space` said. After anything but `None` the decoder
   * is not to be used again.
   */
  filled(count: number, handler: FrameHandler): FrameFault {
    if (this.#isStopped) return FrameFault.None;
    const buffer = this.#buffer;
    const end = this.#end + count;
    let start = this.#start;
    let need = FRAME_HEADER_LENGTH;
    for (;;) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, end - start);
        this.#skip -= skipped;
        start += skipped;
      }
      if (end - start < FRAME_HEADER_LENGTH) break;
      const type = buffer[start]!;
      const size = (buffer[start + 1]! << 16) | (buffer[start + 2]! << 8) | buffer[start + 3]!;
      const fault = faultOf(type, size, this.limits);
      if (fault !== FrameFault.None) return fault;
      if (type >= FIRST_EXTENSION_TYPE) {
        start += FRAME_HEADER_LENGTH;
        this.#skip = size;
        continue;
      }
      if (end - start < FRAME_HEADER_LENGTH + size) {
        need = FRAME_HEADER_LENGTH + size;
        break;
      }
      const payload = start + FRAME_HEADER_LENGTH;
      start = payload + size;
      if (!handler(type, buffer, payload, start)) {
        this.#isStopped = true;
        return FrameFault.None;
      }
    }
    this.#keep(start, end, need);
    return FrameFault.None;
  }

  /** Decodes one piece that lies elsewhere, by copying it. */
  push(piece: Buffer, handler: FrameHandler): FrameFault {
    for (let at = 0; at < piece.length && !this.#isStopped; ) {
      const count = piece.copy(this.#space, 0, at);
      at += count;
      const fault = this.filled(count, handler);
      if (fault !== FrameFault.None) return fault;
    }
    return FrameFault.None;
  }

  /** Gives its memory back, once nothing is put there any more. */
  free(): void {
    this.#isStopped = true;
    this.#giveBack();
  }

  /** Leaves `buffer[start .. end)` for later, and finds room for the rest of a frame of `need` bytes. */
  #keep(start: number, end: number, need: number): void {
    if (start === end) {
      if (this.#own !== undefined) this.#giveBack();
      return;
    }
    const { length } = this.#buffer;
    const hasRoom = start + need <= length && length - end >= Math.min(LEAST_ROOM, need);
    if (this.#own === undefined || !hasRoom) this.#move(start, end, need);
    else this.#setSpace(start, end);
  }

  #setSpace(start: number, end: number): void {
    this.#start = start;
    this.#end = end;
    this.#space = this.#buffer.subarray(end);
  }

  /** To the beginning of a buffer of its own that holds the whole frame. */
  #move(start: number, end: number, need: number): void {
    const from = this.#buffer;
    if (this.#own === undefined || HEADROOM + need > this.#own.buffer.length) {
      const before = this.#own;
      this.#own = this.#newBuffer(need);
      this.#buffer = this.#own.buffer;
      from.copy(this.#buffer, HEADROOM, start, end);
      if (before !== undefined) this.#pool.give(before);
    } else {
      from.copyWithin(HEADROOM, start, end);
    }
    this.#setSpace(HEADROOM, HEADROOM + end - start);
  }

  #newBuffer(need: number): Slab {
    const isOpen = this.limits.max[FrameType.Packet]! > 0;
    if (isOpen && HEADROOM + need <= this.#pool.slabBytes) return this.#pool.take();
    const room = isOpen ? need : FRAME_HEADER_LENGTH + MAX_HANDSHAKE_LENGTH;
    return this.#pool.single(HEADROOM + room);
  }

  #giveBack(): void {
    if (this.#own !== undefined) this.#pool.give(this.#own);
    this.#own = undefined;
    this.#buffer = this.#pool.inlet;
    this.#setSpace(HEADROOM, HEADROOM);
  }
}

function faultOf(type: number, size: number, { min, max }: FrameLimits): FrameFault {
  if (max[type]! < 0) return FrameFault.BadType;
  return size < min[type]! || size > max[type]! ? FrameFault.BadLength : FrameFault.None;
}

/** Writable bytes in front of the first frame; others have the frame before them there. */
const HEADROOM = 128;
/** TLS redirects as much at a time. */
const LEAST_ROOM = 16 * 1024;
