/**
 * The gateways of the scene: the command `virtual-presence`, each in its own process.
 * @module
 */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { DESIRED } from './desired.ts';
import { type Place, ZONE } from './place.ts';
import { eventually, expect } from './report.ts';

export interface SiteStatus {
  readonly name: string;
  readonly revoked: boolean;
  readonly edge?: {
    readonly appliedRevision: number;
    readonly counters: Readonly<Record<string, number>>;
  };
  readonly verdicts: Readonly<Record<string, number>>;
}

/** The process of a gateway, and its log. */
export class GatewayProcess {
  readonly child: ChildProcess;
  log = '';

  constructor(host: Pick<Place, 'spawn'>, command: 'cloud' | 'edge', configPath: string) {
    this.child = host.spawn([...VIRTUAL_PRESENCE, command, configPath]);
    for (const stream of [this.child.stdout!, this.child.stderr!]) {
      stream.on('data', (chunk: Buffer) => {
        this.log += chunk;
      });
    }
  }

  /** Waits until the log has a line that matches. */
  logged(pattern: RegExp): Promise<string> {
    return eventually(`"${pattern.source}" in the log of a gateway`, () => {
      const lines = this.log.trim().split('\n');
      const line = lines.find((each) => pattern.test(each));
      if (line === undefined && this.child.exitCode !== null) throw new Error(lines.at(-1));
      return line;
    });
  }

  /** Ends the program by SIGTERM. Returns its exit code. */
  async end(): Promise<number | null> {
    if (this.child.exitCode !== null) return this.child.exitCode;
    const ended = new Promise<number | null>((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGTERM');
    return ended;
  }
}

/** The process of a cloud gateway, and the command by which it is operated. */
export class CloudProcess extends GatewayProcess {
  readonly #host: Pick<Place, 'run'>;
  readonly #adminSocket: string;

  /**
   * @param home its directory
   * @param config the keys of `cloud.yaml` that depend on the scene
   */
  constructor(host: Pick<Place, 'spawn' | 'run'>, home: string, config: object) {
    mkdirSync(home, { recursive: true });
    const common = {
      trustDomain: ZONE,
      stateDirectory: './state',
      adminSocket: './admin.sock',
      desired: DESIRED,
    };
    writeFileSync(join(home, 'cloud.yaml'), stringify({ ...common, ...config }));
    super(host, 'cloud', join(home, 'cloud.yaml'));
    this.#host = host;
    this.#adminSocket = join(home, 'admin.sock');
  }

  /** Runs the command `virtual-presence` about this gateway, and returns what it prints. */
  async run(...args: readonly string[]): Promise<string> {
    const command = [...VIRTUAL_PRESENCE, ...args, '--socket', this.#adminSocket];
    const { code, stdout, stderr } = await this.#host.run(command);
    expect(code === 0, stderr.trim());
    return stdout.trim();
  }

  /** Runs a command that has the option `--json`. */
  async read<T>(...args: readonly string[]): Promise<T> {
    return JSON.parse(await this.run(...args, '--json')) as T;
  }

  async status(site: string): Promise<SiteStatus> {
    const { sites } = await this.read<{ sites: SiteStatus[] }>('status', site);
    return sites[0]!;
  }
}

/**
 * Starts an edge gateway in a directory of its own.
 *
 * @param config the keys of `edge.yaml` that depend on the scene
 */
export function startEdge(
  host: Pick<Place, 'spawn'>,
  home: string,
  token: string,
  config: object
): GatewayProcess {
  mkdirSync(home, { recursive: true });
  writeFileSync(join(home, 'token'), token, { mode: 0o600 });
  const common = { stateDirectory: './state', tokenFile: './token' };
  writeFileSync(join(home, 'edge.yaml'), stringify({ ...common, ...config }));
  return new GatewayProcess(host, 'edge', join(home, 'edge.yaml'));
}

/** The words that run the command. Tests name a folder with a bundle of it, which starts in a quarter of the time. */
const { VP_BUNDLED_GATEWAYS: bundles } = process.env;
const VIRTUAL_PRESENCE: readonly string[] = [
  process.execPath,
  ...(bundles === undefined
    ? ['--import', 'tsx', 'src/cli/main.ts']
    : [`${bundles}/virtual-presence.mjs`]),
];
