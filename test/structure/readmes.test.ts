/** The tables of files in the READMEs of modules, against the files that there are. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const ROOT = 'src';

/** A table whose first column is `file`, up to the first line that is no row. */
const TABLE = /^\| file \|.*\n\| --- \|.*\n((?:\|.*\n)+)/m;

interface Table {
  readonly module: string;
  /**
   * The names in the first column; a `*` stands for any part of a name. A name that ends with `/` is a folder, in
   * which the files of the rows below are.
   */
  readonly names: readonly string[];
}

const tables: readonly Table[] = readdirSync(ROOT).flatMap((module) => {
  const path = join(ROOT, module, 'README.md');
  const table = existsSync(path) ? TABLE.exec(readFileSync(path, 'utf8')) : null;
  if (table === null) return [];
  const cells = table[1]!.trim().split('\n');
  let folder = '';
  const names = cells.flatMap((row) => {
    const found = [...row.split('|')[1]!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);
    if (found[0]?.endsWith('/') !== true) return found.map((name) => folder + name);
    folder = found[0];
    return [];
  });
  return [{ module, names }];
});

function isNamed(file: string, name: string): boolean {
  const [before, ...after] = name.split('*');
  if (after.length === 0) return file === name;
  const last = after.join('*');
  return file.length >= name.length && file.startsWith(before!) && file.endsWith(last);
}

test('most modules have a table of files', () => {
  expect(tables.length).toBeGreaterThan(10);
});

test.each(tables)(
  'the table of src/$module names every file, and no other',
  ({ module, names }) => {
    const files = readdirSync(join(ROOT, module), { recursive: true, encoding: 'utf8' }).filter(
      (file) => file.endsWith('.ts')
    );
    const unnamed = files.filter(
      (file) => file !== 'index.ts' && !names.some((name) => isNamed(file, name))
    );
    expect(unnamed).toEqual([]);
    expect(names.filter((name) => !files.some((file) => isNamed(file, name)))).toEqual([]);
  }
);
