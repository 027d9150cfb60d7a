/**
 * The memory of the send and receive buffers of one endpoint: slabs of two sizes, a limit, and free lists.
 *
 * A slab is memory of its own (`Buffer.allocUnsafeSlow`), not part of the pool of `Buffer`, so that a slab that is
 * given back keeps no other memory alive. A new slab of 64 KiB costs several times as much as copying 64 KiB into one
 * that was used before, because the kernel has to map and clear its pages; the free lists avoid that.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';

/** The size of the first slab of a buffer that holds little, in bytes. It is granted beyond the limit. */
export const SMALL_SLAB: number = 4 * 1024;

/** The size of all other slabs, in bytes. */
export const LARGE_SLAB: number = 64 * 1024;

/** The most that one buffer of one connection holds, in bytes. */
export const MAX_BUFFER: number = 4 * 1024 * 1024;

/**
 * Hands out slabs. Memory is charged as it is allocated: a slab counts as a whole, however little of it is used.
 *
 * A buffer holds at most one small slab, and takes it only while it has no other slab. So every connection can move
 * some data when the limit is reached, and the small slabs of all connections need no limit of their own.
 */
export class BufferMemory {
  /** The most that the large slabs may come to, in bytes. */
  readonly limit: number;
  /** The bytes of the large slabs handed out: what the limit bounds. */
  used = 0;
  /** The bytes of the small slabs handed out. */
  usedSmall = 0;

  readonly #tightFrom: number;
  readonly #freeSmall: Buffer[] = [];
  readonly #freeLarge: Buffer[] = [];
  /** The most slabs that the free list of large ones keeps. */
  readonly #maxFreeLarge: number;

  /** @throws {ApiMisuseError} if the limit is not a positive number of bytes. */
  constructor(limitBytes: number = DEFAULT_LIMIT) {
    if (!(limitBytes > 0)) {
      throw new ApiMisuseError(`the memory limit is a positive number of bytes, not ${limitBytes}`);
    }
    this.limit = limitBytes;
    this.#tightFrom = limitBytes * TIGHT_SHARE;
    this.#maxFreeLarge = Math.ceil((limitBytes * FREE_SHARE) / LARGE_SLAB);
  }

  /** Whether three quarters of the limit are used: no window grows, and out-of-order data takes no more slabs. */
  get isTight(): boolean {
    return this.used >= this.#tightFrom;
  }

  /** The bytes of the slabs that wait for their next use. */
  get free(): number {
    return this.#freeSmall.length * SMALL_SLAB + this.#freeLarge.length * LARGE_SLAB;
  }

  /** Returns whether the limit allows this many more large slabs. */
  canTakeLarge(count: number): boolean {
    return this.used + count * LARGE_SLAB <= this.limit;
  }

  /** Takes a small slab, whose content is arbitrary. The limit does not count. */
  takeSmall(): Buffer {
    this.usedSmall += SMALL_SLAB;
    return this.#freeSmall.pop() ?? Buffer.allocUnsafeSlow(SMALL_SLAB);
  }

  /** Takes a large slab, whose content is arbitrary; undefined when the limit is reached. */
  takeLarge(): Buffer | undefined {
    if (this.used + LARGE_SLAB > this.limit) return undefined;
    this.used += LARGE_SLAB;
    return this.#freeLarge.pop() ?? Buffer.allocUnsafeSlow(LARGE_SLAB);
  }

  /** Takes a slab back. The caller must not touch it again. */
  give(slab: Buffer): void {
    if (slab.length === LARGE_SLAB) {
      this.used -= LARGE_SLAB;
      if (this.#freeLarge.length < this.#maxFreeLarge) this.#freeLarge.push(slab);
    } else {
      this.usedSmall -= SMALL_SLAB;
      if (this.#freeSmall.length < MAX_FREE_SMALL) this.#freeSmall.push(slab);
    }
  }

  /** Empties the free lists, for an endpoint that has nothing to do. */
  trim(): void {
    this.#freeSmall.length = 0;
    this.#freeLarge.length = 0;
  }
}

/** The default limit, in bytes. */
const DEFAULT_LIMIT = 64 * 1024 * 1024;

/** The share of the limit from which memory is tight. */
const TIGHT_SHARE = 3 / 4;

/** The share of the limit that the free list of large slabs may keep: 4 MiB of 64. */
const FREE_SHARE = 1 / 16;

/** The most slabs that the free list of small ones keeps: 1 MiB. */
const MAX_FREE_SMALL = 256;
