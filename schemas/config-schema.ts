/**
 * The JSON Schemas of both configuration files, for editors.
 *
 * They are draft-07, which every editor knows, and refuse nothing that the gateway accepts. The gateway refuses more:
 * `ONLY_THE_GATEWAY` has each check that a JSON Schema cannot express, with the reason.
 * @module
 */
import type { Schema } from '../src/base/schema.ts';
import { CloudFileSchema } from '../src/cli/cloud-file.ts';
import { RELOADED_KEYS } from '../src/cli/common-file.ts';
import { EdgeFileSchema } from '../src/cli/edge-file.ts';
import { type JsonSchema, jsonSchemaOf, type Loss } from './json-schema.ts';
import type { TypeDocs } from './type-docs.ts';

export type Side = 'cloud' | 'edge';
export const SIDES: readonly Side[] = ['cloud', 'edge'];

/** The schema of a file, and the file and the interface with the docstrings of its keys. */
const FILES: Readonly<
  Record<Side, { readonly schema: Schema<unknown>; readonly source: string; readonly keys: string }>
> = {
  cloud: { schema: CloudFileSchema, source: 'src/cli/cloud-file.ts', keys: 'CloudKeys' },
  edge: { schema: EdgeFileSchema, source: 'src/cli/edge-file.ts', keys: 'EdgeKeys' },
};

/** The files that have the docstrings of all keys. */
export const SOURCES: readonly string[] = SIDES.map((side) => FILES[side].source);

/** Checks that only the gateway makes: the action and its message or the title of a text, and why. */
export const ONLY_THE_GATEWAY: readonly (Omit<Loss, 'path'> & { readonly why: string })[] = [
  {
    action: 'raw_transform',
    message: 'IP address',
    why: 'a pattern has the numbers of IPv4, and the characters of IPv6',
  },
  {
    action: 'raw_transform',
    message: 'IP prefix',
    why: 'the same, and the bits behind the length must be 0',
  },
  {
    action: 'raw_transform',
    message: 'ports',
    why: 'a pattern has the form and the bounds; that a range goes up is arithmetic',
  },
  {
    action: 'raw_transform',
    message: 'time with its offset',
    why: 'the format date-time is only a hint to an editor, and has no rule for days of a month',
  },
  ...[0, 1].map((least) => ({
    action: 'check',
    message: `expected a port from ${least} to 65535`,
    why: 'the pattern of the text and the bounds of the mapping say it too',
  })),
  {
    action: 'check',
    message: 'expected an IP address or a host name before the port',
    why: 'the pattern of the text says most of it; the mapping with host and port does not',
  },
  {
    action: 'check',
    message: 'expected an IP address, not a name, before the port',
    why: 'the pattern of the text says it; the mapping with host and port does not',
  },
  {
    action: 'check',
    message: 'expected addresses of one IP version as local and peer',
    why: 'it compares two keys',
  },
  {
    action: 'check',
    message: 'expected at most one address of each IP version',
    why: 'it compares entries of a list',
  },
  {
    action: 'check',
    message: 'expected a prefix of 4 addresses or more within 127.0.0.0/8, without 127.0.0.1',
    why: 'arithmetic with addresses',
  },
  {
    action: 'check',
    message: 'expected https://HOST:PORT',
    why: 'the pattern says it but for the bounds of the port',
  },
  {
    action: 'check',
    message: 'expected a host that edges can connect to',
    why: 'the unspecified address has many texts',
  },
  {
    action: 'check',
    message: '',
    why: 'the keys of device.backend.hosts are addresses, of which the pattern has the form',
  },
  {
    action: 'raw_check',
    message: '',
    why: 'the resolver reads its rules: names, addresses with a port, prefixes, and that no suffix stands twice',
  },
];

/**
 * Returns the JSON Schema of a file.
 *
 * @throws if a key has no docstring, or a check is lost that is not in `ONLY_THE_GATEWAY`.
 */
export function configSchemaOf(side: Side, docs: TypeDocs): JsonSchema {
  const { schema, keys } = FILES[side];
  const { schema: plain, losses } = jsonSchemaOf(schema);
  const unknown = losses.filter((loss) => !isKnown(loss));
  if (unknown.length > 0) {
    const list = unknown.map(({ path, action, message }) => `${path}: ${action} "${message}"`);
    throw new Error(`${side}: a JSON Schema cannot say these checks: ${list.join('; ')}`);
  }
  const { properties, ...rest } = docs.describe(plain, keys) as {
    readonly properties: Readonly<Record<string, JsonSchema>>;
  };
  const named = side === 'cloud' ? 'a cloud gateway' : 'an edge gateway';
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: `Configuration of ${named} of virtual-presence`,
    ...rest,
    properties: Object.fromEntries(
      Object.entries(properties).map(([key, each]) => [
        key,
        { ...each, description: `${sentence(each)} ${reloadOf(side, key)}` },
      ])
    ),
  };
}

/** Returns the checks that the files make and their JSON Schemas do not, each with its places. */
export function lossesOf(side: Side): readonly Loss[] {
  return jsonSchemaOf(FILES[side].schema).losses;
}

function isKnown({ action, message }: Loss): boolean {
  return ONLY_THE_GATEWAY.some((each) => each.action === action && each.message === message);
}

function sentence({ description }: JsonSchema): string {
  return `${description}`.replace(/([^.])$/, '$1.');
}

/** What an operator does after a change of the key. */
export function reloadOf(side: Side, key: string): string {
  return RELOADED_KEYS[side].includes(key) ? 'SIGHUP reads it again.' : 'A change needs a restart.';
}
