/**
 * Private keys under a passphrase: PKCS#8 by PBES2
 * ([RFC 8018 appendix A](https://www.rfc-editor.org/rfc/rfc8018#appendix-A)), AES-256-CBC with a key that
 * PBKDF2 derives by HMAC-SHA-256. OpenSSL reads the result.
 *
 * Node's `export` stretches a passphrase 2,048 times and has no option for more. The derivation runs on
 * Node's thread pool, so the event loop goes on meanwhile.
 * @module
 */
import crypto from 'node:crypto';
import { ApiMisuseError } from '../errors.ts';
import {
  type Asn1,
  children,
  contentOf,
  encode,
  encodePem,
  integer,
  nothing,
  octetString,
  oid,
  sequence,
} from './der.ts';
import { readPrivateKey } from './keys.ts';

/**
 * Puts a private key under a passphrase: PKCS#8, AES-256, the passphrase stretched by 600,000 iterations of
 * PBKDF2 with HMAC-SHA-256. The key may be encrypted already, under the same passphrase: it is then encrypted
 * anew, unless its passphrase is stretched as much as that, in this way. In that case the text is returned as
 * it is.
 *
 * @throws {CertificateError} if the key cannot be read, or is of a kind we do not accept.
 * @throws {ApiMisuseError} if the passphrase is empty, or longer than the 1,023 bytes that OpenSSL reads.
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
  const algorithm = sequence(
    oid(PBES2),
    sequence(
      sequence(oid(PBKDF2), sequence(octetString(salt), integer(BigInt(ITERATIONS)), prf())),
      sequence(oid(AES_256_CBC), octetString(iv))
    )
  );
  return encodePem(LABEL, encode(sequence(algorithm, octetString(data))));
}

/**
 * Takes a private key out from under its passphrase. A key that is encrypted in another way than by
 * `encryptPrivateKey` is read by OpenSSL on the event loop, and one that is not encrypted is taken as it is.
 *
 * @returns PKCS#8 as PEM, not encrypted.
 * @throws {CertificateError} if the key cannot be read, or is of a kind we do not accept.
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
    der = Buffer.alloc(0); // The passphrase is wrong, which OpenSSL reports as a key that cannot be read.
  }
  return plainPem(encodePem('PRIVATE KEY', der));
}

interface EncryptedKey {
  readonly salt: Buffer;
  readonly iterations: number;
  readonly iv: Buffer;
  readonly data: Buffer;
}

/** Reads the one form that is written here; undefined for any other text. */
function parse(pem: string): EncryptedKey | undefined {
  const base64 = BLOCK.exec(pem)?.[1];
  if (base64 === undefined) return undefined;
  try {
    const [algorithm, data] = children(Buffer.from(base64, 'base64')) as [Buffer, Buffer];
    const [scheme, parameters] = children(algorithm) as [Buffer, Buffer];
    const [derivation, encryption] = children(parameters) as [Buffer, Buffer];
    const [kdf, kdfParameters] = children(derivation) as [Buffer, Buffer];
    const [salt, iterations, pseudoRandom] = children(kdfParameters) as [Buffer, Buffer, Buffer];
    const [cipher, iv] = children(encryption) as [Buffer, Buffer];
    const isOurs =
      isDer(scheme, oid(PBES2)) &&
      isDer(kdf, oid(PBKDF2)) &&
      isDer(pseudoRandom, prf()) &&
      isDer(cipher, oid(AES_256_CBC));
    const count = Number(BigInt(`0x${contentOf(iterations).toString('hex')}`));
    const isUsable = count >= 1 && count <= MAX_ITERATIONS && contentOf(iv).length === IV_BYTES;
    if (!isOurs || !isUsable) return undefined;
    return {
      salt: contentOf(salt),
      iterations: count,
      iv: contentOf(iv),
      data: contentOf(data),
    };
  } catch {
    return undefined; // OpenSSL says what is wrong with it.
  }
}

function isDer(der: Buffer, expected: Asn1): boolean {
  return encode(expected).equals(der);
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

/** The AlgorithmIdentifier of HMAC with SHA-256, RFC 8018 appendix B.1.2. */
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
/** What OWASP asks of PBKDF2 with HMAC-SHA-256; 0.15 s of one core on the machine of the benchmarks. */
const ITERATIONS = 600_000;
/** Node takes 2^31 - 1; what has more than this is left to OpenSSL. */
const MAX_ITERATIONS = 10_000_000;
/** The commands of OpenSSL read a passphrase into a buffer of 1,024 bytes (`APP_PASS_LEN`), which ends with a zero. */
const MAX_PASSPHRASE_BYTES = 1023;
const LABEL = 'ENCRYPTED PRIVATE KEY';
const BLOCK =
  /-----BEGIN ENCRYPTED PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END ENCRYPTED PRIVATE KEY-----/;
