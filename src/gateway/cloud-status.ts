/**
 * The addresses and the status of a running cloud gateway.
 * @module
 */
import type { AuditHead } from '../audit/index.ts';
import type { HostPort } from '../base/host-port.ts';
import type {
  ConnectedEdgeStatus,
  DerivationAuditCounters,
  PoolStatus,
  PoolWarning,
  RenewalCounters,
} from '../control/index.ts';
import { CLOUD } from '../registry/index.ts';
import type { WorkerPoolStatus } from '../worker/index.ts';
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
  /** The number of the worker that holds the site; undefined for the cloud, which all workers hold. */
  readonly worker: number | undefined;
  readonly revoked: boolean;
  /** Undefined while its edge is not connected. */
  readonly edge: ConnectedEdgeStatus | undefined;
  readonly pool: PoolStatus | undefined;
  readonly verdicts: Readonly<Record<string, number>> | undefined;
}

export interface CloudStatus {
  readonly pid: number;
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

export async function statusOf(parts: CloudParts): Promise<CloudStatus> {
  const { registry, controller, control, enrolment, trust, workers, dns, audit, sockets } = parts;
  const { authority } = trust;
  const sites = Array.from(registry.sites(), ({ name }) => name);
  const { verdicts, ...status } = await workers.status(sites);
  return {
    pid: process.pid,
    listening: addressesOf(parts),
    sites: sites.map((name) => ({
      name,
      worker: name === CLOUD ? undefined : workers.holderOf(name),
      revoked: authority.isSiteRevoked(name),
      edge: control.status(name),
      pool: controller.poolStats(name),
      verdicts: verdicts[name],
    })),
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
