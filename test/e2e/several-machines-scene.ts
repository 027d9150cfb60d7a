/**
 * A cloud of some machines on etcd, and sites. The machines and the service are on one segment, where the machine that
 * holds a site answers for its presences. All networks of the cloud and of the sites have the same addresses, 10.0.0.0/16,
 * and fd00::/64 too if the scene has IPv6:
 *
 * ```
 *              cloud                                 site A    site B
 *  hosts     service .5                            client .5  client .5
 *                |                                     |         |
 *         -------+------+---------                     |         |
 *         |             |        |                     |         |
 *  gateways  one .2   two .3  three .4              edge .1   edge .1
 *         |             |        |                     |         |
 *       --+-------------+--------+---------+-----------+---------+--
 *  198.51.100.1        .2       .3       .100 etcd    .11       .12
 * ```
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type AdminAnswer,
  admin,
  eventually,
  GatewayProcess,
  writeConfig,
} from '../support/gateway-process.ts';
import type { Host, Network } from '../support/network.ts';
import { EtcdHost } from './several-machines-etcd.ts';
import { HOST_PROGRAM, LIFETIME_SECONDS, OPEN_PORT, ZONE } from './several-processes-scene.ts';

/** One machine of the cloud. */
export interface Machine {
  readonly name: string;
  readonly host: Host;
  /** Its address in the network between gateways. */
  readonly address: string;
  /** Its interface of the network between gateways, as the network's bridge has it. */
  readonly wan: string;
  readonly home: string;
  gateway: GatewayProcess;
  /** The process of the gateway, in the namespaces. */
  pid: number;
}

/** A site with its edge and one client. */
export interface Site {
  readonly name: string;
  readonly client: Host;
  /** The host of the edge. */
  readonly host: Host;
  /** Its interface of the network between gateways, as the network's bridge has it. */
  readonly wan: string;
  readonly home: string;
  edge: GatewayProcess;
  /** The process of the edge, in the namespaces. */
  pid: number;
}

export interface SceneOptions {
  /** From 1 to 3; default 2. */
  readonly machines?: number;
  /** From 1 to 9; default 1. */
  readonly sites?: number;
  /** How many members etcd has, 1 or 3; default 1. */
  readonly members?: number;
  /** Where etcd has its data. In memory, other programs cannot make it slow. Default `disk`. */
  readonly etcdData?: 'disk' | 'memory';
  /** Arguments of etcd; default: none. */
  readonly etcd?: readonly string[];
  /** Default 2. */
  readonly ttlSeconds?: number;
  /** The TTL of names; default 30. */
  readonly nameTtlSeconds?: number;
  /** Whether there is a `service6` with an IPv6 address; default false. */
  readonly hasIpv6?: boolean;
  /** For how long etcd and the service run at most; default ten minutes. */
  readonly lifetimeSeconds?: number;
}

export class MachinesScene {
  readonly root: Host;
  readonly service: Host;
  readonly machines: readonly Machine[];
  readonly etcdHosts: readonly EtcdHost[];
  readonly sites: readonly Site[];

  private constructor(
    parts: Pick<MachinesScene, 'root' | 'service' | 'machines' | 'etcdHosts' | 'sites'>
  ) {
    this.root = parts.root;
    this.service = parts.service;
    this.machines = parts.machines;
    this.etcdHosts = parts.etcdHosts;
    this.sites = parts.sites;
  }

  /** @param directory where the programs have their files */
  static async start(
    network: Network,
    directory: string,
    options: SceneOptions = {}
  ): Promise<MachinesScene> {
    const { machines: machineCount = 2, sites: siteCount = 1, hasIpv6 = false } = options;
    const { lifetimeSeconds = LIFETIME_SECONDS } = options;
    const { root } = network;
    await root.sh(`
      ip link add wan type bridge && ip link set wan up
      ip link add lan type bridge && ip link set lan up
    `);
    const onWan = async (host: Host, number: number): Promise<string> => {
      await network.cable(host, 'wan0', root, `wan${number}`);
      await root.sh(`ip link set wan${number} master wan`);
      await host.sh(`ip address add ${wanAddress(number)}/24 dev wan0`);
      return `wan${number}`;
    };
    const addLan = async (host: Host, device: string, number: number): Promise<void> => {
      await host.sh(`ip address add 10.0.0.${number}/16 dev ${device}`);
      if (hasIpv6) await host.sh(`ip address add fd00::${number}/64 dev ${device} nodad`);
    };
    const onLan = async (host: Host, number: number): Promise<void> => {
      await network.cable(host, 'lan0', root, `lan${number}`);
      await root.sh(`ip link set lan${number} master lan`);
      await addLan(host, 'lan0', number);
    };
    const service = async (): Promise<Host> => {
      const host = await network.newHost('service', undefined);
      await onLan(host, 5);
      const addresses = hasIpv6 ? ['10.0.0.5', 'fd00::5'] : ['10.0.0.5'];
      for (const address of addresses) {
        const program = host.start([...HOST_PROGRAM, address, `${OPEN_PORT}`], lifetimeSeconds);
        await program.printed(/ready/);
      }
      return host;
    };

    const [etcdHosts, serviceHost] = await Promise.all([
      startEtcd(network, directory, onWan, options),
      service(),
    ]);
    const names = MACHINE_NAMES.slice(0, machineCount);
    const machine = async (name: string, at: number): Promise<Machine> => {
      const host = await network.newHost(name, undefined);
      const wan = await onWan(host, at + 1);
      await onLan(host, at + 2);
      const home = join(directory, name);
      mkdirSync(home);
      writeFileSync(join(home, 'passphrase'), 'of all machines\n', { mode: 0o600 });
      const address = wanAddress(at + 1);
      // Each machine begins with another member.
      const members = etcdHosts.map((_, i) => etcdHosts[(at + i) % etcdHosts.length]!.address);
      writeConfig(home, {
        trustDomain: ZONE,
        stateDirectory: './state',
        adminSocket: './admin.sock',
        device: { type: 'tun', name: 'vp0', mtu: 1500, proxyArp: ['lan0'] },
        tunnel: `${address}:7443`,
        enrolment: {
          listen: `${address}:7440`,
          endpoints: names.map((_, i) => `https://${wanAddress(i + 1)}:7440`),
          tunnels: names.map((_, i) => `${wanAddress(i + 1)}:7443`),
        },
        trust: { passphraseFile: './passphrase' },
        ttlSeconds: options.nameTtlSeconds ?? 30,
        cluster: {
          machine: name,
          etcd: { endpoints: members.map((member) => `${member}:2379`) },
          endpoints: [`${address}:7443`],
          ttlSeconds: options.ttlSeconds ?? 2,
        },
        desired: desired(siteCount, hasIpv6),
      });
      return { name, host, address, wan, home, ...(await startGateway(host, home)) };
    };
    // The first one makes the CA.
    const first = await machine(names[0]!, 0);
    const others = await Promise.all(names.slice(1).map((name, at) => machine(name, at + 1)));

    const site = async (at: number): Promise<Site> => {
      const name = siteName(at);
      const host = await network.newHost(`edge-${name}`, undefined);
      const wan = await onWan(host, at + 11);
      const client = await network.newHost(`client-${name}`, '10.0.0.1');
      await network.cable(client, 'eth0', host, 'lan0');
      await addLan(host, 'lan0', 1);
      await addLan(client, 'eth0', 5);
      if (hasIpv6) await client.sh(`ip route add ${POOL_6} via fd00::1`);
      const home = join(directory, name);
      mkdirSync(home);
      await writeToken(first, name, home);
      const routes = hasIpv6 ? [POOL_4, POOL_6] : [POOL_4];
      writeConfig(home, {
        stateDirectory: './state',
        tokenFile: './token',
        device: { type: 'tun', name: 'vp0', mtu: 1500, routes, proxyArp: ['lan0'] },
        dns: { listen: '10.0.0.1:53' },
      });
      return { name, client, host, wan, home, ...(await startEdge(host, home)) };
    };
    const sites = await Promise.all(Array.from({ length: siteCount }, (_, at) => site(at)));
    return new MachinesScene({
      root,
      service: serviceHost,
      machines: [first, ...others],
      etcdHosts,
      sites,
    });
  }

  /** The client of the first site. */
  get client(): Host {
    return this.sites[0]!.client;
  }

  /** The edge of the first site. */
  get edge(): GatewayProcess {
    return this.sites[0]!.edge;
  }

  /** The machine that holds the first site. */
  get holder(): Machine {
    return this.holderOf(this.sites[0]!);
  }

  /** Returns the machine that holds a site: the one to which its edge has connected last. */
  holderOf({ edge }: Site): Machine {
    const [, number] = [...edge.output.matchAll(/: up to 198\.51\.100\.(\d+)/g)].at(-1)!;
    return this.machines[Number(number) - 1]!;
  }

  /** Returns the first machine that is not this one. */
  other({ name }: Machine): Machine {
    return this.machines.find((each) => each.name !== name)!;
  }

  /** Returns the machine that allocates addresses, when all machines that run say the same. */
  controller(): Promise<Machine> {
    return eventually('one machine allocates addresses for all', async () => {
      const running = this.machines.filter(
        ({ gateway: { child } }) => child.exitCode === null && child.signalCode === null
      );
      const names = await Promise.all(running.map((each) => controllerAt(each)));
      const [name] = names;
      if (name === undefined || names.some((each) => each !== name)) return undefined;
      return this.machines.find((each) => each.name === name);
    });
  }

  /** Sends a request to the admin interface of a machine. */
  ask(machine: Machine, method: string, path: string, body?: unknown): Promise<AdminAnswer> {
    return admin(join(machine.home, 'admin.sock'), method, path, body);
  }

  /** Stops the gateway of a machine, or lets it go on. */
  async signal(machine: Machine, signal: 'STOP' | 'CONT'): Promise<void> {
    await machine.host.sh(`kill -${signal} ${machine.pid}`);
  }

  /** Kills the gateway of a machine, not the program that started it. */
  async kill(machine: Machine): Promise<void> {
    await machine.host.sh(`kill -KILL ${machine.pid}`);
    await machine.gateway.ended;
  }

  /** Starts the gateway of a machine after its end. */
  async restart(machine: Machine): Promise<void> {
    Object.assign(machine, await startGateway(machine.host, machine.home));
  }

  /** Starts the edge of a site after its end. */
  async restartEdge(site: Site): Promise<void> {
    Object.assign(site, await startEdge(site.host, site.home));
  }

  /** Kills the edge of a site, not the program that started it. */
  async killEdge(site: Site): Promise<void> {
    await site.host.sh(`kill -KILL ${site.pid}`);
    await site.edge.ended;
  }

  /** Ends the revocation of a site, and enrols it again. */
  async enrolAgain(site: Site): Promise<void> {
    const [machine] = this.machines;
    await this.killEdge(site);
    await this.ask(machine!, 'DELETE', `/v1/revocations/${site.name}`);
    rmSync(join(site.home, 'state'), { recursive: true });
    await writeToken(machine!, site.name, site.home);
    await this.restartEdge(site);
  }

  /** Brings a site to a machine, if it is not there. */
  async moveTo(site: Site, machine: Machine): Promise<void> {
    const holder = this.holderOf(site);
    if (holder === machine) return;
    const since = site.edge.output.length;
    await this.ask(holder, 'POST', '/v1/moves', { site: site.name, machine: machine.name });
    await site.edge.logged(/: up to /, since);
    if (this.holderOf(site) !== machine) throw new Error(`${site.name} is at another machine`);
  }

  /** Returns which member of etcd leads, when one of those that run does. */
  leader(): Promise<number> {
    return eventually('a member of etcd leads', async () => {
      const leads = await Promise.all(this.etcdHosts.map((each) => each.leads()));
      const at = leads.indexOf(true);
      return at === leads.lastIndexOf(true) && at >= 0 ? at : undefined;
    });
  }

  /** Stops all of etcd, or lets it go on. */
  async signalEtcd(signal: 'STOP' | 'CONT'): Promise<void> {
    await Promise.all(this.etcdHosts.map((each) => each.signal(signal)));
  }

  /** Takes a cable out of the network between gateways. */
  async unplug({ wan }: { readonly wan: string }): Promise<void> {
    await this.root.sh(`ip link set ${wan} down`);
  }

  async plugIn({ wan }: { readonly wan: string }): Promise<void> {
    await this.root.sh(`ip link set ${wan} up`);
  }

  /** Lets no packet pass between a host and some addresses, until `heal`. */
  async cut({ host }: { readonly host: Host }, addresses: readonly string[]): Promise<void> {
    const those = `{ ${addresses.join(', ')} }`;
    await host.sh(`nft -f - <<'END'
      table ip cut {
        chain arriving { type filter hook input priority 0; ip saddr ${those} drop; }
        chain leaving { type filter hook output priority 0; ip daddr ${those} drop; }
      }
END`);
  }

  async heal({ host }: { readonly host: Host }): Promise<void> {
    await host.sh('nft delete table ip cut');
  }

  /** Returns the routes of blocks by which a machine takes packets for presences. */
  async blocksAt({ host }: Machine): Promise<string[]> {
    const routes = await host.sh(
      'ip -4 route show proto 118 dev vp0; ip -6 route show proto 118 dev vp0'
    );
    return routes.split('\n').flatMap((line) => line.split(' ')[0] || []);
  }

  /**
   * Waits until exactly one machine has the route of each block, and returns the names of the machines by blocks. Nothing
   * may be in progress.
   */
  quiet(): Promise<ReadonlyMap<string, string>> {
    return eventually('each block has one machine', async () => {
      const machines = new Map<string, string>();
      for (const machine of this.machines) {
        for (const block of await this.blocksAt(machine)) {
          if (machines.has(block)) return undefined;
          machines.set(block, machine.name);
        }
      }
      return machines.size > 0 ? machines : undefined;
    });
  }
}

/** Starts all members, with their data in memory or on the disk. */
async function startEtcd(
  network: Network,
  directory: string,
  onWan: (host: Host, number: number) => Promise<string>,
  { members = 1, etcdData = 'disk', etcd = [], lifetimeSeconds = LIFETIME_SECONDS }: SceneOptions
): Promise<EtcdHost[]> {
  const named = Array.from(
    { length: members },
    (_, at) => [`etcd-${at + 1}`, wanAddress(at + 100)] as const
  );
  const hosts = await Promise.all(
    named.map(async ([name, address], at) => {
      const host = await network.newHost(name, undefined);
      const wan = await onWan(host, at + 100);
      const its = join(directory, `of-${name}`);
      mkdirSync(its);
      // Only the programs of this host see it.
      if (etcdData === 'memory') await host.sh(`mount -t tmpfs tmpfs '${its}'`);
      return new EtcdHost(
        { name, host, wan, address, directory: its },
        named,
        etcd,
        lifetimeSeconds
      );
    })
  );
  for (const host of hosts) host.start();
  await Promise.all(hosts.map((host) => host.ready()));
  return hosts;
}

async function startGateway(host: Host, home: string): Promise<Pick<Machine, 'gateway' | 'pid'>> {
  const { process: gateway, pid } = startIn(home, 'cloud', host);
  await gateway.logged(/gateway ready/);
  return { gateway, pid: pid() };
}

async function startEdge(host: Host, home: string): Promise<Pick<Site, 'edge' | 'pid'>> {
  const { process: edge, pid } = startIn(home, 'edge', host);
  await edge.logged(/revision \d+, [1-9]/);
  return { edge, pid: pid() };
}

/** Starts a gateway, which writes its number as it is in the namespaces. */
function startIn(
  home: string,
  program: 'cloud' | 'edge',
  host: Host
): { readonly process: GatewayProcess; readonly pid: () => number } {
  const file = join(home, 'pid');
  const wrapper = [...host.wrapper, 'sh', '-c', 'echo $$ >"$0" && exec "$@"', file];
  const process = new GatewayProcess(program, [join(home, 'gateway.yaml')], wrapper);
  return { process, pid: () => Number(readFileSync(file, 'utf8')) };
}

async function writeToken(machine: Machine, site: string, home: string): Promise<void> {
  const { body } = await admin(join(machine.home, 'admin.sock'), 'POST', '/v1/tokens', { site });
  writeFileSync(join(home, 'token'), body.token!, { mode: 0o600 });
}

/** Returns which machine allocates addresses, as a machine sees it; undefined if none does. */
async function controllerAt({ home }: Machine): Promise<string | undefined> {
  const { body } = await admin(join(home, 'admin.sock'), 'GET', '/v1/machines');
  const machines = body.machines as { readonly name: string; readonly isController: boolean }[];
  return machines.find(({ isController }) => isController)?.name;
}

function desired(sites: number, hasIpv6: boolean): Record<string, unknown> {
  const realm = {
    sources: hasIpv6 ? ['10.0.0.0/16', 'fd00::/64'] : ['10.0.0.0/16'],
    pools: hasIpv6 ? [POOL_4, POOL_6] : [POOL_4],
    zone: ZONE,
    maxClients: 10_000,
  };
  const names = Array.from({ length: sites }, (_, at) => siteName(at));
  const services = [{ name: 'service', site: 'cloud', address: '10.0.0.5', ports: PORTS }];
  if (hasIpv6) services.push({ ...services[0]!, name: 'service6', address: 'fd00::5' });
  return {
    sites: ['cloud', ...names].map((name) => ({ name, ...realm })),
    services,
    exposures: names.flatMap((site) => services.map(({ name }) => ({ service: name, site }))),
  };
}

/** Returns `site-a` and so on. */
function siteName(at: number): string {
  return `site-${'abcdefghi'[at]}`;
}

function wanAddress(number: number): string {
  return `198.51.100.${number}`;
}

const MACHINE_NAMES: readonly string[] = ['one', 'two', 'three'];
const POOL_4 = '10.0.128.0/17';
const POOL_6 = 'fd00::1:0:0/96';
const PORTS: readonly string[] = ['icmp', `tcp/${OPEN_PORT}`, `udp/${OPEN_PORT}`];
