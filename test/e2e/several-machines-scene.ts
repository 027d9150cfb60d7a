/**
 * A cloud of two machines on one etcd, and a site. The machines and the service are on one segment, where the machine that
 * holds a site answers ARP for its presences; all networks of the cloud and the site are 10.0.0.0/24:
 *
 * ```
 *              cloud                           site A
 *  hosts     service .5                      host-a .5
 *                |                               |
 *         -------+--------                       |
 *         |              |                       |
 *  gateways  one .2      two .3               edge .1
 *         |              |                       |
 *       --+--------------+-----------+-----------+--
 *        198.51.100.1   .2          .11         .100  etcd
 * ```
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { admin, GatewayProcess, writeConfig } from '../support/gateway-process.ts';
import type { Host, Network } from '../support/network.ts';
import { OPEN_PORT, ZONE } from './several-processes-scene.ts';

const REALM = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: ZONE };
const PORTS = ['icmp', `tcp/${OPEN_PORT}`, `udp/${OPEN_PORT}`];
const DESIRED = {
  sites: ['cloud', 'site-a'].map((name) => ({ name, ...REALM })),
  services: [{ name: 'service', site: 'cloud', address: '10.0.0.5', ports: PORTS }],
  exposures: [{ service: 'service', site: 'site-a' }],
};
const ETCD = '198.51.100.100';

/** One machine of the cloud. */
export interface Machine {
  readonly name: string;
  readonly host: Host;
  /** Its interface of the network between gateways, as the network's bridge has it. */
  readonly wan: string;
  readonly home: string;
  gateway: GatewayProcess;
}

/** How soon the death of a machine is noticed. */
export interface Timing {
  /** Default 2. */
  readonly ttlSeconds?: number;
  /** Arguments of etcd; default: none. */
  readonly etcd?: readonly string[];
  /** After how long etcd and the service are killed; default 600. */
  readonly lifetimeSeconds?: number;
}

export class MachinesScene {
  readonly service: Host;
  readonly client: Host;
  /** The machine of etcd. */
  readonly store: Host;
  readonly machines: readonly [Machine, Machine];
  readonly edge: GatewayProcess;
  readonly root: Host;

  private constructor(
    parts: Omit<MachinesScene, 'restart' | 'holder' | 'kill' | 'other' | 'signalEtcd'>
  ) {
    this.service = parts.service;
    this.client = parts.client;
    this.store = parts.store;
    this.machines = parts.machines;
    this.edge = parts.edge;
    this.root = parts.root;
  }

  static async start(
    network: Network,
    directory: string,
    timing: Timing = {}
  ): Promise<MachinesScene> {
    const { root } = network;
    const { lifetimeSeconds = LIFETIME_SECONDS } = timing;
    await root.sh(`
      ip link add wan type bridge && ip link set wan up
      ip link add lan type bridge && ip link set lan up
    `);
    const onWan = async (host: Host, number: number): Promise<string> => {
      await network.cable(host, 'wan0', root, `wan${number}`);
      await root.sh(`ip link set wan${number} master wan`);
      await host.sh(`ip address add 198.51.100.${number}/24 dev wan0`);
      return `wan${number}`;
    };
    const onLan = async (host: Host, number: number): Promise<void> => {
      await network.cable(host, 'lan0', root, `lan${number}`);
      await root.sh(`ip link set lan${number} master lan`);
      await host.sh(`ip address add 10.0.0.${number}/24 dev lan0`);
    };

    const store = await network.newHost('etcd', undefined);
    await onWan(store, 100);
    const etcd = store.start(
      [
        'etcd',
        ...['--data-dir', join(directory, 'etcd')],
        ...['--listen-client-urls', `http://${ETCD}:2379`],
        ...['--advertise-client-urls', `http://${ETCD}:2379`],
        ...['--listen-peer-urls', 'http://127.0.0.1:2380'],
        ...(timing.etcd ?? []),
      ],
      lifetimeSeconds
    );
    await etcd.printed(/ready to serve client requests/);

    const service = await network.newHost('service', undefined);
    await onLan(service, 5);
    await service
      .start([...PROGRAM, '10.0.0.5', `${OPEN_PORT}`, '8081'], lifetimeSeconds)
      .printed(/ready/);

    const machine = async (name: string, number: number): Promise<Machine> => {
      const host = await network.newHost(name, undefined);
      const wan = await onWan(host, number);
      await onLan(host, number + 1);
      const home = join(directory, name);
      mkdirSync(home);
      writeFileSync(join(home, 'passphrase'), 'of both machines\n', { mode: 0o600 });
      writeConfig(home, {
        trustDomain: ZONE,
        stateDirectory: './state',
        adminSocket: './admin.sock',
        device: { type: 'tun', name: 'vp0', mtu: 1500, proxyArp: ['lan0'] },
        tunnel: `198.51.100.${number}:7443`,
        enrolment: {
          listen: `198.51.100.${number}:7440`,
          endpoints: ['https://198.51.100.1:7440', 'https://198.51.100.2:7440'],
          tunnels: ['198.51.100.1:7443', '198.51.100.2:7443'],
        },
        trust: { passphraseFile: './passphrase' },
        cluster: {
          machine: name,
          etcd: { endpoints: [`${ETCD}:2379`] },
          endpoints: [`198.51.100.${number}:7443`],
          ttlSeconds: timing.ttlSeconds ?? 2,
        },
        desired: DESIRED,
      });
      return { name, host, wan, home, gateway: await startGateway(host, home) };
    };
    const one = await machine('one', 1);
    const two = await machine('two', 2);

    const gateway = await network.newHost('edge', undefined);
    await onWan(gateway, 11);
    const client = await network.newHost('client', '10.0.0.1');
    await network.cable(client, 'eth0', gateway, 'lan0');
    await gateway.sh('ip address add 10.0.0.1/24 dev lan0');
    await client.sh('ip address add 10.0.0.5/24 dev eth0');
    const path = join(directory, 'site-a');
    mkdirSync(path);
    const { body } = await admin(join(one.home, 'admin.sock'), 'POST', '/v1/tokens', {
      site: 'site-a',
    });
    writeFileSync(join(path, 'token'), body.token!, { mode: 0o600 });
    const config = writeConfig(path, {
      stateDirectory: './state',
      tokenFile: './token',
      device: {
        type: 'tun',
        name: 'vp0',
        mtu: 1500,
        routes: REALM.pools,
        proxyArp: ['lan0'],
      },
      dns: { listen: '10.0.0.1:53' },
    });
    const edge = new GatewayProcess('edge', [config], gateway.wrapper);
    await edge.logged(/revision \d+, [1-9]/);
    return new MachinesScene({ service, client, store, machines: [one, two], edge, root });
  }

  /** Returns the machine that holds the site: the one to which its edge has connected last. */
  get holder(): Machine {
    const [, address] = [...this.edge.output.matchAll(/: up to 198\.51\.100\.(\d)/g)].at(-1)!;
    return this.machines[Number(address) - 1]!;
  }

  other({ name }: Machine): Machine {
    return this.machines.find((each) => each.name !== name)!;
  }

  /** Kills the gateway of a machine, not the program that started it. */
  async kill(machine: Machine): Promise<void> {
    const { body } = await admin(join(machine.home, 'admin.sock'), 'GET', '/v1/status');
    await machine.host.sh(`kill -KILL ${(body as { pid?: unknown }).pid}`);
    await machine.gateway.ended;
  }

  /** Stops etcd, or lets it go on. */
  async signalEtcd(signal: 'STOP' | 'CONT'): Promise<void> {
    await this.store.sh(`kill -${signal} $(pidof etcd)`);
  }

  async restart(machine: Machine): Promise<void> {
    machine.gateway = await startGateway(machine.host, machine.home);
  }
}

async function startGateway(host: Host, home: string): Promise<GatewayProcess> {
  const gateway = new GatewayProcess('cloud', [join(home, 'gateway.yaml')], host.wrapper);
  await gateway.logged(/gateway ready/);
  return gateway;
}

const PROGRAM: readonly string[] = [
  process.execPath,
  '--import',
  'tsx',
  'test/e2e/several-processes-host.ts',
];
/** Longer than all tests; the programs end with the network. */
const LIFETIME_SECONDS = 600;
