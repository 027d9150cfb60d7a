/**
 * Where to connect, or to listen.
 * @module
 */
import { isIP } from 'node:net';
import * as v from 'valibot';
import type { Schema } from './schema.ts';

/** A host and a port. */
export interface HostPort {
  /** An IP address without brackets, or a name. */
  readonly host: string;
  /** 1 to 65535; 0 takes a free port where somebody listens. */
  readonly port: number;
}

/** Takes also `192.0.2.1:7443`, `[2001:db8::1]:7443` and `gateway.example.org:7443`. */
export type HostPortInput = HostPort | string;

// The schemas below read it when the module is loaded.
const MAX_PORT = 65_535;

/** Where to connect. */
export const HostPortSchema: Schema<HostPort> = /* @__PURE__ */ hostPort(1);

/** Where to listen: port 0 takes a free port of the system's choice. */
export const ListenSchema: Schema<HostPort> = /* @__PURE__ */ hostPort(0);

/** Where datagrams go: an address, because a lookup would make the device depend on a name server. */
export const AddressPortSchema: Schema<HostPort> = /* @__PURE__ */ withAddress(HostPortSchema);

/** Where to bind: an address for the same reason, and port 0 takes a free port. */
export const ListenAddressSchema: Schema<HostPort> = /* @__PURE__ */ withAddress(ListenSchema);

/** Writes it as text; an IPv6 address is in brackets. */
export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function hostPort(leastPort: number): Schema<HostPort> {
  const text = v.pipe(
    v.string(),
    v.regex(/^(\[[0-9a-f:.]+\]|[a-z0-9.-]+):\d{1,5}$/i, 'a host and port such as 192.0.2.1:7443'),
    v.transform((value) => {
      const at = value.lastIndexOf(':');
      const host = value.slice(0, at).replace(/^\[|\]$/g, '');
      return { host, port: Number(value.slice(at + 1)) };
    })
  );
  const pair = v.strictObject({ host: v.string(), port: v.number() });
  return v.pipe(
    v.lazy((input) => (isPlainObject(input) ? pair : text)),
    v.check(
      ({ port }) => Number.isInteger(port) && port >= leastPort && port <= MAX_PORT,
      `expected a port from ${leastPort} to ${MAX_PORT}`
    ),
    v.check(({ host }) => isHost(host), 'expected an IP address or a host name before the port')
  ) as Schema<HostPort>;
}

function withAddress(schema: Schema<HostPort>): Schema<HostPort> {
  return v.pipe(
    schema,
    v.check(({ host }) => isIP(host) !== 0, 'expected an IP address, not a name, before the port')
  );
}

function isPlainObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What has but digits and dots, or a colon, is an address or nothing. */
function isHost(host: string): boolean {
  return isIP(host) !== 0 || /^(?![\d.]+$)[a-z0-9.-]+$/i.test(host);
}
