/**
 * Measures the built-in mix for longer than the command does, and writes the figures into the file of the first argument.
 * `reference.ts` runs it.
 * @module
 */
import { writeFileSync } from 'node:fs';
import { measureMix } from '../src/replay/index.ts';

const [target, ...options] = process.argv.slice(2);
const { machine, timing } = await measureMix({ effort: { rounds: 15, roundMs: 100 } });
const round = (value: number): number => Number(value.toPrecision(3));
const figures = JSON.stringify(
  { machine, timing },
  (_, value) => (typeof value === 'number' && !Number.isInteger(value) ? round(value) : value),
  2
);
console.log(figures);
if (!options.includes('--print')) writeFileSync(target!, `${figures}\n`);
