/**
 * `cloud.yaml` and `edge.yaml`: what they say is good, and every key that a gateway knows stands in them, those that
 * may be left out as a comment.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { CloudConfigSchema } from '../../examples/cloud-gateway/config.ts';
import { EdgeConfigSchema } from '../../examples/edge-gateway/config.ts';
import { ConfigFile } from '../../examples/program/config-file.ts';
import { DesiredStateSchema } from '../../src/registry/model.ts';
import { parseSchema } from '../../src/schema.ts';

const pathOf = (name: string): string =>
  fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));
const CLOUD = pathOf('cloud-gateway/cloud.yaml');
const EDGE = pathOf('edge-gateway/edge.yaml');

/** The part of a valibot schema that leads to the keys in it. */
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

test.each([
  ['cloud.yaml', CLOUD, [CloudConfigSchema, DesiredStateSchema]],
  ['edge.yaml', EDGE, [EdgeConfigSchema]],
])('%s has every key', (_, path, schemas) => {
  const text = readFileSync(path, 'utf8');
  const keys = schemas.flatMap((schema) => keysOf(schema as SchemaNode));
  expect(keys).toContain('forward');
  const missing = keys.filter((key) => !new RegExp(`\\b${key}:`).test(text));
  expect(missing).toEqual([]);
});

test('what they say is good', () => {
  const { desired } = new ConfigFile(CLOUD).read(CloudConfigSchema);
  expect(parseSchema(DesiredStateSchema, desired).exposures).toHaveLength(1);
  expect(new ConfigFile(EDGE).read(EdgeConfigSchema).device).toMatchObject({ type: 'tun' });
});
