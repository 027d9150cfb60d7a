/**
 * Where this library logs to: the shape of [pino](https://getpino.io)'s loggers, so that one of those is one.
 * @module
 */

/** Takes what there is to say, as fields for a program and as a sentence for an operator. */
export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

/** What a line is about, for example `{ site: 'site-a' }`. An error is under `err`. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Says nothing; it is the default everywhere. */
export const silentLogger: Logger = Object.freeze({
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
});
