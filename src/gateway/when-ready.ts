/**
 * The waits of gateways that a signal ends: the method `ready`, and the wait for a step of the start.
 * @module
 */
import { checkObject, checkSignal } from '../base/option-check.ts';
import { ApiMisuseError } from '../errors.ts';

/** The part of a gateway that `whenReady` needs. */
interface HasState {
  on(event: 'state', listener: () => void): unknown;
  off(event: 'state', listener: () => void): unknown;
}

export interface ReadyOptions {
  /** Ends the wait: `ready` then rejects with the signal's reason. Default: it waits without limit. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Resolves when a gateway is ready.
 *
 * @param look returns the present state: ready, not yet, or the error with which to reject
 * @throws the error that `look` returns.
 * @throws the reason of `signal`, if that is aborted first.
 * @throws {ApiMisuseError} if the options are not usable.
 */
export async function whenReady(
  gateway: HasState,
  options: ReadyOptions,
  look: () => 'ready' | 'not yet' | Error
): Promise<void> {
  const signal = checkSignal(checkObject('the options of ready', options).signal);
  await new Promise<void>((resolve, reject) => {
    const settle = (): void => {
      const found = look();
      if (signal?.aborted) reject(signal.reason);
      else if (found === 'ready') resolve();
      else if (found !== 'not yet') reject(found);
      else return;
      signal?.removeEventListener('abort', settle);
      gateway.off('state', settle);
    };
    signal?.addEventListener('abort', settle);
    gateway.on('state', settle);
    settle();
  });
}

/** Settles like the promise, or rejects with the signal's reason if that is aborted first. */
export function resultOrAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    signal.addEventListener('abort', abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
    if (signal.aborted) abort();
  });
}

export function closedError(): ApiMisuseError {
  return new ApiMisuseError('the gateway is closed');
}
