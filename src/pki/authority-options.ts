/**
 * What `CertificateAuthority` is given, what it gives back, and what it tells.
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
  /** Lower-case DNS name that stands in every identity. */
  readonly trustDomain: string;
  readonly store: Store;
  /** Lifetime of a gateway's certificate in ms; default 30 days. */
  readonly certificateLifetimeMs?: number;
  /** How long a CRL holds, in ms; default 7 days. */
  readonly crlLifetimeMs?: number;
  /** The CA that was prepared to follow; default none. */
  readonly next?: CaMaterial;
  /** The CA that was followed and is not retired; default none. */
  readonly previous?: CaMaterial;
  /** Default: that of the system. */
  readonly clock?: Clock;
}

/** What is used where an option is absent; times are in ms. */
export const CERTIFICATE_AUTHORITY_DEFAULTS: Readonly<{
  certificateLifetimeMs: number;
  crlLifetimeMs: number;
}> = Object.freeze({ certificateLifetimeMs: 30 * DAY_MS, crlLifetimeMs: 7 * DAY_MS });

/** What is used where an option is absent; times are in ms. */
export const TOKEN_DEFAULTS: Readonly<{ lifetimeMs: number }> = Object.freeze({
  lifetimeMs: HOUR_MS,
});

export interface IssuedCertificate {
  /** The gateway's certificate, and behind it what leads to the trust anchors. */
  readonly certificatePem: string;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly identity: GatewayIdentity;
}

export interface IssueOptions {
  /** In ms, 1 s to 100 years; default `certificateLifetimeMs` of the authority. The CA's end cuts it short. */
  readonly lifetimeMs?: number;
  /**
   * Whether a CA that has run out issues a certificate that ran out with it; default false, which refuses it.
   * A gateway needs one to open its ports, and shows it to nobody's avail until another CA signs.
   */
  readonly evenIfExpired?: boolean;
}

/** Stores what a step of a change of CA changes; the step is in force when it is done. */
export type KeepStep = () => Promise<void> | void;

export interface TokenOptions {
  readonly site: string;
  /** Where the site finds an `EnrolmentServer`: `https://host:port`, one to eight. */
  readonly endpoints: readonly string[];
  /** Default one hour. */
  readonly lifetimeMs?: number;
}

export interface Redemption {
  readonly tokenId: string;
  readonly secret: string;
  readonly csrPem: string;
}

export interface RedeemOptions {
  /**
   * Is asked about the site when everything else has passed, before the token is spent and the certificate is signed.
   * What it rejects with is thrown on, and the token stays good. Default: every site may enrol.
   */
  readonly authorize?: ((site: string) => Promise<void>) | undefined;
}

export interface AuthorityEvents {
  /**
   * A site or a certificate was revoked, here or by another process on the same store; `isRevoked`
   * knows already. Close what it has open.
   */
  revoked: [scope: RevocationScope];
  /** Who signs, who is trusted or what is shown has changed: by a step of a rollover in this process. */
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
 * @throws {ApiMisuseError} if an option is not what it must be.
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

/** @throws {ApiMisuseError} if a part of it is no text; what the texts say is looked at later. */
export function checkMaterial(at: string, material: CaMaterial): void {
  const { certificatePem, privateKeyPem, passphrase = '' } = material;
  for (const [name, value] of Object.entries({ certificatePem, privateKeyPem, passphrase })) {
    checkThat(`${at}${name}`, value, typeof value === 'string', 'a text');
  }
}
