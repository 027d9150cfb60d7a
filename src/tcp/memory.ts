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

  /** When memory was freed last because there was little, in ms. */
  relievedAt: number = Number.NEGATIVE_INFINITY;
  /** What this is a part of. */
  readonly #whole: BufferMemory | undefined;
  readonly #tightFrom: number;
  readonly #freeSmall: Buffer[] = [];
  readonly #freeLarge: Buffer[] = [];
  /** The most slabs that the free list of large ones keeps. */
  readonly #maxFreeLarge: number;

  /**
   * @param whole what this is a part of: its slabs count there too, and are those of the whole
   * @throws {ApiMisuseError} if the limit is not a positive number of bytes.
   */
  constructor(limitBytes: number = DEFAULT_LIMIT, whole?: BufferMemory | undefined) {
    if (!(limitBytes > 0)) {
      throw new ApiMisuseError(`the memory limit is a positive number of bytes, not ${limitBytes}`);
    }
    this.limit = limitBytes;
    this.#whole = whole;
    this.#tightFrom = limitBytes * TIGHT_SHARE;
    this.#maxFreeLarge = Math.ceil((limitBytes * FREE_SHARE) / LARGE_SLAB);
  }

  /**
   * Whether three quarters of the limit are used, here or of the whole: no window grows, and out-of-order data takes no
   * more slabs.
   */
  get isTight(): boolean {
    return this.used >= this.#tightFrom || this.#whole?.isTight === true;
  }

  /** The bytes of the slabs that wait for their next use. */
  get free(): number {
    return this.#freeSmall.length * SMALL_SLAB + this.#freeLarge.length * LARGE_SLAB;
  }

  /** Returns whether the limit allows this many more large slabs. */
  canTakeLarge(count: number): boolean {
    if (this.used + count * LARGE_SLAB > this.limit) return false;
    return this.#whole === undefined || this.#whole.canTakeLarge(count);
  }

  /** Takes a small slab, whose content is arbitrary. The limit does not count. */
  takeSmall(): Buffer {
    this.usedSmall += SMALL_SLAB;
    if (this.#whole !== undefined) return this.#whole.takeSmall();
    return this.#freeSmall.pop() ?? Buffer.allocUnsafeSlow(SMALL_SLAB);
  }

  /** Takes a large slab, whose content is arbitrary; undefined when the limit is reached. */
  takeLarge(): Buffer | undefined {
    if (!this.canTakeLarge(1)) return undefined;
    this.used += LARGE_SLAB;
    if (this.#whole !== undefined) return this.#whole.takeLarge();
    return this.#freeLarge.pop() ?? Buffer.allocUnsafeSlow(LARGE_SLAB);
  }

  /** Takes a slab back. The caller must not touch it again. */
  give(slab: Buffer): void {
    const isLarge = slab.length === LARGE_SLAB;
    if (isLarge) this.used -= LARGE_SLAB;
    else this.usedSmall -= SMALL_SLAB;
    if (this.#whole !== undefined) this.#whole.give(slab);
    else if (isLarge) keep(this.#freeLarge, slab, this.#maxFreeLarge);
    else keep(this.#freeSmall, slab, MAX_FREE_SMALL);
  }

  /** Empties the free lists, for an endpoint that has nothing to do. */
  trim(): void {
    this.#freeSmall.length = 0;
    this.#freeLarge.length = 0;
  }
}

function keep(free: Buffer[], slab: Buffer, most: number): void {
  if (free.length < most) free.push(slab);
}

/** The default limit, in bytes. */
const DEFAULT_LIMIT = 64 * 1024 * 1024;

/** The share of the limit from which memory is tight. */
const TIGHT_SHARE = 3 / 4;

/** The share of the limit that the free list of large slabs may keep: 4 MiB of 64. */
const FREE_SHARE = 1 / 16;

/** The most slabs that the free list of small ones keeps: 1 MiB. */
const MAX_FREE_SMALL = 256;
