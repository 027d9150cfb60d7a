/**
 * Encrypts secrets with a passphrase: AES-256-GCM with a key that scrypt
 * ([RFC 7914](https://www.rfc-editor.org/rfc/rfc7914)) derives from it.
 *
 * A file has 9 bytes of magic number, 1 of version, 16 of salt, 16 to tell a wrong passphrase from a damaged file, 12
 * of nonce, then the ciphertext and 16 bytes of tag. Everything before the nonce is authenticated, and so is the name of
 * the secret, so that a file in the place of another is refused. An older file of the same name is not detected.
 *
 * Each file contains the salt, so that it can be read on its own, for example from a copy. The files of a directory
 * share one salt, so that the key is derived only once.
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

/** How many bytes of a file `checkPassphrase` needs. */
export const HEADER_BYTES = 42;

/** Encrypts and decrypts secrets with one passphrase. */
export class SecretCipher {
  readonly #passphrase: string;
  /** The salt for encryption: that of the first file that was read, if any. */
  #salt: Buffer | undefined;
  readonly #keys = new Map<string, Promise<Keys>>();

  /** @throws {ApiMisuseError} if the passphrase does not have 1 to 1,023 bytes. */
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
   * Checks that a file is encrypted with this passphrase.
   *
   * @param file its first `HEADER_BYTES` or more
   * @param path of the file, for messages
   * @throws {PassphraseError} with fault `wrong` if it is not.
   * @throws {EnvironmentError} if its version is unknown, or it is too short.
   */
  async checkPassphrase(file: Uint8Array, path: string): Promise<void> {
    await this.#keysOf(file, path);
  }

  /** Encrypts a secret and returns the content of its file. */
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
   * Decrypts the secret in a file.
   *
   * @param name with which it was encrypted
   * @param path of the file, for messages
   * @throws {PassphraseError} with fault `wrong` if it is encrypted with another passphrase.
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
      // This program never makes files with many salts. If somebody puts them there, the memory stays bounded.
      if (this.#keys.size >= MAX_KEYS) this.#keys.clear();
      keys = derive(this.#passphrase, salt);
      this.#keys.set(id, keys);
    }
    return keys;
  }
}

/** Whether `SecretCipher` has written the file, which may be incomplete. */
export function isEncrypted(file: Uint8Array): boolean {
  return file.length >= MAGIC.length && MAGIC.equals(file.subarray(0, MAGIC.length));
}

interface Keys {
  /** The AES key. */
  readonly key: Buffer;
  /** Stored in the file to recognise a wrong passphrase; it does not reveal the key. */
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

/** It begins with a zero, which no text file does. */
const MAGIC: Buffer = /* @__PURE__ */ Buffer.from('\0vpsecret', 'latin1');
/** The version of the format, including the parameters of the key derivation. */
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
 * One of the equally strong sets of parameters that OWASP recommends: the one that needs 32 MiB, because an edge may be
 * small. It takes 0.2 s on the benchmark machine. Node's default limit, 32 MiB, is slightly too low.
 */
const SCRYPT = { N: 2 ** 15, r: 8, p: 3, maxmem: 64 * 2 ** 20 } as const;
/** The same limit as for the passphrase of a CA's key, so that one passphrase can serve both. */
const MAX_PASSPHRASE_BYTES = 1023;
const MAX_KEYS = 16;
