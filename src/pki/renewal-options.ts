/**
 * What `CertificateRenewer` is given, and what it tells.
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
  /** What is in use now. */
  readonly credentials: Credentials;
  /** Has the CA answer a signing request, for example over the control channel. */
  readonly renew: (csrPem: string) => Promise<RenewedCertificate>;
  /**
   * Stores credentials, then puts them to use. What it throws is a failure, and it is tried again.
   * It is never called a second time before the first is done, so it must come to an end.
   */
  readonly apply: (credentials: Credentials) => Promise<void> | void;
  /** Whether each certificate is for a new P-256 key; default true. False keeps the key there is. */
  readonly newKey?: boolean;
  /** How long `renew` may take, in ms, at most an hour; default 30 s. */
  readonly timeoutMs?: number;
  /** Numbers from 0 to below 1; default `Math.random`. */
  readonly random?: () => number;
  /** By which certificates hold, and by which it waits; default that of the system. It keeps no process alive. */
  readonly clock?: Clock;
}

/** What is used where an option is absent; times are in ms. */
export const CERTIFICATE_RENEWER_DEFAULTS: Readonly<{ newKey: boolean; timeoutMs: number }> =
  Object.freeze({ newKey: true, timeoutMs: 30_000 });

/** `due`: it ought to be renewed, and that is under way or waits to be tried again. */
export type RenewalState = 'valid' | 'due' | 'expired';

export interface RenewalEvents {
  /** A new certificate is in use. */
  renewed: [credentials: Credentials];
  /** A renewal or a trust bundle failed; the next try is in so many ms if nobody asks before. */
  problem: [problem: { readonly error: Error; readonly retryInMs: number }];
  /** The certificate has run out; once for each. */
  expired: [expired: { readonly notAfter: Date }];
  state: [change: { readonly state: RenewalState; readonly previous: RenewalState }];
}

/** @throws {ApiMisuseError} if an option is not what it must be; what the credentials say is looked at later. */
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

/** Far below what `setTimeout` can count, 2^31 ms. */
export const LONGEST_WAIT_MS = 3_600_000;
