/**
 * The key `cluster` of a cloud gateway's file, and the store on etcd that it names.
 * @module
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import * as v from 'valibot';
import type { HostPortInput } from '../base/host-port.ts';
import { HostPortSchema } from '../base/host-port-schema.ts';
import { NameText, type Schema } from '../base/schema.ts';
import { MEMBER_DEFAULTS } from '../cluster/index.ts';
import { ConfigError } from '../errors.ts';
import type { EtcdCredentials, EtcdStore, EtcdStoreOptions } from '../etcd/index.ts';
import { endpointList } from '../gateway/cloud-options.ts';
import type { Logger } from '../observe/index.ts';
import { PathText } from './common-file.ts';
import type { ConfigFile } from './config-file.ts';
import { readPassphrase, readText } from './files.ts';
import { inSeconds, seconds } from './seconds.ts';

export interface ClusterKeys {
  /** The name of this machine, a DNS label that no other machine of the cloud has. */
  readonly machine: string;
  /** The etcd that all machines share. It needs the packages `@grpc/grpc-js` and `@grpc/proto-loader`. */
  readonly etcd: EtcdKeys;
  /**
   * Where edges reach the tunnels of this machine alone, 1 to 16. Default: the addresses where the workers listen; required
   * if that is the unspecified address (`0.0.0.0`, `::`).
   */
  readonly endpoints?: readonly HostPortInput[] | undefined;
  /** For how long this machine counts as alive without etcd; 1 to 60. Default 2. */
  readonly ttlSeconds: number;
  /**
   * After how long without etcd this machine ends its tunnels, 10 to 2,073,600; default 3600, one hour. Addresses that it may use are
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
  /** A file with the private key of that certificate, PEM, not encrypted. Both are given or none. */
  readonly keyFile?: string | undefined;
  /** The name of a user of etcd. Default: the one that etcd takes from the certificate, or none. */
  readonly user?: string | undefined;
  /** A file with the password of that user. */
  readonly passwordFile?: string | undefined;
}

/** 24 days: a timer of Node takes no more. */
const MAX_DETACHED_SECONDS = 24 * 86_400;

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
  maxDetachedSeconds: v.optional(
    seconds(10, MAX_DETACHED_SECONDS),
    inSeconds(MEMBER_DEFAULTS.maxDetachedMs)
  ),
}) as unknown as Schema<ClusterKeys>;

/** What the files of the keys say. */
type EtcdFiles = Pick<EtcdStoreOptions, 'user'> & { readonly credentials?: EtcdCredentials };

/**
 * Reads the files that the keys name, and connects to nothing.
 *
 * @throws {ConfigError} if a key is missing that another one needs, or the files do not go with each other.
 * @throws {EnvironmentError} if a file cannot be read.
 */
export function readEtcdFiles(file: ConfigFile, { etcd }: ClusterKeys): EtcdFiles {
  const { caFile, certificateFile, keyFile, user, passwordFile } = etcd;
  const together = (key: keyof EtcdKeys, other: keyof EtcdKeys): void => {
    if (etcd[key] !== undefined && etcd[other] === undefined) {
      throw new ConfigError(at(other), `is missing: ${key} needs it`);
    }
  };
  together('certificateFile', 'keyFile');
  together('keyFile', 'certificateFile');
  together('certificateFile', 'caFile');
  together('user', 'passwordFile');
  together('passwordFile', 'user');
  const read = (what: string, path: string | undefined): string | undefined =>
    path === undefined ? undefined : readText(what, file.resolve(path));
  const ca = read('the trust anchors of etcd', caFile);
  const cert = read('the certificate for etcd', certificateFile);
  const key = read('the private key for etcd', keyFile);
  if (ca !== undefined) certificateOf('caFile', ca);
  if (cert !== undefined && key !== undefined) checkPair(cert, key);
  return {
    ...(ca !== undefined && { credentials: { ca, ...(cert && { cert }), ...(key && { key }) } }),
    ...(user !== undefined && {
      user: {
        name: user,
        password: readPassphrase(at('passwordFile'), file.resolve(passwordFile!)),
      },
    }),
  };
}

/**
 * Opens the store that all machines share. The files of its certificate are read again for each new connection, so that
 * renewed ones are used.
 *
 * @throws {ConfigError | EnvironmentError} as `readEtcdFiles`, and if the packages are not installed.
 * @throws {StoreUnavailableError} if etcd does not answer.
 */
export async function openClusterStore(
  file: ConfigFile,
  keys: ClusterKeys,
  trustDomain: string,
  logger: Logger
): Promise<EtcdStore> {
  const { endpoints, prefix = `/vp/${trustDomain}/` } = keys.etcd;
  const { credentials, user } = readEtcdFiles(file, keys);
  const { EtcdStore } = await import('../etcd/index.ts');
  return EtcdStore.open({
    endpoints,
    prefix,
    ...(credentials && {
      credentials: renewable(credentials, () => readEtcdFiles(file, keys), logger),
    }),
    ...(user && { user }),
  });
}

/**
 * Returns a function that reads the credentials again, and logs once why that fails each time.
 *
 * @param first what was read at the start
 */
function renewable(
  first: EtcdCredentials,
  read: () => EtcdFiles,
  logger: Logger
): () => EtcdCredentials {
  let present = first;
  let fault = '';
  return () => {
    try {
      const { credentials = first } = read();
      present = credentials;
      fault = '';
    } catch (error) {
      const { message } = error as Error;
      const text = `the files for etcd cannot be used, those before are: ${message}`;
      if (message !== fault) logger.warn({ event: 'etcd_files_failed', err: error }, text);
      fault = message;
    }
    return present;
  };
}

function at(key: keyof EtcdKeys): string {
  return `cluster.etcd.${key}`;
}

function certificateOf(key: keyof EtcdKeys, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch {
    throw new ConfigError(at(key), 'expected a file with a certificate in PEM');
  }
}

function checkPair(certificatePem: string, keyPem: string): void {
  const certificate = certificateOf('certificateFile', certificatePem);
  let key: KeyObject;
  try {
    key = createPrivateKey(keyPem);
  } catch {
    const message = 'expected a file with a private key in PEM that is not encrypted';
    throw new ConfigError(at('keyFile'), message);
  }
  if (!certificate.checkPrivateKey(key)) {
    throw new ConfigError(at('keyFile'), 'is not the key of the certificate in certificateFile');
  }
}
