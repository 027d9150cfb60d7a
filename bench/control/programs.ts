/**
 * Builds the programs of this benchmark for plain Node, like the package, and runs them.
 * @module
 */
import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { build } from 'tsup';
import { options } from '../../tsup.config.ts';

const PROGRAMS = [
  'prepare',
  'fill',
  'measures',
  'receipts',
  'revocations',
  'storm',
  'commits',
] as const;
/** Keyed by program: its path. */
export type Programs = Readonly<Record<(typeof PROGRAMS)[number], string>>;

/** Runs a program and returns what it prints. */
export async function run(argv: readonly (string | number)[]): Promise<string> {
  const child = promisify(execFile)(process.execPath, ['--expose-gc', ...argv.map(String)], {
    maxBuffer: MAX_OUTPUT_BYTES,
  });
  child.child.stderr!.pipe(process.stderr);
  try {
    return (await child).stdout;
  } catch (error) {
    throw new Error(`${argv.join(' ')} has failed`, { cause: error });
  }
}

/** Builds the programs. They are removed when this process ends. */
export async function buildPrograms(): Promise<Programs> {
  const root = join(import.meta.dirname, '../..');
  // Where Node finds the packages that the built files import.
  const output = join(root, 'node_modules/.cache', `bench-control-${process.pid}`);
  process.on('exit', () => rmSync(output, { recursive: true, force: true }));
  const names = [...PROGRAMS, 'stream-source', 'revocation-edge'];
  await build({
    ...options,
    config: false,
    entry: Object.fromEntries(names.map((name) => [name, join(import.meta.dirname, `${name}.ts`)])),
    outDir: output,
    format: 'esm',
    dts: false,
    sourcemap: false,
    silent: true,
  });
  const paths = PROGRAMS.map((name) => [name, join(output, `${name}.js`)]);
  return Object.fromEntries(paths) as Programs;
}

/** More than a line of JSON. */
const MAX_OUTPUT_BYTES = 1 << 24;
