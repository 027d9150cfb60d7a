/**
 * The addresses and the status of a running cloud gateway.
 * @module
 */
import type { AuditHead } from '../audit/index.ts';
import type { Clock } from '../base/clock.ts';
import type { HostPort } from '../base/host-port.ts';
import { slicesOf } from '../base/slices.ts';
import type {
  ConnectedEdgeStatus,
  DerivationAuditCounters,
  PoolStatus,
  PoolWarning,
  RenewalCounters,
} from '../control/index.ts';
import { NotFoundError } from '../errors.ts';
import { CLOUD } from '../registry/index.ts';
import type { WorkerPoolStatus } from '../worker/index.ts';
import { type OwnMachine, ownMachineOf } from './cloud-machines.ts';
import type { CloudParts } from './cloud-parts.ts';
import type { HostConflict } from './host-check.ts';

/** Where a cloud gateway listens. */
export interface CloudAddresses {
  /** Where edges connect, one entry for each worker. */
  readonly tunnels: readonly HostPort[];
  readonly enrolment: HostPort;
  /** Undefined without the option `dns`. */
  readonly dns?: HostPort;
  /** Where a UDP device receives; undefined for other devices. */
  readonly device?: HostPort;
  /** Undefined without the option `metrics`. */
  readonly metrics?: HostPort;
}

export interface CloudSiteStatus {
  readonly name: string;
  /**
   * The number of the worker that holds the site; undefined for the cloud, which all workers hold, and where another machine
   * holds the site.
   */
  readonly worker: number | undefined;
  /** The machine that holds the site; undefined while none does, and without the option `cluster`. */
  readonly machine: string | undefined;
  /** The epoch of that machine's claim of the site: the later claim has the higher number. */
  readonly epoch: number | undefined;
  readonly revoked: boolean;
  /** Undefined while its edge is not connected to this gateway. */
  readonly edge: ConnectedEdgeStatus | undefined;
  readonly pool: PoolStatus | undefined;
  readonly verdicts: Readonly<Record<string, number>> | undefined;
}

export interface CloudStatus {
  readonly pid: number;
  /** Undefined without the option `cluster`. */
  readonly machine: OwnMachine | undefined;
  readonly listening: CloudAddresses;
  readonly sites: readonly CloudSiteStatus[];
  readonly listener: WorkerPoolStatus['listener'];
  readonly dataPlane: WorkerPoolStatus['dataPlane'];
  readonly device: WorkerPoolStatus['device'];
  readonly workers: WorkerPoolStatus['workers'];
  /** The counters of the sockets in this process; none unless the device is of the type `sockets`. */
  readonly sockets: Readonly<Record<string, number>>;
  readonly dns: Readonly<Record<string, number>>;
  readonly enrolment: Readonly<Record<string, number>>;
  readonly renewals: Readonly<RenewalCounters> | undefined;
  readonly ca: {
    readonly rollover: string;
    readonly spki: string;
    readonly notAfter: Date;
    readonly warning: string | undefined;
  };
  /** How often sites were compared with their records and leases, and what that has found. */
  readonly derivation: DerivationAuditCounters;
  /** The last line of the audit log; undefined if there is no audit log. */
  readonly audit: AuditHead | undefined;
  /** What is scarce in pools, and what of the machine is in conflict with the pools of the cloud's site. */
  readonly warnings: readonly (PoolWarning | HostConflict)[];
}

export function addressesOf({
  workers,
  dns,
  enrolmentAddress,
  metrics,
}: CloudParts): CloudAddresses {
  const device = workers.addresses[0]?.device;
  return {
    tunnels: workers.addresses.map(({ tunnel }) => tunnel),
    enrolment: enrolmentAddress(),
    ...(dns && { dns: dns.address }),
    ...(device && { device }),
    ...(metrics && { metrics: metrics.address }),
  };
}

/**
 * Returns the status. The sites are read in slices, so that no process is held up; what is added or removed meanwhile may
 * be missing.
 *
 * @param only the only site whose status is read; default all
 * @throws {NotFoundError} if there is no such site.
 */
export async function statusOf(
  parts: CloudParts,
  clock: Clock,
  only?: string
): Promise<CloudStatus> {
  const { registry, controller, control, enrolment, trust, workers, dns, audit, sockets } = parts;
  const { cluster } = parts;
  if (only !== undefined && registry.site(only) === undefined) {
    throw new NotFoundError(`there is no site "${only}"`);
  }
  const names = only === undefined ? Array.from(registry.sites(), ({ name }) => name) : [only];
  const { verdicts, ...status } = await workers.status(names);
  const sites: CloudSiteStatus[] = [];
  await slicesOf(clock).all(addSites(sites, parts, names, verdicts));
  const { authority } = trust;
  return {
    pid: process.pid,
    machine: cluster && ownMachineOf(cluster, clock),
    listening: addressesOf(parts),
    sites,
    ...status,
    sockets: sockets.counters,
    dns: { ...dns?.counters },
    enrolment: { ...enrolment.counters },
    renewals: control.renewals,
    ca: {
      rollover: authority.rollover,
      spki: authority.spkiHash,
      notAfter: trust.caNotAfter,
      warning: trust.caWarning,
    },
    derivation: controller.audited,
    audit: audit?.head,
    warnings: [...controller.warnings, ...parts.pools.conflicts],
  };
}

function* addSites(
  sites: CloudSiteStatus[],
  { registry, controller, control, trust, workers, cluster }: CloudParts,
  names: readonly string[],
  verdicts: WorkerPoolStatus['verdicts']
): Generator<void> {
  for (const name of names) {
    // A site that was removed meanwhile would get a worker again.
    if (registry.site(name) === undefined) continue;
    const holder = cluster?.holderOf(name);
    const isElsewhere = holder?.isHere === false;
    sites.push({
      name,
      worker: name === CLOUD || isElsewhere ? undefined : workers.holderOf(name),
      machine: holder?.machine,
      epoch: holder?.epoch.number,
      revoked: trust.authority.isSiteRevoked(name),
      edge: control.status(name),
      pool: controller.poolStats(name),
      verdicts: verdicts[name],
    });
    yield;
  }
}
