/**
 * A cloud gateway in a process of its own and an agent in this one, and programs of Debian as services of the cloud. The
 * gateways need neither root nor namespaces, and have no TUN.
 *
 * ```
 *    this process                  another process               127.a.b.c
 *
 *    client - agent  == tunnel ==  cloud gateway, backend  ----  PostgreSQL, ...
 * ```
 *
 * Each process has loopback addresses of its own, so the ports can be fixed. The services have names in the zone of the
 * site alone: nothing but the tunnel leads from a client to them.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect } from 'vitest';
import { EdgeGateway } from '../../src/gateway/index.ts';
import { MemorySecrets, MemoryStore } from '../../src/store/index.ts';

export const ZONE = 'openstack.test';
export const LAN: Readonly<{ sources: string[]; pools: string[]; zone: string }> = {
  sources: ['10.0.0.0/24'],
  pools: ['10.0.0.128/25'],
  zone: ZONE,
};
export const TUNNEL_PORT = 7443;

/** Returns why a scene cannot be built here, or which of the programs is missing; each has its Debian package. */
export function whatTheSceneMisses(programs: Readonly<Record<string, string>>): string | undefined {
  if (process.platform !== 'linux') return 'only Linux has all addresses of 127.0.0.0/8';
  for (const [program, from] of Object.entries({ setpriv: 'util-linux', ...programs })) {
    try {
      execFileSync('sh', ['-c', 'test -x "$(command -v "$0")"', program], { stdio: 'ignore' });
    } catch {
      return `${program} is not installed (Debian package ${from})`;
    }
  }
  return undefined;
}

/** Returns one of the four loopback addresses that belong to this process, because no other one has its id. */
export function loopbackAddress(index: 0 | 1 | 2 | 3): string {
  // Linux has less than 2^22 processes.
  const number = (process.pid << 2) | index;
  return [127, (number >> 16) & 255, (number >> 8) & 255, number & 255].join('.');
}

export class RootlessScene {
  /** Where the services listen. */
  readonly address: string = loopbackAddress(0);
  /** The files of the scene. All users may pass through it, but not list it. */
  readonly directory: string = mkdtempSync(join(tmpdir(), 'vp-rootless-'));
  readonly #services: readonly string[];
  readonly #servers: { readonly child: ChildProcess; readonly signal: NodeJS.Signals }[] = [];
  #cloud: ChildProcess | undefined;
  #agent: EdgeGateway | undefined;

  private constructor(services: readonly string[]) {
    this.#services = services;
    chmodSync(this.directory, 0o711);
  }

  /**
   * Starts the gateways and the services, and waits until all are ready.
   *
   * @param services the names and ports of the services, for example `postgres=5432`
   * @param serve starts them
   */
  static async start(
    services: readonly string[],
    serve: (scene: RootlessScene) => Promise<unknown>
  ): Promise<RootlessScene> {
    const scene = new RootlessScene(services);
    try {
      await Promise.all([serve(scene), scene.#startGateways()]);
      return scene;
    } catch (error) {
      await scene.close();
      throw error;
    }
  }

  get agent(): EdgeGateway {
    return this.#agent!;
  }

  async #startGateways(): Promise<void> {
    const token = await this.startCloud();
    this.#agent = await EdgeGateway.start({
      token,
      cloud: [`${this.address}:${TUNNEL_PORT}`],
      device: { type: 'sockets', tunnelWaitMs: 600_000 },
      store: new MemoryStore(),
      secrets: new MemorySecrets(),
    });
    await this.agent.ready({ signal: AbortSignal.timeout(170_000) });
  }

  /** Starts the cloud gateway, with the state that it had; resolves with a token. */
  async startCloud(): Promise<string> {
    const args = [join(this.directory, 'cloud'), this.address, ...this.#services];
    const child = spawn(
      'setpriv',
      [
        ...['--pdeathsig', 'KILL', process.execPath, '--import', 'tsx'],
        ...['test/e2e/rootless-cloud-child.ts', ...args],
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] }
    );
    this.#cloud = child;
    child.stdout.setEncoding('utf8');
    const [line] = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
    if (typeof line !== 'string') throw new Error('The cloud gateway has ended.');
    return line.trim();
  }

  /** Kills the cloud gateway, as the kernel does it when there is no memory; resolves when it is gone. */
  async killCloud(): Promise<void> {
    if (this.#cloud !== undefined) await ended(this.#cloud, 'SIGKILL');
  }

  /** Makes a directory for the files of a server, and returns its path. */
  newDirectory(name: string): string {
    const path = join(this.directory, name);
    mkdirSync(path, { mode: 0o700 });
    return path;
  }

  /**
   * Starts a server, and waits until its log says that it is ready. It ends with the scene, or with this process.
   *
   * @param env more variables of its environment
   * @param signal what ends it
   */
  async serve(
    command: readonly string[],
    ready: RegExp,
    options: { readonly env?: NodeJS.ProcessEnv; readonly signal?: NodeJS.Signals } = {}
  ): Promise<void> {
    const { env = {}, signal = 'SIGKILL' } = options;
    const child = spawn('setpriv', ['--pdeathsig', signal.slice(3), ...command], {
      cwd: this.directory,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#servers.push({ child, signal });
    let log = '';
    await new Promise<void>((resolve, reject) => {
      const read = (chunk: string): void => {
        log += chunk;
        if (ready.test(log)) resolve();
      };
      child.stdout.setEncoding('utf8').on('data', read);
      child.stderr.setEncoding('utf8').on('data', read);
      child.on('error', reject);
      child.on('close', () => reject(new Error(`${command.join(' ')} has ended:\n${log}`)));
    });
  }

  /** Checks that at least so many bytes go through the tunnel, in each direction, while `work` is done. */
  async seeAtTunnel<T>(up: number, down: number, work: () => Promise<T>): Promise<T> {
    const look = (): number[] =>
      ['tunnel.sentBytes', 'tunnel.receivedBytes'].map(
        (name) => this.agent.status().counters[name] ?? 0
      );
    const before = look();
    const result = await work();
    const [sent, received] = look().map((count, i) => count - before[i]!);
    expect(sent).toBeGreaterThanOrEqual(up);
    expect(received).toBeGreaterThanOrEqual(down);
    return result;
  }

  async close(): Promise<void> {
    await this.#agent?.close();
    await this.killCloud();
    await Promise.all(this.#servers.map(({ child, signal }) => ended(child, signal)));
    // The children of a server may need a moment more.
    rmSync(this.directory, { recursive: true, maxRetries: 10 });
  }
}

/** Ends a process by a signal; resolves when it is gone. */
async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill(signal);
  await exit;
}

/** Runs a program to its end, and returns its standard output; what it says otherwise is in the error. */
export async function run(command: readonly string[], input = ''): Promise<string> {
  const child = spawn(command[0]!, command.slice(1), { stdio: 'pipe' });
  // A program that does not read it may end first.
  child.stdin.on('error', () => {}).end(input);
  const [output, messages, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ]);
  if (code !== 0) throw new Error(`${command[0]} has ended with ${code}: ${messages}`);
  return output;
}
