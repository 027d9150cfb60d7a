import { compare } from '../oracle/tcp/compare.ts';
import { differsOnPurpose, ENDPOINT_CHOICES } from './endpoint-choices.ts';
import { EndpointImplementation } from './endpoint-implementation.ts';

const ENDPOINT = ENDPOINT_CHOICES,
  leavesOut = differsOnPurpose;
const first = Number(process.argv[2] ?? 1),
  last = Number(process.argv[3] ?? first),
  tail = Number(process.argv[4] ?? 12);
const kinds = new Map<string, number[]>();
for (let seed = first; seed <= last; seed++) {
  try {
    compare(seed, (random) => new EndpointImplementation(random), {
      choices: ENDPOINT,
      leavesOut,
      throttleMs: 500,
      steps: Number(process.env.STEPS ?? 60),
      timeWaitMs: 60_000,
    });
  } catch (e) {
    const lines = String((e as Error).message).split('\n');
    if (first === last) {
      console.log(lines[0]);
      console.log(lines.slice(1).slice(-tail).join('\n'));
      if (!lines[0]!.startsWith('seed')) console.log(e);
    }
    const kind = lines[0]!
      .replace(/^seed \d+: /, '')
      .replace(/\d+/g, 'N')
      .slice(0, 200);
    kinds.set(kind, [...(kinds.get(kind) ?? []), seed]);
  }
}
for (const [k, s] of [...kinds].sort((a, b) => b[1].length - a[1].length))
  console.log(s.length, k, s.slice(0, 4).join(','));
