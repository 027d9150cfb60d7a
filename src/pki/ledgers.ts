/**
 * The certificates and tokens of a store, opened once for all in this process that ask.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { Store } from '../store/store.ts';
import { CertificateLedger } from './certificate-ledger.ts';
import { RunningTime } from './running-time.ts';
import { TokenLedger } from './token-ledger.ts';

export interface Ledgers {
  readonly certificates: CertificateLedger;
  readonly tokens: TokenLedger;
  readonly running: RunningTime;
}

/** @throws {StoreError} if the store cannot be read. */
export async function openLedgers(store: Store, clock: Clock): Promise<Ledgers> {
  const running = await RunningTime.open(store, clock);
  const certificates = await CertificateLedger.open(store, clock, running);
  try {
    return { certificates, tokens: await TokenLedger.open(store, clock, running), running };
  } catch (error) {
    certificates.close();
    throw error;
  }
}
