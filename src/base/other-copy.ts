/**
 * Values of another copy of this package in the same process, for example of the CommonJS build beside the ES modules.
 * Such a value is not an instance of the class of this copy. It is recognised by a mark, and parsed again from its text.
 * @module
 */

/** A value that was made by any copy of this package. */
interface Marked {
  readonly [KIND]?: string;
  /** Returns the text that parses to the value. */
  toJSON(): string;
}

/** Is the same symbol in all copies. JSON and structured clones cannot carry it. */
const KIND: unique symbol = Symbol.for('virtual-presence.kind') as never;

/** Marks the values of a class, so that other copies of this package recognise them. */
export function markKind(type: { readonly prototype: object }, kind: string): void {
  Object.defineProperty(type.prototype, KIND, { value: kind });
}

/** Returns whether some copy of this package has marked this value. */
export function isOfKind(input: unknown, kind: string): input is Marked {
  return typeof input === 'object' && input !== null && (input as Marked)[KIND] === kind;
}
