/**
 * Packs the package, as publishing does.
 * @module
 */
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';

const BUILT_FROM = ['package.json', 'src', 'tsup.config.ts', 'tsconfig.json'];
const OTHER_SOURCES = [
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
  'SECURITY.md',
  'docs',
  'schemas',
  'systemd',
  'grafana',
  'prometheus',
];
/** The build writes the declarations last. */
const LAST_BUILT = 'dist/index.d.cts';

/**
 * Packs a copy of the sources in a new folder of `directory`, and returns the path of the tarball. The build takes half a
 * minute of both cores, so what `npm install` has built is used if nothing has changed since.
 */
export function pack(directory: string): string {
  const copy = join(directory, 'copy');
  mkdirSync(copy);
  const isBuilt = isDistCurrent();
  for (const name of [...BUILT_FROM, ...OTHER_SOURCES, ...(isBuilt ? ['dist'] : [])]) {
    cpSync(name, join(copy, name), { recursive: true });
  }
  // What `npm run docs` leaves.
  mkdirSync(join(copy, 'docs/api'), { recursive: true });
  writeFileSync(join(copy, 'docs/api/index.html'), '');
  symlinkSync(resolve('node_modules'), join(copy, 'node_modules'));
  // Without the option it runs "prepare", and so the build.
  const options = ['--pack-destination', directory, ...(isBuilt ? ['--ignore-scripts'] : [])];
  execFileSync('npm', ['pack', ...options], { cwd: copy, stdio: 'pipe' });
  return join(directory, readdirSync(directory).find((name) => name.endsWith('.tgz'))!);
}

/** Whether all files of `dist` are there, and newer than all that they are built from. */
function isDistCurrent(): boolean {
  if (!existsSync(LAST_BUILT)) return false;
  return Math.max(...BUILT_FROM.flatMap(changesOf)) < Math.min(...changesOf('dist'));
}

/** Returns when each file at or below a path was last changed, in ms. */
function changesOf(path: string): number[] {
  const files = statSync(path).isDirectory()
    ? readdirSync(path, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name))
    : [path];
  return files.map((file) => statSync(file).mtimeMs);
}
