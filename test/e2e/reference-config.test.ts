/**
 * `cloud.yaml` and `edge.yaml` are valid, and contain every key that a gateway knows, optional ones as comments.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { parseSchema } from '../../src/base/schema.ts';
import { ClusterFileSchema } from '../../src/cli/cluster-file.ts';
import { SidecarsSchema } from '../../src/cli/sidecars.ts';
import { DeviceOptionsSchema } from '../../src/device/index.ts';
import { CloudOptionsSchema } from '../../src/gateway/cloud-options.ts';
import { EdgeOptionsSchema } from '../../src/gateway/edge-options.ts';
import { Registry } from '../../src/registry/index.ts';
import {
  ExposureSchema,
  SelectorExposureSchema,
  ServiceSchema,
  SiteSchema,
} from '../../src/registry/schema.ts';
import { MemoryStore } from '../../src/store/index.ts';

const pathOf = (name: string): string =>
  fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));
const CLOUD = pathOf('cloud-gateway/cloud.yaml');
const EDGE = pathOf('edge-gateway/edge.yaml');

const DESIRED_SCHEMAS = [SiteSchema, ServiceSchema, ExposureSchema, SelectorExposureSchema];

/** The part of a valibot schema that leads to its keys. */
interface SchemaNode {
  readonly entries?: Readonly<Record<string, SchemaNode>>;
  readonly options?: readonly unknown[];
  readonly pipe?: readonly SchemaNode[];
  readonly wrapped?: SchemaNode;
  readonly item?: SchemaNode;
}

function keysOf(node: SchemaNode): string[] {
  const { entries = {}, options = [], pipe = [], wrapped, item } = node;
  const inner = [...options, ...pipe, wrapped, item]
    .filter((each) => typeof each === 'object' && each !== null && each !== node)
    .flatMap((each) => keysOf(each as SchemaNode));
  const own = Object.entries(entries).flatMap(([key, value]) => [key, ...keysOf(value)]);
  return [...new Set([...own, ...inner])];
}

/** Options that exist in programs only, not in a file. */
const OF_PROGRAMS = ['store', 'secrets', 'logger', 'clock', 'signal', 'authorize', 'reload'];
/** Options with another name or unit in the files. */
const IN_FILES: Readonly<Record<string, string>> = {
  certificateLifetimeMs: 'certificateLifetimeSeconds',
  passphrase: 'passphraseFile',
  idleMs: 'idleSeconds',
  pressedIdleMs: 'pressedIdleSeconds',
  overlapMs: 'overlapSeconds',
  token: 'tokenFile',
  snapshotValidMs: 'snapshotValidSeconds',
  ttlMs: 'ttlSeconds',
  maxDetachedMs: 'maxDetachedSeconds',
};

test.each([
  [
    'cloud.yaml',
    CLOUD,
    [
      CloudOptionsSchema,
      DeviceOptionsSchema,
      ...DESIRED_SCHEMAS,
      SidecarsSchema,
      ClusterFileSchema,
    ],
    ['workerMain'],
  ],
  ['edge.yaml', EDGE, [EdgeOptionsSchema, DeviceOptionsSchema, SidecarsSchema], ['transit']],
])('%s contains every key', (_, path, schemas, others) => {
  const text = readFileSync(path, 'utf8');
  const keys = schemas
    .flatMap((schema) => keysOf(schema as SchemaNode))
    .filter((key) => ![...OF_PROGRAMS, ...others].includes(key))
    .map((key) => IN_FILES[key] ?? key);
  expect(keys).toContain('forward');
  expect(keys).toContain('passwordFile');
  const missing = keys.filter((key) => !new RegExp(`\\b${key}:`).test(text));
  expect(missing).toEqual([]);
});

test('the files are valid', async () => {
  const { desired } = parse(readFileSync(CLOUD, 'utf8'));
  await using registry = await Registry.open(new MemoryStore());
  await registry.apply(desired, 'file');
  expect(registry.state.exposures).toHaveLength(1);
  const { tokenFile, ...edge } = parse(readFileSync(EDGE, 'utf8'));
  expect(tokenFile).toBe('./token');
  expect(parseSchema(EdgeOptionsSchema, edge).device).toMatchObject({ type: 'tun' });
});

/** Returns the value of a key that is a comment. */
function commented(path: string, key: string): unknown {
  const lines = readFileSync(path, 'utf8').split('\n');
  const first = lines.findIndex((line) => line.startsWith(`# ${key}:`));
  const length = lines.slice(first).findIndex((line) => !line.startsWith('#'));
  const block = lines.slice(first, first + length).map((line) => line.slice(2));
  return parse(block.join('\n'))[key];
}

test.each([CLOUD, EDGE])('what is a comment in %s is valid too: the key sockets', (path) => {
  expect(parseSchema(SidecarsSchema, commented(path, 'sockets'))).toMatchObject({
    publish: { hostsFile: './hosts' },
    forward: [{ port: expect.any(Number) }],
    proxy: { listen: { host: '127.0.0.1', port: 1080 }, auth: true },
  });
});

test('what is a comment in cloud.yaml is valid too: the key cluster', () => {
  expect(parseSchema(ClusterFileSchema, commented(CLOUD, 'cluster'))).toMatchObject({
    machine: 'one',
    etcd: { prefix: '/vp/openstack.test/' },
  });
});
