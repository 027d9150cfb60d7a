/**
 * Runs `measure.ts` in plain Node:
 *
 *     node --import tsx bench/translator.ts [--json] [--quick] [--check] [--shape NAME] [--paths N]
 *
 * @module
 */
import { join } from 'node:path';
import { runInPlainNode } from './plain-node.ts';

const directory = import.meta.dirname;
await runInPlainNode(join(directory, 'measure.ts'), [directory, ...process.argv.slice(2)]);
