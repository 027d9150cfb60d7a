/**
 * The configuration file of a cloud gateway: its keys, and the options of the library that they mean.
 * `examples/cloud-gateway/cloud.yaml` shows every key.
 * @module
 */
import * as v from 'valibot';
import type { CloudGatewayOptions, Schema } from '../gateway/index.ts';
import { type ConfigFile, notInFiles } from './config-file.ts';
import { readPassphrase } from './files.ts';
import { inMs, seconds } from './seconds.ts';
import { checkSidecars, type SidecarKeys, SidecarsSchema } from './sidecars.ts';

/** The keys of the file that this module reads. The library checks all other keys. */
export interface CloudKeys {
  readonly stateDirectory: string;
  readonly adminSocket: string;
  readonly device: { readonly path?: string | undefined };
  readonly trust: {
    readonly certificateLifetimeSeconds?: number | undefined;
    readonly passphraseFile?: string | undefined;
  };
  readonly leases: {
    readonly idleSeconds?: number | undefined;
    readonly pressedIdleSeconds?: number | undefined;
    readonly overlapSeconds?: number | undefined;
  };
  readonly sockets?: SidecarKeys | undefined;
  readonly desired: object;
}

/** The keys that differ from the library's options in name or unit. */
export const CloudFileSchema: Schema<CloudKeys> = v.looseObject({
  stateDirectory: v.string(),
  adminSocket: v.string(),
  device: v.looseObject({ path: v.optional(v.string()) }),
  trust: v.optional(
    v.looseObject({
      certificateLifetimeSeconds: v.optional(seconds(5)),
      passphraseFile: v.optional(v.string()),
      certificateLifetimeMs: notInFiles,
      passphrase: notInFiles,
    }),
    {}
  ),
  leases: v.optional(
    v.looseObject({
      idleSeconds: v.optional(seconds(60)),
      pressedIdleSeconds: v.optional(seconds(60)),
      overlapSeconds: v.optional(seconds(0)),
      overlapMs: notInFiles,
      idleMs: notInFiles,
      pressedIdleMs: notInFiles,
    }),
    {}
  ),
  sockets: v.optional(SidecarsSchema),
  desired: v.looseObject({}),
  logger: notInFiles,
  reload: notInFiles,
});

/** From options of the library to keys of the file, for the messages of errors. */
export const CLOUD_RENAMED: Readonly<Record<string, string>> = {
  'leases.pressedIdleMs': 'leases.pressedIdleSeconds',
  'leases.overlapMs': 'leases.overlapSeconds',
};

/** Options that do not come from the file itself. */
export type CloudHostOptions = Pick<CloudGatewayOptions, 'logger' | 'reload'> & {
  /** The content of `trust.passphraseFile`. */
  readonly passphrase?: string | undefined;
};

/** @throws {ConfigError} with file, line and key, if a key that this module reads is wrong. */
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
  { trust: { passphraseFile: path } }: CloudKeys
): Promise<string | undefined> {
  if (path === undefined) return undefined;
  return file.locate(() => readPassphrase('trust.passphraseFile', file.resolve(path)));
}

/** Returns the options of the library. The library checks them. */
export function cloudOptions(
  file: ConfigFile,
  { trust, leases, sockets: _, ...rest }: CloudKeys,
  { passphrase, ...host }: CloudHostOptions
): CloudGatewayOptions {
  const { certificateLifetimeSeconds, passphraseFile: __, ...otherTrust } = trust;
  const { idleSeconds, pressedIdleSeconds, overlapSeconds, ...otherLeases } = leases;
  const options = {
    ...rest,
    stateDirectory: file.resolve(rest.stateDirectory),
    adminSocket: file.resolve(rest.adminSocket),
    device: file.withPath(rest.device),
    trust: { ...otherTrust, passphrase, certificateLifetimeMs: inMs(certificateLifetimeSeconds) },
    leases: {
      ...otherLeases,
      idleMs: inMs(idleSeconds),
      pressedIdleMs: inMs(pressedIdleSeconds),
      overlapMs: inMs(overlapSeconds),
    },
    ...host,
  };
  return options as unknown as CloudGatewayOptions;
}
