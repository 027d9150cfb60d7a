/**
 * Which ports of which services are listened on, when not all of them can be. Services with few ports come first, so
 * that one with a large range takes only what the others leave.
 * @module
 */
import type { PortRange } from '../base/port-range.ts';
import type { StackService } from './site-view.ts';

/** An inclusive range of TCP ports. */
export interface TcpPorts {
  readonly first: number;
  readonly last: number;
}

export interface ServicePlan {
  readonly service: StackService;
  /** The TCP ports of the service, in order, which do not overlap. */
  readonly exposed: readonly TcpPorts[];
  /** The exposed ports that are listened on. */
  readonly listen: ReadonlySet<number>;
  /** The exposed ports that are not listened on, because of the bound. */
  readonly overLimit: readonly TcpPorts[];
  /** What is not TCP. */
  readonly unsupported: readonly PortRange[];
}

/** @returns the plans in the order of the names. */
export function planListeners(
  services: Iterable<StackService>,
  maxListeners: number
): readonly ServicePlan[] {
  const sized = [...services]
    .map((service) => {
      const exposed = merged(service.ports.filter(({ protocol }) => protocol === 'tcp'));
      const count = exposed.reduce((sum, { first, last }) => sum + last - first + 1, 0);
      return { service, exposed, count };
    })
    .sort((a, b) => a.count - b.count || byName(a, b));
  let left = maxListeners;
  const plans = sized.map(({ service, exposed }) => {
    const listen = new Set<number>();
    const overLimit: TcpPorts[] = [];
    for (const { first, last } of exposed) {
      const taken = Math.min(left, last - first + 1);
      left -= taken;
      for (let port = first; port < first + taken; port++) listen.add(port);
      if (first + taken <= last) overLimit.push({ first: first + taken, last });
    }
    const unsupported = service.ports.filter(({ protocol }) => protocol !== 'tcp');
    return { service, exposed, listen, overLimit, unsupported };
  });
  return plans.sort(byName);
}

/** Returns whether the plans are those for these services, so that nothing has to be planned. */
export function isPlannedFor(
  plans: readonly ServicePlan[],
  services: readonly StackService[]
): boolean {
  if (plans.length !== services.length) return false;
  const planned = new Map(plans.map(({ service }) => [service.name, service]));
  return services.every(({ name, addresses, ports }) => {
    const before = planned.get(name);
    return (
      before !== undefined &&
      isEqual(before.addresses, addresses, (a, b) => a.equals(b)) &&
      isEqual(before.ports, ports, isSamePort)
    );
  });
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

function byName(
  a: { readonly service: StackService },
  b: { readonly service: StackService }
): number {
  return a.service.name < b.service.name ? -1 : Number(a.service.name > b.service.name);
}
