/**
 * What commands print on standard output: the convention of `--json`, and lines of text.
 * @module
 */
import type { Command } from 'commander';
import type { Io } from './io.ts';

/** The version of the JSON that commands print. It grows when a field changes its meaning or goes away. */
export const SCHEMA_VERSION = 1;

export interface OutputOptions {
  readonly json?: boolean | undefined;
}

/** Adds `--json` to a command that reads. */
export function withJson(command: Command): Command {
  return command.option('--json', 'print one JSON document, with schemaVersion, for programs');
}

/**
 * Prints the result of a command that reads: with `--json` as one document, `schemaVersion` first; else as text.
 *
 * @param text makes the lines for people
 */
export function printResult(
  io: Pick<Io, 'stdout'>,
  { json }: OutputOptions,
  result: object,
  text: () => readonly string[]
): void {
  if (json === true) {
    const document = { schemaVersion: SCHEMA_VERSION, ...result };
    io.stdout.write(`${JSON.stringify(document, undefined, 2)}\n`);
  } else {
    printLines(io, text());
  }
}

export function printLines({ stdout }: Pick<Io, 'stdout'>, lines: readonly string[]): void {
  for (const line of lines) stdout.write(`${line}\n`);
}
