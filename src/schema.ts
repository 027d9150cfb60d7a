/**
 * Turns what a schema finds wrong with foreign data into one clear sentence that names the place.
 * @module
 */
import * as v from 'valibot';
import { IpAddress, IpPrefix } from './address.ts';
import { ConfigError } from './errors.ts';
import { parsePortRange } from './port-range.ts';

/** A schema whose output is `T`, whatever it is fed. */
export type Schema<T> = v.GenericSchema<unknown, T>;

/**
 * Returns `value` as the schema's type.
 *
 * @param path where `value` stands in what the user wrote, '' for the whole
 * @throws {ConfigError} naming the first place that is wrong, what was expected and what was there.
 */
export function parseSchema<T>(schema: Schema<T>, value: unknown, path = ''): T {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  const place = (issue.path ?? []).reduce(
    (text, { key }) =>
      typeof key === 'number' ? `${text}[${key}]` : text === '' ? `${key}` : `${text}.${key}`,
    path
  );
  throw new ConfigError(place, sentence(issue));
}

function sentence(issue: v.BaseIssue<unknown>): string {
  if (issue.type === 'check') return issue.message;
  if (issue.type === 'strict_object' && issue.expected === 'never') return 'is not a known key';
  if (issue.received === 'undefined') return `is missing, expected ${expected(issue)}`;
  return `expected ${expected(issue)}, got ${show(issue.input)}`;
}

function expected(issue: v.BaseIssue<unknown>): string {
  return issue.expected === null || issue.type === 'regex'
    ? issue.message
    : issue.expected
        .replaceAll('|', 'or')
        .replace('Object', 'a mapping')
        .replace('Array', 'a list');
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** A check that says what is wrong by throwing. */
function textThat(parse: (text: string) => unknown): Schema<string> {
  return v.pipe(
    v.string(),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      try {
        parse(dataset.value);
      } catch (error) {
        addIssue({ message: (error as Error).message });
      }
    })
  ) as Schema<string>;
}

export const AddressText: Schema<string> = /* @__PURE__ */ textThat((text) =>
  IpAddress.parse(text)
);
export const PrefixText: Schema<string> = /* @__PURE__ */ textThat((text) => IpPrefix.parse(text));
export const PortText: Schema<string> = /* @__PURE__ */ textThat((text) => parsePortRange(text));

/** Name of a site, a service: one DNS label. */
export const NameText: Schema<string> = /* @__PURE__ */ v.pipe(
  v.string(),
  v.regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    'a name of lower-case letters, digits and hyphens'
  )
) as Schema<string>;

/** A domain name of one or more labels. */
export const DomainText: Schema<string> = /* @__PURE__ */ v.pipe(
  v.string(),
  v.maxLength(253),
  v.regex(
    /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*$/i,
    'a domain name such as rabbitmq.example.org'
  )
) as Schema<string>;

/** Whole number within bounds, both included. */
export function wholeNumber(first: number, last: number): Schema<number> {
  return v.pipe(
    v.number(),
    v.check(
      (value) => Number.isInteger(value) && value >= first && value <= last,
      `expected a whole number from ${first} to ${last}`
    )
  ) as Schema<number>;
}
