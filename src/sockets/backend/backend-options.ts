/**
 * The options of a backend, their defaults and their checks.
 * @module
 */
import * as v from 'valibot';
import { IpAddress } from '../../base/address.ts';
import { IPV4_PATTERN, IPV6_PATTERN } from '../../base/patterns.ts';
import {
  AddressText,
  hostFunction,
  parseSchema,
  type Schema,
  wholeNumber,
} from '../../base/schema.ts';
import type { SocketStack } from '../stack.ts';
import type { BackendDial } from './backend-dial.ts';
import type { BackendService, BackendTarget } from './backend-services.ts';
import type { UdpDial } from './backend-udp.ts';
import { ServiceHeaders } from './service-headers.ts';

/** The bounds of a backend. Those of its connections are the bounds of its stack. */
export interface SocketBackendLimits {
  /** How many sockets of the host may be connecting, 1 to 65,536; default 512. */
  readonly dials?: number | undefined;
  /**
   * How many UDP flows there may be, 1 to 65,536; default 4,096. Each has a socket of the host. The one whose last
   * datagram is the longest time ago goes first.
   */
  readonly flows?: number | undefined;
}

/** The options that an operator may have a reason to set. */
export interface SocketBackendSettings {
  /**
   * Whether connections begin with a PROXY protocol header of version 2, which names the client's presence and port. A
   * service that does not expect it takes it for data. Default false.
   */
  readonly proxyProtocol?: boolean | undefined;
  /**
   * Whether a service in 127.0.0.0/8 sees each client at an address of its own in 127.128.0.0/9, which follows from the
   * client's presence. Linux alone has all these addresses. Default false: it sees 127.0.0.1.
   */
  readonly loopbackSource?: boolean | undefined;
  /**
   * Where services are reached that are not at their own address, by their address: `{ '10.0.0.5': '127.0.1.5' }`. So
   * services of one machine can have addresses of a network that does not exist. Default: each is where its address is.
   */
  readonly hosts?: Readonly<Record<string, string>> | undefined;
  /** After how many ms without a datagram a UDP flow ends, 1,000 to 2,147,483,647; default 300,000. */
  readonly flowIdleMs?: number | undefined;
  /** After how many ms without traffic both sides are probed, 0 to 2,147,483,647; default 60,000. 0: never. */
  readonly keepAliveMs?: number | undefined;
  /** The bounds of connections that begin, and of UDP flows. Default: see `SocketBackendLimits`. */
  readonly limits?: SocketBackendLimits | undefined;
}

export interface SocketBackendOptions extends SocketBackendSettings {
  readonly stack: SocketStack;
  /** The services that it connects to; default: none, until `setServices`. */
  readonly services?: readonly BackendService[] | undefined;
  /** Where the gateway itself listens, which is never connected to; default: none, until `setRefusedTargets`. */
  readonly refusedTargets?: readonly BackendTarget[] | undefined;
  /** Connects to a service by TCP; default: `net.connect` to its address and port. */
  readonly dial?: BackendDial | undefined;
  /** Makes a socket for a UDP flow; default: a `dgram.Socket` that connects to the service's address and port. */
  readonly dialUdp?: UdpDial | undefined;
  /**
   * Returns the site of a client's presence, undefined if it is not known. One site may have a quarter of the
   * connections, of the handshakes, of the dials, and of the descriptors of the backend. It is called while packets are
   * handled: it only looks up. Default: no site is known, and the bounds hold for clients alone.
   */
  readonly siteOf?: ((client: IpAddress) => string | undefined) | undefined;
}

/** The values of options that are left out. */
export const SOCKET_BACKEND_DEFAULTS: Readonly<{
  proxyProtocol: boolean;
  loopbackSource: boolean;
  flowIdleMs: number;
  keepAliveMs: number;
  limits: Readonly<Required<SocketBackendLimits>>;
}> = Object.freeze({
  proxyProtocol: false,
  loopbackSource: false,
  flowIdleMs: 300_000,
  keepAliveMs: 60_000,
  limits: Object.freeze({ dials: 512, flows: 4_096 }),
});

export interface ResolvedBackendOptions {
  readonly services: readonly BackendService[];
  readonly refusedTargets: readonly BackendTarget[];
  readonly dial: BackendDial | undefined;
  readonly dialUdp: UdpDial | undefined;
  readonly siteOf: ((client: IpAddress) => string | undefined) | undefined;
  readonly proxyProtocol: boolean;
  readonly loopbackSource: boolean;
  readonly hosts: Readonly<Record<string, IpAddress>>;
  readonly flowIdleMs: number;
  readonly keepAliveMs: number;
  readonly limits: { readonly dials: number; readonly flows: number };
}

/** Returns where services are reached that are not at their own address, by the canonical text of that. */
export function hostsByAddress(
  hosts: Readonly<Record<string, IpAddress>>
): ReadonlyMap<string, IpAddress> {
  return new Map(
    Object.entries(hosts).map(([address, host]) => [IpAddress.parse(address).toString(), host])
  );
}

/** @throws {ConfigError} if two services contradict each other about `proxyProtocol`; `path` is where they stand. */
export function checkServices(
  services: readonly BackendService[],
  hosts: Readonly<Record<string, IpAddress>>,
  path: string
): void {
  const byAddress = hostsByAddress(hosts);
  new ServiceHeaders(services, (service) => byAddress.get(service.toString()) ?? service, path);
}

/** @throws {ConfigError} with the path of the option that is wrong. */
export function resolveBackendOptions(options: SocketBackendOptions): ResolvedBackendOptions {
  return parseSchema(BackendOptionsSchema, options);
}

const { proxyProtocol, loopbackSource, flowIdleMs, keepAliveMs, limits } = SOCKET_BACKEND_DEFAULTS;

const AddressKey = v.pipe(
  v.string(),
  v.metadata({ pattern: `^(${IPV4_PATTERN}|${IPV6_PATTERN})$` }),
  v.check(
    (key) => v.is(AddressText, key),
    ({ input }) => `expected addresses as keys, got ${input}`
  )
);

/** The entries of `SocketBackendSettings`, for a schema that has others too. */
export const BACKEND_SETTINGS_ENTRIES: v.ObjectEntries = {
  proxyProtocol: v.optional(v.boolean(), proxyProtocol),
  loopbackSource: v.optional(v.boolean(), loopbackSource),
  hosts: v.optional(v.record(AddressKey, AddressText), {}),
  flowIdleMs: v.optional(wholeNumber(1_000, 2 ** 31 - 1), flowIdleMs),
  keepAliveMs: v.optional(wholeNumber(0, 2 ** 31 - 1), keepAliveMs),
  limits: v.optional(
    v.strictObject({
      dials: v.optional(wholeNumber(1, 65_536), limits.dials),
      flows: v.optional(wholeNumber(1, 65_536), limits.flows),
    }),
    {}
  ),
};

// What is in the lists is checked by `BackendServices`.
const BackendOptionsSchema: Schema<ResolvedBackendOptions> = v.strictObject({
  stack: v.unknown(),
  services: v.optional(v.array(v.unknown()), []),
  refusedTargets: v.optional(v.array(v.unknown()), []),
  dial: v.optional(hostFunction()),
  dialUdp: v.optional(hostFunction()),
  siteOf: v.optional(hostFunction()),
  ...BACKEND_SETTINGS_ENTRIES,
}) as unknown as Schema<ResolvedBackendOptions>;
