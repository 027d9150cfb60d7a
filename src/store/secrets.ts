/**
 * What private keys, credentials and tokens are kept in: byte strings under names, changed several at a
 * time, all or none.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';

/** A keeper of secrets. A host with a key management service of its own implements `get` and `commit`. */
export interface Secrets {
  /**
   * Returns the bytes that the last commit has put under the name; undefined if there are none.
   *
   * @throws {ApiMisuseError} if the name is none; `checkSecretName` says what a name is.
   * @throws {EnvironmentError} if they cannot be read.
   */
  get(name: string): Promise<Uint8Array | undefined>;
  /**
   * Puts bytes under names, or removes what is there where the value is undefined. All of the changes
   * happen or none, also when the process or the machine ends meanwhile. When it resolves, they are durable.
   *
   * @throws {ApiMisuseError} if a name or a value is none; nothing has changed then.
   * @throws {EnvironmentError} if the changes cannot be kept. As a rule nothing has changed then, and the
   *   same commit may be repeated.
   */
  commit(changes: SecretChanges): Promise<void>;
  /** Says where a human finds a secret, for messages: a path, or a URL. The name alone if it is absent. */
  locate?(name: string): string;
}

/** Bytes by name; undefined removes. */
export type SecretChanges = Readonly<Record<string, Uint8Array | undefined>>;

/**
 * Checks the name of a secret: 1 to 100 letters, digits, dots, hyphens and underscores, of which the first is
 * a letter or digit. It has no `..` and is none of the names that `FileSecrets` needs: those that end in
 * `.uncommitted`, and `commit-journal`.
 *
 * @throws {ApiMisuseError} if it is another one.
 */
export function checkSecretName(name: string): void {
  if (isSecretName(name)) return;
  throw new ApiMisuseError(
    `the name of a secret must be 1 to 100 letters, digits, dots, hyphens and underscores, begin with a letter or digit, have no ".." and no "${UNCOMMITTED}" at its end, and not be "${JOURNAL}": it is ${JSON.stringify(name)}`
  );
}

/** Whether it is one, as `checkSecretName` says. */
export function isSecretName(name: unknown): boolean {
  return typeof name === 'string' && NAME.test(name) && !FORBIDDEN.test(name);
}

/** Returns the changes in a list, with copies of the bytes. */
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

/** Ends the name of a file that holds what is not in force yet. */
export const UNCOMMITTED = '.uncommitted';
/** The name of the file that says what a commit changes. */
export const JOURNAL = 'commit-journal';
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
const FORBIDDEN = /\.\.|\.uncommitted$|^commit-journal$/;
