/**
 * The configuration file of an edge gateway: its keys, and the options of the library that they mean.
 * `examples/edge-gateway/edge.yaml` shows every key.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';
import type { DeviceOptions } from '../device/index.ts';
import { EnrolmentError } from '../errors.ts';
import { EDGE_ENTRIES } from '../gateway/edge-options.ts';
import {
  EDGE_GATEWAY_DEFAULTS,
  type EdgeGatewayOptions,
  type SocketsDeviceOptions,
} from '../gateway/index.ts';
import { EdgeDeviceSchema } from '../gateway/sockets-options.ts';
import { proxyFromEnvironment } from '../tunnel/index.ts';
import { COMMON_FILE_ENTRIES, type CommonKeys, PathText } from './common-file.ts';
import type { ConfigFile } from './config-file.ts';
import { readText } from './files.ts';
import { inMs, inSeconds, seconds } from './seconds.ts';
import { checkSidecars } from './sidecars.ts';

/** The keys of the file. */
export interface EdgeKeys extends CommonKeys {
  /**
   * A file with a token of the cloud's admin interface. It is needed at the first start, and again after the certificate
   * has expired or was revoked; it is read each time.
   */
  readonly tokenFile: string;
  /**
   * The path of the unix socket of the admin interface, which only its owner may use; 107 bytes at most. Default: there is
   * none.
   */
  readonly adminSocket?: string | undefined;
  /** What leads to the hosts of the site. */
  readonly device: DeviceOptions | SocketsDeviceOptions;
  /**
   * The tunnel endpoints of the cloud gateway. Those of the lowest `priority` (0 by default) are tried first, and those of
   * one priority in an order that depends on the site. Default: those that the cloud sent at the enrolment.
   */
  readonly cloud?: EdgeGatewayOptions['cloud'];
  /**
   * The HTTP proxy that leads to the cloud's tunnel and to its enrolment; `environment`: the one that `https_proxy` and
   * `no_proxy` name. User and password are percent-encoded; only the owner should be able to read this file then.
   * Default: no proxy.
   */
  readonly proxy?: string | undefined;
  /**
   * How long the last snapshot holds without contact with the cloud; then the edge stops answering names. Default 7 days.
   */
  readonly snapshotValidSeconds: number;
}

const { stateDirectory, dns, metrics, sockets } = COMMON_FILE_ENTRIES;

export const EdgeFileSchema: Schema<EdgeKeys> = v.strictObject({
  stateDirectory: stateDirectory!,
  tokenFile: PathText,
  adminSocket: v.optional(PathText),
  cloud: EDGE_ENTRIES.cloud!,
  proxy: v.optional(
    v.pipe(
      v.string(),
      v.metadata({
        title: 'URL of a proxy, or environment',
        pattern: '^(environment|http://.+)$',
        examples: ['http://user:password@proxy.example.org:3128', 'environment'],
      })
    )
  ),
  snapshotValidSeconds: v.optional(seconds(60), inSeconds(EDGE_GATEWAY_DEFAULTS.snapshotValidMs)),
  device: EdgeDeviceSchema,
  dns: dns!,
  metrics: metrics!,
  sockets: sockets!,
}) as unknown as Schema<EdgeKeys>;

/** @throws {ConfigError} with file, line and key, if a key is wrong. */
export async function readEdgeKeys(file: ConfigFile): Promise<EdgeKeys> {
  const keys = file.read(EdgeFileSchema);
  await file.locate(() => checkSidecars(keys.device, keys.sockets));
  return keys;
}

/**
 * @throws {EnvironmentError} if the file cannot be read.
 * @throws {EnrolmentError} if it is empty, as that of a systemd unit without a token.
 */
function readToken(path: string): string {
  const token = readText('the token file', path).trim();
  if (token !== '') return token;
  throw new EnrolmentError(
    'missing',
    `the token file ${path} is empty: put a token of the cloud into it, and start the gateway again`
  );
}

/** Returns the options of the library, which checks how they go with each other. The token is read when it is needed. */
export function edgeOptions(
  file: ConfigFile,
  { tokenFile, adminSocket, proxy, snapshotValidSeconds, sockets: _, ...rest }: EdgeKeys,
  host: Pick<EdgeGatewayOptions, 'logger'>
): EdgeGatewayOptions {
  const tokenPath = file.resolve(tokenFile);
  return {
    ...rest,
    stateDirectory: file.resolve(rest.stateDirectory),
    adminSocket: adminSocket && file.resolve(adminSocket),
    device: file.withPath(rest.device),
    token: () => readToken(tokenPath),
    proxy: proxy === 'environment' ? proxyFromEnvironment : proxy,
    snapshotValidMs: inMs(snapshotValidSeconds),
    ...host,
  };
}
