/**
 * Reads a gateway's YAML file. Every fault is one sentence: file and line, key, what was expected.
 * @module
 */
import { dirname, resolve } from 'node:path';
import { ConfigError, parseSchema, type Schema } from 'virtual-presence';
import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import { readText } from './files.ts';

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
  read<T>(schema: Schema<T>): T {
    return this.locate(() => parseSchema(schema, this.#values));
  }

  /** Runs `use`, putting file and line in front of the configuration errors it throws. */
  locate<T>(use: () => T): T {
    return mapFaults(use, (error) => new ConfigError(this.#lineOf(error.path), error.message));
  }

  /** A path in the file is relative to the file. */
  resolve(path: string): string {
    return resolve(dirname(this.path), path);
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

/** Runs `use` on what stands under `key`: configuration errors it throws name their place from there. */
export function within<T>(key: string, use: () => T): T {
  return mapFaults(use, ({ path, message }) => {
    const reason = path === '' ? message : message.slice(`${path}: `.length);
    return new ConfigError(path === '' ? key : `${key}.${path}`, reason);
  });
}

function mapFaults<T>(use: () => T, map: (error: ConfigError) => ConfigError): T {
  const rethrow = (error: unknown): never => {
    throw error instanceof ConfigError ? map(error) : error;
  };
  try {
    const result = use();
    return result instanceof Promise ? (result.catch(rethrow) as T) : result;
  } catch (error) {
    return rethrow(error);
  }
}
