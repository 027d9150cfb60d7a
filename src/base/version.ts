/**
 * The version of this package; `test/package/exports.test.ts` holds it to `package.json`.
 * @module
 */
export const VERSION = '0.1.0';
