/**
 * Adds to a JSON Schema what the docstrings of a TypeScript interface say of its keys.
 *
 * The schema and the interface are walked together. Where the schema has alternatives, an alternative with keys takes the
 * member of the union that declares all of them.
 * @module
 */
import { resolve } from 'node:path';
import ts from 'typescript';
import type { JsonSchema } from './json-schema.ts';

/** The docstrings of the interfaces that some files export. */
export class TypeDocs {
  readonly #checker: ts.TypeChecker;
  readonly #exports: ReadonlyMap<string, ts.Symbol>;

  /** @throws if there is no such file. */
  constructor(files: readonly string[]) {
    const { options } = ts.parseJsonConfigFileContent(
      ts.readConfigFile('tsconfig.json', ts.sys.readFile).config,
      ts.sys,
      '.'
    );
    const program = ts.createProgram(
      files.map((file) => resolve(file)),
      options
    );
    this.#checker = program.getTypeChecker();
    const exported = files.flatMap((file) => {
      const source = program.getSourceFile(resolve(file));
      if (source === undefined) throw new Error(`there is no file ${file}`);
      return this.#checker.getExportsOfModule(this.#checker.getSymbolAtLocation(source)!);
    });
    this.#exports = new Map(exported.map((symbol) => [symbol.name, symbol]));
  }

  /**
   * Returns the schema with a `description` at each key.
   *
   * @param name of the interface that the schema is of
   * @throws naming each key that has no docstring, or that the interface does not have.
   */
  describe(schema: JsonSchema, name: string): JsonSchema {
    const symbol = this.#exports.get(name);
    if (symbol === undefined) throw new Error(`there is no exported type ${name}`);
    const missing: string[] = [];
    const described = this.#described(
      schema,
      this.#checker.getDeclaredTypeOfSymbol(symbol),
      '',
      missing
    );
    if (missing.length > 0) {
      throw new Error(`${name}: keys without a docstring: ${[...new Set(missing)].join(', ')}`);
    }
    return described;
  }

  #described(schema: JsonSchema, type: ts.Type, path: string, missing: string[]): JsonSchema {
    const { properties, items, additionalProperties, anyOf, oneOf } = schema as Keywords;
    const alternatives = (list: readonly JsonSchema[]) =>
      list.map((each) => this.#described(each, type, path, missing));
    return {
      ...schema,
      ...(properties && { properties: this.#keys(properties, type, path, missing) }),
      ...(items && { items: this.#described(items, this.#itemOf(type), `${path}[]`, missing) }),
      ...(typeof additionalProperties === 'object' && {
        additionalProperties: this.#described(
          additionalProperties,
          this.#valueOf(type),
          `${path}.*`,
          missing
        ),
      }),
      ...(anyOf && { anyOf: alternatives(anyOf) }),
      ...(oneOf && { oneOf: alternatives(oneOf) }),
    };
  }

  #keys(
    properties: Readonly<Record<string, JsonSchema>>,
    type: ts.Type,
    path: string,
    missing: string[]
  ): Record<string, JsonSchema> {
    const names = Object.keys(properties);
    const member = this.#membersOf(type).find((each) =>
      names.every((name) => this.#checker.getPropertyOfType(each, name) !== undefined)
    );
    return Object.fromEntries(
      Object.entries(properties).map(([name, each]) => {
        const place = path === '' ? name : `${path}.${name}`;
        const property = member && this.#checker.getPropertyOfType(member, name);
        const description = property === undefined ? '' : this.#textOf(property);
        if (description === '') missing.push(place);
        if (property === undefined) return [name, each];
        const described = this.#described(each, this.#typeOf(property), place, missing);
        return [name, { description, ...described, ...(description !== '' && { description }) }];
      })
    );
  }

  #typeOf(property: ts.Symbol): ts.Type {
    return this.#checker.getTypeOfSymbol(property);
  }

  /** The members of a union, without undefined. */
  #membersOf(type: ts.Type): readonly ts.Type[] {
    const known = this.#checker.getNonNullableType(type);
    return known.isUnion() ? known.types : [known];
  }

  #itemOf(type: ts.Type): ts.Type {
    const items = this.#membersOf(type).flatMap(
      (each) => this.#checker.getIndexTypeOfType(each, ts.IndexKind.Number) ?? []
    );
    return items[0] ?? type;
  }

  #valueOf(type: ts.Type): ts.Type {
    const values = this.#membersOf(type).flatMap(
      (each) => this.#checker.getIndexTypeOfType(each, ts.IndexKind.String) ?? []
    );
    return values[0] ?? type;
  }

  /** The docstring as one line, without what refers the reader to an interface for the keys below. */
  #textOf(property: ts.Symbol): string {
    return ts
      .displayPartsToString(property.getDocumentationComment(this.#checker))
      .replace(/\s+/g, ' ')
      .replace(/ ?Default: see `\w+`\.?$/, '')
      .trim();
  }
}

interface Keywords {
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly items?: JsonSchema;
  readonly additionalProperties?: JsonSchema | boolean;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
}
