/**
 * The reason of a connection's error.
 * @module
 */

/** Returns the reason. An attempt at several addresses of a name fails with a code and no message. */
export function reasonOf({ message, code }: NodeJS.ErrnoException): string {
  return message || String(code);
}
