/**
 * `Revoker` revokes a site, a certificate or a key in one call and returns a receipt. In other processes that follow the
 * same store it puts the revocation into effect without a call.
 *
 * When `revoke` resolves, no packet of the revoked peer passes any more. It takes these steps in order:
 *
 * 1. A site is removed from the translator's plan during the call itself, with its paths.
 * 2. The revocation is stored and in memory, so that handshakes fail.
 * 3. Tunnels and handshakes in progress whose certificate is now revoked are terminated.
 *
 * A revocation by serial number or key ends only the tunnels with those certificates. The site stays in the plan,
 * because it may have another certificate.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { checkClock, checkFunction, checkMethods, checkObject } from '../base/option-check.ts';
import { ApiMisuseError, CertificateError } from '../errors.ts';
import type { RevocationReason, RevocationScope, Revocations } from '../pki/index.ts';

/** The result of terminating the tunnels of revoked certificates. */
export interface TerminationReport {
  readonly tunnelsClosed: number;
  /** How many paths of the translator were removed with sites that left the plan. */
  readonly pathsRemoved: number;
}

export interface RevokerOptions {
  readonly revocations: Revocations;
  /** Removes a site from the plan and restores it, for example a `PresenceController`. */
  readonly controller: { suspend(site: string, isSuspended: boolean): void };
  /**
   * Terminates every tunnel, and every handshake in progress, whose certificate is now revoked. When it resolves, no
   * packet of them passes any more.
   *
   * @param reason sent to the peers
   */
  readonly terminateRevoked: (reason: string) => Promise<TerminationReport>;
  /** Measures the times in a receipt; default: the system's clock. */
  readonly clock?: Clock;
}

export interface RevokerEvents {
  /** The revocation is in effect, but its tunnels could not be terminated. */
  problem: [problem: { readonly error: Error; readonly scope: RevocationScope }];
}

/**
 * The effect of a revocation. Times are in ms since the call of `revoke`. Tunnels and paths are all that ended in that
 * time, including those of simultaneous revocations.
 */
export interface RevocationReceipt extends TerminationReport {
  readonly scope: RevocationScope;
  /** The sites that the known certificates name. */
  readonly sites: readonly string[];
  /** Serial numbers of the revoked certificates, in lower-case hex. */
  readonly serials: readonly string[];
  /**
   * Serial numbers of certificates of these sites that are still valid, for example because a thief has renewed. Only
   * revoking the site ends them. Empty if the site was revoked.
   */
  readonly unexpired: readonly string[];
  /** How many valid enrolment tokens were removed. */
  readonly tokensVoided: number;
  /** When the revocation was stored and handshakes began to fail. */
  readonly storedMs: number;
  /** When packets stopped passing. */
  readonly elapsedMs: number;
}

/** Revokes sites, certificates and keys, and ends their tunnels. */
export class Revoker extends EventEmitter<RevokerEvents> {
  readonly #options: RevokerOptions;
  readonly #clock: Clock;
  /** The terminations since the start of each call of `revoke` that is in progress. */
  readonly #receipts = new Set<Promise<TerminationReport>[]>();
  /** The termination at the end of this turn of the event loop, if there is one. */
  #nextTermination: Promise<TerminationReport> | undefined;
  readonly #inProgress = new Set<Promise<TerminationReport>>();
  #closing: Promise<void> | undefined;

  /** @throws {ApiMisuseError} if an option is invalid; the message names it. */
  constructor(options: RevokerOptions) {
    super();
    const { revocations, controller, terminateRevoked } = checkObject(
      'the options of Revoker',
      options
    );
    checkMethods('revocations', revocations, ['revoke', 'reinstate', 'isSiteRevoked', 'on', 'off']);
    checkMethods('controller', controller, ['suspend']);
    checkFunction('terminateRevoked', terminateRevoked);
    this.#options = options;
    this.#clock = checkClock(options.clock);
    for (const site of revocations.table.sites) controller.suspend(site, true);
    revocations.on('revoked', this.#onRevoked);
    revocations.on('reinstated', this.#onReinstated);
  }

  /**
   * Revokes a site with all its certificates and tokens, one certificate, or a key in any certificate.
   *
   * @throws {NotFoundError} if there is no such certificate.
   * @throws {CertificateError} if the site id or the hash is invalid.
   * @throws {ApiMisuseError} if the reason is unknown.
   * @throws {StoreError} if it cannot be stored. A site stays suspended in this process until it is reinstated or the
   * process ends: call it again.
   */
  async revoke(scope: RevocationScope, reason?: RevocationReason): Promise<RevocationReceipt> {
    const { revocations, controller } = this.#options;
    const startMs = this.#clock.monotonicMs();
    const wasSuspended = 'site' in scope && revocations.isSiteRevoked(scope.site);
    if ('site' in scope) controller.suspend(scope.site, true);
    const terminations: Promise<TerminationReport>[] = [];
    this.#receipts.add(terminations);
    try {
      const { certificates, ...report } = await revocations.revoke(scope, reason);
      const storedMs = this.#clock.monotonicMs() - startMs;
      // The event `revoked` has started a termination, unless everything had been revoked before.
      if (terminations.length === 0) void this.#terminate(scope);
      const done = await Promise.all(terminations);
      return {
        ...report,
        scope,
        serials: certificates.map(({ serial }) => serial),
        tunnelsClosed: done.reduce((sum, { tunnelsClosed }) => sum + tunnelsClosed, 0),
        pathsRemoved: done.reduce((sum, { pathsRemoved }) => sum + pathsRemoved, 0),
        storedMs,
        elapsedMs: this.#clock.monotonicMs() - startMs,
      };
    } catch (error) {
      // After a failure of the store the site may be revoked nevertheless; after an invalid call it is not.
      const isInvalidCall = error instanceof CertificateError || error instanceof ApiMisuseError;
      if ('site' in scope && isInvalidCall && !wasSuspended) controller.suspend(scope.site, false);
      throw error;
    } finally {
      this.#receipts.delete(terminations);
    }
  }

  /** Lets a revoked site enrol again, with a new token and a new key. Its old certificates stay revoked. */
  async reinstate(site: string): Promise<void> {
    await this.#options.revocations.reinstate(site);
    this.#options.controller.suspend(site, false);
  }

  /**
   * Resolves when the tunnels of all that is revoked now have ended.
   *
   * @throws the error of a termination that has failed.
   */
  async settled(): Promise<void> {
    await Promise.all(this.#inProgress);
  }

  /** Stops following the store, and resolves when terminations in progress have ended. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const { revocations } = this.#options;
    revocations.off('revoked', this.#onRevoked);
    revocations.off('reinstated', this.#onReinstated);
    await Promise.allSettled(this.#inProgress);
    this.removeAllListeners();
  }

  readonly #onRevoked = (scope: RevocationScope): void => {
    if ('site' in scope) this.#options.controller.suspend(scope.site, true);
    this.#terminate(scope).catch((error: Error) => this.emit('problem', { error, scope }));
  };

  readonly #onReinstated = ({ site }: { readonly site: string }): void => {
    this.#options.controller.suspend(site, false);
  };

  /** Schedules one termination for everything that is revoked in this turn: a site has many certificates. */
  #terminate(scope: RevocationScope): Promise<TerminationReport> {
    this.#nextTermination ??= this.#terminateThisTurn(scope);
    for (const terminations of this.#receipts) {
      if (!terminations.includes(this.#nextTermination)) terminations.push(this.#nextTermination);
    }
    return this.#nextTermination;
  }

  #terminateThisTurn(scope: RevocationScope): Promise<TerminationReport> {
    const reason = 'site' in scope ? `site ${scope.site} is revoked` : 'the certificate is revoked';
    const termination = Promise.resolve().then(() => {
      this.#nextTermination = undefined;
      return this.#options.terminateRevoked(reason);
    });
    this.#inProgress.add(termination);
    const done = (): void => void this.#inProgress.delete(termination);
    termination.then(done, done);
    return termination;
  }
}
