/**
 * Waits until an exposure is in force: the service has an address at the site, and the edge has acknowledged it.
 * @module
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { CloudOperations, CloudStatusAnswer, ExposureAnswer } from '../admin/index.ts';
import { CLOUD } from '../registry/index.ts';
import type { Connection } from './connection.ts';
import { CommandError, ExitCode } from './exit.ts';
import type { Io } from './io.ts';
import { printLines } from './output.ts';
import { distance, listOf } from './table.ts';

/**
 * Returns when the exposure is in force, or when nothing can be waited for: its time has not come, or the edge is not
 * connected. It says which.
 *
 * @throws {CommandError} if the time is over.
 */
export async function waitForExposure(
  io: Io,
  cloud: Connection<CloudOperations>,
  params: { readonly site: string; readonly service: string },
  timeoutSeconds: number = 60
): Promise<void> {
  const endMs = performance.now() + timeoutSeconds * 1000;
  const { result: exposure } = await cloud.call('getExposure', { params });
  const { site, service } = params;
  const outside = outsideOf(exposure);
  if (outside !== undefined) return printLines(io, [outside]);
  const until = async <T>(missing: string, look: () => Promise<T | undefined>): Promise<T> => {
    for (;;) {
      const found = await look();
      if (found !== undefined) return found;
      if (performance.now() >= endMs) {
        throw new CommandError(
          ExitCode.NotReady,
          `${missing}: see "virtual-presence status ${site}"`
        );
      }
      await sleep(POLL_MS);
    }
  };

  const name = exposure.dnsName ?? service;
  const addresses = await until(`"${service}" has no address at "${site}" yet`, async () => {
    const { hosts } = (await cloud.call('lookup', { query: { name, site } })).result;
    const found = hosts.flatMap((host) => host.addresses);
    return found.length === 0 ? undefined : found;
  });
  const about = `"${service}" is ${listOf(addresses)} at "${site}"`;
  // The answer to `lookup` was sent to the edge before, so `sentRevision` is that of the exposure or a later one.
  const edge = await edgeOf(cloud, site);
  if (edge === undefined) {
    const advice = site === CLOUD ? '' : '; its edge is not connected, and will know it when it is';
    return printLines(io, [`${about}${advice}`]);
  }
  await until(`${about}, and the edge has not acknowledged it yet`, async () => {
    const now = await edgeOf(cloud, site);
    return now === undefined || now.appliedRevision >= edge.sentRevision ? true : undefined;
  });
  printLines(io, [`${about}, and its edge has acknowledged it`]);
}

function outsideOf({ notBefore, notAfter }: ExposureAnswer): string | undefined {
  if (notBefore !== undefined && Date.parse(notBefore) > Date.now()) {
    return `it holds from ${notBefore} on, ${distance(notBefore)}`;
  }
  if (notAfter === undefined || Date.parse(notAfter) > Date.now()) return undefined;
  return `it held until ${notAfter}, ${distance(notAfter)}`;
}

async function edgeOf(
  cloud: Connection<CloudOperations>,
  site: string
): Promise<CloudStatusAnswer['sites'][number]['edge']> {
  const { sites } = (await cloud.call('getStatus', { query: { site } })).result;
  return sites.find(({ name }) => name === site)?.edge;
}

const POLL_MS = 500;
