/**
 * How a connection to the proxy ends: one counter, and what the client is told of it in SOCKS5 and in HTTP.
 *
 * SOCKS5 has few replies (RFC 1928 section 6). A name that is not in the zone is "host unreachable", as other proxies say
 * it for a name that does not resolve: "not allowed by ruleset" would say that another client may reach it. For HTTP
 * there are the errors of [RFC 9209](https://www.rfc-editor.org/rfc/rfc9209#section-2.3) and the status that it
 * recommends for each.
 * @module
 */
import { SocksReply } from './socks.ts';

/** How many connections have ended, or become a tunnel, in each way. Each accepted one is counted once. */
export interface ProxyOutcomes {
  /** Joined with its target. */
  connected: number;
  /** The name is not in the zone of the site (ENOTFOUND). */
  unknownName: number;
  /** The target is in no pool of the site, or it is the stack itself (ENETUNREACH). */
  networkUnreachable: number;
  /** A router or a far gateway says that the host is unreachable (EHOSTUNREACH). */
  hostUnreachable: number;
  /** The target refuses the port, or no presence has it (ECONNREFUSED). */
  connectionRefused: number;
  /** The target does not answer (ETIMEDOUT). */
  noAnswer: number;
  /** The tunnel is down, or the stack closed (ENETDOWN). */
  networkDown: number;
  /** The stack has no port or no memory left (EADDRNOTAVAIL, EADDRINUSE, ENOBUFS). */
  exhausted: number;
  /** The connection failed for another reason, for example because the presence was withdrawn. */
  failed: number;
  /** The client ended while the target was being connected, which was given up. */
  dialAbandoned: number;
  /** The client ended before its request was complete. */
  abandoned: number;
  /** The request was not complete in time. */
  tooSlow: number;
  /** There were too many incomplete requests, of which this was the oldest. */
  evicted: number;
  /** The client has sent no credentials, or does not speak the method. */
  unauthenticated: number;
  /** The user name or the password is wrong. */
  wrongCredentials: number;
  /** SOCKS4, BIND, UDP ASSOCIATE, another type of address, or another HTTP method than CONNECT. */
  unsupported: number;
  /** The request breaks the rules of SOCKS5 or HTTP. */
  malformed: number;
  /** The header of the request is too long. */
  tooLarge: number;
  /** The first byte is neither of SOCKS nor of HTTP, for example of TLS. */
  unknownProtocol: number;
  /** The proxy was closed first. */
  closed: number;
}

export type ProxyOutcome = keyof ProxyOutcomes;

/** The outcomes of a target that could not be reached. */
export type DialFailure =
  | 'unknownName'
  | 'networkUnreachable'
  | 'hostUnreachable'
  | 'connectionRefused'
  | 'noAnswer'
  | 'networkDown'
  | 'exhausted'
  | 'failed';

/** What a client is told of a target that could not be reached. */
export interface DialReply {
  readonly socks: number;
  readonly status: number;
  /** The error type of RFC 9209 section 2.3. */
  readonly error: string;
  /** Follows the name of the target in a sentence. */
  readonly text: string;
}

/** Returns the outcome of a failed `connect`. */
export function dialFailureOf(error: Error): DialFailure {
  const code = 'code' in error ? String(error.code) : '';
  return FAILURES[code] ?? 'failed';
}

const FAILURES: Readonly<Record<string, DialFailure>> = {
  ENOTFOUND: 'unknownName',
  ENETUNREACH: 'networkUnreachable',
  EHOSTUNREACH: 'hostUnreachable',
  ECONNREFUSED: 'connectionRefused',
  ETIMEDOUT: 'noAnswer',
  ENETDOWN: 'networkDown',
  EADDRNOTAVAIL: 'exhausted',
  EADDRINUSE: 'exhausted',
  ENOBUFS: 'exhausted',
};

export const DIAL_REPLIES: Readonly<Record<DialFailure, DialReply>> = {
  unknownName: {
    socks: SocksReply.HostUnreachable,
    status: 502,
    error: 'dns_error',
    text: 'is not in the zone of this site',
  },
  networkUnreachable: {
    socks: SocksReply.NetworkUnreachable,
    status: 502,
    error: 'destination_ip_unroutable',
    text: 'is no presence of this site',
  },
  hostUnreachable: {
    socks: SocksReply.HostUnreachable,
    status: 502,
    error: 'destination_ip_unroutable',
    text: 'is unreachable',
  },
  connectionRefused: {
    socks: SocksReply.ConnectionRefused,
    status: 502,
    error: 'connection_refused',
    text: 'refuses the connection',
  },
  // Not "TTL expired", which is about the hops of a packet.
  noAnswer: {
    socks: SocksReply.HostUnreachable,
    status: 504,
    error: 'connection_timeout',
    text: 'does not answer',
  },
  networkDown: {
    socks: SocksReply.NetworkUnreachable,
    status: 503,
    error: 'destination_unavailable',
    text: 'cannot be reached while the tunnel is down',
  },
  exhausted: {
    socks: SocksReply.GeneralFailure,
    status: 503,
    error: 'connection_limit_reached',
    text: 'cannot be reached, because no port or no memory is left',
  },
  failed: {
    socks: SocksReply.GeneralFailure,
    status: 502,
    error: 'connection_terminated',
    text: 'has ended the connection',
  },
};

/** Returns counters that are all 0. */
export function noOutcomes(): ProxyOutcomes {
  return {
    connected: 0,
    unknownName: 0,
    networkUnreachable: 0,
    hostUnreachable: 0,
    connectionRefused: 0,
    noAnswer: 0,
    networkDown: 0,
    exhausted: 0,
    failed: 0,
    dialAbandoned: 0,
    abandoned: 0,
    tooSlow: 0,
    evicted: 0,
    unauthenticated: 0,
    wrongCredentials: 0,
    unsupported: 0,
    malformed: 0,
    tooLarge: 0,
    unknownProtocol: 0,
    closed: 0,
  };
}
