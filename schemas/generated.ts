/**
 * The files that are made from schemas and docstrings. Whoever changes those runs `npm run schemas`; a test compares.
 * @module
 */
import { cloudApi, edgeApi } from './api.ts';
import { commandReference } from './command-reference.ts';
import { referenceOf } from './config-reference.ts';
import { configSchemaOf, SIDES, type Side, SOURCES } from './config-schema.ts';
import type { JsonSchema } from './json-schema.ts';
import { TypeDocs } from './type-docs.ts';

/** Returns the text of each file by its path in the project. */
export function generated(): ReadonlyMap<string, string> {
  const docs = new TypeDocs(SOURCES);
  const schemas = Object.fromEntries(
    SIDES.map((side) => [side, configSchemaOf(side, docs)])
  ) as Record<Side, JsonSchema>;
  return new Map([
    ...SIDES.map((side): [string, string] => [`schemas/${side}.json`, json(schemas[side])]),
    ['schemas/cloud-api.json', json(cloudApi().document)],
    ['schemas/edge-api.json', json(edgeApi().document)],
    ['docs/configuration.md', referenceOf(schemas)],
    ['docs/command.md', commandReference()],
  ]);
}

function json(value: object): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}
