/**
 * The keys and certificates of the CAs in the state directory: `ca.pem` with `ca-key.pem` beside it, the
 * next one as `ca-2.pem`, and so on. Which of them is in which part is said by `ca.json`, once there is
 * more than one; it is replaced as a whole, so a change of parts has happened or not. A step of a change of
 * CA that has failed half-way can be repeated.
 *
 * An operator who has a CA puts its certificate (and those above it, root last) and its key there before
 * the first start.
 * @module
 */
import * as v from 'valibot';
import {
  type CaMaterial,
  CertificateError,
  ConfigError,
  EnvironmentError,
  encryptPrivateKey,
} from 'virtual-presence';
import type { StateDirectory } from '../program/files.ts';

/** The CAs by their parts in a rollover. */
export interface CaSet {
  readonly current: CaMaterial;
  readonly next?: CaMaterial;
  readonly previous?: CaMaterial;
  /** Certificates of those that have gone out of use, each as `CaMaterial` has them. */
  readonly retired: readonly string[];
}

export class CaFiles {
  readonly #state: StateDirectory;
  readonly #passphrase: string | undefined;

  /** @param passphrase of the private keys, if they have one */
  constructor(state: StateDirectory, passphrase: string | undefined) {
    this.#state = state;
    this.#passphrase = passphrase;
  }

  /** Undefined before the first CA. */
  read(): CaSet | undefined {
    if (!this.#state.has('ca.json') && !this.#state.has(certificateOf(FIRST))) return undefined;
    const { current, next, previous, retired = [] } = this.#parts();
    return {
      current: this.#material(current),
      retired: retired.map((each) => this.#state.read(certificateOf(each))),
      ...(next === undefined ? {} : { next: this.#material(next) }),
      ...(previous === undefined ? {} : { previous: this.#material(previous) }),
    };
  }

  /**
   * Encrypts each private key that is kept in the clear, or under a passphrase that is stretched too little;
   * also that of the root, if it is still there. Does nothing without a passphrase.
   *
   * @returns the paths of the files that were rewritten.
   * @throws {CertificateError} if a key cannot be read, for example because the passphrase is wrong. The message
   *   names the file.
   */
  async protectKeys(): Promise<string[]> {
    const passphrase = this.#passphrase;
    if (passphrase === undefined) return [];
    const { current, next, previous } = this.#parts();
    const names = [current, next, previous].filter((name) => name !== undefined).map(keyOf);
    if (this.#state.has(ROOT_KEY)) names.push(ROOT_KEY);
    const rewritten: string[] = [];
    for (const name of names) {
      const before = this.#state.read(name);
      const after = await encryptPrivateKey(before, passphrase).catch((cause: Error) => {
        if (!(cause instanceof CertificateError)) throw cause;
        throw new CertificateError(`${this.#state.pathOf(name)}: ${cause.message}`, { cause });
      });
      if (after === before) continue;
      this.#state.write(name, after);
      rewritten.push(this.#state.pathOf(name));
    }
    return rewritten;
  }

  /** The first CA. */
  write(ca: CaMaterial): void {
    this.#store(FIRST, ca);
  }

  /** The key of a root that has signed the CA, to be taken off line by the operator. */
  writeRootKey(privateKeyPem: string): string {
    this.#state.write(ROOT_KEY, privateKeyPem);
    return this.#state.pathOf(ROOT_KEY);
  }

  prepare(next: CaMaterial): void {
    const { current, next: unused, retired } = this.#parts();
    // An attempt that failed at its end may have named its files: they are not named while they are replaced.
    if (unused !== undefined) this.#write({ current, retired });
    const name = `ca-${Number(/\d+$/.exec(current)?.[0] ?? 1) + 1}`;
    this.#store(name, next);
    this.#write({ current, next: name, retired });
  }

  activate(): void {
    const { current, next, previous, retired } = this.#parts();
    if (next !== undefined) this.#write({ current: next, previous: current, retired });
    else if (previous !== undefined) this.#write({ current, previous, retired });
    else throw new EnvironmentError('the next CA was not kept: restart the gateway and prepare it');
  }

  /** The key of the previous CA is removed: it signs nothing any more. Its certificate stays known. */
  retire(): void {
    const { current, previous, retired: before = [] } = this.#parts();
    const retired = previous === undefined ? before : [...before, previous];
    this.#write({ current, retired });
    this.removeRetiredKeys();
  }

  /** Also for a start: a crash may have come between the two steps of `retire`. */
  removeRetiredKeys(): void {
    for (const name of (this.#parts().retired ?? []).map(keyOf)) {
      if (this.#state.has(name)) this.#state.remove(name);
    }
  }

  #material(name: string): CaMaterial {
    return {
      certificatePem: this.#state.read(certificateOf(name)),
      privateKeyPem: this.#state.read(keyOf(name)),
      ...(this.#passphrase === undefined ? {} : { passphrase: this.#passphrase }),
    };
  }

  #store(name: string, { certificatePem, privateKeyPem }: CaMaterial): void {
    this.#state.write(keyOf(name), privateKeyPem);
    // Last: where it is, the key is too.
    this.#state.write(certificateOf(name), certificatePem);
  }

  #parts(): Parts {
    if (!this.#state.has('ca.json')) return { current: FIRST };
    try {
      return v.parse(PartsSchema, JSON.parse(this.#state.read('ca.json'))) as Parts;
    } catch (cause) {
      const path = this.#state.pathOf('ca.json');
      throw new ConfigError('', `${path} is damaged: ${(cause as Error).message}`, { cause });
    }
  }

  #write(parts: Parts): void {
    this.#state.write('ca.json', `${JSON.stringify(parts)}\n`);
  }
}

/** Names of CAs. */
interface Parts {
  readonly current: string;
  readonly next?: string | undefined;
  readonly previous?: string | undefined;
  readonly retired?: readonly string[] | undefined;
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
