/**
 * Builds the program of `memory-worker.ts`, so that it runs whatever loader the test runner has.
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
    // It is for real TUNs, and is loaded when one is opened.
    external: ['koffi'],
    logLevel: 'silent',
  });
  return { path, remove: () => rm(folder, { recursive: true, force: true }) };
}
