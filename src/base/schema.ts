/**
 * Schemas of what users, files and peers give, and one clear sentence for what is wrong with it, which names the place.
 * @module
 */
import * as v from 'valibot';
import { ConfigError } from '../errors.ts';
import { IpAddress } from './address.ts';
import {
  IPV4_LENGTH_PATTERN,
  IPV4_PATTERN,
  IPV6_LENGTH_PATTERN,
  IPV6_PATTERN,
  PORT_PATTERN,
} from './patterns.ts';
import { PortRange } from './port-range.ts';
import { IpPrefix } from './prefix.ts';

/** A schema that takes any input and whose output is `T`. */
export type Schema<T> = v.GenericSchema<unknown, T>;

/**
 * Checks `value`, and returns the output of the schema.
 *
 * @param path the place of `value` in what the user wrote, '' for the whole
 * @throws {ConfigError} naming the first place that is wrong, what was expected and what was there.
 */
export function parseSchema<T>(schema: Schema<T>, value: unknown, path = ''): T {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new ConfigError((issue.path ?? []).reduce(placeOf, path), sentence(issue));
}

/** Appends a key to a place. A key that is not plain is quoted and shortened, since a user may have chosen it. */
function placeOf(parent: string, { key }: { readonly key: unknown }): string {
  if (typeof key === 'number') return `${parent}[${key}]`;
  if (!PLAIN_KEY.test(String(key))) return `${parent}[${show(String(key))}]`;
  return parent === '' ? `${key}` : `${parent}.${key}`;
}

function sentence(issue: v.BaseIssue<unknown>): string {
  const { type, expected, received, message, input } = issue;
  if (type === 'strict_object' && expected === 'never') return 'is not a known key';
  if (received === 'undefined') {
    const isMissingKey = type.endsWith('object') && expected !== 'Object';
    return isMissingKey ? 'is missing' : `is missing, expected ${expectation(issue)}`;
  }
  // What this library gives as a message is a whole sentence, except for a `regex`, which has a noun.
  const isOwnSentence = type !== 'regex' && !message.startsWith(INVALID);
  return isOwnSentence ? message : `expected ${expectation(issue)}, got ${show(input)}`;
}

function expectation({ type, expected, message, input }: v.BaseIssue<unknown>): string {
  if (type === 'regex') return message;
  if (expected === null) return message.replace(/^Invalid ([^:]+).*$/s, 'a valid $1');
  if (type.endsWith('_length')) {
    return `${bound(expected)} ${typeof input === 'string' ? 'characters' : 'entries'}`;
  }
  return bound(expected)
    .replace(/^\((.*)\)$/, '$1')
    .replaceAll(' | ', ' or ')
    .replace(/(?<!")\b(?:string|number|boolean|Object|Array)\b(?!")/g, (name) => TYPE_NAMES[name]!);
}

function bound(expected: string): string {
  return expected.replace(/^>=/, 'at least ').replace(/^<=/, 'at most ');
}

function show(value: unknown): string {
  const text = typeof value === 'object' || typeof value === 'string' ? quote(value) : `${value}`;
  return shortened(text);
}

function quote(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    return 'a value that refers to itself';
  }
}

function shortened(text: string): string {
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN - 3)}...` : text;
}

/**
 * A schema of text that is parsed to a value; the value itself passes too. `from` throws a sentence that quotes the
 * text.
 *
 * @param form what a JSON Schema says of the text
 */
function textOf<I, T>(
  isValue: (input: unknown) => input is I,
  from: (input: I | string) => T,
  form: TextForm
): Schema<T> {
  const text = v.pipe(
    v.string(),
    v.metadata({ ...form }),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const { value } = dataset;
      try {
        return from(value);
      } catch (error) {
        addIssue({ message: (error as Error).message.replace(value, () => shortened(value)) });
        return NEVER;
      }
    })
  );
  const value = v.pipe(
    v.unknown(),
    v.transform((input) => from(input as I))
  );
  return v.lazy((input) => (isValue(input) ? value : text)) as Schema<T>;
}

interface TextForm {
  /** The name of the type in a JSON Schema and in the reference of the configuration. */
  readonly title: string;
  /** An ECMAScript pattern without flags; every text that `from` accepts matches it. */
  readonly pattern: string;
  readonly examples: readonly string[];
}

/** An IP address. */
export const AddressText: Schema<IpAddress> = /* @__PURE__ */ textOf(
  (input) => IpAddress.isAddress(input),
  (input) => IpAddress.from(input),
  {
    title: 'IP address',
    pattern: `^(${IPV4_PATTERN}|${IPV6_PATTERN})$`,
    examples: ['10.0.0.5', '2001:db8::5'],
  }
);
/** A prefix of IP addresses; a bare address is one too. */
export const PrefixText: Schema<IpPrefix> = /* @__PURE__ */ textOf(
  (input) => IpPrefix.isPrefix(input),
  (input) => IpPrefix.from(input),
  {
    title: 'IP prefix',
    pattern: `^(${IPV4_PATTERN}${IPV4_LENGTH_PATTERN}|${IPV6_PATTERN}${IPV6_LENGTH_PATTERN})$`,
    examples: ['10.0.0.0/24', '2001:db8::/64', '10.0.0.5'],
  }
);
/** A range of ports such as `tcp/5672`. */
export const PortText: Schema<PortRange> = /* @__PURE__ */ textOf(
  (input) => PortRange.isPortRange(input),
  (input) => PortRange.from(input),
  {
    title: 'ports',
    pattern: `^(icmp|ip/[0-9]{1,3}|(tcp|udp|udplite|sctp)/${PORT_PATTERN}(-${PORT_PATTERN})?)$`,
    examples: ['tcp/5672', 'udp/8000-8100', 'icmp', 'ip/47'],
  }
);

/** The name of a site or a service, which is one DNS label. */
export const NameText: Schema<string> = /* @__PURE__ */ v.pipe(
  v.string(),
  v.regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    'a name of lower-case letters, digits and hyphens'
  ),
  v.metadata({ title: 'name', examples: ['site-a', 'rabbitmq'] })
) as Schema<string>;

/** A domain name of one or more labels. */
export const DomainText: Schema<string> = /* @__PURE__ */ v.pipe(
  v.string(),
  v.maxLength(253),
  v.regex(
    /^[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?)*$/,
    'a domain name such as rabbitmq.example.org'
  ),
  v.metadata({ title: 'domain name', examples: ['rabbitmq.example.org'] })
) as Schema<string>;

/** A whole number from `first` to `last`. */
export function wholeNumber(first: number, last: number): Schema<number> {
  const message = ({ input }: { readonly input: number }) =>
    `expected a whole number from ${first} to ${last}, got ${input}`;
  return v.pipe(
    v.number(),
    v.integer(message),
    v.minValue(first, message),
    v.maxValue(last, message)
  ) as Schema<number>;
}

/**
 * One of several schemas. `choose` says which of them an input has to match, so that a message is about that one. A JSON
 * Schema has all of them.
 */
export type ChosenSchema<T> = Schema<T> & { readonly members: readonly Schema<unknown>[] };

/** Makes a schema whose input `choose` assigns to one of `members`. */
export function chosen<T>(
  members: readonly Schema<unknown>[],
  choose: (input: unknown) => Schema<unknown>
): ChosenSchema<T> {
  return { ...v.lazy(choose), members } as unknown as ChosenSchema<T>;
}

/** An object of the host program with certain methods, for example a logger. */
export function hostObject<T>(what: string, methods: readonly string[]): Schema<T> {
  const isOne = (value: unknown) =>
    typeof value === 'object' &&
    value !== null &&
    methods.every((name) => typeof (value as Record<string, unknown>)[name] === 'function');
  return v.pipe(
    v.unknown(),
    v.check(isOne, ({ input }) => {
      const names = `${methods.slice(0, -1).join(', ')} and ${methods.at(-1)}`;
      return `expected ${what} with the methods ${names}, got ${show(input)}`;
    })
  ) as unknown as Schema<T>;
}

/** A function of the host program. */
export function hostFunction<T>(): Schema<T> {
  return v.pipe(
    v.unknown(),
    v.check(
      (value) => typeof value === 'function',
      ({ input }) => `expected a function, got ${show(input)}`
    )
  ) as unknown as Schema<T>;
}

const PLAIN_KEY = /^[\w-]{1,64}$/;
/** The beginning of valibot's own messages. */
const INVALID = 'Invalid ';
const TYPE_NAMES: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  boolean: 'true or false',
  Object: 'a mapping',
  Array: 'a list',
};
/** How many characters of a wrong value a message shows. */
const MAX_SHOWN = 60;
