/**
 * Builds the measurement of a benchmark like the package, and runs it in plain Node.
 *
 * The loader that runs the benchmark passes ArrayBuffers between threads. Once one has been detached, V8 checks at each
 * access to any typed array whether it still has its buffer, which users of the package do not pay for.
 * @module
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { build } from 'tsup';
import { options } from '../tsup.config.ts';

/**
 * Runs a program with `--expose-gc`. The exit code of this process is that of the program.
 *
 * @param source the path of the program, which ends with `.ts`
 */
export async function runInPlainNode(source: string, programArguments: string[]): Promise<void> {
  // Where Node finds the packages that the built file imports.
  const output = join(import.meta.dirname, '../node_modules/.cache', `bench-${process.pid}`);
  process.on('exit', () => rmSync(output, { recursive: true, force: true }));
  await build({
    ...options,
    config: false,
    entry: [source],
    outDir: output,
    format: 'esm',
    dts: false,
    sourcemap: false,
    silent: true,
  });
  const { status } = spawnSync(
    process.execPath,
    ['--expose-gc', join(output, `${basename(source, '.ts')}.js`), ...programArguments],
    { stdio: 'inherit' }
  );
  process.exitCode = status ?? 1;
}
