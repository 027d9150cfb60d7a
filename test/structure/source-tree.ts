/**
 * The files of a folder and what each imports, as the TypeScript compiler reads it.
 * @module
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import ts from 'typescript';

export interface SourceFile {
  /** The path from the repository's root: `src/dns/zone.ts`. */
  readonly path: string;
  /** The folder directly below `src` or `examples`, or the file's own name there. */
  readonly module: string;
  readonly lines: number;
  /** Paths of the files that it imports, for types alone too. */
  readonly files: readonly string[];
  /** Packages that it imports, for types alone too: `valibot`, `node:net`. */
  readonly packages: readonly string[];
}

export function readTree(root: string): SourceFile[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .sort()
    .map((name) => readSource(join(root, name)));
}

export function moduleOf(path: string): string {
  return path.split('/')[1]!.replace(/\.ts$/, '');
}

/** The first cycle of imports among the files, as a path back to where it began. */
export function findCycle(
  files: readonly Pick<SourceFile, 'path' | 'files'>[]
): string[] | undefined {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const done = new Set<string>();
  const trail: string[] = [];
  const visit = (path: string): string[] | undefined => {
    if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path];
    if (done.has(path)) return undefined;
    trail.push(path);
    for (const next of byPath.get(path)?.files ?? []) {
      const cycle = visit(next);
      if (cycle !== undefined) return cycle;
    }
    trail.pop();
    done.add(path);
    return undefined;
  };
  for (const { path } of files) {
    const cycle = visit(path);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

function readSource(path: string): SourceFile {
  const text = readFileSync(path, 'utf8');
  const { importedFiles } = ts.preProcessFile(text, true, true);
  const specifiers = importedFiles.map(({ fileName }) => fileName);
  const isFile = (specifier: string) => specifier.startsWith('.');
  return {
    path,
    module: moduleOf(path),
    lines: text.split('\n').length - 1,
    files: specifiers.filter(isFile).map((specifier) => normalize(join(dirname(path), specifier))),
    packages: specifiers.filter((specifier) => !isFile(specifier)),
  };
}
