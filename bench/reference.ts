/**
 * `npm run bench:reference`: measures the built-in mix of `virtual-presence bench` in plain Node and writes the figures
 * that the package ships, `src/replay/reference-figures.json`. `--print` writes nothing.
 * @module
 */
import { join } from 'node:path';
import { runInPlainNode } from './plain-node.ts';

const target = join(import.meta.dirname, '../src/replay/reference-figures.json');
await runInPlainNode(join(import.meta.dirname, 'reference-measure.ts'), [
  target,
  ...process.argv.slice(2),
]);
