/**
 * `flows.c` at the service and at the sites of a scene.
 * @module
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../test/support/gateway-process.ts';
import type { Host, Program } from '../../test/support/network.ts';
import { compileC } from '../gateway/compile.ts';
import { pidInside } from '../wan/wan.ts';
import { SERVICE_PORT, type SitesScene } from './scene.ts';

/** `up` is from the sites to the service, `down` from the service to them. */
export type Direction = 'up' | 'down';

/** Compiles `flows.c` into this directory; returns the path of the program. */
export function compileFlows(directory: string): string {
  return compileC(join(import.meta.dirname, 'flows.c'), directory);
}

/** One stream of each site. */
export class Flows {
  readonly #server: Program;
  readonly #client: Program;
  readonly #count: number;
  #answers = 0;

  private constructor(server: Program, client: Program, count: number) {
    this.#server = server;
    this.#client = client;
    this.#count = count;
  }

  static async start(
    program: string,
    scene: SitesScene,
    hosts: readonly Host[],
    address: string,
    direction: Direction
  ): Promise<Flows> {
    const port = String(SERVICE_PORT);
    const server = scene.service.start([program, 'serve', port], LIFETIME_SECONDS);
    await server.printed(/ready/);
    const pids = hosts.map(pidInside);
    const client = scene.startBeside([program, 'connect', address, port, direction, ...pids]);
    await client.printed(/connected/, 30_000);
    return new Flows(server, client, hosts.length);
  }

  /** Mbit/s of each site, in the time that begins now. */
  async rates(ms: number): Promise<number[]> {
    const startMs = performance.now();
    const before = await this.#bytes();
    await delay(ms);
    const after = await this.#bytes();
    const elapsedMs = performance.now() - startMs;
    return after.map((bytes, i) => ((bytes - before[i]!) * 8) / elapsedMs / 1e3);
  }

  async close(): Promise<void> {
    this.#client.child.stdin!.end();
    this.#server.child.stdin!.end();
    await Promise.all([this.#client.ended, this.#server.ended]);
  }

  async #bytes(): Promise<number[]> {
    const index = this.#answers++;
    this.#server.write('?\n');
    const answer = await eventually('the counts of all streams', () => {
      const found = [...this.#server.stdout.matchAll(/^\[.*\]$/gm)][index];
      if (this.#server.child.exitCode !== null) throw new Error(this.#server.text);
      return found?.[0];
    });
    const streams = JSON.parse(answer) as { index: number; bytes: number }[];
    if (streams.length !== this.#count) {
      throw new Error(`${this.#count - streams.length} streams have ended: ${this.#client.text}`);
    }
    const bytes = new Array<number>(this.#count);
    for (const stream of streams) bytes[stream.index] = stream.bytes;
    return bytes;
  }
}

const LIFETIME_SECONDS = 200;
