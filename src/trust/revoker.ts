/**
 * `Revoker`: revocation as one call, with a receipt; and in every process that follows the same store,
 * the same without a call.
 *
 * The order, so that nothing of the one who is cut off passes when `revoke` resolves:
 *
 * 1. a site leaves the translator's plan, in this very call: its paths are gone
 * 2. the revocation is stored, and known to whoever asks about a certificate: handshakes fail
 * 3. tunnels and handshakes under way with a certificate that is revoked by now are ended
 *
 * By serial number or key only those tunnels end; the site stays, for it may hold another certificate.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { checkClock, checkFunction, checkMethods, checkObject } from '../base/option-check.ts';
import { ApiMisuseError, CertificateError } from '../errors.ts';
import type { RevocationReason, RevocationScope, Revocations } from '../pki/index.ts';

/** What the tunnels of revoked certificates left behind. */
export interface TerminationReport {
  readonly tunnelsClosed: number;
  /** Paths of the translator that were left when a site went out of the plan. */
  readonly pathsRemoved: number;
}

export interface RevokerOptions {
  readonly revocations: Revocations;
  /** Takes a site out of the plan, and back; `PresenceController` is one. */
  readonly controller: { suspend(site: string, isSuspended: boolean): void };
  /**
   * Ends every tunnel, and every handshake under way, whose certificate is revoked by now. Nothing of
   * them passes when it resolves.
   *
   * @param reason to tell the peers
   */
  readonly terminateRevoked: (reason: string) => Promise<TerminationReport>;
  /** By which the times of a receipt are measured; default that of the system. */
  readonly clock?: Clock;
}

export interface RevokerEvents {
  /** After a revocation, the tunnels of this one could not be ended. The revocation itself is in force. */
  problem: [problem: { readonly error: Error; readonly scope: RevocationScope }];
}

/**
 * What a revocation took. Times are in ms from the call of `revoke`; tunnels and paths are all that were
 * cut in that time, those of revocations that ran beside this one too.
 */
export interface RevocationReceipt extends TerminationReport {
  readonly scope: RevocationScope;
  /** Whom the certificates named, as far as they are known. */
  readonly sites: readonly string[];
  /** Serial numbers of the certificates that do not count any more, in lower-case hex. */
  readonly serials: readonly string[];
  /**
   * Serial numbers of certificates of these sites that are still good, as after a renewal by a thief: only
   * revoking the site ends them. Empty when that was done.
   */
  readonly unexpired: readonly string[];
  /** Enrolment tokens that are worth nothing any more. */
  readonly tokensVoided: number;
  /** When it was stored, and handshakes failed. */
  readonly storedMs: number;
  /** When nothing passed any more. */
  readonly elapsedMs: number;
}

export class Revoker extends EventEmitter<RevokerEvents> {
  readonly #options: RevokerOptions;
  readonly #clock: Clock;
  /** The cuts since each call of `revoke` that is under way. */
  readonly #receipts = new Set<Promise<TerminationReport>[]>();
  #nextCut: Promise<TerminationReport> | undefined;
  readonly #underWay = new Set<Promise<TerminationReport>>();
  #closing: Promise<void> | undefined;

  /** @throws {ApiMisuseError} if an option is not what it must be; the message names it. */
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
   * Revokes a site with all its certificates and tokens, one certificate, or a key under whatever
   * certificate.
   *
   * @throws {CertificateError} if there is no such certificate, or the site id is not one.
   * @throws {ApiMisuseError} if there is no such reason.
   * @throws {StoreError} if it cannot be stored. A site stays cut off in this process all the same, until
   * it is reinstated or the process ends: call again.
   */
  async revoke(scope: RevocationScope, reason?: RevocationReason): Promise<RevocationReceipt> {
    const { revocations, controller } = this.#options;
    const startMs = this.#clock.monotonicMs();
    const wasSuspended = 'site' in scope && revocations.isSiteRevoked(scope.site);
    if ('site' in scope) controller.suspend(scope.site, true);
    const cuts: Promise<TerminationReport>[] = [];
    this.#receipts.add(cuts);
    try {
      const { certificates, ...report } = await revocations.revoke(scope, reason);
      const storedMs = this.#clock.monotonicMs() - startMs;
      // It was cut when the event came, unless all was revoked before.
      if (cuts.length === 0) void this.#cut(scope);
      const done = await Promise.all(cuts);
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
      // What cannot be stored may come true all the same; what makes no sense never did.
      const isNonsense = error instanceof CertificateError || error instanceof ApiMisuseError;
      if ('site' in scope && isNonsense && !wasSuspended) controller.suspend(scope.site, false);
      throw error;
    } finally {
      this.#receipts.delete(cuts);
    }
  }

  /** Lets a revoked site enrol again, with a new token and a new key; what was revoked stays so. */
  async reinstate(site: string): Promise<void> {
    await this.#options.revocations.reinstate(site);
    this.#options.controller.suspend(site, false);
  }

  /** Follows the store no more, and resolves when what is being ended has ended. Safe to call twice. */
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
    await Promise.allSettled(this.#underWay);
    this.removeAllListeners();
  }

  readonly #onRevoked = (scope: RevocationScope): void => {
    if ('site' in scope) this.#options.controller.suspend(scope.site, true);
    this.#cut(scope).catch((error: Error) => this.emit('problem', { error, scope }));
  };

  readonly #onReinstated = ({ site }: { readonly site: string }): void => {
    this.#options.controller.suspend(site, false);
  };

  /** One for all that is revoked in this turn: a site goes with many certificates. */
  #cut(scope: RevocationScope): Promise<TerminationReport> {
    this.#nextCut ??= this.#cutInTurn(scope);
    for (const cuts of this.#receipts) {
      if (!cuts.includes(this.#nextCut)) cuts.push(this.#nextCut);
    }
    return this.#nextCut;
  }

  #cutInTurn(scope: RevocationScope): Promise<TerminationReport> {
    const reason = 'site' in scope ? `site ${scope.site} is revoked` : 'the certificate is revoked';
    const cut = Promise.resolve().then(() => {
      this.#nextCut = undefined;
      return this.#options.terminateRevoked(reason);
    });
    this.#underWay.add(cut);
    const done = (): void => void this.#underWay.delete(cut);
    cut.then(done, done);
    return cut;
  }
}
