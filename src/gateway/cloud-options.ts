/**
 * The options of a cloud gateway, their defaults and their checks.
 * @module
 */
import * as v from 'valibot';
import type { ReloadAnswer } from '../admin/index.ts';
import { formatHostPort, type HostPort, type HostPortInput } from '../base/host-port.ts';
import { ListenSchema } from '../base/host-port-schema.ts';
import { MAX_TIMER_MS } from '../base/option-check.ts';
import {
  chosen,
  DomainText,
  hostFunction,
  hostObject,
  NameText,
  parseSchema,
  type Schema,
  wholeNumber,
} from '../base/schema.ts';
import { MEMBER_DEFAULTS } from '../cluster/index.ts';
import { PRESENCE_CONTROLLER_DEFAULTS } from '../control/index.ts';
import { isPacketDevice } from '../device/index.ts';
import { ConfigError } from '../errors.ts';
import type { KeyType } from '../pki/index.ts';
import type { DesiredInput } from '../registry/index.ts';
import type { LeasingStore } from '../store/index.ts';
import { LISTEN_DEFAULTS } from '../tunnel/index.ts';
import {
  type ConnectionLimits,
  WORKER_POOL_DEFAULTS,
  type WorkerPoolOptions,
  workerCount,
} from '../worker/index.ts';
import { AUTHORITY_KEEPER_DEFAULTS } from './authority-keeper.ts';
import {
  COMMON_ENTRIES,
  type CommonOptions,
  type ResolvedCommonOptions,
} from './common-options.ts';
import { checkCloudDevice } from './sockets-options.ts';

/** A site that the option `authorize` decides about, after every other check has passed. */
export interface AuthorizeRequest {
  readonly site: string;
  readonly remoteAddress: string;
  /** Whether the site redeems a token, or opens a connection of a tunnel. */
  readonly at: 'enrolment' | 'handshake';
}

export interface CloudGatewayOptions extends CommonOptions {
  /**
   * A lower-case DNS name that is a part of every certificate: `spiffe://<trustDomain>/site/<name>`. It is never looked
   * up, and has nothing to do with the zones of the sites.
   */
  readonly trustDomain: string;
  /**
   * Where edges connect, a `HostPort` or a text such as `198.51.100.1:7443`. Worker n listens on this port plus n; with
   * port 0 each worker takes a free port.
   */
  readonly tunnel: HostPortInput;
  /** Where edges enrol. Default: port 7440 of the tunnel's host, or a free port if the tunnel's port is 0. */
  readonly enrolment?: EnrolmentOptions | undefined;
  /**
   * The desired state that is in force before anything is opened, as in `apply`. Default: the state in the store, which
   * was in force when the gateway last ran.
   */
  readonly desired?: DesiredInput | undefined;
  /**
   * How many workers carry packets, 1 to 64, or `auto`: one less than the number of cores. Default 1, in this process.
   * Several workers have a process each, and need a device of the type `tun`.
   */
  readonly workers?: number | 'auto' | undefined;
  /** The program of a worker's process, see `WorkerPoolOptions`. Default: the library's own. */
  readonly workerMain?: WorkerPoolOptions['workerMain'] | undefined;
  /**
   * Makes this gateway one machine of several that share a store. `trust.passphrase` is then required, and is the same on
   * all machines. Default: it is the only one.
   */
  readonly cluster?: ClusterOptions | undefined;
  /** The limits of connections to each tunnel port. Default: the limits of `MtlsTunnel.listen`. */
  readonly limits?: ConnectionLimits | undefined;
  /** The CA that is generated at the first start, and its certificates. Default: see `CloudTrustOptions`. */
  readonly trust?: CloudTrustOptions | undefined;
  /** How long clients may keep a name's address, in seconds, 1 to 86,400; default 30. */
  readonly ttlSeconds?: number | undefined;
  /** When addresses are released. Default: see `LeaseOptions`. */
  readonly leases?: LeaseOptions | undefined;
  /**
   * Decides whether a site may enrol, and whether a connection of its tunnel may come up, after every other check has
   * passed. It returns undefined to admit the site, or the reason of a refusal: a sentence that the edge receives as a
   * failure of the kind `refused`. An error, or no answer within the time of a handshake, refuses the site. A token
   * that was refused in this way stays valid. Default: every site that passes the checks is admitted.
   */
  readonly authorize?:
    | ((request: AuthorizeRequest) => string | undefined | Promise<string | undefined>)
    | undefined;
  /**
   * Reads the host program's configuration again when an operator requests it over the admin interface; returns the
   * answer for the operator. Default: such requests are refused.
   */
  readonly reload?: (() => Promise<ReloadAnswer>) | undefined;
}

export interface EnrolmentOptions {
  /**
   * An endpoint, or `shared`: the port of the tunnel, with ALPN deciding between the two; for one worker. Default: port
   * 7440 of the tunnel's host, or a free port if the tunnel's port is 0.
   */
  readonly listen?: HostPortInput | 'shared' | undefined;
  /**
   * Where edges reach the enrolment server, 1 to 8 times `https://HOST:PORT`; each token contains them. Port 0 stands
   * for the actual port. Default: where it listens; required if that is the unspecified address (`0.0.0.0`, `::`).
   */
  readonly endpoints?: readonly string[] | undefined;
  /**
   * Where edges reach the tunnel, 1 to 16; edges receive them when they enrol. Port 0 stands for the actual port of the
   * first worker. Default: where the workers listen, at most 16 of them, or nothing if edges cannot connect to that
   * host (the unspecified address, or one with a zone index): then each edge needs the option `cloud`.
   */
  readonly tunnels?: readonly HostPortInput[] | undefined;
}

/** How a cloud gateway is one machine of several, which share a store. */
export interface ClusterOptions {
  /**
   * The store that all machines share, for example an `EtcdStore`. It takes the place of the option `store`, and of the
   * files of `stateDirectory` but the audit log; it stays open when the gateway is closed.
   */
  readonly store: LeasingStore;
  /** The name of this machine, a DNS label that no other machine of the cloud has. */
  readonly machine: string;
  /**
   * Where edges reach the tunnels of this machine alone, 1 to 16. Port 0 stands for the actual port of the first worker.
   * Default: the addresses where the workers listen; required if that is the unspecified address (`0.0.0.0`, `::`).
   */
  readonly endpoints?: readonly HostPortInput[] | undefined;
  /** For how long this machine counts as alive without the store, in ms, 1,000 to 60,000; default 2,000. */
  readonly ttlMs?: number | undefined;
  /**
   * After how long without the store this machine ends its tunnels, in ms, 10,000 to 2^31 - 1, or Infinity for never; default
   * one hour. Addresses that it may use are not given to other hosts before.
   */
  readonly maxDetachedMs?: number | undefined;
}

export interface ResolvedClusterOptions extends Pick<ClusterOptions, 'store' | 'machine'> {
  readonly ttlMs: number;
  readonly maxDetachedMs: number;
  /** Undefined for the addresses where the workers listen. */
  readonly endpoints: readonly HostPort[] | undefined;
}

export interface CloudTrustOptions {
  /** The key type of a CA that is generated; default `p256`. Gateways always have P-256. */
  readonly keyType?: KeyType | undefined;
  /** Whether a root signs the CA that is generated; the gateway never needs the root's key again. Default false. */
  readonly intermediate?: boolean | undefined;
  /** Lifetime of gateways' certificates in ms, 5,000 to ten years; default 30 days. */
  readonly certificateLifetimeMs?: number | undefined;
  /** Encrypts the private keys of the CAs at rest, and no other secrets. Default: they are stored in the clear. */
  readonly passphrase?: string | undefined;
}

/** When addresses are released. */
export interface LeaseOptions {
  /** Time without a packet, in ms, a minute to ten years; default 30 days. */
  readonly idleMs?: number | undefined;
  /** The same while the client's site has nearly used up its share of the addresses; default one day. */
  readonly pressedIdleMs?: number | undefined;
  /** Whether the clients of a revoked site lose their addresses at once; default false. */
  readonly releaseRevoked?: boolean | undefined;
  /**
   * How long the addresses that a site's pools do not have any more stay valid beside the new ones, in ms, 0 to a year:
   * live connections go on until then. Default: the TTL and five minutes more.
   */
  readonly overlapMs?: number | undefined;
}

/** The values of options that are left out. */
export const CLOUD_GATEWAY_DEFAULTS: Readonly<{
  workers: number;
  ttlSeconds: number;
  cluster: Readonly<{ ttlMs: number; maxDetachedMs: number }>;
  trust: typeof AUTHORITY_KEEPER_DEFAULTS;
  leases: Readonly<{ idleMs: number; pressedIdleMs: number; releaseRevoked: boolean }>;
}> = Object.freeze({
  workers: WORKER_POOL_DEFAULTS.workers,
  ttlSeconds: PRESENCE_CONTROLLER_DEFAULTS.ttlSeconds,
  cluster: Object.freeze({
    ttlMs: MEMBER_DEFAULTS.ttlMs,
    maxDetachedMs: MEMBER_DEFAULTS.maxDetachedMs,
  }),
  trust: AUTHORITY_KEEPER_DEFAULTS,
  leases: Object.freeze({
    idleMs: PRESENCE_CONTROLLER_DEFAULTS.clientIdleMs,
    pressedIdleMs: PRESENCE_CONTROLLER_DEFAULTS.pressedIdleMs,
    releaseRevoked: PRESENCE_CONTROLLER_DEFAULTS.releaseSuspended,
  }),
});

/** The default port of the enrolment server. */
const ENROLMENT_PORT = 7440;

export interface ResolvedCloudOptions
  extends ResolvedCommonOptions,
    Pick<CloudGatewayOptions, 'trustDomain' | 'workerMain' | 'authorize' | 'reload'> {
  readonly tunnel: HostPort;
  readonly enrolment: {
    readonly listen: HostPort | 'shared';
    readonly endpoints: readonly string[];
    /** Undefined for the addresses where the workers listen. */
    readonly tunnels: readonly HostPort[] | undefined;
  };
  readonly desired: unknown;
  readonly workers: number;
  readonly limits: ConnectionLimits;
  readonly cluster: ResolvedClusterOptions | undefined;
  readonly trust: ResolvedTrust;
  readonly ttlSeconds: number;
  readonly leases: LeaseOptions;
}

export interface ResolvedTrust {
  readonly keyType: KeyType;
  readonly intermediate: boolean;
  readonly certificateLifetimeMs: number;
  readonly passphrase?: string | undefined;
}

/**
 * Checks the options and fills in the defaults.
 *
 * @throws {ConfigError} naming the first option that is not usable, with its value and what is expected.
 */
export function resolveCloudOptions(options: CloudGatewayOptions): ResolvedCloudOptions {
  const { workers: given, enrolment, ...rest } = parseSchema(CloudOptionsSchema, options);
  const { tunnel, device } = rest;
  checkCloudDevice(device);
  const workers = workerCount(given);
  const port = tunnel.port === 0 ? 0 : ENROLMENT_PORT;
  const listen = enrolment.listen ?? { host: tunnel.host, port };
  const resolved = {
    ...rest,
    workers,
    enrolment: withEndpoints({ ...enrolment, listen }, tunnel),
  };
  checkCluster(resolved);
  if (workers === 1) return resolved;
  if (isPacketDevice(device) || device.type !== 'tun') {
    throw new ConfigError('workers', `${workers} need a device of type tun, one for each`);
  }
  if (listen === 'shared') {
    const message = `the tunnel's port can be shared by one worker only, not by ${workers}: give a host and port`;
    throw new ConfigError('enrolment.listen', message);
  }
  if (tunnel.port === 0) return resolved;
  const last = tunnel.port + workers - 1;
  if (last > 65_535) {
    throw new ConfigError('tunnel', `${workers} workers need as many ports, up to ${last}`);
  }
  if (listen.port > tunnel.port && listen.port <= last) {
    const range = `${tunnel.port} to ${last}`;
    throw new ConfigError('enrolment.listen', `the tunnels of ${workers} workers take ${range}`);
  }
  return resolved;
}

/** @throws {ConfigError} naming an option that does not go with `cluster`. */
function checkCluster(options: ResolvedCloudOptions): void {
  const { cluster, trust, store, device, secrets, tunnel } = options;
  if (cluster === undefined) return;
  if (cluster.endpoints === undefined && !isReachable(tunnel.host)) {
    const message = `is missing: edges cannot connect to ${tunnel.host}, so expected where they reach this machine`;
    throw new ConfigError('cluster.endpoints', message);
  }
  if (store !== undefined) {
    throw new ConfigError('store', 'is given, but the machines of a cluster share `cluster.store`');
  }
  if (secrets === undefined && trust.passphrase === undefined) {
    const message =
      'is missing: the key of the CA is in the store of the cluster, so a passphrase must encrypt it';
    throw new ConfigError('trust.passphrase', message);
  }
  if (!isPacketDevice(device) && device.type === 'sockets') {
    throw new ConfigError(
      'device.type',
      'sockets are for a gateway that is the only one of its cloud'
    );
  }
}

function withEndpoints(
  {
    listen,
    endpoints,
    tunnels,
  }: {
    readonly listen: HostPort | 'shared';
    readonly endpoints?: readonly string[] | undefined;
    readonly tunnels?: readonly HostPort[] | undefined;
  },
  tunnel: HostPort
): ResolvedCloudOptions['enrolment'] {
  const at = listen === 'shared' ? tunnel : listen;
  if (endpoints === undefined && !isReachable(at.host)) {
    const message = `is missing: edges cannot connect to ${at.host}, so expected https://HOST:PORT as they reach it`;
    throw new ConfigError('enrolment.endpoints', message);
  }
  return {
    listen,
    endpoints: endpoints ?? [`https://${formatHostPort(at)}`],
    tunnels: tunnels ?? (isReachable(tunnel.host) ? undefined : []),
  };
}

/** Whether another machine can connect to this host: not to the unspecified address, nor to one with a zone index. */
function isReachable(host: string): boolean {
  return host !== '0.0.0.0' && !/^[0:]+$/.test(host) && !host.includes('%');
}

type Parsed = Omit<ResolvedCloudOptions, 'enrolment' | 'workers'> & {
  readonly workers: number | 'auto';
  readonly enrolment: {
    readonly listen?: HostPort | 'shared';
    readonly endpoints?: readonly string[];
    readonly tunnels?: readonly HostPort[];
  };
};

const enrolmentEndpoint = v.pipe(
  v.string(),
  v.regex(/^https:\/\/(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9.-]+)(:\d{1,5})?$/, 'https://HOST:PORT'),
  v.check((text) => URL.canParse(text), 'expected https://HOST:PORT')
);
/** Where edges connect. */
export const endpointList: v.GenericSchema = v.pipe(
  v.array(
    v.pipe(
      ListenSchema,
      v.check(({ host }) => isReachable(host), 'expected a host that edges can connect to')
    )
  ),
  v.minLength(1, 'expected 1 to 16 endpoints'),
  v.maxLength(16, 'expected 1 to 16 endpoints')
);
const MAX_WORKERS = 64;
/** The most tunnel endpoints that the answer to an enrolment may contain. */
export const MAX_ENROLMENT_TUNNELS = 16;
const YEAR_MS: number = 365 * 86_400_000;
const MINUTE_MS = 60_000;
const { trust: TRUST } = CLOUD_GATEWAY_DEFAULTS;

/** The options of a CA that is generated, apart from the lifetime of its certificates. */
export const AUTHORITY_ENTRIES: v.ObjectEntries = {
  keyType: v.optional(v.picklist(['p256', 'ed25519', 'rsa']), TRUST.keyType),
  intermediate: v.optional(v.boolean(), TRUST.intermediate),
};

/** The entries of the schema, for the schema of a file that has some of them. */
export const CLOUD_ENTRIES: v.ObjectEntries = {
  ...COMMON_ENTRIES,
  trustDomain: v.pipe(DomainText, v.regex(/^[a-z0-9.-]+$/, 'a lower-case domain name')),
  tunnel: ListenSchema,
  enrolment: v.optional(
    v.strictObject({
      // Any other text gets the message of `ListenSchema`, which explains a host and port.
      listen: v.optional(
        chosen<HostPort | 'shared'>([ListenSchema, v.literal('shared')], (listen) =>
          listen === 'shared' ? v.literal('shared') : ListenSchema
        )
      ),
      endpoints: v.optional(
        v.pipe(
          v.array(enrolmentEndpoint),
          v.minLength(1, 'expected 1 to 8 endpoints'),
          v.maxLength(8, 'expected 1 to 8 endpoints')
        )
      ),
      tunnels: v.optional(endpointList),
    }),
    {}
  ),
  desired: v.optional(v.unknown()),
  workers: v.optional(
    v.union(
      [v.literal('auto'), wholeNumber(1, MAX_WORKERS)],
      `expected a whole number from 1 to ${MAX_WORKERS}, or auto`
    ),
    CLOUD_GATEWAY_DEFAULTS.workers
  ),
  workerMain: v.optional(v.union([v.string(), v.instance(URL)], 'expected a path or a URL')),
  cluster: v.optional(
    v.strictObject({
      store: hostObject<LeasingStore>('a store with leases', [
        'get',
        'list',
        'commit',
        'watch',
        'grant',
      ]),
      machine: NameText,
      endpoints: v.optional(endpointList),
      ttlMs: v.optional(wholeNumber(1_000, 60_000), CLOUD_GATEWAY_DEFAULTS.cluster.ttlMs),
      maxDetachedMs: v.optional(
        v.union([wholeNumber(10_000, MAX_TIMER_MS), v.literal(Number.POSITIVE_INFINITY)]),
        CLOUD_GATEWAY_DEFAULTS.cluster.maxDetachedMs
      ),
    })
  ),
  limits: v.optional(
    v.strictObject({
      maxHandshakes: v.optional(wholeNumber(1, 65_536), LISTEN_DEFAULTS.maxHandshakes),
      maxConnectionRate: v.optional(wholeNumber(1, 1_000_000), LISTEN_DEFAULTS.maxConnectionRate),
      maxTunnelRate: v.optional(wholeNumber(1, 1_000_000), LISTEN_DEFAULTS.maxTunnelRate),
      maxTunnelBurst: v.optional(wholeNumber(1, 1_000_000), LISTEN_DEFAULTS.maxTunnelBurst),
    }),
    {}
  ),
  trust: v.optional(
    v.strictObject({
      ...AUTHORITY_ENTRIES,
      certificateLifetimeMs: v.optional(
        wholeNumber(5_000, 10 * YEAR_MS),
        TRUST.certificateLifetimeMs
      ),
      passphrase: v.optional(
        v.pipe(
          v.unknown(),
          v.check(
            (value) => typeof value === 'string' && value !== '',
            // The message must not contain the value.
            'expected a text that is not empty'
          )
        )
      ),
    }),
    {}
  ),
  ttlSeconds: v.optional(wholeNumber(1, 86_400), CLOUD_GATEWAY_DEFAULTS.ttlSeconds),
  leases: v.optional(
    v.pipe(
      v.strictObject({
        idleMs: v.optional(wholeNumber(MINUTE_MS, 10 * YEAR_MS)),
        pressedIdleMs: v.optional(wholeNumber(MINUTE_MS, 10 * YEAR_MS)),
        releaseRevoked: v.optional(v.boolean()),
        overlapMs: v.optional(wholeNumber(0, YEAR_MS)),
      }),
      v.check(
        ({ idleMs = CLOUD_GATEWAY_DEFAULTS.leases.idleMs, pressedIdleMs = 0 }) =>
          pressedIdleMs <= idleMs,
        'pressedIdleMs must not be longer than idleMs'
      )
    ),
    {}
  ),
  authorize: v.optional(hostFunction()),
  reload: v.optional(hostFunction()),
};

export const CloudOptionsSchema: Schema<Parsed> = v.strictObject(
  CLOUD_ENTRIES
) as unknown as Schema<Parsed>;
