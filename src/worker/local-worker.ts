/**
 * `LocalWorker`: a worker in the process that calls it. `worker-main.ts` runs one for a host in another process.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { VERSION } from '../base/version.ts';
import { type PresenceUse, PresenceUses } from '../control/index.ts';
import { CloudDataPlane } from '../dataplane/index.ts';
import { deviceAddress, loadTcpControl, type PacketDevice } from '../device/index.ts';
import { EventLoopDelay, errorFields } from '../observe/index.ts';
import { CLOUD } from '../registry/index.ts';
import type { Json } from '../store/index.ts';
import {
  type CaptureBatch,
  type CaptureFilter,
  type Explanation,
  PacketTranslator,
  type PathPage,
  type PathQuery,
  type PathStatus,
  type PlanChangesInput,
  type PlannedRealm,
  type TranslationPlanInput,
} from '../translator/index.ts';
import {
  type AuthorizeAnswer,
  type AuthorizeVerdict,
  CloseCode,
  type Credentials,
  type ListenOptions,
  MtlsTunnel,
  type TunnelAdmission,
  type TunnelCandidate,
  type TunnelListener,
} from '../tunnel/index.ts';
import { Access, type AccessChange } from './access.ts';
import { TunnelTraffic } from './tunnel-traffic.ts';
import type {
  SiteTraffic,
  TerminationReport,
  TunnelClose,
  TunnelFilter,
  TunnelStatus,
  Worker,
  WorkerAddresses,
  WorkerHost,
  WorkerOptions,
  WorkerStatus,
} from './worker.ts';
import { WorkerCaptures } from './worker-captures.ts';

/** Options of the listener that only a worker in this process can have: other protocols on its port, and a clock. */
export type LocalListening = Pick<ListenOptions, 'otherProtocols' | 'clock'>;

/** A device, a translator, a data plane and a listener, wired together. */
export class LocalWorker implements Worker, AsyncDisposable {
  readonly #host: WorkerHost;
  readonly #openDevice: (options: WorkerOptions) => Promise<PacketDevice>;
  readonly #listening: LocalListening;
  readonly #translator = new PacketTranslator();
  readonly #uses = new PresenceUses(() => this.#translator.paths());
  readonly #captures = new WorkerCaptures(this.#translator);
  /** The tunnels that are up, by number. */
  readonly #tunnels = new Map<number, MtlsTunnel>();
  /** The same by site: one, or two while a newer one replaces another. */
  readonly #tunnelsOf = new Map<string, Set<MtlsTunnel>>();
  #lastTunnel = 0;
  readonly #access: Access = new Access();
  #credentials: Credentials | undefined;
  #device: PacketDevice | undefined;
  #dataPlane: CloudDataPlane | undefined;
  #listener: TunnelListener | undefined;
  readonly #traffic = new TunnelTraffic();
  readonly #eventLoopDelay = new EventLoopDelay();
  #closing: Promise<void> | undefined;
  /** Paths that were removed because their site left the plan, since the last report about unwanted tunnels. */
  #pathsRemoved = 0;

  /**
   * @param openDevice called once, by `open`; the worker closes the device
   * @param listening more options of the listener
   */
  constructor(
    host: WorkerHost,
    openDevice: (options: WorkerOptions) => Promise<PacketDevice>,
    listening: LocalListening = {}
  ) {
    this.#host = host;
    this.#openDevice = openDevice;
    this.#listening = listening;
  }

  version(): string {
    return VERSION;
  }

  load(plan: TranslationPlanInput): void {
    this.#pathsRemoved += this.#translator.load(plan);
    this.#dataPlane?.forgetKept();
  }

  apply(changes: PlanChangesInput): void {
    this.#pathsRemoved += this.#translator.apply(changes);
    this.#dataPlane?.forgetKept();
  }

  planned(realm: string): PlannedRealm | undefined {
    return this.#translator.planned(realm);
  }

  updateAccess(change: AccessChange): void {
    this.#access.update(change);
    for (const [site, holder] of change.holders ?? []) {
      if (holder === undefined) this.#traffic.forget(site);
    }
  }

  setCredentials(credentials: Credentials): void {
    this.#credentials = credentials;
    this.#listener?.updateCredentials(credentials);
  }

  async open(options: WorkerOptions): Promise<WorkerAddresses> {
    const { tunnel, limits } = options;
    const host = this.#host;
    const device = await this.#openDevice(options);
    this.#device = device;
    this.#dataPlane = new CloudDataPlane({
      cloud: CLOUD,
      device,
      translator: this.#translator,
      admit: (...client) => host.admit(...client),
    });
    const tcp = await loadTcpControl();
    const credentials = this.#credentials!;
    const listener = await MtlsTunnel.listen({
      ...tunnel,
      ...credentials,
      ...limits,
      expectedTunnels: () => this.#access.sitesPerWorker,
      ...this.#listening,
      tcp,
      authorize: (candidate) => this.#authorize(candidate, options),
    });
    listener.on('refused', ({ remoteAddress, code, reason, identity, serial }) => {
      const site = identity?.role === 'site' ? identity.site : undefined;
      host.onRefused({ remoteAddress, code, reason, site, serial });
    });
    this.#listener = listener;
    listener.on('tunnel', (accepted) => this.#onTunnel(accepted));
    listener.on('problem', ({ error, site }) =>
      host.log(
        'error',
        { event: 'authorize_failed', site, ...errorFields(error) },
        `${site}: authorize: ${error.message}`
      )
    );
    // The credentials may have changed while the port was opened.
    if (this.#credentials !== credentials) listener.updateCredentials(this.#credentials!);
    this.#dataPlane.start();
    return { tunnel: { host: tunnel.host, port: listener.port }, ...deviceAddress(device) };
  }

  sendControl(tunnel: number, message: Json): boolean {
    return this.#tunnels.get(tunnel)?.sendControl(message) ?? false;
  }

  terminate(filter: TunnelFilter, close: TunnelClose): Promise<TerminationReport> {
    if ('unwanted' in filter) return Promise.resolve(this.#terminateUnwanted(close));
    const tunnels = this.#select(filter);
    const { drain = false, ...cause } = close;
    for (const tunnel of tunnels) {
      void (drain ? tunnel.close(cause) : tunnel.abort(cause));
    }
    return Promise.resolve({ tunnelsClosed: tunnels.length, pathsRemoved: 0 });
  }

  settled(): Promise<void> {
    return Promise.resolve();
  }

  status(sites: readonly string[]): Promise<WorkerStatus> {
    const translator = this.#translator;
    return Promise.resolve({
      pid: process.pid,
      listener: this.#listener === undefined ? {} : countersOf(this.#listener),
      dataPlane: { ...this.#dataPlane?.counters },
      device: { ...this.#device?.counters },
      verdicts: Object.fromEntries(
        sites.map((name) => [name, translator.counters(translator.realm(name))])
      ),
      traffic: Object.fromEntries(sites.map((name) => [name, this.#trafficOf(name)])),
      eventLoopDelay: this.#eventLoopDelay.sample(),
    });
  }

  paths(): Promise<readonly PathStatus[]> {
    return Promise.resolve([...this.#translator.paths()]);
  }

  pathPage(query: PathQuery): Promise<PathPage> {
    return Promise.resolve(this.#translator.pathPage(query));
  }

  presenceUses(): Promise<readonly PresenceUse[]> {
    return this.#uses.since();
  }

  explain(packet: Uint8Array, realm: string): Promise<Explanation> {
    return Promise.resolve(this.#translator.explain(packet, realm));
  }

  tunnelStatus(site: string): Promise<TunnelStatus | undefined> {
    const tunnel = this.#newest(site);
    return Promise.resolve(tunnel && { connections: tunnel.connections, rttMs: tunnel.rttMs });
  }

  async measure(site: string, timeoutMs: number): Promise<readonly (number | null)[] | undefined> {
    const times = await this.#newest(site)?.measure(timeoutMs);
    return times?.map((rttMs) => rttMs ?? null);
  }

  isAlive(site: string): Promise<boolean> {
    return this.#newest(site)?.isAlive() ?? Promise.resolve(false);
  }

  takeCapture(capture: number, filter: CaptureFilter): Promise<CaptureBatch> {
    return Promise.resolve(this.#captures.take(capture, filter));
  }

  endCapture(capture: number): Promise<CaptureBatch> {
    return Promise.resolve(this.#captures.end(capture));
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#eventLoopDelay.close();
    await this.#listener?.close();
    this.#dataPlane?.stop();
    await this.#device?.close();
  }

  /** Checks the access table, then calls `authorize` of the host, only for a candidate that the table admits. */
  #authorize(candidate: TunnelCandidate, { number, authorize }: WorkerOptions): AuthorizeAnswer {
    const { identity, certificate, remoteAddress, step, lastEpoch } = candidate;
    const refusal = this.#access.refusalOf(candidate, number);
    if (refusal !== undefined || !authorize || step !== 'hello' || identity.role !== 'site') {
      return refusal;
    }
    const { site } = identity;
    const peer = { site, certificate: certificate.raw, remoteAddress, lastEpoch };
    const answer = this.#host.authorize(peer);
    if (!isPromise(answer)) return answer;
    return answer.then((verdict) => {
      // The access table may have changed in the meantime.
      const isAdmitted = (verdict as Partial<TunnelAdmission> | undefined)?.epoch !== undefined;
      const mayEnter = verdict === undefined || isAdmitted;
      return (mayEnter ? this.#access.refusalOf(candidate, number) : undefined) ?? verdict;
    });
  }

  #terminateUnwanted(close: TunnelClose): TerminationReport {
    const isUnwanted = (certificate: X509Certificate) => this.#access.isUnwanted(certificate);
    const tunnelsClosed = this.#listener?.terminate(isUnwanted, close) ?? 0;
    const pathsRemoved = this.#pathsRemoved;
    this.#pathsRemoved = 0;
    return { tunnelsClosed, pathsRemoved };
  }

  #onTunnel(tunnel: MtlsTunnel): void {
    const { peer, remoteAddress, cipher, keyExchange, certificate } = tunnel.info!;
    if (peer.role !== 'site') return;
    const { site } = peer;
    for (const other of this.#select({ site })) {
      if (other === tunnel) continue;
      void other.close({ code: CloseCode.Replaced, reason: 'a newer tunnel of this site is up' });
    }
    const number = ++this.#lastTunnel;
    const host = this.#host;
    this.#tunnels.set(number, tunnel);
    const tunnels = this.#tunnelsOf.get(site) ?? new Set();
    this.#tunnelsOf.set(site, tunnels.add(tunnel));
    const detach = this.#dataPlane!.attach(site, tunnel);
    const details = { site, remoteAddress, cipher, keyExchange, certificate: certificate.raw };
    host.onTunnel(number, details);
    tunnel.on('control', (message) => {
      try {
        host.onControl(number, message);
      } catch {
        // A message may be nested too deeply to be sent to another process.
        void tunnel.close({ code: CloseCode.ProtocolError, reason: 'the message cannot be taken' });
      }
    });
    tunnel.on('renewed', (info) => host.onRenewed(number, info.certificate.raw));
    tunnel.on('down', ({ code, reason }) => {
      this.#tunnels.delete(number);
      tunnels.delete(tunnel);
      if (tunnels.size === 0 && this.#tunnelsOf.get(site) === tunnels) this.#tunnelsOf.delete(site);
      if (this.#access.has(site)) this.#traffic.end(site, tunnel);
      detach();
      host.onDown(number, code, reason);
    });
  }

  #trafficOf(site: string): SiteTraffic {
    const tunnels = [...(this.#tunnelsOf.get(site) ?? [])];
    // The newest one carries the packets.
    const tunnel = tunnels.at(-1);
    return {
      ...this.#traffic.of(site, tunnels),
      forwardedBytes: this.#translator.forwardedBytes(this.#translator.realm(site)),
      pendingPackets: this.#dataPlane?.pendingPackets(site) ?? 0,
      connections: tunnel?.connections ?? 0,
      rttMs: tunnel?.rttMs,
    };
  }

  /** Returns the tunnel of a site that is in use: a newer one replaces another. */
  #newest(site: string): MtlsTunnel | undefined {
    return this.#select({ site }).at(-1);
  }

  #select(filter: { readonly site: string } | { readonly tunnel: number }): MtlsTunnel[] {
    if ('site' in filter) return [...(this.#tunnelsOf.get(filter.site) ?? [])];
    const tunnel = this.#tunnels.get(filter.tunnel);
    return tunnel === undefined ? [] : [tunnel];
  }
}

function isPromise(answer: AuthorizeAnswer): answer is Promise<AuthorizeVerdict> {
  return typeof (answer as Partial<Promise<unknown>> | undefined)?.then === 'function';
}

/** Returns the counters by name; those of refusals are `name.code`. */
function countersOf({ counters }: TunnelListener): Record<string, number> {
  const named: Record<string, number> = {};
  for (const [name, count] of Object.entries(counters)) {
    if (typeof count === 'number') named[name] = count;
    else for (const [code, times] of count as Map<string, number>) named[`${name}.${code}`] = times;
  }
  return named;
}
