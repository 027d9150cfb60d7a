/**
 * Runs a gateway until a signal or a fault ends it.
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../observe/index.ts';
import type { Io, Signal } from './io.ts';
import { type Notify, openNotify } from './notify.ts';

/** Returns the log line of a ready gateway. It ends with its addresses as JSON, for programs that start it. */
export function readyLine(gateway: string, addresses: object): string {
  return `${gateway} ready, listening on ${JSON.stringify(addresses)}`;
}

/** A gateway that runs. */
export interface Running {
  /** Closes the gateway; called once. */
  close(): Promise<void>;
  /** Called on SIGHUP, one call after the other. */
  reload(): Promise<unknown>;
  /** What it does now, for a service manager. */
  status(): string;
  /** Rejects when the gateway cannot go on. */
  readonly failed?: Promise<never>;
}

/**
 * Runs a gateway until SIGTERM or SIGINT, also during the start. SIGHUP reloads it. systemd is told of each.
 *
 * @throws what `start` throws, and why the gateway could not go on.
 */
export async function runGateway(
  io: Pick<Io, 'env' | 'signals'>,
  logger: Logger,
  start: (notify: Notify) => Promise<Running>
): Promise<void> {
  const { signals } = io;
  const notify = openNotify(io, logger);
  const listeners: [Signal, () => void][] = [];
  const on = (signal: Signal, listener: () => void): void => {
    signals.on(signal, listener);
    listeners.push([signal, listener]);
  };
  const signalled = new Promise<Signal>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) on(signal, () => resolve(signal));
  });
  const starting = start(notify);
  let reloading: Promise<void> = starting.then((running) => notify.ready(running.status()));
  reloading.catch(ignore);
  on('SIGHUP', () => {
    reloading = reloading.then(async () => {
      const running = await starting;
      await notify.reloading();
      await reload(running, logger);
      await notify.ready(running.status());
    });
    reloading.catch(ignore);
  });
  try {
    const failed = starting.then((running) => running.failed ?? new Promise<never>(() => {}));
    const signal = await Promise.race([signalled, failed]);
    logger.info({ event: 'gateway_stopping', signal }, `${signal}: shutting down`);
    await Promise.all([notify.stopping(), end(starting)]);
  } catch (error) {
    const [sentence] = (error as Error).message.split('\n');
    await Promise.all([notify.status(sentence!), end(starting)]).catch(ignore);
    throw error;
  } finally {
    for (const [signal, listener] of listeners) signals.off(signal, listener);
    notify.close();
  }
}

async function reload(running: Running, logger: Logger): Promise<void> {
  try {
    await running.reload();
    logger.info({ event: 'reloaded' }, 'reloaded');
  } catch (error) {
    const message = `not reloaded: ${(error as Error).message}`;
    logger.error({ event: 'reload_failed', err: error }, message);
  }
}

/** Closes a gateway. A start or an end that hangs must not keep the process; the kernel then frees its resources. */
async function end(starting: Promise<Running>): Promise<void> {
  const timer = new AbortController();
  const closed = starting.then((running) => running.close(), ignore);
  const late = delay(CLOSE_TIMEOUT_MS, undefined, { signal: timer.signal }).catch(ignore);
  try {
    await Promise.race([closed, late]);
  } finally {
    timer.abort();
  }
}

function ignore(): void {}

const CLOSE_TIMEOUT_MS = 5_000;
