/**
 * Measures leases of `AddressAllocator` in a pool that is more or less full:
 *
 *     node --import tsx bench/allocator/main.ts [--json] [--quick] [--rounds N] [--seconds N]
 *
 * It builds `measure.ts` like the package, and runs it in plain Node. The method is in README.md.
 * @module
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'tsup';
import { options } from '../../tsup.config.ts';

// Where Node finds the packages that the built file imports.
const output = join(
  import.meta.dirname,
  '../../node_modules/.cache',
  `bench-allocator-${process.pid}`
);
process.on('exit', () => rmSync(output, { recursive: true, force: true }));
await build({
  ...options,
  config: false,
  entry: [join(import.meta.dirname, 'measure.ts')],
  outDir: output,
  format: 'esm',
  dts: false,
  sourcemap: false,
  silent: true,
});
const { status } = spawnSync(
  process.execPath,
  ['--expose-gc', join(output, 'measure.js'), ...process.argv.slice(2)],
  { stdio: 'inherit' }
);
process.exitCode = status ?? 1;
