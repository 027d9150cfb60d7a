/**
 * `FileSecrets` keeps secrets as files in a directory that only its owner may use. An operator may put files there, for
 * example the key and certificate of another CA.
 *
 * A commit takes these steps:
 *
 * 1. It writes each new secret to `<name>.uncommitted`, mode 0600, and syncs it. Then it syncs the directory.
 * 2. It writes the names of the changes to `commit-journal`, through a file that is synced and renamed. When
 *    the directory is synced after that, the commit is decided.
 * 3. It renames each `<name>.uncommitted` to `<name>`, removes the deleted secrets, and syncs the directory.
 * 4. It removes the journal and syncs the directory, before anything else is written.
 *
 * After a crash, the next process repeats steps 3 and 4 if it finds a journal. If not, it removes the files of step 1.
 *
 * With a passphrase each file is encrypted (`secret-cipher.ts`) and keeps its name. The journal, which holds only names,
 * is not encrypted. A commit encrypts files that are in the clear.
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
   * Encrypts the secrets at rest; 1 to 1,023 bytes. Default: the secrets are kept in the clear, protected only by the
   * mode of the files.
   */
  readonly passphrase?: string | undefined;
}

/** Secrets in the files of a directory. Only one process may use it at a time; a gateway has the lock of its `FileStore`. */
export class FileSecrets implements Secrets {
  /** The path of the directory. */
  readonly path: string;
  /** Settles when no operation is in progress. */
  #idle: Promise<unknown> = Promise.resolve();
  /** Whether no files of an interrupted commit are left. */
  #isTidy = false;
  readonly #cipher: SecretCipher | undefined;
  /** Whether the files in the clear have been encrypted. */
  #isEncrypted = false;

  private constructor(path: string, cipher: SecretCipher | undefined) {
    this.path = path;
    this.#cipher = cipher;
  }

  /**
   * Opens a directory. Makes it if it does not exist, and changes nothing in one that does. The first `get` or `commit`
   * finishes or removes what a crash has left, so a second gateway that is started by mistake can fail before that.
   *
   * With a passphrase, the first `get` or `commit` also encrypts the files in the clear whose names end in `.pem`, and
   * `ca.json`, in one commit: all or none of them, also if it is interrupted. The directory holds files of others too,
   * so any other secret in the clear is encrypted when it is first read. A file replaces a symbolic link. The disk's
   * free blocks may still hold the old content.
   *
   * @throws {EnvironmentError} if the directory does not exist and cannot be made, belongs to another user than that
   *   of this process, or may be used by others than its owner.
   * @throws {PassphraseError} if secrets there are encrypted and the passphrase is missing or wrong.
   * @throws {ApiMisuseError} if the path is not a text, or the passphrase does not have 1 to 1,023 bytes.
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

  /** Returns the path of the file for a secret. */
  locate(name: string): string {
    checkSecretName(name);
    return join(this.path, name);
  }

  /**
   * Reads a secret, after the commits that were called before.
   *
   * @throws {ApiMisuseError} if the name is invalid.
   * @throws {EnvironmentError} if the file exists and cannot be read, or is in the clear and cannot be encrypted.
   * @throws {PassphraseError} if the file is encrypted and the passphrase is missing or wrong.
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
   * Changes secrets, see `Secrets.commit`. If it rejects, nothing has changed, unless the disk fails in such a way that
   * the changes can be neither finished nor undone; the next call then does one of the two.
   *
   * @throws {ApiMisuseError} if a name or a value is invalid, or a secret begins like an encrypted file and there is no
   *   passphrase.
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
   * Checks the passphrase against the encrypted files. It changes nothing.
   *
   * @throws {PassphraseError} if it is missing or wrong.
   */
  async #checkPassphrase(): Promise<void> {
    const names = await attempt(`${this.path} cannot be read`, () => readdir(this.path));
    for (const name of names) {
      const path = join(this.path, name);
      const start = await readStart(path);
      if (start === undefined || !isEncrypted(start)) continue;
      const cipher = this.#cipherFor(path);
      // A crash may have left a shorter file.
      if (start.length >= HEADER_BYTES) await cipher.checkPassphrase(start, path);
    }
  }

  #cipherFor(path: string): SecretCipher {
    if (this.#cipher !== undefined) return this.#cipher;
    throw new PassphraseError('missing', `${path} is encrypted, and no passphrase was given`);
  }

  /** Finishes or removes what a crash has left, and encrypts the files in the clear. */
  async #beReady(): Promise<void> {
    await this.#tidy();
    if (this.#cipher === undefined || this.#isEncrypted) return;
    const clear: [string, Uint8Array][] = [];
    for (const name of await attempt(`${this.path} cannot be read`, () => readdir(this.path))) {
      if (!ENCRYPTED_AT_ONCE.test(name) || !isSecretName(name)) continue;
      const path = join(this.path, name);
      if (await attempt(`the file ${path} cannot be read`, () => isDirectory(path))) continue;
      const file = await attempt(`the file ${path} cannot be read`, () => readIfThere(path));
      if (file !== undefined && !isEncrypted(file)) clear.push([name, file]);
    }
    if (clear.length > 0) await this.#write(clear);
    this.#isEncrypted = true;
  }

  /** Takes all steps of a commit; no files of an earlier commit may be left. */
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

  /** Takes steps 1 and 2. */
  async #prepare(changes: readonly [string, Uint8Array | undefined][]): Promise<void> {
    for (const [name, bytes] of changes) {
      const path = this.locate(name);
      const fault = `${path} cannot be ${bytes === undefined ? 'removed' : 'written'}`;
      await attempt(fault, async () => {
        // After the decision, a directory here would make every start fail.
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

  /** Takes steps 3 and 4 if there is a journal. Returns whether there was one. */
  async #tidy(): Promise<boolean> {
    if (this.#isTidy) return false;
    const path = join(this.path, JOURNAL);
    const bytes = await attempt(`the file ${path} cannot be read`, () => readIfThere(path));
    if (bytes !== undefined) await this.#finish(journalOf(bytes, path));
    this.#isTidy = await this.#removeLeftOvers();
    return bytes !== undefined;
  }

  /** Removes files of an interrupted commit; returns whether all are gone. If not, secrets can still be read. */
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
      // The journal may not be durable yet; otherwise a crash could keep some renames and lose the journal.
      await syncDirectory(this.path);
      for (const name of put) {
        const path = join(this.path, name);
        await rename(path + UNCOMMITTED, path).catch((error: NodeJS.ErrnoException) => {
          // The file was renamed before the crash.
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

/** The names that a commit changes. */
interface Journal {
  readonly put: readonly string[];
  readonly remove: readonly string[];
}

/** @throws {EnvironmentError} if the journal is damaged. */
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

/** Returns the first bytes of a file; undefined if it does not exist or cannot be read. */
async function readStart(path: string): Promise<Uint8Array | undefined> {
  let file: FileHandle | undefined;
  try {
    if (!(await stat(path)).isFile()) return undefined;
    file = await open(path, 'r');
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } catch {
    // The file has gone or this user may not read it; `get` reports that.
    return undefined;
  } finally {
    await file?.close();
  }
}

/** Writes a new file that only its owner may use, and syncs it. */
async function writeNew(path: string, bytes: Uint8Array): Promise<void> {
  // A file that is already there may be readable by others or be a link, so it is removed first.
  await rm(path, { force: true });
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Names of files that an interrupted commit leaves, and that a write of an earlier version left. */
const LEFT_OVER = /\.uncommitted$|^(.*\.pem|ca\.json|probe)\.new$/;
/** Names used by gateways of all versions. Certificates are not secret, but must not be replaced by others. */
const ENCRYPTED_AT_ONCE = /\.pem$|^ca\.json$/;
