/**
 * Judges whether the exposures of a site let a flow pass, and whether its client has an address at the other site.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import { PortRange } from '../base/port-range.ts';
import type { ExposedService } from '../control/index.ts';
import type { Service } from '../registry/index.ts';
import { whyNotExposed } from './destination.ts';
import { no, ok, type Stage, unknown } from './explanation.ts';
import { advice, clientFix, exposeFix, portFix } from './fixes.ts';
import type { FlowProtocol } from './query.ts';
import { isIn } from './sender.ts';
import type { ExplainedWorld } from './world.ts';

type World = Pick<ExplainedWorld, 'registry' | 'lookup' | 'nowMs'>;

/** A flow whose ends are known. */
export interface Flow {
  /** The site of the sender. */
  readonly site: string;
  readonly source: IpAddress;
  readonly sourcePort: number;
  /** The address that the sender sends to. */
  readonly destination: IpAddress;
  readonly protocol: FlowProtocol;
  readonly port: number;
  /** Whether the packet asks for something or can only be an answer, as its headers say. */
  readonly role: 'request' | 'answer' | 'either';
}

export interface Permission {
  readonly stage: Stage<'permission'>;
  /** Whether the flow can only be the answer to a request of the other side. */
  readonly isAnswer: boolean;
}

/**
 * @param endpoint the real host behind the destination
 * @param named the service that was asked for by its name
 */
export function judgePermission(
  world: World,
  flow: Flow,
  endpoint: Endpoint,
  named?: Service
): Permission {
  const { lookup } = world;
  const { site, source, protocol, port } = flow;
  const visible = lookup.servicesAt(site, endpoint, flow.destination.family);
  const isRequest = flow.role !== 'answer';
  const offering = visible.filter(({ service }) => isRequest && offers(service, protocol, port));
  const allowing = offering.find(({ exposure }) => allows(exposure.clients, source));
  const request = (stage: Stage<'permission'>): Permission => ({ stage, isAnswer: false });
  if (allowing !== undefined) {
    const { service, exposure } = allowing;
    const clients = exposure.clients === undefined ? '' : ` for ${exposure.clients.join(', ')}`;
    const what = `${service.name} is exposed to ${site}${clients}, with ${textOf(protocol, port)}`;
    return request(ok('permission', `${what}${selectorOf(world, allowing)}`));
  }
  const requested = requestOf(world, flow, endpoint);
  if (requested !== undefined) {
    const reason = `it passes as the answer of ${requested.service.name} to a request only`;
    return { stage: ok('permission', reason), isAnswer: true };
  }
  const [excluding] = offering;
  if (excluding !== undefined) {
    const { service, exposure } = excluding;
    const reason = `${service.name} is exposed to ${site} for ${(exposure.clients ?? []).join(', ')} only${selectorOf(world, excluding)}`;
    return request(no('permission', reason, clientFix(world.registry, exposure, source)));
  }
  return request(refusePort(world, flow, endpoint, [...visible].sort(by(named))));
}

/** Judges a service that has no address at the site, so that there is no packet to judge. */
export function judgeUnreachable(world: World, site: string, service: Service): Permission {
  const stage =
    service.site === site
      ? unknown('permission', `${service.name} is at home at ${site}: no exposure is needed`)
      : permissionOf(world, site, service);
  return { stage, isAnswer: false };
}

/** Judges whether the client has, or gets, the address at the other site that answers go to. */
export function judgePresence(
  { lookup }: Pick<ExplainedWorld, 'lookup'>,
  { site, source, destination }: Pick<Flow, 'site' | 'source' | 'destination'>,
  endpoint: Endpoint,
  isPermitted: boolean
): Stage<'presence'> & { readonly isHeld: boolean } {
  const { realm, address } = endpoint;
  const client = new Endpoint(site, source);
  const { family } = address;
  const held = lookup.clientAddress(client, realm, family);
  if (held !== undefined) {
    return { ...ok('presence', `${source} of ${site} is ${held} at ${realm}`), isHeld: true };
  }
  if (!isPermitted) {
    const reason = `${source} of ${site} has no address at ${realm}, and gets none while it is refused at ${destination}`;
    return { ...unknown('presence', reason), isHeld: false };
  }
  const refusal = lookup.refusal(client, realm, family);
  if (refusal === undefined) {
    const reason = `${source} of ${site} gets an address at ${realm} with its first packet`;
    return { ...ok('presence', reason), isHeld: false };
  }
  const fix = advice(
    `add a prefix to the pools of ${realm} (virtual-presence site set ${realm} --add-pools PREFIX), raise maxClients of ${site}, or release clients that are gone`
  );
  const reason = `${source} of ${site} gets no address at ${realm}: ${refusal.message}`;
  return { ...no('presence', reason, fix), isHeld: false };
}

/** Returns whether a service has a port. */
function offers({ ports }: Pick<Service, 'ports'>, protocol: FlowProtocol, port: number): boolean {
  return ports.some(
    (range) =>
      range.protocol === protocol &&
      (protocol === 'icmp' || (range.first <= port && port <= range.last))
  );
}

/** Returns a port as a service has it: `tcp/5672`, `icmp`, `ip/47`. */
export function textOf(protocol: FlowProtocol, port: number): string {
  return protocol === 'icmp' ? protocol : `${protocol}/${port}`;
}

function allows(clients: ExposedService['exposure']['clients'], source: IpAddress): boolean {
  return clients === undefined || isIn(clients, source);
}

/** Returns the service of the sender that the other side may have sent a request to; undefined if there is none. */
function requestOf(
  { lookup }: World,
  { site, source, sourcePort, protocol, port, role }: Flow,
  { realm, address }: Endpoint
): ExposedService | undefined {
  if (role === 'request') return undefined;
  const from = protocol === 'ip' ? port : sourcePort;
  const sender = new Endpoint(site, source);
  return FAMILIES.flatMap((family) => lookup.servicesAt(realm, sender, family)).find(
    ({ service, exposure }) => offers(service, protocol, from) && allows(exposure.clients, address)
  );
}

/** No visible service of the host has the port: says which service would have it. */
function refusePort(
  world: World,
  { site, protocol, port }: Flow,
  endpoint: Endpoint,
  visible: readonly ExposedService[]
): Stage<'permission'> {
  const { registry, lookup } = world;
  const wanted = textOf(protocol, port);
  for (const name of lookup.namesAt(endpoint)) {
    const service = registry.service(name);
    if (service === undefined || !offers(service, protocol, port)) continue;
    const stage = permissionOf(world, site, service);
    if (stage.outcome === 'no') return stage;
  }
  const [first] = visible;
  if (first === undefined) {
    const reason = `no service of ${endpoint.realm} ${endpoint.address} is exposed to ${site}: only answers to its requests pass`;
    const [name] = lookup.namesAt(endpoint);
    return no('permission', reason, name === undefined ? undefined : exposeFix(name, site));
  }
  const { service } = first;
  const reason = `${service.name} has ${service.ports.join(', ')}, and not ${wanted}`;
  const range = protocol === 'icmp' ? PortRange.parse(protocol) : PortRange.parse(wanted);
  return no('permission', reason, portFix(registry, service, range));
}

/** Puts the service that was asked for first. */
function by(named: Service | undefined): (a: ExposedService, b: ExposedService) => number {
  const isNamed = ({ service }: ExposedService): boolean => service.name === named?.name;
  return (a, b) => Number(isNamed(b)) - Number(isNamed(a));
}

function permissionOf(world: World, site: string, service: Service): Stage<'permission'> {
  const unexposed = whyNotExposed(world, site, service);
  if (unexposed !== undefined) return no('permission', unexposed.reason, unexposed.fix);
  return ok('permission', `${service.name} is exposed to ${site}`);
}

/** Names the selector that an exposure comes from. */
function selectorOf({ registry }: World, { exposure: { service, site } }: ExposedService): string {
  const spec = registry.exposureRecord({ service, site })?.spec;
  return spec !== undefined && 'siteSelector' in spec ? `, by the selector ${spec.name}` : '';
}

const FAMILIES: readonly Family[] = [4, 6];
