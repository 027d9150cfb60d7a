/**
 * Joins two connections, so that each side sees what the other one does. Forwards, published services, the proxy and
 * the socket backend use it.
 *
 * - Bytes go both ways. While one side does not take them, the other one is not read: besides the buffers of the two
 *   sockets, at most one chunk (64 KiB) waits for each direction.
 * - The end of what one side sends (FIN) ends what is sent to the other side, and the other direction goes on.
 * - When one side fails, or closes before both directions have ended, the other one is reset (RST). What was not sent
 *   on yet is lost, as with every reset.
 *
 * A side that is not read cannot report that it was reset: that is noticed when the other side takes data again.
 * @module
 */
import { Socket } from 'node:net';
import type { OnReadOptions } from '../stream/arguments.ts';
import type { PresenceSocket } from '../stream/socket.ts';
import { SharedReadSocket } from './shared-read-socket.ts';

/** A connection of the operating system, or of a presence. */
export type SplicedSocket = Socket | PresenceSocket;

export interface SpliceOptions {
  /** After how many ms without traffic a side is probed, in whole seconds; default 60,000. 0 switches probes off. */
  readonly keepAliveMs?: number | undefined;
  /**
   * Is called once, when both sockets are closed.
   *
   * @param failure the first error of the two; undefined if there was none, which includes a side that was destroyed
   *   without an error
   */
  readonly onClosed?: ((failure: Error | undefined) => void) | undefined;
}

/**
 * Joins two sockets, which belong to the splice from now on: the caller only may destroy them. They may still connect,
 * may have been paused, and may have received data or the end already. No `error` of them is unhandled.
 *
 * Their `allowHalfOpen` becomes true. A socket without it that has ended before has lost its other direction too.
 */
export function splice(a: SplicedSocket, b: SplicedSocket, options: SpliceOptions = {}): void {
  const { keepAliveMs = KEEP_ALIVE_MS, onClosed } = options;
  let failure = a.errored ?? b.errored ?? undefined;
  let open = 2;
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.allowHalfOpen = true;
    // What arrives in small pieces was sent in small pieces on purpose.
    from.setNoDelay(true);
    if (keepAliveMs > 0) from.setKeepAlive(true, keepAliveMs);
    const onClose = (): void => {
      if (!isEnded(from)) reset(to);
      open--;
      if (open === 0) onClosed?.(failure);
    };
    from.on('error', (error: Error) => {
      failure ??= error;
    });
    // A socket that is `closed` may have emitted the event, or not yet.
    if (from.closed) process.nextTick(onClose);
    else from.on('close', onClose);
  }
  carry(a, b);
  carry(b, a);
}

/**
 * Ends a connection at once by RST. A socket that still connects, and one that has no RST (a unix socket, TLS), is
 * destroyed: the other end of a unix socket sees ECONNRESET if it has sent what was not read, else an end. A socket of
 * the operating system whose FIN is just being sent is reset in the next turn of the event loop.
 */
export function reset(socket: SplicedSocket): void {
  if (socket.destroyed) return;
  if (isShuttingDown(socket)) {
    socket.once('finish', () => reset(socket));
    return;
  }
  if (socket.connecting) {
    socket.destroy();
    return;
  }
  try {
    socket.resetAndDestroy();
  } catch {
    // `net.Socket` throws ERR_INVALID_HANDLE_TYPE for what is not TCP.
    socket.destroy();
  }
}

/**
 * The option `onread` of a presence's socket that will be joined with `to`. Its bytes then need no new memory, which
 * saves more than half of the CPU time of both stacks and the splice. The socket needs `allowHalfOpen` too, since it reads
 * as soon as it is connected. A `net.Socket` must not have this `onread`, because it keeps its buffer between reads: see
 * `SharedReadSocket`.
 */
export function onreadTo(to: SplicedSocket): OnReadOptions {
  return {
    buffer: () => free.pop() ?? Buffer.allocUnsafe(CHUNK_BYTES),
    callback: (length, buffer) => {
      let isHeld = true;
      const release = (): void => {
        if (isHeld && free.length < MAX_FREE) free.push(buffer);
        isHeld = false;
      };
      const isTaken = to.write(buffer.subarray(0, length), release);
      if (to.writableLength > 0) return isTaken;
      // What is written at once is not needed any more, and the callback would come later.
      release();
      return true;
    },
  };
}

/**
 * Whether libuv is sending the FIN of a socket. `resetAndDestroy` then fails by EINVAL, and Node forgets the socket
 * without closing it.
 */
function isShuttingDown(socket: SplicedSocket): boolean {
  const hasFinToSend = socket.writableEnded && !socket.writableFinished;
  return hasFinToSend && socket.writableLength === 0 && socket instanceof Socket && !isTls(socket);
}

function isTls(socket: Socket): boolean {
  return 'encrypted' in socket;
}

/** Carries bytes and the end in one direction. */
function carry(from: SplicedSocket, to: SplicedSocket): void {
  if (from instanceof SharedReadSocket && !(to instanceof Socket)) from.readTarget = to;
  from.on('data', (chunk: Buffer) => {
    // A socket that has passed on a long chunk at once returns false, although there is nothing to wait for.
    if (!to.write(chunk) && to.writableLength > 0) from.pause();
  });
  to.on('drain', () => from.resume());
  from.on('end', () => to.end());
  if (from.readableEnded) to.end();
  else from.resume();
}

/** Whether both directions have ended, so that nothing was lost when the socket closed. */
function isEnded(socket: SplicedSocket): boolean {
  return socket.errored === null && socket.readableEnded && socket.writableFinished;
}

/** The buffers of `onreadTo` that are not in use, for all sockets together. */
const free: Uint8Array[] = [];
const MAX_FREE = 16;
/** As much as a segment carries at most, and a `net.Socket` reads at once. */
const CHUNK_BYTES = 65_536;
/** How long a dead peer keeps its connection, besides the probes. */
const KEEP_ALIVE_MS = 60_000;
