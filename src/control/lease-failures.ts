/**
 * The presences that have no address, by realm, and the problems that say so. A realm is tried again alone.
 * @module
 */
import type { Family } from '../base/address.ts';
import { AddressUnavailableError, AllocatorError, PoolExhaustedError } from '../errors.ts';
import { type PresentHost, wantedAddress } from './present-hosts.ts';

export class LeaseFailures {
  /** Keyed by realm: the keys of presences, and the problems by subject. */
  readonly #realms = new Map<string, Failed>();

  get realms(): string[] {
    return [...this.#realms.keys()];
  }

  /** Returns the keys of the presences that have no address in a realm. */
  in(realm: string): ReadonlySet<string> {
    return this.#realms.get(realm)?.keys ?? NONE;
  }

  /**
   * Replaces what has failed in a realm, and returns the problems that are new.
   *
   * @param problems keyed by subject
   */
  set(
    realm: string,
    keys: Iterable<string>,
    problems: ReadonlyMap<string, AllocatorError>
  ): AllocatorError[] {
    const before = this.#realms.get(realm)?.problems;
    if (problems.size === 0) this.#realms.delete(realm);
    else this.#realms.set(realm, { keys: new Set(keys), problems });
    return [...problems].filter(([key]) => !before?.has(key)).map(([, error]) => error);
  }

  delete(realm: string): void {
    this.#realms.delete(realm);
  }
}

/** The services of one realm that have no address, or not the one that they ask for, and why. */
export class FailedServices {
  readonly keys: Set<string> = new Set();
  readonly #realm: string;
  readonly #exhausted = new Map<Family, { readonly error: Error; readonly services: string[] }>();
  readonly #problems = new Map<string, AllocatorError>();

  constructor(realm: string) {
    this.#realm = realm;
  }

  isExhausted(family: Family): boolean {
    return this.#exhausted.has(family);
  }

  /**
   * Adds a host for which no address is free.
   *
   * @param error why, if it is the first one of its IP version; it is thrown again if it is no `AllocatorError`
   */
  addExhausted({ key, family }: PresentHost, services: readonly string[], error?: unknown): void {
    const known = this.#exhausted.get(family);
    if (known !== undefined) known.services.push(...services);
    else this.#exhausted.set(family, { error: asAllocatorError(error), services: [...services] });
    this.keys.add(key);
  }

  /** Adds a host that cannot have the address that it asks for. The error is thrown again if it is no `AllocatorError`. */
  addUnavailable(host: PresentHost, services: readonly string[], error: unknown): void {
    const { message } = asAllocatorError(error);
    const [first] = services;
    const text = `no presence in "${this.#realm}" for "${first}" at ${wantedAddress(host)}, which is tried again: ${message}`;
    this.#problems.set(host.key, new AddressUnavailableError(text));
    this.keys.add(host.key);
  }

  /** Returns the problems by subject. */
  problems(): ReadonlyMap<string, AllocatorError> {
    for (const [family, { error, services }] of this.#exhausted) {
      const [first, ...others] = services.sort();
      const more = others.length === 0 ? '' : ` and ${others.length} more`;
      const text = `no presence in "${this.#realm}" for "${first}"${more}: ${error.message}`;
      this.#problems.set(`IPv${family}`, new PoolExhaustedError(text));
    }
    return this.#problems;
  }
}

const NONE: ReadonlySet<string> = new Set();

function asAllocatorError(error: unknown): AllocatorError {
  if (error instanceof AllocatorError) return error;
  throw error;
}

interface Failed {
  readonly keys: ReadonlySet<string>;
  readonly problems: ReadonlyMap<string, AllocatorError>;
}
