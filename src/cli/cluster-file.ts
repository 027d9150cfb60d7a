/**
 * The key `cluster` of a cloud gateway's file, and the store on etcd that it names.
 * @module
 */
import * as v from 'valibot';
import type { HostPortInput } from '../base/host-port.ts';
import { HostPortSchema } from '../base/host-port-schema.ts';
import { NameText, type Schema } from '../base/schema.ts';
import { MEMBER_DEFAULTS } from '../cluster/index.ts';
import type { EtcdStore } from '../etcd/index.ts';
import { endpointList } from '../gateway/cloud-options.ts';
import { PathText } from './common-file.ts';
import type { ConfigFile } from './config-file.ts';
import { readPassphrase, readText } from './files.ts';
import { inSeconds, seconds, YEAR } from './seconds.ts';

export interface ClusterKeys {
  /** The name of this machine, a DNS label that no other machine of the cloud has. */
  readonly machine: string;
  /** The etcd that all machines share. It needs the package `@grpc/grpc-js`. */
  readonly etcd: EtcdKeys;
  /**
   * Where edges reach the tunnels of this machine alone, 1 to 16. Default: the addresses where the workers listen; required
   * if that is the unspecified address (`0.0.0.0`, `::`).
   */
  readonly endpoints?: readonly HostPortInput[] | undefined;
  /** For how long this machine counts as alive without etcd; 1 to 60. Default 2. */
  readonly ttlSeconds: number;
  /**
   * After how long without etcd this machine ends its tunnels, 10 or more; default one hour. Addresses that it may use are
   * not given to other hosts before.
   */
  readonly maxDetachedSeconds: number;
}

export interface EtcdKeys {
  /** The client endpoints of its members, for example `etcd-1.example.org:2379`. One is used until it fails. */
  readonly endpoints: readonly HostPortInput[];
  /** What all keys begin with in etcd; it ends with `/`. Default: `/vp/` and the trust domain. */
  readonly prefix?: string | undefined;
  /** A file with the trust anchors of etcd's certificates, PEM. Default: connections without TLS, for loopback only. */
  readonly caFile?: string | undefined;
  /** A file with the certificate for etcd's `--client-cert-auth`, PEM. Default: none is presented. */
  readonly certificateFile?: string | undefined;
  /** A file with the private key of that certificate, PEM. */
  readonly keyFile?: string | undefined;
  /** The name of a user of etcd. Default: the one that etcd takes from the certificate, or none. */
  readonly user?: string | undefined;
  /** A file with the password of that user. */
  readonly passwordFile?: string | undefined;
}

export const ClusterFileSchema: Schema<ClusterKeys> = v.strictObject({
  machine: NameText,
  etcd: v.strictObject({
    endpoints: v.pipe(v.array(HostPortSchema), v.minLength(1, 'expected at least one endpoint')),
    prefix: v.optional(
      v.pipe(v.string(), v.regex(/^\/.*\/$/, 'a text that begins and ends with /'))
    ),
    caFile: v.optional(PathText),
    certificateFile: v.optional(PathText),
    keyFile: v.optional(PathText),
    user: v.optional(v.pipe(v.string(), v.regex(/./, 'the name of a user'))),
    passwordFile: v.optional(PathText),
  }),
  endpoints: v.optional(endpointList),
  ttlSeconds: v.optional(seconds(1, 60), inSeconds(MEMBER_DEFAULTS.ttlMs)),
  maxDetachedSeconds: v.optional(seconds(10, YEAR), inSeconds(MEMBER_DEFAULTS.maxDetachedMs)),
}) as unknown as Schema<ClusterKeys>;

/**
 * Opens the store that all machines share.
 *
 * @throws {ConfigError} if a file that it names does not go with the others.
 * @throws {EnvironmentError} if a file cannot be read, or `@grpc/grpc-js` is not installed.
 * @throws {StoreUnavailableError} if etcd does not answer.
 */
export async function openClusterStore(
  file: ConfigFile,
  { etcd }: ClusterKeys,
  trustDomain: string
): Promise<EtcdStore> {
  const read = (what: string, path: string | undefined): string | undefined =>
    path === undefined ? undefined : readText(what, file.resolve(path));
  const ca = read('the trust anchors of etcd', etcd.caFile);
  const cert = read('the certificate for etcd', etcd.certificateFile);
  const key = read('the private key for etcd', etcd.keyFile);
  const { user, passwordFile } = etcd;
  const password =
    passwordFile === undefined
      ? undefined
      : readPassphrase('cluster.etcd.passwordFile', file.resolve(passwordFile));
  const { EtcdStore } = await import('../etcd/index.ts');
  return EtcdStore.open({
    endpoints: etcd.endpoints,
    prefix: etcd.prefix ?? `/vp/${trustDomain}/`,
    ...(ca !== undefined && { credentials: { ca, ...(cert && { cert }), ...(key && { key }) } }),
    ...(user !== undefined && password !== undefined && { user: { name: user, password } }),
  });
}
