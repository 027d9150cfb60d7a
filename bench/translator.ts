/**
 * Builds `measure.ts` as the package is built, and runs it by Node alone:
 *
 *     node --import tsx bench/translator.ts [--json] [--quick] [--check] [--shape NAME] [--paths N]
 *
 * The loader that this file runs under passes ArrayBuffers between threads. Once one has been detached, V8
 * asks at each access to any typed array whether it still has its buffer, which nobody who uses the package
 * pays for.
 * @module
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'tsup';
import { options } from '../tsup.config.ts';

const directory = import.meta.dirname;
// Where Node finds the packages that the built file imports.
const output = join(directory, '..', 'node_modules', '.cache', `bench-${process.pid}`);

await build({
  ...options,
  config: false,
  entry: [join(directory, 'measure.ts')],
  outDir: output,
  format: 'esm',
  dts: false,
  sourcemap: false,
  silent: true,
});
const { status } = spawnSync(
  process.execPath,
  ['--expose-gc', join(output, 'measure.js'), directory, ...process.argv.slice(2)],
  { stdio: 'inherit' }
);
rmSync(output, { recursive: true });
process.exitCode = status ?? 1;
