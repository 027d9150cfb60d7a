/**
 * The CAs of one trust domain in their parts: the one that signs now, and, while one follows the other,
 * the next or the previous one. What is trusted, what is shown, and who signs, at each step.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { ApiMisuseError, CertificateError } from '../errors.ts';
import { Ca, type CaMaterial } from './ca.ts';

/** How far the change from one CA to the next has come. */
export type RolloverState = 'none' | 'prepared' | 'active';

export interface CaRolloverMaterial {
  readonly current: CaMaterial;
  readonly next?: CaMaterial | undefined;
  readonly previous?: CaMaterial | undefined;
}

export class CaRollover {
  readonly #trustDomain: string;
  #current: Ca;
  #next: Ca | undefined;
  #previous: Ca | undefined;
  /** The cross certificate, and what leads from it to the previous root. */
  #crossPem = '';

  /**
   * @throws {CertificateError} if one of the CAs is unfit, or two sign with one key.
   * @throws {ApiMisuseError} if there is both a next and a previous one.
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

  /** Signs now. */
  get current(): Ca {
    return this.#current;
  }

  get rollover(): RolloverState {
    if (this.#next !== undefined) return 'prepared';
    return this.#previous === undefined ? 'none' : 'active';
  }

  /** Those whose key is here, the current one first. */
  get all(): Ca[] {
    return [this.#current, this.#next, this.#previous].filter((ca) => ca !== undefined);
  }

  /** Those that have signed certificates in force, the current one first. */
  get signers(): Ca[] {
    return this.all.filter((ca) => ca !== this.#next);
  }

  /** The roots in force, each once. */
  get trustBundlePem(): string {
    return [...new Set(this.all.map(({ rootPem }) => rootPem))].join('');
  }

  /** What goes behind a gateway's certificate. */
  get chainPem(): string {
    return this.#current.intermediatesPem + this.#crossPem;
  }

  /**
   * Checks the next CA.
   *
   * @returns a function that takes it in, and cannot fail.
   */
  prepare(material: CaMaterial, nowMs: number): () => void {
    const state = this.rollover;
    if (state === 'prepared') throw new ApiMisuseError('a CA is prepared already');
    if (state === 'active') throw new ApiMisuseError('the previous CA is not retired yet');
    const next = this.#read(material);
    next.checkExpiry(nowMs);
    return () => {
      this.#next = next;
    };
  }

  /** @returns a function that lets the next CA sign, and cannot fail. */
  activate(nowMs: number): () => void {
    const next = this.#next;
    if (next === undefined) throw new ApiMisuseError('no CA is prepared');
    next.checkExpiry(nowMs);
    const crossPem = this.#crossFrom(this.#current, next);
    return () => {
      this.#next = undefined;
      this.#previous = this.#current;
      this.#current = next;
      this.#crossPem = crossPem;
    };
  }

  /** @returns a function that lets go of the previous CA, and cannot fail. */
  retire(): () => void {
    if (this.#previous === undefined) throw new ApiMisuseError('there is no previous CA');
    return () => {
      this.#previous = undefined;
      this.#crossPem = '';
    };
  }

  /** Whether one of them has issued the certificate. */
  hasIssued(certificate: X509Certificate): boolean {
    return this.all.some((ca) => ca.hasIssued(certificate));
  }

  /** The cross certificate, and what leads from it to the root of `previous`; empty if there is none. */
  #crossFrom(previous: Ca, current: Ca): string {
    const crossPem = previous.crossCertify(current, this.#trustDomain);
    return crossPem === undefined ? '' : crossPem + previous.intermediatesPem;
  }

  #read(material: CaMaterial): Ca {
    const ca = new Ca(material, this.#trustDomain);
    if (ca.id === this.#current.id) {
      throw new CertificateError('the CAs of a rollover need different keys');
    }
    return ca;
  }
}
