/**
 * Reports that a file descriptor is readable, for descriptors that Node's own streams refuse. There are two
 * ways: libuv's poll handle on the event loop, or `poll` on another thread.
 *
 * The poll handle needs no change of thread, but Node opens no callback scope around its callback. Therefore a
 * write during the callback, to a connection that the peer has reset, emits `error` and `close` before the write
 * returns. Up to Node 25 each turn of the event loop ends with a scope, so that promises and ticks of a wake-up run
 * before the next turn (measured on Node 20, 22 and 24: about 25 µs after the callback). Node 26.10 ends a turn
 * with a scope only if an immediate is due, so each wake-up adds one there. Timers run as always.
 * @module
 */
import { isMainThread } from 'node:worker_threads';
import { EnvironmentError } from '../errors.ts';
import type { Syscalls } from './syscalls.ts';

/**
 * `auto` means `libuv` on the main thread if koffi offers it, else `thread-pool`, which occupies one
 * thread of the process's pool (UV_THREADPOOL_SIZE, 4 by default) for each device.
 */
export type WakeupKind = (typeof WAKEUP_KINDS)[number];
export const WAKEUP_KINDS = ['libuv', 'thread-pool', 'auto'] as const;

/** Calls `onReadable` once in each turn of the event loop while it is on and the descriptor is readable. */
export interface Wakeup {
  readonly kind: Exclude<WakeupKind, 'auto'>;
  /** Starts the calls; the process stays alive while it is on. May be called at any time before `close`. */
  on(): void;
  /** Stops the calls. May be called at any time before `close`. */
  off(): void;
  /** Resolves when the descriptor is no longer used. Called once. */
  close(): Promise<void>;
}

export interface WakeupHandler {
  onReadable(): void;
  /** Called once if the descriptor cannot become readable again. */
  onBroken(): void;
}

/** @throws {EnvironmentError} if the kind is `libuv` and it cannot be used here. */
export function createWakeup(
  kind: WakeupKind,
  fd: number,
  syscalls: Syscalls,
  handler: WakeupHandler
): Wakeup {
  const guarded: WakeupHandler = {
    onReadable: () => guard(handler.onReadable),
    onBroken: () => guard(handler.onBroken),
  };
  const obstacle = libuvObstacle(syscalls);
  if (kind === 'libuv' && obstacle !== undefined) {
    throw new EnvironmentError(`${obstacle}; use the wake-up "thread-pool"`);
  }
  return kind === 'thread-pool' || obstacle !== undefined
    ? new ThreadPoolWakeup(fd, syscalls, guarded)
    : new LibuvWakeup(fd, syscalls, guarded);
}

/** Returns why `LibuvWakeup` cannot be used, or undefined if it can. */
function libuvObstacle({ koffi }: Syscalls): string | undefined {
  if (typeof koffi.node?.poll !== 'function') return `koffi ${koffi.version} has no poll handles`;
  // Terminating a worker while koffi's handle is active ends the whole process.
  return isMainThread ? undefined : 'poll handles are safe on the main thread only';
}

/** Turns an error of `callback` into an uncaught exception; the native code would swallow it. */
function guard(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** The callback of koffi's poll handle. It gets libuv's status, which the type declarations leave out. */
type PollCallback = (status: unknown) => void;

/** Uses `uv_poll_*` on this thread. koffi frees the native memory when libuv has closed the handle. */
class LibuvWakeup implements Wakeup {
  readonly kind = 'libuv';
  readonly #handle: ReturnType<Syscalls['koffi']['node']['poll']>;
  readonly #onPoll: PollCallback;

  constructor(fd: number, { koffi }: Syscalls, handler: WakeupHandler) {
    this.#onPoll = (status) => {
      // After an error status libuv has stopped the handle itself.
      if (typeof status === 'number' && status < 0) handler.onBroken();
      else handler.onReadable();
      if (!TURN_ENDS_WITH_TICKS) setImmediate(nothing);
    };
    this.#handle = koffi.node.poll(fd, this.#onPoll);
    this.#handle.stop();
  }

  on(): void {
    this.#handle.start(this.#onPoll);
  }

  off(): void {
    this.#handle.stop();
  }

  async close(): Promise<void> {
    this.#handle.close();
  }
}

/** Calls `poll` on a thread of koffi's again and again. */
class ThreadPoolWakeup implements Wakeup {
  readonly kind = 'thread-pool';
  readonly #syscalls: Syscalls;
  readonly #handler: WakeupHandler;
  /** `struct pollfd`: descriptor, events, returned events. */
  readonly #pollfd: Buffer = Buffer.allocUnsafeSlow(8);
  readonly #address: number;
  #isOn = false;
  #isPolling = false;
  #onIdle: (() => void) | undefined;

  constructor(fd: number, syscalls: Syscalls, handler: WakeupHandler) {
    this.#syscalls = syscalls;
    this.#handler = handler;
    this.#address = syscalls.addressOf(this.#pollfd);
    this.#pollfd.writeInt32LE(fd, 0);
    this.#pollfd.writeInt16LE(POLLIN, 4);
  }

  on(): void {
    this.#isOn = true;
    this.#poll();
  }

  off(): void {
    this.#isOn = false;
  }

  close(): Promise<void> {
    this.#isOn = false;
    return new Promise((resolve) => {
      if (this.#isPolling) this.#onIdle = resolve;
      else resolve();
    });
  }

  #poll(): void {
    if (!this.#isOn || this.#isPolling) return;
    this.#isPolling = true;
    this.#syscalls.poll.async(this.#address, 1, POLL_MS, this.#onPolled);
  }

  readonly #onPolled = (_error: unknown, ready: number): void => {
    this.#isPolling = false;
    if (this.#isOn && ready > 0) {
      const events = this.#pollfd.readInt16LE(6);
      if ((events & (POLLERR | POLLNVAL)) !== 0) {
        this.#isOn = false;
        this.#handler.onBroken();
      } else {
        this.#handler.onReadable();
      }
    }
    this.#poll();
    if (!this.#isPolling) this.#onIdle?.();
  };
}

function nothing(): void {}

/**
 * Whether promises and ticks run at the end of each turn of the event loop. Node 26.0 does that too, but not
 * every later 26, so every 26 gets an immediate, which costs 0.4 µs of CPU.
 */
const TURN_ENDS_WITH_TICKS: boolean = Number.parseInt(process.versions.node, 10) < 26;

const POLLIN = 0x001;
const POLLERR = 0x008;
const POLLNVAL = 0x020;

/** A running poll delays the end of the process and `close` by up to this time. */
const POLL_MS = 100;
