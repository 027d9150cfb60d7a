/**
 * `FileSecrets`: secrets as files of a directory that only its owner may use. An operator may put files
 * there, for example a key and a certificate of another CA.
 *
 * A commit takes these steps:
 *
 * 1. It writes each new secret to `<name>.uncommitted`, mode 0600, and syncs it. Then it syncs the directory.
 * 2. It writes the names of the changes to `commit-journal`, by way of a file that is synced and renamed. When
 *    the directory is synced after that, the commit is decided.
 * 3. It renames each `<name>.uncommitted` to `<name>`, removes what is to be removed, and syncs the directory.
 * 4. It removes the journal and syncs the directory, before anything else is written.
 *
 * Whoever opens the directory after a crash finds a journal and repeats the steps 3 and 4, or finds none and
 * removes what has been left of step 1.
 *
 * With a passphrase each file is encrypted (`secret-cipher.ts`), under the name that it has without one; the journal,
 * which holds names alone, is not. Files in the clear are encrypted by a commit too.
 * @module
 */
import { type FileHandle, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { checkObject } from '../base/option-check.ts';
import { ApiMisuseError, EnvironmentError, PassphraseError } from '../errors.ts';
import { syncDirectory } from './durable.ts';
import { attempt, isDirectory, preparePrivateDirectory } from './private-directory.ts';
import { HEADER_BYTES, isEncrypted, SecretCipher } from './secret-cipher.ts';
import {
  checkedChanges,
  checkSecretName,
  isSecretName,
  JOURNAL,
  type SecretChanges,
  type Secrets,
  UNCOMMITTED,
} from './secrets.ts';

export interface FileSecretsOptions {
  /**
   * Encrypts the secrets at rest, 1 to 1,023 bytes. Default: they are kept in the clear, which only the mode of the
   * files protects.
   */
  readonly passphrase?: string | undefined;
}

/** One process may use a directory at a time. A gateway makes sure of that by the lock of its `FileStore`. */
export class FileSecrets implements Secrets {
  /** Of the directory. */
  readonly path: string;
  /** Settles when no operation is under way. */
  #idle: Promise<unknown> = Promise.resolve();
  /** Whether nothing is left of an interrupted commit. */
  #isTidy = false;
  readonly #cipher: SecretCipher | undefined;
  /** Whether what was in the clear has been encrypted. */
  #isTakenUp = false;

  private constructor(path: string, cipher: SecretCipher | undefined) {
    this.path = path;
    this.#cipher = cipher;
  }

  /**
   * Makes the directory if it is not there, and changes nothing in one that is. What a crash has left there
   * is taken up by the first `get` or `commit`, so that a second gateway that is started by mistake can fail
   * before that.
   *
   * With a passphrase, the same call encrypts the files that are there in the clear and whose names end in `.pem`, and
   * `ca.json`, in one commit: all or none of them, also when it is interrupted. The directory holds files of others
   * too, so any other secret in the clear is encrypted when it is first read by its name. A symbolic link makes way
   * for a file. What was in the clear may still be found in blocks of the disk that are free now.
   *
   * @throws {EnvironmentError} if the directory is not there and cannot be made, if it belongs to another
   *   user than that of this process, or if others than its owner may use it.
   * @throws {PassphraseError} if secrets there are encrypted, and there is no passphrase, or it is another one.
   * @throws {ApiMisuseError} if the path is none, or the passphrase has not 1 to 1,023 bytes.
   */
  static async open(path: string, options: FileSecretsOptions = {}): Promise<FileSecrets> {
    if (typeof path !== 'string' || path === '') {
      throw new ApiMisuseError(`the path of a directory must be a text, not ${String(path)}`);
    }
    const { passphrase } = checkObject('the options of FileSecrets', options);
    const cipher = passphrase === undefined ? undefined : new SecretCipher(passphrase);
    await preparePrivateDirectory(path);
    const secrets = new FileSecrets(path, cipher);
    await secrets.#checkPassphrase();
    return secrets;
  }

  /** Returns the path of the file that has the secret. */
  locate(name: string): string {
    checkSecretName(name);
    return join(this.path, name);
  }

  /**
   * Reads a secret; a commit that was called before is done first.
   *
   * @throws {ApiMisuseError} if the name is none.
   * @throws {EnvironmentError} if the file is there and cannot be read, or is in the clear and cannot be encrypted.
   * @throws {PassphraseError} if it is encrypted, and there is no passphrase, or it is another one.
   */
  async get(name: string): Promise<Uint8Array | undefined> {
    const path = this.locate(name);
    return this.#exclusively(async () => {
      await this.#beReady();
      const file = await attempt(`the file ${path} cannot be read`, () => readIfThere(path));
      if (file === undefined) return undefined;
      if (isEncrypted(file)) return this.#cipherFor(path).decrypt(name, file, path);
      if (this.#cipher !== undefined) await this.#write([[name, file]]);
      return file;
    });
  }

  /**
   * Changes secrets, as `Secrets` says. If it rejects, nothing has changed, unless the medium fails in such a
   * way that the changes can be neither finished nor undone; whichever it is, the next call settles it.
   *
   * @throws {ApiMisuseError} if a name or a value is none, or a secret in the clear begins as an encrypted file does.
   * @throws {EnvironmentError} if the files cannot be written or removed.
   */
  async commit(changes: SecretChanges): Promise<void> {
    const list = checkedChanges(changes);
    if (list.length === 0) return;
    for (const [name, bytes] of list) {
      if (this.#cipher !== undefined || bytes === undefined || !isEncrypted(bytes)) continue;
      throw new ApiMisuseError(`the secret "${name}" begins as an encrypted file does`);
    }
    return this.#exclusively(async () => {
      await this.#beReady();
      await this.#write(list);
    });
  }

  /**
   * Looks whether the passphrase is that of the files. It changes nothing.
   *
   * @throws {PassphraseError} if it is not.
   */
  async #checkPassphrase(): Promise<void> {
    const names = await attempt(`${this.path} cannot be read`, () => readdir(this.path));
    for (const name of names) {
      const path = join(this.path, name);
      const start = await readStart(path);
      if (start === undefined || !isEncrypted(start)) continue;
      const cipher = this.#cipherFor(path);
      // What a crash has left may be less than that.
      if (start.length >= HEADER_BYTES) await cipher.checkPassphrase(start, path);
    }
  }

  #cipherFor(path: string): SecretCipher {
    if (this.#cipher !== undefined) return this.#cipher;
    throw new PassphraseError('missing', `${path} is encrypted, and no passphrase was given`);
  }

  /** Takes up what a crash has left, and what is in the clear. */
  async #beReady(): Promise<void> {
    await this.#tidy();
    if (this.#cipher === undefined || this.#isTakenUp) return;
    const clear: [string, Uint8Array][] = [];
    for (const name of await attempt(`${this.path} cannot be read`, () => readdir(this.path))) {
      if (!TAKEN_UP.test(name) || !isSecretName(name)) continue;
      const path = join(this.path, name);
      if (await attempt(`the file ${path} cannot be read`, () => isDirectory(path))) continue;
      const file = await attempt(`the file ${path} cannot be read`, () => readIfThere(path));
      if (file !== undefined && !isEncrypted(file)) clear.push([name, file]);
    }
    if (clear.length > 0) await this.#write(clear);
    this.#isTakenUp = true;
  }

  /** All of the steps; nothing may be left of an earlier commit. */
  async #write(list: readonly [string, Uint8Array | undefined][]): Promise<void> {
    const changes: [string, Uint8Array | undefined][] = [];
    for (const [name, bytes] of list) {
      changes.push([name, bytes && ((await this.#cipher?.encrypt(name, bytes)) ?? bytes)]);
    }
    this.#isTidy = false;
    try {
      await this.#prepare(changes);
    } catch (error) {
      // If the journal is in place already, the changes are finished, and the commit has succeeded.
      const isFinished = await this.#tidy().catch(() => false);
      if (!isFinished) throw error;
      return;
    }
    await this.#tidy();
  }

  /** The steps 1 and 2. */
  async #prepare(changes: readonly [string, Uint8Array | undefined][]): Promise<void> {
    for (const [name, bytes] of changes) {
      const path = this.locate(name);
      const fault = `${path} cannot be ${bytes === undefined ? 'removed' : 'written'}`;
      await attempt(fault, async () => {
        // Found out only when the commit is decided, it would stand in the way of each start.
        if (await isDirectory(path)) throw Object.assign(new Error(), { code: 'EISDIR' });
        if (bytes !== undefined) await writeNew(path + UNCOMMITTED, bytes);
      });
    }
    const journal: Journal = {
      put: changes.flatMap(([name, bytes]) => (bytes === undefined ? [] : [name])),
      remove: changes.flatMap(([name, bytes]) => (bytes === undefined ? [name] : [])),
    };
    const path = join(this.path, JOURNAL);
    await attempt(`${path} cannot be written`, async () => {
      await syncDirectory(this.path);
      await writeNew(path + UNCOMMITTED, Buffer.from(`${JSON.stringify(journal)}\n`));
      await rename(path + UNCOMMITTED, path);
      await syncDirectory(this.path);
    });
  }

  /** The steps 3 and 4, if there is a journal. Returns whether there was one. */
  async #tidy(): Promise<boolean> {
    if (this.#isTidy) return false;
    const path = join(this.path, JOURNAL);
    const bytes = await attempt(`the file ${path} cannot be read`, () => readIfThere(path));
    if (bytes !== undefined) await this.#finish(journalOf(bytes, path));
    this.#isTidy = await this.#removeLeftOvers();
    return bytes !== undefined;
  }

  /** Returns whether all are gone. On a disk that cannot be written to, what is in force can still be read. */
  async #removeLeftOvers(): Promise<boolean> {
    try {
      for (const name of await readdir(this.path)) {
        if (LEFT_OVER.test(name)) await rm(join(this.path, name), { force: true });
      }
      return true;
    } catch {
      return false;
    }
  }

  async #finish({ put, remove }: Journal): Promise<void> {
    await attempt(`the changes of ${join(this.path, JOURNAL)} cannot be finished`, async () => {
      // It may have come into sight just now, and not be durable: then some renames might be so without it.
      await syncDirectory(this.path);
      for (const name of put) {
        const path = join(this.path, name);
        await rename(path + UNCOMMITTED, path).catch((error: NodeJS.ErrnoException) => {
          // It was renamed before the crash.
          if (error.code !== 'ENOENT') throw error;
        });
      }
      for (const name of remove) await rm(join(this.path, name), { force: true });
      await syncDirectory(this.path);
      await rm(join(this.path, JOURNAL));
      await syncDirectory(this.path);
    });
  }

  #exclusively<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#idle.then(run);
    this.#idle = result.catch(() => {});
    return result;
  }
}

/** What a commit changes: names. */
interface Journal {
  readonly put: readonly string[];
  readonly remove: readonly string[];
}

/** @throws {EnvironmentError} if it is not one that a commit has written. */
function journalOf(bytes: Uint8Array, path: string): Journal {
  try {
    const { put, remove } = JSON.parse(Buffer.from(bytes).toString()) as Journal;
    for (const name of [...put, ...remove]) checkSecretName(name);
    return { put, remove };
  } catch (cause) {
    throw new EnvironmentError(
      `${path} is damaged, so it is not known which files of ${dirname(path)} belong together: restore the directory from a copy`,
      { cause }
    );
  }
}

async function readIfThere(path: string): Promise<Uint8Array | undefined> {
  try {
    const found = await stat(path);
    // Reading a FIFO or a device may never end.
    if (!found.isFile() && !found.isDirectory()) throw new Error('it is not a regular file');
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Returns the first bytes of a file that is there and can be read. */
async function readStart(path: string): Promise<Uint8Array | undefined> {
  let file: FileHandle | undefined;
  try {
    if (!(await stat(path)).isFile()) return undefined;
    file = await open(path, 'r');
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } catch {
    // It has gone, or is not for this user: whoever asks for it by its name is told.
    return undefined;
  } finally {
    await file?.close();
  }
}

/** Makes a file for its owner only, and syncs it. */
async function writeNew(path: string, bytes: Uint8Array): Promise<void> {
  // What an interrupted commit has left may be readable by others, or be a link: it is not written to.
  await rm(path, { force: true });
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** What an interrupted commit leaves, and what a write of an earlier version has left under its names. */
const LEFT_OVER = /\.uncommitted$|^(.*\.pem|ca\.json|probe)\.new$/;
/** What gateways keep here, of all versions; the certificates are no secrets, but whom to trust is theirs to say. */
const TAKEN_UP = /\.pem$|^ca\.json$/;
