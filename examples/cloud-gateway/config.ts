/**
 * The cloud gateway's file: `cloud.yaml` beside this one shows every key.
 * @module
 */
import * as v from 'valibot';
import {
  ConfigError,
  DeviceOptionsSchema,
  DomainText,
  type HostPort,
  type KeyType,
  type ResolvedDeviceOptions,
  type Schema,
  wholeNumber,
} from 'virtual-presence';
import { type ConnectionLimits, workerCount } from 'virtual-presence/worker';
import { type DnsConfig, DnsSchema, ListenSchema, PathSchema } from '../program/fields.ts';

export interface CloudConfig {
  readonly trustDomain: string;
  readonly stateDirectory: string;
  readonly adminSocket: string;
  /** How many processes carry packets; with more than one, this one does not. 1 if absent. */
  readonly processes?: number;
  readonly device: ResolvedDeviceOptions;
  /**
   * Where edges connect. The first process listens on this port, the second one on the next port, and so on;
   * with port 0 each process takes a free port.
   */
  readonly tunnel: HostPort;
  readonly enrolment: {
    /** `shared`: on the port of the tunnel, told apart by ALPN; for one process. */
    readonly listen: HostPort | 'shared';
    /** The same as edges reach it. Port 0 stands for the port of `listen`. */
    readonly endpoints: readonly string[];
  };
  readonly dns: DnsConfig;
  readonly trust: TrustConfig;
  /** Of connections to the tunnel port; the library's defaults where absent. */
  readonly limits?: ConnectionLimits | undefined;
  readonly ttlSeconds: number;
  /** When the leases of clients' addresses end. The library's defaults apply where it is absent. */
  readonly leases?: LeasesConfig | undefined;
  /** Sites, services and exposures; the registry checks them. */
  readonly desired: unknown;
}

/** When the addresses of clients are released. */
export interface LeasesConfig {
  /** After so long without a packet. */
  readonly idleSeconds?: number;
  /** The same while the client's site holds nearly all that it can have. */
  readonly pressedIdleSeconds?: number;
  /** Whether the clients of a revoked site lose theirs at once. */
  readonly releaseRevoked?: boolean;
}

export interface TrustConfig {
  /** Of a CA that is made; gateways have P-256. */
  readonly keyType: KeyType;
  /** A CA that is made is signed by a root whose key nothing here needs. */
  readonly intermediate: boolean;
  /** Of gateways' certificates. */
  readonly certificateLifetimeSeconds: number;
  /** File with the passphrase of the CA's private key; without, the key is kept as it is. */
  readonly passphraseFile?: string | undefined;
}

const endpoint = v.pipe(
  v.string(),
  v.regex(/^https:\/\/(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?$/i, 'https://HOST:PORT'),
  v.check((text) => URL.canParse(text), 'expected https://HOST:PORT')
);

const SHARED = 'shared';
const MAX_PROCESSES = 64;
const DAY_SECONDS = 86_400;
const YEAR_SECONDS: number = 365 * DAY_SECONDS;

export const CloudConfigSchema: Schema<CloudConfig> = v.strictObject({
  trustDomain: v.pipe(DomainText, v.regex(/^[a-z0-9.-]+$/, 'a lower-case domain name')),
  stateDirectory: PathSchema,
  adminSocket: PathSchema,
  processes: v.optional(
    v.union(
      [
        v.pipe(
          v.literal('auto'),
          v.transform((auto) => workerCount(auto))
        ),
        wholeNumber(1, MAX_PROCESSES),
      ],
      `expected a whole number from 1 to ${MAX_PROCESSES}, or auto`
    ),
    1
  ),
  device: DeviceOptionsSchema,
  tunnel: ListenSchema,
  enrolment: v.strictObject({
    // Another text is told what a host and port looks like.
    listen: v.lazy((listen) => (listen === SHARED ? v.literal(SHARED) : ListenSchema)),
    endpoints: v.pipe(
      v.array(endpoint),
      v.check(({ length }) => length >= 1 && length <= 8, 'expected 1 to 8 endpoints')
    ),
  }),
  dns: DnsSchema,
  trust: v.optional(
    v.strictObject({
      keyType: v.optional(v.picklist(['p256', 'ed25519', 'rsa']), 'p256'),
      intermediate: v.optional(v.boolean(), false),
      certificateLifetimeSeconds: v.optional(wholeNumber(5, 10 * YEAR_SECONDS), 30 * DAY_SECONDS),
      passphraseFile: v.optional(PathSchema),
    }),
    {}
  ),
  limits: v.optional(
    v.strictObject({
      maxHandshakes: v.optional(wholeNumber(1, 65_536)),
      maxConnectionRate: v.optional(wholeNumber(1, 1_000_000)),
      maxTunnelRate: v.optional(wholeNumber(1, 1_000_000)),
      maxTunnelBurst: v.optional(wholeNumber(1, 1_000_000)),
    })
  ) as Schema<ConnectionLimits | undefined>,
  ttlSeconds: v.optional(wholeNumber(1, 86_400), 30),
  leases: v.optional(
    v.pipe(
      v.strictObject({
        idleSeconds: v.optional(wholeNumber(60, 10 * YEAR_SECONDS)),
        pressedIdleSeconds: v.optional(wholeNumber(60, 10 * YEAR_SECONDS)),
        releaseRevoked: v.optional(v.boolean()),
      }),
      v.check(
        ({ idleSeconds = 30 * DAY_SECONDS, pressedIdleSeconds = 0 }) =>
          pressedIdleSeconds <= idleSeconds,
        'pressedIdleSeconds must not be longer than idleSeconds'
      )
    )
  ) as Schema<LeasesConfig | undefined>,
  desired: v.unknown(),
});

/**
 * Checks what `processes` asks of other keys.
 *
 * @throws {ConfigError} naming the key that does not fit.
 */
export function checkProcesses({ processes = 1, device, tunnel, enrolment }: CloudConfig): void {
  if (processes === 1) return;
  if (device.type !== 'tun') {
    throw new ConfigError('processes', `${processes} need a device of type tun, one for each`);
  }
  const { listen } = enrolment;
  if (listen === SHARED) {
    const why = `the tunnel's port can be shared by one process only, not by ${processes}`;
    throw new ConfigError('enrolment.listen', `${why}: give a host and port`);
  }
  if (tunnel.port === 0) return;
  const last = tunnel.port + processes - 1;
  if (last > 65_535) {
    throw new ConfigError('tunnel', `${processes} processes need as many ports, up to ${last}`);
  }
  const { port } = listen;
  if (port > tunnel.port && port <= last) {
    const range = `${tunnel.port} to ${last}`;
    throw new ConfigError(
      'enrolment.listen',
      `the tunnels of ${processes} processes take ${range}`
    );
  }
}
