/**
 * What the error of a connection says.
 * @module
 */

/** Returns the reason. The error of an attempt at several addresses of a name has a code and no message. */
export function reasonOf({ message, code }: NodeJS.ErrnoException): string {
  return message || String(code);
}
