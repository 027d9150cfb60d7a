/**
 * What both gateways do around their work: arguments, log lines, signals, and the one sentence they
 * end with when they cannot go on.
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Logger, PresenceError } from 'virtual-presence';

/** Writes lines to standard error, each with the time. */
export const logger: Logger = { debug: () => {}, info: write, warn: write, error: write };

function write(_fields: object, message: string): void {
  process.stderr.write(`${new Date().toISOString()} ${message}\n`);
}

/** The line that says that a gateway is ready. It ends with where it listens as JSON, for programs that start it. */
export function readyLine(gateway: string, addresses: object): string {
  return `${gateway} ready, listening on ${JSON.stringify(addresses)}`;
}

export interface Running {
  /** Ends the work; called once. */
  close(): Promise<void>;
  /** Called on SIGHUP. */
  reload?(): Promise<unknown>;
  /** Rejects when the work cannot go on. */
  readonly failed?: Promise<never>;
}

/**
 * Runs a gateway until SIGTERM or SIGINT, also while it starts, and then ends the process: with 0 if
 * it was told to, with 1 and one sentence if it could not go on.
 */
export async function run(name: string, start: (file: string) => Promise<Running>): Promise<void> {
  // What fails with nobody waiting for it, for example a TUN that was deleted under way.
  process.on('uncaughtException', (error) => fail(name, error));
  const [file, ...rest] = process.argv.slice(2);
  if (file === undefined || rest.length > 0) fail(name, new UsageError(`${name} CONFIG.yaml`));

  const told = new Promise<string>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  const starting = start(file);
  const failed = starting.then((running) => running.failed ?? new Promise<never>(() => {}));
  // A start or an end that hangs must not keep the process: the kernel frees what it holds.
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
    logger.info({}, `${await Promise.race([told, failed])}: shutting down`);
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

/** Faults with a code are the user's to mend: a sentence is enough. Others are ours: show the stack. */
function fail(name: string, error: Error): never {
  const text = error instanceof PresenceError ? error.message : error.stack;
  process.stderr.write(`${name}: ${text}\n`);
  process.exit(1);
}

const CLOSE_TIMEOUT_MS = 5_000;
