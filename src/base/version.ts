/**
 * The version of this package; `test/package/exports.test.ts` compares it with `package.json`.
 * @module
 */
export const VERSION = '0.1.0';
