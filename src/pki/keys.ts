/**
 * Defines which keys are accepted (P-256, Ed25519 and RSA of 2048 to 4096 bits) and how each type signs. OpenSSL does
 * all arithmetic, through `node:crypto`. Algorithm identifiers follow
 * [RFC 5758](https://www.rfc-editor.org/rfc/rfc5758), [RFC 8410](https://www.rfc-editor.org/rfc/rfc8410)
 * and [RFC 4055](https://www.rfc-editor.org/rfc/rfc4055).
 * @module
 */
import crypto, { type KeyObject, type X509Certificate } from 'node:crypto';
import { checkThat } from '../base/option-check.ts';
import { CertificateError } from '../errors.ts';
import { type Asn1, bitString, encode, nothing, oid, sequence } from './der.ts';
import { children, contentOf } from './strict-der.ts';

export type KeyType = 'p256' | 'ed25519' | 'rsa';

export interface GatewayKey {
  /** PKCS#8. */
  readonly privateKeyPem: string;
  /** SubjectPublicKeyInfo. */
  readonly publicKeyPem: string;
}

/** Makes a new key. `rsa` has 3072 bits, which is as strong as the other two types. */
export function generateGatewayKey(type: KeyType = 'p256'): GatewayKey {
  const { privateKey, publicKey } = generate(type);
  return {
    privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    publicKeyPem: publicKey.export({ type: 'spki', format: 'pem' }) as string,
  };
}

/**
 * Reads a private key, encrypted or not.
 *
 * @throws {CertificateError} if it cannot be read or its type is not accepted.
 */
export function readPrivateKey(pem: string, passphrase?: string): KeyObject {
  let key: KeyObject;
  try {
    key = crypto.createPrivateKey({
      key: pem,
      format: 'pem',
      ...(passphrase === undefined ? {} : { passphrase }),
    });
  } catch (cause) {
    throw new CertificateError('the private key cannot be read', { cause });
  }
  keyTypeOf(key);
  return key;
}

/**
 * Reads a SubjectPublicKeyInfo of an unauthenticated peer and returns the key in canonical form.
 *
 * The bytes are checked before Node reads them: OpenSSL accepts a P-256 key whose point is the one at infinity, and
 * Node then ends the process when asked to describe it, which no \`catch\` prevents.
 *
 * @throws {CertificateError} if it cannot be read or its type is not accepted.
 */
export function readPublicKey(spki: Buffer): KeyObject {
  const [algorithm, bits, ...rest] = children(spki);
  if (algorithm === undefined || bits?.[0] !== BIT_STRING || rest.length > 0) {
    throw new CertificateError('the public key is malformed');
  }
  const name = algorithm.toString('hex');
  if (!ACCEPTED_ALGORITHMS.has(name)) {
    throw new CertificateError(
      'a public key of this algorithm is not accepted, only P-256 by its name, Ed25519 and RSA'
    );
  }
  if (name === P256_ALGORITHM && !isPoint(contentOf(bits))) {
    throw new CertificateError('the public key is not a point of its curve');
  }
  let key: KeyObject;
  try {
    key = crypto.createPublicKey({ key: spki, format: 'der', type: 'spki' });
  } catch (cause) {
    throw new CertificateError('the public key cannot be read', { cause });
  }
  return canonicalPublicKey(key);
}

/** Returns `spkiDigest` of the key in a certificate of any peer, as base64url; cached for each certificate. */
export function spkiHashOfCertificate(certificate: X509Certificate): string {
  let hash = HASHES.get(certificate);
  if (hash === undefined) {
    const fields = children(children(certificate.raw)[0]!);
    // The version, which is absent if it is 1, shifts all fields after it.
    const spki = fields[fields[0]?.[0] === VERSION ? 6 : 5];
    if (spki === undefined) throw new CertificateError('the certificate is malformed');
    hash = spkiHashOf(readPublicKey(spki));
    HASHES.set(certificate, hash);
  }
  return hash;
}

/** Whether the BIT STRING holds `04` and both coordinates, or `02` or `03` and one (SEC 1 section 2.3.3). */
function isPoint(bits: Buffer): boolean {
  const form = bits[1];
  return bits.length === 66 ? form === 4 : bits.length === 34 && (form === 2 || form === 3);
}

/**
 * Returns the same public key in the one form that all its encodings share. A point may also be written compressed,
 * and a revoked key must not pass for a new one that way.
 *
 * @throws {CertificateError} if the type of the key is not accepted.
 */
export function canonicalPublicKey(key: KeyObject): KeyObject {
  keyTypeOf(key);
  return crypto.createPublicKey({ key: key.export({ format: 'jwk' }), format: 'jwk' });
}

/** Returns the SubjectPublicKeyInfo of the key in canonical form. */
export function spkiOf(key: KeyObject): Buffer {
  return canonicalPublicKey(key).export({ type: 'spki', format: 'der' });
}

/** Returns SHA-256 of the SubjectPublicKeyInfo: it identifies a key and is the pin of a CA. */
export function spkiDigest(key: KeyObject): Buffer {
  return crypto.createHash('sha256').update(spkiOf(key)).digest();
}

/** Returns `spkiDigest` as base64url. */
export function spkiHashOf(key: KeyObject): string {
  return spkiDigest(key).toString('base64url');
}

/** Returns the AlgorithmIdentifier of signatures by `key`. */
export function signatureAlgorithmOf(key: KeyObject): Asn1 {
  return SCHEMES[keyTypeOf(key)].algorithm;
}

/** Signs `tbs` and returns `SEQUENCE { tbs, signatureAlgorithm, signature }`: a certificate, request or CRL. */
export function signed(tbs: Asn1, privateKey: KeyObject): Buffer {
  const { algorithm, hash } = SCHEMES[keyTypeOf(privateKey)];
  return encode(sequence(tbs, algorithm, bitString(crypto.sign(hash, encode(tbs), privateKey))));
}

/**
 * Whether `publicKey` has signed `tbs`, and `algorithm` equals the only identifier that is accepted for its type. None
 * of them uses SHA-1.
 */
export function isSignedBy(
  publicKey: KeyObject,
  tbs: Uint8Array,
  algorithm: Uint8Array,
  signature: Uint8Array
): boolean {
  const scheme = SCHEMES[keyTypeOf(publicKey)];
  if (!encode(scheme.algorithm).equals(algorithm)) return false;
  try {
    return crypto.verify(scheme.hash, tbs, publicKey, signature);
  } catch {
    return false; // OpenSSL could not read the signature.
  }
}

function keyTypeOf(key: KeyObject): KeyType {
  const details = key.asymmetricKeyDetails;
  switch (key.asymmetricKeyType) {
    case 'ed25519':
      return 'ed25519';
    case 'ec':
      if (details?.namedCurve === 'prime256v1') return 'p256';
      throw new CertificateError(`curve ${details?.namedCurve} is not accepted, only P-256`);
    case 'rsa': {
      const bits = details?.modulusLength ?? 0;
      const exponent = details?.publicExponent ?? 0n;
      if (bits < MIN_RSA_BITS || bits > MAX_RSA_BITS) {
        throw new CertificateError(
          `an RSA key of ${bits} bits is not accepted, only ${MIN_RSA_BITS} to ${MAX_RSA_BITS}`
        );
      }
      if (exponent < MIN_RSA_EXPONENT || exponent > MAX_RSA_EXPONENT || exponent % 2n === 0n) {
        throw new CertificateError(`RSA exponent ${exponent} is not accepted`);
      }
      return 'rsa';
    }
    default:
      throw new CertificateError(`a key of type ${key.asymmetricKeyType} is not accepted`);
  }
}

function generate(type: KeyType): { privateKey: KeyObject; publicKey: KeyObject } {
  switch (type) {
    case 'p256':
      return crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
    case 'ed25519':
      return crypto.generateKeyPairSync('ed25519');
    case 'rsa':
      return crypto.generateKeyPairSync('rsa', { modulusLength: GENERATED_RSA_BITS });
    default:
      return checkThat('keyType', type, false, 'p256, ed25519 or rsa');
  }
}

interface Scheme {
  readonly algorithm: Asn1;
  /** The digest for `crypto.sign`; null for Ed25519, which includes one. */
  readonly hash: string | null;
}

const SCHEMES: Readonly<Record<KeyType, Scheme>> = {
  p256: { algorithm: sequence(oid('1.2.840.10045.4.3.2')), hash: 'sha256' },
  ed25519: { algorithm: sequence(oid('1.3.101.112')), hash: null },
  rsa: { algorithm: sequence(oid('1.2.840.113549.1.1.11'), nothing()), hash: 'sha256' },
};
const P256_ALGORITHM = '301306072a8648ce3d020106082a8648ce3d030107';
/** AlgorithmIdentifiers of public keys, DER in hexadecimal. */
const ACCEPTED_ALGORITHMS: ReadonlySet<string> = new Set([
  P256_ALGORITHM,
  '300506032b6570', // id-Ed25519
  '300d06092a864886f70d0101010500', // rsaEncryption
]);
const BIT_STRING = 0x03;
/** The tag `[0]`. */
const VERSION = 0xa0;
const HASHES = new WeakMap<X509Certificate, string>();
const GENERATED_RSA_BITS = 3072;
const MIN_RSA_BITS = 2048;
/** Bounds the cost of verifying with the key of an unauthenticated peer. */
const MAX_RSA_BITS = 4096;
const MIN_RSA_EXPONENT = 65_537n;
const MAX_RSA_EXPONENT = 0xffff_ffffn;
