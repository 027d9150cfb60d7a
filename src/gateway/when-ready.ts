/**
 * The promise of `ready`, which both gateways have.
 * @module
 */

import { checkObject, checkSignal } from '../base/option-check.ts';
import { ApiMisuseError } from '../errors.ts';

/** Both gateways, as far as it matters here. */
interface HasState {
  on(event: 'state', listener: () => void): unknown;
  off(event: 'state', listener: () => void): unknown;
}

export interface ReadyOptions {
  /** Ends the wait; `ready` rejects with its reason then. Default: it waits without an end. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Resolves when a gateway is ready.
 *
 * @param look says how it is now: whether it is ready, is to be waited for, or will not be
 * @throws what `look` returns if that is an error.
 * @throws the reason of `signal`, if that is aborted before.
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

export function closedError(): ApiMisuseError {
  return new ApiMisuseError('the gateway is closed');
}
