/**
 * Slabs: the large buffers in which frames are collected before they go to a socket in one write, and in
 * which those that come in pieces are put together. One pool serves all connections of an endpoint, so that
 * idle connections hold none.
 * @module
 */

import { ApiMisuseError } from '../errors.ts';
import { FRAME_HEADER_LENGTH, MAX_PACKET_PAYLOAD } from './frame.ts';

/** `sent <= flushed <= head`: written to the socket, redirected for that, committed. */
export interface Slab {
  readonly buffer: Buffer;
  head: number;
  flushed: number;
  sent: number;
}

export class SlabPool {
  readonly slabBytes: number;
  /** Takes the place of a slab for packets that are not kept. */
  readonly sink: Slab = newSlab(FRAME_HEADER_LENGTH + MAX_PACKET_PAYLOAD);
  /** Where what is received comes first, whoever receives it: what stays there is to be copied. */
  readonly inlet: Buffer = Buffer.allocUnsafeSlow(INLET_BYTES);
  readonly #free: Slab[] = [];
  #windowStart = 0;
  /** Slabs that were free all through the window. */
  #spare = 0;

  /** @throws {ApiMisuseError} if a slab would not hold the largest packet. */
  constructor(slabBytes: number = 256 * 1024) {
    if (!(slabBytes >= FRAME_HEADER_LENGTH + MAX_PACKET_PAYLOAD)) {
      throw new ApiMisuseError(`a slab of ${slabBytes} bytes does not hold the largest packet`);
    }
    this.slabBytes = slabBytes;
  }

  /** Slabs that wait to be used. */
  get idle(): number {
    return this.#free.length;
  }

  take(): Slab {
    const slab = this.#free.pop();
    this.#spare = Math.min(this.#spare, this.#free.length);
    if (slab !== undefined) return slab;
    return newSlab(this.slabBytes);
  }

  /** A buffer of another size, for once. */
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

  /** Frees the slabs that nobody needed for `TRIM_WINDOW_MS`; to be called now and then. */
  trim(nowMs: number): void {
    if (nowMs - this.#windowStart < TRIM_WINDOW_MS) return;
    this.#free.splice(0, this.#spare);
    this.#spare = this.#free.length;
    this.#windowStart = nowMs;
  }
}

/**
 * How many slabs the connections of a tunnel hold together. A connection may hold as many as are left for the
 * others ([Choudhury and Hahne](https://doi.org/10.1109/90.664262), with a factor of 1): one alone gets
 * half of all, and one that is stalled never keeps the others from going on. Each may have one.
 */
export class SlabBudget {
  readonly #max: number;
  #held = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Whether a connection that holds `held` slabs takes one more; `give` returns it. */
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
  // Slow: not out of the shared pool of small buffers. Unsafe: nothing uncommitted is ever sent.
  return { buffer: Buffer.allocUnsafeSlow(bytes), head: 0, flushed: 0, sent: 0 };
}

const TRIM_WINDOW_MS = 10_000;
const INLET_BYTES = 64 * 1024;
