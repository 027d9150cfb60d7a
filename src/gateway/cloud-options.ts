/**
 * What a cloud gateway may be told, and how that is checked.
 * @module
 */
import * as v from 'valibot';
import {
  formatHostPort,
  type HostPort,
  type HostPortInput,
  ListenSchema,
} from '../base/host-port.ts';
import { DomainText, hostFunction, parseSchema, type Schema, wholeNumber } from '../base/schema.ts';
import { PRESENCE_CONTROLLER_DEFAULTS } from '../control/index.ts';
import { isPacketDevice } from '../device/index.ts';
import { ConfigError } from '../errors.ts';
import type { KeyType } from '../pki/index.ts';
import type { DesiredInput } from '../registry/index.ts';
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

/** A site that asks to be let in, when everything else has been checked. */
export interface AuthorizeRequest {
  readonly site: string;
  readonly remoteAddress: string;
  /** Whether a token is redeemed, or a connection of a tunnel is to come up. */
  readonly at: 'enrolment' | 'handshake';
}

export interface CloudGatewayOptions extends CommonOptions {
  /**
   * A lower-case DNS name that stands in every certificate: `spiffe://<trustDomain>/site/<name>`. It has nothing to do
   * with the zones of the sites, and is looked up nowhere.
   */
  readonly trustDomain: string;
  /**
   * Where edges connect, a `HostPort` or `198.51.100.1:7443`. The first worker listens on this port, the second one on
   * the next, and so on; with port 0 each takes a free port.
   */
  readonly tunnel: HostPortInput;
  /** Where edges enrol. Default: port 7440 of the tunnel's host, or a free port if the tunnel's port is 0. */
  readonly enrolment?: EnrolmentOptions | undefined;
  /**
   * What is to be in force before anything is opened, as `apply` takes it. Default: what the store has, which is what
   * was in force when the gateway ended.
   */
  readonly desired?: DesiredInput | undefined;
  /**
   * How many workers carry packets, 1 to 64, or `auto`: one less than there are cores. Default 1, in this process; more
   * have a process each, and need a device of the type `tun`.
   */
  readonly workers?: number | 'auto' | undefined;
  /** The program of a worker's process, as `WorkerPoolOptions` says. Default: the library's own. */
  readonly workerMain?: WorkerPoolOptions['workerMain'] | undefined;
  /** The limits of connections to each tunnel port. Default: those of `MtlsTunnel.listen`. */
  readonly limits?: ConnectionLimits | undefined;
  /** The CA that is made where there is none, and what it issues. Default: that of `CloudTrustOptions`. */
  readonly trust?: CloudTrustOptions | undefined;
  /** How long clients may keep a name's address, in seconds, 1 to 86,400; default 30. */
  readonly ttlSeconds?: number | undefined;
  /** When the addresses of clients are released. Default: that of `LeaseOptions`. */
  readonly leases?: LeaseOptions | undefined;
  /**
   * Is asked whether a site may enrol, and whether a connection of its tunnel may come up, after everything else has
   * passed. It returns undefined to let the site in, or why not: a sentence that the edge gets as a failure of the kind
   * `refused`. What throws, or does not answer in the time of a handshake, refuses. A token that was refused so is
   * still good. Default: everybody who passes is let in.
   */
  readonly authorize?:
    | ((request: AuthorizeRequest) => string | undefined | Promise<string | undefined>)
    | undefined;
  /** The path of a unix socket for the admin interface (`adminRoutes`). Default: there is none. */
  readonly adminSocket?: string | undefined;
  /**
   * Reads the host's configuration again when the admin interface is told to; returns what it answers. Default: it
   * cannot be told to.
   */
  readonly reload?: (() => Promise<object>) | undefined;
}

export interface EnrolmentOptions {
  /**
   * An endpoint, or `shared`: the port of the tunnel, where the two are told apart by ALPN; for one worker. Default:
   * port 7440 of the tunnel's host, or a free one if the tunnel's port is 0.
   */
  readonly listen?: HostPortInput | 'shared' | undefined;
  /**
   * Where edges reach it, each `https://HOST:PORT`, 1 to 8; they go into each token. Port 0 stands for the one that
   * was taken. Default: where it listens; they must be given if that is any address (`0.0.0.0`, `::`).
   */
  readonly endpoints?: readonly string[] | undefined;
  /**
   * Where edges reach the tunnel, 1 to 16; they are told so when they enrol. Port 0 stands for the one that the first
   * worker has taken. Default: where the workers listen, at most 16 of them, or nothing if edges cannot connect to
   * that host (any address, or one with a zone): each edge needs the option `cloud` then.
   */
  readonly tunnels?: readonly HostPortInput[] | undefined;
}

export interface CloudTrustOptions {
  /** The type of the key of a CA that is made; default `p256`. Gateways always have P-256. */
  readonly keyType?: KeyType | undefined;
  /** Whether a CA that is made is signed by a root whose key nothing here needs; default false. */
  readonly intermediate?: boolean | undefined;
  /** Lifetime of gateways' certificates in ms, 5,000 to ten years; default 30 days. */
  readonly certificateLifetimeMs?: number | undefined;
  /** Encrypts the private keys of the CAs at rest, and no other secrets. Default: they are kept as they are. */
  readonly passphrase?: string | undefined;
}

/** When the addresses of clients are released. */
export interface LeaseOptions {
  /** After so long without a packet, in ms, a minute to ten years; default 30 days. */
  readonly idleMs?: number | undefined;
  /** The same while the client's site holds nearly all that it can have; default one day. */
  readonly pressedIdleMs?: number | undefined;
  /** Whether the clients of a revoked site lose theirs at once; default false. */
  readonly releaseRevoked?: boolean | undefined;
}

/** The options of a cloud gateway that are left out. */
export const CLOUD_GATEWAY_DEFAULTS: Readonly<{
  workers: number;
  ttlSeconds: number;
  trust: typeof AUTHORITY_KEEPER_DEFAULTS;
  leases: Readonly<{ idleMs: number; pressedIdleMs: number; releaseRevoked: boolean }>;
}> = Object.freeze({
  workers: WORKER_POOL_DEFAULTS.workers,
  ttlSeconds: PRESENCE_CONTROLLER_DEFAULTS.ttlSeconds,
  trust: AUTHORITY_KEEPER_DEFAULTS,
  leases: Object.freeze({
    idleMs: PRESENCE_CONTROLLER_DEFAULTS.clientIdleMs,
    pressedIdleMs: PRESENCE_CONTROLLER_DEFAULTS.pressedIdleMs,
    releaseRevoked: PRESENCE_CONTROLLER_DEFAULTS.releaseSuspended,
  }),
});

/** The port for enrolments where none is given. */
const ENROLMENT_PORT = 7440;

export interface ResolvedCloudOptions
  extends ResolvedCommonOptions,
    Pick<
      CloudGatewayOptions,
      'trustDomain' | 'workerMain' | 'authorize' | 'adminSocket' | 'reload'
    > {
  readonly tunnel: HostPort;
  readonly enrolment: {
    readonly listen: HostPort | 'shared';
    readonly endpoints: readonly string[];
    /** Undefined if they are those of the workers. */
    readonly tunnels: readonly HostPort[] | undefined;
  };
  readonly desired: unknown;
  readonly workers: number;
  readonly limits: ConnectionLimits;
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
 * Checks the options and fills in what is left out.
 *
 * @throws {ConfigError} naming the first option that is not usable, with what was given and what is expected.
 */
export function resolveCloudOptions(options: CloudGatewayOptions): ResolvedCloudOptions {
  const { workers: given, enrolment, ...rest } = parseSchema(CloudOptionsSchema, options);
  const { tunnel, device } = rest;
  const workers = workerCount(given);
  const port = tunnel.port === 0 ? 0 : ENROLMENT_PORT;
  const listen = enrolment.listen ?? { host: tunnel.host, port };
  const resolved = { ...rest, workers, enrolment: withEndpoints({ ...enrolment, listen }, tunnel) };
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

/** Whether another machine can connect to this host as it stands: not to any address, nor to one with a zone. */
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
  v.regex(/^https:\/\/(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?$/i, 'https://HOST:PORT'),
  v.check((text) => URL.canParse(text), 'expected https://HOST:PORT')
);
const MAX_WORKERS = 64;
/** What the answer to an enrolment may have. */
export const MAX_TOLD_TUNNELS = 16;
const YEAR_MS: number = 365 * 86_400_000;
const MINUTE_MS = 60_000;
const { trust: TRUST } = CLOUD_GATEWAY_DEFAULTS;

export const CloudOptionsSchema: Schema<Parsed> = v.strictObject({
  ...COMMON_ENTRIES,
  trustDomain: v.pipe(DomainText, v.regex(/^[a-z0-9.-]+$/, 'a lower-case domain name')),
  tunnel: ListenSchema,
  enrolment: v.optional(
    v.strictObject({
      // Another text is told what a host and port looks like.
      listen: v.optional(
        v.lazy((listen) => (listen === 'shared' ? v.literal('shared') : ListenSchema)) as Schema<
          HostPort | 'shared'
        >
      ),
      endpoints: v.optional(
        v.pipe(
          v.array(enrolmentEndpoint),
          v.check(({ length }) => length >= 1 && length <= 8, 'expected 1 to 8 endpoints')
        )
      ),
      tunnels: v.optional(
        v.pipe(
          v.array(
            v.pipe(
              ListenSchema,
              v.check(({ host }) => isReachable(host), 'expected a host that edges can connect to')
            )
          ),
          v.check(
            ({ length }) => length >= 1 && length <= MAX_TOLD_TUNNELS,
            `expected 1 to ${MAX_TOLD_TUNNELS} endpoints`
          )
        )
      ),
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
  limits: v.optional(
    v.strictObject({
      maxHandshakes: v.optional(wholeNumber(1, 65_536)),
      maxConnectionRate: v.optional(wholeNumber(1, 1_000_000)),
      maxTunnelRate: v.optional(wholeNumber(1, 1_000_000)),
      maxTunnelBurst: v.optional(wholeNumber(1, 1_000_000)),
    }),
    {}
  ),
  trust: v.optional(
    v.strictObject({
      keyType: v.optional(v.picklist(['p256', 'ed25519', 'rsa']), TRUST.keyType),
      intermediate: v.optional(v.boolean(), TRUST.intermediate),
      certificateLifetimeMs: v.optional(
        wholeNumber(5_000, 10 * YEAR_MS),
        TRUST.certificateLifetimeMs
      ),
      passphrase: v.optional(
        v.pipe(
          v.unknown(),
          v.check(
            (value) => typeof value === 'string' && value !== '',
            // Its value is nobody's to read.
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
  adminSocket: v.optional(v.pipe(v.string(), v.regex(/./, 'a path'))),
  reload: v.optional(hostFunction()),
}) as unknown as Schema<Parsed>;
