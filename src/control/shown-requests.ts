/**
 * What other processes, and this one before, ask of the one that allocates (`AllocatorRequests`), as the store shows it.
 * It is kept until it is answered, so that the next one that allocates finds it.
 * @module
 */
import * as v from 'valibot';
import type { Family } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import { AddressText, parseSchema, type Schema } from '../base/schema.ts';
import type { Json } from '../store/index.ts';
import type { PresenceUse } from './presence-uses.ts';

/** The beginnings of the keys. */
export const ADMIT_PREFIX = 'admit/';
export const RELEASE_PREFIX = 'release/';
export const USES_PREFIX = 'uses/';
export const REQUEST_PREFIXES: readonly string[] = [ADMIT_PREFIX, RELEASE_PREFIX, USES_PREFIX];

/** A client for which another machine asks. */
export interface AskedAdmission {
  readonly client: Endpoint;
  readonly egress: string;
  readonly family: Family;
}

/** A request that can be understood. */
export type AskedWork =
  | { readonly admission: AskedAdmission }
  | { readonly release: string }
  | { readonly uses: readonly PresenceUse[] };

export class ShownRequests {
  /** Keyed by the key in the store. */
  readonly #open = new Map<string, Json>();
  /** The keys of those that are being answered. */
  readonly #underWay = new Set<string>();

  /** Takes what the store shows of one request. */
  show({ key, value }: { readonly key: string; readonly value: Json | undefined }): void {
    if (value === undefined) this.#open.delete(key);
    else this.#open.set(key, value);
  }

  /** Returns the requests that nobody is answering: undefined in place of one that cannot be understood. */
  take(): [key: string, work: AskedWork | undefined][] {
    const keys = [...this.#open.keys()].filter((key) => !this.#underWay.has(key));
    return keys.map((key) => {
      this.#underWay.add(key);
      return [key, workOf(key, this.#open.get(key)!)];
    });
  }

  /** @param isAnswered false: it was put off */
  end(key: string, isAnswered: boolean): void {
    this.#underWay.delete(key);
    if (isAnswered) this.#open.delete(key);
  }
}

function workOf(key: string, value: Json): AskedWork | undefined {
  try {
    if (key.startsWith(RELEASE_PREFIX)) return { release: key.slice(key.lastIndexOf('/') + 1) };
    if (key.startsWith(USES_PREFIX)) return { uses: parseSchema(UsesSchema, value).uses };
    const { client, ...where } = parseSchema(AdmissionSchema, value);
    return { admission: { client: Endpoint.parse(client), ...where } };
  } catch {
    return undefined;
  }
}

interface StoredAdmission {
  readonly client: string;
  readonly egress: string;
  readonly family: Family;
}

const AdmissionSchema: Schema<StoredAdmission> = v.object({
  client: v.string(),
  egress: v.string(),
  family: v.picklist([4, 6]),
}) as Schema<StoredAdmission>;

const UsesSchema: Schema<{ readonly uses: readonly PresenceUse[] }> = v.object({
  uses: v.array(v.object({ realm: v.string(), address: v.pipe(AddressText, v.transform(String)) })),
}) as Schema<{ readonly uses: readonly PresenceUse[] }>;
