/**
 * For how long a client notices nothing of a service when the machine that holds its site is killed, or its network is
 * cut, beside the seconds before:
 *
 *     node --import tsx bench/takeover/main.ts [--rounds N] [--fast] [--json]
 *
 * A client receives a TCP transfer, and exchanges a UDP request and its answer every 10 ms. A gap is the longest time in
 * which one of them receives nothing, in ms. With `--fast`, etcd's heartbeat is 50 ms and its election timeout 500 ms, and
 * leases last 1 s; the default is that of etcd, and 2 s. `npm run bench:control -- --etcd` measures both.
 * @module
 */
import { parseArgs } from 'node:util';
import { targetTableOf } from '../gateway/report.ts';
import { wholeNumber } from '../gateway/whole-number.ts';
import { takeoverRowsOf, takeoverTableOf, takeoverTargetsOf } from './report.ts';
import { measureTakeovers, whyNoTakeover } from './rounds.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      fast: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const missing = whyNoTakeover();
  if (missing !== undefined) throw new Error(missing);
  const rounds = wholeNumber('rounds', values.rounds);
  const takeovers = await measureTakeovers(values.fast ? 'fast' : 'default', rounds, (...each) => {
    const [round, fault, { tcpMs, udpMs }] = each;
    console.log(`round ${round}, ${fault}: TCP ${tcpMs} ms, UDP ${udpMs} ms`);
  });
  const targets = takeoverTargetsOf(takeovers);
  console.log(`\n${takeoverTableOf(takeovers)}\n\n${targetTableOf(targets, '')}\n`);
  if (!values.json) return;
  console.log(JSON.stringify({ ...takeovers, rows: takeoverRowsOf(takeovers), targets }));
}

await main().catch((error: Error) => {
  console.error(`bench:takeover: ${error.message}`);
  process.exitCode = 1;
});
