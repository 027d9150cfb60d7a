/**
 * Judges what lies around the translation: whether the sites take part, their tunnels are up, and their edges know the
 * latest snapshot. The cloud itself has neither a tunnel nor an edge.
 * @module
 */
import { EnvironmentError } from '../errors.ts';
import { CLOUD } from '../registry/index.ts';
import { no, ok, type Stage, unknown } from './explanation.ts';
import { advice, reinstateFix } from './fixes.ts';
import type { ExplainedWorld } from './world.ts';

type World = Pick<
  ExplainedWorld,
  'lookup' | 'isRevoked' | 'edge' | 'tunnel' | 'lastFault' | 'snapshot'
>;

/** @param sites the site of the sender, and that of the receiver if it is known */
export function judgeSites(
  { lookup, isRevoked }: Pick<World, 'lookup' | 'isRevoked'>,
  sites: readonly string[]
): Stage<'site'> {
  const revoked = sites.find((site) => isRevoked(site) || !lookup.isLive(site));
  if (revoked === undefined)
    return ok('site', `${listOf(sites)} take part`.replace(ONE, '$1 takes'));
  const reason = `${revoked} is revoked: no packet from it or to it passes`;
  return no('site', reason, reinstateFix(revoked));
}

export async function judgeTunnels(
  world: World,
  sites: readonly string[]
): Promise<Stage<'tunnel'>> {
  const edges = sites.filter((site) => site !== CLOUD);
  if (edges.length === 0) return ok('tunnel', 'the cloud needs no tunnel');
  const up: string[] = [];
  for (const site of edges) {
    const tunnel = await world.tunnel(site).catch((error: Error) => error);
    if (tunnel instanceof Error) {
      if (!isDown(tunnel)) throw tunnel;
      return no('tunnel', `${site} has no tunnel: ${tunnel.message}`, WAIT);
    }
    if (tunnel === undefined) return no('tunnel', ...offline(world, site));
    const { connections, rttMs } = tunnel;
    const by = `${connections} ${connections === 1 ? 'connection' : 'connections'}`;
    const rtt = rttMs === undefined ? '' : `, round-trip time ${rttMs.toFixed(1)} ms`;
    up.push(`the tunnel of ${site} is up by ${by}${rtt}`);
  }
  return ok('tunnel', up.join('; '));
}

/** Judges whether the edges know the latest names and addresses of their sites. */
export function judgeAcknowledged(world: World, sites: readonly string[]): Stage<'acknowledged'> {
  const edges = sites.filter((site) => site !== CLOUD);
  if (edges.length === 0) return ok('acknowledged', 'the cloud has its own state at once');
  const known: string[] = [];
  for (const site of edges) {
    const edge = world.edge(site);
    const revision = world.snapshot(site)?.revision;
    if (edge === undefined || revision === undefined) {
      return unknown('acknowledged', `${site} is not connected, so it cannot say what it knows`);
    }
    const { appliedRevision } = edge;
    if (appliedRevision < revision) {
      const has = appliedRevision === 0 ? 'no revision' : `revision ${appliedRevision}`;
      const reason = `${site} has acknowledged ${has}, and not yet ${revision}: its names and its filter are behind`;
      return no('acknowledged', reason, advice('wait a moment and ask again'));
    }
    known.push(`${site} has acknowledged revision ${revision}`);
  }
  return ok('acknowledged', known.join('; '));
}

/** Returns whether an error says that a worker cannot be asked; it may have come from another process. */
export function isDown(error: unknown): boolean {
  return (error as { readonly code?: unknown } | null)?.code === new EnvironmentError('').code;
}

/** What to do while a worker is started again. */
export const WAIT: ReturnType<typeof advice> = advice(
  'wait until the worker runs again, and ask again'
);

function offline(
  { lastFault }: World,
  site: string
): [reason: string, fix: ReturnType<typeof advice>] {
  const fault = lastFault(site);
  const last = fault === undefined ? 'it has not connected since this gateway began' : fault;
  const fix = advice(
    `look at the gateway of ${site}: whether it runs, reaches the tunnel port of the cloud, and has a valid certificate (virtual-presence status there says which)`
  );
  return [`${site} has no tunnel: ${last}`, fix];
}

function listOf(sites: readonly string[]): string {
  return sites.join(' and ');
}

/** A list of one takes the singular. */
const ONE = /^(\S+) take/;
