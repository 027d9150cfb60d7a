/**
 * Runs a gateway as a program: arguments, log lines, signals, exit codes, and the one sentence at the end when the
 * gateway cannot go on.
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Logger, PresenceError } from 'virtual-presence';

/** Writes lines to standard error, each with the time. */
export const logger: Logger = { debug: () => {}, info: write, warn: write, error: write };

function write(_fields: object, message: string): void {
  process.stderr.write(`${new Date().toISOString()} ${message}\n`);
}

/** Returns the log line of a ready gateway. It ends with its addresses as JSON, for programs that start it. */
export function readyLine(gateway: string, addresses: object): string {
  return `${gateway} ready, listening on ${JSON.stringify(addresses)}`;
}

/** A gateway that runs. */
export interface Running {
  /** Closes the gateway; called once. */
  close(): Promise<void>;
  /** Called on SIGHUP. */
  reload?(): Promise<unknown>;
  /** Rejects when the gateway cannot go on. */
  readonly failed?: Promise<never>;
}

/**
 * Runs a gateway until SIGTERM or SIGINT, also during the start, and then ends the process: with exit code 0
 * after a signal, or with 1 and one sentence if the gateway could not go on.
 */
export async function run(name: string, start: (file: string) => Promise<Running>): Promise<void> {
  // A fault that no promise reports, for example a TUN that was deleted while the gateway runs.
  process.on('uncaughtException', (error) => fail(name, error));
  const [file, ...rest] = process.argv.slice(2);
  if (file === undefined || rest.length > 0) fail(name, new UsageError(`${name} CONFIG.yaml`));

  const signalled = new Promise<string>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  const starting = start(file);
  const failed = starting.then((running) => running.failed ?? new Promise<never>(() => {}));
  // A start or an end that hangs must not keep the process; the kernel then frees its resources.
  const end = () =>
    Promise.race([starting.then((running) => running.close(), ignore), delay(CLOSE_TIMEOUT_MS)]);
  process.on('SIGHUP', () => {
    starting
      .then(async (running) => {
        if (running.reload === undefined) return;
        await running.reload();
        logger.info({}, 'reloaded');
      })
      .catch((error: Error) => logger.error({}, `not reloaded: ${error.message}`));
  });
  try {
    logger.info({}, `${await Promise.race([signalled, failed])}: shutting down`);
    await end();
    process.exit(0);
  } catch (error) {
    await end().catch(ignore);
    fail(name, error as Error);
  }
}

class UsageError extends PresenceError {
  constructor(usage: string) {
    super('ERR_USAGE', `usage: ${usage}`);
  }
}

function ignore(): void {}

/** Prints one sentence for an error that the user can repair, and the stack of any other error. */
function fail(name: string, error: Error): never {
  const text = error instanceof PresenceError ? error.message : error.stack;
  process.stderr.write(`${name}: ${text}\n`);
  process.exit(1);
}

const CLOSE_TIMEOUT_MS = 5_000;
