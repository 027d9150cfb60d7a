/**
 * One CA: a signing key and the chain of certificates from it up to a root. `generateCa` makes one; an operator
 * may provide another, with or without intermediates.
 * @module
 */
import crypto, { type KeyObject, type X509Certificate } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { checkClock, checkFlag, checkObject } from '../base/option-check.ts';
import { CertificateError } from '../errors.ts';
import { CaCertificate, fitsPathLengths } from './ca-certificate.ts';
import {
  type CaSubject,
  checkLifetime,
  DAY_MS,
  type Issuer,
  signCa,
  validityOf,
} from './certificate.ts';
import { readCertificates } from './credentials-check.ts';
import { commonName, decode } from './der.ts';
import {
  generateGatewayKey,
  type KeyType,
  readPrivateKey,
  spkiDigest,
  spkiHashOf,
} from './keys.ts';
import { checkTrustDomain } from './names.ts';

/** The form in which a CA is stored. */
export interface CaMaterial {
  /**
   * PEM texts, one after another: the signing certificate first, then each issuer, up to the self-signed root.
   */
  readonly certificatePem: string;
  /** PKCS#8, encrypted or not. */
  readonly privateKeyPem: string;
  /** The passphrase of the private key. Default: the key is not encrypted. */
  readonly passphrase?: string;
}

export interface GenerateCaOptions {
  /** Lower-case DNS name that is part of every identity. */
  readonly trustDomain: string;
  /** Default `p256`. */
  readonly keyType?: KeyType;
  /** Whether an intermediate CA signs for the gateways, so that the root's key can be kept offline; default false. */
  readonly intermediate?: boolean;
  /** Lifetime of the root certificate in ms; default 10 years. */
  readonly rootLifetimeMs?: number;
  /** Lifetime of the intermediate certificate in ms; it never outlives the root. Default 3 years. */
  readonly intermediateLifetimeMs?: number;
  /** Default: the system's clock. */
  readonly clock?: Clock;
}

/** The defaults of `GenerateCaOptions`; times are in ms. */
export const GENERATE_CA_DEFAULTS: Readonly<{
  keyType: KeyType;
  intermediate: boolean;
  rootLifetimeMs: number;
  intermediateLifetimeMs: number;
}> = Object.freeze({
  keyType: 'p256',
  intermediate: false,
  rootLifetimeMs: 3650 * DAY_MS,
  intermediateLifetimeMs: 1095 * DAY_MS,
});

/** A new CA; its keys are PKCS#8, not encrypted. */
export interface GeneratedCa extends CaMaterial {
  /** Equals `privateKeyPem` without an intermediate; with one, keep this key elsewhere. */
  readonly rootPrivateKeyPem: string;
}

/** A CA that is ready to sign. */
export class Ca {
  readonly issuer: Issuer;
  /** The signing certificate first, the root last. */
  readonly chain: readonly CaCertificate[];
  /** SHA-256 of the signing key's SubjectPublicKeyInfo, base64url. */
  readonly id: string;
  /** SHA-256 of the root key's SubjectPublicKeyInfo, base64url. */
  readonly rootId: string;
  /** Whether this CA has issued a certificate. Each change of the CA asks about the certificates of all tunnels. */
  readonly #issued = new WeakMap<X509Certificate, boolean>();

  /**
   * @throws {CertificateError} if the key cannot be read or does not belong to the first certificate, if the
   * chain is broken or does not end in a root, or if a certificate is not a CA's or is of another trust domain.
   */
  constructor({ certificatePem, privateKeyPem, passphrase }: CaMaterial, trustDomain: string) {
    const privateKey = readPrivateKey(privateKeyPem, passphrase);
    this.chain = readCertificates(certificatePem).map((it) => new CaCertificate(it, trustDomain));
    const { x509, subject, keyId } = this.signing;
    if (!x509.checkPrivateKey(privateKey)) {
      throw new CertificateError('the private key is not that of the CA certificate');
    }
    checkChain(this.chain);
    this.issuer = { privateKey, name: decode(subject), keyId };
    this.id = spkiHashOf(x509.publicKey);
    this.rootId = spkiHashOf(this.root.x509.publicKey);
  }

  /** The certificate whose key signs. */
  get signing(): CaCertificate {
    return this.chain[0]!;
  }

  get root(): CaCertificate {
    return this.chain.at(-1)!;
  }

  get rootPem(): string {
    return this.root.x509.toString();
  }

  /** The certificates between a gateway's certificate and the root. */
  get intermediatesPem(): string {
    return this.chain
      .slice(0, -1)
      .map(({ x509 }) => x509.toString())
      .join('');
  }

  /** When the first certificate of the chain expires. */
  get notAfterMs(): number {
    return Math.min(...this.chain.map(({ notAfterMs }) => notAfterMs));
  }

  /** @throws {CertificateError} if a certificate of the chain has expired. */
  checkExpiry(nowMs: number): void {
    const expired = this.chain.find(({ notAfterMs }) => !(nowMs < notAfterMs));
    if (expired !== undefined) {
      throw new CertificateError(`the CA certificate expired at ${expired.x509.validTo}`);
    }
  }

  hasIssued(certificate: X509Certificate): boolean {
    let hasIssued = this.#issued.get(certificate);
    if (hasIssued === undefined) {
      hasIssued = this.signing.hasIssued(certificate);
      this.#issued.set(certificate, hasIssued);
    }
    return hasIssued;
  }

  /**
   * Signs the root of `next` with this CA's key ("NewWithOld", RFC 4210 section 4.4). A gateway that trusts only
   * this CA's root can then accept certificates of `next`. The cross certificate is valid while both CAs are.
   *
   * @returns PEM; undefined if both CAs have the same root, their validities do not overlap, or a path length
   * forbids it. An intermediate made by `generateCa` permits no CA below it, so it never signs one.
   */
  crossCertify(next: Ca, trustDomain: string): string | undefined {
    const { x509, subject, keyId, pathLength, notBeforeMs, notAfterMs } = next.root;
    const validity = {
      notBeforeMs: Math.max(this.signing.notBeforeMs, notBeforeMs),
      notAfterMs: Math.min(this.notAfterMs, notAfterMs),
    };
    const cross = { pathLength, isSelfIssued: subject.equals(this.signing.subject) };
    const path = [...this.chain.toReversed(), cross, ...next.chain.slice(0, -1).toReversed()];
    if (next.rootId === this.rootId || !fitsPathLengths(path)) return undefined;
    if (validity.notBeforeMs >= validity.notAfterMs) return undefined;
    const crossed: CaSubject = {
      publicKey: x509.publicKey,
      name: decode(subject),
      keyId,
      pathLength: Number.isFinite(pathLength) ? pathLength : undefined,
      trustDomain,
    };
    return signCa(this.issuer, crossed, validity);
  }
}

/**
 * Makes a CA with new keys. Keep it where nobody else can read it. With an intermediate, keep the root's key
 * offline: it is needed only to make the next intermediate.
 *
 * @throws {CertificateError} if the trust domain is not a lower-case DNS name.
 * @throws {ApiMisuseError} if a lifetime is not 1 s to 100 years, or the key type is unknown.
 */
export function generateCa(options: GenerateCaOptions): GeneratedCa {
  const {
    trustDomain,
    keyType = GENERATE_CA_DEFAULTS.keyType,
    intermediate = GENERATE_CA_DEFAULTS.intermediate,
    rootLifetimeMs = GENERATE_CA_DEFAULTS.rootLifetimeMs,
    intermediateLifetimeMs = GENERATE_CA_DEFAULTS.intermediateLifetimeMs,
  } = checkObject('the options of generateCa', options);
  checkTrustDomain(trustDomain);
  checkFlag('intermediate', intermediate);
  checkLifetime('rootLifetimeMs', rootLifetimeMs);
  checkLifetime('intermediateLifetimeMs', intermediateLifetimeMs);
  const nowMs = checkClock(options.clock).wallMs();
  const root = newKey(keyType);
  const rootSubject = subjectOf(
    root.key,
    `${trustDomain} gateways`,
    intermediate ? 1 : 0,
    trustDomain
  );
  const rootIssuer = { ...rootSubject, privateKey: root.key };
  const rootPem = signCa(rootIssuer, rootSubject, validityOf(nowMs, rootLifetimeMs));
  const rootPrivateKeyPem = root.pem;
  if (!intermediate) {
    return { certificatePem: rootPem, privateKeyPem: root.pem, rootPrivateKeyPem };
  }
  const signing = newKey(keyType);
  const certificatePem = signCa(
    rootIssuer,
    // The name differs from the root's, so that the certificate is not self-issued and counts for path lengths.
    subjectOf(signing.key, `${trustDomain} gateways, issuing`, 0, trustDomain),
    validityOf(nowMs, intermediateLifetimeMs, nowMs + rootLifetimeMs)
  );
  return {
    certificatePem: certificatePem + rootPem,
    privateKeyPem: signing.pem,
    rootPrivateKeyPem,
  };
}

/** @throws {CertificateError} unless each certificate is issued by the next one, and the last by itself. */
function checkChain(chain: readonly CaCertificate[]): void {
  chain.forEach((certificate, at) => {
    const issuer = chain[at + 1];
    if (issuer !== undefined && !issuer.hasIssued(certificate.x509)) {
      throw new CertificateError(
        `certificate ${at + 2} of the CA's chain has not issued certificate ${at + 1}`
      );
    }
  });
  const root = chain.at(-1)!;
  if (!root.hasIssued(root.x509)) {
    throw new CertificateError("the CA's chain does not end in a self-signed root certificate");
  }
  if (!fitsPathLengths(chain.toReversed())) {
    throw new CertificateError("a path length of the CA's chain forbids the certificates below it");
  }
}

function newKey(type: KeyType): { pem: string; key: KeyObject } {
  const { privateKeyPem } = generateGatewayKey(type);
  return { pem: privateKeyPem, key: readPrivateKey(privateKeyPem) };
}

function subjectOf(
  privateKey: KeyObject,
  name: string,
  pathLength: number,
  trustDomain: string
): CaSubject {
  const publicKey = crypto.createPublicKey(privateKey);
  const keyId = spkiDigest(publicKey);
  return { publicKey, name: commonName(name), keyId, pathLength, trustDomain };
}
