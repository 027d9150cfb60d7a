/**
 * Titles of tests that may be skipped.
 * @module
 */

/** Returns the title, with the reason why it is skipped. */
export function titled(title: string, skipReason: string | undefined): string {
  return skipReason === undefined ? title : `${title} (skipped: ${skipReason})`;
}
