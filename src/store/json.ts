/**
 * Makes deep, frozen copies of values for a store, so that neither writers nor readers can change stored values.
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

function describe(value: unknown): string {
  if (typeof value === 'object') return `an instance of ${value?.constructor?.name}`;
  return typeof value === 'number' ? String(value) : `a value of type ${typeof value}`;
}
