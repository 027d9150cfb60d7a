/**
 * The keys and certificates of the CAs in the state directory: `ca.pem` with `ca-key.pem` beside it, the
 * next one as `ca-2.pem`, and so on. Which of them is in which part is said by `ca.json`, once there is
 * more than one; it is replaced as a whole, so a change of parts has happened or not.
 *
 * An operator who has a CA puts its certificate (and those above it, root last) and its key there before
 * the first start.
 * @module
 */
import { rmSync } from 'node:fs';
import * as v from 'valibot';
import { type CaMaterial, ConfigError, EnvironmentError } from 'virtual-presence';
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
    const { current, retired } = this.#parts();
    const name = `ca-${Number(/\d+$/.exec(current)?.[0] ?? 1) + 1}`;
    this.#store(name, next);
    this.#write({ current, next: name, retired });
  }

  activate(): void {
    const { current, next, retired } = this.#parts();
    if (next === undefined)
      throw new EnvironmentError('the next CA was not kept: prepare it again');
    this.#write({ current: next, previous: current, retired });
  }

  /** The key of the previous CA is removed: it signs nothing any more. Its certificate stays known. */
  retire(): void {
    const { current, previous, retired = [] } = this.#parts();
    if (previous === undefined) throw new EnvironmentError('the previous CA was not kept');
    this.#write({ current, retired: [...retired, previous] });
    rmSync(this.#state.pathOf(keyOf(previous)), { force: true });
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
