/**
 * Chooses which protocol sends next: TCP, UDP and ICMP in turn, each with about as many bytes as the others. The
 * protocol chooses which of its connections sends next.
 * @module
 */

/** What makes packets for a stack. */
export interface PacketSource {
  /**
   * Writes the next frame, virtio-net header first, to `buffer` from `at` on, where the longest packet fits. Returns
   * its length in bytes, or 0 if there is none.
   */
  read(buffer: Buffer, at: number): number;
  /** The frame read last was not taken. */
  refused(): void;
}

/** Reads only the sources that have said that they are ready. */
export class SourceRing {
  readonly #sources: readonly PacketSource[];
  readonly #isReady: boolean[];
  /** The index of the source whose turn it is. */
  #current = 0;
  /** How many bytes that source may still send in its turn. */
  #budget: number = TURN_BYTES;
  #readyCount = 0;
  /** The source of the frame read last. */
  #last: PacketSource | undefined;

  constructor(sources: readonly PacketSource[]) {
    this.#sources = sources;
    this.#isReady = sources.map(() => false);
  }

  /** Whether a source may have a frame. */
  get isReady(): boolean {
    return this.#readyCount > 0;
  }

  /** Notes that a source has frames; it stays ready until its `read` returns 0. */
  markReady(index: number): void {
    if (this.#isReady[index]!) return;
    this.#isReady[index] = true;
    this.#readyCount++;
  }

  /** Writes the next frame, as `PacketSource.read` does. */
  read(buffer: Buffer, at: number): number {
    this.#last = undefined;
    // One more than there are sources: the first may be at the end of its turn.
    for (let i = 0; i <= this.#sources.length && this.#readyCount > 0; i++) {
      const index = this.#current;
      if (this.#isReady[index]! && this.#budget > 0) {
        const source = this.#sources[index]!;
        // The source may say during `read` that it is ready, also when that returns 0.
        this.#isReady[index] = false;
        this.#readyCount--;
        const length = source.read(buffer, at);
        if (length > 0) {
          this.markReady(index);
          this.#budget -= length;
          this.#last = source;
          return length;
        }
      }
      this.#current = (index + 1) % this.#sources.length;
      this.#budget = TURN_BYTES;
    }
    return 0;
  }

  /** Tells the source of the frame read last that it was not taken. */
  refused(): void {
    const source = this.#last;
    this.#last = undefined;
    source?.refused();
  }
}

/** As much as the longest frame: a source that sends such frames sends one in each turn. */
const TURN_BYTES = 65_545;
