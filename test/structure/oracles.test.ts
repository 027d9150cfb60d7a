import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { readTree } from './source-tree.ts';

const tree = readTree('test');

/** What a file imports at run time, from `src` or other files of `test`; not what it imports for types alone. */
function valuesOf(path: string): readonly string[] {
  const text = readFileSync(path, 'utf8').replace(/^import type [^;]*;$/gm, '');
  return [...text.matchAll(/ from '(\.[^']*)'/g)].map(([, specifier]) => specifier!);
}

/** The files of these paths or folders. */
function filesOf(...paths: readonly string[]): readonly string[] {
  const files = tree.map(({ path }) => path);
  const found = files.filter((file) => paths.some((path) => file.startsWith(path)));
  return found.filter((file) => !file.endsWith('.test.ts'));
}

describe('what judges the library shares no code with it', () => {
  const BUILDERS = ['packets', 'bytes', 'vnet', 'checksum', 'address', 'random', 'datagrams'];

  test.each(
    filesOf(
      'test/oracle/',
      'test/conformance/',
      ...BUILDERS.map((name) => `test/support/${name}.ts`)
    )
  )('%s', (path) => {
    expect(valuesOf(path).filter((specifier) => specifier.includes('/src/'))).toEqual([]);
  });

  test('test/conformance/verify.ts shares none with the builders either', () => {
    expect(valuesOf('test/conformance/verify.ts')).toEqual([]);
  });
});
