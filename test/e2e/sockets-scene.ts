/**
 * The networks and gateways of the tests of sockets in a process. Site A is an edge gateway of this process, as an
 * ordinary program has it: it reaches the cloud by a port of loopback, and the services by its sockets alone, because
 * they are in other network namespaces.
 *
 * ```
 *    this process             cloud                     site B
 *
 *     EdgeGateway,   relay     gw .1  ------ wan ------  gw-b .1
 *     sockets, .9  --------   (TUN)                     (TUN)
 *                               |                          |
 *                           service .5, .6              host-b .5
 * ```
 *
 * All sites have the network 10.0.0.0/24 with the presences in 10.0.0.128/25.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import {
  EdgeGateway,
  type EdgeGatewayOptions,
  type SocketsDeviceOptions,
} from '../../src/gateway/index.ts';
import { MemorySecrets, MemoryStore } from '../../src/store/index.ts';
import {
  admin,
  type Config,
  GatewayProcess,
  killGateways,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { type Host, Network, type Program, whatIsMissing } from '../support/network.ts';
import { Forge, type Signer } from '../support/openssl.ts';

export const ZONE = 'openstack.test';
const LAN = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: ZONE };
const DEVICE = { type: 'tun', name: 'vp0', mtu: 1500, routes: LAN.pools, proxyArp: ['lan0'] };
const CLOUD_WAN = '198.51.100.1';
/** Where the cloud gateway is for those who are in its network. */
export const CLOUD_ENDPOINT: string = `${CLOUD_WAN}:7443`;
const DESIRED = {
  sites: ['cloud', 'site-a', 'site-b', 'site-c'].map((name) => ({ name, ...LAN })),
  services: [
    {
      name: 'web',
      site: 'cloud',
      address: '10.0.0.5',
      ports: ['icmp', 'tcp/7000-7009', 'tcp/8080', 'tcp/8443'],
    },
    { name: 'bus', site: 'cloud', address: '10.0.0.6', ports: ['tcp/5671-5672'] },
    { name: 'agent', site: 'site-a', address: '10.0.0.9', ports: ['tcp/6080'] },
    { name: 'far', site: 'site-b', address: '10.0.0.5', ports: ['tcp/7000-7009'] },
  ],
  exposures: [
    { service: 'web', site: 'site-a' },
    { service: 'bus', site: 'site-a' },
    { service: 'far', site: 'site-a' },
    { service: 'agent', site: 'cloud' },
  ],
};

/** Bytes of payload that a gateway's TUN has carried. */
export interface TunBytes {
  /** To the hosts of the site. */
  readonly toHosts: number;
  /** From the hosts of the site. */
  readonly fromHosts: number;
}

/** Returns why the scene cannot be built here. */
export function whatTheSceneMisses(programs: Record<string, string> = {}): string | undefined {
  return whatIsMissing({ openssl: 'openssl', ...programs });
}

export class SocketsScene {
  /** The host of the services in the cloud's site. */
  readonly service: Host;
  /** Where the cloud gateway runs. */
  readonly gateway: Host;
  /** The certificate of `web`, which has signed itself. */
  readonly certificate: string;
  readonly directory: string;
  cloud: GatewayProcess;
  readonly #network: Network;
  readonly #workspace: Workspace;
  readonly #relay: Relay;
  readonly #configPath: string;
  readonly #agents: EdgeGateway[] = [];

  private constructor(
    parts: Pick<SocketsScene, 'service' | 'gateway' | 'certificate' | 'directory' | 'cloud'> & {
      readonly network: Network;
      readonly workspace: Workspace;
      readonly relay: Relay;
      readonly configPath: string;
    }
  ) {
    this.service = parts.service;
    this.gateway = parts.gateway;
    this.certificate = parts.certificate;
    this.directory = parts.directory;
    this.cloud = parts.cloud;
    this.#network = parts.network;
    this.#workspace = parts.workspace;
    this.#relay = parts.relay;
    this.#configPath = parts.configPath;
  }

  /**
   * Builds the cloud's site, and waits until its gateway and its services are ready.
   *
   * @param prepare starts more services on the host, with files in the directory
   */
  static async start(
    prepare: (service: Host, directory: string) => Promise<void> = async () => {}
  ): Promise<SocketsScene> {
    const workspace = new Workspace();
    let network: Network | undefined;
    try {
      const directory = workspace.newDirectory();
      network = await Network.create(directory);
      await network.root.sh('ip link add wan type bridge && ip link set wan up');
      const [gateway, service] = await newLan(network, 'cloud', 1);
      const web = certificate();
      const services = Promise.all([
        startServices(service, directory, web),
        prepare(service, directory),
      ]);
      const relay = await Relay.start(gateway, CLOUD_WAN, 7443);
      const home = join(directory, 'cloud');
      mkdirSync(home);
      const configPath = writeConfig(home, {
        trustDomain: ZONE,
        stateDirectory: './state',
        adminSocket: './admin.sock',
        device: DEVICE,
        tunnel: `${CLOUD_WAN}:7443`,
        enrolment: {
          listen: 'shared',
          endpoints: [`https://127.0.0.1:${relay.port}`, `https://${CLOUD_WAN}:7443`],
        },
        dns: { listen: '10.0.0.1:53' },
        desired: DESIRED,
      });
      const cloud = new GatewayProcess('cloud', [configPath], gateway.wrapper);
      await Promise.all([cloud.logged(/gateway ready/), services]);
      return new SocketsScene({
        service,
        gateway,
        certificate: web.cert,
        directory,
        cloud,
        network,
        workspace,
        relay,
        configPath,
      });
    } catch (error) {
      await network?.close();
      await killGateways();
      workspace.remove();
      throw error;
    }
  }

  async close(): Promise<void> {
    for (const agent of this.#agents) await agent.close();
    await this.#relay.close();
    await this.#network.close();
    await killGateways();
    this.#workspace.remove();
  }

  /** Starts an edge gateway with sockets in this process, and waits until it is ready. */
  async agent(
    site = 'site-a',
    device: Partial<SocketsDeviceOptions> = {},
    options: Partial<EdgeGatewayOptions> = {}
  ): Promise<EdgeGateway> {
    const agent = await EdgeGateway.start({
      token: await this.token(site),
      cloud: [`127.0.0.1:${this.#relay.port}`],
      device: { type: 'sockets', address: '10.0.0.9', ...device },
      store: new MemoryStore(),
      secrets: new MemorySecrets(),
      ...options,
    });
    this.#agents.push(agent);
    await agent.ready({ signal: AbortSignal.timeout(DEADLINE_MS) });
    return agent;
  }

  async token(site: string): Promise<string> {
    return String((await this.callAdmin('POST', '/v1/tokens', { site })).token);
  }

  /** Sends a request to the cloud gateway's admin interface. */
  async callAdmin(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
    const answer = await admin(join(this.directory, 'cloud/admin.sock'), method, path, body);
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.body.detail}`);
    return answer.body;
  }

  /** What the TUN of the cloud gateway has carried. */
  async tunBytes(): Promise<TunBytes> {
    const text = await this.gateway.get(['cat', '/proc/net/dev']);
    const line = text.split('\n').find((each) => each.trim().startsWith('vp0:'))!;
    const numbers = line
      .slice(line.indexOf(':') + 1)
      .trim()
      .split(/\s+/);
    // The kernel receives from the TUN what the gateway writes.
    return { toHosts: Number(numbers[0]), fromHosts: Number(numbers[8]) };
  }

  /** Ends the tunnels of all agents, and refuses new ones until `mend`. */
  cut(): Promise<void> {
    return this.#relay.say('cut');
  }

  mend(): Promise<void> {
    return this.#relay.say('mend');
  }

  /** Kills the cloud gateway. */
  async kill(): Promise<void> {
    // The gateway is the child of this process, in another PID namespace.
    await this.gateway.sh("pkill -KILL -f '(mjs|main[.]ts) [c]loud '");
    await this.cloud.ended;
  }

  /** Starts the cloud gateway again. */
  async restart(): Promise<void> {
    this.cloud = new GatewayProcess('cloud', [this.#configPath], this.gateway.wrapper);
    await this.cloud.logged(/gateway ready/);
  }

  /** Builds site B, and returns its host, which has the same services as that of the cloud. */
  async addSiteB(): Promise<Host> {
    const [gateway, host] = await newLan(this.#network, 'site-b', 2);
    const services = startServices(host, this.directory, certificate());
    const home = join(this.directory, 'site-b');
    mkdirSync(home);
    writeFileSync(join(home, 'token'), await this.token('site-b'), { mode: 0o600 });
    const config: Config = {
      stateDirectory: './state',
      tokenFile: './token',
      cloud: [`${CLOUD_WAN}:7443`],
      device: DEVICE,
      dns: { listen: '10.0.0.1:53' },
    };
    const edge = new GatewayProcess('edge', [writeConfig(home, config)], gateway.wrapper);
    await Promise.all([edge.logged(/Z info site-b: up to /), services]);
    return host;
  }

  /** Adds a host that reaches the cloud gateway, and nothing else. */
  async addHost(name: string, number: number): Promise<Host> {
    const host = await this.#network.newHost(name, undefined);
    await joinWan(this.#network, host, number);
    return host;
  }
}

/** Returns a counter of an edge gateway; those that are 0 may be left out of its status. */
export function counter(edge: EdgeGateway, name: string): number {
  return edge.status().counters[name] ?? 0;
}

/** The way from this process to a port in a namespace. */
class Relay {
  readonly port: number;
  readonly #child: ChildProcess;

  private constructor(port: number, child: ChildProcess) {
    this.port = port;
    this.#child = child;
  }

  static async start(to: Host, host: string, port: number): Promise<Relay> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const program = ['--import', 'tsx', 'test/e2e/sockets-relay-child.ts', host, String(port)];
    const [command, ...args] = [...to.wrapper, process.execPath, ...program];
    const child = spawn(command!, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const relay = new Relay((server.address() as AddressInfo).port, child);
    const answer = once(child, 'message');
    child.send('listen', server);
    await answer;
    server.close();
    return relay;
  }

  async say(message: 'cut' | 'mend'): Promise<void> {
    const answer = once(this.#child, 'message');
    this.#child.send(message);
    await answer;
  }

  async close(): Promise<void> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.disconnect();
    await ended;
  }
}

/** Builds the network of a site: its gateway, and a host behind it. */
async function newLan(
  network: Network,
  site: string,
  number: number
): Promise<[gateway: Host, host: Host]> {
  const gateway = await network.newHost(`gateway-of-${site}`, undefined);
  const host = await network.newHost(`host-of-${site}`, '10.0.0.1');
  await joinWan(network, gateway, number);
  await network.cable(gateway, 'lan0', host, 'eth0');
  await gateway.sh('ip address add 10.0.0.1/24 dev lan0');
  await host.sh(`
    ip address add 10.0.0.5/24 dev eth0
    ip address add 10.0.0.6/24 dev eth0
    ip route add default via 10.0.0.1
  `);
  return [gateway, host];
}

async function joinWan(network: Network, host: Host, number: number): Promise<void> {
  await network.cable(host, 'wan0', network.root, `wan${number}`);
  await network.root.sh(`ip link set wan${number} master wan`);
  await host.sh(`ip address add 198.51.100.${number}/24 dev wan0`);
}

function certificate(): Signer {
  const forge = new Forge();
  try {
    return forge.root('/CN=web', `subjectAltName=DNS:web.${ZONE}`);
  } finally {
    forge.close();
  }
}

async function startServices(host: Host, directory: string, web: Signer): Promise<Program> {
  const files = {
    key: join(directory, `${host.name}.key`),
    cert: join(directory, `${host.name}.pem`),
  };
  writeFileSync(files.key, web.key);
  writeFileSync(files.cert, web.cert);
  const program = ['--import', 'tsx', 'test/e2e/sockets-service-child.ts', files.key, files.cert];
  const services = host.start([process.execPath, ...program], LIFETIME_SECONDS);
  await services.printed(/ready/, DEADLINE_MS);
  return services;
}

/** Longer than all tests; the programs end with the network. */
export const LIFETIME_SECONDS = 600;
export const DEADLINE_MS = 90_000;
