/**
 * Slabs: the large buffers in which frames are collected before one write to a socket, and in which received frames
 * that come in pieces are put together. One pool serves all connections of one side. Idle connections hold none.
 * @module
 */

import { ApiMisuseError } from '../errors.ts';
import { FRAME_HEADER_LENGTH, MAX_PACKET_PAYLOAD } from './frame.ts';

/** `sent <= flushed <= head`: up to where the bytes are taken by the socket, marked for it, and committed. */
export interface Slab {
  readonly buffer: Buffer;
  head: number;
  flushed: number;
  sent: number;
}

export class SlabPool {
  readonly slabBytes: number;
  /** Used in place of a slab for packets that are dropped. */
  readonly sink: Slab = newSlab(FRAME_HEADER_LENGTH + MAX_PACKET_PAYLOAD);
  /** Where all decoders of the pool receive; a frame that is not whole is copied out of it. */
  readonly inlet: Buffer = Buffer.allocUnsafeSlow(INLET_BYTES);
  readonly #free: Slab[] = [];
  #windowStart = 0;
  /** Slabs that were free during the whole window. */
  #spare = 0;

  /** @throws {ApiMisuseError} if a slab would not hold the largest packet. */
  constructor(slabBytes: number = 256 * 1024) {
    if (!(slabBytes >= FRAME_HEADER_LENGTH + MAX_PACKET_PAYLOAD)) {
      throw new ApiMisuseError(`a slab of ${slabBytes} bytes does not hold the largest packet`);
    }
    this.slabBytes = slabBytes;
  }

  /** Slabs that nobody uses. */
  get idle(): number {
    return this.#free.length;
  }

  take(): Slab {
    const slab = this.#free.pop();
    this.#spare = Math.min(this.#spare, this.#free.length);
    if (slab !== undefined) return slab;
    return newSlab(this.slabBytes);
  }

  /** Returns a slab of another size, which `give` does not keep. */
  single(bytes: number): Slab {
    return newSlab(bytes);
  }

  give(slab: Slab): void {
    if (slab.buffer.length !== this.slabBytes) return;
    slab.head = 0;
    slab.flushed = 0;
    slab.sent = 0;
    this.#free.push(slab);
  }

  /** Frees the slabs that nobody needed for `TRIM_WINDOW_MS`. Called at each keepalive interval. */
  trim(nowMs: number): void {
    if (nowMs - this.#windowStart < TRIM_WINDOW_MS) return;
    this.#free.splice(0, this.#spare);
    this.#spare = this.#free.length;
    this.#windowStart = nowMs;
  }
}

/**
 * How many slabs the connections of a tunnel hold together. A connection may hold as many as are left for the
 * others ([Choudhury and Hahne](https://doi.org/10.1109/90.664262), with a factor of 1): one alone gets half of all,
 * and one that is stalled never stops the others. Each may always have one.
 */
export class SlabBudget {
  readonly #max: number;
  #held = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Takes one more slab for a connection that holds `held`, and returns whether it may. `give` returns it. */
  take(held: number): boolean {
    if (held > 0 && held >= this.#max - this.#held) return false;
    this.#held++;
    return true;
  }

  give(): void {
    this.#held--;
  }
}

function newSlab(bytes: number): Slab {
  // Slow: not out of Node's pool of small buffers. Unsafe: only bytes that were committed are sent.
  return { buffer: Buffer.allocUnsafeSlow(bytes), head: 0, flushed: 0, sent: 0 };
}

const TRIM_WINDOW_MS = 10_000;
const INLET_BYTES = 64 * 1024;
