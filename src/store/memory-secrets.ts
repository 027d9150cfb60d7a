/**
 * Secrets in memory, for tests and for programs that enrol again at each start.
 * @module
 */
import { checkedChanges, checkSecretName, type SecretChanges, type Secrets } from './secrets.ts';

/** Secrets that are lost when the process ends. */
export class MemorySecrets implements Secrets {
  readonly #secrets = new Map<string, Uint8Array>();

  /** @throws {ApiMisuseError} if the name is invalid. */
  async get(name: string): Promise<Uint8Array | undefined> {
    checkSecretName(name);
    const bytes = this.#secrets.get(name);
    return bytes && Uint8Array.from(bytes);
  }

  /** @throws {ApiMisuseError} if a name or a value is invalid; then nothing has changed. */
  async commit(changes: SecretChanges): Promise<void> {
    for (const [name, bytes] of checkedChanges(changes)) {
      if (bytes === undefined) this.#secrets.delete(name);
      else this.#secrets.set(name, bytes);
    }
  }
}
