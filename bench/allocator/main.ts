/**
 * Measures leases of `AddressAllocator` in a pool that is more or less full:
 *
 *     node --import tsx bench/allocator/main.ts [--json] [--quick] [--rounds N] [--seconds N]
 *
 * The method is in README.md.
 * @module
 */
import { join } from 'node:path';
import { runInPlainNode } from '../plain-node.ts';

await runInPlainNode(join(import.meta.dirname, 'measure.ts'), process.argv.slice(2));
