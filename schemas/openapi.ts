/**
 * Makes the OpenAPI 3.1 document of a table of operations.
 * @module
 */
import { STATUS_CODES } from 'node:http';
import type { AnyOperation, Operations } from '../src/admin/operation.ts';
import { PROBLEM_TYPE, ProblemSchema } from '../src/admin/problem.ts';
import type { Schema } from '../src/base/schema.ts';
import { type JsonSchema, JsonSchemas, type Loss } from './json-schema.ts';

export interface OpenApiOptions {
  readonly title: string;
  readonly version: string;
  readonly operations: Operations;
  /** The schemas that become components, by their names. */
  readonly components: Readonly<Record<string, Schema<unknown>>>;
}

/** The statuses of a refusal that each operation can have; those of changes and of records besides. */
const REFUSALS = [400, 404, 405, 413, 500, 502, 503];
const OF_CHANGES = [409];
const OF_VERSIONS = [412];

/** A document, and what its schemas do not say. */
export interface OpenApi {
  readonly document: JsonSchema;
  readonly losses: readonly Loss[];
}

export function openApiOf({ title, version, operations, components }: OpenApiOptions): OpenApi {
  const named = { ...components, Problem: ProblemSchema };
  const schemas = new JsonSchemas(named, referTo);
  const paths: Record<string, Record<string, JsonSchema>> = {};
  for (const [name, operation] of Object.entries(operations)) {
    const { path, method } = operation;
    paths[path] ??= {};
    paths[path][method.toLowerCase()] = operationOf(name, operation, schemas);
  }
  const definitions = Object.entries(named).map(([key, each]) => [
    key,
    withoutDefaults(schemas.definition(each)),
  ]);
  const document = {
    openapi: '3.1.0',
    info: { title, version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    // The server is a unix socket, so the host in the URL is any.
    servers: [{ url: 'http://localhost' }],
    paths,
    components: {
      schemas: Object.fromEntries(definitions),
      responses: Object.fromEntries(
        [...REFUSALS, ...OF_CHANGES, ...OF_VERSIONS].map((status) => [
          `Refused${status}`,
          {
            description: STATUS_CODES[status],
            content: { [PROBLEM_TYPE]: { schema: { $ref: referTo('Problem') } } },
          },
        ])
      ),
    },
  };
  return { document, losses: schemas.losses };
}

/**
 * Generators of clients take a key with a default for one that is always there, also in what a client sends. The texts of
 * the reference have the defaults.
 */
function withoutDefaults<T>(schema: T): T {
  if (Array.isArray(schema)) return schema.map(withoutDefaults) as T;
  if (typeof schema !== 'object' || schema === null) return schema;
  const kept = Object.entries(schema).filter(([key]) => key !== 'default');
  return Object.fromEntries(kept.map(([key, value]) => [key, withoutDefaults(value)])) as T;
}

function referTo(name: string): string {
  return `#/components/schemas/${name}`;
}

function refusalAt(status: number): string {
  return `#/components/responses/Refused${status}`;
}

function operationOf(name: string, operation: AnyOperation, schemas: JsonSchemas): JsonSchema {
  const { method, summary, role, params, query, body, versioned = false } = operation;
  const isChange = method !== 'GET';
  const refusals = [
    ...REFUSALS,
    ...(isChange ? OF_CHANGES : []),
    ...(isChange && versioned ? OF_VERSIONS : []),
  ].sort();
  return {
    operationId: name,
    summary: `${summary}.`,
    'x-role': role,
    parameters: [
      ...parametersOf('path', params, schemas),
      ...parametersOf('query', query, schemas),
      ...(isChange && versioned ? CONDITIONS : []),
    ],
    ...(body && { requestBody: { required: true, content: json(schemas.convert(body)) } }),
    responses: {
      ...answerOf(operation, schemas),
      ...Object.fromEntries(refusals.map((status) => [status, { $ref: refusalAt(status) }])),
    },
  };
}

function answerOf(operation: AnyOperation, schemas: JsonSchemas): JsonSchema {
  const { result, textType, streamType, versioned = false, creates = false } = operation;
  const { accepts = false } = operation;
  if (streamType !== undefined) {
    const schema = { type: 'string', contentMediaType: streamType };
    return { 200: { description: 'Bytes, as they come.', content: { [streamType]: { schema } } } };
  }
  if (result === undefined) return { 204: { description: 'Done.' } };
  const converted = schemas.convert(result);
  const headers = {
    ETag: { description: 'The version of the record.', schema: { type: 'string' } },
  };
  const content = textType === undefined ? json(converted) : { [textType]: { schema: converted } };
  return {
    [creates ? 201 : 200]: {
      description: 'Done.',
      ...(versioned && { headers }),
      content,
    },
    ...(accepts && {
      202: { description: 'Stored; the answer says what is not done yet.', content },
    }),
  };
}

function json(schema: JsonSchema): JsonSchema {
  return { 'application/json': { schema } };
}

function parametersOf(
  place: 'path' | 'query',
  schema: Schema<unknown> | undefined,
  schemas: JsonSchemas
): JsonSchema[] {
  if (schema === undefined) return [];
  const { properties = {}, required = [] } = schemas.definition(schema) as {
    readonly properties?: Record<string, JsonSchema>;
    readonly required?: readonly string[];
  };
  return Object.entries(properties).map(([name, { description, ...form }]) => ({
    name,
    in: place,
    required: required.includes(name),
    ...(description !== undefined && { description }),
    schema: numberOf(form),
  }));
}

/** The schema of a number that is written as text says so by its metadata; its pattern and default are of the text. */
function numberOf({ pattern, ...form }: JsonSchema): JsonSchema {
  if (form.type !== 'integer') return pattern === undefined ? form : { ...form, pattern };
  return form.default === undefined ? form : { ...form, default: Number(form.default) };
}

const CONDITIONS: readonly JsonSchema[] = [
  {
    name: 'If-Match',
    in: 'header',
    description: 'The `ETag` that the record must have; `*` if it must be there.',
    schema: { type: 'string' },
  },
  {
    name: 'If-None-Match',
    in: 'header',
    description: '`*` if the record must not be there.',
    schema: { const: '*' },
  },
];
