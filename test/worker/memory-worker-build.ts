/**
 * Builds the program of `memory-worker.ts`, so that it runs without the loader of the test runner.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';

export interface WorkerProgram {
  readonly path: string;
  remove(): Promise<void>;
}

export async function buildMemoryWorker(): Promise<WorkerProgram> {
  const folder = await mkdtemp(join(tmpdir(), 'memory-worker-'));
  const path = join(folder, 'memory-worker.cjs');
  await build({
    entryPoints: [join(import.meta.dirname, 'memory-worker.ts')],
    outfile: path,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    // Only real TUNs need it, and load it when they are opened.
    external: ['koffi'],
    logLevel: 'silent',
  });
  return { path, remove: () => rm(folder, { recursive: true, force: true }) };
}
