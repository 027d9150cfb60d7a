/**
 * A `TcpEndpoint` against the oracle, which is a second implementation of RFC 9293 section 3.10: the same random calls
 * and segments, compared after each.
 *
 * `VP_SEED` sets the first seed, `VP_RUNS` how many. A failure prints its seed and all steps.
 */
import { expect, test } from 'vitest';
import { compare } from '../oracle/tcp/compare.ts';
import type { State } from '../oracle/tcp/tcb.ts';
import { differsOnPurpose, ENDPOINT_CHOICES } from './endpoint-choices.ts';
import { EndpointImplementation } from './endpoint-implementation.ts';

const SEED = Number(process.env.VP_SEED ?? 1);
const RUNS = Number(process.env.VP_RUNS ?? 300);
const STEPS = 60;

test.each([
  ['', false],
  [' with held handshakes', true],
])('an endpoint%s does what the oracle says, in any state', (_, isHeld) => {
  const states = new Set<State>();
  for (let seed = SEED; seed < SEED + RUNS; seed++) {
    const outcome = compare(seed, (random) => new EndpointImplementation(random, isHeld), {
      choices: ENDPOINT_CHOICES,
      leavesOut: differsOnPurpose,
      throttleMs: 500,
      steps: STEPS,
      timeWaitMs: 60_000,
    });
    for (const state of outcome.states) states.add(state);
  }
  if (RUNS >= 300) expect(states.size).toBe(11);
});
