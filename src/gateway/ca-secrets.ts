/**
 * The keys and certificates of the CAs among the secrets: `ca.pem` with `ca-key.pem` beside it, the next one as
 * `ca-2.pem`, and so on. Which of them is in which part is said by `ca.json`, once there is more than one. Each
 * step of a change of CA is one commit.
 *
 * An operator who has a CA puts its certificate (and those above it, the root last) and its key there before the
 * first start.
 * @module
 */
import * as v from 'valibot';
import { CertificateError, ConfigError, EnvironmentError } from '../errors.ts';
import { type CaMaterial, encryptPrivateKey } from '../pki/index.ts';
import type { Secrets } from '../store/index.ts';
import { bytesOf, locationOf, readSecret, requireSecret } from './secret-text.ts';

/** The CAs by their parts in a rollover. */
export interface CaSet {
  readonly current: CaMaterial;
  readonly next?: CaMaterial;
  readonly previous?: CaMaterial;
  /** Certificates of those that have gone out of use, each as `CaMaterial` has them. */
  readonly retired: readonly string[];
}

export class CaSecrets {
  readonly #secrets: Secrets;
  readonly #passphrase: string | undefined;

  /** @param passphrase of the private keys, if they have one */
  constructor(secrets: Secrets, passphrase: string | undefined) {
    this.#secrets = secrets;
    this.#passphrase = passphrase;
  }

  /** Undefined before the first CA. */
  async read(): Promise<CaSet | undefined> {
    const [json, first] = [await this.#text('ca.json'), await this.#text(certificateOf(FIRST))];
    if (json === undefined && first === undefined) return undefined;
    const { current, next, previous, retired = [] } = await this.#parts();
    return {
      current: await this.#material(current),
      retired: await Promise.all(retired.map((each) => this.#certificate(each))),
      ...(next === undefined ? {} : { next: await this.#material(next) }),
      ...(previous === undefined ? {} : { previous: await this.#material(previous) }),
    };
  }

  /**
   * Encrypts each private key that is kept in the clear, or under a passphrase that is stretched too little;
   * also that of the root, if it is still there. Does nothing without a passphrase.
   *
   * @returns where the keys are that were rewritten.
   * @throws {CertificateError} if a key cannot be read, for example because the passphrase is wrong. The message
   *   says which one.
   */
  async protectKeys(): Promise<string[]> {
    const passphrase = this.#passphrase;
    if (passphrase === undefined) return [];
    const { current, next, previous } = await this.#parts();
    const names = [current, next, previous].filter((name) => name !== undefined).map(keyOf);
    if ((await this.#text(ROOT_KEY)) !== undefined) names.push(ROOT_KEY);
    const changes: Record<string, Uint8Array> = {};
    for (const name of names) {
      const before = await requireSecret(this.#secrets, name);
      const after = await encryptPrivateKey(before, passphrase).catch((cause: Error) => {
        if (!(cause instanceof CertificateError)) throw cause;
        throw new CertificateError(`${this.#locate(name)}: ${cause.message}`, { cause });
      });
      if (after !== before) changes[name] = bytesOf(after);
    }
    await this.#secrets.commit(changes);
    return Object.keys(changes).map((name) => this.#locate(name));
  }

  /**
   * Keeps the first CA.
   *
   * @param rootPrivateKeyPem of a root that has signed the CA, to be taken off line by the operator
   * @returns where that key is; undefined without one.
   */
  async begin(ca: CaMaterial, rootPrivateKeyPem: string | undefined): Promise<string | undefined> {
    const root = rootPrivateKeyPem && { [ROOT_KEY]: bytesOf(rootPrivateKeyPem) };
    await this.#secrets.commit({ ...filesOf(FIRST, ca), ...(root || {}) });
    return root && this.#locate(ROOT_KEY);
  }

  async prepare(next: CaMaterial): Promise<void> {
    const { current, retired } = await this.#parts();
    const name = `ca-${Number(/\d+$/.exec(current)?.[0] ?? 1) + 1}`;
    await this.#secrets.commit({
      ...filesOf(name, next),
      ...partsFile({ current, next: name, retired }),
    });
  }

  async activate(): Promise<void> {
    const { current, next, previous, retired } = await this.#parts();
    if (next !== undefined) {
      await this.#secrets.commit(partsFile({ current: next, previous: current, retired }));
    } else if (previous === undefined) {
      throw new EnvironmentError('the next CA was not kept: restart the gateway and prepare it');
    }
  }

  /** The key of the previous CA is removed: it signs nothing any more. Its certificate stays known. */
  async retire(): Promise<void> {
    const { current, previous, retired: before = [] } = await this.#parts();
    const retired = previous === undefined ? before : [...before, previous];
    await this.#secrets.commit({
      ...partsFile({ current, retired }),
      ...Object.fromEntries(retired.map((each) => [keyOf(each), undefined])),
    });
  }

  /** Earlier versions may have left the key of a retired CA, when they were interrupted. */
  async removeRetiredKeys(): Promise<void> {
    const left: Record<string, undefined> = {};
    for (const name of ((await this.#parts()).retired ?? []).map(keyOf)) {
      if ((await this.#secrets.get(name)) !== undefined) left[name] = undefined;
    }
    await this.#secrets.commit(left);
  }

  async #material(name: string): Promise<CaMaterial> {
    return {
      certificatePem: await this.#certificate(name),
      privateKeyPem: await requireSecret(this.#secrets, keyOf(name)),
      ...(this.#passphrase === undefined ? {} : { passphrase: this.#passphrase }),
    };
  }

  #certificate(name: string): Promise<string> {
    return requireSecret(this.#secrets, certificateOf(name));
  }

  #text(name: string): Promise<string | undefined> {
    return readSecret(this.#secrets, name);
  }

  #locate(name: string): string {
    return locationOf(this.#secrets, name);
  }

  async #parts(): Promise<Parts> {
    const text = await this.#text('ca.json');
    if (text === undefined) return { current: FIRST };
    try {
      return v.parse(PartsSchema, JSON.parse(text)) as Parts;
    } catch (cause) {
      const fault = `${this.#locate('ca.json')} is damaged: ${(cause as Error).message}`;
      throw new ConfigError('', fault, { cause });
    }
  }
}

/** Names of CAs. */
interface Parts {
  readonly current: string;
  readonly next?: string | undefined;
  readonly previous?: string | undefined;
  readonly retired?: readonly string[] | undefined;
}

function filesOf(
  name: string,
  { certificatePem, privateKeyPem }: CaMaterial
): Record<string, Uint8Array> {
  return {
    [keyOf(name)]: bytesOf(privateKeyPem),
    [certificateOf(name)]: bytesOf(certificatePem),
  };
}

function partsFile(parts: Parts): Record<string, Uint8Array> {
  return { 'ca.json': bytesOf(`${JSON.stringify(parts)}\n`) };
}

function certificateOf(name: string): string {
  return `${name}.pem`;
}

function keyOf(name: string): string {
  return `${name}-key.pem`;
}

const FIRST = 'ca';
const ROOT_KEY = 'root-key.pem';
const name = v.pipe(v.string(), v.regex(/^ca(-\d+)?$/));
const PartsSchema = v.strictObject({
  current: name,
  next: v.optional(name),
  previous: v.optional(name),
  retired: v.optional(v.array(name)),
});
