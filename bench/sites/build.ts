/**
 * Builds this benchmark's programs for Node as `bench/gateway/gateway-build.ts` builds the gateways.
 * @module
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'tsup';
import { options } from '../../tsup.config.ts';

/** Paths of programs for Node. */
export interface SitePrograms {
  readonly farm: string;
  readonly memoryProbe: string;
}

/** They are removed when this process ends. */
export async function buildSitePrograms(): Promise<SitePrograms> {
  const root = join(import.meta.dirname, '../..');
  // Where Node finds the packages that the built files import.
  const output = join(root, 'node_modules/.cache', `bench-sites-${process.pid}`);
  process.on('exit', () => rmSync(output, { recursive: true, force: true }));
  await build({
    ...options,
    config: false,
    entry: {
      farm: join(import.meta.dirname, 'farm.ts'),
      'memory-probe': join(import.meta.dirname, 'memory-probe.ts'),
    },
    outDir: output,
    format: 'esm',
    dts: false,
    sourcemap: false,
    silent: true,
  });
  return { farm: join(output, 'farm.js'), memoryProbe: join(output, 'memory-probe.js') };
}
