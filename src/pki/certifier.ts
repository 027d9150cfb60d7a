/**
 * Signs the certificates of gateways with the current CA, and records each in the store before returning it.
 * @module
 */
import type { KeyObject } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { CertificateError, StoreConflictError } from '../errors.ts';
import type { Store, Write } from '../store/store.ts';
import type { IssuedCertificate } from './authority-options.ts';
import type { Ca } from './ca.ts';
import type { CaRollover } from './ca-rollover.ts';
import { checkLifetime, randomSerial, signEndEntity, validityOf } from './certificate.ts';
import { mustNotExist } from './commits.ts';
import { spkiHashOf } from './keys.ts';
import { formatIdentity, type GatewayIdentity } from './names.ts';
import { siteRevocationKey, spkiRevocationKey } from './revocation-index.ts';
import type { Revocations } from './revocations.ts';

export interface CertifierOptions {
  readonly trustDomain: string;
  readonly rollover: CaRollover;
  readonly store: Store;
  readonly revocations: Revocations;
  readonly clock: Clock;
}

/** What is committed together with the record of a certificate, and how it is signed. */
export interface Conditions {
  readonly write?: Write;
  /** Store keys that must be absent. */
  readonly absent?: readonly string[];
  /** Whether an expired CA issues a certificate that expired with it. */
  readonly evenIfExpired?: boolean;
}

export class Certifier {
  readonly #options: CertifierOptions;

  constructor(options: CertifierOptions) {
    this.#options = options;
  }

  /**
   * Checks the key and the CA as `certify` does, but against this process's memory only.
   *
   * @throws {CertificateError} if the key is revoked or the CA has expired.
   */
  check(publicKey: KeyObject): void {
    const { rollover, revocations, clock } = this.#options;
    if (revocations.hasKey(spkiHashOf(publicKey))) throw keyRevoked();
    rollover.current.checkExpiry(clock.wallMs());
  }

  /**
   * Signs and records a certificate.
   *
   * @throws {CertificateError} if the identity is of another trust domain, the key is revoked, or the CA
   * has expired.
   * @throws {StoreConflictError} if the site is revoked or a condition does not hold.
   */
  async certify(
    publicKey: KeyObject,
    identity: GatewayIdentity,
    lifetimeMs: number,
    { write, absent = [], evenIfExpired = false }: Conditions = {}
  ): Promise<IssuedCertificate> {
    const { trustDomain, rollover, store, revocations, clock } = this.#options;
    if (identity.trustDomain !== trustDomain) {
      throw new CertificateError(`this CA is for ${trustDomain}, not for ${identity.trustDomain}`);
    }
    checkLifetime('lifetimeMs', lifetimeMs);
    const spkiHash = spkiHashOf(publicKey);
    if (revocations.hasKey(spkiHash)) throw keyRevoked();
    const { current: ca, chainPem } = rollover;
    const clockMs = clock.wallMs();
    const nowMs = evenIfExpired ? timeToSign(ca, lifetimeMs, clockMs) : clockMs;
    ca.checkExpiry(nowMs);
    const validity = validityOf(nowMs, lifetimeMs, ca.notAfterMs);
    const serial = randomSerial();
    const leafPem = signEndEntity(ca.issuer, publicKey, identity, serial, validity);
    const record = { serial, identity: formatIdentity(identity), spkiHash, issuer: ca.id };
    // Another process may have revoked the key without this one knowing, so the commit checks it too. The set is
    // there because etcd accepts each store key only once in a transaction.
    const ofKey = spkiRevocationKey(spkiHash);
    const guards = new Set([...absent, ofKey]);
    if (identity.role === 'site') guards.add(siteRevocationKey(identity.site));
    try {
      await store.commit([
        revocations.ledgers.certificates.entry({ ...record, ...validity }),
        ...[...guards].map(mustNotExist),
        ...(write === undefined ? [] : [write]),
      ]);
    } catch (error) {
      const isConflict = error instanceof StoreConflictError;
      throw isConflict && (await store.get(ofKey)) !== undefined ? keyRevoked() : error;
    }
    return {
      certificatePem: leafPem + chainPem,
      serial,
      notBefore: new Date(validity.notBeforeMs),
      notAfter: new Date(validity.notAfterMs),
      identity,
    };
  }
}

/** Returns now; for an expired CA, a time at which it could still sign for this lifetime. */
function timeToSign({ notAfterMs, signing }: Ca, lifetimeMs: number, nowMs: number): number {
  if (nowMs < notAfterMs) return nowMs;
  return Math.max(notAfterMs - lifetimeMs, signing.notBeforeMs);
}

function keyRevoked(): CertificateError {
  return new CertificateError('the key belongs to a revoked certificate; make a new one');
}
