/**
 * Probes of a peer that sends nothing: while its window is closed
 * ([RFC 9293 section 3.8.6.1](https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6.1)), and while the connection is idle
 * (section 3.8.4). The state of either exists from the first time on that it is needed.
 * @module
 */
import type { ControlBlock } from './control-block.ts';
import { seqDistance } from './sequence.ts';
import { TcpState } from './state.ts';

/** Probes of a window that is closed, or too small for what waits. */
export class WindowProbe {
  /** When the next one is due, in ms; Infinity if none is planned. */
  at: number = NEVER;
  /** How many were sent since the window was open, or something was acknowledged. */
  count = 0;
  /** The next segment is one. */
  isDue = false;

  stop(): void {
    this.at = NEVER;
    this.isDue = false;
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
    this.at = this.delayMs > 0 ? now + this.delayMs : NEVER;
  }
}

/** Plans a probe of the window, if bytes wait for it and no acknowledgement will tell of it. */
export function planWindowProbe(block: ControlBlock, now: number): void {
  if (!block.hasUnsent || !block.loss.isEmpty || block.isHeldBack) return;
  const room = block.sendWindow.size - seqDistance(block.sndUna, block.sndNxt);
  if (room >= block.unit && room >= seqDistance(block.sndNxt, block.dataEnd)) return;
  block.windowProbe ??= new WindowProbe();
  const probe = block.windowProbe;
  if (probe.at !== NEVER || probe.isDue) return;
  probe.at = now + Math.min(block.rtt.rtoMs * 2 ** probe.count, MAX_INTERVAL_MS);
}

/** A probe of the window is due. Returns false if the connection is to be given up. */
export function expireWindowProbe(block: ControlBlock, probe: WindowProbe, now: number): boolean {
  probe.at = NEVER;
  const isUnanswered = probe.count > 0 && now - block.heardAt >= block.userTimeoutMs;
  if (isUnanswered || (block.isReleased && probe.count >= ORPHAN_RETRIES)) return false;
  probe.count++;
  probe.isDue = true;
  return true;
}

/** A probe of an idle connection may be due. Returns false if the connection is to be given up. */
export function expireKeepalive(block: ControlBlock, keepalive: Keepalive, now: number): boolean {
  const mayProbe = block.state === TcpState.Established || block.state === TcpState.CloseWait;
  if (!mayProbe || keepalive.delayMs === 0) {
    keepalive.at = NEVER;
    return true;
  }
  const isWaiting = block.windowProbe !== undefined && block.windowProbe.at !== NEVER;
  if (!block.loss.isEmpty || isWaiting) {
    keepalive.at = now + keepalive.delayMs;
    return true;
  }
  if (keepalive.count >= KEEPALIVE_PROBES) return false;
  keepalive.count++;
  keepalive.isDue = true;
  keepalive.at = now + KEEPALIVE_INTERVAL_MS;
  return true;
}

const NEVER: number = Number.POSITIVE_INFINITY;
/** As Linux's `tcp_orphan_retries`: how often a connection without an application tries again. */
export const ORPHAN_RETRIES = 8;
/** As libuv sets them for `setKeepAlive`. */
const KEEPALIVE_PROBES = 10;
const KEEPALIVE_INTERVAL_MS = 1_000;
const MAX_INTERVAL_MS = 120_000;
