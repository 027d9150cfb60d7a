/**
 * What `EnrolmentServer` is given, and what it tells.
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
  /** Redemptions that are worked on at once; more are answered 503. Default 32. */
  readonly maxRedemptions?: number;
  /** Bytes of a request's body; default 32 KiB. */
  readonly maxBodyBytes?: number;
  /** From connection to answer, handshake included, in ms; default 10 s. */
  readonly timeoutMs?: number;
  /** Lifetime of the server's own certificate in ms, renewed at half of it; default 30 days. */
  readonly certificateLifetimeMs?: number;
  /**
   * Names the endpoints at which the cloud takes tunnels, 16 at most, for the answer to a site that has enrolled. It
   * is asked at each redemption. What it throws is a fault of the server's, and the token stays good then. Default:
   * none.
   */
  readonly tunnels?: () => readonly HostPort[];
  /**
   * Decides whether a site may enrol, for example after a look at an inventory. It is asked about a site whose token
   * and signing request are good, before the token is spent. What it answers other than undefined, and what it
   * throws, refuses the site, and the token stays good. It has until the end of `timeoutMs`, and must answer sooner
   * if it can: the site waits for 10 s by default, and one of `maxRedemptions` places is taken. Default: every site
   * may.
   */
  readonly authorize?: AuthorizeEnrolment;
  /** Default: that of the system. */
  readonly clock?: Clock;
}

/** A site that wants to enrol, and whose token is good. */
export interface EnrolmentCandidate {
  readonly site: string;
  readonly remoteAddress: string;
}

/**
 * Returns undefined if the site may enrol, else the reason why it may not. The site is told the first 300 characters
 * of it, without control characters.
 */
export type AuthorizeEnrolment = (
  candidate: EnrolmentCandidate
) => string | undefined | Promise<string | undefined>;

/** What is used where an option is absent; times are in ms. `burst` is 4 times `maxRate` then. */
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

/** What became of a request that was one; for an audit log. */
export interface EnrolmentOutcome {
  readonly remoteAddress: string;
  /** The site that has a certificate now, or that was not authorized; any other token that is refused names nobody. */
  readonly site?: string;
  /** Of that certificate; lower-case hex. */
  readonly serial?: string;
  /** Why not, as the client is told. */
  readonly refused?: EnrolmentRefusal;
}

export interface EnrolmentServerEvents {
  /** A token was redeemed or refused. The site is told after that. */
  outcome: [outcome: EnrolmentOutcome];
  /** Something is wrong on this side, which the client is told only as "internal error". */
  problem: [problem: { readonly error: Error }];
}

/** Cumulative since the server was made. */
export interface EnrolmentCounters {
  /** All that came, those refused by the gate among them. */
  connections: number;
  /** Closed unheard because their address brought more than `maxRate`. */
  rateLimited: number;
  /** Closed because `maxPending` others were under way. */
  evicted: number;
  /** Closed because they took too long. */
  timeouts: number;
  /** Of those that were let in. */
  handshakeFailures: number;
  enrolled: number;
  /** Answered 4xx: not a request we know, or a token or signing request that is not acceptable. */
  refused: number;
  /** Answered 503 because `maxRedemptions` were under way. */
  busy: number;
  /** Answered 5xx for another reason. */
  failed: number;
}

export interface EnrolmentServerSettings {
  readonly authority: CertificateAuthority;
  readonly gate: Required<ConnectionLimiterOptions>;
  readonly maxRedemptions: number;
  readonly maxBodyBytes: number;
  readonly timeoutMs: number;
  readonly certificateLifetimeMs: number;
  readonly tunnels: () => readonly HostPort[];
  readonly authorize: AuthorizeEnrolment | undefined;
  readonly clock: Clock;
}

/** @throws {ApiMisuseError} if an option is not what it must be. */
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
    gate: resolveLimiterOptions(options, ENROLMENT_SERVER_DEFAULTS.maxPending),
    maxRedemptions: checkPositive('maxRedemptions', maxRedemptions),
    maxBodyBytes: checkPositive('maxBodyBytes', maxBodyBytes),
    timeoutMs: checkDuration('timeoutMs', timeoutMs),
    certificateLifetimeMs: checkPositive('certificateLifetimeMs', certificateLifetimeMs),
    tunnels: checkFunction('tunnels', tunnels),
    // Null for it, say, must not let everybody in.
    authorize: authorize === undefined ? undefined : checkFunction('authorize', authorize),
    clock: checkClock(options.clock),
  };
}
