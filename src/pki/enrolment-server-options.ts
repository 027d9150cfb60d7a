/**
 * The options, events and counters of `EnrolmentServer`.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import {
  type ConnectionLimiterOptions,
  resolveLimiterOptions,
} from '../base/connection-limiter.ts';
import type { HostPort } from '../base/host-port.ts';
import {
  checkClock,
  checkDuration,
  checkFunction,
  checkMethods,
  checkObject,
  checkPositive,
} from '../base/option-check.ts';
import type { CertificateAuthority } from './authority.ts';
import type { EnrolmentRefusal } from './enrolment-message.ts';

export interface EnrolmentServerOptions extends ConnectionLimiterOptions {
  readonly authority: CertificateAuthority;
  /** How many redemptions may be in progress at once; more are answered 503. Default 32. */
  readonly maxRedemptions?: number;
  /** The most bytes in the body of a request; default 32 KiB. */
  readonly maxBodyBytes?: number;
  /** The time from connection to answer, including the handshake, in ms; default 10 s. */
  readonly timeoutMs?: number;
  /** Lifetime of the server certificate in ms; it is renewed at half of it. Default 30 days. */
  readonly certificateLifetimeMs?: number;
  /**
   * Returns the endpoints of the cloud's tunnels, at most 16, for the answer to a site that has enrolled. It is called
   * for each redemption. If it throws, the server answers with an internal error, and the token stays valid. Default:
   * no endpoints.
   */
  readonly tunnels?: () => readonly HostPort[];
  /**
   * Decides whether a site may enrol, for example by asking an inventory. It is called when the token and the signing
   * request are valid, before the token is used. A result other than undefined, or an error, refuses the site, and the
   * token stays valid. It has until the end of `timeoutMs` but should answer soon: the site waits for 10 s by default,
   * and the redemption counts towards `maxRedemptions`. Default: every site may enrol.
   */
  readonly authorize?: AuthorizeEnrolment;
  /** Default: the system's clock. */
  readonly clock?: Clock;
}

/** A site that wants to enrol and whose token is valid. */
export interface EnrolmentCandidate {
  readonly site: string;
  readonly remoteAddress: string;
}

/**
 * Returns undefined if the site may enrol, else the reason why it may not. The site receives the first 300 characters
 * of the reason, without control characters.
 */
export type AuthorizeEnrolment = (
  candidate: EnrolmentCandidate
) => string | undefined | Promise<string | undefined>;

/** The defaults of `EnrolmentServerOptions`; times are in ms. The default of `burst` is 4 times `maxRate`. */
export const ENROLMENT_SERVER_DEFAULTS: Readonly<{
  maxPending: number;
  maxRate: number;
  maxRedemptions: number;
  maxBodyBytes: number;
  timeoutMs: number;
  certificateLifetimeMs: number;
}> = Object.freeze({
  maxPending: 64,
  maxRate: 50,
  maxRedemptions: 32,
  maxBodyBytes: 32_768,
  timeoutMs: 10_000,
  certificateLifetimeMs: 30 * 24 * 3_600_000,
});

/** The outcome of a well-formed request, for an audit log. */
export interface EnrolmentOutcome {
  readonly remoteAddress: string;
  /** The site that got a certificate or was not authorized. Absent if the token was refused for another reason. */
  readonly site?: string;
  /** The serial number of the certificate, lower-case hex. */
  readonly serial?: string;
  /** The refusal, as it is sent to the client. */
  readonly refused?: EnrolmentRefusal;
}

export interface EnrolmentServerEvents {
  /** A token was redeemed or refused. The answer is sent after this event. */
  outcome: [outcome: EnrolmentOutcome];
  /** Something is wrong with the server. The client receives only "internal error". */
  problem: [problem: { readonly error: Error }];
}

/** Cumulative since the server was made. */
export interface EnrolmentCounters {
  /** All connections, including those that were refused at once. */
  connections: number;
  /** Closed at once because their address exceeded `maxRate`. */
  rateLimited: number;
  /** Closed to admit another because `maxPending` were open. */
  evicted: number;
  /** Closed because they took too long. */
  timeouts: number;
  /** Failed TLS handshakes of admitted connections. */
  handshakeFailures: number;
  enrolled: number;
  /** Answered 4xx: an unknown request, or a token or signing request that is not acceptable. */
  refused: number;
  /** Answered 503 because `maxRedemptions` were in progress. */
  busy: number;
  /** Answered 5xx for another reason. */
  failed: number;
}

export interface EnrolmentServerSettings {
  readonly authority: CertificateAuthority;
  readonly limits: Required<ConnectionLimiterOptions>;
  readonly maxRedemptions: number;
  readonly maxBodyBytes: number;
  readonly timeoutMs: number;
  readonly certificateLifetimeMs: number;
  readonly tunnels: () => readonly HostPort[];
  readonly authorize: AuthorizeEnrolment | undefined;
  readonly clock: Clock;
}

/** @throws {ApiMisuseError} if an option is invalid. */
export function resolveEnrolmentServer(options: EnrolmentServerOptions): EnrolmentServerSettings {
  checkObject('the options', options);
  const {
    maxRedemptions = ENROLMENT_SERVER_DEFAULTS.maxRedemptions,
    maxBodyBytes = ENROLMENT_SERVER_DEFAULTS.maxBodyBytes,
    timeoutMs = ENROLMENT_SERVER_DEFAULTS.timeoutMs,
    certificateLifetimeMs = ENROLMENT_SERVER_DEFAULTS.certificateLifetimeMs,
    tunnels = () => [],
    authorize,
  } = options;
  return {
    authority: checkMethods('authority', options.authority, ['enrol', 'issue']),
    limits: resolveLimiterOptions(options, ENROLMENT_SERVER_DEFAULTS.maxPending),
    maxRedemptions: checkPositive('maxRedemptions', maxRedemptions),
    maxBodyBytes: checkPositive('maxBodyBytes', maxBodyBytes),
    timeoutMs: checkDuration('timeoutMs', timeoutMs),
    certificateLifetimeMs: checkPositive('certificateLifetimeMs', certificateLifetimeMs),
    tunnels: checkFunction('tunnels', tunnels),
    // A value such as null must not admit every site.
    authorize: authorize === undefined ? undefined : checkFunction('authorize', authorize),
    clock: checkClock(options.clock),
  };
}
