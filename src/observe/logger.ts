/**
 * The logger interface of this library, which loggers of [pino](https://getpino.io) implement.
 * @module
 */

/** Receives each log line as fields for a program and a sentence for an operator. */
export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

/** The fields of a log line, for example `{ site: 'site-a' }`. An error is the field `err`. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Discards every line; the default of every option `logger`. */
export const silentLogger: Logger = Object.freeze({
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
});
