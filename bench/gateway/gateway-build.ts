/**
 * Builds the command like the package, for plain Node: under the loader of this benchmark every access
 * to a typed array is slower.
 * @module
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'tsup';
import { options } from '../../tsup.config.ts';

/** What Node runs. */
export interface GatewayPrograms {
  /** The program and its command; the path of a configuration file follows. */
  readonly cloud: readonly string[];
  readonly edge: readonly string[];
  /** Both data planes in one process, for `--quick`. */
  readonly quick: string;
}

/** They are removed when this process ends. */
export async function buildGateways(): Promise<GatewayPrograms> {
  const root = join(import.meta.dirname, '../..');
  // Where Node finds the packages that the built files import.
  const output = join(root, 'node_modules/.cache', `bench-gateway-${process.pid}`);
  process.on('exit', () => rmSync(output, { recursive: true, force: true }));
  await build({
    ...options,
    config: false,
    entry: {
      'virtual-presence': join(root, 'src/cli/main.ts'),
      // What the cloud gateway runs where it has several processes; it looks for it beside itself.
      'worker-main': join(root, 'src/worker/worker-main.ts'),
      quick: join(import.meta.dirname, 'quick.ts'),
    },
    outDir: output,
    format: 'esm',
    dts: false,
    sourcemap: false,
    silent: true,
  });
  const at = (name: string) => join(output, `${name}.js`);
  const command = at('virtual-presence');
  return { cloud: [command, 'cloud'], edge: [command, 'edge'], quick: at('quick') };
}
