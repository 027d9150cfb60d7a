/**
 * Runs a gateway until a signal or a fault ends it.
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../observe/index.ts';
import type { Io, Signal } from './io.ts';

/** Returns the log line of a ready gateway. It ends with its addresses as JSON, for programs that start it. */
export function readyLine(gateway: string, addresses: object): string {
  return `${gateway} ready, listening on ${JSON.stringify(addresses)}`;
}

/** A gateway that runs. */
export interface Running {
  /** Closes the gateway; called once. */
  close(): Promise<void>;
  /** Called on SIGHUP. */
  reload(): Promise<unknown>;
  /** Rejects when the gateway cannot go on. */
  readonly failed?: Promise<never>;
}

/**
 * Runs a gateway until SIGTERM or SIGINT, also during the start. SIGHUP reloads it.
 *
 * @throws what `start` throws, and why the gateway could not go on.
 */
export async function runGateway(
  { signals }: Pick<Io, 'signals'>,
  logger: Logger,
  start: () => Promise<Running>
): Promise<void> {
  const listeners: [Signal, () => void][] = [];
  const on = (signal: Signal, listener: () => void): void => {
    signals.on(signal, listener);
    listeners.push([signal, listener]);
  };
  const signalled = new Promise<Signal>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) on(signal, () => resolve(signal));
  });
  const starting = start();
  const failed = starting.then((running) => running.failed ?? new Promise<never>(() => {}));
  // A start or an end that hangs must not keep the process; the kernel then frees its resources.
  const end = () =>
    Promise.race([
      starting.then((running) => running.close(), ignore),
      delay(CLOSE_TIMEOUT_MS, undefined, { ref: false }),
    ]);
  on('SIGHUP', () => {
    starting
      .then((running) => running.reload())
      .then(() => logger.info({ event: 'gateway.reloaded' }, 'reloaded'))
      .catch((error: Error) =>
        logger.error(
          { event: 'gateway.not-reloaded', err: error },
          `not reloaded: ${error.message}`
        )
      );
  });
  try {
    const signal = await Promise.race([signalled, failed]);
    logger.info({ event: 'gateway.stopping', signal }, `${signal}: shutting down`);
    await end();
  } catch (error) {
    await end().catch(ignore);
    throw error;
  } finally {
    for (const [signal, listener] of listeners) signals.off(signal, listener);
  }
}

function ignore(): void {}

const CLOSE_TIMEOUT_MS = 5_000;
