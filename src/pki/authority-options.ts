/**
 * The options, results and events of `CertificateAuthority`.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { checkClock, checkMethods, checkObject, checkThat } from '../base/option-check.ts';
import type { Store } from '../store/store.ts';
import type { CaMaterial } from './ca.ts';
import { checkLifetime, DAY_MS, HOUR_MS } from './certificate.ts';
import { checkTrustDomain, type GatewayIdentity } from './names.ts';
import type { RevocationScope } from './revocation-index.ts';

export interface CertificateAuthorityOptions extends CaMaterial {
  /** Lower-case DNS name that is part of every identity. */
  readonly trustDomain: string;
  readonly store: Store;
  /** Lifetime of a gateway's certificate in ms; default 30 days. */
  readonly certificateLifetimeMs?: number;
  /** How long a CRL is valid, in ms; default 7 days. */
  readonly crlLifetimeMs?: number;
  /** The CA that was prepared by `prepareCa`; default none. */
  readonly next?: CaMaterial;
  /** The CA that `activateCa` replaced, until `retireCa`; default none. */
  readonly previous?: CaMaterial;
  /** Default: the system's clock. */
  readonly clock?: Clock;
}

/** The defaults of `CertificateAuthorityOptions`; times are in ms. */
export const CERTIFICATE_AUTHORITY_DEFAULTS: Readonly<{
  certificateLifetimeMs: number;
  crlLifetimeMs: number;
}> = Object.freeze({ certificateLifetimeMs: 30 * DAY_MS, crlLifetimeMs: 7 * DAY_MS });

/** The defaults of `TokenOptions`; times are in ms. */
export const TOKEN_DEFAULTS: Readonly<{ lifetimeMs: number }> = Object.freeze({
  lifetimeMs: HOUR_MS,
});

export interface IssuedCertificate {
  /** The gateway's certificate, then the certificates that lead to the trust anchors. */
  readonly certificatePem: string;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly identity: GatewayIdentity;
}

export interface IssueOptions {
  /** In ms, 1 s to 100 years; default `certificateLifetimeMs`. No certificate outlives the CA. */
  readonly lifetimeMs?: number;
  /**
   * Whether an expired CA issues a certificate that expired with it; default false, which refuses.
   * A gateway needs a certificate to open its ports; no peer accepts an expired one until another CA signs.
   */
  readonly evenIfExpired?: boolean;
}

/** Stores the CAs as they are after a step of a rollover. The step takes effect when it resolves. */
export type KeepStep = () => Promise<void> | void;

export interface TokenOptions {
  readonly site: string;
  /** One to eight addresses of an `EnrolmentServer`: `https://host:port`. */
  readonly endpoints: readonly string[];
  /** In ms; default one hour. */
  readonly lifetimeMs?: number;
}

/** A request to redeem a token. */
export interface Redemption {
  readonly tokenId: string;
  readonly secret: string;
  readonly csrPem: string;
}

export interface RedeemOptions {
  /**
   * Decides about the site, after all other checks and before the token is used and the certificate is signed.
   * If it rejects, `enrol` rejects with the same error, and the token stays valid. Default: every site may enrol.
   */
  readonly authorize?: ((site: string) => Promise<void>) | undefined;
}

export interface AuthorityEvents {
  /**
   * A site or a certificate was revoked, here or by another process on the same store. `isRevoked` already
   * returns true. Close the connections of its holder.
   */
  revoked: [scope: RevocationScope];
  /** A step of a rollover in this process has changed the signing CA, the trust bundle or the chain. */
  trust: [];
}

/** The options with defaults filled in. */
export interface AuthoritySettings {
  readonly trustDomain: string;
  readonly store: Store;
  readonly certificateLifetimeMs: number;
  readonly crlLifetimeMs: number;
  readonly clock: Clock;
}

/**
 * @throws {CertificateError} if the trust domain is not a lower-case DNS name.
 * @throws {ApiMisuseError} if an option is invalid.
 */
export function resolveAuthority(options: CertificateAuthorityOptions): AuthoritySettings {
  const {
    trustDomain,
    store,
    next,
    previous,
    certificateLifetimeMs = CERTIFICATE_AUTHORITY_DEFAULTS.certificateLifetimeMs,
    crlLifetimeMs = CERTIFICATE_AUTHORITY_DEFAULTS.crlLifetimeMs,
  } = checkObject('the options of CertificateAuthority', options);
  checkTrustDomain(trustDomain);
  checkMethods('store', store, ['get', 'list', 'commit', 'watch']);
  checkMaterial('', options);
  if (next !== undefined) checkMaterial('next.', checkObject('next', next));
  if (previous !== undefined) checkMaterial('previous.', checkObject('previous', previous));
  checkLifetime('certificateLifetimeMs', certificateLifetimeMs);
  checkLifetime('crlLifetimeMs', crlLifetimeMs);
  const clock = checkClock(options.clock);
  return { trustDomain, store, certificateLifetimeMs, crlLifetimeMs, clock };
}

/** @throws {ApiMisuseError} if a part is not a string; the content of the strings is checked later. */
export function checkMaterial(at: string, material: CaMaterial): void {
  const { certificatePem, privateKeyPem, passphrase = '' } = material;
  for (const [name, value] of Object.entries({ certificatePem, privateKeyPem, passphrase })) {
    checkThat(`${at}${name}`, value, typeof value === 'string', 'a text');
  }
}
