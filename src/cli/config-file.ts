/**
 * Reads a gateway's YAML file. Every fault is one sentence: file and line, key, what was expected.
 * @module
 */
import { dirname, resolve } from 'node:path';
import type * as v from 'valibot';
import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import { ConfigError, ConflictError } from '../errors.ts';
import { parseSchema } from '../gateway/index.ts';
import { readText } from './files.ts';

/** A configuration file: its values, and the line of each key for the messages of errors. */
export class ConfigFile {
  readonly path: string;
  readonly #document: ReturnType<typeof parseDocument>;
  readonly #values: unknown;
  readonly #lines = new LineCounter();

  /**
   * @param text default: that of the file
   * @throws {ConfigError} if the file cannot be read, or is not a YAML mapping.
   */
  constructor(path: string, text: string = readConfiguration(path)) {
    this.path = path;
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false });
    const [fault] = this.#document.errors;
    if (fault !== undefined) {
      throw new ConfigError(this.#placeOf(fault.pos[0]), `is not YAML: ${fault.message}`);
    }
    if (!isMap(this.#document.contents)) {
      throw new ConfigError(path, 'expected a mapping of keys to values');
    }
    try {
      this.#values = this.#document.toJS();
    } catch (error) {
      // An alias without an anchor, or so many that they would fill the memory.
      throw new ConfigError(path, `is not YAML: ${(error as Error).message}`);
    }
  }

  /** Whether the file has one of these keys. */
  has(keys: readonly string[]): boolean {
    return keys.some((key) => Object.hasOwn(this.#values as object, key));
  }

  /**
   * Reads the file's values by the schema.
   *
   * @throws {ConfigError} with file, line and key, if a value does not fit.
   */
  read<T>(schema: v.GenericSchema<unknown, T>): T {
    try {
      return parseSchema(schema, this.#values);
    } catch (error) {
      const { path, message } = error as ConfigError;
      throw new ConfigError(this.#lineOf(path), message);
    }
  }

  /**
   * Returns the file's values as they are written, once they fit the schema.
   *
   * @throws {ConfigError} as `read`.
   */
  plain(schema: v.GenericSchema<unknown, unknown>): unknown {
    this.read(schema);
    return this.#values;
  }

  /**
   * Runs `use`, and puts file and line in front of its configuration errors. A record of the file that another owner keeps
   * is one of them.
   *
   * @param within the key whose value `use` reads; the paths of errors are relative to it.
   * @param renamed from the path in an error to the key of the file.
   */
  async locate<T>(
    use: () => T | Promise<T>,
    { within = '', renamed = {} }: Locating = {}
  ): Promise<T> {
    try {
      return await use();
    } catch (error) {
      if (!(error instanceof ConfigError || error instanceof ConflictError)) throw error;
      const { path } = error;
      const reason = path === '' ? error.message : error.message.slice(`${path}: `.length);
      const place = [within, renamed[path] ?? path].filter((part) => part !== '').join('.');
      throw new ConfigError(this.#lineOf(place), place === '' ? reason : `${place}: ${reason}`);
    }
  }

  /** Returns the absolute form of a path, which is relative to the file. */
  resolve(path: string): string {
    return resolve(dirname(this.path), path);
  }

  /** Returns the mapping with the absolute form of its `path`, if it has one. */
  withPath<T extends object>(mapping: T): T {
    const { path } = mapping as { readonly path?: string };
    return path === undefined ? mapping : { ...mapping, path: this.resolve(path) };
  }

  /** Returns file and line of a key. If the key is missing, it is the line of the mapping around it. */
  #lineOf(path: string): string {
    let node: unknown = this.#document.contents;
    let place = this.path;
    for (const key of path.split(/[.[\]]+/)) {
      let at: unknown;
      if (isMap(node)) {
        const pair = node.items.find((item) => isScalar(item.key) && item.key.value === key);
        at = pair?.key;
        node = pair?.value;
      } else {
        at = node = isSeq(node) ? node.items[Number(key)] : undefined;
      }
      if (!isNode(at) || at.range == null) break;
      place = this.#placeOf(at.range[0]);
    }
    return place;
  }

  #placeOf(offset: number): string {
    return `${this.path}:${this.#lines.linePos(offset).line}`;
  }
}

function readConfiguration(path: string): string {
  try {
    return readText('the configuration', path);
  } catch (cause) {
    throw new ConfigError('', (cause as Error).message, { cause });
  }
}

interface Locating {
  readonly within?: string;
  readonly renamed?: Readonly<Record<string, string>>;
}
