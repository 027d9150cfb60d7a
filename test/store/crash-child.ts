/**
 * Commits until it is killed, and prints the number of each acknowledged commit. Run by file.test.ts.
 * @module
 */
import { writeSync } from 'node:fs';
import { FileStore } from '../../src/store/index.ts';

const store = await FileStore.open({ path: process.argv[2]!, compactAboveBytes: 20_000 });
let next = (await store.list('')).length;

async function writer(): Promise<void> {
  for (;;) {
    const number = next++;
    await store.commit([
      { key: `n/${number}`, value: number, expect: 0 },
      { key: 'last', value: { number, padding: 'x'.repeat(100) } },
    ]);
    writeSync(1, `${number}\n`);
  }
}

await Promise.all(Array.from({ length: 8 }, writer));
