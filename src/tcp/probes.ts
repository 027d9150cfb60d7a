/**
 * Probes of a peer that sends nothing: while its window is closed
 * ([RFC 9293 section 3.8.6.1](https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6.1)), and while the connection is idle
 * (section 3.8.4). The state of either exists from the first time on that it is needed.
 * @module
 */
/** Probes of a window that is closed, or too small for what waits. */
export class WindowProbe {
  /** When the next one is due, in ms; Infinity if none is planned. */
  at: number = NEVER;
  /** How many were sent since the window was open, or something was acknowledged. */
  count = 0;
  /** The next segment is one. */
  isDue = false;
  /** When the last one was due, in ms. */
  sentAt: number = Number.NEGATIVE_INFINITY;

  /** Plans one, unless one is planned; the intervals grow as those of retransmissions. */
  plan(now: number, rtoMs: number): void {
    if (this.at !== NEVER || this.isDue) return;
    this.at = now + Math.min(rtoMs * 2 ** this.count, MAX_INTERVAL_MS);
  }

  /** The time has come. */
  send(now: number): void {
    this.at = NEVER;
    this.count++;
    this.isDue = true;
    this.sentAt = now;
  }

  /** Data goes instead. */
  cancel(): void {
    this.at = NEVER;
    this.isDue = false;
  }

  /** The window is open, or something was acknowledged. */
  stop(): void {
    this.cancel();
    this.count = 0;
  }
}

/** Probes of an idle connection. */
export class Keepalive {
  /** The idle time in ms before the first one; 0 if there are none. */
  delayMs = 0;
  at: number = NEVER;
  /** How many were sent without an answer. */
  count = 0;
  isDue = false;

  /** Something came from the peer, or the probing begins. */
  restart(now: number): void {
    this.count = 0;
    this.postpone(now);
  }

  /** The connection is not idle now. */
  postpone(now: number): void {
    this.at = this.delayMs > 0 ? now + this.delayMs : NEVER;
  }

  /** The time has come. Returns false if the last one was not answered. */
  send(now: number): boolean {
    if (this.count >= KEEPALIVE_PROBES) return false;
    this.count++;
    this.isDue = true;
    this.at = now + KEEPALIVE_INTERVAL_MS;
    return true;
  }
}

const NEVER: number = Number.POSITIVE_INFINITY;
/** As libuv sets them for `setKeepAlive`. */
const KEEPALIVE_PROBES = 10;
const KEEPALIVE_INTERVAL_MS = 1_000;
const MAX_INTERVAL_MS = 120_000;
