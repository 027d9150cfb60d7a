/**
 * The configuration that is in force: what a file says, and the defaults of what it leaves out, in the form of a file.
 * Secrets are not shown.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import { formatHostPort } from '../base/host-port.ts';
import { PortRange } from '../base/port-range.ts';
import { IpPrefix } from '../base/prefix.ts';
import { CLOUD_GATEWAY_DEFAULTS } from '../gateway/index.ts';
import type { CheckedCloud, CheckedEdge } from './checked-file.ts';
import { inSeconds } from './seconds.ts';

/** Returns the keys in the order of the file, with those that it leaves out at the end of each mapping. */
export function effectiveOf(checked: CheckedCloud | CheckedEdge): object {
  const { sockets, ...keys } = checked.side === 'cloud' ? cloudOf(checked) : edgeOf(checked);
  const shown = plain(keys) as object;
  // A port of this machine is a number or a mapping, and no text.
  return sockets === undefined ? shown : { ...shown, sockets: plain(sockets, false) };
}

function cloudOf({ keys, options, desired }: CheckedCloud): Shown {
  const { leases, ttlSeconds } = keys;
  const { sites, services, exposures, selectors } = desired;
  const { listen, endpoints, tunnels } = options.enrolment;
  const pressed = inSeconds(CLOUD_GATEWAY_DEFAULTS.leases.pressedIdleMs);
  return {
    ...keys,
    enrolment: { listen, endpoints, ...(tunnels !== undefined && { tunnels }) },
    leases: {
      pressedIdleSeconds: Math.min(pressed, leases.idleSeconds),
      overlapSeconds: ttlSeconds + OVERLAP_BEHIND_TTL,
      ...leases,
    },
    desired: { sites, services, exposures: [...exposures, ...selectors] },
  };
}

function edgeOf({ keys }: CheckedEdge): Shown {
  const { proxy } = keys;
  return { ...keys, ...(proxy !== undefined && { proxy: withoutPassword(proxy) }) };
}

function withoutPassword(proxy: string): string {
  if (proxy === 'environment') return proxy;
  const url = new URL(proxy);
  if (url.username === '' && url.password === '') return proxy;
  url.username = HIDDEN;
  url.password = HIDDEN;
  return url.href;
}

interface Shown {
  readonly sockets?: unknown;
  readonly [key: string]: unknown;
}

/**
 * Turns the values of the library into those of a file.
 *
 * @param isText whether a host and a port become a text
 */
function plain(value: unknown, isText = true): unknown {
  if (value instanceof IpAddress || value instanceof IpPrefix || value instanceof PortRange) {
    return String(value);
  }
  if (Array.isArray(value)) return value.map((each) => plain(each, isText));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, each]) => each !== undefined);
  const { host, port } = value as { readonly host?: unknown; readonly port?: unknown };
  if (isText && entries.length === 2 && typeof host === 'string' && typeof port === 'number') {
    return formatHostPort({ host, port });
  }
  return Object.fromEntries(entries.map(([key, each]) => [key, plain(each, isText)]));
}

const HIDDEN = 'hidden';
/** Addresses that a pool loses stay valid for as long as a name may be remembered, and five minutes more. */
const OVERLAP_BEHIND_TTL = 300;
