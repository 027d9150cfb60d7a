/**
 * `CloudGateway`: the gateway of the cloud, which also holds the control plane, as an object of the host program.
 * @module
 */
import {
  type AdminTarget,
  type CaStep,
  type CaStepOptions,
  CLOUD_OPERATIONS,
  type CloudCaStatus,
  cloudHandlers,
  type Page,
  type ReloadAnswer,
  type SiteFilter,
  type SiteTokenOptions,
} from '../admin/index.ts';
import { type AddressInput, IpAddress } from '../base/address.ts';
import { CloseStack } from '../base/close-stack.ts';
import { Emitter } from '../base/emitter.ts';
import { checkSignal, checkText } from '../base/option-check.ts';
import type { DrainReport } from '../cluster/index.ts';
import type { PresenceController, SnapshotHost, Whois } from '../control/index.ts';
import type {
  Capture,
  CaptureQuery,
  ExplainQuery,
  FlowExplanation,
  PingOptions,
  PingReport,
} from '../diagnosis/index.ts';
import { ConfigError } from '../errors.ts';
import type { MetricFamily, Readiness } from '../observe/index.ts';
import type {
  CertificateAuthority,
  RevocationReason,
  RevocationScope,
  TokenEntry,
} from '../pki/index.ts';
import {
  CLOUD,
  type DesiredInput,
  type ExposureInput,
  type ExposureKey,
  type Registry,
  type SelectorExposureInput,
} from '../registry/index.ts';
import type { SocketStack } from '../sockets/index.ts';
import type { PathStatus } from '../translator/index.ts';
import { CloudDiagnosis } from './cloud-diagnosis.ts';
import { CloudFaults, type CloudState, type CloudStateChange } from './cloud-faults.ts';
import { type CloudMachineList, CloudMachines, type MoveDestination } from './cloud-machines.ts';
import { CloudMetrics } from './cloud-metrics.ts';
import { lookupAt } from './cloud-names.ts';
import {
  type CloudGatewayOptions,
  type ResolvedCloudOptions,
  resolveCloudOptions,
} from './cloud-options.ts';
import { applyDesired, type CloudParts, openCloudParts } from './cloud-parts.ts';
import { cloudReadiness } from './cloud-readiness.ts';
import { edgeSiteOf } from './cloud-requests.ts';
import { addressesOf, type CloudAddresses, type CloudStatus, statusOf } from './cloud-status.ts';
import { type CloudRevocation, CloudTrust } from './cloud-trust.ts';
import { serveAdmin } from './common-admin.ts';
import { serveMetrics } from './common-metrics.ts';
import { closeGivenDevice } from './common-options.ts';
import type { EdgeChange } from './edge-tunnels.ts';
import { closedError, type ReadyOptions, whenReady } from './when-ready.ts';

export interface CloudEvents {
  state: [change: CloudStateChange];
  /** The tunnel of a site came up or went down. */
  edge: [change: EdgeChange];
  /** Something failed; the gateway continues. */
  problem: [problem: { readonly error: Error; readonly site?: string }];
}

/**
 * The gateway of the cloud: it accepts the tunnels of the edges, translates packets, answers names, and issues
 * certificates. It runs from `start` to `close`. `createToken` returns the token that the `EdgeGateway` of a site
 * enrols with. Methods of a closed gateway throw or reject with an `ApiMisuseError`.
 *
 * ```
 *    a worker is down, the CA has expired, or the machine is detached
 *            ---------------------------------------->
 * start -> ready                                  degraded
 *            <----------------------------------------
 *                        none of that is so
 *
 *          ready, degraded -- close() --> closed
 * ```
 *
 * In `degraded` everything else works. `degraded` follows `start` at once if the CA has expired.
 */
export class CloudGateway extends Emitter<CloudEvents> implements AdminTarget, AsyncDisposable {
  readonly #options: ResolvedCloudOptions;
  readonly #closing: CloseStack = new CloseStack();
  readonly #metrics: CloudMetrics;
  readonly #faults = new CloudFaults((change) => void this.emit('state', change));
  #opened: CloudParts | undefined;
  #diagnosing: CloudDiagnosis | undefined;

  private constructor(options: ResolvedCloudOptions) {
    super();
    this.#options = options;
    this.#metrics = new CloudMetrics(options);
  }

  /**
   * Opens everything and begins to serve. If it rejects, nothing is left open, and a device that was passed in is
   * closed.
   *
   * @throws {ConfigError} if an option or the desired state is not usable; the error names the place.
   * @throws {EnvironmentError} if a device, a port or a file cannot be opened.
   * @throws {CertificateError} if a CA cannot be used, or its key cannot be read. A CA that has expired is not an error.
   * @throws {StoreError} if the store cannot be read.
   * @throws the reason of `options.signal`, if that is aborted.
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
    return this.#faults.state;
  }

  /** The desired state: sites, services and exposures. */
  get registry(): Registry {
    return this.#parts.registry;
  }

  /** The presences that follow from the desired state. */
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

  /**
   * The sockets of this process at the cloud: connections to presences of the sites' services, and servers for them.
   *
   * @throws {ApiMisuseError} if the device is not of the type `sockets`, or the gateway is closed.
   */
  get sockets(): SocketStack {
    return this.#parts.sockets.stack;
  }

  /** Where the gateway listens, with the actual port numbers. */
  get addresses(): CloudAddresses {
    return addressesOf(this.#parts);
  }

  /**
   * Replaces the sites, services and exposures that this method, `expose` and the option `desired` have set so far. A
   * site with the name `cloud` must be among them. Resolves when the state is stored and in force at the cloud; each
   * edge receives it after that, and emits `snapshot`.
   *
   * @throws {ConfigError} naming the place in `desired` that is wrong; then nothing has changed.
   * @throws {ConflictError} naming the place of a record that the admin interface keeps; then nothing has changed.
   * @throws {StoreError} if the state cannot be stored; then nothing has changed.
   */
  async apply(desired: DesiredInput): Promise<void> {
    await applyDesired(this.#parts.registry, desired);
    await this.#settled();
  }

  /**
   * Exposes a service to a site, or to the sites with certain labels, or changes an exposure. Resolves as `apply` does.
   *
   * @throws {ConfigError} if the exposure is not possible.
   * @throws {ConflictError} if it was made through the admin interface: then only the admin interface may change it.
   * @throws {StoreError} if it cannot be stored; then nothing has changed.
   */
  async expose(exposure: ExposureInput | SelectorExposureInput): Promise<void> {
    await this.#parts.registry.expose(exposure, 'file');
    await this.#settled();
  }

  /**
   * Ends an exposure, which is named by its site and service, or by its own name if it has a selector.
   *
   * @throws what `expose` throws, and {NotFoundError} if there is no such exposure.
   */
  async unexpose(exposure: ExposureKey): Promise<void> {
    await this.#parts.registry.unexpose(exposure, 'file');
    await this.#settled();
  }

  /**
   * Returns a token with which the edge gateway of a site enrols once, within `lifetimeMs`; default one hour.
   *
   * @throws {ConfigError} if there is no such site, or the site is the cloud.
   * @throws {CertificateError} if the site is revoked; call `reinstate` first.
   * @throws {ApiMisuseError} if the lifetime is out of its range.
   */
  async createToken(options: SiteTokenOptions): Promise<string> {
    return this.#trust.createToken(options);
  }

  /**
   * Deletes an enrolment token by its id, which `authority.tokens` lists: nobody can enrol with it any more.
   *
   * @returns the token as it was; `usedAt` says whether a site has enrolled with it before.
   * @throws {NotFoundError} if there is no such token.
   * @throws {StoreError} if it cannot be deleted.
   */
  async deleteToken(id: string): Promise<TokenEntry> {
    return this.#trust.deleteToken(id);
  }

  /**
   * Revokes a site, a certificate or a key, and terminates its tunnels: `revoke({ site: 'site-a' }, 'keyCompromise')`.
   * When this resolves, none of its packets passes. The edge may learn of it later; its state becomes `rejected`, with a
   * failure of the kind `revoked`. The name of a site that does not exist (yet) is revoked too.
   *
   * @returns how many tunnels were closed, how long it took, and at which machines it is not in effect yet.
   * @throws {ConfigError} if the scope is not usable, {NotFoundError} if there is no such certificate.
   * @throws {CertificateError} if the name cannot be the name of a site.
   * @throws {ApiMisuseError} if there is no such reason.
   * @throws {StoreError} if the revocation cannot be stored.
   */
  async revoke(scope: RevocationScope, reason?: RevocationReason): Promise<CloudRevocation> {
    const receipt = await this.#trust.revoke(scope, reason);
    this.#metrics.lastRevocationMs = receipt.elapsedMs;
    return receipt;
  }

  /** Lets a revoked site enrol again, with a new token. @throws {ConfigError} if this cannot be the name of a site. */
  async reinstate(site: string): Promise<void> {
    await this.#trust.reinstate(site);
  }

  /**
   * Takes one step of a CA rollover. After `prepare` all gateways trust the next CA too; after `activate` the next CA
   * signs and all gateways renew; after `retire` certificates of the previous CA are refused.
   *
   * @throws {ConfigError} if there is no such step, or an option is not usable.
   * @throws {ConflictError} if another step must come first, and for `retire` without `force` while a connected edge has
   *   not renewed.
   */
  async rotateCa(step: CaStep, options: CaStepOptions = {}): Promise<void> {
    await this.#trust.rotateCa(step, options);
  }

  /** Returns the CAs, and what the next step of a rollover waits for. */
  caStatus(): CloudCaStatus {
    return this.#trust.caStatus();
  }

  /**
   * Returns the endpoint that a presence stands for.
   *
   * @param site the site in which the address was seen, for example `cloud` for the client address that a service in
   *   the cloud sees
   * @returns undefined if the address is not a presence in that site.
   * @throws {ApiMisuseError} if it is not an IP address.
   */
  whois(site: string, address: AddressInput): Whois | undefined {
    if (!IpAddress.isAddress(address)) checkText('address', address);
    return this.#parts.controller.whois(checkText('site', site), address);
  }

  /**
   * Returns the hosts that a name resolves to at a site; none if the name is not known there. A site whose edge has not
   * received the latest snapshot yet may still answer as before.
   *
   * @param name a full domain name, or a name within the site's zone
   * @param site default: the cloud's own site
   * @throws {NotFoundError} if there is no such site.
   */
  lookup(name: string, site: string = CLOUD): readonly SnapshotHost[] {
    return lookupAt(this.#parts, checkText('name', name), site);
  }

  /**
   * Explains whether a flow passes, by names, addresses and ports, or a packet by its bytes: all stages that it has to
   * pass, and what would mend the one that stops it. Nothing is changed, counted or remembered.
   *
   * @throws {ConfigError} if there is no such site, or a part of the query is wrong.
   */
  async explain(query: ExplainQuery): Promise<FlowExplanation> {
    return this.#diagnosis.explain(query);
  }

  /**
   * Captures packets before and after their translation, as a pcapng file in pieces. It ends after `durationMs`, at
   * `maxBytes`, when `signal` is aborted, and when the reader calls `return`, as a loop does that is left. A reader that
   * is slow loses packets, which the file counts. The audit log has each capture.
   *
   * @throws {ConfigError} if there is no such site or service, or a part of the query is wrong.
   * @throws {ConflictError} if two captures run already.
   * @throws the reason of `signal`, if that is aborted.
   */
  async capture(query: CaptureQuery = {}, signal?: AbortSignal): Promise<Capture> {
    return this.#diagnosis.capture(query, checkSignal(signal));
  }

  /**
   * Measures the round-trip time of a site's tunnel now, on each of its connections.
   *
   * @throws {ConfigError} if there is no such site, or an option is wrong.
   * @throws {EnvironmentError} if the site has no tunnel.
   */
  async ping(site: string, options: PingOptions = {}): Promise<PingReport> {
    return this.#diagnosis.ping(edgeSiteOf(this.#parts.registry, site), options);
  }

  async paths(): Promise<readonly PathStatus[]> {
    return this.#parts.workers.paths();
  }

  /** Returns one page of `paths`. @throws {ConfigError} if the cursor is not `next` of a page. */
  async pathPage(query: SiteFilter): Promise<Page<PathStatus>> {
    return this.#parts.workers.diagnosis.pathPage(query);
  }

  /** Releases the addresses of a site's clients and returns their number. @throws {ConfigError} as `createToken`. */
  async releaseClients(site: string): Promise<number> {
    const { registry, controller, audit } = this.#parts;
    const released = await controller.releaseClients(edgeSiteOf(registry, site));
    audit?.release(site, released);
    return released;
  }

  /**
   * Moves a site to another worker or machine. The addresses stay the same, so connections survive.
   *
   * @throws {ConfigError} if there is no such site, worker or machine.
   * @throws {ConflictError} if this machine does not hold the site, or the other one is not alive or takes no sites.
   * @throws {StoreUnavailableError} if this machine is detached.
   */
  async moveSite(site: string, to: MoveDestination): Promise<void> {
    await this.#machines.move(site, to);
  }

  /** Returns the machines of the cloud. @throws {ConflictError} without the option `cluster`, as the next three do. */
  machines(): CloudMachineList {
    return this.#machines.list();
  }

  /** Hands all sites over to the other machines, 50 in a second, and takes none until `resume`, which ends it too. */
  async drain(): Promise<DrainReport> {
    return this.#machines.drain();
  }

  /** Takes sites again after `drain`. */
  async resume(): Promise<void> {
    await this.#machines.resume();
  }

  /**
   * Removes a machine from the cloud, on the operator's word that it is off: nobody waits for it any more.
   *
   * @throws {NotFoundError} if there is no such machine, and {ConflictError} if it is alive.
   */
  async removeMachine(machine: string): Promise<void> {
    await this.#machines.remove(machine);
  }

  /** Calls the option `reload` and returns its result. @throws {ConfigError} if the option is absent. */
  async reload(): Promise<ReloadAnswer> {
    this.#assertOpen();
    const { reload } = this.#options;
    if (reload !== undefined) return reload();
    throw new ConfigError('', 'this gateway has no configuration to read');
  }

  /** @param site the only one in `sites`; default all. @throws {NotFoundError} if there is no such site. */
  async status(site?: string): Promise<CloudStatus> {
    return statusOf(this.#parts, this.#options.clock, site);
  }

  /** Returns what is measured now, of all workers. `encodeMetrics` writes it as text; `metrics` serves that. */
  async metrics(): Promise<readonly MetricFamily[]> {
    return this.#metrics.families(this.#parts, this.readiness());
  }

  /** Whether the gateway can do its work now, and if not, why. It may be called in every state. */
  readiness(): Readiness {
    return cloudReadiness(this.#isOpen ? this.#opened : undefined, this.#faults.present);
  }

  /**
   * Resolves when the state is `ready`. It is `ready` after `start` unless the CA has expired.
   *
   * @throws the reason of `signal`, if that is aborted first.
   * @throws {ApiMisuseError} if the gateway is closed, before the call or during it.
   */
  ready(options: ReadyOptions = {}): Promise<void> {
    return whenReady(this, options, () => {
      if (this.state === 'closed') return closedError();
      return this.state === 'ready' ? 'ready' : 'not yet';
    });
  }

  /**
   * Closes everything: tunnels (the edges receive the reason), devices, ports and processes. A store that was passed in
   * stays open. Safe to call twice.
   */
  close(): Promise<void> {
    if (this.state !== 'closed') {
      this.#faults.close();
      this.removeAllListeners();
      this.#closing.add(() => this.#opened?.sockets.finish());
    }
    return this.#closing.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #open(): Promise<void> {
    const { signal, logger, clock } = this.#options;
    this.#closing.add(() => this.#metrics.close());
    const metrics = await serveMetrics(this.#options.metrics, this.#closing, {
      metrics: () =>
        this.#metrics.families(this.#isOpen ? this.#opened : undefined, this.readiness()),
      readiness: () => this.readiness(),
      clock,
    });
    const parts = await openCloudParts(this.#options, this.#closing, {
      onEdge: (change) => void this.emit('edge', change),
      onProblem: (error, site) => void this.emit('problem', { error, ...(site && { site }) }),
      onFault: (subject, fault) => this.#faults.set(subject, fault),
    });
    this.#opened = { ...parts, metrics };
    this.#diagnosing = new CloudDiagnosis(this.#opened, clock);
    this.#closing.add(() => this.#diagnosing?.close());
    await serveAdmin(this.#options, this.#closing, CLOUD_OPERATIONS, cloudHandlers(this));
    signal?.throwIfAborted();
    logger.debug({ event: 'cloud_open' }, 'the cloud gateway is open');
  }

  async #settled(): Promise<void> {
    await this.#parts.controller.settled();
    await this.#parts.workers.settled();
    await this.#parts.routed();
  }

  get #trust(): CloudTrust {
    return new CloudTrust(this.#parts, this.#options);
  }

  get #machines(): CloudMachines {
    return new CloudMachines(this.#parts, this.#options);
  }

  get #diagnosis(): CloudDiagnosis {
    this.#assertOpen();
    return this.#diagnosing!;
  }

  get #parts(): CloudParts {
    this.#assertOpen();
    return this.#opened!;
  }

  get #isOpen(): boolean {
    return this.#opened !== undefined && this.state !== 'closed';
  }

  #assertOpen(): void {
    if (!this.#isOpen) throw closedError();
  }
}
