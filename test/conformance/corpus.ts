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

/** Returns the text of a file: JSON with each plan and each case on a line of its own. */
export function textOf({ subject, about, plans, cases }: Subject): string {
  const planLines = Object.entries(plans).map(
    ([name, plan]) => `    ${JSON.stringify(name)}: ${JSON.stringify(plan)}`
  );
  const caseLines = cases.map((one) => `    ${JSON.stringify(one)}`);
  return `{
  "subject": ${JSON.stringify(subject)},
  "about": ${JSON.stringify(about)},
  "plans": {
${planLines.join(',\n')}
  },
  "cases": [
${caseLines.join(',\n')}
  ]
}
`;
}
