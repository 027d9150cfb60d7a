/**
 * Reads a configuration file wholly, as the gateway does when it starts, and opens nothing.
 *
 * One thing is left to the start: whether the desired state fits to what other owners have put into the store.
 * @module
 */
import { type ResolvedCloudOptions, resolveCloudOptions } from '../gateway/cloud-options.ts';
import { applyDesired } from '../gateway/cloud-parts.ts';
import { type ResolvedEdgeOptions, resolveEdgeOptions } from '../gateway/edge-options.ts';
import { CLOUD, type DesiredState, Registry, type Site } from '../registry/index.ts';
import { MemoryStore } from '../store/index.ts';
import {
  CLOUD_RENAMED,
  type CloudKeys,
  cloudOptions,
  readCloudKeys,
  readCloudPassphrase,
} from './cloud-file.ts';
import { readEtcdFiles } from './cluster-file.ts';
import { ConfigFile } from './config-file.ts';
import { type EdgeKeys, edgeOptions, readEdgeKeys } from './edge-file.ts';
import { checkSidecarFiles } from './sidecars.ts';

interface Checked {
  readonly file: ConfigFile;
}

export interface CheckedCloud extends Checked {
  readonly side: 'cloud';
  readonly keys: CloudKeys;
  readonly options: ResolvedCloudOptions;
  readonly desired: DesiredState;
}

export interface CheckedEdge extends Checked {
  readonly side: 'edge';
  readonly keys: EdgeKeys;
  readonly options: ResolvedEdgeOptions;
}

/**
 * Reads the file of a cloud or of an edge gateway. It is an edge's if it has a key that only those have.
 *
 * @throws {ConfigError} with file, line and key, for the first fault.
 * @throws {EnvironmentError} if a file that it names cannot be read.
 */
export async function readWhole(path: string): Promise<CheckedCloud | CheckedEdge> {
  const file = new ConfigFile(path);
  return file.has(EDGE_ALONE) && !file.has(CLOUD_ALONE) ? readEdge(file) : readCloud(file);
}

async function readCloud(file: ConfigFile): Promise<CheckedCloud> {
  const keys = await readCloudKeys(file);
  const passphrase = await readCloudPassphrase(file, keys);
  const options = await file.locate(
    () => resolveCloudOptions(cloudOptions(file, keys, { passphrase })),
    { renamed: CLOUD_RENAMED }
  );
  await checkSidecarFiles(file, keys.sockets);
  const { cluster } = keys;
  if (cluster !== undefined) await file.locate(() => readEtcdFiles(file, cluster));
  const registry = await Registry.open(new MemoryStore());
  try {
    await file.locate(() => applyDesired(registry, keys.desired, 'desired'));
    return { side: 'cloud', file, keys, options, desired: registry.state };
  } finally {
    await registry.close();
  }
}

async function readEdge(file: ConfigFile): Promise<CheckedEdge> {
  const keys = await readEdgeKeys(file);
  const options = await file.locate(() => resolveEdgeOptions(edgeOptions(file, keys, {})));
  await checkSidecarFiles(file, keys.sockets);
  return { side: 'edge', file, keys, options };
}

/** Returns the site of the cloud itself. */
export function ownSite({ desired }: CheckedCloud): Site | undefined {
  return desired.sites.find(({ name }) => name === CLOUD);
}

const EDGE_ALONE = ['tokenFile', 'cloud', 'snapshotValidSeconds', 'proxy'];
const CLOUD_ALONE = ['trustDomain', 'desired'];
