/**
 * A program that copies what `prepare.js` has written to an etcd, and ends:
 *
 *     node fill.js FILE PORT
 *
 * @module
 */
import { FileStore, type Write } from '../../src/store/index.ts';
import { openEtcd } from './place.ts';

const COMMITS_AT_ONCE = 16;
const [path, port] = process.argv.slice(2);
const file = await FileStore.open({ path: path! });
const store = await openEtcd(Number(port));
const writes: Write[] = (await file.list('')).map(({ key, value }) => ({ key, value }));
let next = 0;
async function copy(): Promise<void> {
  while (next < writes.length) {
    const part = writes.slice(next, next + store.maxWrites);
    next += part.length;
    await store.commit(part);
  }
}
await Promise.all(Array.from({ length: COMMITS_AT_ONCE }, copy));
await store.close();
await file.close();
