/**
 * Hosts on which the steps of docs/several-machines.md are taken as they stand there: each has the directories of the
 * guide (`/etc`, `/run`, `/var/lib`) for itself, and knows the names of the members of etcd.
 *
 * ```
 *              cloud (lan)                      site-a
 *            service .5   one .2  two .3  three .4     edge .1 - client .5       all 10.0.0.0/24
 *                           |       |       |            |
 *       wan ---+------------+-------+-------+------------+---
 *              etcd-1, etcd-2, etcd-3              the machines are 198.51.100.1, .2 and .3
 *              192.0.2.11, .12 and .13
 * ```
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { blocksOf, read } from '../documents/snippets.ts';
import { GatewayProcess, virtualPresence } from '../support/gateway-process.ts';
import type { Host, Network, Output, Program } from '../support/network.ts';

export const MEMBERS = ['etcd-1', 'etcd-2', 'etcd-3'] as const;
export const MACHINES = ['one', 'two', 'three'] as const;
export type MachineName = (typeof MACHINES)[number];
export const CLOUD_FILE = '/etc/virtual-presence/cloud.yaml';
export const EDGE_FILE = '/etc/virtual-presence/edge.yaml';

/** Returns the block of the guide that matches. */
export function blockOf(pattern: RegExp): string {
  const found = blocksOf(GUIDE).filter(({ text }) => pattern.test(text));
  if (found.length !== 1) throw new Error(`${found.length} blocks of the guide match ${pattern}`);
  return found[0]!.text;
}

/** Returns the lines of a block of the guide that match. */
export function linesOf(block: RegExp, pattern: RegExp): string {
  const lines = blockOf(block).split('\n');
  return lines.flatMap((line) => (pattern.test(line) ? `${line}\n` : [])).join('');
}

/** Returns the words of a command that the guide has, with `NAME` replaced. */
export function command(text: string, name = 'NAME'): string[] {
  if (!read(GUIDE).includes(`\`virtual-presence ${text}\``)) {
    throw new Error(`the guide does not have the command ${text}`);
  }
  return text.replace('NAME', name).split(' ');
}

/** Returns lines of the guide for one name, repeated for others. */
export function forEach(lines: string, name: string, names: readonly string[]): string {
  return names.map((each) => lines.replaceAll(name, each)).join('');
}

/** A host with directories of its own. */
export class GuideHost {
  readonly host: Host;
  readonly #root: string;

  private constructor(host: Host, root: string) {
    this.host = host;
    this.#root = root;
  }

  static async create(host: Host, directory: string): Promise<GuideHost> {
    const root = join(directory, host.name);
    for (const each of OWN) mkdirSync(join(root, each), { recursive: true });
    const names = MEMBERS.map((name, index) => `192.0.2.1${index + 1} ${name}.example.org\n`);
    writeFileSync(join(root, 'etc/hosts'), `127.0.0.1 localhost\n${names.join('')}`);
    await host.sh(`
      cd /etc
      cp -r passwd group nsswitch.conf ld.so.cache iproute2 ssl ${root}/etc 2>/dev/null || true
      cat resolv.conf >${root}/etc/resolv.conf
      for each in ${OWN.join(' ')}; do mount --bind ${root}/$each /$each; done
    `);
    return new GuideHost(host, root);
  }

  /** Runs shell commands of the guide, which must not fail. All of them run as root. */
  sh(commands: string, directory = '/'): Promise<string> {
    return this.host.sh(`cd ${directory}\n${commands.replaceAll('sudo ', '')}`);
  }

  /** Runs the command `virtual-presence`. */
  ask(words: readonly string[]): Promise<Output> {
    return this.host.run([...virtualPresence(), ...words]);
  }

  /** Runs the command `virtual-presence`, which must not fail. */
  async get(words: readonly string[]): Promise<string> {
    const { code, stdout, text } = await this.ask(words);
    if (code !== 0) throw new Error(`${this.host.name}: ${words.join(' ')}: ${code}\n${text}`);
    return stdout;
  }

  write(path: string, text: string, mode = 0o644): void {
    mkdirSync(dirname(join(this.#root, path)), { recursive: true });
    writeFileSync(join(this.#root, path), text, { mode });
  }

  /** Starts the gateway that a unit of the package starts, with the directories that systemd makes for it. */
  async startGateway(program: 'cloud' | 'edge', unit: string): Promise<GatewayProcess> {
    const name = `virtual-presence-${program}`;
    const credentials = `/run/credentials/${name}.service`;
    const loaded = [...unit.matchAll(/^LoadCredential=(.*):(.*)$/gm)];
    await this.sh(`
      mkdir -p /run/${name} ${credentials}
      mkdir -p -m 700 /var/lib/${name}
      ${loaded.map(([, to, from]) => `cp ${from} ${credentials}/${to}`).join('\n')}
    `);
    const file = /^ExecStart=\S+ \S+ (.*)$/m.exec(unit)![1]!;
    const gateway = new GatewayProcess(program, [file], this.host.wrapper);
    await gateway.logged(program === 'cloud' ? /gateway ready/ : /revision \d+, [1-9]/);
    return gateway;
  }
}

export class GuideScene {
  readonly members: readonly GuideHost[];
  readonly machines: Readonly<Record<MachineName, GuideHost>>;
  readonly edge: GuideHost;
  readonly service: Host;
  readonly client: Host;
  /** Where the operator has the files of etcd's CA. */
  readonly desk: string;

  private constructor(parts: Omit<GuideScene, 'startMember' | 'startMachine' | 'kill'>) {
    this.members = parts.members;
    this.machines = parts.machines;
    this.edge = parts.edge;
    this.service = parts.service;
    this.client = parts.client;
    this.desk = parts.desk;
  }

  static async create(network: Network, directory: string): Promise<GuideScene> {
    const { root } = network;
    await root.sh('for net in wan lan; do ip link add $net type bridge; ip link set $net up; done');
    const plug = async (host: Host, net: 'wan' | 'lan', ...addresses: string[]) => {
      const port = `${net}-${host.name}`;
      await network.cable(host, `${net}0`, root, port);
      await root.sh(`ip link set ${port} master ${net}`);
      for (const each of addresses) await host.sh(`ip address add ${each}/24 dev ${net}0`);
    };
    const newHost = async (name: string): Promise<GuideHost> =>
      GuideHost.create(await network.newHost(name, undefined), directory);
    const newMember = async (index: number): Promise<GuideHost> => {
      const member = await newHost(MEMBERS[index]!);
      await plug(member.host, 'wan', `192.0.2.1${index + 1}`);
      return member;
    };
    const newMachine = async (index: number): Promise<GuideHost> => {
      const machine = await newHost(MACHINES[index]!);
      await plug(machine.host, 'wan', `198.51.100.${index + 1}`, `192.0.2.${index + 1}`);
      await plug(machine.host, 'lan', `10.0.0.${index + 2}`);
      return machine;
    };
    const members = await Promise.all([0, 1, 2].map(newMember));
    const [one, two, three] = await Promise.all([newMachine(0), newMachine(1), newMachine(2)]);
    const service = await network.newHost('service', undefined);
    await plug(service, 'lan', '10.0.0.5');
    const edge = await newHost('edge');
    await plug(edge.host, 'wan', '198.51.100.11');
    const client = await network.newHost('client', '10.0.0.1');
    await network.cable(client, 'eth0', edge.host, 'lan0');
    await edge.host.sh('ip address add 10.0.0.1/24 dev lan0');
    await client.sh('ip address add 10.0.0.5/24 dev eth0');
    const desk = join(directory, 'desk');
    mkdirSync(desk);
    return new GuideScene({ members, machines: { one, two, three }, edge, service, client, desk });
  }

  /** Starts a member of etcd as Debian's unit does it; as its user, if this one can become another. */
  async startMember(index: number): Promise<Program> {
    const { host } = this.members[index]!;
    const user = isRoot ? 'setpriv --reuid etcd --regid etcd --clear-groups' : '';
    await host.sh(`mkdir -p /var/lib/etcd; ${isRoot ? 'chown etcd: /var/lib/etcd' : ''}`);
    const unit = `
      export ETCD_DATA_DIR=/var/lib/etcd/default
      set -a; . /etc/default/etcd; set +a
      exec ${user} etcd`;
    return host.start(['sh', '-ec', unit], LIFETIME_SECONDS);
  }

  /** Starts the gateway of a machine by the unit, and what the guide adds to it. */
  async startMachine(name: MachineName): Promise<void> {
    const added = blockOf(/LoadCredential=etcd-key/).replaceAll('one', name);
    const unit = read('systemd/virtual-presence-cloud.service');
    await this.machines[name].startGateway('cloud', unit + added);
  }

  /** Ends the gateway of a machine by a signal, and waits for its end. */
  async kill(name: MachineName, signal: 'TERM' | 'KILL'): Promise<void> {
    const machine = this.machines[name];
    const { pid } = JSON.parse(await machine.get(['status', '--json'])) as { pid: number };
    await machine.sh(
      `kill -${signal} ${pid}; while kill -0 ${pid} 2>/dev/null; do sleep 0.05; done`
    );
  }
}

const GUIDE = 'docs/several-machines.md';
const OWN = ['etc', 'run', 'var/lib'];
const isRoot = process.getuid?.() === 0;
/** Longer than all tests; the programs end with the network. */
export const LIFETIME_SECONDS = 600;
