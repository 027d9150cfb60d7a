/**
 * Frozen values for a store, so that neither writers nor readers can change stored values, and how long they are.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';
import type { Json } from './store.ts';

/**
 * Copies and freezes a value. Like `JSON.stringify`, it leaves out properties that are `undefined`.
 *
 * @throws {ApiMisuseError} if `value` contains something that JSON cannot represent.
 */
export function frozenJson(value: unknown): Json {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      if (!Number.isFinite(value)) break;
      return value + 0; // JSON cannot represent -0.
    case 'object': {
      if (value === null) return null;
      if (Array.isArray(value)) return Object.freeze(value.map(frozenJson));
      const prototype = Object.getPrototypeOf(value);
      if (prototype !== null && prototype !== Object.prototype) break;
      const properties = Object.entries(value).filter(([, property]) => property !== undefined);
      return Object.freeze(
        Object.fromEntries(properties.map(([name, property]) => [name, frozenJson(property)]))
      );
    }
  }
  throw new ApiMisuseError(`a store keeps JSON only, not ${describe(value)}`);
}

/** Freezes a value that `JSON.parse` has returned, and that nobody else has. */
export function freezeParsed(value: Json): Json {
  if (typeof value !== 'object' || value === null) return value;
  for (const each of Object.values(value)) freezeParsed(each);
  return Object.freeze(value);
}

/** Returns about how many characters a value has as JSON. It takes less time than to write the text. */
export function textLengthOf(value: Json): number {
  if (typeof value === 'string') return value.length + 2;
  if (typeof value !== 'object' || value === null) return 5;
  let length = 2;
  if (Array.isArray(value)) {
    for (const each of value) length += textLengthOf(each) + 1;
    return length;
  }
  for (const [name, each] of Object.entries(value)) length += name.length + textLengthOf(each) + 4;
  return length;
}

function describe(value: unknown): string {
  if (typeof value === 'object') return `an instance of ${value?.constructor?.name}`;
  return typeof value === 'number' ? String(value) : `a value of type ${typeof value}`;
}
