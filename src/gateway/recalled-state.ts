/**
 * What machines bring back into a store that was restored from a backup: all that stays when a machine ends, but the
 * tokens. A token that the backup has as unused may have been used since, so it is void.
 * @module
 */
import type { RecallRules } from '../cluster/index.ts';
import { LEASE_PREFIX } from '../control/stored-lease.ts';
import { REVOCATIONS } from '../pki/revocation-index.ts';
import { isUnusedToken, TOKENS } from '../pki/token-ledger.ts';

export const RECALLED_STATE: RecallRules = Object.freeze({
  prefixes: [
    LEASE_PREFIX,
    'overlap/',
    REVOCATIONS,
    'certificate/',
    'ca/',
    // The records and their generation.
    'desired',
    'clock/',
  ],
  voidPrefix: TOKENS,
  isVoid: isUnusedToken,
});
