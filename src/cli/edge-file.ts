/**
 * The configuration file of an edge gateway: its keys, and the options of the library that they mean.
 * `examples/edge-gateway/edge.yaml` shows every key.
 * @module
 */
import * as v from 'valibot';
import type { EdgeGatewayOptions, Schema } from '../gateway/index.ts';
import { proxyFromEnvironment } from '../tunnel/index.ts';
import { type ConfigFile, notInFiles } from './config-file.ts';
import { readText } from './files.ts';
import { inMs, seconds } from './seconds.ts';
import { checkSidecars, type SidecarKeys, SidecarsSchema } from './sidecars.ts';

/** The keys of the file that this module reads. The library checks all other keys. */
export interface EdgeKeys {
  readonly stateDirectory: string;
  readonly tokenFile: string;
  readonly proxy?: string | undefined;
  readonly snapshotValidSeconds?: number | undefined;
  readonly device: { readonly path?: string | undefined };
  readonly sockets?: SidecarKeys | undefined;
}

/** The keys that differ from the library's options in name or unit. */
export const EdgeFileSchema: Schema<EdgeKeys> = v.looseObject({
  stateDirectory: v.string(),
  tokenFile: v.string(),
  proxy: v.optional(v.string()),
  snapshotValidSeconds: v.optional(seconds(60)),
  snapshotValidMs: notInFiles,
  device: v.looseObject({ path: v.optional(v.string()) }),
  sockets: v.optional(SidecarsSchema),
  token: notInFiles,
  logger: notInFiles,
});

/** @throws {ConfigError} with file, line and key, if a key that this module reads is wrong. */
export async function readEdgeKeys(file: ConfigFile): Promise<EdgeKeys> {
  const keys = file.read(EdgeFileSchema);
  await file.locate(() => checkSidecars(keys.device, keys.sockets));
  return keys;
}

/** Returns the options of the library. The library checks them. The token is read when it is needed. */
export function edgeOptions(
  file: ConfigFile,
  { tokenFile, proxy, snapshotValidSeconds, sockets: _, ...rest }: EdgeKeys,
  host: Pick<EdgeGatewayOptions, 'logger'>
): EdgeGatewayOptions {
  const tokenPath = file.resolve(tokenFile);
  const options = {
    ...rest,
    stateDirectory: file.resolve(rest.stateDirectory),
    device: file.withPath(rest.device),
    token: () => readText('the token file', tokenPath),
    proxy: proxy === 'environment' ? proxyFromEnvironment : proxy,
    snapshotValidMs: inMs(snapshotValidSeconds),
    ...host,
  };
  return options as unknown as EdgeGatewayOptions;
}
