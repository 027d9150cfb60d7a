/**
 * The persistent state of a gateway: files in a directory, or a store and secrets of the host program.
 * @module
 */
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import type { CloseStack } from '../base/close-stack.ts';
import { ConfigError } from '../errors.ts';
import { FileSecrets, FileStore, type Secrets, type Store, StoreSecrets } from '../store/index.ts';
import { preparePrivateDirectory } from '../store/private-directory.ts';
import { MeasuredStore } from './measured-store.ts';

export interface StateOptions {
  /**
   * A directory with mode 0700 that holds `store.journal` and the secrets; it is created if it does not exist, and
   * locked while the gateway runs. Default: none; then `store` and `secrets` are both required.
   */
  readonly stateDirectory?: string | undefined;
  /** Replaces `store.journal`, which is the default. It stays open when the gateway is closed. */
  readonly store?: Store | undefined;
  /** Replaces the secret files of the directory, which are the default. */
  readonly secrets?: Secrets | undefined;
}

export interface GatewayState {
  readonly store: MeasuredStore;
  readonly secrets: Secrets;
}

/**
 * Opens the state of a machine of several: all of it is in the store that they share, and the directory is for what the
 * machine keeps for itself.
 *
 * @param store what this machine may write, see `Member.store`
 * @throws {EnvironmentError} if the directory cannot be used.
 * @throws {PassphraseError} if the secrets there have another passphrase.
 * @throws {StoreError} if the store cannot be read.
 */
export async function openSharedState(
  store: Store,
  {
    stateDirectory,
    secrets,
    passphrase = '',
    clock,
  }: Pick<StateOptions, 'stateDirectory' | 'secrets'> & {
    readonly passphrase?: string | undefined;
    readonly clock: Clock;
  }
): Promise<GatewayState> {
  if (stateDirectory !== undefined) await preparePrivateDirectory(stateDirectory);
  return {
    store: new MeasuredStore(store, clock),
    secrets: secrets ?? (await StoreSecrets.open(store, { passphrase })),
  };
}

/**
 * Opens the state, and adds it to `closing`.
 *
 * @throws {ConfigError} if there is neither a directory nor both a store and secrets.
 * @throws {EnvironmentError} if the directory cannot be used, or another process has locked it.
 * @throws {StoreError} if the journal is damaged.
 */
export async function openState(
  { stateDirectory, store, secrets, clock }: StateOptions & { readonly clock: Clock },
  closing: CloseStack
): Promise<GatewayState> {
  if (stateDirectory === undefined) {
    if (store !== undefined && secrets !== undefined) {
      return { store: new MeasuredStore(store, clock), secrets };
    }
    const given = store === undefined ? (secrets === undefined ? 'neither' : 'secrets') : 'a store';
    const message = `is missing: expected a directory, or both store and secrets, got ${given}`;
    throw new ConfigError('stateDirectory', message);
  }
  await preparePrivateDirectory(stateDirectory);
  // The host program's own secrets may be encrypted files in this directory, so they are not read here.
  const opened = secrets ?? (await FileSecrets.open(stateDirectory));
  if (store !== undefined) return { store: new MeasuredStore(store, clock), secrets: opened };
  const journal = await FileStore.open({ path: join(stateDirectory, 'store.journal') });
  closing.add(() => journal.close());
  return { store: new MeasuredStore(journal, clock), secrets: opened };
}
