/**
 * Tells systemd what a gateway does ([sd_notify(3)](https://www.freedesktop.org/software/systemd/man/sd_notify.html)),
 * and that its event loop turns, for `WatchdogSec=`. A unit needs `Type=notify` and `NotifyAccess=all`. Without
 * NOTIFY_SOCKET in the environment, nothing is told.
 *
 * Node has no datagram sockets of the family AF_UNIX, so the program `systemd-notify` sends. A shell starts it, because the
 * start of a program from a gateway of 600 MiB takes 36 ms, in which no packet passes. The shell was started while the
 * gateway was small.
 * @module
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
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
  /** Tells nothing more. Called once, after the last message. */
  close(): void;
}

/** @param io its environment may have NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID */
export function openNotify({ env }: Pick<Io, 'env'>, logger: Logger): Notify {
  const { NOTIFY_SOCKET, PATH } = env;
  if (NOTIFY_SOCKET === undefined || NOTIFY_SOCKET === '') return NOBODY;
  const sender = new Sender({ NOTIFY_SOCKET, PATH });
  let work: Promise<void> = Promise.resolve();
  let hasFailed = false;
  let isClosed = false;
  const send = (...assignments: readonly string[]): Promise<void> => {
    work = work.then(async () => {
      if (isClosed) return;
      const fault = await sender.send(assignments);
      // A program that is missing fails each time.
      if (fault !== undefined && !hasFailed) {
        const message = `NOTIFY_SOCKET is set, but systemd-notify fails, so that systemd knows nothing of this gateway: ${fault}`;
        logger.warn({ event: 'notify_failed' }, message);
      }
      hasFailed = fault !== undefined;
    });
    return work;
  };
  const stopWatchdog = watch(env, () => send('WATCHDOG=1'));
  return {
    ready: (status) => send('READY=1', `STATUS=${status}`),
    reloading: () => send('RELOADING=1', `MONOTONIC_USEC=${monotonicUs()}`, 'STATUS=reloading'),
    stopping: () => send('STOPPING=1', 'STATUS=stopping'),
    status: (status) => send(`STATUS=${status}`),
    close: () => {
      isClosed = true;
      stopWatchdog();
      sender.close();
    },
  };
}

/**
 * Calls `tell` twice in the time in which systemd expects it once, as long as the event loop turns. A call that has not
 * resolved is not repeated. Returns what ends this.
 */
function watch({ WATCHDOG_USEC, WATCHDOG_PID }: Io['env'], tell: () => Promise<void>): () => void {
  const limitMs = Number(WATCHDOG_USEC ?? 0) / 1000;
  const isOurs = WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === process.pid;
  if (!(limitMs > 0) || !isOurs) return () => {};
  let isTelling = false;
  const timer = setInterval(() => {
    if (isTelling) return;
    isTelling = true;
    void tell().finally(() => {
      isTelling = false;
    });
  }, limitMs / 2);
  timer.unref();
  return () => clearInterval(timer);
}

/** The shell that sends. A shell that ends, or does not answer, is replaced by another one. */
class Sender {
  readonly #env: NodeJS.ProcessEnv;
  #shell: Shell;

  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env;
    this.#shell = new Shell(env);
  }

  /** Sends one message. Returns why systemd does not have it; undefined if it has. Called once at a time. */
  async send(assignments: readonly string[]): Promise<string | undefined> {
    const line = assignments.map(oneLine).join(SEPARATOR);
    const fault = await this.#shell.send(line);
    if (!this.#shell.hasEnded) return fault;
    // A message that is sent twice has the same effect as one that is sent once.
    this.#shell = new Shell(this.#env);
    return this.#shell.send(line);
  }

  close(): void {
    this.#shell.close();
  }
}

class Shell {
  hasEnded = false;
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  /** What `systemd-notify` has said of the present message. */
  #said: string[] = [];
  #answer: (fault: string | undefined) => void = () => {};

  constructor(env: NodeJS.ProcessEnv) {
    const child = spawn('/bin/sh', ['-c', SCRIPT], { env, stdio: ['pipe', 'pipe', 'ignore'] });
    this.#process = child;
    createInterface({ input: child.stdout }).on('line', (line) => this.#onLine(line));
    const onEnd = (how: string): void => {
      this.hasEnded = true;
      this.#answer(how);
    };
    child.once('error', ({ message }) => onEnd(message));
    child.once('exit', (code, signal) => onEnd(`the shell has ended (${signal ?? code})`));
    // The event `exit` follows.
    child.stdin.on('error', () => {});
    // The shell does not keep the process of a gateway that has ended.
    child.unref();
  }

  send(line: string): Promise<string | undefined> {
    if (this.hasEnded) return Promise.resolve('the shell has ended');
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#process.kill('SIGKILL');
        this.#answer(`no answer for ${TIMEOUT_MS} ms`);
      }, TIMEOUT_MS);
      this.#said = [];
      this.#answer = (fault) => {
        clearTimeout(timer);
        resolve(fault);
      };
      this.#process.stdin.write(`${line}\n`);
    });
  }

  /** The shell ends when it has read all. */
  close(): void {
    this.#process.stdin.end();
  }

  #onLine(line: string): void {
    if (!line.startsWith(SEPARATOR)) this.#said.push(line);
    else if (line === `${SEPARATOR}0`) this.#answer(undefined);
    else this.#answer(this.#said.join(' ').trim() || `it ends with ${line.slice(1)}`);
  }
}

/** The time of CLOCK_MONOTONIC, which systemd compares with its own, in microseconds. */
function monotonicUs(): bigint {
  return process.hrtime.bigint() / 1000n;
}

function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they would end the line, or the assignment.
  return text.replace(/[\u0000-\u001f]+/g, ' ');
}

/** Where nobody listens. */
const NOBODY: Notify = {
  ready: async () => {},
  reloading: async () => {},
  stopping: async () => {},
  status: async () => {},
  close: () => {},
};
const TIMEOUT_MS = 5_000;
/** The ASCII unit separator: between the assignments of a message, and before the exit status. */
const SEPARATOR = '\u001f';
/**
 * Sends each line as a message, and answers with what `systemd-notify` says and its exit status. It ends with its standard
 * input, also when the gateway was killed. systemd sends SIGTERM to each process of a unit: STOPPING comes after it.
 */
const SCRIPT = `
trap '' TERM INT HUP
set -f
separator=$(printf '\\037')
IFS=$separator
while read -r message; do
  systemd-notify $message 2>&1 </dev/null
  printf '%s%s\\n' "$separator" "$?"
done`;
