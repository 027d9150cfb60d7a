import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import config from '../../vitest.config.ts';
import { isAt, longest, projects } from '../projects.ts';
import { readTree, type SourceFile } from './source-tree.ts';

const tree = readTree('test');
const tests = tree.map(({ path }) => path).filter((path) => path.endsWith('.test.ts'));
const listed = Object.values(projects).flat();
const quick = tests.filter((file) => !listed.some((path) => isAt(path, file)));

/** The files and all that they import within `test/`. */
function withImports(files: readonly string[]): readonly SourceFile[] {
  const byPath = new Map(tree.map((file) => [file.path, file]));
  const found = new Set<string>();
  const visit = (path: string): void => {
    if (found.has(path) || !byPath.has(path)) return;
    found.add(path);
    for (const next of byPath.get(path)!.files) visit(next);
  };
  for (const file of files) visit(file);
  return [...found].map((path) => byPath.get(path)!);
}

describe('the projects of the tests', () => {
  test('are those of the configuration', () => {
    const names = config.test?.projects?.map((project) =>
      typeof project === 'object' && 'test' in project ? project.test?.name : project
    );
    expect(names).toEqual(['quick', ...Object.keys(projects)]);
  });

  test.each(listed)('list %s, which exists', (path) => {
    expect(existsSync(path)).toBe(true);
    expect(tests.filter((file) => isAt(path, file))).not.toEqual([]);
  });

  test.each(longest)('run %s among the first, which exists', (path) => {
    expect(tests).toContain(path);
  });

  test('have each test file in one project', () => {
    for (const file of tests) {
      expect(listed.filter((path) => isAt(path, file)).length, file).toBeLessThanOrEqual(1);
    }
  });
});

/** The files of this project share the modules that they load. */
describe('the quick project', () => {
  const files = withImports(quick).map(({ path }) => ({ path, text: readFileSync(path, 'utf8') }));

  test('mocks no module', () => {
    const mocking = files.filter(({ text }) => /^vi\.(mock|doMock)\(/m.test(text));
    expect(mocking.map(({ path }) => path)).toEqual([]);
  });

  test('imports no file that registers hooks, which would work for its first importer alone', () => {
    const hooking = files.filter(
      ({ path, text }) => !path.endsWith('.test.ts') && /^(before|after)(Each|All)\(/m.test(text)
    );
    expect(hooking.map(({ path }) => path)).toEqual([]);
  });

  test('starts no gateway, and makes no namespace', () => {
    const support = ['gateway-process', 'namespace', 'network'].map((n) => `test/support/${n}.ts`);
    expect(files.map(({ path }) => path).filter((path) => support.includes(path))).toEqual([]);
  });
});
