/**
 * The log lines of a gateway that the command runs: text for people, or one JSON object a line for programs.
 * @module
 */
import { type Command, Option } from 'commander';
import type { LogFields, Logger } from '../observe/index.ts';
import type { Io } from './io.ts';

/** What `--log-format` and `--log-level` say. */
export interface LogOptions {
  readonly logFormat: 'text' | 'json';
  readonly logLevel: LogLevel;
}

type LogLevel = keyof Logger;

/** The lowest first. */
const LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];

/** Adds `--log-format` and `--log-level` to a command. */
export function withLogOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--log-format <format>', 'the form of the log lines on standard error')
        .choices(['text', 'json'])
        .default('text')
    )
    .addOption(
      new Option('--log-level <level>', 'the least level of the lines that are written')
        .choices(LEVELS)
        .default('info')
    );
}

/**
 * Makes a logger that writes to standard error. A line of text has time, level and message. A line of JSON has `time`,
 * `level` and `message` too, and all fields, for example `event`, `site` and `code`.
 */
export function openLogger(io: Pick<Io, 'stderr'>, { logFormat, logLevel }: LogOptions): Logger {
  const format = logFormat === 'json' ? jsonLine : textLine;
  const writerOf = (level: LogLevel) => {
    if (LEVELS.indexOf(level) < LEVELS.indexOf(logLevel)) return () => {};
    return (fields: LogFields, message: string): void => {
      io.stderr.write(`${format(new Date().toISOString(), level, fields, message)}\n`);
    };
  };
  return {
    debug: writerOf('debug'),
    info: writerOf('info'),
    warn: writerOf('warn'),
    error: writerOf('error'),
  };
}

function textLine(time: string, level: LogLevel, _: LogFields, message: string): string {
  // A peer has written a part of some messages, and must not begin a line of its own.
  const safe = message.replace(/\p{Cc}/gu, (character) => JSON.stringify(character).slice(1, -1));
  return `${time} ${level} ${safe}`;
}

function jsonLine(time: string, level: LogLevel, fields: LogFields, message: string): string {
  const { event } = fields;
  const line = { time, level, ...(event !== undefined && { event }), message };
  try {
    // The fields must not replace what every line has.
    return JSON.stringify({ ...line, ...fields, ...line }, plainValue);
  } catch {
    // A field refers to itself.
    return JSON.stringify(line);
  }
}

/** JSON has no errors and no big integers. */
function plainValue(_: string, value: unknown): unknown {
  if (typeof value === 'bigint') return String(value);
  if (!(value instanceof Error)) return value;
  const { name, message, code } = value as NodeJS.ErrnoException;
  return { name, ...(code !== undefined && { code }), message };
}
