/** The scripts on our endpoint, in simulated time. */
import { describe, test } from 'vitest';
import { readCases } from './cases.ts';
import { runScript } from './runner.ts';
import { stackSubject } from './stack.ts';

const seed = Number(process.env.VP_SEED ?? 1);
const wanted = new RegExp(process.env.VP_SCRIPT ?? '');

describe(`scripts on the stack (VP_SEED=${seed})`, () => {
  const scripts = readCases()
    .filter(({ subjects }) => subjects.includes('stack'))
    .filter(({ place, title }) => wanted.test(`${place} ${title}`));
  for (const script of scripts) {
    test(`${script.place} ${script.title}`, async () => {
      for (const family of script.families) {
        for (const offload of [false, true]) {
          await runScript(script, stackSubject({ family, seed, offload }));
        }
      }
    });
  }
});
