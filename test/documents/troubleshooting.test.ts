/**
 * docs/troubleshooting.md has a heading for each verdict, close code and error code that a user can meet, and none for
 * another one.
 */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { VERDICT_NAMES } from '../../src/translator/index.ts';
import { CloseCode } from '../../src/tunnel/index.ts';
import { readTree } from '../structure/source-tree.ts';

const document = readFileSync('docs/troubleshooting.md', 'utf8');

/** The headings of the third level below one of the second, and the text below each. */
function sectionsOf(title: string): Map<string, string> {
  const part = document.split(/^## /m).find((each) => each.startsWith(`${title}\n`)) ?? '';
  const sections = part.split(/^### /m).slice(1);
  return new Map(sections.map((text) => [/^`(.+)`$/m.exec(text)?.[1] ?? text, text]));
}

/** The codes in the source; those of a family, whose end depends on a fault, end with a star. */
function errorCodes(): string[] {
  const codes = new Set<string>();
  for (const { path } of readTree('src')) {
    const source = readFileSync(path, 'utf8');
    for (const [, code] of source.matchAll(/'(ERR_PRESENCE_[A-Z_]+)'/g)) codes.add(code!);
    for (const [, code] of source.matchAll(/`(ERR_PRESENCE_[A-Z_]+)\$\{/g)) codes.add(`${code}*`);
  }
  // What the code of an error begins with is no code.
  return [...codes].filter((code) => !code.endsWith('_')).sort();
}

/** The members of a union of texts in `src/errors.ts`. */
function membersOf(type: string): string[] {
  const source = readFileSync('src/errors.ts', 'utf8');
  const union = new RegExp(`export type ${type} =([^;]+);`).exec(source)![1]!;
  return Array.from(union.matchAll(/'([a-z-]+)'/g), ([, member]) => member!);
}

test('has each verdict', () => {
  expect([...sectionsOf('Verdicts').keys()]).toEqual([...VERDICT_NAMES]);
});

test('has each close code', () => {
  expect([...sectionsOf('Close codes').keys()]).toEqual(Object.values(CloseCode));
});

test('has each error code, and each fault of a family of them', () => {
  const sections = sectionsOf('Error codes');
  expect([...sections.keys()].sort()).toEqual(errorCodes());
  for (const [family, type] of [
    ['ENROLMENT', 'EnrolmentFault'],
    ['PASSPHRASE', 'PassphraseFault'],
    ['PROXY', 'ProxyFault'],
  ] as const) {
    const text = sections.get(`ERR_PRESENCE_${family}_*`)!;
    for (const member of membersOf(type)) expect(text, type).toContain(`\`${member}\``);
  }
});

test('says something below each heading', () => {
  for (const title of ['Verdicts', 'Close codes', 'Error codes']) {
    for (const [name, text] of sectionsOf(title)) {
      expect(text.split('\n').slice(1).join('').trim().length, name).toBeGreaterThan(20);
    }
  }
});
