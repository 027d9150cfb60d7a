/**
 * Takes a site over again and again: the machine that holds it is killed, or its network is cut. Two machines on one etcd,
 * a site and a service are in namespaces (`test/e2e/several-machines-scene.ts`).
 * @module
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Machine, MachinesScene } from '../../test/e2e/several-machines-scene.ts';
import { OPEN_PORT, resolve } from '../../test/e2e/several-processes-scene.ts';
import { eventually, killGateways } from '../../test/support/gateway-process.ts';
import { type Host, Network, type Program, whatIsMissing } from '../../test/support/network.ts';
import type { Gaps, TransferEnd } from './client.ts';

const FAULTS = ['machine killed', 'network cut'] as const;
/** `none`: the seconds before a fault. */
export type Fault = 'none' | (typeof FAULTS)[number];

/** The timing of etcd and of the leases of machines: that of etcd with 2 s, or the fast one with 1 s. */
export type TimingName = 'default' | 'fast';

export interface Takeovers {
  readonly timing: TimingName;
  /** The gaps of each round; twice as many for `none`. */
  readonly gaps: Readonly<Record<Fault, readonly Gaps[]>>;
}

const TIMINGS = {
  default: { ttlSeconds: 2, etcd: [] },
  fast: { ttlSeconds: 1, etcd: ['--heartbeat-interval=50', '--election-timeout=500'] },
};

/** Returns why no takeover can be measured here; undefined if it can. */
export function whyNoTakeover(): string | undefined {
  return whatIsMissing({ bash: 'bash', etcd: 'etcd-server' });
}

/**
 * Measures each fault so many times.
 *
 * @param onGaps is called with each measurement
 * @throws {Error} if a transfer has lost bytes or was reset, or a takeover does not come.
 */
export async function measureTakeovers(
  timing: TimingName,
  rounds: number,
  onGaps: (round: number, fault: Fault, gaps: Gaps) => void = () => {}
): Promise<Takeovers> {
  const directory = mkdtempSync(join(tmpdir(), 'vp-bench-takeover-'));
  const network = await Network.create(mkdtempSync(join(directory, 'network-')));
  const gaps: Record<Fault, Gaps[]> = { none: [], 'machine killed': [], 'network cut': [] };
  try {
    const lifetimeSeconds = SCENE_SECONDS + rounds * ROUND_SECONDS;
    const scene = await MachinesScene.start(network, directory, {
      ...TIMINGS[timing],
      lifetimeSeconds,
    });
    const address = await resolve(scene.client, 'service');
    const client = new Client(scene.client, address, lifetimeSeconds);
    for (let round = 1; round <= rounds; round++) {
      for (const fault of FAULTS) {
        const [before, meanwhile] = await measure(scene, client, fault);
        gaps.none.push(before);
        gaps[fault].push(meanwhile);
        onGaps(round, 'none', before);
        onGaps(round, fault, meanwhile);
      }
    }
    return { timing, gaps };
  } finally {
    await network.close();
    await killGateways();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The program of the client. */
class Client {
  readonly #program: Program;
  #answers = 0;

  constructor(host: Host, address: string, seconds: number) {
    const command = [process.execPath, '--import', 'tsx', 'bench/takeover/client.ts'];
    this.#program = host.start([...command, address, String(OPEN_PORT)], seconds);
  }

  /** Sends a line, and returns the answer. */
  async ask<T>(line: string): Promise<T> {
    const { child } = this.#program;
    this.#program.write(`${line}\n`);
    const at = this.#answers++;
    const text = await eventually(
      `the answer to "${line}"`,
      () => {
        const lines = this.#program.stdout.split('\n');
        if (lines.length > at + 1) return lines[at];
        if (child.exitCode !== null) throw new Error(this.#program.text);
        return undefined;
      },
      ANSWER_MS
    );
    return JSON.parse(text) as T;
  }
}

/** Returns the gaps before a fault and those of the takeover, and brings the machine back. */
async function measure(
  scene: MachinesScene,
  client: Client,
  fault: (typeof FAULTS)[number]
): Promise<[before: Gaps, meanwhile: Gaps]> {
  const { holder } = scene;
  await client.ask('begin');
  await delay(stableAtMs - performance.now());
  await delay(QUIET_MS);
  const before = await client.ask<Gaps>('gaps');
  await takeOver(scene, holder, fault);
  stableAtMs = performance.now() + STABLE_MS;
  const meanwhile = await client.ask<Gaps>('settle');
  const { isWhole, error } = await client.ask<TransferEnd>('end');
  if (!isWhole) {
    throw new Error(`${fault}: the transfer has lost bytes, or was reset: ${error ?? 'lost'}`);
  }
  if (fault === 'machine killed') await scene.restart(holder);
  else {
    const since = holder.gateway.output.length;
    await scene.root.sh(`ip link set ${holder.wan} up`);
    await holder.gateway.logged(/reaches the store again/, since);
  }
  return [before, meanwhile];
}

/** Returns when the other machine has the site. */
async function takeOver(
  scene: MachinesScene,
  holder: Machine,
  fault: (typeof FAULTS)[number]
): Promise<void> {
  const since = scene.edge.output.length;
  if (fault === 'machine killed') await scene.kill(holder);
  else await scene.root.sh(`ip link set ${holder.wan} down`);
  await scene.edge.logged(/: up to /, since);
}

/** When the tunnel will have been up for so long that its edge has forgotten earlier losses. */
let stableAtMs = 0;
/** `stableAfterMs` of a tunnel, and a little more. */
const STABLE_MS = 10_100;
/** For how long the client is watched before a fault at least. */
const QUIET_MS = 2000;
const SCENE_SECONDS = 300;
const ROUND_SECONDS = 120;
const ANSWER_MS = 90_000;
