/**
 * Reads a gateway's YAML file. Every fault is one sentence: file and line, key, what was expected.
 * @module
 */
import { dirname, resolve } from 'node:path';
import * as v from 'valibot';
import { ConfigError } from 'virtual-presence/errors';
import { parseSchema } from 'virtual-presence/gateway';
import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import { readText } from './files.ts';

/** For a key that the library has and a file has not. */
export const notInFiles: v.OptionalSchema<v.GenericSchema, undefined> = v.optional(
  v.pipe(
    v.unknown(),
    v.check(() => false, 'is not a known key')
  )
);

/** A file as it was read: its values, and the way from a fault back to its line. */
export class ConfigFile {
  readonly path: string;
  readonly #document: ReturnType<typeof parseDocument>;
  readonly #values: unknown;
  readonly #lines = new LineCounter();

  /**
   * @throws {EnvironmentError} if the file cannot be read.
   * @throws {ConfigError} if it is not a YAML mapping.
   */
  constructor(path: string) {
    this.path = path;
    const text = readText('the configuration', path);
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

  /** Returns the file's values as the schema's type. @throws {ConfigError} if they are not. */
  read<T>(schema: v.GenericSchema<unknown, T>): T {
    try {
      return parseSchema(schema, this.#values);
    } catch (error) {
      const { path, message } = error as ConfigError;
      throw new ConfigError(this.#lineOf(path), message);
    }
  }

  /**
   * Runs `use`, putting file and line in front of the configuration errors that it throws.
   *
   * @param within the key that `use` is about: errors name their place from there
   * @param renamed what the file calls the places that an error names
   */
  async locate<T>(
    use: () => T | Promise<T>,
    { within = '', renamed = {} }: Locating = {}
  ): Promise<T> {
    try {
      return await use();
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      const { path } = error;
      const reason = path === '' ? error.message : error.message.slice(`${path}: `.length);
      const place = [within, renamed[path] ?? path].filter((part) => part !== '').join('.');
      throw new ConfigError(this.#lineOf(place), place === '' ? reason : `${place}: ${reason}`);
    }
  }

  /** A path in the file is relative to the file. */
  resolve(path: string): string {
    return resolve(dirname(this.path), path);
  }

  /** The same for a mapping that may have a path. */
  withPath<T extends { readonly path?: string | undefined }>(mapping: T): T {
    const { path } = mapping;
    return path === undefined ? mapping : { ...mapping, path: this.resolve(path) };
  }

  /** The key itself may be what is missing: then the line of what it is missing from is told. */
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

interface Locating {
  readonly within?: string;
  readonly renamed?: Readonly<Record<string, string>>;
}
