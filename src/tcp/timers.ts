/**
 * The timers of a connection. They are deadlines in its control block; the endpoint has one timer wheel for all.
 *
 * While the link is down, nothing is sent and nothing backs off (as RFC 6069 has it for a path that is known to be
 * broken). The user timeout and the bound of a connection without an application run also then, for what could not be
 * sent too.
 * @module
 */
import type { ControlBlock } from './control-block.ts';
import { type Keepalive, WindowProbe } from './probes.ts';
import { seqDistance } from './sequence.ts';
import { TcpState } from './state.ts';

/**
 * Returns when `expireTimers` has to be called; Infinity if no timer runs. While the link is down, the bounds begin with
 * this call for what waits and was never sent.
 */
export function deadlineOf(block: ControlBlock, isLinkUp: boolean): number {
  if (!isLinkUp) {
    beginBounds(block);
    return boundsOf(block);
  }
  return Math.min(
    boundsOf(block),
    block.synAt,
    block.ackAt,
    block.windowProbe === undefined ? NEVER : block.windowProbe.at,
    block.keepalive === undefined ? NEVER : block.keepalive.at,
    block.retryAt,
    block.resendAt,
    block.loss.deadline
  );
}

/** Acts on every timer that is due at `now`. */
export function expireTimers(block: ControlBlock, now: number, isLinkUp: boolean): void {
  if (now >= block.lingerAt || now >= block.stalledSince + block.userTimeoutMs) {
    timeOut(block);
    return;
  }
  if (!isLinkUp) return;
  if (now >= block.ackAt) {
    block.ackAt = NEVER;
    block.isAckDue = true;
  }
  if (now >= block.retryAt) {
    block.retryAt = NEVER;
    block.isHeldBack = false;
    if (block.state < TcpState.Established) block.isSynDue = true;
  }
  if (now >= block.resendAt) {
    block.resendAt = NEVER;
    block.isResendDue = true;
  }
  if (now >= block.synAt) expireSyn(block, now);
  const { windowProbe, keepalive } = block;
  if (windowProbe !== undefined && now >= windowProbe.at)
    expireWindowProbe(block, windowProbe, now);
  if (keepalive !== undefined && now >= keepalive.at) expireKeepalive(block, keepalive, now);
  if (now >= block.loss.deadline) expireLoss(block, now);
  block.host.update(block);
}

/**
 * Plans a probe of the window, if bytes wait for it and no acknowledgement will tell of it
 * (RFC 9293 section 3.8.6.1).
 */
export function planWindowProbe(block: ControlBlock, now: number): void {
  if (!block.hasUnsent || !block.loss.isEmpty || block.isHeldBack) return;
  const room = block.sendWindow.size - seqDistance(block.sndUna, block.sndNxt);
  if (room >= block.unit && room >= seqDistance(block.sndNxt, block.dataEnd)) return;
  // The probes have a bound of their own.
  if (block.host.isLinkUp) block.stalledSince = NEVER;
  block.windowProbe ??= new WindowProbe();
  block.windowProbe.plan(now, block.rtt.rtoMs);
}

/** The link is up again: the connection sends one segment at `at`, and its timers run anew. */
export function resumeBlock(block: ControlBlock, now: number, at: number): void {
  block.loss.resume(now);
  // Its retransmissions have a bound of their own, and so has FIN-WAIT-2.
  if (block.state !== TcpState.FinWait2) block.lingerAt = NEVER;
  block.isHeldBack = false;
  if (block.synAt !== NEVER) {
    // The SYN is sent again, and that is no further attempt: any number of outages may come before the answer. It is the
    // first one in so far as nobody knows which SYN is answered (Karn's algorithm).
    block.synRetries = Math.max(block.synRetries, 1);
    block.retryAt = at;
    block.synAt = at + block.rtt.rtoMs;
  }
  if (!block.loss.isEmpty) block.resendAt = at;
  // The peer could not be heard: how long it is silent, and how many probes it has not answered, counts from now on.
  block.onHeard(now);
  const { windowProbe } = block;
  if (windowProbe !== undefined && windowProbe.at !== NEVER) windowProbe.at = at;
}

/** The connection has no application and waits for the peer's FIN alone: not for ever. */
export function limitFinWait2(block: ControlBlock, now: number): void {
  block.lingerAt = now + FIN_WAIT_2_MS;
}

/** Nothing is sent: no transmission begins the user timeout, and no retries bound a connection without an application. */
function beginBounds(block: ControlBlock): void {
  const { host, loss } = block;
  if (block.state < TcpState.Established || (loss.isEmpty && !block.hasUnsent)) return;
  const isStalled = block.stalledSince !== NEVER;
  const isLimited = block.lingerAt !== NEVER || !block.isReleased;
  if (isStalled && isLimited) return;
  host.advance();
  if (!isStalled) block.stalledSince = host.now;
  if (!isLimited) block.lingerAt = host.now + ORPHAN_MS;
}

function boundsOf(block: ControlBlock): number {
  return Math.min(block.lingerAt, block.stalledSince + block.userTimeoutMs);
}

function expireSyn(block: ControlBlock, now: number): void {
  block.synRetries++;
  if (block.synRetries > SYN_RETRIES) {
    timeOut(block);
    return;
  }
  block.rtt.backoff();
  block.synAt = now + block.rtt.rtoMs;
  block.isSynDue = true;
}

function expireWindowProbe(block: ControlBlock, probe: WindowProbe, now: number): void {
  // The wait for the next probe may be longer than the user timeout: an answer to the last one counts until then.
  const isUnanswered = block.heardAt < probe.sentAt && now - block.heardAt >= block.userTimeoutMs;
  if (isUnanswered || (block.isReleased && probe.count >= ORPHAN_RETRIES)) timeOut(block);
  else probe.send(now);
}

function expireKeepalive(block: ControlBlock, keepalive: Keepalive, now: number): void {
  const isWaiting = block.windowProbe !== undefined && block.windowProbe.at !== NEVER;
  const isOpening = block.state < TcpState.Established;
  if (isOpening || !block.loss.isEmpty || isWaiting) keepalive.postpone(now);
  else if (!keepalive.send(now)) timeOut(block);
}

function expireLoss(block: ControlBlock, now: number): void {
  const { loss, congestion, host } = block;
  block.isHeldBack = false;
  switch (loss.expire(now)) {
    case 'lost':
      if (loss.found.hasEntered)
        congestion.enterRecovery(loss.found.inFlightBefore, now, block.hasSack);
      if (loss.phase === 'recovery') {
        congestion.onRecoveryAck(0, loss.inFlight, false, loss.found.newlyLost);
      }
      break;
    case 'probe':
      host.counters.tailProbes++;
      break;
    case 'timeout':
      host.counters.timeouts++;
      congestion.onTimeout(loss.found.inFlightBefore, now);
      if (block.isReleased && block.rtt.backoffs > ORPHAN_RETRIES) timeOut(block);
      break;
  }
}

function timeOut(block: ControlBlock): void {
  if (block.state >= TcpState.Established) block.host.answer(block, true);
  block.end(block.softFailure ?? 'timed-out');
}

const NEVER: number = Number.POSITIVE_INFINITY;
/** As Linux's `tcp_syn_retries`: the last wait ends after 127 s. */
const SYN_RETRIES = 6;
/** As Linux's `tcp_orphan_retries`: how often a connection without an application tries again. */
const ORPHAN_RETRIES = 8;
/** How long that takes with the least timeout, 200 ms: the bound while the link is down. */
const ORPHAN_MS = 102_200;
/** As Linux's `tcp_fin_timeout`: how long a connection without an application waits for the peer's FIN. */
const FIN_WAIT_2_MS = 60_000;
