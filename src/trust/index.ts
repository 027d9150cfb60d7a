/**
 * Puts revocations into effect and returns receipts.
 * @module
 */
export {
  type RevocationReceipt,
  Revoker,
  type RevokerEvents,
  type RevokerOptions,
  type TerminationReport,
} from './revoker.ts';
