/**
 * Bounds the time that packets wait in a queue: Controlled Delay
 * ([RFC 8289](https://www.rfc-editor.org/rfc/rfc8289)), asked when a packet arrives. The RFC drops at
 * the head of the queue; here frames lie one behind the other in memory and go out as they are, so it is
 * the arriving packet that is not let in. The signal comes later by the length of the queue, which is
 * what this keeps short.
 * @module
 */

export class CoDel {
  /** When the wait was first seen to be above the target, plus the interval; 0: it is not. */
  #dueMs = 0;
  #isDropping = false;
  #dropAtMs = 0;
  #drops = 0;
  #dropsBefore = 0;

  /**
   * Whether a packet that arrives now is to be dropped.
   *
   * @param waitMs how long the packet at the head of the queue has waited
   */
  isTooLate(nowMs: number, waitMs: number): boolean {
    const isLong = this.#isLong(nowMs, waitMs);
    if (!this.#isDropping) {
      if (!isLong) return false;
      this.#isDropping = true;
      // RFC 8289 section 5.3: soon after the last time it begins where that had got to.
      const isSoon = nowMs - this.#dropAtMs < 16 * INTERVAL_MS;
      const since = this.#drops - this.#dropsBefore;
      this.#drops = isSoon && since > 1 ? since : 1;
      this.#dropsBefore = this.#drops;
      this.#dropAtMs = nowMs + INTERVAL_MS / Math.sqrt(this.#drops);
      return true;
    }
    if (!isLong) {
      this.#isDropping = false;
      return false;
    }
    if (nowMs < this.#dropAtMs) return false;
    this.#drops++;
    this.#dropAtMs += INTERVAL_MS / Math.sqrt(this.#drops);
    return true;
  }

  #isLong(nowMs: number, waitMs: number): boolean {
    if (waitMs < TARGET_MS) {
      this.#dueMs = 0;
      return false;
    }
    if (this.#dueMs === 0) this.#dueMs = nowMs + INTERVAL_MS;
    return nowMs >= this.#dueMs;
  }
}

/** A wait that is always worth its while: it keeps the connection busy. RFC 8289 section 4.4. */
const TARGET_MS = 5;
/** The order of a round trip of those who are to slow down. RFC 8289 section 4.3. */
const INTERVAL_MS = 100;
