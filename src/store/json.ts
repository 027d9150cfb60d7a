/**
 * Takes values into a store: a deep, frozen copy, so that neither the writer nor a reader can change
 * what is stored behind the store's back.
 * @module
 */
import { ApiMisuseError } from '../errors.ts';
import type { Json } from './store.ts';

/**
 * Copies and freezes. Properties that are `undefined` are left out, as `JSON.stringify` does.
 *
 * @throws {ApiMisuseError} if `value` holds something that JSON cannot keep.
 */
export function frozenJson(value: unknown): Json {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      if (!Number.isFinite(value)) break;
      return value + 0; // JSON has no -0
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

function describe(value: unknown): string {
  if (typeof value === 'object') return `an instance of ${value?.constructor?.name}`;
  return typeof value === 'number' ? String(value) : `a value of type ${typeof value}`;
}
