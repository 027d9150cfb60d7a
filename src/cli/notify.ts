/**
 * Tells systemd what a gateway does ([sd_notify(3)](https://www.freedesktop.org/software/systemd/man/sd_notify.html)),
 * by the program `systemd-notify`, because Node has no datagram sockets of the family AF_UNIX. A unit needs `Type=notify`
 * and `NotifyAccess=all`. Without NOTIFY_SOCKET in the environment, nothing is told.
 * @module
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Logger } from '../observe/index.ts';
import type { Io } from './io.ts';

/** Each call resolves when systemd has the message, and never rejects. Messages keep the order of the calls. */
export interface Notify {
  /** The gateway serves. */
  ready(status: string): Promise<void>;
  /** The gateway reads its file again; `ready` follows. */
  reloading(): Promise<void>;
  /** The gateway ends. */
  stopping(): Promise<void>;
  /** What `systemctl status` shows, one line. */
  status(status: string): Promise<void>;
}

/** @param io its environment may have NOTIFY_SOCKET */
export function openNotify({ env }: Pick<Io, 'env'>, logger: Logger): Notify {
  const { NOTIFY_SOCKET, PATH } = env;
  let work: Promise<void> = Promise.resolve();
  let hasFailed = false;
  const send = (...assignments: readonly string[]): Promise<void> => {
    if (NOTIFY_SOCKET === undefined || NOTIFY_SOCKET === '') return work;
    work = work.then(async () => {
      if (hasFailed) return;
      try {
        const options = { env: { NOTIFY_SOCKET, PATH }, timeout: TIMEOUT_MS };
        await promisify(execFile)('systemd-notify', [...assignments], options);
      } catch (error) {
        hasFailed = true;
        const reason = (error as Error).message.trim();
        const message = `NOTIFY_SOCKET is set, but systemd-notify fails, so that systemd knows nothing of this gateway: ${reason}`;
        logger.warn({ event: 'notify.failed', err: error }, message);
      }
    });
    return work;
  };
  return {
    ready: (status) => send('READY=1', `STATUS=${status}`),
    reloading: () => send('RELOADING=1', `MONOTONIC_USEC=${monotonicUs()}`, 'STATUS=reloading'),
    stopping: () => send('STOPPING=1', 'STATUS=stopping'),
    status: (status) => send(`STATUS=${status}`),
  };
}

/** The time of CLOCK_MONOTONIC, which systemd compares with its own, in microseconds. */
function monotonicUs(): bigint {
  return process.hrtime.bigint() / 1000n;
}

const TIMEOUT_MS = 5_000;
