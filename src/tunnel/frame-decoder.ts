/**
 * Finds the frames in a stream that arrives in arbitrary pieces.
 *
 * The path of the stream:
 * 1. `readInto` or `push` puts the bytes where `space` says, one behind the other, so that a frame is in one piece
 *    in memory, whatever the pieces in which it arrived
 * 2. `filled` calls the handler for each whole frame, where it lies
 * 3. while a frame is not whole, the decoder has a buffer of its own for it and what follows. Otherwise the next bytes
 *    go to the inlet that all decoders share, so that an idle connection holds nothing
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

/** Takes a frame's payload, `buffer[start .. end)`. Returns false to stop decoding. */
export type FrameHandler = (type: number, buffer: Buffer, start: number, end: number) => boolean;

/**
 * Decodes one stream. It never throws, and holds at most one frame and what has come behind it. In front of each
 * payload there are `FRAME_HEADER_LENGTH` bytes or more. The handler may overwrite all bytes of the buffer up to the
 * end of the payload, until it returns.
 */
export class FrameDecoder {
  /** May be replaced between frames, also by the handler. */
  limits: FrameLimits;
  readonly #pool: SlabPool;
  /** Where the last bytes are: in `#own`, or in the shared inlet. */
  #buffer: Buffer;
  #own: Slab | undefined;
  /** The bytes that are not decoded yet. */
  #start = HEADROOM;
  #end = HEADROOM;
  #space: Buffer;
  /** Bytes still to come of a frame that is skipped. */
  #skip = 0;
  #isStopped = false;

  constructor(limits: FrameLimits, pool: SlabPool = new SlabPool()) {
    this.limits = limits;
    this.#pool = pool;
    this.#buffer = pool.inlet;
    this.#space = pool.inlet.subarray(HEADROOM);
  }

  /** Where to put the next bytes of the stream; another place after each `filled`. */
  get space(): Buffer {
    return this.#space;
  }

  /**
   * Decodes the `count` bytes that were put where `space` said. Unless it returns `None`, the decoder must not
   * be used again.
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

  /** Copies one piece that lies elsewhere, and decodes it. */
  push(piece: Buffer, handler: FrameHandler): FrameFault {
    for (let at = 0; at < piece.length && !this.#isStopped; ) {
      const count = piece.copy(this.#space, 0, at);
      at += count;
      const fault = this.filled(count, handler);
      if (fault !== FrameFault.None) return fault;
    }
    return FrameFault.None;
  }

  /** Gives its memory back. Call it when nothing is put there any more. */
  free(): void {
    this.#isStopped = true;
    this.#giveBack();
  }

  /** Keeps `buffer[start .. end)` for later, and finds space for the rest of a frame of `need` bytes. */
  #keep(start: number, end: number, need: number): void {
    if (start === end) {
      if (this.#own !== undefined) this.#giveBack();
      return;
    }
    const { length } = this.#buffer;
    const hasSpace = start + need <= length && length - end >= Math.min(LEAST_SPACE, need);
    if (this.#own === undefined || !hasSpace) this.#move(start, end, need);
    else this.#setSpace(start, end);
  }

  #setSpace(start: number, end: number): void {
    this.#start = start;
    this.#end = end;
    this.#space = this.#buffer.subarray(end);
  }

  /** Moves the bytes to the beginning of a buffer of its own that holds the whole frame. */
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
    const length = isOpen ? need : FRAME_HEADER_LENGTH + MAX_HANDSHAKE_LENGTH;
    return this.#pool.single(HEADROOM + length);
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

/** Writable bytes in front of the first frame; the others have the frame before them there. */
const HEADROOM = 128;
/** The most that TLS delivers at a time. */
const LEAST_SPACE = 16 * 1024;
