/**
 * Changes of one record of the desired state: its keys as options, a file with a whole record, and a write on the
 * condition that nobody else has changed it meanwhile.
 * @module
 */
import type { Command } from 'commander';
import { stringify } from 'yaml';
import type { Schema } from '../base/schema.ts';
import { parseList } from './arguments.ts';
import { ConfigFile } from './config-file.ts';
import { isProblem } from './connection.ts';
import { CommandError, ExitCode, usageError } from './exit.ts';
import { readInput } from './input.ts';
import type { Io } from './io.ts';
import { printLines } from './output.ts';

/** A record as it is on the wire. */
export type Fields = Readonly<Record<string, unknown>>;

/** A key of a record that an option sets. Commander makes the key of the option: `maxClients` of `--max-clients`. */
export interface RecordKey {
  readonly option: string;
  readonly description: string;
  /** Default: the text itself. `false` takes the key out. */
  readonly parse?: (text: string) => unknown;
  /** An option that adds entries to the list; it is `--add-` and the name of the key. Default: there is none. */
  readonly add?: { readonly option: string; readonly description: string } | undefined;
}

/** What the options of a command say about a record. */
export interface RecordOptions {
  readonly file?: string | undefined;
  readonly unset?: readonly string[] | undefined;
}

/** Adds an option for each key, `--unset` and `--file`. */
export function withRecordOptions(command: Command, keys: readonly RecordKey[]): Command {
  for (const { option, description, parse = String, add } of keys) {
    command.option(option, description, (text: string) => parse(text));
    if (add !== undefined) command.option(add.option, add.description, parseList);
  }
  return command
    .option('--unset <keys>', 'keys to take out, by the names of their options', parseList)
    .option('--file <file>', 'the whole record, in YAML or JSON; - is standard input');
}

/**
 * Returns the record that the options make of the one before.
 *
 * @param before undefined if there is none; the record of `--file` stands in its place
 * @throws {CommandError} if `--unset` names something that is no key, or that another option sets.
 * @throws {ConfigError} with file, line and key, if the record of `--file` is wrong.
 */
export async function editedRecord(
  io: Io,
  before: Fields | undefined,
  options: RecordOptions & Fields,
  keys: readonly RecordKey[],
  schema: Schema<object>
): Promise<Fields> {
  const { file, unset = [] } = options;
  const { owner: _, ...base } =
    file === undefined ? (before ?? {}) : await fromFile(io, file, schema);
  const record: Record<string, unknown> = { ...base };
  const names = new Map(
    keys.map(({ option }) => nameOf(option)).map((name) => [name, keyOf(name)])
  );
  for (const name of unset) {
    const key = names.get(name);
    if (key === undefined) {
      throw usageError(
        `--unset: "${name.slice(0, 60)}" is no key; the keys are ${[...names.keys()].join(', ')}`
      );
    }
    if (options[key] !== undefined)
      throw usageError(`--unset ${name} and --${name} exclude each other`);
    delete record[key];
  }
  for (const key of names.values()) {
    if (options[key] === false) delete record[key];
    else if (options[key] !== undefined) record[key] = options[key];
  }
  for (const { option, add } of keys) {
    if (add === undefined) continue;
    const added = options[keyOf(nameOf(add.option))] as readonly string[] | undefined;
    const key = keyOf(nameOf(option));
    if (added !== undefined) record[key] = withEntries(record[key], added);
  }
  return record;
}

/** Returns a list with entries that it may have already. What is no list is left to the schema of the record. */
function withEntries(list: unknown = [], added: readonly string[]): unknown {
  return Array.isArray(list) ? [...new Set([...list, ...added])] : list;
}

async function fromFile(io: Io, path: string, schema: Schema<object>): Promise<Fields> {
  const file = await fileOf(io, path);
  // The text is sent as it is, so that the gateway fills in its own defaults.
  return file.plain(schema) as Fields;
}

/** Returns the YAML or JSON file at a path; `-` is standard input. @throws {ConfigError} if it is none. */
export async function fileOf(io: Io, path: string): Promise<ConfigFile> {
  return path === '-'
    ? new ConfigFile('standard input', await readInput(io))
    : new ConfigFile(path);
}

/** How a record is read and written. */
export interface RecordAccess {
  /** For people, such as `the site "site-a"`. */
  readonly what: string;
  readonly read: () => Promise<
    { readonly result: object; readonly version: string | undefined } | undefined
  >;
  readonly write: (
    record: Fields,
    expect: string
  ) => Promise<{ readonly version: string | undefined }>;
}

/**
 * Reads a record, writes what `edit` makes of it, and says what has become of it. Nothing is written if `edit` returns
 * undefined.
 *
 * @throws {CommandError} if somebody else has changed it meanwhile.
 */
export async function changeRecord(
  io: Io,
  { what, read, write }: RecordAccess,
  edit: (before: Fields | undefined) => Promise<Fields | undefined>
): Promise<void> {
  const before = await read();
  const record = await edit(before?.result as Fields | undefined);
  if (record === undefined) return;
  try {
    const { version } = await write(record, before?.version ?? 'absent');
    const isSame = version === before?.version;
    const done = before === undefined ? 'is added' : isSame ? 'is so already' : 'is changed';
    printLines(io, [`${what} ${done}`]);
  } catch (error) {
    if (!isProblem((error as Error).cause, 'ERR_PRESENCE_VERSION_MISMATCH')) throw error;
    const message = `somebody else has changed ${what} at the same time: repeat the command`;
    throw new CommandError(ExitCode.Refused, message, { cause: error });
  }
}

/** Returns the lines of a record in YAML, which `--file` takes. */
export function recordLines({ owner, ...record }: Fields): string[] {
  return [`# kept by: ${owner}`, stringify(record).trimEnd()];
}

/** Returns `max-clients` of `--max-clients <number>`. */
function nameOf(option: string): string {
  return /^--([a-z-]+)/.exec(option)![1]!;
}

function keyOf(name: string): string {
  return name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
