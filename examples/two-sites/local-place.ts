/**
 * A place of the scene without namespaces: programs of this machine, whose way to the names of their site is the proxy
 * and the published addresses of a gateway. All of them end with the scene.
 * @module
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { Resolver } from 'node:dns/promises';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { GatewayProcess } from './gateways.ts';
import { checkByDig, httpGet, isInstalled, Place, REPOSITORY } from './place.ts';
import { eventually } from './report.ts';

/** The environment variable that all processes of a scene have; its value is the scene's directory. */
const MARK = 'VP_DEMO_SCENE';

interface Address {
  readonly host: string;
  readonly port: number;
}

export class LocalPlace extends Place {
  /** The directory of the place's gateway. */
  readonly home: string;
  readonly #env: NodeJS.ProcessEnv;
  #dns: Address | undefined;
  #proxy: string | undefined;

  constructor(name: string, scene: string, home: string) {
    super(name);
    this.home = join(scene, home);
    this.#env = { [MARK]: scene };
  }

  /** The keys of the gateway's file that make it the way to the names of its site. */
  static keys(loopback: string): object {
    return {
      dns: { listen: '127.0.0.1:0' },
      sockets: {
        publish: { loopback, hostsFile: './hosts' },
        proxy: { listen: 0, passwordFile: './proxy-password' },
      },
    };
  }

  /** Waits until the gateway of this place is ready, and uses it from now on. */
  async use(gateway: GatewayProcess): Promise<void> {
    const line = await gateway.logged(/ ready, listening on /);
    const { dns, proxy } = JSON.parse(line.slice(line.indexOf('{'))) as Record<string, Address>;
    const password = readFileSync(join(this.home, 'proxy-password'), 'utf8').trim();
    this.#dns = dns;
    this.#proxy = `socks5h://presence:${password}@${proxy!.host}:${proxy!.port}`;
    // A password in the command line could be seen by other users.
    writeFileSync(this.#curlConfig, `proxy = "${this.#proxy}"\nnoproxy = ""\n`, { mode: 0o600 });
  }

  override spawn(command: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
    const proxy = this.#proxy === undefined ? {} : { VP_DEMO_PROXY: this.#proxy };
    return spawn(command[0]!, command.slice(1), {
      cwd: REPOSITORY,
      env: { ...process.env, ...this.#env, ...proxy, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  override async resolve(name: string): Promise<string> {
    const address = (await this.#resolver.resolve4(name))[0]!;
    if (isInstalled('dig')) {
      const { host, port } = this.#dns!;
      await checkByDig(this, [`@${host}`, '-p', String(port)], name, address);
    }
    return address;
  }

  override async reverse(address: string): Promise<string> {
    return (await this.#resolver.reverse(address))[0]!;
  }

  /** Returns the loopback address at which the gateway has published the name. */
  override reach(name: string): Promise<string> {
    return eventually(`${name} in the hosts file of ${this.name}`, () => {
      const lines = readFileSync(join(this.home, 'hosts'), 'utf8').split('\n');
      return lines.find((line) => line.endsWith(`\t${name}`))?.split('\t')[0];
    });
  }

  /** The proxy gets the name; without curl, the published address is used. */
  override async getCommand(url: string): Promise<string[]> {
    if (isInstalled('curl')) return httpGet(url, '--config', this.#curlConfig);
    const { hostname, port } = new URL(url);
    return httpGet(`http://${await this.reach(hostname)}:${port}/`);
  }

  get #curlConfig(): string {
    return join(this.home, 'curlrc');
  }

  get #resolver(): Resolver {
    const resolver = new Resolver({ timeout: 5000, tries: 2 });
    resolver.setServers([`${this.#dns!.host}:${this.#dns!.port}`]);
    return resolver;
  }
}

/** Kills all processes of a scene, and returns when they are gone; for the listeners of the event `exit`. */
export function endProcesses(scene: string): void {
  const deadline = performance.now() + END_TIMEOUT_MS;
  while (performance.now() < deadline) {
    const pids = processesWith(`${MARK}=${scene}`);
    if (pids.length === 0) return;
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended meanwhile.
      }
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
  }
}

/** Returns the processes that have this in their environment. */
export function processesWith(mark: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(mark);
      } catch {
        return false; // ended meanwhile, or another user's
      }
    })
    .map(Number);
}

/** A process that the kernel does not end within this time is left. */
const END_TIMEOUT_MS = 5_000;
