/**
 * How a backend connects to a service by the host's sockets, and what the client learns if that fails.
 * @module
 */
import type net from 'node:net';
import { type Family, IpAddress } from '../../base/address.ts';
import { isLoopback } from '../host/host-targets.ts';
import { SharedReadSocket } from '../host/shared-read-socket.ts';
import type { Unreachable } from '../icmp/icmp.ts';
import type { ServiceEnds } from '../stack-backend.ts';

/** A connection that a backend needs. */
export interface BackendDialTarget {
  /** Where the service is reached. */
  readonly address: string;
  readonly port: number;
  readonly family: Family;
  /** The client, as the service's realm knows it: by its presence. */
  readonly client: { readonly address: string; readonly port: number };
  /** The address that the connection has to come from (option `loopbackSource`); undefined for any. */
  readonly localAddress: string | undefined;
}

/**
 * Connects to a service. It returns at once, the socket connects or is connected, and belongs to the backend from then
 * on. An error that is thrown counts as a failure of the connection.
 */
export type BackendDial = (target: BackendDialTarget) => net.Socket;

/** Connects as `net.connect` does. */
export function dialHost({ address, port, family, localAddress }: BackendDialTarget): net.Socket {
  const options = {
    host: address,
    port,
    family,
    allowHalfOpen: true,
    noDelay: true,
    ...(localAddress !== undefined && { localAddress }),
  };
  return new SharedReadSocket(options).connect(options);
}

/** @param host where the service is reached */
export function targetOf(
  { localPort, remote, remotePort }: ServiceEnds,
  host: IpAddress,
  hasLoopbackSource: boolean
): BackendDialTarget {
  return {
    address: host.toString(),
    port: localPort,
    family: host.family,
    client: { address: remote.toString(), port: remotePort },
    localAddress: hasLoopbackSource ? loopbackSource(remote, host) : undefined,
  };
}

/**
 * Returns the address from which a service on loopback sees a client: 127.128.0.0/9 with the last 23 bits of the
 * client's presence. So clients have different ones if their presences are of one pool, which may be a /9; it is the
 * same after a restart, and nothing is stored. Clients of two pools whose last 23 bits are equal share an address. Returns undefined if the service is not in 127.0.0.0/8.
 */
export function loopbackSource(client: IpAddress, service: IpAddress): string | undefined {
  if (service.family !== 4 || client.family !== 4 || !isLoopback(service)) return undefined;
  const bits = client.words[0]! & CLIENT_BITS;
  // The last one of all is a broadcast address, from which nothing can connect.
  const word = LOOPBACK_SOURCES | (bits === CLIENT_BITS ? bits - 1 : bits);
  return IpAddress.fromWords([word]).toString();
}

/** Both ends of a connected socket of the host. A socket that is not one of TCP or UDP has none of them. */
export type HostEnds = Partial<
  Pick<net.Socket, 'localAddress' | 'localPort' | 'remoteAddress' | 'remotePort'>
>;

/**
 * Returns whether a socket is connected to itself. The system may choose the service's own port for the near end, if
 * that is one of its ephemeral ports and the service does not run. A SYN to its own socket is then answered by a
 * SYN-ACK (simultaneous open, RFC 9293 section 3.5), and the socket keeps the port from the service.
 */
export function isToItself(ends: HostEnds): boolean {
  const { localAddress, localPort, remoteAddress, remotePort } = ends;
  return localPort !== undefined && localPort === remotePort && localAddress === remoteAddress;
}

/** What follows from a failed dial: a reset, an ICMP error, or silence, after which the client tries again. */
export type DialFailure =
  | 'refused'
  | 'later'
  | Extract<Unreachable, 'host' | 'network' | 'prohibited'>;

/** @param error what the socket has reported, or the function `dial` has thrown; undefined if it closed without one */
export function failureOfDial(error: unknown): DialFailure {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return FAILURES[code] ?? 'refused';
}

const FAILURES: Readonly<Record<string, DialFailure>> = {
  EHOSTUNREACH: 'host',
  EHOSTDOWN: 'host',
  ETIMEDOUT: 'host',
  ENETUNREACH: 'network',
  ENETDOWN: 'network',
  // A filter of this host.
  EACCES: 'prohibited',
  EPERM: 'prohibited',
  // The host has no descriptors, no memory or no ports left; that passes.
  EMFILE: 'later',
  ENFILE: 'later',
  ENOBUFS: 'later',
  ENOMEM: 'later',
  EAGAIN: 'later',
  EADDRNOTAVAIL: 'later',
  EADDRINUSE: 'later',
};

const CLIENT_BITS = 0x7f_ffff;
const LOOPBACK_SOURCES = 0x7f80_0000;
