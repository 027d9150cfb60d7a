/**
 * The gateways of the scene: the reference programs, each in its own process and namespace.
 * @module
 */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { DESIRED } from './desired.ts';
import type { Host } from './host.ts';
import { eventually } from './report.ts';
import { CLOUD_WAN, LAN_GATEWAY, type Topology } from './topology.ts';

const device = {
  type: 'tun',
  name: 'vp0',
  mtu: 1500,
  routes: ['10.0.0.128/25'],
  proxyArp: ['lan0'],
};
const dns = { listen: `${LAN_GATEWAY}:53` };

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

  constructor(host: Host, program: string, configPath: string) {
    const main = `examples/${program}/main.ts`;
    this.child = host.spawn([process.execPath, '--import', 'tsx', main, configPath]);
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

/** The process of the cloud gateway. */
export class CloudProcess extends GatewayProcess {
  readonly #adminSocket: string;

  constructor({ cloudGateway }: Topology, directory: string) {
    const home = join(directory, 'cloud');
    mkdirSync(home, { recursive: true });
    const adminSocket = join(home, 'admin.sock');
    const config = {
      trustDomain: 'openstack.test',
      stateDirectory: './state',
      adminSocket,
      processes: Number(process.env.VP_DEMO_PROCESSES ?? 1),
      device,
      tunnel: `${CLOUD_WAN}:7443`,
      enrolment: { listen: `${CLOUD_WAN}:7440`, endpoints: [`https://${CLOUD_WAN}:7440`] },
      dns,
      desired: DESIRED,
    };
    writeFileSync(join(home, 'cloud.yaml'), stringify(config));
    super(cloudGateway, 'cloud-gateway', join(home, 'cloud.yaml'));
    this.#adminSocket = adminSocket;
  }

  /** Sends a request to the admin interface. */
  admin<T>(method: string, path: string, body?: unknown): Promise<T> {
    return new Promise((resolve, reject) => {
      const outgoing = request({ socketPath: this.#adminSocket, method, path }, (response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () => {
          const answer = JSON.parse(text) as T & { message?: string };
          if (response.statusCode === 200) resolve(answer);
          else reject(new Error(`${method} ${path}: ${answer.message}`));
        });
      });
      outgoing.on('error', reject);
      outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  async status(site: string): Promise<SiteStatus> {
    const { sites } = await this.admin<{ sites: SiteStatus[] }>('GET', '/v1/status');
    return sites.find(({ name }) => name === site)!;
  }
}

/** Starts the edge gateway of a site with a token; `local` has the device and DNS of its machine. */
export function startEdge(
  topology: Topology,
  site: 'a' | 'b',
  token: string,
  directory: string,
  local: object = { device, dns }
): GatewayProcess {
  const home = join(directory, `site-${site}`);
  mkdirSync(home, { recursive: true });
  writeFileSync(join(home, 'token'), token, { mode: 0o600 });
  const config = {
    stateDirectory: './state',
    tokenFile: './token',
    cloud: [`${CLOUD_WAN}:7443`],
    ...local,
  };
  writeFileSync(join(home, 'edge.yaml'), stringify(config));
  return new GatewayProcess(topology.sites[site].gateway, 'edge-gateway', join(home, 'edge.yaml'));
}
