/**
 * Converts the schemas of the library to JSON Schemas, and says what a JSON Schema cannot say.
 *
 * What it makes has no keyword that differs between draft-07, which editors know, and draft 2020-12, which OpenAPI 3.1
 * has: the caller adds `$schema`.
 * @module
 */
import { toJsonSchema } from '@valibot/to-json-schema';
import * as v from 'valibot';
import type { ChosenSchema, Schema } from '../src/base/schema.ts';

/** A JSON Schema, as an object that JSON can write. */
export type JsonSchema = { [key: string]: unknown };

/** Something that a schema checks and that its JSON Schema does not say. */
export interface Loss {
  /** Where it is: `desired.sites[].pools[]`, `device.backend.hosts.*`, '' for the whole. */
  readonly path: string;
  /** The type of the valibot action or schema, such as `check`. */
  readonly action: string;
  /** The message of the check, or the title of the text that is parsed; '' if there is neither. */
  readonly message: string;
}

/** Converts one schema. Schemas that are named become references, see `JsonSchemas`. */
export function jsonSchemaOf(
  schema: Schema<unknown>,
  named: Readonly<Record<string, Schema<unknown>>> = {}
): { readonly schema: JsonSchema; readonly losses: readonly Loss[] } {
  const schemas = new JsonSchemas(named);
  const converted = schemas.convert(schema);
  const names = Object.entries(named);
  const $defs = Object.fromEntries(names.map(([name, each]) => [name, schemas.definition(each)]));
  return {
    schema: names.length === 0 ? converted : { ...converted, $defs },
    losses: schemas.losses,
  };
}

/** Converts schemas that refer to each other, and gathers what is lost. */
export class JsonSchemas {
  readonly #losses = new Map<string, Loss>();
  readonly #named: ReadonlyMap<unknown, string>;
  readonly #referTo: (name: string) => string;

  /**
   * @param named schemas that become references wherever they are used, by their names
   * @param referTo returns the reference for a name
   */
  constructor(
    named: Readonly<Record<string, Schema<unknown>>> = {},
    referTo: (name: string) => string = (name) => `#/$defs/${name}`
  ) {
    this.#named = new Map(Object.entries(named).map(([name, schema]) => [schema, name]));
    this.#referTo = referTo;
  }

  /** What was lost by all conversions up to now, each place once. */
  get losses(): readonly Loss[] {
    return [...this.#losses.values()];
  }

  /** Returns the JSON Schema of what the schema takes as JSON. A named schema is a reference. */
  convert(schema: Schema<unknown>): JsonSchema {
    const name = this.#named.get(schema);
    return name === undefined ? this.definition(schema) : { $ref: this.#referTo(name) };
  }

  /** Returns the same for a named schema, without the reference. */
  definition(schema: Schema<unknown>): JsonSchema {
    const places = new Map<unknown, readonly Place[]>();
    const { $schema: _, ...converted } = toJsonSchema(
      this.#plain(schema as Node, '', places, true) as never,
      {
        target: 'draft-2020-12',
        typeMode: 'input',
        errorMode: 'ignore',
        overrideAction: ({ valibotAction, jsonSchema, errors }) => {
          const action = valibotAction as unknown as Node;
          if (action.type === 'regex' && errors?.length === 1 && jsonSchema.pattern !== undefined) {
            const { flags, source } = action.requirement as RegExp;
            if (flags === '') {
              return { ...jsonSchema, allOf: [...(jsonSchema.allOf ?? []), { pattern: source }] };
            }
          }
          if (errors !== undefined) this.#lose(action, places);
          return jsonSchema;
        },
        overrideSchema: ({ valibotSchema, jsonSchema, errors }) => {
          if (errors !== undefined) this.#lose(valibotSchema as unknown as Node, places);
          return withoutEmpty(jsonSchema) as never;
        },
      }
    ) as JsonSchema;
    return withoutEmpty(converted);
  }

  /**
   * Returns the schema without what the converter does not know: a choice becomes a union, and a named schema a
   * reference. Notes where each action is, and what is lost because it comes after a transformation.
   */
  #plain(node: Node, path: string, places: Map<unknown, readonly Place[]>, isRoot = false): Node {
    const name = this.#named.get(node);
    if (name !== undefined && !isRoot) return referenceTo(this.#referTo(name));
    const below = (each: Node, suffix: string) => this.#plain(each, path + suffix, places);
    if (node.pipe !== undefined) {
      const [first, ...actions] = flat(node.pipe);
      const title = actions.find(({ type }) => type === 'metadata')?.metadata?.title ?? '';
      const base = this.#plain({ ...first! }, path, places, true);
      // A choice of one text has become that text, with its pipe.
      let isBehind = flat(base.pipe ?? [])
        .slice(1)
        .some(isTransforming);
      for (const action of actions) {
        places.set(action, [...(places.get(action) ?? []), { path, title }]);
        isBehind ||= isTransforming(action);
        if (isBehind && isCheck(action)) this.#lose(action, places);
      }
      return { ...base, pipe: [base, ...actions] };
    }
    places.set(node, [...(places.get(node) ?? []), { path, title: '' }]);
    if (node.type === 'lazy') {
      // A text that is parsed shows its form to an input that is not the parsed value.
      const { members = [node.getter!(undefined)] } = node;
      return unionOf(members.map((member) => below(member as Node, '')));
    }
    const { entries, item, wrapped, options, key, value, rest } = node;
    const result = {
      ...node,
      ...(entries && {
        entries: Object.fromEntries(
          Object.entries(entries).map(([k, each]) => [k, below(each, path === '' ? k : `.${k}`)])
        ),
      }),
      ...(item && { item: below(item, '[]') }),
      ...(wrapped && { wrapped: below(wrapped, '') }),
      ...(key && { key: keyText(below(key, '.*')) }),
      ...(value && { value: below(value, '.*') }),
      ...(rest && { rest: below(rest, '.*') }),
      ...(isSchemas(options) && {
        options: options.map((each) => below(each, '')).flatMap((each) => optionsOf(each, node)),
      }),
    };
    places.set(result, places.get(node)!);
    return result;
  }

  #lose(node: Node, places: ReadonlyMap<unknown, readonly Place[]>): void {
    for (const { path, title } of places.get(node) ?? [{ path: '', title: '' }]) {
      const message = typeof node.message === 'string' ? node.message : title;
      const loss: Loss = { path, action: node.type, message };
      this.#losses.set(JSON.stringify(loss), loss);
    }
  }
}

/** Where an action is, and the title of the text that it reads. */
interface Place {
  readonly path: string;
  readonly title: string;
}

/** What this file reads of a valibot schema or action. */
interface Node {
  readonly kind: string;
  readonly type: string;
  readonly message?: unknown;
  readonly requirement?: unknown;
  readonly metadata?: { readonly title?: string };
  readonly pipe?: readonly Node[];
  /** The members of a choice. */
  readonly members?: ChosenSchema<unknown>['members'];
  readonly getter?: (input: unknown) => Node;
  readonly entries?: Readonly<Record<string, Node>>;
  readonly item?: Node;
  readonly wrapped?: Node;
  readonly options?: readonly unknown[];
  readonly key?: Node;
  readonly value?: Node;
  readonly rest?: Node;
}

/** The items of a pipe, with those of the pipes that it begins with. */
function flat(pipe: readonly Node[]): readonly Node[] {
  return pipe.flatMap((item) => (item.pipe === undefined ? [item] : flat(item.pipe)));
}

/** Whether what comes after it is about its output, which is not in the JSON. */
function isTransforming({ kind, type }: Node): boolean {
  return kind === 'schema' || (kind === 'transformation' && TRANSFORMING.has(type));
}

function isCheck({ kind, type }: Node): boolean {
  return kind !== 'metadata' && type !== 'transform';
}

/** A union or a variant within one of the same kind is the same as its options. */
function optionsOf(option: Node, { type }: { readonly type: string }): readonly Node[] {
  const { pipe, options } = option;
  return option.type === type && pipe === undefined && isSchemas(options) ? options : [option];
}

function unionOf(members: readonly Node[]): Node {
  const options = members.flatMap((each) => optionsOf(each, { type: 'union' }));
  return options.length === 1 ? options[0]! : (v.union(options as never) as unknown as Node);
}

function isSchemas(options: unknown): options is readonly Node[] {
  return Array.isArray(options) && options.every((each) => each?.kind === 'schema');
}

/** The converter takes only texts for the keys of a record, also if a check of the keys is lost. */
function keyText(key: Node): Node {
  return { ...key, type: 'string' };
}

function referenceTo($ref: string): Node {
  return v.pipe(v.unknown(), v.metadata({ $ref })) as unknown as Node;
}

/**
 * Leaves out what says nothing: an empty list of required keys, and the default of a mapping, which is `{}` only so that
 * its keys have their defaults.
 */
function withoutEmpty<T extends object>(schema: T): T {
  const { default: value, required, ...rest } = schema as JsonSchema;
  return {
    ...rest,
    ...(Array.isArray(required) && required.length > 0 && { required }),
    ...(value !== undefined && JSON.stringify(value) !== '{}' && { default: value }),
  } as T;
}

const TRANSFORMING: ReadonlySet<string> = new Set(['transform', 'raw_transform']);
