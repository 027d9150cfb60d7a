/**
 * For how long a client notices nothing of a service when the machine that holds its site is killed, or its network is
 * cut, beside the same time without a fault:
 *
 *     node --import tsx bench/takeover/main.ts [--rounds N] [--fast] [--json]
 *
 * Two machines on one etcd, a site and a service, in namespaces (`test/e2e/several-machines-scene.ts`). A client pings the
 * service every 10 ms and receives a TCP transfer. A gap is the longest time between two answers, or without a byte of
 * the transfer, in ms. With `--fast`, etcd's heartbeat is 50 ms and its election timeout 500 ms, and leases last 1 s; the
 * default is that of etcd, and 2 s.
 * @module
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type Machine, MachinesScene } from '../../test/e2e/several-machines-scene.ts';
import { resolve, Transfer } from '../../test/e2e/several-processes-scene.ts';
import { killGateways } from '../../test/support/gateway-process.ts';
import { Network, whatIsMissing } from '../../test/support/network.ts';

interface Gaps {
  readonly pingMs: number;
  readonly tcpMs: number;
}

const FAULTS = ['none', 'machine killed', 'network cut'] as const;
type Fault = (typeof FAULTS)[number];

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      fast: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const missing = whatIsMissing({ bash: 'bash', etcd: 'etcd-server', ping: 'iputils-ping' });
  if (missing !== undefined) throw new Error(missing);
  const directory = mkdtempSync(join(tmpdir(), 'vp-bench-takeover-'));
  const network = await Network.create(mkdtempSync(join(directory, 'network-')));
  try {
    const timing = values.fast
      ? { ttlSeconds: 1, etcd: ['--heartbeat-interval=50', '--election-timeout=500'] }
      : {};
    const scene = await MachinesScene.start(network, directory, timing);
    const service = await resolve(scene.client, 'service');
    const results = new Map<Fault, Gaps[]>(FAULTS.map((fault) => [fault, []]));
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const fault of FAULTS) {
        const gaps = await measure(scene, service, fault);
        results.get(fault)!.push(gaps);
        if (!values.json) console.info(`round ${round + 1}, ${fault}: ${JSON.stringify(gaps)}`);
      }
    }
    report(results, values.fast, values.json);
  } finally {
    await network.close();
    await killGateways();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function measure(scene: MachinesScene, service: string, fault: Fault): Promise<Gaps> {
  // An edge whose tunnel has just come up waits longer after a second loss.
  await delay(STABLE_MS);
  const transfer = new Transfer(scene.client, service);
  await transfer.flows();
  const ping = scene.client.start(['ping', '-n', '-D', '-i', '0.01', service]);
  await ping.printed(/icmp_seq=50 /);
  const watch = new AbortController();
  const tcp = longestPause(transfer, watch.signal);
  const { holder } = scene;
  if (fault === 'none') await delay(SETTLE_MS);
  else await takeOver(scene, holder, fault);
  await delay(SETTLE_MS);
  watch.abort();
  const tcpMs = await tcp;
  ping.child.kill('SIGINT');
  const pingMs = longestGap(ping.stdout);
  const { isWhole, error } = await transfer.end();
  if (!isWhole) throw new Error(`the transfer has lost bytes, or was reset: ${error}`);
  if (fault === 'machine killed') await scene.restart(holder);
  if (fault === 'network cut') {
    const since = holder.gateway.output.length;
    await scene.root.sh(`ip link set ${holder.wan} up`);
    await holder.gateway.logged(/reaches the store again/, since);
  }
  return { pingMs, tcpMs };
}

/** Returns when the other machine has the site. */
async function takeOver(
  scene: MachinesScene,
  holder: Machine,
  fault: Exclude<Fault, 'none'>
): Promise<void> {
  const since = scene.edge.output.length;
  if (fault === 'machine killed') await scene.kill(holder);
  else await scene.root.sh(`ip link set ${holder.wan} down`);
  await scene.edge.logged(/: up to /, since);
}

/** Returns the longest time between two answers, in ms. */
function longestGap(output: string): number {
  const times = [...output.matchAll(/^\[(\d+\.\d+)\] \d+ bytes from/gm)].map(([, time]) =>
    Number(time)
  );
  const gaps = times.slice(1).map((time, at) => time - times[at]!);
  return Math.round(1000 * Math.max(...gaps));
}

/** Returns the longest time in which a transfer has received nothing until the signal, in ms. */
async function longestPause(transfer: Transfer, signal: AbortSignal): Promise<number> {
  let longest = 0;
  let last = { received: transfer.received, atMs: performance.now() };
  while (!signal.aborted) {
    await delay(5);
    const { received } = transfer;
    const nowMs = performance.now();
    longest = Math.max(longest, nowMs - last.atMs);
    if (received !== last.received) last = { received, atMs: nowMs };
  }
  return Math.round(longest);
}

function report(results: ReadonlyMap<Fault, readonly Gaps[]>, isFast: boolean, isJson: boolean) {
  const rows = [...results].flatMap(([fault, gaps]) =>
    (['pingMs', 'tcpMs'] as const).map((of) => {
      const sorted = gaps.map((each) => each[of]).sort((a, b) => a - b);
      const median = sorted[Math.floor(sorted.length / 2)]!;
      return { fault, of, rounds: sorted.length, median, worst: sorted.at(-1)! };
    })
  );
  if (isJson) console.info(JSON.stringify({ timing: isFast ? 'fast' : 'default', rows }));
  else console.table(rows);
}

/** Longer than `stableAfterMs` of a tunnel. */
const STABLE_MS = 11_000;
/** For how long it is watched before and after a takeover. */
const SETTLE_MS = 2000;

await main();
