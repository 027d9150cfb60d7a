/**
 * Bundles the command once for a run of the tests. A bundled program starts in a quarter of the time that
 * it takes as TypeScript, and the tests start some hundreds of them.
 * @module
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { build, type Plugin } from 'esbuild';

/** In the repository, because the programs import packages. */
const CACHE = 'node_modules/.cache';

/** Vitest calls it before the tests, and what it returns after them. */
export default async function setup(): Promise<() => void> {
  const directory = await bundleGateways();
  process.env.VP_BUNDLED_GATEWAYS = directory;
  return () => rmSync(directory, { recursive: true });
}

/** Returns the directory of a new bundle, which is removed by the caller. */
export async function bundleGateways(plugins: Plugin[] = []): Promise<string> {
  mkdirSync(CACHE, { recursive: true });
  const directory = mkdtempSync(`${CACHE}/bundled-gateways-`);
  // Some tests start a gateway as another user.
  chmodSync(directory, 0o755);
  await build({
    entryPoints: {
      'virtual-presence': 'src/cli/main.ts',
      // A gateway looks for the program of its workers beside itself.
      'worker-main': 'src/worker/worker-main.ts',
    },
    outdir: directory,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    packages: 'external',
    platform: 'node',
    target: 'node20',
    format: 'esm',
    plugins,
  });
  return directory;
}
