/**
 * The options of a TCP header, read and written in place: maximum segment size
 * ([RFC 9293 section 3.2](https://www.rfc-editor.org/rfc/rfc9293#section-3.2)), window scale and timestamps
 * ([RFC 7323](https://www.rfc-editor.org/rfc/rfc7323)), SACK
 * ([RFC 2018](https://www.rfc-editor.org/rfc/rfc2018)).
 * @module
 */

/** The most SACK blocks that fit in a header: 40 bytes of options hold four blocks of 8 bytes. */
export const MAX_SACK_BLOCKS = 4;

/** The bytes of a timestamps option with the two NOPs that align it (RFC 7323 appendix A). */
export const TIMESTAMPS_LENGTH = 12;

/** The options of one header. The caller reuses the object; `read` sets all fields. */
export class TcpOptions {
  /** The maximum segment size in bytes, or -1. */
  mss = -1;
  /** The shift count, at most 14 (RFC 7323 section 2.3), or -1. */
  windowScale = -1;
  isSackPermitted = false;
  hasTimestamps = false;
  /** TSval and TSecr as signed 32-bit integers. Valid iff `hasTimestamps`. */
  tsValue = 0;
  tsEcho = 0;
  sackCount = 0;
  /** Pairs of left and right edges of `sackCount` blocks, as received. */
  readonly sack: Int32Array = new Int32Array(2 * MAX_SACK_BLOCKS);

  /** Removes all options. */
  clear(): void {
    this.mss = -1;
    this.windowScale = -1;
    this.isSackPermitted = false;
    this.hasTimestamps = false;
    this.sackCount = 0;
  }

  /**
   * Reads the options in `view[at .. end)`. An option that is not known is skipped. An option whose length is not the
   * one that its standard gives is ignored, and the options end where a length leads out of the header.
   */
  read(view: DataView, at: number, end: number): void {
    this.clear();
    // This is how every stack that aligns its options sends a segment with timestamps.
    if (end - at === TIMESTAMPS_LENGTH && view.getInt32(at) === ALIGNED_TIMESTAMPS) {
      this.#readTimestamps(view, at + 4);
      return;
    }
    while (at < end) {
      const kind = view.getUint8(at);
      if (kind === Kind.End) return;
      if (kind === Kind.NoOperation) {
        at++;
        continue;
      }
      if (at + 1 >= end) return;
      const length = view.getUint8(at + 1);
      if (length < 2 || at + length > end) return;
      this.#readOption(view, kind, at, length);
      at += length;
    }
  }

  /** Returns how many bytes `write` writes: a multiple of 4. */
  get length(): number {
    let length = this.hasTimestamps ? TIMESTAMPS_LENGTH : 0;
    if (this.mss >= 0) length += 4;
    if (this.windowScale >= 0) length += 4;
    if (this.isSackPermitted && !this.hasTimestamps) length += 4;
    if (this.sackCount > 0) length += 4 + 8 * this.sackCount;
    return length;
  }

  /** Writes the options at `at`, each aligned to 4 bytes. Returns the offset behind them. */
  write(view: DataView, at: number): number {
    if (this.mss >= 0) {
      view.setInt32(at, (Kind.Mss << 24) | (4 << 16) | this.mss);
      at += 4;
    }
    if (this.hasTimestamps) {
      // SACK-permitted takes the place of the two NOPs, so that a SYN has room for everything.
      view.setInt32(at, this.isSackPermitted ? SACK_PERMITTED_TIMESTAMPS : ALIGNED_TIMESTAMPS);
      view.setInt32(at + 4, this.tsValue);
      view.setInt32(at + 8, this.tsEcho);
      at += TIMESTAMPS_LENGTH;
    } else if (this.isSackPermitted) {
      view.setInt32(at, NOPS | (Kind.SackPermitted << 8) | 2);
      at += 4;
    }
    if (this.windowScale >= 0) {
      view.setInt32(
        at,
        (Kind.NoOperation << 24) | (Kind.WindowScale << 16) | (3 << 8) | this.windowScale
      );
      at += 4;
    }
    if (this.sackCount > 0) {
      const numbers = 2 * this.sackCount;
      view.setInt32(at, NOPS | (Kind.Sack << 8) | (2 + 4 * numbers));
      at += 4;
      for (let i = 0; i < numbers; i++, at += 4) view.setInt32(at, this.sack[i]!);
    }
    return at;
  }

  #readOption(view: DataView, kind: number, at: number, length: number): void {
    switch (kind) {
      case Kind.Mss:
        if (length === 4) this.mss = view.getUint16(at + 2);
        break;
      case Kind.WindowScale:
        if (length === 3) this.windowScale = Math.min(view.getUint8(at + 2), MAX_WINDOW_SCALE);
        break;
      case Kind.SackPermitted:
        if (length === 2) this.isSackPermitted = true;
        break;
      case Kind.Timestamps:
        if (length === 10) this.#readTimestamps(view, at + 2);
        break;
      case Kind.Sack:
        if (length >= 10 && (length - 2) % 8 === 0) this.#readSack(view, at + 2, (length - 2) >> 3);
    }
  }

  #readTimestamps(view: DataView, at: number): void {
    this.hasTimestamps = true;
    this.tsValue = view.getInt32(at);
    this.tsEcho = view.getInt32(at + 4);
  }

  #readSack(view: DataView, at: number, count: number): void {
    this.sackCount = Math.min(count, MAX_SACK_BLOCKS);
    for (let i = 0; i < 2 * this.sackCount; i++) this.sack[i] = view.getInt32(at + 4 * i);
  }
}

const Kind = {
  End: 0,
  NoOperation: 1,
  Mss: 2,
  WindowScale: 3,
  SackPermitted: 4,
  Sack: 5,
  Timestamps: 8,
} as const;

/** RFC 7323 section 2.3: a larger shift count is used as 14. */
const MAX_WINDOW_SCALE = 14;

/** NOP, NOP, timestamps, length 10. */
const ALIGNED_TIMESTAMPS = 0x0101080a;
/** SACK-permitted, length 2, timestamps, length 10. */
const SACK_PERMITTED_TIMESTAMPS = 0x0402080a;
/** Two NOPs in the upper half of a word. */
const NOPS = 0x01010000;
