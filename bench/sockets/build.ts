/**
 * Builds this benchmark's programs for Node as `bench/gateway/gateway-build.ts` builds the gateways.
 * @module
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'tsup';
import { options } from '../../tsup.config.ts';
import { compileC } from '../gateway/compile.ts';

/** Paths of programs for Node. */
export interface SocketPrograms {
  readonly client: string;
  readonly gateway: string;
  readonly local: string;
  readonly service: string;
  readonly sidecar: string;
}

/** They are removed when this process ends. */
export async function buildSocketPrograms(): Promise<SocketPrograms> {
  const root = join(import.meta.dirname, '../..');
  // Where Node finds the packages that the built files import.
  const output = join(root, 'node_modules/.cache', `bench-sockets-${process.pid}`);
  process.on('exit', () => rmSync(output, { recursive: true, force: true }));
  await build({
    ...options,
    config: false,
    entry: Object.fromEntries(NAMES.map((name) => [name, join(import.meta.dirname, `${name}.ts`)])),
    external: ['koffi'],
    outDir: output,
    format: 'esm',
    dts: false,
    sourcemap: false,
    silent: true,
  });
  const paths = NAMES.map((name) => [name, join(output, `${name}.js`)]);
  return Object.fromEntries(paths) as unknown as SocketPrograms;
}

/** Compiles `service.c` into this directory; returns the path of the program. */
export function compileService(directory: string): string {
  return compileC(join(import.meta.dirname, 'service.c'), directory);
}

const NAMES: readonly (keyof SocketPrograms)[] = [
  'client',
  'gateway',
  'local',
  'service',
  'sidecar',
];
