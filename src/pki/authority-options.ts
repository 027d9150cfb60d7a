/**
 * What `CertificateAuthority` is given, what it gives back, and what it tells.
 * @module
 */
import type { Store } from '../store/store.ts';
import type { CaMaterial, GenerateCaOptions } from './ca.ts';
import type { GatewayIdentity } from './names.ts';
import type { RevocationScope } from './revocation-index.ts';

export interface AuthorityOptions {
  /** Lower-case DNS name that stands in every identity. */
  readonly trustDomain: string;
  readonly store: Store;
  /** Lifetime of a gateway's certificate in ms; default 30 days. */
  readonly certificateLifetimeMs?: number;
  /** How long a CRL holds, in ms; default 7 days. */
  readonly crlLifetimeMs?: number;
  /** Time in ms since 1970; default `Date.now`. */
  readonly now?: () => number;
  /** In ms, of a clock that never goes back; default `performance.now`. */
  readonly monotonicNow?: () => number;
}

export interface CreateAuthorityOptions extends AuthorityOptions, GenerateCaOptions {}

export interface LoadAuthorityOptions extends AuthorityOptions, CaMaterial {
  /** The CA that was prepared to follow. */
  readonly next?: CaMaterial;
  /** The CA that was followed and is not retired. */
  readonly previous?: CaMaterial;
}

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
  revoked: (scope: RevocationScope) => void;
  /** Who signs, who is trusted or what is shown has changed: by a step of a rollover in this process. */
  trust: () => void;
}
