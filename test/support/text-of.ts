/**
 * Values as text, for tests that compare and combine texts.
 */
import type { IpAddress } from '../../src/base/address.ts';
import type { Endpoint } from '../../src/base/endpoint.ts';
import type { PortRange } from '../../src/base/port-range.ts';
import type { IpPrefix } from '../../src/base/prefix.ts';
import type { TranslationPlan } from '../../src/translator/index.ts';

/** What JSON makes of a type: addresses, prefixes and ports are texts. */
export type TextOf<T> = T extends IpAddress | IpPrefix | PortRange
  ? string
  : T extends Endpoint
    ? { readonly realm: string; readonly address: string }
    : T extends object
      ? { [K in keyof T]: TextOf<T[K]> }
      : T;

export type TextPlan = TextOf<TranslationPlan>;
export type TextPresence = TextPlan['presences'][number];
export type TextRealm = TextPlan['realms'][number];
export type TextPermit = TextPlan['permits'][number];

/** Returns what JSON makes of a value. */
export function textOf<T>(value: T): TextOf<T> {
  return value === undefined ? (undefined as TextOf<T>) : JSON.parse(JSON.stringify(value));
}
