/**
 * Hosts with ports: where to connect, and where to listen.
 * @module
 */

/** A host and a port. */
export interface HostPort {
  /** An IP address without brackets, or a name. */
  readonly host: string;
  /** 1 to 65535. To listen, 0 takes a free port. */
  readonly port: number;
}

/** A host and a port to connect to, with a rank among others: lower ones are tried first. */
export interface RankedHostPort extends HostPort {
  /** A whole number from 0 to 65,535; 0 if it is absent. */
  readonly priority?: number;
}

/** As a caller gives it, also as text: `192.0.2.1:7443`, `[2001:db8::1]:7443` or `gateway.example.org:7443`. */
export type HostPortInput = HostPort | string;

/** Returns it as text; an IPv6 address is in brackets. */
export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
