import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import {
  AddressText,
  DomainText,
  NameText,
  PortText,
  PrefixText,
  parseSchema,
  type Schema,
  wholeNumber,
} from '../../src/base/schema.ts';
import { ConfigError } from '../../src/errors.ts';

const Everything = v.strictObject({
  name: v.optional(NameText),
  domain: v.optional(DomainText),
  address: v.optional(AddressText),
  prefixes: v.optional(v.array(PrefixText)),
  port: v.optional(PortText),
  count: v.optional(wholeNumber(1, 10)),
  integer: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0))),
  flag: v.optional(v.boolean()),
  either: v.optional(v.union([v.string(), v.number()])),
  color: v.optional(v.picklist(['red', 'string'])),
  some: v.optional(v.pipe(v.array(v.string()), v.minLength(1, 'expected at least one endpoint'))),
  few: v.optional(v.pipe(v.array(v.string()), v.maxLength(2))),
  counters: v.optional(v.record(v.pipe(v.string(), v.maxLength(5)), v.number())),
  device: v.optional(
    v.variant('type', [
      v.strictObject({ type: v.literal('tun'), mtu: v.number() }),
      v.strictObject({ type: v.literal('udp') }),
    ])
  ),
  items: v.optional(v.array(v.strictObject({ inner: v.string() }))),
}) as unknown as Schema<unknown>;

function faultOf(value: unknown, path?: string): ConfigError {
  try {
    parseSchema(Everything, value, path);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error('was accepted');
}

const long = 'x'.repeat(10_000);
const circular: Record<string, unknown> = {};
circular.self = circular;

const FAULTS: readonly (readonly [value: unknown, path: string, message: string])[] = [
  [undefined, '', 'is missing, expected a mapping'],
  [null, '', 'expected a mapping, got null'],
  ['text', '', 'expected a mapping, got "text"'],
  [{ surprise: 1 }, 'surprise', 'surprise: is not a known key'],
  [{ name: 5 }, 'name', 'name: expected a string, got 5'],
  [{ name: null }, 'name', 'name: expected a string, got null'],
  [{ name: ['a'] }, 'name', 'name: expected a string, got ["a"]'],
  [{ name: 10n }, 'name', 'name: expected a string, got 10'],
  [{ name: circular }, 'name', 'name: expected a string, got a value that refers to itself'],
  [
    { name: 'Site A' },
    'name',
    'name: expected a name of lower-case letters, digits and hyphens, got "Site A"',
  ],
  [
    { name: `a${'b'.repeat(63)}` },
    'name',
    `name: expected a name of lower-case letters, digits and hyphens, got "a${'b'.repeat(55)}...`,
  ],
  [
    { domain: 'example..org' },
    'domain',
    'domain: expected a domain name such as rabbitmq.example.org, got "example..org"',
  ],
  [
    { domain: long },
    'domain',
    `domain: expected at most 253 characters, got "${'x'.repeat(56)}...`,
  ],
  [{ address: '10.0.0' }, 'address', 'address: "10.0.0" is not an IP address'],
  [{ address: long }, 'address', `address: "${'x'.repeat(57)}..." is not an IP address`],
  [{ prefixes: '10.0.0.0/8' }, 'prefixes', 'prefixes: expected a list, got "10.0.0.0/8"'],
  [{ prefixes: { a: 1 } }, 'prefixes', 'prefixes: expected a list, got {"a":1}'],
  [
    { prefixes: ['10.0.0.0/8', '10.0.0.0/33'] },
    'prefixes[1]',
    'prefixes[1]: "10.0.0.0/33" is not an IP prefix',
  ],
  [
    { prefixes: ['10.0.0.1/8'] },
    'prefixes[0]',
    'prefixes[0]: "10.0.0.1/8" has bits set behind its length; did you mean 10.0.0.0/8?',
  ],
  [{ prefixes: [7] }, 'prefixes[0]', 'prefixes[0]: expected a string, got 7'],
  [
    { port: 'tcp/0' },
    'port',
    'port: "tcp/0" is not a port such as tcp/5672, udp/8000-8100, icmp or ip/47',
  ],
  [{ count: 0 }, 'count', 'count: expected a whole number from 1 to 10, got 0'],
  [{ count: 1.5 }, 'count', 'count: expected a whole number from 1 to 10, got 1.5'],
  [{ count: '5' }, 'count', 'count: expected a number, got "5"'],
  [{ count: Number.NaN }, 'count', 'count: expected a number, got NaN'],
  [{ integer: 1.5 }, 'integer', 'integer: expected a valid integer, got 1.5'],
  [{ integer: -1 }, 'integer', 'integer: expected at least 0, got -1'],
  [{ flag: 'yes' }, 'flag', 'flag: expected true or false, got "yes"'],
  [{ either: true }, 'either', 'either: expected a string or a number, got true'],
  [{ color: 'blue' }, 'color', 'color: expected "red" or "string", got "blue"'],
  [{ some: [] }, 'some', 'some: expected at least one endpoint'],
  [{ few: ['a', 'b', 'c'] }, 'few', 'few: expected at most 2 entries, got ["a","b","c"]'],
  [
    { counters: { sixsix: 1 } },
    'counters.sixsix',
    'counters.sixsix: expected at most 5 characters, got "sixsix"',
  ],
  [{ counters: { a: '1' } }, 'counters.a', 'counters.a: expected a number, got "1"'],
  [{ device: {} }, 'device.type', 'device.type: is missing, expected "tun" or "udp"'],
  [{ device: { type: 'tap' } }, 'device.type', 'device.type: expected "tun" or "udp", got "tap"'],
  [{ device: { type: 'tun' } }, 'device.mtu', 'device.mtu: is missing'],
  [{ items: [{ inner: 'a' }, {}] }, 'items[1].inner', 'items[1].inner: is missing'],
  [{ items: [null] }, 'items[0]', 'items[0]: expected a mapping, got null'],
];

describe('parseSchema', () => {
  test.each(FAULTS)('reports %o at "%s"', (value, path, message) => {
    const fault = faultOf(value);
    expect(fault.message).toBe(message);
    expect(fault.path).toBe(path);
    expect(fault.code).toBe('ERR_PRESENCE_CONFIG');
  });

  test('puts the place of the value in front', () => {
    expect(faultOf({ prefixes: [7] }, 'sites[2]').path).toBe('sites[2].prefixes[0]');
    expect(faultOf(5, 'sites[2]').message).toBe('sites[2]: expected a mapping, got 5');
  });

  test('quotes and shortens a key that is not plain, so that no foreign text forges a line', () => {
    expect(faultOf({ 'a\nerror: b': 1 }).message).toBe('["a\\nerror: b"]: is not a known key');
    expect(faultOf({ counters: { [long]: 1 } }).path).toBe(`counters["${'x'.repeat(56)}...]`);
  });

  test('returns what fits, with defaults filled in', () => {
    const schema = v.strictObject({ list: v.optional(v.array(v.string()), ['a']) });
    expect(parseSchema(schema as Schema<unknown>, {})).toEqual({ list: ['a'] });
  });

  test.each(['__proto__', 'constructor', 'toString'])('takes no own key %s', (key) => {
    const fault = faultOf(JSON.parse(`{"${key}": {"name": "polluted"}}`));
    expect(fault.message).toBe(`${key}: is not a known key`);
    expect(({} as { name?: unknown }).name).toBeUndefined();
  });
});

describe('names', () => {
  const fits = (schema: Schema<string>, text: string): boolean => {
    try {
      return parseSchema(schema, text) === text;
    } catch {
      return false;
    }
  };

  test.each([
    ['a', true],
    ['site-a', true],
    ['0', true],
    ['a'.repeat(63), true],
    ['a'.repeat(64), false],
    ['', false],
    ['-a', false],
    ['a-', false],
    ['A', false],
    ['a.b', false],
    ['a/b', false],
    ['a b', false],
    ['a\n', false],
    ['__proto__', false],
    ['ä', false],
  ])('NameText takes %j: %s', (text, is) => {
    expect(fits(NameText, text)).toBe(is);
  });

  test.each([
    ['a', true],
    ['Rabbit.Example.org', true],
    ['_srv._tcp.example.org', true],
    [`${'a'.repeat(63)}.org`, true],
    [`${'a'.repeat(64)}.org`, false],
    [`${'a'.repeat(63)}.${'b'.repeat(63)}.${'c'.repeat(63)}.${'d'.repeat(61)}`, true],
    [`${'a'.repeat(63)}.${'b'.repeat(63)}.${'c'.repeat(63)}.${'d'.repeat(62)}`, false],
    ['', false],
    ['.', false],
    ['example.org.', false],
    ['a..b', false],
    ['-a.org', false],
    ['a-.org', false],
    ['a b.org', false],
    ['a.org\n', false],
  ])('DomainText takes %j: %s', (text, is) => {
    expect(fits(DomainText, text)).toBe(is);
  });
});
