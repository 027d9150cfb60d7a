/**
 * Who may take part, put into force: revocation with a receipt.
 * @module
 */
export {
  type RevocationReceipt,
  Revoker,
  type RevokerEvents,
  type RevokerOptions,
  type TerminationReport,
} from './revoker.ts';
