/**
 * The configuration file of a cloud gateway: its keys, and the options of the library that they mean.
 * `examples/cloud-gateway/cloud.yaml` shows every key.
 * @module
 */
import * as v from 'valibot';
import { chosen, type Schema } from '../base/schema.ts';
import type { DeviceOptions } from '../device/index.ts';
import { AUTHORITY_ENTRIES, CLOUD_ENTRIES } from '../gateway/cloud-options.ts';
import {
  CLOUD_GATEWAY_DEFAULTS,
  type CloudGatewayOptions,
  type CloudTrustOptions,
  type LeaseOptions,
  type SocketsDeviceOptions,
} from '../gateway/index.ts';
import { CloudDeviceSchema } from '../gateway/sockets-options.ts';
import type { DesiredInput } from '../registry/index.ts';
import { AnyExposureSchema, ServiceSchema, SiteSchema } from '../registry/schema.ts';
import { type LeasingStore, MemoryStore } from '../store/index.ts';
import { ClusterFileSchema, type ClusterKeys } from './cluster-file.ts';
import { COMMON_FILE_ENTRIES, type CommonKeys, PathText } from './common-file.ts';
import type { ConfigFile } from './config-file.ts';
import { readPassphrase } from './files.ts';
import { inMs, inSeconds, seconds, YEAR } from './seconds.ts';
import { checkSidecars } from './sidecars.ts';

/** The keys of the file. */
export interface CloudKeys extends CommonKeys {
  /**
   * A lower-case DNS name that is a part of every certificate: `spiffe://<trustDomain>/site/<name>`. It is never looked
   * up, and has nothing to do with the zones of the sites.
   */
  readonly trustDomain: string;
  /** The path of the unix socket of the admin interface, which only its owner may use; 107 bytes at most. */
  readonly adminSocket: string;
  /**
   * How many processes carry packets, each with its own TUN and tunnel port; `auto`: one less than the number of cores.
   * Several need a device of the type `tun`. With one, it is the process of the gateway itself.
   */
  readonly workers: number | 'auto';
  /** What leads to the hosts of the cloud's own site. */
  readonly device: DeviceOptions | SocketsDeviceOptions;
  /** Where edges connect. Worker n listens on this port plus n. With port 0 each worker takes a free port, see the log. */
  readonly tunnel: CloudGatewayOptions['tunnel'];
  /** Where edges enrol. */
  readonly enrolment: NonNullable<CloudGatewayOptions['enrolment']>;
  /** The limits of connections to each tunnel port. Raise them if many edges have one address, as behind a NAT. */
  readonly limits: NonNullable<CloudGatewayOptions['limits']>;
  /** The CA, which is generated at the first start, and its certificates. */
  readonly trust: TrustKeys;
  /**
   * Makes this gateway one machine of several that share an etcd; `trust.passphraseFile` is then required, and `desired` is
   * the same on all. Default: it is the only one.
   */
  readonly cluster?: ClusterKeys | undefined;
  /** How long clients may keep the address of a name; a released address is not used again before this time. */
  readonly ttlSeconds: number;
  /** When addresses of clients are released. */
  readonly leases: LeaseKeys;
  /** The desired state: which services are visible where. */
  readonly desired: DesiredInput;
}

export interface TrustKeys extends Pick<CloudTrustOptions, 'keyType' | 'intermediate'> {
  /** Lifetime of the gateways' certificates, which are renewed after two thirds of it; default 30 days. */
  readonly certificateLifetimeSeconds: number;
  /**
   * A file with the passphrase that encrypts the private keys of the CAs in the state directory. A plain key that is
   * there already is encrypted too. Default: they are stored in the clear.
   */
  readonly passphraseFile?: string | undefined;
}

export interface LeaseKeys extends Pick<LeaseOptions, 'releaseRevoked'> {
  /** An address of a client is released after this time without a packet; default 30 days. */
  readonly idleSeconds: number;
  /**
   * The same while the client's site has nearly as many addresses as it can have; not longer than `idleSeconds`. Default
   * one day.
   */
  readonly pressedIdleSeconds?: number | undefined;
  /**
   * How long the addresses that a site's pools do not have any more stay valid beside the new ones: live connections go
   * on until then. Default: the TTL and five minutes more.
   */
  readonly overlapSeconds?: number | undefined;
}

const { trust, leases } = CLOUD_GATEWAY_DEFAULTS;

/** What a JSON Schema says of the desired state. */
const DesiredSchema = v.strictObject({
  sites: v.array(SiteSchema),
  services: v.optional(v.array(ServiceSchema), []),
  exposures: v.optional(v.array(AnyExposureSchema), []),
});
/** Checks nothing within: the library does that, in slices, because there may be very many records. */
const AnyMapping = v.looseObject({});

const { stateDirectory, dns, metrics, sockets } = COMMON_FILE_ENTRIES;

export const CloudFileSchema: Schema<CloudKeys> = v.strictObject({
  trustDomain: CLOUD_ENTRIES.trustDomain!,
  stateDirectory: stateDirectory!,
  adminSocket: PathText,
  workers: CLOUD_ENTRIES.workers!,
  device: CloudDeviceSchema,
  tunnel: CLOUD_ENTRIES.tunnel!,
  enrolment: CLOUD_ENTRIES.enrolment!,
  dns: dns!,
  metrics: metrics!,
  limits: CLOUD_ENTRIES.limits!,
  trust: v.optional(
    v.strictObject({
      ...AUTHORITY_ENTRIES,
      certificateLifetimeSeconds: v.optional(seconds(5), inSeconds(trust.certificateLifetimeMs)),
      passphraseFile: v.optional(PathText),
    }),
    {}
  ),
  sockets: sockets!,
  cluster: v.optional(ClusterFileSchema),
  ttlSeconds: CLOUD_ENTRIES.ttlSeconds!,
  leases: v.optional(
    v.strictObject({
      idleSeconds: v.optional(seconds(60), inSeconds(leases.idleMs)),
      pressedIdleSeconds: v.optional(seconds(60)),
      overlapSeconds: v.optional(seconds(0, YEAR)),
      releaseRevoked: v.optional(v.boolean(), leases.releaseRevoked),
    }),
    {}
  ),
  desired: chosen([DesiredSchema as Schema<unknown>], () => AnyMapping as Schema<unknown>),
}) as unknown as Schema<CloudKeys>;

/** From options of the library to keys of the file, for the messages of errors. */
export const CLOUD_RENAMED: Readonly<Record<string, string>> = {
  'leases.pressedIdleMs': 'leases.pressedIdleSeconds',
  'leases.overlapMs': 'leases.overlapSeconds',
  'trust.passphrase': 'trust.passphraseFile',
  'cluster.ttlMs': 'cluster.ttlSeconds',
  'cluster.maxDetachedMs': 'cluster.maxDetachedSeconds',
};

/** Options that do not come from the file itself. */
export type CloudHostOptions = Pick<CloudGatewayOptions, 'logger' | 'reload'> & {
  /** The content of `trust.passphraseFile`. */
  readonly passphrase?: string | undefined;
  /** The store of the key `cluster`. Default: one in memory, for a check of the options. */
  readonly clusterStore?: LeasingStore | undefined;
};

/** @throws {ConfigError} with file, line and key, if a key is wrong. The desired state is not checked. */
export async function readCloudKeys(file: ConfigFile): Promise<CloudKeys> {
  const keys = file.read(CloudFileSchema);
  await file.locate(() => checkSidecars(keys.device, keys.sockets));
  return keys;
}

/**
 * Reads the passphrase of the CA's key, if the file names one.
 *
 * @throws {EnvironmentError} if it cannot be read.
 * @throws {ConfigError} if it is empty.
 */
export async function readCloudPassphrase(
  file: ConfigFile,
  { trust: { passphraseFile: path } }: Pick<CloudKeys, 'trust'>
): Promise<string | undefined> {
  if (path === undefined) return undefined;
  return file.locate(() => readPassphrase('trust.passphraseFile', file.resolve(path)));
}

/** Returns the options of the library, which checks how they go with each other. */
export function cloudOptions(
  file: ConfigFile,
  { trust, leases, cluster, sockets: _, ...rest }: CloudKeys,
  { passphrase, clusterStore, ...host }: CloudHostOptions
): CloudGatewayOptions {
  const { certificateLifetimeSeconds, passphraseFile: __, ...otherTrust } = trust;
  const { idleSeconds, pressedIdleSeconds, overlapSeconds, ...otherLeases } = leases;
  return {
    ...rest,
    stateDirectory: file.resolve(rest.stateDirectory),
    adminSocket: file.resolve(rest.adminSocket),
    device: file.withPath(rest.device),
    ...(cluster && {
      cluster: {
        store: clusterStore ?? new MemoryStore(),
        machine: cluster.machine,
        endpoints: cluster.endpoints,
        ttlMs: inMs(cluster.ttlSeconds),
        maxDetachedMs: inMs(cluster.maxDetachedSeconds),
      },
    }),
    trust: { ...otherTrust, passphrase, certificateLifetimeMs: inMs(certificateLifetimeSeconds) },
    leases: {
      ...otherLeases,
      idleMs: inMs(idleSeconds),
      pressedIdleMs: inMs(pressedIdleSeconds),
      overlapMs: inMs(overlapSeconds),
    },
    ...host,
  };
}
