/**
 * What a command has of its process: streams, environment and signals. A test passes its own.
 * @module
 */
import type { Readable, Writable } from 'node:stream';

/** The signals that a gateway acts on. */
export type Signal = 'SIGHUP' | 'SIGINT' | 'SIGTERM';

/** The surroundings of a command. */
export interface Io {
  readonly stdin: Readable;
  /** Receives results alone, so that they can go into a pipe. */
  readonly stdout: Writable;
  /** Receives log lines, hints and errors. */
  readonly stderr: Writable;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signals: SignalSource;
}

/** Where signals come from; `process` is one. */
export interface SignalSource {
  on(signal: Signal, listener: () => void): unknown;
  off(signal: Signal, listener: () => void): unknown;
}

/** Returns the surroundings of this process. */
export function ioOfProcess(): Io {
  const { stdin, stdout, stderr, env } = process;
  return { stdin, stdout, stderr, env, signals: process };
}
