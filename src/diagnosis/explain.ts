/**
 * Explains what happens to a packet, from the first stage to the last:
 *
 * 1. The names of the query become addresses at the site of the sender, and the real host behind them.
 * 2. Each stage is judged by the desired state, the leases and the tunnels, whatever the stages before it say.
 * 3. The data plane is asked about the packet itself, a TCP segment with SYN, a datagram or an echo request. It decides;
 *    the stage `programmed` says so if it decides otherwise than the desired state.
 * 4. The data plane is asked about the answer.
 *
 * Nothing is changed, counted or remembered.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import { ConfigError } from '../errors.ts';
import { probePacket } from '../packet/index.ts';
import type { Site } from '../registry/index.ts';
import type { Explanation, VerdictName } from '../translator/index.ts';
import { type Destination, findAddress, findDestination } from './destination.ts';
import { type FlowExplanation, no, ok, type Stage, unknown } from './explanation.ts';
import { advice } from './fixes.ts';
import { endsOf, readFlow } from './packet-flow.ts';
import {
  type Flow,
  judgePermission,
  judgePresence,
  judgeUnreachable,
  type Permission,
} from './permission.ts';
import { checkFlow, type ExplainQuery, type FlowProtocol, type FlowQuery } from './query.ts';
import { isDown, judgeAcknowledged, judgeSites, judgeTunnels, WAIT } from './reach.ts';
import { anyHost, judgeSender, senderAddress, senderSite } from './sender.ts';
import type { ExplainedWorld } from './world.ts';

/**
 * Explains a flow, or a packet.
 *
 * @throws {ConfigError} if the query names a site that does not exist, or a part of it is wrong.
 */
export async function explainFlow(
  world: ExplainedWorld,
  query: ExplainQuery
): Promise<FlowExplanation> {
  await world.settled();
  const site = senderSite(world, query.from.site);
  const asked = 'packet' in query ? askedBy(world, site, query.packet) : ask(world, site, query);
  return explain(world, site, asked);
}

/** What is asked, as far as it is known. */
interface Asked {
  readonly destination: Destination;
  /** Undefined if the query names no host, and none fits. */
  readonly source: IpAddress | undefined;
  readonly flow: Flow | undefined;
  readonly packet: Uint8Array | undefined;
  readonly protocol: FlowProtocol | undefined;
  /** Why there is no packet although both ends are known. */
  readonly fault?: string | undefined;
}

function ask(world: ExplainedWorld, site: Site, query: FlowQuery): Asked {
  checkFlow(query);
  const destination = findDestination(world, site, query.to);
  const { protocol, port } = portOf(world, destination, query);
  const { address } = destination;
  const named = senderAddress(world, site, query.from);
  const source = named ?? hostFor(world, site, destination);
  const known = { destination, source, protocol, flow: undefined, packet: undefined };
  if (address === undefined || source === undefined) return known;
  if (source.family !== address.family) {
    const fault = `${source} is IPv${source.family}, and ${address} is IPv${address.family}`;
    return { ...known, fault };
  }
  const { sourcePort = DEFAULT_SOURCE_PORT } = query;
  const role = PURE_REQUESTS.has(protocol) ? 'request' : 'either';
  const ends = { source, sourcePort, destination: address, protocol };
  const flow: Flow = { site: site.name, ...ends, port, role };
  const packet = probePacket({ ...ends, destinationPort: port });
  return { ...known, flow, packet };
}

/** Returns protocol and port of a query; those of the service's first port where it names none. */
function portOf(
  { registry, lookup }: ExplainedWorld,
  { service, endpoint }: Destination,
  query: FlowQuery
): { readonly protocol: FlowProtocol; readonly port: number } {
  const [name] = endpoint === undefined ? [] : lookup.namesAt(endpoint);
  const offered = service ?? (name === undefined ? undefined : registry.service(name));
  const ports = offered?.ports ?? [];
  const { protocol = query.port === undefined ? ports[0]?.protocol : 'tcp' } = query;
  if (protocol === undefined) {
    // There is nothing to send to, and the answer says so.
    if (endpoint === undefined) return { protocol: 'tcp', port: query.port ?? DEFAULT_SOURCE_PORT };
    throw new ConfigError('protocol', 'is missing, and the host has no service to take it from');
  }
  if (protocol === 'icmp') return { protocol, port: 0 };
  const port = query.port ?? ports.find((range) => range.protocol === protocol)?.first;
  if (port !== undefined) return { protocol, port };
  if (endpoint === undefined) return { protocol, port: DEFAULT_SOURCE_PORT };
  throw new ConfigError('port', `is missing, and no service there has a port of ${protocol}`);
}

/** Returns a host that may use the service. */
function hostFor(
  world: ExplainedWorld,
  site: Site,
  { address, service }: Destination
): IpAddress | undefined {
  const exposure = service && world.registry.exposure({ service: service.name, site: site.name });
  const family = address?.family ?? site.sources[0]?.family ?? 4;
  return anyHost(world, site, family, exposure?.clients);
}

/** Reads a packet that was given as bytes. */
function askedBy(world: ExplainedWorld, site: Site, packet: Uint8Array): Asked {
  const read = readFlow(packet);
  if (read === undefined) {
    const stage = unknown('destination', 'the bytes are not a packet that can be read');
    const destination = { stage, address: undefined, endpoint: undefined, service: undefined };
    return { destination, source: undefined, flow: undefined, packet, protocol: undefined };
  }
  const destination = findAddress(world, site, read.destination);
  const { source, protocol } = read;
  return { destination, source, packet, protocol, flow: { ...read, site: site.name } };
}

async function explain(world: ExplainedWorld, site: Site, asked: Asked): Promise<FlowExplanation> {
  const { destination, source, flow, packet } = asked;
  const { endpoint } = destination;
  const sites = [...new Set([site.name, ...(endpoint === undefined ? [] : [endpoint.realm])])];
  const sender = senderStage(world, site, asked);
  const permission = permissionStage(world, site, asked);
  const isPermitted = permission.stage.outcome === 'ok' && sender.outcome === 'ok';
  const presence =
    endpoint === undefined || source === undefined || destination.address === undefined
      ? undefined
      : judgePresence(
          world,
          { site: site.name, source, destination: destination.address },
          endpoint,
          isPermitted
        );
  const standing = judgeSites(world, sites);
  const wanted =
    flow === undefined
      ? undefined
      : wantedVerdict(destination.stage, standing, sender, permission, presence?.isHeld === true);
  const answer = await askDataPlane(world, site.name, endpoint, packet);
  const { explanation } = answer;
  const back = await replyStage(world, asked, explanation);
  const stages: readonly Stage[] = [
    destination.stage,
    sender,
    permission.stage,
    stageOf(presence) ?? unknown('presence', 'the host behind the destination is not known'),
    standing,
    await judgeTunnels(world, sites),
    programmedStage(answer, wanted),
    judgeAcknowledged(world, sites),
    translationStage(explanation),
    back,
  ];
  const stopping = stages.find(({ name, outcome }) => outcome === 'no' && name !== 'acknowledged');
  const passed = explanation?.verdict === 'Forward' || explanation?.verdict === 'NeedsPresence';
  const passes = stopping === undefined && passed;
  const droppedAt = passes ? undefined : (stopping?.name ?? 'translation');
  const verdict = explanation?.verdict;
  return {
    passes,
    droppedAt,
    summary: passes
      ? `passes to ${endpoint?.realm ?? explanation?.egress}`
      : `dropped at ${droppedAt}${verdict === undefined ? '' : ` (${verdict})`}`,
    stages,
    fix: stopping?.fix,
    from: site.name,
    to: endpoint?.realm,
    protocol: asked.protocol,
    before: flow && endsOf(flow),
    after: afterOf(explanation),
    verdict,
    step: explanation?.step,
    packet,
    translated: explanation?.packet,
  };
}

function senderStage(
  world: ExplainedWorld,
  site: Site,
  { source, fault, packet }: Asked
): Stage<'source'> {
  if (source === undefined && packet !== undefined) {
    return unknown('source', 'the bytes are not a packet that can be read');
  }
  if (source === undefined) {
    const fix = advice(`name the host: ${site.name}/ADDRESS`);
    return no('source', `no host of ${site.name} was named, and none is a client there`, fix);
  }
  const stage = judgeSender(world, site, source);
  if (stage.outcome === 'no' || fault === undefined) return stage;
  return no('source', fault, advice('name an address of the host of the other IP version'));
}

function permissionStage(
  world: ExplainedWorld,
  site: Site,
  { destination: { endpoint, service, address }, flow, source, protocol }: Asked
): Permission {
  if (flow !== undefined && endpoint !== undefined) {
    return judgePermission(world, flow, endpoint, service);
  }
  if (address === undefined && service !== undefined) {
    return judgeUnreachable(world, site.name, service);
  }
  const missing =
    endpoint === undefined
      ? 'the destination'
      : source === undefined
        ? 'the source'
        : `${protocol}`;
  const stage = unknown('permission', `there is nothing to permit: ${missing} is not known`);
  return { stage, isAnswer: false };
}

/** Returns what the data plane has to decide; undefined if more than the desired state counts. */
function wantedVerdict(
  destination: Stage,
  site: Stage,
  source: Stage,
  { stage: permission, isAnswer }: Permission,
  hasPresence: boolean
): VerdictName | undefined {
  if (destination.outcome === 'no' || site.outcome === 'no') return 'DropNoPresence';
  if (source.outcome === 'no') return 'DropSpoofed';
  if (permission.outcome === 'no') return 'DropNotPermitted';
  if (isAnswer || permission.outcome === 'unknown') return undefined;
  return hasPresence ? 'Forward' : 'NeedsPresence';
}

interface Answer {
  readonly explanation: Explanation | undefined;
  /** Why there is none. */
  readonly fault?: string | undefined;
  readonly isDown?: boolean;
}

/** Asks the data plane. Between two sites, a packet may cross the realm of the cloud on its way. */
async function askDataPlane(
  world: ExplainedWorld,
  site: string,
  endpoint: Endpoint | undefined,
  packet: Uint8Array | undefined
): Promise<Answer> {
  if (packet === undefined) {
    return { explanation: undefined, fault: 'there is no packet to ask the worker about' };
  }
  try {
    let explanation = await world.explain(packet, site);
    const { packet: crossing, egress } = explanation;
    const isCrossing = endpoint !== undefined && egress !== endpoint.realm && egress !== site;
    if (crossing !== undefined && egress !== undefined && isCrossing) {
      explanation = await world.explain(crossing, egress);
    }
    return { explanation };
  } catch (error) {
    const fault = (error as Error).message;
    if (isDown(error)) return { explanation: undefined, fault, isDown: true };
    // A worker that was started while the site was revoked does not know it.
    if (!world.lookup.isLive(site)) return { explanation: undefined, fault };
    throw error;
  }
}

function programmedStage(
  { explanation, fault, isDown: isWorkerDown }: Answer,
  wanted: VerdictName | undefined
): Stage<'programmed'> {
  if (explanation === undefined) {
    const reason = fault!;
    return isWorkerDown === true ? no('programmed', reason, WAIT) : unknown('programmed', reason);
  }
  const { verdict, step, reason } = explanation;
  if (wanted === undefined) return ok('programmed', `the worker decides ${verdict}: ${reason}`);
  // What only the packet itself decides comes after what the plan decides.
  const isBehind = wanted === 'Forward' && LATER_STEPS.has(step);
  if (verdict === wanted || isBehind) {
    return ok('programmed', `the worker decides as the desired state says: ${verdict}`);
  }
  const fix = advice('ask again; if it stays so, the log has a problem that names the site');
  return no('programmed', `the worker decides ${verdict}, and not ${wanted}: ${reason}`, fix);
}

function translationStage(explanation: Explanation | undefined): Stage<'translation'> {
  if (explanation === undefined) return unknown('translation', 'the data plane was not asked');
  const { verdict, step, reason } = explanation;
  if (verdict === 'Forward') return ok('translation', reason);
  if (verdict === 'NeedsPresence') {
    return unknown('translation', 'the packet is translated when its sender has an address there');
  }
  if (LATER_STEPS.has(step) || step === 'headers') return no('translation', reason);
  return unknown('translation', `the data plane stops the packet before: ${reason}`);
}

/** Asks the data plane about the first answer. A request opens the path of its answers, so this one need not be open. */
async function replyStage(
  world: ExplainedWorld,
  { destination: { endpoint }, flow, protocol }: Asked,
  explanation: Explanation | undefined
): Promise<Stage<'reply'>> {
  const translated = explanation?.packet && readFlow(explanation.packet);
  if (translated === undefined || flow === undefined || endpoint === undefined) {
    const isWaiting = explanation?.verdict === 'NeedsPresence';
    const what = isWaiting ? 'has an address there' : 'passes';
    return unknown('reply', `the answer is looked at when the packet ${what}`);
  }
  const { source, destination } = translated;
  const ports = { sourcePort: translated.port, destinationPort: translated.sourcePort };
  const packet = probePacket({
    protocol: protocol!,
    source: destination,
    destination: source,
    ...(protocol === 'icmp' ? { sourcePort: translated.sourcePort, destinationPort: 0 } : ports),
    ...(protocol === 'ip' && { destinationPort: translated.port }),
    isAnswer: true,
  });
  try {
    const reply = await world.explain(packet, endpoint.realm);
    if (reply.verdict === 'Forward' || reply.step === 'session') {
      const reason = `an answer from ${destination} of ${endpoint.realm} passes back to ${flow.source} of ${flow.site}`;
      return ok('reply', reason);
    }
    return no('reply', `an answer does not pass (${reply.verdict}): ${reply.reason}`);
  } catch (error) {
    if (!isDown(error)) throw error;
    return no('reply', (error as Error).message, WAIT);
  }
}

function afterOf(explanation: Explanation | undefined): FlowExplanation['after'] {
  const read = explanation?.packet && readFlow(explanation.packet);
  return read && endsOf(read);
}

function stageOf(
  presence: (Stage<'presence'> & { readonly isHeld: boolean }) | undefined
): Stage<'presence'> | undefined {
  if (presence === undefined) return undefined;
  const { isHeld: _, ...stage } = presence;
  return stage;
}

/** The first port of the range for clients (RFC 6335 section 6). */
const DEFAULT_SOURCE_PORT = 49_152;
/** The protocols whose first packet cannot be taken for an answer. */
const PURE_REQUESTS: ReadonlySet<FlowProtocol> = new Set(['tcp', 'sctp', 'icmp'] as const);
/** The steps of the data plane behind those that follow from the plan alone. */
const LATER_STEPS: ReadonlySet<string> = new Set(['session', 'room', 'size']);
