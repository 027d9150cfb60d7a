/**
 * One contender behind one wan, and the flows through it, see `flows.ts`.
 * @module
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../../test/support/gateway-process.ts';
import { Program } from '../../test/support/network.ts';
import {
  type Contender,
  LIFETIME_SECONDS,
  PORTS,
  type ServiceAccess,
} from '../gateway/contender.ts';
import { Scene } from '../gateway/scene.ts';
import { Wan, type WanShape } from '../wan/wan.ts';
import type { Outage } from './cells.ts';

/** Times after the repair, in ms; undefined if nothing has moved before `stop`. */
export interface Gaps {
  /** The first answer to a message. */
  readonly pongMs: number | undefined;
  /** Until 16 KiB of the stream have arrived: as much as TCP sends before it waits for an acknowledgement. */
  readonly bulkMs: number | undefined;
}

export class Contest {
  readonly name: string;
  readonly wanName: string;
  readonly roundTripMs: number;
  readonly #scene: Scene;
  readonly #wan: Wan;
  readonly #access: ServiceAccess;
  readonly #programs: Program[];
  readonly #server: Program;
  #client: Program | undefined;
  /** How much the server had printed when the client started. */
  #printed = 0;
  #routes = '';

  private constructor(
    contender: Contender,
    shape: WanShape & { readonly name: string },
    parts: {
      readonly scene: Scene;
      readonly wan: Wan;
      readonly access: ServiceAccess;
      readonly server: Program;
    }
  ) {
    this.name = contender.name;
    this.wanName = shape.name;
    this.roundTripMs = shape.roundTripMs;
    this.#scene = parts.scene;
    this.#wan = parts.wan;
    this.#access = parts.access;
    this.#programs = [...parts.access.programs];
    this.#server = parts.server;
  }

  static async open(
    contender: Contender,
    shape: WanShape & { readonly name: string },
    home: string,
    forwarder: string,
    congestion: string
  ): Promise<Contest> {
    let wan: Wan | undefined;
    const scene = await Scene.create({
      directory: mkdtempSync(join(home, 'scene-')),
      plan: contender.plan,
      congestion,
      wan: async (network, edge, cloud) => {
        wan = await Wan.open(network, edge, cloud, shape, forwarder, LIFETIME_SECONDS * 4);
      },
    });
    try {
      const access = await contender.start(scene);
      await scene.settle();
      const server = scene.service.start([...FLOWS, 'serve', ...FLOW_PORTS], LIFETIME_SECONDS * 4);
      await server.printed(/ready/);
      return new Contest(contender, shape, { scene, wan: wan!, access, server });
    } catch (error) {
      await scene.close();
      throw error;
    }
  }

  /** Starts the flows of a round. Resolves when both move. */
  async start(): Promise<void> {
    this.#printed = this.#server.stdout.length;
    const client = this.#scene.client.start(
      [...FLOWS, 'client', this.#access.address, ...FLOW_PORTS],
      120
    );
    this.#client = client;
    await client.printed(/pong \S+ 50\n/);
    await eventually('bytes of the stream', () => this.#bulk.length > 20 || undefined);
  }

  async begin(outage: Outage): Promise<void> {
    if (outage === 'dropped') await this.#wan.cut();
    if (outage !== 'link-down') return;
    const { edge } = this.#scene;
    this.#routes = await edge.sh('ip -4 route show dev wan0');
    await edge.sh('ip link set wan0 down');
  }

  async end(outage: Outage): Promise<void> {
    if (outage === 'dropped') await this.#wan.repair();
    if (outage !== 'link-down') return;
    const routes = this.#routes
      .trim()
      .split('\n')
      .map((route) => `ip -4 route replace ${route} dev wan0`);
    await this.#scene.edge.sh(['ip link set wan0 up', ...routes].join('\n'));
  }

  /** Kills a gateway of ours and starts it again. Resolves when it says that it is ready. */
  async restart(which: 'cloud' | 'edge'): Promise<void> {
    const at = which === 'cloud' ? 0 : 1;
    const program = this.#programs[at]!;
    const { child } = program;
    const pid = await this.#pidOf(which);
    await this.#scene[which].sh(`kill -9 ${pid}`);
    await program.ended;
    const [command, ...rest] = child.spawnargs;
    const again = new Program([command!, ...rest]);
    this.#programs[at] = again;
    await again.printed(which === 'cloud' ? /gateway ready/ : /: up to /);
  }

  /** Ends the flows of the round. Returns when each moved after `sinceMs`, in ms since then. */
  async stop(sinceMs: number): Promise<Gaps> {
    const client = this.#client!;
    const pongs = timesOf(client.stdout, 'pong');
    const bulk = this.#bulk;
    const before = bulk.findLast(([ms]) => ms <= sinceMs)?.[1] ?? 0;
    const pong = pongs.find(([ms]) => ms > sinceMs);
    const moved = bulk.find(([ms, bytes]) => ms > sinceMs && bytes >= before + MOVED_BYTES);
    const broken = /^broken.*/m.exec(`${client.text}\n${this.#server.text.slice(this.#printed)}`);
    client.child.stdin!.end();
    await client.ended;
    if (broken !== null) throw new Error(`${this.name}, ${this.wanName}: ${broken[0]}`);
    return {
      pongMs: pong && pong[0] - sinceMs,
      bulkMs: moved && moved[0] - sinceMs,
    };
  }

  /** Resolves when both flows have moved after this time; at the latest after `limitMs`. */
  async whenBack(sinceMs: number, limitMs: number): Promise<void> {
    const isBack = (): true | undefined => {
      const last = [
        timesOf(this.#client!.stdout.slice(-200), 'pong'),
        timesOf(this.#server.stdout.slice(-200), 'bulk'),
      ];
      return last.every((times) => (times.at(-1)?.[0] ?? 0) > sinceMs + 50) || undefined;
    };
    await eventually('both flows', isBack, limitMs).catch(() => {});
  }

  close(): Promise<void> {
    return this.#scene.close();
  }

  get #bulk(): [number, number][] {
    return timesOf(this.#server.stdout.slice(this.#printed), 'bulk');
  }

  /** The pid of a gateway as its host knows it. */
  async #pidOf(which: 'cloud' | 'edge'): Promise<string> {
    const script = `
      for process in /proc/[0-9]*; do
        test "$(tr '\\0' ' ' <$process/cmdline | cut -d' ' -f3)" = ${which} || continue
        test "$(readlink $process/ns/net)" = "$(readlink /proc/self/ns/net)" && basename $process
      done
    `;
    return (await this.#scene[which].sh(`${script}\ntrue`)).trim();
  }
}

/** The times in ms and the counts of the lines of one kind. */
function timesOf(text: string, what: 'pong' | 'bulk'): [number, number][] {
  return [...text.matchAll(new RegExp(`^${what} (\\S+) (\\d+)$`, 'gm'))].map(([, ms, count]) => [
    Number(ms),
    Number(count),
  ]);
}

const FLOWS = [process.execPath, '--import', 'tsx', join(import.meta.dirname, 'flows.ts')];
/** Every contender lets them pass. */
const FLOW_PORTS = [PORTS.echo, PORTS.answer].map(String);
const MOVED_BYTES = 16_384;
