/**
 * The logger interface of this library, which loggers of [pino](https://getpino.io) implement.
 * @module
 */

import type { LogEvent } from './log-events.ts';

/** Receives each log line as fields for a program and a sentence for an operator. */
export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

/**
 * The fields of a log line, for example `{ event: 'edge_up', site: 'site-a' }`. Each line of this library has an `event`,
 * and where there is one, a `site` and a `code`. An error is the field `err`.
 */
export interface LogFields {
  /** What the line is about, see `LOG_EVENTS`. */
  readonly event?: LogEvent | undefined;
  readonly [name: string]: unknown;
}

/** Discards every line; the default of every option `logger`. */
export const silentLogger: Logger = Object.freeze({
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
});
