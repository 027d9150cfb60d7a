/**
 * Builds `measure.ts` like the package, and runs it in plain Node:
 *
 *     node --import tsx bench/translator.ts [--json] [--quick] [--check] [--shape NAME] [--paths N]
 *
 * The loader that runs this file passes ArrayBuffers between threads. Once one has been detached, V8 checks at
 * each access to any typed array whether it still has its buffer, which users of the package do not pay for.
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
