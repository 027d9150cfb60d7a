/**
 * Finds what the destination of a flow is at the site of the sender: a presence, and the real host behind it.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import { HostNames } from '../base/host-names.ts';
import { CLOUD, type Service, type Site } from '../registry/index.ts';
import { no, ok, type Stage } from './explanation.ts';
import { advice, exposeFix, timeBoxFix } from './fixes.ts';
import { hint, nearest } from './nearest.ts';
import { parseAddress } from './query.ts';
import type { ExplainedWorld } from './world.ts';

export interface Destination {
  readonly stage: Stage<'destination'>;
  /** The presence; undefined if there is no address to send a packet to. */
  readonly address: IpAddress | undefined;
  /** The real host that the address stands for. */
  readonly endpoint: Endpoint | undefined;
  /** The service that was named, exposed or not. */
  readonly service: Service | undefined;
}

type World = Pick<ExplainedWorld, 'registry' | 'lookup' | 'snapshot' | 'nowMs'>;

/** @param to a service, a name as the site's DNS has it, or an address there */
export function findDestination(world: World, site: Site, to: string): Destination {
  const address = parseAddress(to);
  if (address !== undefined) return findAddress(world, site, address);
  const service = world.registry.service(to);
  if (service !== undefined) return findService(world, site, service);
  return findName(world, site, to);
}

/** Finds the destination of a packet. */
export function findAddress(world: World, site: Site, address: IpAddress): Destination {
  const { lookup } = world;
  const who = lookup.whois(site.name, address);
  if (who === undefined) return noPresence(world, site, address);
  const endpoint = new Endpoint(who.site, who.address.canonical());
  const visible = lookup.servicesAt(site.name, endpoint, address.family);
  const names = visible.map(({ service }) => service.name).sort();
  const what = names.length === 0 ? `a host of ${who.site}` : listOf(names);
  const reason = `${address} at ${site.name} is ${what}, ${who.site} ${who.address}`;
  return { stage: ok('destination', reason), address, endpoint, service: undefined };
}

function findService(world: World, site: Site, service: Service): Destination {
  const { name } = service;
  const endpoint = new Endpoint(service.site, service.address.canonical());
  const nowhere = { address: undefined, endpoint, service };
  if (service.site === site.name) {
    const reason = `${name} is at home at ${site.name} itself, at ${service.address}: packets to it do not pass the gateways`;
    return { ...nowhere, stage: no('destination', reason) };
  }
  const visible = world.lookup.service({ service: name, site: site.name });
  if (visible?.address !== undefined) {
    const { address } = visible;
    const reason = `${name} is ${address} at ${site.name}, ${service.site} ${service.address}`;
    return { stage: ok('destination', reason), address, endpoint, service };
  }
  const unexposed = whyNotExposed(world, site.name, service);
  if (unexposed !== undefined) {
    const reason = `${name} has no address at ${site.name}`;
    return { ...nowhere, stage: no('destination', reason, unexposed.fix) };
  }
  const reason = `${name} is exposed to ${site.name} and has no address there: the pools ${site.pools.join(', ')} have none left, or it waits for the address that it asks for`;
  const fix = advice(
    `add a prefix that nothing else uses to the pools of ${site.name} (virtual-presence site set ${site.name} --add-pools PREFIX), or remove exposures that nobody needs`
  );
  return { ...nowhere, stage: no('destination', reason, fix) };
}

/** Returns why a service is not exposed to a site now; undefined if it is. */
export function whyNotExposed(
  { registry, nowMs }: Pick<ExplainedWorld, 'registry' | 'nowMs'>,
  site: string,
  { name: service }: Pick<Service, 'name'>
): { readonly reason: string; readonly fix: ReturnType<typeof exposeFix> } | undefined {
  if (registry.exposure({ service, site }) !== undefined) return undefined;
  const record = registry.exposureRecord({ service, site });
  if (record === undefined) {
    return {
      reason: `${service} is not exposed to ${site}`,
      fix: exposeFix(service, site),
    };
  }
  const { notBefore, notAfter, ...terms } = record.spec;
  const isOver = notAfter !== undefined && Date.parse(notAfter) <= nowMs();
  const when = isOver ? `until ${notAfter} only` : `from ${notBefore} on only`;
  return {
    reason: `${service} is exposed to ${site} ${when}, and it is ${new Date(nowMs()).toISOString()}`,
    fix: timeBoxFix(registry, { service, site }, terms),
  };
}

function findName(world: World, site: Site, text: string): Destination {
  const snapshot = world.snapshot(site.name);
  const hosts = snapshot?.hosts ?? [];
  const found = new HostNames(snapshot?.zone ?? site.zone, hosts).find(text);
  const host = hosts.find(({ name }) => name === found);
  const [address] = host?.addresses ?? [];
  if (address !== undefined) return findAddress(world, site, address);
  const services = Array.from(world.registry.services(), ({ name }) => name);
  const names = hosts.map(({ name }) => name);
  const near = nearest(text, services) ?? nearest(text, names);
  const fix = advice(
    near === undefined
      ? `state the service first (virtual-presence service set ${text} --site SITE --address ADDRESS --ports PORTS), then expose it`
      : `ask for "${near}"`
  );
  const guess = hint(text, near === undefined ? [] : [near]);
  const reason = `"${text}" is neither a service nor a name at ${site.name}${guess}`;
  return {
    stage: no('destination', reason, fix),
    address: undefined,
    endpoint: undefined,
    service: undefined,
  };
}

/** There is no presence at an address: says what is there instead, if that is known. */
function noPresence(world: World, site: Site, address: IpAddress): Destination {
  const { lookup, registry } = world;
  const none = { address, endpoint: undefined, service: undefined };
  const here = `no presence at ${site.name} has the address ${address}`;
  const pools = lookup.poolsOf(site.name);
  if (pools.some((pool) => pool.contains(address))) {
    const fix = advice('expose the service that is meant, or correct the address');
    return { ...none, stage: no('destination', `${here}, which is in its pools`, fix) };
  }
  const real = address.canonical();
  for (const home of [CLOUD, site.name]) {
    const [name] = lookup.namesAt(new Endpoint(home, real));
    const service = name === undefined ? undefined : registry.service(name);
    if (service === undefined) continue;
    const what = `it is the real address of ${name} at ${home}`;
    if (home === site.name) return { ...none, stage: no('destination', `${here}: ${what}`) };
    const presence = lookup.service({ service: service.name, site: site.name })?.address;
    const fix =
      presence === undefined
        ? exposeFix(service.name, site.name)
        : advice(`send to ${presence}, the address of ${name} at ${site.name}`);
    return { ...none, stage: no('destination', `${here}: ${what}`, fix) };
  }
  const where =
    pools.length === 0
      ? `${site.name} has no pools`
      : `the pools of ${site.name} are ${pools.join(', ')}`;
  return { ...none, stage: no('destination', `${here}: ${where}`, advice('correct the address')) };
}

function listOf(names: readonly string[]): string {
  const [last] = names.slice(-1);
  return names.length === 1 ? last! : `${names.slice(0, -1).join(', ')} and ${last}`;
}
