/**
 * The metrics of a cloud gateway. They are read when they are asked for: the sites one after the other, in slices, and
 * the workers a number of sites at a time, so that no process is held up.
 * @module
 */
import { slicesOf } from '../base/slices.ts';
import type { SiteMeasures } from '../control/index.ts';
import type { CloudDataPlaneCounters } from '../dataplane/index.ts';
import {
  CounterSums,
  EventLoopDelay,
  type MetricFamily,
  MetricSet,
  type Readiness,
  type ReadinessSubject,
} from '../observe/index.ts';
import { CLOUD } from '../registry/index.ts';
import { VERDICT_NAMES } from '../translator/index.ts';
import { CloseCode } from '../tunnel/index.ts';
import type { WorkerStatus } from '../worker/index.ts';
import type { CloudCluster } from './cloud-cluster.ts';
import type { ResolvedCloudOptions } from './cloud-options.ts';
import type { CloudParts } from './cloud-parts.ts';
import { addCommon, dropsOf, snakeCase } from './common-metrics.ts';

export class CloudMetrics {
  /** How long the last revocation took, in ms. */
  lastRevocationMs: number | undefined;
  readonly #options: ResolvedCloudOptions;
  readonly #sums = new CounterSums();
  readonly #eventLoopDelay = new EventLoopDelay();

  constructor(options: ResolvedCloudOptions) {
    this.#options = options;
  }

  /** @param parts undefined before the gateway is open */
  async families(parts: CloudParts | undefined, readiness: Readiness): Promise<MetricFamily[]> {
    const set = new MetricSet();
    const { dns, store } = parts ?? {};
    addCommon(set, { readiness, store, dns }, SUBJECTS);
    if (parts === undefined) return set.families();
    this.#addGateway(set, parts);
    addMachines(set, parts.cluster);
    const scrape = new CloudScrape(set, parts, this.#sums);
    const slices = slicesOf(this.#options.clock);
    const sites = Array.from(parts.registry.sites(), ({ name }) => name);
    for await (const { sites: some, statuses } of parts.workers.statusParts(sites)) {
      if (some.length === 0) this.#addWorkers(set, statuses, parts.workers.diagnosis.killed);
      const steps = scrape.addSites(some, statuses);
      while (!slices.run(steps)) await slices.next();
    }
    scrape.addSums();
    this.#sums.keep(new Set([...sites, LISTENER, DATA_PLANE]));
    return set.families();
  }

  close(): void {
    this.#eventLoopDelay.close();
  }

  #addGateway(set: MetricSet, parts: CloudParts): void {
    const { enrolment, control, trust, controller } = parts;
    const { enrolled, refused, busy, failed } = enrolment.counters;
    set.addEach('enrolments_total', {}, 'result', { enrolled, refused, busy, failed });
    if (control.renewals !== undefined) {
      const { renewed, refused, failed } = control.renewals;
      set.addEach('renewals_total', {}, 'result', { renewed, refused, failed });
    }
    for (const [name, count] of Object.entries(controller.measures.admissions)) {
      set.add('admissions_total', { result: snakeCase(name) }, count);
    }
    const revocationMs = this.lastRevocationMs;
    set.add('last_revocation_duration_seconds', {}, revocationMs && revocationMs / 1000);
    const expiry = 'certificate_expiry_timestamp_seconds';
    set.add(expiry, { subject: 'ca' }, trust.caNotAfter.getTime() / 1000);
    set.add(expiry, { subject: 'cloud' }, trust.certificateNotAfter.getTime() / 1000);
  }

  #addWorkers(set: MetricSet, workers: readonly WorkerStatus[], killed: number): void {
    const down = workers.filter(({ pid }) => pid === 0).length;
    set.addEach('workers', {}, 'state', { up: workers.length - down, down });
    set.add('workers_killed_total', {}, killed);
    // A single worker is in this process.
    if (workers.length > 1) {
      const worker = 'host';
      set.addHistogram('event_loop_delay_seconds', this.#eventLoopDelay.sample({ worker }));
    }
    for (const [number, { eventLoopDelay }] of workers.entries()) {
      if (eventLoopDelay === undefined) continue;
      const labels = { worker: String(number) };
      set.addHistogram('event_loop_delay_seconds', { ...eventLoopDelay, labels });
    }
    const handshakes = workers.map(({ pid, listener }) => ({
      pid,
      counts: handshakesOf(listener),
    }));
    for (const [i, count] of this.#sums.sum(LISTENER, handshakes).entries()) {
      set.add('handshakes_total', { result: HANDSHAKE_RESULTS[i]! }, count);
    }
    const dropped = workers.map(({ pid, dataPlane }) => {
      const drops = dropsOf(dataPlane);
      return { pid, counts: DROP_REASONS.map((reason) => drops[reason] ?? 0) };
    });
    for (const [i, count] of this.#sums.sum(DATA_PLANE, dropped).entries()) {
      set.add('dropped_packets_total', { reason: DROP_REASONS[i]! }, count);
    }
  }
}

/** The part of one scrape that is about sites. */
class CloudScrape {
  readonly #set: MetricSet;
  readonly #parts: CloudParts;
  readonly #sums: CounterSums;
  /** Exposures by condition and status. */
  readonly #exposures: Record<Condition, Record<Status, number>> = {
    Allocated: { True: 0, False: 0, Unknown: 0 },
    Programmed: { True: 0, False: 0, Unknown: 0 },
    Acknowledged: { True: 0, False: 0, Unknown: 0 },
  };
  #revoked = 0;
  /** Sites whose edges are connected here. */
  #connected = 0;

  constructor(set: MetricSet, parts: CloudParts, sums: CounterSums) {
    this.#set = set;
    this.#parts = parts;
    this.#sums = sums;
  }

  *addSites(sites: readonly string[], workers: readonly WorkerStatus[]): Generator<void> {
    for (const site of sites) {
      const measures = this.#parts.controller.measures.of(site);
      this.#addPools(site, measures);
      this.#addTraffic(site, workers);
      if (site !== CLOUD) this.#addEdge(site, workers);
      this.#countExposures(site, measures, workers);
      yield;
    }
  }

  /** Adds the numbers of all sites together. */
  addSums(): void {
    this.#set.add('revoked_sites', {}, this.#revoked);
    const { cluster } = this.#parts;
    this.#set.add('sites_held', {}, cluster === undefined ? this.#connected : cluster.heldSites);
    for (const [condition, statuses] of Object.entries(this.#exposures)) {
      this.#set.addEach('exposures', { condition }, 'status', statuses);
    }
  }

  #addPools(site: string, { pools }: SiteMeasures): void {
    for (const { family, free, leased, quarantined, reserved } of pools) {
      const labels = { site, family: String(family) };
      const counts = { free, leased, quarantined, reserved };
      this.#set.addEach('pool_addresses', labels, 'state', counts);
    }
  }

  #addTraffic(site: string, workers: readonly WorkerStatus[]): void {
    const set = this.#set;
    const counted = workers.map((worker) => ({
      pid: worker.pid,
      counts: siteCounts(worker, site),
    }));
    const sums = this.#sums.sum(site, counted);
    for (const [i, verdict] of VERDICT_LABELS.entries()) {
      set.add('packets_total', { site, verdict }, sums[i]);
    }
    const [bytes, sent, received, full, late] = sums.slice(VERDICT_LABELS.length);
    set.add('path_bytes_total', { site }, bytes);
    const pending = workers.reduce(
      (sum, { traffic }) => sum + (traffic[site]?.pendingPackets ?? 0),
      0
    );
    set.add('pending_packets', { site }, pending);
    if (site === CLOUD) return;
    set.add('tunnel_bytes_total', { site, direction: 'sent' }, sent);
    set.add('tunnel_bytes_total', { site, direction: 'received' }, received);
    set.add('tunnel_dropped_packets_total', { site, reason: 'full' }, full);
    set.add('tunnel_dropped_packets_total', { site, reason: 'late' }, late);
  }

  #addEdge(site: string, workers: readonly WorkerStatus[]): void {
    const set = this.#set;
    const { trust, control, cluster } = this.#parts;
    const isRevoked = trust.authority.isSiteRevoked(site);
    if (isRevoked) this.#revoked++;
    // While a site moves, two workers may have a tunnel of it.
    const carrying = workers.find(({ traffic }) => (traffic[site]?.connections ?? 0) > 0);
    const { connections = 0, rttMs } = carrying?.traffic[site] ?? {};
    const edge = control.status(site);
    const isUp = edge !== undefined && connections > 0;
    if (isUp) this.#connected++;
    const isElsewhere = cluster?.holderOf(site)?.isHere === false;
    if (isUp || !(isRevoked || isElsewhere)) set.add('tunnel_up', { site }, isUp ? 1 : 0);
    set.add('tunnel_connections', { site }, connections);
    set.add('tunnel_rtt_seconds', { site }, rttMs && rttMs / 1000);
    if (edge === undefined) return;
    const { sentRevision, appliedRevision, certificate } = edge;
    set.add('snapshot_revision', { site, state: 'sent' }, sentRevision);
    set.add('snapshot_revision', { site, state: 'acknowledged' }, appliedRevision);
    const expiry = certificate && Date.parse(certificate.notAfter) / 1000;
    set.add('certificate_expiry_timestamp_seconds', { subject: `site/${site}` }, expiry);
  }

  #countExposures(site: string, measures: SiteMeasures, workers: readonly WorkerStatus[]): void {
    const { exposures, allocated, isLive } = measures;
    if (exposures === 0) return;
    this.#exposures.Allocated.True += allocated;
    this.#exposures.Allocated.False += exposures - allocated;
    const holders = site === CLOUD ? workers : [workers[this.#parts.workers.holderOf(site)]!];
    const isProgrammed = isLive && holders.every(({ pid }) => pid !== 0);
    this.#exposures.Programmed.True += isProgrammed ? allocated : 0;
    this.#exposures.Programmed.False += isProgrammed ? exposures - allocated : exposures;
    this.#exposures.Acknowledged[this.#acknowledged(site, measures)] += exposures;
  }

  /** The cloud's own site has no edge: it learns in the same process. */
  #acknowledged(site: string, { revision, isLive }: SiteMeasures): Status {
    if (!isLive) return 'False';
    if (site === CLOUD) return 'True';
    const edge = this.#parts.control.status(site);
    if (edge === undefined) return 'Unknown';
    return revision !== undefined && edge.appliedRevision >= revision ? 'True' : 'False';
  }
}

/** A gateway without the option `cluster` is the only machine of its cloud. */
function addMachines(set: MetricSet, cluster: CloudCluster | undefined): void {
  const states = { live: 0, draining: 0, gone: 0 };
  for (const { isLive, isDraining } of cluster?.member.machines.list() ?? [ALONE]) {
    states[isLive ? (isDraining ? 'draining' : 'live') : 'gone']++;
  }
  set.addEach('machines', {}, 'state', states);
  const isAttached = cluster === undefined || cluster.member.state === 'attached';
  set.add('machine_attached', {}, isAttached ? 1 : 0);
  set.add('controller', {}, cluster === undefined || cluster.isController ? 1 : 0);
}

const ALONE = { isLive: true, isDraining: false };

type Condition = 'Allocated' | 'Programmed' | 'Acknowledged';
type Status = 'True' | 'False' | 'Unknown';

/** Returns the counters of a site: those of the verdicts, then those of its traffic. */
function siteCounts({ verdicts, traffic }: WorkerStatus, site: string): number[] {
  const counts: number[] = [];
  const named = verdicts[site];
  for (const name of VERDICT_NAMES) counts.push(named?.[name] ?? 0);
  const { forwardedBytes = 0, sentBytes = 0, receivedBytes = 0 } = traffic[site] ?? {};
  const { droppedFull = 0, droppedLate = 0 } = traffic[site] ?? {};
  counts.push(forwardedBytes, sentBytes, receivedBytes, droppedFull, droppedLate);
  return counts;
}

/** Returns how many handshakes had each of `HANDSHAKE_RESULTS`. */
function handshakesOf(listener: Readonly<Record<string, number>>): number[] {
  let refused = 0;
  let limited = 0;
  let failed = 0;
  for (const [name, count] of Object.entries(listener)) {
    const [kind, code] = name.split('.', 2);
    if (code === undefined) continue;
    if (kind === 'refused') refused += count;
    if (kind !== 'failed') continue;
    const others = count - (listener[`refused.${code}`] ?? 0);
    if (LIMITS.has(code)) limited += others;
    else failed += others;
  }
  return [listener.accepted ?? 0, refused, limited, failed];
}

/** `refused`: the peer was verified, and may not connect. `limited`: a limit of the port ended it. */
const HANDSHAKE_RESULTS = ['accepted', 'refused', 'limited', 'failed'];
const LIMITS: ReadonlySet<string> = new Set([
  CloseCode.RateLimited,
  CloseCode.Evicted,
  CloseCode.Busy,
]);
/** Why a data plane drops packets; the same whether a worker is up or not. */
const DROPS: Readonly<Record<keyof CloudDataPlaneCounters & `drop${string}`, 0>> = {
  dropDeviceFull: 0,
  dropNoTunnel: 0,
  dropNotAdmitted: 0,
  dropTunnelFull: 0,
  dropUncut: 0,
  dropWaitingFull: 0,
};
const DROP_REASONS: readonly string[] = Object.keys(dropsOf(DROPS));
const VERDICT_LABELS: readonly string[] = VERDICT_NAMES.map(snakeCase);
const SUBJECTS: ReadonlySet<ReadinessSubject> = new Set([
  'store',
  'listener',
  'worker',
  'machine',
  'certificate',
]);
/** Subjects of sums that no site can have as its name. */
const LISTENER = '(listener)';
const DATA_PLANE = '(data plane)';
