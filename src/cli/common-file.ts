/**
 * The keys that the files of both gateways have.
 *
 * The docstrings of the interfaces of keys are what editors show, and what docs/configuration.md says: they are for
 * operators. `npm run schemas` takes them over.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';
import type { DnsOptions } from '../dns/index.ts';
import { COMMON_ENTRIES } from '../gateway/common-options.ts';
import type { MetricsOptions } from '../gateway/index.ts';
import { type SidecarKeys, SidecarsSchema } from './sidecars.ts';

export interface CommonKeys {
  /**
   * The directory of the gateway's state: keys, certificates and what must survive a restart. It is created with the mode
   * 0700 if it does not exist, and locked while the gateway runs. It is relative to this file, as all paths here are.
   */
  readonly stateDirectory: string;
  /** Where the gateway answers DNS queries for the names of its own site, and for which clients. Default: it does not. */
  readonly dns?: DnsOptions | undefined;
  /** Where metrics, health and readiness are served. Default: nowhere. */
  readonly metrics?: MetricsOptions | undefined;
  /**
   * What programs of this machine connect to, with a device of the type `sockets`. Every user of the machine can connect
   * to a port; only those who may write to it can connect to a unix socket. Default: nothing.
   */
  readonly sockets?: SidecarKeys | undefined;
}

/** Which keys of a file are read again while the gateway runs. A change of any other key needs a restart. */
export const RELOADED_KEYS: Readonly<Record<'cloud' | 'edge', readonly string[]>> = Object.freeze({
  cloud: ['desired'],
  edge: [],
});

/** A path that is relative to the file. */
export const PathText: Schema<string> = v.pipe(
  v.string(),
  v.regex(/./, 'a path'),
  v.metadata({ title: 'path' })
) as Schema<string>;

/** The entries of `CommonKeys`. */
export const COMMON_FILE_ENTRIES: v.ObjectEntries = {
  stateDirectory: PathText,
  dns: COMMON_ENTRIES.dns!,
  metrics: COMMON_ENTRIES.metrics!,
  sockets: v.optional(SidecarsSchema),
};
