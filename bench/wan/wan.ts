/**
 * A wan between two hosts of a test network: `forwarder.c` with one TUN in each of them, which also works on
 * kernels without netem.
 * @module
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host, Network, Program } from '../../test/support/network.ts';
import { compileC } from '../gateway/compile.ts';
import { CLOUD_WAN, EDGE_WAN } from '../gateway/scene.ts';

export interface WanShape {
  readonly roundTripMs: number;
  /** Chance of each packet, in each direction. */
  readonly loss: number;
  /** Bits of IP packets a second, in each direction; without it, what the machine can do. */
  readonly rateMbps?: number;
  /** The buffer in front of a link with a rate, in bytes; by default one bandwidth-delay product. */
  readonly queueBytes?: number;
  readonly mtu?: number;
  readonly seed?: number;
  /**
   * Whether the interfaces take super-packets, as network cards do: by default they do. Each segment is
   * delayed, lost and counted separately in both cases.
   */
  readonly offload?: boolean;
}

/** The counters of one direction since the wan was opened; the last two since they were last read. */
export interface WanCounters {
  readonly forwarded: number;
  readonly bytes: number;
  readonly lost: number;
  /** Did not fit the buffer in front of the link. */
  readonly overflowed: number;
  /** Packets that the interface did not take; not a property of a wan, so a fault. */
  readonly refused: number;
  /** Packets that did not fit the delay line; a fault too. */
  readonly unroomed: number;
  /** Most bytes that have waited for the link. */
  readonly greatestQueue: number;
  /** The largest delay of a packet for lack of a processor. */
  readonly greatestLateUs: number;
}

export interface WanReport {
  readonly toCloud: WanCounters;
  readonly toEdge: WanCounters;
  /** Packets that an interface of the wan dropped; a fault too. */
  readonly dropped: number;
}

export class Wan {
  readonly #forwarder: Program;
  readonly #cloud: Host;
  readonly #edge: Host;

  private constructor(forwarder: Program, cloud: Host, edge: Host) {
    this.#forwarder = forwarder;
    this.#cloud = cloud;
    this.#edge = edge;
  }

  /**
   * Connects the two hosts, as CLOUD_WAN and EDGE_WAN, for at most this time.
   *
   * @param program what `compileForwarder` has made
   */
  static async open(
    network: Network,
    edge: Host,
    cloud: Host,
    shape: WanShape,
    program: string,
    seconds: number
  ): Promise<Wan> {
    const forwarder = network.root.start([program, ...argumentsOf(shape)], seconds);
    await forwarder.printed(/ready/);
    const ends = [
      [cloud, 'wan-cloud', CLOUD_WAN],
      [edge, 'wan-edge', EDGE_WAN],
    ] as const;
    for (const [host, end, address] of ends) {
      await network.root.sh(`ip link set ${end} netns ${pidInside(host)} name ${WAN_INTERFACE}`);
      // A long queue, because the forwarder decides what is dropped.
      await host.sh(`
        echo 1 >/proc/sys/net/ipv6/conf/${WAN_INTERFACE}/disable_ipv6
        ip link set ${WAN_INTERFACE} mtu ${shape.mtu ?? 1500} txqueuelen 20000 up
        ip address add ${address}/24 dev ${WAN_INTERFACE}
      `);
    }
    return new Wan(forwarder, cloud, edge);
  }

  /** Loses every packet, those on their way too, until `repair`. Resolves when it has begun. */
  async cut(): Promise<void> {
    await this.#ask('-');
  }

  async repair(): Promise<void> {
    await this.#ask('+');
  }

  async report(): Promise<WanReport> {
    const [toEdge, toCloud] = await this.#ask('?');
    const dropped = await Promise.all([droppedBy(this.#cloud), droppedBy(this.#edge)]);
    return { toCloud, toEdge, dropped: dropped[0] + dropped[1] };
  }

  async close(): Promise<void> {
    this.#forwarder.child.stdin!.end();
    await this.#forwarder.ended;
  }

  async #ask(question: string): Promise<[WanCounters, WanCounters]> {
    const asked = this.#forwarder.stdout.length;
    this.#forwarder.write(`${question}\n`);
    return JSON.parse(await this.#answer(asked)) as [WanCounters, WanCounters];
  }

  #answer(after: number): Promise<string> {
    const { child } = this.#forwarder;
    return new Promise((resolve, reject) => {
      const look = () => {
        const text = this.#forwarder.stdout.slice(after);
        if (!text.includes('\n')) return;
        finish();
        resolve(text);
      };
      const failed = () => {
        finish();
        reject(new Error(`the forwarder has ended: ${this.#forwarder.text}`));
      };
      const finish = () => {
        child.stdout!.off('data', look);
        child.off('close', failed);
      };
      child.stdout!.on('data', look);
      child.once('close', failed);
    });
  }
}

/** Compiles the forwarder into this directory; returns the path of the program. */
export function compileForwarder(directory: string): string {
  return compileC(join(import.meta.dirname, 'forwarder.c'), directory);
}

/** Returns the faults of the wan itself, which make the figures invalid. */
export function faultOf({ toCloud, toEdge, dropped }: WanReport): string | undefined {
  const faults = { dropped, refused: 0, unroomed: 0 };
  for (const { refused, unroomed } of [toCloud, toEdge]) {
    faults.refused += refused;
    faults.unroomed += unroomed;
  }
  const isSound = Object.values(faults).every((count) => count === 0);
  return isSound ? undefined : `the wan has failed: ${JSON.stringify(faults)}`;
}

/** One bandwidth-delay product, in bytes. */
export function delayProduct({ roundTripMs, rateMbps }: WanShape): number {
  return ((rateMbps ?? 0) * 1e6 * roundTripMs) / 8e3;
}

function argumentsOf(shape: WanShape): string[] {
  const settings = {
    a: 'wan-cloud',
    b: 'wan-edge',
    delayUs: Math.round(shape.roundTripMs * 500),
    lossPpm: Math.round(shape.loss * 1e6),
    rate: (shape.rateMbps ?? 0) * 1e6,
    queue: shape.queueBytes ?? delayProduct(shape),
    seed: shape.seed ?? 1,
    offload: (shape.offload ?? true) ? 1 : 0,
  };
  return Object.entries(settings).map(([name, value]) => `${name}=${value}`);
}

async function droppedBy(host: Host): Promise<number> {
  const text = await host.get(['ip', '-s', '-json', 'link', 'show', WAN_INTERFACE]);
  const [link] = JSON.parse(text) as [{ stats64: Record<'rx' | 'tx', { dropped: number }> }];
  return link.stats64.rx.dropped + link.stats64.tx.dropped;
}

/** The pid that the network's own processes know a host by. */
export function pidInside({ pid }: Host): string {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return /^NSpid:.*\s(\d+)$/m.exec(status)![1]!;
}

const WAN_INTERFACE = 'wan0';
