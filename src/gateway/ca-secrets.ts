/**
 * The keys and certificates of the CAs in the secrets: `ca.pem` with `ca-key.pem` is the first CA, `ca-2.pem` with
 * `ca-2-key.pem` the second one, and so on. Once there is more than one, `ca.json` names the current, next, previous
 * and retired CAs. Each step of a CA rollover is one commit.
 *
 * An operator who has a CA puts its certificate (followed by those above it, the root last) and its key there before
 * the first start.
 * @module
 */
import * as v from 'valibot';
import { CertificateError, ConfigError, ConflictError, EnvironmentError } from '../errors.ts';
import { type CaMaterial, encryptPrivateKey } from '../pki/index.ts';
import type { Secrets } from '../store/index.ts';
import { bytesOf, locationOf, readSecret, requireSecret } from './secret-text.ts';

/** The CAs by their roles in a rollover. */
export interface CaSet {
  readonly current: CaMaterial;
  readonly next?: CaMaterial;
  readonly previous?: CaMaterial;
  /** Certificate chains of the retired CAs, in PEM, as in `CaMaterial`. */
  readonly retired: readonly string[];
}

export class CaSecrets {
  readonly #secrets: Secrets;
  readonly #passphrase: string | undefined;
  /** The roles that `read` has returned last, as text. */
  #seen: string | undefined;

  /** @param passphrase the passphrase of the private keys, if they are encrypted */
  constructor(secrets: Secrets, passphrase: string | undefined) {
    this.#secrets = secrets;
    this.#passphrase = passphrase;
  }

  /** Returns the CAs; undefined before the first one is stored. */
  async read(): Promise<CaSet | undefined> {
    const [json, first] = [await this.#text('ca.json'), await this.#text(certificateOf(FIRST))];
    if (json === undefined && first === undefined) return undefined;
    for (;;) {
      const roles = await this.#roles();
      this.#seen = JSON.stringify(roles);
      try {
        return await this.#setOf(roles);
      } catch (error) {
        // Another machine may have removed the key of a retired CA meanwhile.
        if (JSON.stringify(await this.#roles()) === this.#seen) throw error;
      }
    }
  }

  /**
   * Encrypts each private key that is stored in the clear, or whose key derivation is weaker than today's; also the
   * key of the root, if it is still there. Does nothing without a passphrase.
   *
   * @returns the locations of the keys that were rewritten.
   * @throws {CertificateError} if a key cannot be read, for example because the passphrase is wrong. The message
   *   names the key.
   */
  async protectKeys(): Promise<string[]> {
    const passphrase = this.#passphrase;
    if (passphrase === undefined) return [];
    const { current, next, previous } = await this.#roles();
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
   * Stores the first CA.
   *
   * @param rootPrivateKeyPem the key of the root that has signed the CA, which the operator takes off line
   * @returns the location of the root's key; undefined without one.
   */
  async begin(ca: CaMaterial, rootPrivateKeyPem: string | undefined): Promise<string | undefined> {
    const root = rootPrivateKeyPem && { [ROOT_KEY]: bytesOf(rootPrivateKeyPem) };
    await this.#secrets.commit({ ...filesOf(FIRST, ca), ...(root || {}) });
    return root && this.#locate(ROOT_KEY);
  }

  /** Calls `listener` when any process has changed the CAs. Returns a function that ends this. */
  watch(listener: () => void): () => void {
    return this.#secrets.watch?.(listener) ?? (() => {});
  }

  /** Whether other processes may change the CAs. */
  get areShared(): boolean {
    return this.#secrets.watch !== undefined;
  }

  /** @throws {ConflictError} if another process has changed the CAs since `read`; the same holds for the other steps. */
  async prepare(next: CaMaterial): Promise<void> {
    const { current, retired } = await this.#unchangedRoles();
    const name = `ca-${Number(/\d+$/.exec(current)?.[0] ?? 1) + 1}`;
    await this.#secrets.commit({
      ...filesOf(name, next),
      ...rolesFile({ current, next: name, retired }),
    });
  }

  async activate(): Promise<void> {
    const { current, next, previous, retired } = await this.#unchangedRoles();
    if (next !== undefined) {
      await this.#secrets.commit(rolesFile({ current: next, previous: current, retired }));
    } else if (previous === undefined) {
      throw new EnvironmentError('the next CA was not stored: restart the gateway and prepare it');
    }
  }

  /** Removes the key of the previous CA, which no longer signs. Its certificate stays, to refuse what it has issued. */
  async retire(): Promise<void> {
    const { current, previous, retired: before = [] } = await this.#unchangedRoles();
    const retired = previous === undefined ? before : [...before, previous];
    await this.#secrets.commit({
      ...rolesFile({ current, retired }),
      ...Object.fromEntries(retired.map((each) => [keyOf(each), undefined])),
    });
  }

  /** Removes keys of retired CAs, which earlier versions left behind when they were interrupted. */
  async removeRetiredKeys(): Promise<void> {
    const left: Record<string, undefined> = {};
    for (const name of ((await this.#roles()).retired ?? []).map(keyOf)) {
      if ((await this.#secrets.get(name)) !== undefined) left[name] = undefined;
    }
    await this.#secrets.commit(left);
  }

  async #setOf({ current, next, previous, retired = [] }: Roles): Promise<CaSet> {
    return {
      current: await this.#material(current),
      retired: await Promise.all(retired.map((each) => this.#certificate(each))),
      ...(next === undefined ? {} : { next: await this.#material(next) }),
      ...(previous === undefined ? {} : { previous: await this.#material(previous) }),
    };
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

  /** Returns the roles, which are those that `read` has returned if the secrets are shared. */
  async #unchangedRoles(): Promise<Roles> {
    const roles = await this.#roles();
    if (this.areShared && JSON.stringify(roles) !== this.#seen) {
      throw new ConflictError(
        'another machine has taken a step of the change of CA meanwhile: look at it, and try again'
      );
    }
    return roles;
  }

  async #roles(): Promise<Roles> {
    const text = await this.#text('ca.json');
    if (text === undefined) return { current: FIRST };
    try {
      return v.parse(RolesSchema, JSON.parse(text)) as Roles;
    } catch (cause) {
      const fault = `${this.#locate('ca.json')} is damaged: ${(cause as Error).message}`;
      throw new ConfigError('', fault, { cause });
    }
  }
}

/** The content of `ca.json`: the names of the CAs by role, such as `ca-2`. */
interface Roles {
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

function rolesFile(roles: Roles): Record<string, Uint8Array> {
  return { 'ca.json': bytesOf(`${JSON.stringify(roles)}\n`) };
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
const RolesSchema = v.strictObject({
  current: name,
  next: v.optional(name),
  previous: v.optional(name),
  retired: v.optional(v.array(name)),
});
