/**
 * Makes the reference of all keys of the configuration files, from their JSON Schemas.
 * @module
 */
import { ONLY_THE_GATEWAY, type Side } from './config-schema.ts';
import type { JsonSchema } from './json-schema.ts';

/** Returns the text of docs/configuration.md. */
export function referenceOf(schemas: Readonly<Record<Side, JsonSchema>>): string {
  return [
    ...HEAD,
    ...fileOf('The file of a cloud gateway', 'cloud', schemas.cloud),
    ...fileOf('The file of an edge gateway', 'edge', schemas.edge),
    ...onlyTheGateway(),
  ].join('\n');
}

const HEAD = [
  '# Configuration',
  '',
  '<!-- `npm run schemas` makes this page from the schemas and docstrings of the keys. -->',
  '',
  'A gateway has one file, in YAML or JSON. `virtual-presence init` writes one with comments, and',
  '`examples/cloud-gateway/cloud.yaml` and `examples/edge-gateway/edge.yaml` show every key. Paths are relative to the file.',
  'An unknown key is a fault.',
  '',
  '```sh',
  'virtual-presence config check cloud.yaml          # is the file right?',
  'virtual-presence config check cloud.yaml --system # and can this machine run it?',
  'virtual-presence config show cloud.yaml           # what is in force, with all defaults',
  'virtual-presence config schema cloud              # the JSON Schema',
  '```',
  '',
  'The package contains `schemas/cloud.json` and `schemas/edge.json`. An editor with yaml-language-server, as VS Code has',
  'with its YAML extension, completes keys, explains them and marks mistakes if the first line of the file names the schema:',
  '',
  '```text',
  '# yaml-language-server: $schema=./node_modules/virtual-presence/schemas/cloud.json',
  '```',
  '',
];

function fileOf(heading: string, side: Side, schema: JsonSchema): string[] {
  const { properties, required } = schema as Keywords;
  const sections = Object.entries(properties!).flatMap(([key, each]) => [
    `### ${side}: ${key}`,
    '',
    `${code(key)}: ${typeOf(each)}. ${presence(each, required, key)}`,
    '',
    textOf(each),
    '',
    ...tablesOf(each),
  ]);
  return [`## ${heading}`, '', ...sections];
}

function presence(
  schema: JsonSchema,
  required: readonly string[] | undefined,
  key: string
): string {
  if (required?.includes(key)) return 'Required.';
  return schema.default === undefined ? 'Optional.' : `Default ${value(schema.default)}.`;
}

/** One table for the keys of a mapping, or one for each kind of it that a key `type` chooses. */
function tablesOf(schema: JsonSchema): string[] {
  const { oneOf } = schema as Keywords;
  const kinds = oneOf ?? [schema];
  return kinds.flatMap((kind) => {
    const rows = rowsOf(kind, '');
    if (rows.length === 0) return [];
    const { type } = (kind as Keywords).properties ?? {};
    const head =
      type?.const === undefined ? [] : [`With \`type: ${type.const}\`: ${type.description}`, ''];
    return [
      ...head,
      '| key | value | default | meaning |',
      '| --- | --- | --- | --- |',
      ...rows,
      '',
    ];
  });
}

function rowsOf(schema: JsonSchema, path: string): string[] {
  const { properties = {}, required, items, additionalProperties, anyOf = [] } = schema as Keywords;
  const rows = Object.entries(properties)
    .filter(([, each]) => each.const === undefined)
    .flatMap(([key, each]) => {
      const place = path === '' ? key : `${path}.${key}`;
      const isRequired = required?.includes(key) === true;
      const fallback = isRequired ? 'required' : defaultOf(each);
      return [
        `| ${code(place)} | ${typeOf(each)} | ${fallback} | ${textOf(each)} |`,
        ...rowsOf(each, place),
      ];
    });
  const known = new Set<string>();
  const alternatives = anyOf
    .filter((each) => !isEndpoint(each))
    .flatMap((each) => rowsOf(each, path));
  const below = [
    ...(items === undefined ? [] : rowsOf(items, `${path}[]`)),
    ...(typeof additionalProperties === 'object' ? rowsOf(additionalProperties, `${path}.*`) : []),
    ...alternatives,
  ];
  // Alternatives have keys in common.
  return [...rows, ...below].filter((row) => !known.has(row) && known.add(row));
}

/** A mapping of a host and a port, which can be written as one text. */
function isEndpoint({ properties }: Keywords): boolean {
  return Object.keys(properties ?? {}).join() === 'host,port';
}

function defaultOf({ default: fallback, description, title }: JsonSchema): string {
  if (title === MODE) return code(`0o${Number(fallback).toString(8)}`);
  if (fallback !== undefined) return value(fallback);
  const [, stated] = /\b[Dd]efault:? ([^.;:(]+)/.exec(`${description}`) ?? [];
  if (stated === undefined) return 'optional';
  return stated.length > MAX_DEFAULT ? 'see there' : stated;
}

/** The title of a number that is written in octal. */
const MODE = 'mode';
const MAX_DEFAULT = 60;

/** The kind of a value with its bounds, in words. */
function typeOf(schema: JsonSchema): string {
  const {
    type,
    title,
    examples,
    items,
    anyOf,
    oneOf,
    const: only,
    properties,
  } = schema as Keywords;
  if (only !== undefined) return code(`${only}`);
  if (schema.enum !== undefined) return listed((schema.enum as string[]).map(code));
  if (anyOf !== undefined) return listed([...new Set(anyOf.map(typeOf))]);
  if (oneOf !== undefined) return 'mapping, by its key `type`';
  if (type === 'array') return listOf(schema, items);
  if (type === 'object') {
    if (properties === undefined) return `mapping of names to values`;
    return isEndpoint(schema) ? 'mapping of `host` and `port`' : 'mapping';
  }
  if (type === 'integer' || type === 'number') return numberOf(schema);
  if (type === 'boolean') return '`true` or `false`';
  const sample = examples?.[0] === undefined ? '' : ` such as ${code(examples[0])}`;
  return `${title ?? 'text'}${sample}`;
}

function listOf(schema: JsonSchema, items: JsonSchema | undefined): string {
  const list = `list${bounds(schema, 'Items')}`;
  const item = items === undefined ? '' : typeOf(items);
  return item === 'mapping' ? `${list}: mappings` : `${list}: ${item}`;
}

function numberOf({ minimum, maximum, title }: JsonSchema): string {
  if (title === MODE) return `mode up to \`0o${Number(maximum).toString(8)}\``;
  return `whole number from ${number(minimum)} to ${number(maximum)}`;
}

function bounds(schema: JsonSchema, of: string): string {
  const [least, most] = [schema[`min${of}`], schema[`max${of}`]];
  if (least === undefined && most === undefined) return '';
  if (most === undefined) return ` of ${least} or more`;
  return ` of ${least ?? 0} to ${most}`;
}

function listed(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

function value(fallback: unknown): string {
  if (Array.isArray(fallback)) return fallback.length === 0 ? 'none' : code(fallback.join(', '));
  return typeof fallback === 'number' ? number(fallback) : code(String(fallback));
}

function number(value: unknown): string {
  return Number(value).toLocaleString('en-US');
}

function code(text: string): string {
  return `\`${text}\``;
}

function textOf({ description }: JsonSchema): string {
  return `${description}`.replaceAll('|', '\\|').replace(/([^.])$/, '$1.');
}

function onlyTheGateway(): string[] {
  return [
    '## What a JSON Schema cannot say',
    '',
    'An editor marks most mistakes. These are found by `config check` alone, which reads a file as the gateway does:',
    '',
    ...ONLY_THE_GATEWAY.filter(({ message }) => message !== '').map(
      ({ action, message, why }) =>
        `- ${action === 'check' ? `"${message}"` : `whether a text can be read: ${message}`} (${why});`
    ),
    '- whether the rules in `dns` can be read, and no suffix stands twice;',
    '- what compares keys: `leases.pressedIdleSeconds` with `idleSeconds`; `workers` with the kind of the device, with the',
    '  ports from that of `tunnel` on, and with `enrolment.listen`; `enrolment.endpoints`, which must be given if edges cannot',
    '  connect to the host of `tunnel`; `sockets` with the kind of the device; `auth` with `passwordFile`;',
    '- whether the records of the desired state fit together: names that stand once, services and sites that exist, addresses',
    '  within sources or pools, names within a zone that no other exposure has;',
    '- what is in files: the passphrase, the password of the proxy, the token.',
    '',
  ];
}

interface Keywords extends JsonSchema {
  readonly type?: string;
  readonly title?: string;
  readonly examples?: readonly string[];
  readonly const?: unknown;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly items?: JsonSchema;
  readonly additionalProperties?: JsonSchema | boolean;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
}
