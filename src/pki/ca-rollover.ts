/**
 * The rollover from one CA to the next ([RFC 4210 section 4.4](https://www.rfc-editor.org/rfc/rfc4210#section-4.4)):
 * which CA signs, which roots are trusted, and which certificates follow a gateway's own, at each step.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { ApiMisuseError, CertificateError, ConflictError } from '../errors.ts';
import { Ca, type CaMaterial } from './ca.ts';
import { decryptPrivateKey } from './encrypted-key.ts';

/** The step that a rollover has reached. */
export type RolloverState = 'none' | 'prepared' | 'active';

/** The CAs of an authority by their roles; there is a next or a previous one, or neither. */
export interface CaRolloverMaterial {
  /** Signs certificates. */
  readonly current: CaMaterial;
  /** Is trusted, and signs after `activateCa`. */
  readonly next?: CaMaterial | undefined;
  /** Is trusted until `retireCa`. */
  readonly previous?: CaMaterial | undefined;
}

/** The CAs of one trust domain: the current one, and during a rollover either the next or the previous one. */
export class CaRollover {
  readonly #trustDomain: string;
  #current: Ca;
  #next: Ca | undefined;
  #previous: Ca | undefined;
  /** The cross certificate and the certificates between it and the previous root. */
  #crossPem = '';

  /**
   * @throws {CertificateError} if one of the CAs is not usable, or two have the same signing key.
   * @throws {ApiMisuseError} if there is both a next and a previous CA.
   */
  constructor({ current, next, previous }: CaRolloverMaterial, trustDomain: string) {
    if (next !== undefined && previous !== undefined) {
      throw new ApiMisuseError('a CA is prepared only when the previous one is retired');
    }
    this.#trustDomain = trustDomain;
    this.#current = new Ca(current, trustDomain);
    if (next !== undefined) this.#next = this.#read(next);
    if (previous !== undefined) {
      this.#previous = this.#read(previous);
      this.#crossPem = this.#crossFrom(this.#previous, this.#current);
    }
  }

  /**
   * Decrypts the keys.
   *
   * @throws as the constructor; also `CertificateError` if a key cannot be read.
   */
  static async open(
    { current, next, previous }: CaRolloverMaterial,
    trustDomain: string
  ): Promise<CaRollover> {
    const [first, second, third] = await Promise.all([
      decrypted(current),
      next && decrypted(next),
      previous && decrypted(previous),
    ]);
    return new CaRollover({ current: first, next: second, previous: third }, trustDomain);
  }

  /** The CA that signs now. */
  get current(): Ca {
    return this.#current;
  }

  /** The CA that is prepared. */
  get next(): Ca | undefined {
    return this.#next;
  }

  /** The CA that signed before. */
  get previous(): Ca | undefined {
    return this.#previous;
  }

  get state(): RolloverState {
    if (this.#next !== undefined) return 'prepared';
    return this.#previous === undefined ? 'none' : 'active';
  }

  /** All CAs, the current one first. */
  get all(): Ca[] {
    return [this.#current, this.#next, this.#previous].filter((ca) => ca !== undefined);
  }

  /** The CAs that have signed certificates, the current one first: all except the next one. */
  get signers(): Ca[] {
    return this.all.filter((ca) => ca !== this.#next);
  }

  /** The trusted roots, each once. */
  get trustBundlePem(): string {
    return [...new Set(this.all.map(({ rootPem }) => rootPem))].join('');
  }

  /** The certificates that follow a gateway's own: intermediates, and the cross certificate if there is one. */
  get chainPem(): string {
    return this.#current.intermediatesPem + this.#crossPem;
  }

  /**
   * Checks the next CA.
   *
   * @returns a function that makes it the next CA; it cannot fail.
   */
  prepare(material: CaMaterial, nowMs: number): () => void {
    const { state } = this;
    if (state === 'prepared') throw new ConflictError('a CA is prepared already');
    if (state === 'active') throw new ConflictError('the previous CA is not retired yet');
    const next = this.#read(material);
    next.checkExpiry(nowMs);
    return () => {
      this.#next = next;
    };
  }

  /** @returns a function that makes the next CA the current one; it cannot fail. */
  activate(nowMs: number): () => void {
    const next = this.#next;
    if (next === undefined) throw new ConflictError('no CA is prepared');
    next.checkExpiry(nowMs);
    const crossPem = this.#crossFrom(this.#current, next);
    return () => {
      this.#next = undefined;
      this.#previous = this.#current;
      this.#current = next;
      this.#crossPem = crossPem;
    };
  }

  /** @returns a function that drops the previous CA; it cannot fail. */
  retire(): () => void {
    if (this.#previous === undefined) throw new ConflictError('there is no previous CA');
    return () => {
      this.#previous = undefined;
      this.#crossPem = '';
    };
  }

  /** Takes the CAs of another rollover, whatever steps led to them. Returns whether they are different. */
  replace(other: CaRollover): boolean {
    if (this.#roles() === other.#roles()) return false;
    this.#current = other.#current;
    this.#next = other.#next;
    this.#previous = other.#previous;
    this.#crossPem = other.#crossPem;
    return true;
  }

  /** Whether one of the CAs has issued the certificate. */
  hasIssued(certificate: X509Certificate): boolean {
    return this.all.some((ca) => ca.hasIssued(certificate));
  }

  /** Returns the cross certificate and the certificates between it and the root of `previous`, or an empty text. */
  #crossFrom(previous: Ca, current: Ca): string {
    const crossPem = previous.crossCertify(current, this.#trustDomain);
    return crossPem === undefined ? '' : crossPem + previous.intermediatesPem;
  }

  /** Returns a text that differs if a CA or its role does. */
  #roles(): string {
    const cas = [this.#current, this.#next, this.#previous];
    return JSON.stringify(cas.map((ca) => ca && [ca.id, ca.intermediatesPem, ca.rootPem]));
  }

  #read(material: CaMaterial): Ca {
    const ca = new Ca(material, this.#trustDomain);
    if (ca.id === this.#current.id) {
      throw new CertificateError('the CAs of a rollover need different keys');
    }
    return ca;
  }
}

async function decrypted({
  certificatePem,
  privateKeyPem,
  passphrase,
}: CaMaterial): Promise<CaMaterial> {
  return { certificatePem, privateKeyPem: await decryptPrivateKey(privateKeyPem, passphrase) };
}
