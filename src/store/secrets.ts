/**
 * The interface for private keys, credentials and tokens: named byte strings with atomic commits.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';

/** Keeps secrets. A program with its own key management service implements `get` and `commit`. */
export interface Secrets {
  /**
   * Returns the secret with this name; undefined if there is none.
   *
   * @throws {ApiMisuseError} if the name is invalid, see `checkSecretName`.
   * @throws {EnvironmentError} if the secret cannot be read.
   */
  get(name: string): Promise<Uint8Array | undefined>;
  /**
   * Sets secrets, and removes those whose value is undefined. Either all changes happen or none, even if the process
   * or the machine stops in between. When it resolves, they are durable.
   *
   * @throws {ApiMisuseError} if a name or a value is invalid; then nothing has changed.
   * @throws {EnvironmentError} if the changes cannot be stored. Usually nothing has changed then, and the same commit
   *   may be repeated.
   * @throws {ConflictError} if another process has changed one of the secrets since it was read, where several
   *   processes share the secrets; then nothing has changed.
   */
  commit(changes: SecretChanges): Promise<void>;
  /** Returns where an operator finds a secret, for messages: a path or a URL. If absent, messages use the name. */
  locate?(name: string): string;
  /**
   * Calls `listener` with the names of secrets after each commit that changed them, by any process. Returns a function
   * that ends this. If absent, no other process changes the secrets.
   */
  watch?(listener: (names: readonly string[]) => void): () => void;
}

/** Bytes by name; undefined removes. */
export type SecretChanges = Readonly<Record<string, Uint8Array | undefined>>;

/**
 * Checks the name of a secret: 1 to 100 letters, digits, dots, hyphens and underscores, of which the first is a letter
 * or digit. It must not contain `..`, end in `.uncommitted` or be `commit-journal`; `FileSecrets` uses the last two.
 *
 * @throws {ApiMisuseError} if the name is invalid.
 */
export function checkSecretName(name: string): void {
  if (isSecretName(name)) return;
  throw new ApiMisuseError(
    `the name of a secret must be 1 to 100 letters, digits, dots, hyphens and underscores, begin with a letter or digit, have no ".." and no "${UNCOMMITTED}" at its end, and not be "${JOURNAL}": it is ${JSON.stringify(name)}`
  );
}

/** Whether `checkSecretName` accepts the name. */
export function isSecretName(name: unknown): boolean {
  return typeof name === 'string' && NAME.test(name) && !FORBIDDEN.test(name);
}

/** Checks the changes and returns them as a list with copies of the bytes. */
export function checkedChanges(changes: SecretChanges): [string, Uint8Array | undefined][] {
  if (typeof changes !== 'object' || changes === null) {
    throw new ApiMisuseError(`changes of secrets must be an object, not ${String(changes)}`);
  }
  return Object.entries(changes).map(([name, bytes]) => {
    checkSecretName(name);
    if (bytes !== undefined && !(bytes instanceof Uint8Array)) {
      throw new ApiMisuseError(
        `the secret "${name}" must be a Uint8Array or undefined, not of type ${typeof bytes}`
      );
    }
    return [name, bytes && Uint8Array.from(bytes)];
  });
}

/** The suffix of a file with a secret that is not committed yet. */
export const UNCOMMITTED = '.uncommitted';
/** The name of the file that lists the changes of a commit. */
export const JOURNAL = 'commit-journal';
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
const FORBIDDEN = /\.\.|\.uncommitted$|^commit-journal$/;
