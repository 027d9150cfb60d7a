/**
 * Records in the order of sequence numbers, in a ring: the first ones leave, new ones come behind the last, and a record
 * that is cut needs a place in the middle.
 * @module
 */
import type { Transmission } from './transmission.ts';

/** It holds no memory while it is empty. */
export class TransmissionRing {
  /** The number of records. */
  count = 0;

  /** A power of two of places; the first record is at `head`. */
  private ring: (Transmission | undefined)[] = NO_RING;
  private head = 0;

  /** The record at an index: 0 is that of SND.UNA. */
  at(index: number): Transmission {
    return this.ring[(this.head + index) & (this.ring.length - 1)]!;
  }

  /** Takes all records out. */
  protected empty(): void {
    this.count = 0;
    this.head = 0;
    this.ring = NO_RING;
  }

  /** Makes `record` the one at `index`. Whatever is shorter moves: what is in front of it or what is behind. */
  protected insert(index: number, record: Transmission): void {
    if (this.count === this.ring.length) this.grow();
    const mask = this.ring.length - 1;
    if (index < this.count >>> 1) {
      this.head = (this.head - 1) & mask;
      for (let i = 0; i < index; i++) {
        this.ring[(this.head + i) & mask] = this.ring[(this.head + i + 1) & mask];
      }
    } else {
      for (let i = this.count; i > index; i--) {
        this.ring[(this.head + i) & mask] = this.ring[(this.head + i - 1) & mask];
      }
    }
    this.ring[(this.head + index) & mask] = record;
    this.count++;
  }

  /** Takes `count` records out of the ring. Whatever is shorter moves: what is in front of them or what is behind. */
  protected remove(index: number, count: number): void {
    const mask = this.ring.length - 1;
    if (index < this.count - index - count) {
      for (let i = index - 1; i >= 0; i--) {
        this.ring[(this.head + i + count) & mask] = this.ring[(this.head + i) & mask];
      }
      for (let i = 0; i < count; i++) this.ring[(this.head + i) & mask] = undefined;
      this.head = (this.head + count) & mask;
    } else {
      for (let i = index + count; i < this.count; i++) {
        this.ring[(this.head + i - count) & mask] = this.ring[(this.head + i) & mask];
      }
      for (let i = this.count - count; i < this.count; i++) {
        this.ring[(this.head + i) & mask] = undefined;
      }
    }
    this.count -= count;
    if (this.count === 0) {
      this.ring = NO_RING;
      this.head = 0;
    }
  }

  private grow(): void {
    const ring = new Array<Transmission | undefined>(Math.max(MIN_RING, this.ring.length * 2));
    for (let index = 0; index < ring.length; index++) {
      ring[index] = index < this.count ? this.at(index) : undefined;
    }
    this.ring = ring;
    this.head = 0;
  }
}

const MIN_RING = 8;
/** The ring of a connection without records. Nothing is ever stored in it, because it has no place. */
const NO_RING: (Transmission | undefined)[] = [];
