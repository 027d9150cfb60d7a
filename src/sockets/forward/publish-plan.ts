/**
 * Which ports of which services are listened on, when not all of them can be. Services with few ports come first, so
 * that one with a large range takes only what the others leave.
 * @module
 */
import type { PortRange } from '../../base/port-range.ts';
import type { StackService } from '../site/site-view.ts';

/** An inclusive range of TCP ports. */
export interface TcpPorts {
  readonly first: number;
  readonly last: number;
}

/** The ports of a service. */
interface ServicePorts {
  readonly service: StackService;
  /** The TCP ports of the service, in order, which do not overlap. */
  readonly exposed: readonly TcpPorts[];
  /** How many these are. */
  readonly count: number;
  /** What is not TCP. */
  readonly unsupported: readonly PortRange[];
}

export interface ServicePlan extends ServicePorts {
  /** The exposed ports that are listened on. */
  readonly listen: ReadonlySet<number>;
  /** The exposed ports that are not listened on, because of the bound. */
  readonly overLimit: readonly TcpPorts[];
}

/**
 * Plans anew what differs from the plans before; what stays the same is the same object.
 *
 * @param before the plans before, by the name
 */
export function planListeners(
  services: Iterable<StackService>,
  maxListeners: number,
  before: ReadonlyMap<string, ServicePlan>
): ReadonlyMap<string, ServicePlan> {
  const known: ServicePorts[] = [];
  let total = 0;
  for (const service of services) {
    const earlier = before.get(service.name);
    const isKnown = earlier !== undefined && isSameService(earlier.service, service);
    const ports = isKnown ? earlier : portsOf(service);
    known.push(ports);
    total += ports.count;
  }
  if (total > maxListeners) known.sort((a, b) => a.count - b.count || byName(a, b));
  let left = maxListeners;
  const plans = new Map<string, ServicePlan>();
  for (const ports of known) {
    const { name } = ports.service;
    const taken = Math.min(left, ports.count);
    left -= taken;
    const earlier = before.get(name);
    const isKnown = ports === earlier && earlier.listen.size === taken;
    plans.set(name, isKnown ? earlier : planOf(ports, taken));
  }
  return plans;
}

function portsOf(service: StackService): ServicePorts {
  const exposed = merged(service.ports.filter(({ protocol }) => protocol === 'tcp'));
  const count = exposed.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  const unsupported = service.ports.filter(({ protocol }) => protocol !== 'tcp');
  return { service, exposed, count, unsupported };
}

/** @param taken how many of its ports are listened on */
function planOf(
  { service, exposed, count, unsupported }: ServicePorts,
  taken: number
): ServicePlan {
  const listen = new Set<number>();
  const overLimit: TcpPorts[] = [];
  for (const { first, last } of exposed) {
    const end = Math.min(first + taken - listen.size, last + 1);
    for (let port = first; port < end; port++) listen.add(port);
    if (end <= last) overLimit.push({ first: end, last });
  }
  return { service, exposed, count, unsupported, listen, overLimit };
}

function isSameService(a: StackService, b: StackService): boolean {
  return (
    isEqual(a.addresses, b.addresses, (one, other) => one.equals(other)) &&
    isEqual(a.ports, b.ports, isSamePort) &&
    isEqual(a.aliases, b.aliases, (one, other) => one === other)
  );
}

function isSamePort(a: PortRange, b: PortRange): boolean {
  return a.protocol === b.protocol && a.first === b.first && a.last === b.last;
}

function isEqual<T>(a: readonly T[], b: readonly T[], isSame: (a: T, b: T) => boolean): boolean {
  return a.length === b.length && a.every((each, i) => isSame(each, b[i]!));
}

export function isIn(ranges: readonly TcpPorts[], port: number): boolean {
  return ranges.some(({ first, last }) => first <= port && port <= last);
}

/** Returns for example `tcp/80` or `tcp/5000-5999`. */
export function textOf({ first, last }: TcpPorts): string {
  return first === last ? `tcp/${first}` : `tcp/${first}-${last}`;
}

function merged(ranges: readonly TcpPorts[]): readonly TcpPorts[] {
  const result: { first: number; last: number }[] = [];
  for (const { first, last } of [...ranges].sort((a, b) => a.first - b.first)) {
    const before = result.at(-1);
    if (before !== undefined && first <= before.last + 1) before.last = Math.max(before.last, last);
    else result.push({ first, last });
  }
  return result;
}

/** The order of the names. */
export function byName(
  a: { readonly service: StackService },
  b: { readonly service: StackService }
): number {
  return a.service.name < b.service.name ? -1 : Number(a.service.name > b.service.name);
}
