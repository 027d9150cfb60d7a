/**
 * Private keys encrypted with a passphrase: PKCS#8 with PBES2
 * ([RFC 8018 appendix A](https://www.rfc-editor.org/rfc/rfc8018#appendix-A)), AES-256-CBC, and a key that
 * PBKDF2 derives with HMAC-SHA-256. OpenSSL reads the result.
 *
 * node-forge reads and writes the structure; Node derives the key on its thread pool. Neither can do both: Node's
 * `export` uses 2,048 iterations and has no option for more, and forge's `encryptPrivateKeyInfo` derives in
 * JavaScript, which would block the event loop for about 3 s.
 * @module
 */
import crypto from 'node:crypto';
import { ApiMisuseError } from '../errors.ts';
import {
  type Asn1,
  bytesOf,
  decode,
  elementAt,
  encode,
  encodePem,
  integer,
  nothing,
  numberOf,
  octetString,
  oid,
  sequence,
} from './der.ts';
import { readPrivateKey } from './keys.ts';

/**
 * Encrypts a private key with a passphrase: PKCS#8, AES-256, and 600,000 iterations of PBKDF2 with HMAC-SHA-256.
 * The key may already be encrypted with the same passphrase. If it is encrypted in this form with at least as many
 * iterations, the text is returned unchanged; otherwise it is encrypted again.
 *
 * @throws {CertificateError} if the key cannot be read or its type is not accepted.
 * @throws {ApiMisuseError} if the passphrase is empty or longer than the 1,023 bytes that OpenSSL reads.
 */
export async function encryptPrivateKey(pem: string, passphrase: string): Promise<string> {
  const bytes = Buffer.byteLength(passphrase);
  if (bytes < 1 || bytes > MAX_PASSPHRASE_BYTES) {
    throw new ApiMisuseError(
      `a passphrase has 1 to ${MAX_PASSPHRASE_BYTES} bytes, and this one has ${bytes}`
    );
  }
  const plain = readPrivateKey(await decryptPrivateKey(pem, passphrase));
  if ((parse(pem)?.iterations ?? 0) >= ITERATIONS) return pem;
  const salt = crypto.randomBytes(SALT_BYTES);
  const iv = crypto.randomBytes(IV_BYTES);
  const cipher = crypto.createCipheriv(CIPHER, await derive(passphrase, salt, ITERATIONS), iv);
  const der = plain.export({ type: 'pkcs8', format: 'der' });
  const data = Buffer.concat([cipher.update(der), cipher.final()]);
  return encodePem(LABEL, encodeKey({ salt, iterations: ITERATIONS, iv, data }));
}

/**
 * Decrypts a private key. If `encryptPrivateKey` did not write it, OpenSSL reads it on the event loop. A key that is
 * not encrypted is accepted too.
 *
 * @returns PKCS#8 as PEM, not encrypted.
 * @throws {CertificateError} if the key cannot be read or its type is not accepted.
 */
export async function decryptPrivateKey(pem: string, passphrase?: string): Promise<string> {
  const encrypted = passphrase === undefined ? undefined : parse(pem);
  if (encrypted === undefined || passphrase === undefined) return plainPem(pem, passphrase);
  const { salt, iterations, iv, data } = encrypted;
  const decipher = crypto.createDecipheriv(CIPHER, await derive(passphrase, salt, iterations), iv);
  let der: Buffer;
  try {
    der = Buffer.concat([decipher.update(data), decipher.final()]);
  } catch {
    der = Buffer.alloc(0); // The passphrase is wrong. OpenSSL reports an empty key as one that cannot be read.
  }
  return plainPem(encodePem('PRIVATE KEY', der));
}

interface EncryptedKey {
  readonly salt: Buffer;
  readonly iterations: number;
  readonly iv: Buffer;
  readonly data: Buffer;
}

/** Writes an EncryptedPrivateKeyInfo (RFC 5958 section 3) with PBES2 parameters (RFC 8018 appendix A.4). */
function encodeKey({ salt, iterations, iv, data }: EncryptedKey): Buffer {
  const derivation = sequence(octetString(salt), integer(BigInt(iterations)), prf());
  const algorithm = sequence(
    oid(PBES2),
    sequence(sequence(oid(PBKDF2), derivation), sequence(oid(AES_256_CBC), octetString(iv)))
  );
  return encode(sequence(algorithm, octetString(data)));
}

/** Reads the form that `encodeKey` writes; returns undefined for any other text. */
function parse(pem: string): EncryptedKey | undefined {
  const base64 = BLOCK.exec(pem)?.[1];
  if (base64 === undefined) return undefined;
  const der = Buffer.from(base64, 'base64');
  try {
    const info = decode(der);
    const [derivation, encryption] = [elementAt(info, 0, 1, 0, 1), elementAt(info, 0, 1, 1)];
    const key: EncryptedKey = {
      salt: bytesOf(elementAt(derivation, 0)),
      iterations: numberOf(elementAt(derivation, 1)),
      iv: bytesOf(elementAt(encryption, 1)),
      data: bytesOf(elementAt(info, 1)),
    };
    const isUsable =
      key.iterations >= 1 && key.iterations <= MAX_ITERATIONS && key.iv.length === IV_BYTES;
    // Writing the fields again gives the same bytes only if the algorithms are the same too.
    return isUsable && encodeKey(key).equals(der) ? key : undefined;
  } catch {
    return undefined; // OpenSSL reports what is wrong with it.
  }
}

function plainPem(pem: string, passphrase?: string): string {
  return readPrivateKey(pem, passphrase).export({ type: 'pkcs8', format: 'pem' }) as string;
}

function derive(passphrase: string, salt: Buffer, iterations: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    crypto.pbkdf2(passphrase, salt, iterations, KEY_BYTES, 'sha256', (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}

/** The AlgorithmIdentifier of HMAC-SHA-256, RFC 8018 appendix B.1.2. */
function prf(): Asn1 {
  return sequence(oid('1.2.840.113549.2.9'), nothing());
}

const PBES2 = '1.2.840.113549.1.5.13';
const PBKDF2 = '1.2.840.113549.1.5.12';
const AES_256_CBC = '2.16.840.1.101.3.4.1.42';
const CIPHER = 'aes-256-cbc';
const KEY_BYTES = 32;
const IV_BYTES = 16;
const SALT_BYTES = 16;
/** What OWASP recommends for PBKDF2 with HMAC-SHA-256; it takes 0.11 to 0.15 s of one core on the benchmark machine. */
const ITERATIONS = 600_000;
/** Node accepts 2^31 - 1; OpenSSL reads a key with more iterations than this. */
const MAX_ITERATIONS = 10_000_000;
/** OpenSSL's commands read a passphrase into a buffer of 1,024 bytes (`APP_PASS_LEN`) that ends with a zero. */
const MAX_PASSPHRASE_BYTES = 1023;
const LABEL = 'ENCRYPTED PRIVATE KEY';
const BLOCK =
  /-----BEGIN ENCRYPTED PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END ENCRYPTED PRIVATE KEY-----/;
