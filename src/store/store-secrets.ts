/**
 * `StoreSecrets` keeps secrets in a store that several machines share, so that they have one CA. Each secret is the entry
 * `ca/<name>` with the content of an encrypted file (`secret-cipher.ts`) in base64. The store and its backups are read by
 * more people than the disk of one machine, so a passphrase is compulsory.
 * @module
 */
import { checkMethods, checkObject } from '../base/option-check.ts';
import {
  ApiMisuseError,
  ConfigError,
  ConflictError,
  EnvironmentError,
  StoreConflictError,
} from '../errors.ts';
import { HEADER_BYTES, isEncrypted, SecretCipher } from './secret-cipher.ts';
import { checkedChanges, checkSecretName, type SecretChanges, type Secrets } from './secrets.ts';
import type { Store, Write } from './store.ts';

export interface StoreSecretsOptions {
  /** Encrypts the secrets; 1 to 1,023 bytes. It is the same on all machines. */
  readonly passphrase: string;
}

/** Secrets in the entries of a store, which stays open when they are no longer used. */
export class StoreSecrets implements Secrets {
  readonly #store: Store;
  readonly #cipher: SecretCipher;
  /** The versions of the entries that were read and not written since; 0 if there was none. */
  readonly #versions = new Map<string, number>();
  /** Settles when no operation is in progress. */
  #idle: Promise<unknown> = Promise.resolve();

  private constructor(store: Store, cipher: SecretCipher) {
    this.#store = store;
    this.#cipher = cipher;
  }

  /**
   * Opens the secrets of a store, and checks the passphrase against those that are there.
   *
   * @throws {ConfigError} if there is no passphrase.
   * @throws {PassphraseError} if secrets there are encrypted with another passphrase.
   * @throws {EnvironmentError} if an entry is not an encrypted secret.
   * @throws {StoreError} if the store cannot be read.
   * @throws {ApiMisuseError} if the store lacks a method, or the passphrase has more than 1,023 bytes.
   */
  static async open(store: Store, options: StoreSecretsOptions): Promise<StoreSecrets> {
    checkMethods('store', store, ['get', 'list', 'commit', 'watch']);
    const { passphrase } = checkObject('the options of StoreSecrets', options);
    if (passphrase === undefined || passphrase === '') {
      throw new ConfigError(
        'passphrase',
        'the key of the CA is kept in a store that several machines share, so a passphrase must encrypt it: give one, the same on all machines'
      );
    }
    const cipher = new SecretCipher(passphrase);
    for (const { key, value } of await store.list(PREFIX)) {
      const where = locationOf(key.slice(PREFIX.length));
      await cipher.checkPassphrase(encryptedFrom(value, where), where);
    }
    return new StoreSecrets(store, cipher);
  }

  /** Returns the words that name the entry of a secret. */
  locate(name: string): string {
    checkSecretName(name);
    return locationOf(name);
  }

  /**
   * Reads a secret, after the commits that were called before.
   *
   * @throws {ApiMisuseError} if the name is invalid.
   * @throws {PassphraseError} if it is encrypted with another passphrase.
   * @throws {EnvironmentError} if the entry is damaged, or is that of another secret.
   * @throws {StoreError} if the store cannot be read.
   */
  async get(name: string): Promise<Uint8Array | undefined> {
    checkSecretName(name);
    return this.#exclusively(async () => {
      const entry = await this.#store.get(PREFIX + name);
      const where = locationOf(name);
      const secret =
        entry && (await this.#cipher.decrypt(name, encryptedFrom(entry.value, where), where));
      this.#versions.set(name, entry?.version ?? 0);
      return secret;
    });
  }

  /**
   * Changes secrets, see `Secrets.commit`. Each one that this object has read before must be as it was then.
   *
   * @throws {ApiMisuseError} if a name or a value is invalid, or there are more changes than the store takes at once.
   * @throws {ConflictError} if another process has changed one of the secrets since it was read; then nothing has changed.
   * @throws {StoreError} if the store cannot be written; then nothing has changed.
   */
  async commit(changes: SecretChanges): Promise<void> {
    const list = checkedChanges(changes);
    const { maxWrites = Number.POSITIVE_INFINITY } = this.#store;
    if (list.length > maxWrites) {
      throw new ApiMisuseError(
        `the store takes at most ${maxWrites} secrets at once, and these are ${list.length}`
      );
    }
    if (list.length > 0) await this.#exclusively(() => this.#write(list));
  }

  /** Calls `listener` with the names of secrets that a commit has changed; see `Secrets.watch`. */
  watch(listener: (names: readonly string[]) => void): () => void {
    return this.#store.watch(PREFIX, (changes) => {
      listener(changes.map(({ key }) => key.slice(PREFIX.length)));
    });
  }

  async #write(list: readonly [string, Uint8Array | undefined][]): Promise<void> {
    const writes: Write[] = [];
    for (const [name, bytes] of list) {
      const file = bytes && (await this.#cipher.encrypt(name, bytes));
      const value = file && Buffer.from(file).toString('base64');
      const expect = this.#versions.get(name);
      writes.push({ key: PREFIX + name, value, ...(expect !== undefined && { expect }) });
    }
    try {
      await this.#store.commit(writes);
    } catch (error) {
      if (!(error instanceof StoreConflictError)) throw error;
      const names = list.map(([name]) => name).join(', ');
      throw new ConflictError(
        `another machine has changed ${names} in the store since they were read: look at them, and try again`,
        '',
        { cause: error }
      );
    }
    for (const [name] of list) this.#versions.delete(name);
  }

  #exclusively<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#idle.then(run);
    this.#idle = result.catch(() => {});
    return result;
  }
}

function locationOf(name: string): string {
  return `${PREFIX}${name} in the store`;
}

/** @throws {EnvironmentError} if the value is not an encrypted secret. */
function encryptedFrom(value: unknown, where: string): Uint8Array {
  const file = typeof value === 'string' ? Buffer.from(value, 'base64') : Buffer.alloc(0);
  if (isEncrypted(file) && file.length >= HEADER_BYTES) return file;
  throw new EnvironmentError(
    `${where} is not an encrypted secret: another program has written it, or it is damaged; remove it or restore it from a backup`
  );
}

const PREFIX = 'ca/';
