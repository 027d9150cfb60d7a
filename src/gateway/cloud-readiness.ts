/**
 * Whether a cloud gateway can do its work. It is ready when it accepts tunnels, all of its workers are up, its CA is
 * valid and its store takes what it has to store. One of several machines that is detached or drains takes no sites, so it
 * is not ready: whoever sends edges there should send them to another one. What a single site lacks, such as its
 * tunnel, says nothing of the gateway.
 * @module
 */
import { type Readiness, type ReadinessReason, readinessOf } from '../observe/index.ts';
import type { CloudParts } from './cloud-parts.ts';

/** @param parts undefined before the gateway is open, and when it is closed */
export function cloudReadiness(
  parts: Pick<CloudParts, 'store' | 'workers' | 'trust' | 'cluster'> | undefined,
  faults: ReadonlyMap<string, string>
): Readiness {
  if (parts === undefined) {
    const message = 'the gateway is starting or closing, and accepts no tunnels';
    return readinessOf([{ subject: 'listener', message }]);
  }
  const reasons: ReadinessReason[] = [];
  const stored = parts.store.fault();
  if (stored !== undefined) reasons.push({ subject: 'store', message: stored });
  const detached = faults.get('cluster');
  if (detached !== undefined) reasons.push({ subject: 'machine', message: detached });
  const { name, isDraining = false } = parts.cluster?.member ?? {};
  if (isDraining) {
    const message = `machine ${name} drains, and takes no sites: "machine resume" ends that`;
    reasons.push({ subject: 'machine', message });
  }
  const workers = faults.get('workers');
  if (workers !== undefined) {
    reasons.push({ subject: 'worker', message: `${workers}: they are started again` });
  }
  const hanging = parts.workers.fault();
  if (hanging !== undefined) reasons.push({ subject: 'worker', message: hanging });
  // The fault `ca` follows the clock once an hour, so the CA is asked itself.
  const { isCaExpired, caWarning } = parts.trust;
  if (isCaExpired && caWarning !== undefined) {
    reasons.push({ subject: 'certificate', message: caWarning });
  }
  return readinessOf(reasons);
}
