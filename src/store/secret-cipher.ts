/**
 * Secrets at rest under a passphrase: AES-256-GCM with a key that scrypt
 * ([RFC 7914](https://www.rfc-editor.org/rfc/rfc7914)) derives from the passphrase.
 *
 * A file is, in bytes: 9 that say what it is, 1 of the version, 16 of salt, 16 that tell a wrong passphrase from a
 * damaged file, 12 of nonce, the ciphertext, and 16 of tag. All before the nonce is authenticated, and so is the name
 * of the secret: a file that is put in the place of another is refused. That an older file of the same name was put
 * back is not seen.
 *
 * The salt stands in each file, so that each can be read by itself, from a copy too, and none is lost with a file that
 * holds the salt of all. The files of a directory share one all the same, so that the passphrase is stretched once.
 * @module
 */
import {
  createCipheriv,
  createDecipheriv,
  randomBytes,
  scrypt,
  timingSafeEqual,
} from 'node:crypto';
import { ApiMisuseError, EnvironmentError, PassphraseError } from '../errors.ts';

/** As much of a file as `checkPassphrase` looks at, in bytes. */
export const HEADER_BYTES = 42;

export class SecretCipher {
  readonly #passphrase: string;
  /** What is used for what is encrypted here; that of the first file that was read, if there was one. */
  #salt: Buffer | undefined;
  readonly #keys = new Map<string, Promise<Keys>>();

  /** @throws {ApiMisuseError} if the passphrase has not 1 to 1,023 bytes. */
  constructor(passphrase: string) {
    const bytes = typeof passphrase === 'string' ? Buffer.byteLength(passphrase) : 0;
    if (bytes < 1 || bytes > MAX_PASSPHRASE_BYTES) {
      throw new ApiMisuseError(
        `the passphrase of secrets must be a text of 1 to ${MAX_PASSPHRASE_BYTES} bytes, and this one has ${bytes}`
      );
    }
    this.#passphrase = passphrase;
  }

  /**
   * Checks whether a file, of which the first bytes are enough, is encrypted under this passphrase.
   *
   * @param path of the file, for messages
   * @throws {PassphraseError} with fault `wrong` if it is not.
   * @throws {EnvironmentError} if it is of a version that is not known, or too short.
   */
  async checkPassphrase(file: Uint8Array, path: string): Promise<void> {
    await this.#keysOf(file, path);
  }

  /** Returns what a file is to hold in which the secret of this name is encrypted. */
  async encrypt(name: string, secret: Uint8Array): Promise<Uint8Array> {
    this.#salt ??= randomBytes(SALT_BYTES);
    const { key, check } = await this.#derive(this.#salt);
    const header = Buffer.concat([MAGIC, Uint8Array.of(VERSION), this.#salt, check]);
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(ALGORITHM, key, nonce);
    cipher.setAAD(authenticatedWith(header, name));
    const data = [cipher.update(secret), cipher.final()];
    return Buffer.concat([header, nonce, ...data, cipher.getAuthTag()]);
  }

  /**
   * Returns the secret that a file holds.
   *
   * @param name under which it was encrypted
   * @param path of the file, for messages
   * @throws {PassphraseError} with fault `wrong` if it is encrypted under another passphrase.
   * @throws {EnvironmentError} if it is damaged, or is the file of another secret.
   */
  async decrypt(name: string, file: Uint8Array, path: string): Promise<Uint8Array> {
    const { key } = await this.#keysOf(file, path);
    const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
    const dataAt = HEADER_BYTES + NONCE_BYTES;
    const tagAt = bytes.length - TAG_BYTES;
    if (tagAt < dataAt) throw damaged(path);
    const nonce = bytes.subarray(HEADER_BYTES, dataAt);
    const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(authenticatedWith(bytes.subarray(0, HEADER_BYTES), name));
    decipher.setAuthTag(bytes.subarray(tagAt));
    try {
      return Buffer.concat([decipher.update(bytes.subarray(dataAt, tagAt)), decipher.final()]);
    } catch (cause) {
      throw damaged(path, cause);
    }
  }

  async #keysOf(file: Uint8Array, path: string): Promise<Keys> {
    const version = file[MAGIC.length];
    if (version !== undefined && version !== VERSION) {
      throw new EnvironmentError(
        `${path} is encrypted in version ${version}, and this program knows version ${VERSION} only: use a newer one`
      );
    }
    if (file.length < HEADER_BYTES) throw damaged(path);
    const salt = Buffer.from(file.subarray(SALT_AT, CHECK_AT));
    const keys = await this.#derive(salt);
    if (!timingSafeEqual(keys.check, file.subarray(CHECK_AT, HEADER_BYTES))) {
      throw new PassphraseError(
        'wrong',
        `the passphrase is wrong: ${path} is encrypted under another one`
      );
    }
    this.#salt ??= salt;
    return keys;
  }

  #derive(salt: Buffer): Promise<Keys> {
    const id = salt.toString('hex');
    let keys = this.#keys.get(id);
    if (keys === undefined) {
      // Files of many salts are not made here; each that somebody puts there costs time, but no memory without end.
      if (this.#keys.size >= MAX_KEYS) this.#keys.clear();
      keys = derive(this.#passphrase, salt);
      this.#keys.set(id, keys);
    }
    return keys;
  }
}

/** Whether a file is one that `SecretCipher` has written, whole or in part. */
export function isEncrypted(file: Uint8Array): boolean {
  return file.length >= MAGIC.length && MAGIC.equals(file.subarray(0, MAGIC.length));
}

interface Keys {
  /** Of AES. */
  readonly key: Buffer;
  /** Known to whoever has the file: it is of no use for the key. */
  readonly check: Buffer;
}

function derive(passphrase: string, salt: Buffer): Promise<Keys> {
  return new Promise((resolve, reject) => {
    scrypt(passphrase, salt, KEY_BYTES + CHECK_BYTES, SCRYPT, (error, bytes) => {
      if (error !== null) reject(error);
      else resolve({ key: bytes.subarray(0, KEY_BYTES), check: bytes.subarray(KEY_BYTES) });
    });
  });
}

function authenticatedWith(header: Uint8Array, name: string): Buffer {
  return Buffer.concat([header, Buffer.from(name)]);
}

function damaged(path: string, cause?: unknown): EnvironmentError {
  return new EnvironmentError(
    `${path} is damaged, or is the file of another secret: restore it from a copy`,
    { cause }
  );
}

/** A text begins with no zero. */
const MAGIC: Buffer = /* @__PURE__ */ Buffer.from('\0vpsecret', 'latin1');
/** Says with what parameters the key is derived, too. */
const VERSION = 1;
const SALT_BYTES = 16;
const CHECK_BYTES = 16;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const SALT_AT = 10;
const CHECK_AT: number = SALT_AT + SALT_BYTES;
const ALGORITHM = 'aes-256-gcm';
/**
 * One of the sets that OWASP holds for equally strong, the one of them that takes 32 MiB: an edge may be small. It
 * takes 0.2 s on the machine of the benchmarks. Node allows 32 MiB and not a byte more unless it is told.
 */
const SCRYPT = { N: 2 ** 15, r: 8, p: 3, maxmem: 64 * 2 ** 20 } as const;
/** As of the passphrase of a CA's key, so that one can serve for both. */
const MAX_PASSPHRASE_BYTES = 1023;
const MAX_KEYS = 16;
