import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import { JsonSchemas, jsonSchemaOf } from '../../schemas/json-schema.ts';
import { chosen, NameText, PrefixText, type Schema, wholeNumber } from '../../src/base/schema.ts';

const schemaOf = (schema: unknown) => jsonSchemaOf(schema as Schema<unknown>);

describe('jsonSchemaOf', () => {
  test('says the bounds of whole numbers, and what is required', () => {
    const { schema, losses } = schemaOf(
      v.strictObject({ port: wholeNumber(1, 65_535), size: v.optional(wholeNumber(0, 9), 3) })
    );
    expect(schema).toEqual({
      type: 'object',
      properties: {
        port: { type: 'integer', minimum: 1, maximum: 65_535 },
        size: { type: 'integer', minimum: 0, maximum: 9, default: 3 },
      },
      required: ['port'],
      additionalProperties: false,
    });
    expect(losses).toEqual([]);
  });

  test('shows the form of a text that is parsed, and says that parsing it may fail', () => {
    const { schema, losses } = schemaOf(v.object({ pools: v.array(PrefixText) }));
    expect(schema).toMatchObject({
      properties: { pools: { items: { type: 'string', title: 'IP prefix' } } },
    });
    expect(losses).toEqual([{ path: 'pools[]', action: 'raw_transform', message: 'IP prefix' }]);
  });

  test('turns a choice into the list of its members, and a choice of one into that one', () => {
    const number = wholeNumber(0, 1);
    const inner = chosen([number, v.literal('auto')], () => number);
    expect(schemaOf(chosen([inner, v.boolean()], () => inner)).schema).toEqual({
      anyOf: [{ type: 'integer', minimum: 0, maximum: 1 }, { const: 'auto' }, { type: 'boolean' }],
    });
    expect(schemaOf(chosen([v.boolean()], () => v.boolean())).schema).toEqual({ type: 'boolean' });
  });

  test('joins patterns, of which a JSON Schema has one', () => {
    const { schema, losses } = schemaOf(v.pipe(v.string(), v.regex(/^a/), v.regex(/z$/)));
    expect(schema).toEqual({ type: 'string', pattern: '^a', allOf: [{ pattern: 'z$' }] });
    expect(losses).toEqual([]);
  });

  test('names each place of a check that it cannot say, also behind a transformation', () => {
    const even = v.check<number, string>((n) => n % 2 === 0, 'expected an even number');
    const { losses } = schemaOf(
      v.object({
        list: v.array(v.pipe(v.number(), even)),
        map: v.record(v.string(), v.pipe(v.string(), v.transform(Number), even)),
        flags: v.pipe(v.string(), v.regex(/^a/i)),
        other: v.optional(v.date()),
      })
    );
    const message = 'expected an even number';
    expect(losses).toHaveLength(4);
    expect(losses).toEqual(
      expect.arrayContaining([
        { path: 'list[]', action: 'check', message },
        { path: 'map.*', action: 'check', message },
        expect.objectContaining({ path: 'flags', action: 'regex' }),
        expect.objectContaining({ path: 'other', action: 'date' }),
      ])
    );
  });

  test('leaves out the default of a mapping that is there for the defaults of its keys', () => {
    const inner = v.optional(v.object({ a: v.optional(v.boolean(), true) }), {});
    expect(schemaOf(v.object({ inner })).schema).toEqual({
      type: 'object',
      properties: {
        inner: { type: 'object', properties: { a: { type: 'boolean', default: true } } },
      },
    });
  });
});

describe('JsonSchemas', () => {
  const Pair = v.strictObject({ name: NameText, others: v.array(NameText) }) as Schema<unknown>;

  test('refers to named schemas wherever they are, and defines them once', () => {
    const schemas = new JsonSchemas({ Name: NameText, Pair }, (name) => `#/components/${name}`);
    expect(schemas.convert(v.array(Pair) as Schema<unknown>)).toEqual({
      type: 'array',
      items: { $ref: '#/components/Pair' },
    });
    expect(schemas.convert(Pair)).toEqual({ $ref: '#/components/Pair' });
    expect(schemas.definition(Pair)).toMatchObject({
      properties: {
        name: { $ref: '#/components/Name' },
        others: { items: { $ref: '#/components/Name' } },
      },
    });
    expect(schemas.definition(NameText)).toMatchObject({ type: 'string' });
  });
});
