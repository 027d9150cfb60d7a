/**
 * A program that measures commits to an etcd, and prints one line of JSON:
 *
 *     node --expose-gc commits.js PORT SECONDS
 *
 * @module
 */
import type { EtcdStore } from '../../src/etcd/index.ts';
import { median } from '../gateway/median.ts';
import { rounded } from '../gateway/report.ts';
import { openEtcd } from './place.ts';

/** Commits of one entry, until the store of this process shows it. */
export interface CommitFigures {
  /** One after the other. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly mostMs: number;
  /** With 64 under way at a time. */
  readonly perSecond: number;
}

async function commitsFor(store: EtcdStore, seconds: number, key: string): Promise<number[]> {
  const times: number[] = [];
  const endMs = performance.now() + 1000 * seconds;
  for (let startMs = performance.now(); startMs < endMs; ) {
    await store.commit([{ key, value: { text: VALUE, number: times.length } }]);
    const nowMs = performance.now();
    times.push(nowMs - startMs);
    startMs = nowMs;
  }
  await store.commit([{ key, value: undefined }]);
  return times;
}

const VALUE = 'x'.repeat(150);
const AT_ONCE = 64;
const [port, secondsText] = process.argv.slice(2);
const seconds = Number(secondsText);
const store = await openEtcd(Number(port));
const single = (await commitsFor(store, seconds, 'bench/0')).sort((a, b) => a - b);
const many = await Promise.all(
  Array.from({ length: AT_ONCE }, (_, i) => commitsFor(store, seconds, `bench/${i}`))
);
await store.close();
const figures: CommitFigures = {
  p50Ms: rounded(median(single)),
  p99Ms: rounded(single[Math.floor(0.99 * single.length)]!),
  mostMs: rounded(single.at(-1)!),
  perSecond: rounded(many.flat().length / seconds),
};
console.log(JSON.stringify(figures));
