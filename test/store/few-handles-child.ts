/**
 * Opens all file descriptors that the process may have except one, and commits until the store tries to rewrite its
 * file. Prints the outcome of each commit. Run by faults.test.ts with few descriptors.
 * @module
 */
import { closeSync, openSync, statSync } from 'node:fs';
import { FileStore } from '../../src/store/index.ts';

const path = process.argv[2]!;
const store = await FileStore.open({ path, compactAboveBytes: 2000, compactRatio: 1 });

const taken: number[] = [];
try {
  for (;;) taken.push(openSync('/dev/null', 'r'));
} catch (error) {
  if ((error as NodeJS.ErrnoException).code !== 'EMFILE') throw error;
}
closeSync(taken.pop()!);

async function commit(count: number): Promise<number> {
  let refused = 0;
  for (let i = 0; i < count; i++) {
    await store.commit([{ key: 'a', value: 'x'.repeat(100) + i }]).catch(() => refused++);
  }
  return refused;
}

const refusedWithout = await commit(50);
for (const fd of taken) closeSync(fd);
const refusedAfter = await commit(50);
console.log(JSON.stringify({ refusedWithout, refusedAfter, bytes: statSync(path).size }));
await store.close();
