/**
 * Many cases from one seed: each has random numbers of its own, so that one can be run again alone. Memory is
 * measured, so that no case leaves anything behind.
 *
 * `VP_FUZZ` is the number of cases, `VP_SEED` the seed, `VP_CASE` the only case to run.
 * @module
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect } from 'vitest';
import { Random } from '../support/random.ts';

export const CASES: number = Number(process.env.VP_FUZZ ?? 20_000);
/** The seed: the same in every run of all tests, a random one for many cases. */
export const SEED: number = Number(
  process.env.VP_SEED ?? (process.env.VP_FUZZ === undefined ? 1 : Date.now() % 1_000_000)
);
/** The time limit for so many cases, in ms. */
export const TIMEOUT_MS: number = 60_000 + 2 * CASES;

/** The number of cases by outcome. */
export type Tally = Record<string, number>;

/**
 * Runs all cases; each returns its outcome. An error ends the test, and is reported with the seed and the case.
 *
 * @param most how many more bytes of memory may be in use after all cases than after the first tenth
 */
export async function fuzz(
  name: string,
  run: (random: Random, number: number) => string | Promise<string>,
  most: number = MOST_GROWN_BYTES
): Promise<Tally> {
  const alone = process.env.VP_CASE;
  const first = alone === undefined ? 0 : Number(alone);
  const end = alone === undefined ? CASES : first + 1;
  const tally: Tally = {};
  let warmBytes = 0;
  for (let number = first; number < end; number++) {
    try {
      const running = run(new Random(SEED + Math.imul(number, 0x9e3779b1)), number);
      const outcome = typeof running === 'string' ? running : await running;
      tally[outcome] = (tally[outcome] ?? 0) + 1;
    } catch (cause) {
      const { message } = cause as Error;
      throw new Error(`${name}: VP_SEED=${SEED} VP_CASE=${number}: ${message}`, { cause });
    }
    if (number === Math.floor(CASES / 10)) warmBytes = await bytesInUse();
  }
  if (alone !== undefined) return tally;
  const grown = (await bytesInUse()) - warmBytes;
  const kib = Math.round(grown / 1024);
  console.log(`${name}: ${CASES} cases, seed ${SEED}, ${kib} KiB grown, ${JSON.stringify(tally)}`);
  expect(grown, `${name}: bytes in use grow`).toBeLessThan(most);
  return tally;
}

/** Like `expect`, which is too slow to be called a million times. */
export function check(isSo: boolean, fault: string): void {
  if (!isSo) throw new Error(fault);
}

/** Returns the bytes with one to eight faults. */
export function mutate(random: Random, original: Uint8Array): Buffer {
  let bytes = Buffer.from(original);
  for (let faults = random.pick([1, 1, 1, 2, 3, 8]); faults > 0; faults--) {
    const at = random.below(bytes.length + 1);
    const length = Math.min(random.pick([1, 2, 4, 16, 200]), bytes.length - at);
    switch (random.below(7)) {
      case 0:
        if (at < bytes.length) bytes[at]! ^= 1 << random.below(8);
        break;
      case 1:
        if (at < bytes.length) bytes[at] = random.pick(EDGES);
        break;
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
        break;
      case 3:
        bytes = Buffer.concat([
          bytes.subarray(0, at),
          random.bytes(random.between(1, 16)),
          bytes.subarray(at),
        ]);
        break;
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]);
        break;
      case 5:
        bytes = bytes.subarray(0, at);
        break;
      case 6:
        bytes.set(random.bytes(length), at);
        break;
    }
  }
  return bytes;
}

/** Returns the memory that is in use after a garbage collection. The memory of buffers is freed a little later. */
async function bytesInUse(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    collectGarbage();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');
const EDGES = [0, 1, 0x20, 0x22, 0x30, 0x5c, 0x7b, 0x7f, 0x80, 0x82, 0xfe, 0xff];
const MOST_GROWN_BYTES: number = 3 << 20;
