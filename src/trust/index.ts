/**
 * Who may take part, put into force: revocation with a receipt.
 * @module
 */
export {
  type CutReport,
  type RevocationReceipt,
  Revoker,
  type RevokerEvents,
  type RevokerOptions,
} from './revoker.ts';
