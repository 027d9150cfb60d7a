/**
 * The options, states and events of `CertificateRenewer`.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import {
  checkClock,
  checkFlag,
  checkFunction,
  checkObject,
  checkThat,
} from '../base/option-check.ts';
import type { Credentials } from './credentials.ts';
import type { RenewedCertificate } from './credentials-check.ts';

export interface CertificateRenewerOptions {
  /** The credentials in use now. */
  readonly credentials: Credentials;
  /** Sends a signing request to the CA, for example over the control channel, and returns its answer. */
  readonly renew: (csrPem: string) => Promise<RenewedCertificate>;
  /**
   * Stores credentials, then puts them to use. If it throws, the renewal has failed and is tried again. The next call
   * begins only after the one before has ended, so it must not wait for ever.
   */
  readonly apply: (credentials: Credentials) => Promise<void> | void;
  /** Whether each certificate is for a new P-256 key; default true. False keeps the present key. */
  readonly newKey?: boolean;
  /** How long `renew` may take, in ms, at most an hour; default 30 s. */
  readonly timeoutMs?: number;
  /** Returns a number from 0 to below 1; default `Math.random`. */
  readonly random?: () => number;
  /** Measures validity and waiting; default: the system's clock. Its timers do not keep the process alive. */
  readonly clock?: Clock;
}

/** The defaults of `CertificateRenewerOptions`; times are in ms. */
export const CERTIFICATE_RENEWER_DEFAULTS: Readonly<{ newKey: boolean; timeoutMs: number }> =
  Object.freeze({ newKey: true, timeoutMs: 30_000 });

/** `due`: the certificate should be renewed; a renewal is in progress or will be tried again. */
export type RenewalState = 'valid' | 'due' | 'expired';

export interface RenewalEvents {
  /** A new certificate is in use. */
  renewed: [credentials: Credentials];
  /** A renewal or a trust bundle failed. It is tried again in `retryInMs`, or earlier if asked for. */
  problem: [problem: { readonly error: Error; readonly retryInMs: number }];
  /** The certificate has expired; emitted once for each certificate. */
  expired: [expired: { readonly notAfter: Date }];
  state: [change: { readonly state: RenewalState; readonly previous: RenewalState }];
}

/** @throws {ApiMisuseError} if an option is invalid; the content of the credentials is checked later. */
export function resolveCertificateRenewer(
  options: CertificateRenewerOptions
): Required<CertificateRenewerOptions> {
  const {
    credentials,
    renew,
    apply,
    newKey = CERTIFICATE_RENEWER_DEFAULTS.newKey,
    timeoutMs = CERTIFICATE_RENEWER_DEFAULTS.timeoutMs,
    random = Math.random,
    clock,
  } = checkObject('the options of CertificateRenewer', options);
  const { key, cert, ca } = checkObject('credentials', credentials);
  for (const [name, text] of Object.entries({ key, cert, ca })) {
    checkThat(`credentials.${name}`, text, typeof text === 'string', 'a text');
  }
  checkFunction('renew', renew);
  checkFunction('apply', apply);
  checkFlag('newKey', newKey);
  const isTime = typeof timeoutMs === 'number' && timeoutMs > 0 && timeoutMs <= LONGEST_WAIT_MS;
  checkThat('timeoutMs', timeoutMs, isTime, 'above 0 and at most an hour, in ms');
  checkFunction('random', random);
  return { credentials, renew, apply, newKey, timeoutMs, random, clock: checkClock(clock) };
}

/** Far below the limit of `setTimeout`, 2^31 ms. */
export const LONGEST_WAIT_MS = 3_600_000;
