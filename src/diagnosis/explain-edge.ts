/**
 * Explains what the gateway of a site does with a packet of its hosts, before the cloud sees it: whether it knows the
 * name, lets the packet into the tunnel, and has a tunnel. What is exposed to whom only the cloud knows.
 * @module
 */
import type { AddressInput, IpAddress } from '../base/address.ts';
import { HostNames } from '../base/host-names.ts';
import type { Snapshot } from '../control/index.ts';
import { probePacket } from '../packet/index.ts';
import { SiteFilter, VERDICT_NAMES, type VerdictName } from '../translator/index.ts';
import { type FlowEnds, no, ok, type Stage, unknown } from './explanation.ts';
import { advice } from './fixes.ts';
import { hint } from './nearest.ts';
import { endsOf, readFlow } from './packet-flow.ts';
import { checkFlow, type FlowProtocol, parseAddress } from './query.ts';
import type { SiteTunnelStatus } from './world.ts';

/** A flow from a host of the site. */
export interface EdgeFlowQuery {
  /** The real address of the host. */
  readonly from: AddressInput;
  /** A name as the site's DNS has it, or an address. */
  readonly to: string;
  /** Default `tcp`. */
  readonly protocol?: FlowProtocol | undefined;
  /** Default: the first port of that protocol that the name has, or 1. */
  readonly port?: number | undefined;
  /** Default 49152. */
  readonly sourcePort?: number | undefined;
}

export type EdgeExplainQuery = EdgeFlowQuery | { readonly packet: Uint8Array };

/**
 * - `snapshot`: the gateway knows what is exposed to its site, and that still holds
 * - `destination`: the name or the address is a presence
 * - `filter`: sender and destination may use the tunnel (BCP 38)
 * - `tunnel`: the tunnel to the cloud is up
 */
export type EdgeStageName = 'snapshot' | 'destination' | 'filter' | 'tunnel';

/** What the gateway of a site does with a packet. */
export interface EdgeExplanation {
  /** Whether the packet gets to the cloud, which decides the rest. */
  readonly passes: boolean;
  readonly droppedAt: EdgeStageName | undefined;
  readonly summary: string;
  readonly stages: readonly Stage<EdgeStageName>[];
  readonly fix: Stage<EdgeStageName>['fix'];
  readonly before: FlowEnds | undefined;
  /** What the filter says; undefined if there was no address to send a packet to. */
  readonly verdict: VerdictName | undefined;
}

/** What an explanation reads of an edge gateway. */
export interface ExplainedEdge {
  readonly site: string | undefined;
  /** The snapshot in force. */
  readonly snapshot: Snapshot | undefined;
  /** Why there is no snapshot in force any more, one sentence. */
  readonly expired: string | undefined;
  /** The tunnel, while it is up. */
  readonly tunnel: SiteTunnelStatus | undefined;
  /** Why it is not up, one clause. */
  readonly failure: string | undefined;
}

/** @throws {ConfigError} if a part of the query is wrong. */
export function explainAtEdge(edge: ExplainedEdge, query: EdgeExplainQuery): EdgeExplanation {
  const { snapshot } = edge;
  const asked = 'packet' in query ? { packet: query.packet } : ask(snapshot, query);
  const { packet } = asked;
  const read = packet && readFlow(packet);
  const filter = new SiteFilter();
  filter.setAddresses(snapshot ?? { sources: [], pools: [] });
  const verdict = packet && VERDICT_NAMES[filter.checkOutbound(packet, 0, packet.length)]!;
  const stages: readonly Stage<EdgeStageName>[] = [
    snapshotStage(edge),
    asked.fault ?? destinationStage(snapshot, read?.destination),
    filterStage(verdict, read?.source, snapshot),
    tunnelStage(edge),
  ];
  const stopping = stages.find(({ outcome }) => outcome === 'no');
  const droppedAt = stopping?.name ?? (verdict === 'Forward' ? undefined : 'filter');
  const named = verdict === undefined ? '' : ` (${verdict})`;
  return {
    passes: droppedAt === undefined,
    droppedAt,
    summary:
      droppedAt === undefined
        ? 'passes to the cloud, which decides the rest'
        : `dropped at ${droppedAt}${named}`,
    stages,
    fix: stopping?.fix,
    before: read && endsOf(read),
    verdict,
  };
}

/** Makes a packet of a query, or says why there is none. */
function ask(
  snapshot: Snapshot | undefined,
  query: EdgeFlowQuery
): { readonly packet?: Uint8Array; readonly fault?: Stage<'destination'> } {
  checkFlow({ ...query, from: { site: '', address: query.from } });
  const source = parseAddress(`${query.from}`);
  const { to, protocol = 'tcp', sourcePort = DEFAULT_SOURCE_PORT } = query;
  const hosts = snapshot?.hosts ?? [];
  const found = new HostNames(snapshot?.zone ?? '', hosts).find(to);
  const host = hosts.find(({ name }) => name === found);
  const destination = parseAddress(to) ?? host?.addresses[0];
  if (destination === undefined) {
    const names = hosts.map(({ name }) => name);
    const reason = `"${to}" is neither an address nor a name of this site${hint(to, names)}`;
    const fix = advice('expose the service to this site at the cloud, or correct the name');
    return { fault: no('destination', reason, fix) };
  }
  if (source?.family !== destination.family) {
    const reason = `${query.from} is no IPv${destination.family} address, and ${destination} is one`;
    return { fault: no('destination', reason, advice('name an address of that IP version')) };
  }
  const offered = host?.ports.find((range) => range.protocol === protocol)?.first;
  const destinationPort = query.port ?? offered ?? 1;
  return { packet: probePacket({ protocol, source, destination, sourcePort, destinationPort }) };
}

function snapshotStage({ snapshot, expired, site }: ExplainedEdge): Stage<'snapshot'> {
  if (snapshot !== undefined) {
    const { revision, hosts } = snapshot;
    return ok(
      'snapshot',
      `${snapshot.site} has revision ${revision}, with ${hosts.length} ${hosts.length === 1 ? 'name' : 'names'}`
    );
  }
  if (expired !== undefined) {
    return no('snapshot', expired, advice('bring the tunnel to the cloud up again'));
  }
  const reason = `${site ?? 'this gateway'} has not got its names and addresses from the cloud yet`;
  return no('snapshot', reason, advice('bring the tunnel to the cloud up'));
}

function destinationStage(
  snapshot: Snapshot | undefined,
  address: IpAddress | undefined
): Stage<'destination'> {
  if (address === undefined) return unknown('destination', 'the packet cannot be read');
  if (snapshot === undefined) return unknown('destination', 'nothing is known of the presences');
  const isAt = (each: IpAddress): boolean => each.equals(address);
  const host = snapshot.hosts.find(
    ({ addresses, former = [] }) => addresses.some(isAt) || former.some(isAt)
  );
  if (host !== undefined) {
    return ok(
      'destination',
      `${address} is ${host.name}, with ${host.ports.join(', ') || 'no ports'}`
    );
  }
  const pools = snapshot.pools.join(', ');
  const isPooled = snapshot.pools.some((pool) => pool.contains(address));
  const where = isPooled
    ? `is in the pools ${pools}, but stands for nothing`
    : `is not in the pools ${pools}`;
  const fix = advice('expose the service to this site at the cloud, or correct the address');
  return no('destination', `${address} ${where}`, fix);
}

function filterStage(
  verdict: VerdictName | undefined,
  source: IpAddress | undefined,
  snapshot: Snapshot | undefined
): Stage<'filter'> {
  if (verdict === undefined) return unknown('filter', 'there is no packet to check');
  if (verdict === 'Forward') return ok('filter', `${source} may send into the tunnel`);
  if (snapshot === undefined) return unknown('filter', 'without a snapshot nothing may pass');
  if (verdict === 'DropSpoofed') {
    const reason = `${source} is not in the sources ${snapshot.sources.join(', ')}, or is in the pools`;
    const fix = advice('add the host to the sources of this site at the cloud');
    return no('filter', reason, fix);
  }
  if (verdict === 'DropNoPresence') {
    return no('filter', 'the destination is not in the pools of this site');
  }
  return no('filter', `the filter stops the packet: ${verdict}`);
}

function tunnelStage({ tunnel, failure }: ExplainedEdge): Stage<'tunnel'> {
  if (tunnel === undefined) {
    const why = failure === undefined ? 'it is being established' : failure;
    return no(
      'tunnel',
      `there is no tunnel to the cloud: ${why}`,
      advice('see the failure in the status')
    );
  }
  const { connections, rttMs } = tunnel;
  const rtt = rttMs === undefined ? '' : `, round-trip time ${rttMs.toFixed(1)} ms`;
  return ok(
    'tunnel',
    `the tunnel is up by ${connections} ${connections === 1 ? 'connection' : 'connections'}${rtt}`
  );
}

const DEFAULT_SOURCE_PORT = 49_152;
