/**
 * `CloudGateway`: the gateway of the cloud, which also controls, as an object of the host program.
 *
 * ```
 *   ready <--> degraded      a worker is down, or the CA has run out; the rest works
 *     \          /
 *      \-> closed            by close()
 * ```
 * @module
 */
import {
  AdminServer,
  type AdminTarget,
  adminRoutes,
  type CaStep,
  type CaStepOptions,
  type SiteTokenOptions,
} from '../admin/index.ts';
import { type AddressInput, IpAddress } from '../base/address.ts';
import { CloseStack } from '../base/close-stack.ts';
import { Emitter } from '../base/emitter.ts';
import { checkText } from '../base/option-check.ts';
import type { PresenceController, SnapshotHost, Whois } from '../control/index.ts';
import { ConfigError } from '../errors.ts';
import type { CertificateAuthority, RevocationReason, RevocationScope } from '../pki/index.ts';
import {
  CLOUD,
  type DesiredInput,
  type Exposure,
  type ExposureInput,
  type Registry,
} from '../registry/index.ts';
import type { Explanation, PathStatus } from '../translator/index.ts';
import type { RevocationReceipt } from '../trust/index.ts';
import { CloseCode } from '../tunnel/index.ts';
import {
  type CloudGatewayOptions,
  type ResolvedCloudOptions,
  resolveCloudOptions,
} from './cloud-options.ts';
import { applyDesired, type CloudParts, openCloudParts } from './cloud-parts.ts';
import {
  caStepOf,
  caStepOptionsOf,
  edgeSiteOf,
  exposureKeyOf,
  scopeOf,
  siteNameOf,
  tokenOptionsOf,
} from './cloud-requests.ts';
import { addressesOf, type CloudAddresses, type CloudStatus, statusOf } from './cloud-status.ts';
import { closeGivenDevice } from './common-options.ts';
import type { EdgeChange } from './edge-tunnels.ts';
import { hostsNamed } from './site-names.ts';
import { closedError, type ReadyOptions, whenReady } from './when-ready.ts';

export type CloudState = 'ready' | 'degraded' | 'closed';

export interface CloudStateChange {
  readonly state: CloudState;
  readonly previous: CloudState;
  /** What is amiss, one sentence each; empty unless the state is `degraded`. */
  readonly reasons: readonly string[];
}

export interface CloudEvents {
  state: [change: CloudStateChange];
  /** The tunnel of a site has come up or gone down. */
  edge: [change: EdgeChange];
  /** Something has failed; the gateway goes on. */
  problem: [problem: { readonly error: Error; readonly site?: string }];
}

/**
 * Runs from `start` to `close`. `createToken` gives each site what its `EdgeGateway` enrols with. Its methods reject
 * with an `ApiMisuseError` when it is closed.
 */
export class CloudGateway extends Emitter<CloudEvents> implements AdminTarget, AsyncDisposable {
  readonly #options: ResolvedCloudOptions;
  readonly #closing: CloseStack = new CloseStack();
  /** What is amiss, by what it is about. */
  readonly #faults = new Map<string, string>();
  #opened: CloudParts | undefined;
  #state: CloudState = 'ready';

  private constructor(options: ResolvedCloudOptions) {
    super();
    this.#options = options;
  }

  /**
   * Opens everything and begins to serve.
   *
   * @throws {ConfigError} if an option, or the desired state, is not usable; the error names the place.
   * @throws {EnvironmentError} if a device, a port or a file cannot be had.
   * @throws {CertificateError} if a CA is unfit, or its key cannot be read. A CA that has run out is no error.
   * @throws {StoreError} if what is stored cannot be read.
   * @throws the reason of `options.signal`, if that is aborted. Whatever is thrown, nothing is left open: a device that
   *   was given is closed.
   */
  static async start(options: CloudGatewayOptions): Promise<CloudGateway> {
    const gateway = new CloudGateway(await closeGivenDevice(options, resolveCloudOptions));
    try {
      await gateway.#open();
    } catch (error) {
      await gateway.close().catch(() => {});
      throw error;
    }
    return gateway;
  }

  get state(): CloudState {
    return this.#state;
  }

  /** The sites, services and exposures that are asked for. */
  get registry(): Registry {
    return this.#parts.registry;
  }

  /** The presences that were made of them. */
  get controller(): PresenceController {
    return this.#parts.controller;
  }

  get authority(): CertificateAuthority {
    return this.#parts.trust.authority;
  }

  /** How many workers carry packets. */
  get workerCount(): number {
    return this.#parts.workers.size;
  }

  /** Where it listens, with the ports that were taken. */
  get addresses(): CloudAddresses {
    return addressesOf(this.#parts);
  }

  /**
   * Replaces all that this method, `expose` and the option `desired` have asked for so far: sites, services and
   * exposures. A site with the name `cloud` has to be among them. Resolves when it is stored and in force at the cloud;
   * each edge is told then, and says so by its event `snapshot`.
   *
   * @throws {ConfigError} naming the place in `desired` that is wrong; nothing has changed then.
   * @throws {StoreError} if it cannot be stored; nothing has changed then.
   */
  async apply(desired: DesiredInput): Promise<void> {
    await applyDesired(this.#parts.registry, desired);
    await this.#settled();
  }

  /**
   * Exposes a service to a site, or changes how. Resolves as `apply` does.
   *
   * @throws {ConfigError} if it is not a possible exposure, or was made through the admin interface, which alone may
   * change it then.
   * @throws {StoreError} if it cannot be stored; nothing has changed then.
   */
  async expose(exposure: ExposureInput): Promise<void> {
    await this.#parts.registry.expose(exposure, 'file');
    await this.#settled();
  }

  /** Ends an exposure. @throws as `expose`, and {ConfigError} if there is none. */
  async unexpose(exposure: Pick<Exposure, 'site' | 'service'>): Promise<void> {
    await this.#parts.registry.unexpose(exposureKeyOf(exposure), 'file');
    await this.#settled();
  }

  /**
   * Returns a token with which the edge gateway of a site enrols once, within an hour unless `lifetimeMs` says
   * otherwise.
   *
   * @throws {ConfigError} if there is no such site, or it is the cloud.
   * @throws {CertificateError} if the site is revoked; `reinstate` has to be called first.
   * @throws {ApiMisuseError} if the lifetime is out of its range.
   */
  async createToken(options: SiteTokenOptions): Promise<string> {
    const { registry, trust, audit } = this.#parts;
    const { site, lifetimeMs } = tokenOptionsOf(options);
    const { endpoints } = this.#options.enrolment;
    const { port } = this.addresses.enrolment;
    const token = await trust.authority.createToken({
      site: edgeSiteOf(registry, site),
      ...(lifetimeMs !== undefined && { lifetimeMs }),
      endpoints: endpoints.map((text) => text.replace(/:0+$/, `:${port}`)),
    });
    audit?.token(site);
    return token;
  }

  /**
   * Cuts a site, a certificate or a key off: `revoke({ site: 'site-a' }, 'keyCompromise')`. When it resolves, nothing
   * of them passes any more. Their edges may not have heard of it by then; they get to `rejected`, with a failure of
   * the kind `revoked`. A name that no site has is revoked too: it may come to be one.
   *
   * @returns what that took.
   * @throws {ConfigError} if the scope is none.
   * @throws {CertificateError} if there is no such certificate, or the name cannot be a site's.
   * @throws {ApiMisuseError} if there is no such reason.
   * @throws {StoreError} if it cannot be stored.
   */
  async revoke(scope: RevocationScope, reason?: RevocationReason): Promise<RevocationReceipt> {
    const { audit, revoker } = this.#parts;
    scopeOf(scope);
    audit?.revocationBegins(scope, reason);
    const receipt = await revoker.revoke(scope, reason);
    audit?.revocation(receipt);
    const { tunnelsClosed, elapsedMs } = receipt;
    const what = Object.values(scope)[0];
    const took = `${tunnelsClosed} tunnels closed in ${elapsedMs.toFixed(1)} ms`;
    this.#options.logger.info({ ...scope }, `${what}: revoked, ${took}`);
    return receipt;
  }

  /** Lets a revoked site enrol again, with a new token. @throws {ConfigError} if that is no name of a site. */
  async reinstate(site: string): Promise<void> {
    const { audit, revoker } = this.#parts;
    await revoker.reinstate(siteNameOf(site));
    audit?.reinstatement(site);
  }

  /**
   * Does one step of a change of CA. After `prepare` everybody trusts the next CA too, after `activate` it signs and
   * everybody renews, after `retire` the former one is worth nothing.
   *
   * @throws {ConfigError} if there is no such step, or an option is not usable; if edges that are connected have not
   *   renewed, with `retire` and without `force`.
   * @throws {ApiMisuseError} if it is not the step's turn.
   */
  async rotateCa(step: CaStep, options: CaStepOptions = {}): Promise<void> {
    const { trust, tunnels, audit, workers } = this.#parts;
    caStepOf(step);
    const { ca, force = false } = caStepOptionsOf(options);
    if (step === 'retire' && !force) {
      const stale = tunnels.sitesThat((shown) => !trust.authority.isCurrent(shown));
      if (stale.length > 0) {
        const sites = stale.join(', ');
        throw new ConfigError('step', `not renewed yet: ${sites}; "force" cuts them off`);
      }
    }
    if (step === 'prepare') await trust.prepare(ca);
    else await trust[step]();
    audit?.ca(step);
    this.#options.logger.info({ step }, `change of CA: ${step}`);
    if (step !== 'retire') return;
    const reason = 'the CA of the certificate is retired';
    await workers.terminate({ unwanted: true }, { code: CloseCode.Untrusted, reason });
  }

  /**
   * Says whom a presence stands for.
   *
   * @param site where the address was seen: `cloud`, for a client that a service in the cloud hears from
   * @returns undefined if the address is no presence there.
   * @throws {ApiMisuseError} if it is not an IP address.
   */
  whois(site: string, address: AddressInput): Whois | undefined {
    if (!(address instanceof IpAddress)) checkText('address', address);
    return this.#parts.controller.whois(checkText('site', site), address);
  }

  /**
   * Returns the hosts that a name stands for at the cloud's own site: a full domain name, or one within its zone. There
   * are none if the name is not known.
   */
  lookup(name: string): readonly SnapshotHost[] {
    return hostsNamed(this.#parts.controller.snapshot(CLOUD), checkText('name', name));
  }

  /** Says what would become of a packet that comes out of the site `site`, and why. */
  async explain(packet: Uint8Array, site: string): Promise<Explanation> {
    return this.#parts.workers.explain(packet, site);
  }

  async paths(): Promise<readonly PathStatus[]> {
    return this.#parts.workers.paths();
  }

  /** Releases the addresses of a site's clients; returns how many there were. @throws {ConfigError} as `createToken`. */
  async releaseClients(site: string): Promise<number> {
    const { registry, controller, audit } = this.#parts;
    const released = await controller.releaseClients(edgeSiteOf(registry, site));
    audit?.release(site, released);
    return released;
  }

  /**
   * Gives a site to another worker, by its number from 0. Its addresses stay, so its connections go on.
   *
   * @throws {ConfigError} if there is no such site, or no such worker.
   */
  async moveSite(site: string, worker: number): Promise<void> {
    const { registry, workers } = this.#parts;
    await workers.move(edgeSiteOf(registry, site), worker);
  }

  /** Does what the option `reload` says. */
  async reload(): Promise<object> {
    this.#assertOpen();
    const { reload } = this.#options;
    if (reload === undefined)
      throw new ConfigError('', 'this gateway has no configuration to read');
    return reload();
  }

  async status(): Promise<CloudStatus> {
    return statusOf(this.#parts);
  }

  /**
   * Resolves when nothing is amiss: the state is `ready`, as it is after `start` unless the CA has run out.
   *
   * @throws the reason of `signal`, if that is aborted before.
   * @throws {ApiMisuseError} if the gateway is closed, or gets closed.
   */
  ready(options: ReadyOptions = {}): Promise<void> {
    return whenReady(this, options, () => {
      if (this.#state === 'closed') return closedError();
      return this.#state === 'ready' ? 'ready' : 'not yet';
    });
  }

  /**
   * Ends everything: the edges are told, devices, ports and processes are closed. A store that was given stays open.
   * Safe to call twice.
   */
  close(): Promise<void> {
    if (this.#state !== 'closed') {
      const previous = this.#state;
      this.#state = 'closed';
      this.emit('state', { state: 'closed', previous, reasons: [] });
      this.removeAllListeners();
    }
    return this.#closing.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #open(): Promise<void> {
    const { signal, adminSocket, logger } = this.#options;
    this.#opened = await openCloudParts(this.#options, this.#closing, {
      onEdge: (change) => void this.emit('edge', change),
      onProblem: (error, site) => void this.emit('problem', { error, ...(site && { site }) }),
      onFault: (about, fault) => this.#setFault(about, fault),
    });
    if (adminSocket !== undefined) {
      const routes = adminRoutes(this);
      const admin = await AdminServer.listen({ socketPath: adminSocket, routes });
      this.#closing.add(() => admin.close());
    }
    signal?.throwIfAborted();
    logger.debug({}, 'the cloud gateway is open');
  }

  /** @param fault what is amiss, or undefined if it is mended */
  #setFault(about: string, fault: string | undefined): void {
    if (fault === undefined) this.#faults.delete(about);
    else this.#faults.set(about, fault);
    const previous = this.#state;
    if (previous === 'closed') return;
    const reasons = [...this.#faults.values()];
    this.#state = reasons.length === 0 ? 'ready' : 'degraded';
    if (this.#state !== previous) this.emit('state', { state: this.#state, previous, reasons });
  }

  async #settled(): Promise<void> {
    await this.#parts.controller.settled();
    await this.#parts.workers.settled();
    await this.#parts.routed();
  }

  get #parts(): CloudParts {
    this.#assertOpen();
    return this.#opened!;
  }

  #assertOpen(): void {
    if (this.#opened === undefined || this.#state === 'closed') throw closedError();
  }
}
