/**
 * Schemas of a host and a port, as a user writes them.
 * @module
 */
import { isIP } from 'node:net';
import * as v from 'valibot';
import type { HostPort, RankedHostPort } from './host-port.ts';
import { IPV4_PATTERN, IPV6_PATTERN, PORT_PATTERN } from './patterns.ts';
import { chosen, type Schema, wholeNumber } from './schema.ts';

// These stand here because the schemas below read them when the module is loaded.
const MAX_PORT = 65_535;
const MAX_PRIORITY = 65_535;
const BRACKETED = `\\[${IPV6_PATTERN}\\]`;

/** A host and a port to connect to. */
export const HostPortSchema: Schema<HostPort> = /* @__PURE__ */ hostPort(1);

/** A host and a port to connect to, with a rank. A text has the rank 0. */
export const RankedHostPortSchema: Schema<Required<RankedHostPort>> = /* @__PURE__ */ v.pipe(
  hostPort<RankedHostPort>(1, {
    priority: v.optional(wholeNumber(0, MAX_PRIORITY)),
  }),
  v.transform(({ host, port, priority = 0 }) => ({ host, port, priority }))
);

/** A host and a port to listen on. Port 0 takes a free port. */
export const ListenSchema: Schema<HostPort> = /* @__PURE__ */ hostPort(0);

/** An address and a port for datagrams. A name would make the device depend on a name server. */
export const AddressPortSchema: Schema<HostPort> = /* @__PURE__ */ withAddress(HostPortSchema);

/** An address and a port to bind to. Port 0 takes a free port. */
export const ListenAddressSchema: Schema<HostPort> = /* @__PURE__ */ withAddress(ListenSchema);

function hostPort<T extends HostPort = HostPort>(
  leastPort: number,
  more: v.ObjectEntries = {}
): Schema<T> {
  const text = v.pipe(
    v.string(),
    v.regex(
      /^(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9.-]+):\d{1,5}$/,
      'a host and port such as 192.0.2.1:7443'
    ),
    v.metadata({
      title: 'host and port',
      pattern: `^(${BRACKETED}|${IPV4_PATTERN}|(?![0-9.]+:)[a-zA-Z0-9.-]+):${leastPort === 0 ? '' : '(?!0+$)'}${PORT_PATTERN}$`,
      examples: ['192.0.2.1:7443', '[2001:db8::1]:7443', 'cloud.example.org:7443'],
    }),
    v.transform((value) => {
      const at = value.lastIndexOf(':');
      const host = value.slice(0, at).replace(/^\[|\]$/g, '');
      return { host, port: Number(value.slice(at + 1)) };
    })
  );
  const bounds = { type: 'integer', minimum: leastPort, maximum: MAX_PORT };
  const port = v.pipe(v.number(), v.metadata(bounds));
  const pair = v.strictObject({ host: v.string(), port, ...more });
  return v.pipe(
    chosen<T>([text, pair], (input) => (isPlainObject(input) ? pair : text)),
    v.check(
      ({ port }) => Number.isInteger(port) && port >= leastPort && port <= MAX_PORT,
      `expected a port from ${leastPort} to ${MAX_PORT}`
    ),
    v.check(({ host }) => isHost(host), 'expected an IP address or a host name before the port')
  ) as Schema<T>;
}

function withAddress(schema: Schema<HostPort>): Schema<HostPort> {
  return v.pipe(
    schema,
    // A JSON Schema applies it to a text only.
    v.metadata({ title: 'address and port', pattern: `^(${BRACKETED}|${IPV4_PATTERN}):[0-9]+$` }),
    v.check(({ host }) => isIP(host) !== 0, 'expected an IP address, not a name, before the port')
  );
}

function isPlainObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Returns whether it is an address or a name. A text of digits and dots only, or with a colon, is not a name. */
function isHost(host: string): boolean {
  return isIP(host) !== 0 || /^(?![\d.]+$)[a-z0-9.-]+$/i.test(host);
}
