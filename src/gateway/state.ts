/**
 * Where a gateway keeps what must outlive it: files in a directory, or a store and secrets of the host's own.
 * @module
 */
import { join } from 'node:path';
import type { CloseStack } from '../base/close-stack.ts';
import { ConfigError } from '../errors.ts';
import { FileSecrets, FileStore, type Secrets, type Store } from '../store/index.ts';
import { preparePrivateDirectory } from '../store/private-directory.ts';

export interface StateOptions {
  /**
   * A directory with mode 0700, which is made if it is not there: `store.journal` and the secrets are in it. It is
   * locked while the gateway runs. Default: there is none, and `store` and `secrets` are both given.
   */
  readonly stateDirectory?: string | undefined;
  /** Used in place of `store.journal`, which is the default. It stays open when the gateway is closed. */
  readonly store?: Store | undefined;
  /** Used in place of the files of the directory, which are the default. */
  readonly secrets?: Secrets | undefined;
}

export interface GatewayState {
  readonly store: Store;
  readonly secrets: Secrets;
}

/**
 * Opens what was asked for, and has it closed with the gateway.
 *
 * @throws {ConfigError} if there is neither a directory nor both a store and secrets.
 * @throws {EnvironmentError} if the directory cannot be used, or another process has it.
 * @throws {StoreError} if the journal is damaged.
 */
export async function openState(
  { stateDirectory, store, secrets }: StateOptions,
  closing: CloseStack
): Promise<GatewayState> {
  if (stateDirectory === undefined) {
    if (store !== undefined && secrets !== undefined) return { store, secrets };
    const given = store === undefined ? (secrets === undefined ? 'neither' : 'secrets') : 'a store';
    const message = `is missing: expected a directory, or both store and secrets, got ${given}`;
    throw new ConfigError('stateDirectory', message);
  }
  await preparePrivateDirectory(stateDirectory);
  // Secrets of the host may lie in the same directory, encrypted: they are the host's to read.
  const kept = secrets ?? (await FileSecrets.open(stateDirectory));
  if (store !== undefined) return { store, secrets: kept };
  const journal = await FileStore.open({ path: join(stateDirectory, 'store.journal') });
  closing.add(() => journal.close());
  return { store: journal, secrets: kept };
}
