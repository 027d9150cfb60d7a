/**
 * What an `AbortSignal` does to what it was given to.
 * @module
 */
import type { EventEmitter } from 'node:events';

/** Returns an error as Node's own functions reject with when their signal is aborted. */
export function abortError(signal: AbortSignal): Error {
  const error = new Error('The operation was aborted', { cause: signal.reason });
  return Object.assign(error, { name: 'AbortError', code: 'ABORT_ERR' });
}

/** Calls `close` when the signal is aborted, which it is not yet. After the event `close` the signal is left alone. */
export function closeOnAbort(emitter: EventEmitter, signal: AbortSignal, close: () => void): void {
  signal.addEventListener('abort', close, { once: true });
  emitter.once('close', () => signal.removeEventListener('abort', close));
}
