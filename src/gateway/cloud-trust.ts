/**
 * `CloudTrust`: what an operator does about who is trusted: tokens, revocations, the rollover of the CA. Each act is in the
 * audit log.
 * @module
 */
import type { CaStep, CaStepOptions, CloudCaStatus, SiteTokenOptions } from '../admin/index.ts';
import { checkText } from '../base/option-check.ts';
import type { ConfirmationReport } from '../cluster/index.ts';
import { ConflictError } from '../errors.ts';
import type { RevocationReason, RevocationScope, TokenEntry } from '../pki/index.ts';
import type { RevocationReceipt } from '../trust/index.ts';
import { CloseCode } from '../tunnel/index.ts';
import type { ResolvedCloudOptions } from './cloud-options.ts';
import type { CloudParts } from './cloud-parts.ts';
import {
  caStepOf,
  caStepOptionsOf,
  edgeSiteOf,
  scopeOf,
  siteNameOf,
  tokenOptionsOf,
} from './cloud-requests.ts';

/** A revocation in a cloud of several machines also says where it is in effect; see `ConfirmationReport`. */
export type CloudRevocation = RevocationReceipt & Partial<ConfirmationReport>;

/** `CloudGateway` documents the methods. */
export class CloudTrust {
  readonly #parts: CloudParts;
  readonly #options: Pick<ResolvedCloudOptions, 'enrolment' | 'logger'>;

  constructor(parts: CloudParts, options: Pick<ResolvedCloudOptions, 'enrolment' | 'logger'>) {
    this.#parts = parts;
    this.#options = options;
  }

  async createToken(options: SiteTokenOptions): Promise<string> {
    const { registry, trust, audit, enrolmentAddress } = this.#parts;
    const { site, lifetimeMs } = tokenOptionsOf(options);
    const { port } = enrolmentAddress();
    const token = await trust.authority.createToken({
      site: edgeSiteOf(registry, site),
      ...(lifetimeMs !== undefined && { lifetimeMs }),
      endpoints: this.#options.enrolment.endpoints.map((text) => text.replace(/:0+$/, `:${port}`)),
    });
    audit?.token(site);
    return token;
  }

  async deleteToken(id: string): Promise<TokenEntry> {
    const { trust, audit } = this.#parts;
    const token = await trust.authority.deleteToken(checkText('id', id));
    audit?.tokenDeletion(token.site, id, token.usedAt !== undefined);
    return token;
  }

  async revoke(scope: RevocationScope, reason?: RevocationReason): Promise<CloudRevocation> {
    const { audit, cluster, revoker } = this.#parts;
    scopeOf(scope);
    audit?.revocationBegins(scope, reason);
    const here = await revoker.revoke(scope, reason);
    const receipt = { ...here, ...(await cluster?.revocationsConfirmed()) };
    audit?.revocation(receipt);
    const { tunnelsClosed, elapsedMs } = receipt;
    const what = Object.values(scope)[0];
    const took = `${tunnelsClosed} tunnels closed in ${elapsedMs.toFixed(1)} ms`;
    this.#options.logger.info({ event: 'revoked', ...scope }, `${what}: revoked, ${took}`);
    return receipt;
  }

  async reinstate(site: string): Promise<void> {
    const { audit, revoker } = this.#parts;
    await revoker.reinstate(siteNameOf(site));
    audit?.reinstatement(site);
  }

  async rotateCa(step: CaStep, options: CaStepOptions): Promise<void> {
    const { trust, audit, workers } = this.#parts;
    caStepOf(step);
    const { ca, force = false } = caStepOptionsOf(options);
    if (step === 'retire' && !force) this.#refuseToStrand();
    if (step === 'prepare') await trust.prepare(ca);
    else await trust[step]();
    audit?.ca(step);
    this.#options.logger.info({ event: 'ca_rollover', step }, `CA rollover: ${step}`);
    if (step !== 'retire') return;
    const reason = 'the CA of the certificate is retired';
    await workers.terminate({ unwanted: true }, { code: CloseCode.Untrusted, reason });
  }

  caStatus(): CloudCaStatus {
    const { authority, caWarning: warning } = this.#parts.trust;
    return { ...authority.status(), warning, blocking: this.#outdated() };
  }

  /** @throws {ConflictError} while a connected edge has not renewed. */
  #refuseToStrand(): void {
    const machines = this.#parts.cluster?.others ?? [];
    if (machines.length > 0) {
      throw new ConflictError(
        `this machine does not know which edges of ${machines.join(', ')} have renewed: look there at the status of the CA; "force" closes the tunnels of those that have not`
      );
    }
    const { count, names } = this.#outdated();
    if (count === 0) return;
    const others = count > names.length ? ` and ${count - names.length} others` : '';
    const sites = `${names.join(', ')}${others}`;
    throw new ConflictError(`not renewed yet: ${sites}; "force" closes their tunnels`);
  }

  /** The sites whose tunnels have a certificate of another CA than the current one. */
  #outdated(): CloudCaStatus['blocking'] {
    const { trust, tunnels } = this.#parts;
    const sites = tunnels
      .sitesWith((certificate) => !trust.authority.isCurrent(certificate))
      .sort();
    return { count: sites.length, names: sites.slice(0, MAX_NAMES) };
  }
}

/** How many sites a list names at most. */
const MAX_NAMES = 100;
