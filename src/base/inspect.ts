/**
 * Lets `console.log` and `util.inspect` print a value as its text instead of its fields.
 * @module
 */
import { inspect } from 'node:util';

/** Makes the objects of a class be printed as what `toString` returns. */
export function inspectAsText(type: { readonly prototype: object }): void {
  Object.defineProperty(type.prototype, inspect.custom, {
    value(this: object): string {
      return String(this);
    },
  });
}
