/**
 * The form of the corpus, as README.md documents it, and its text.
 * @module
 */
import type { TranslationPlanInput } from '../../src/translator/plan.ts';
import type { VerdictName } from '../../src/translator/verdict.ts';

/** One file of the corpus. */
export interface Subject {
  readonly subject: string;
  readonly about: string;
  readonly plans: Readonly<Record<string, TranslationPlanInput>>;
  readonly cases: readonly Case[];
}

export interface Case {
  readonly name: string;
  readonly cites: readonly string[];
  readonly comment?: string;
  /** A name in the file's `plans`. */
  readonly plan: string;
  readonly options?: Readonly<Record<string, number>>;
  readonly steps: readonly Step[];
}

export interface Step {
  readonly at?: number;
  readonly load?: string;
  readonly realm: string;
  readonly headroom?: number;
  readonly vnet?: string;
  readonly packet: string;
  readonly expect: Expectation;
}

export interface Expectation {
  readonly verdict: VerdictName;
  readonly egress?: string;
  readonly lackingFamily?: 4 | 6;
  readonly vnet?: string;
  readonly packet?: string;
  readonly segmentTo?: number;
  readonly reply?: string;
}

/** What goes into a file: two spaces, scalars of a list on one line where they fit. */
export function textOf(subject: Subject): string {
  return `${render(subject, 0, 0)}\n`;
}

/** @param taken columns taken on the line by what stands around the value */
function render(value: unknown, depth: number, taken: number): string {
  const inner = '  '.repeat(depth + 1);
  const outer = '  '.repeat(depth);
  if (Array.isArray(value)) {
    const flat = `[${value.map((item) => JSON.stringify(item)).join(', ')}]`;
    const isFlat = value.every((item) => typeof item !== 'object');
    if (isFlat && taken + flat.length <= LINE_WIDTH) return flat;
    const items = value.map((item) => `${inner}${render(item, depth + 1, inner.length + 1)}`);
    return `[\n${items.join(',\n')}\n${outer}]`;
  }
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  const fields = entries.map(([key, item]) => {
    const name = `${inner}${JSON.stringify(key)}: `;
    return `${name}${render(item, depth + 1, name.length + 1)}`;
  });
  return `{\n${fields.join(',\n')}\n${outer}}`;
}

const LINE_WIDTH = 100;
