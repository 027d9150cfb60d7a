/**
 * Two sites and a cloud, made and operated by the command `virtual-presence` alone; all three networks are 10.0.0.0/24:
 *
 * ```
 *             cloud            site-a          site-b
 *  hosts    service .5       host-a .5       host-b .5
 *              |             and .77 |           |
 *  gateways   gw .1            gw-a .1         gw-b .1
 *              |198.51.100.1     |.11            |.12
 *              +---------------- wan ------------+
 * ```
 *
 * Presences are in 100.64.0.0/24, which init chooses; the gateway of each host is its default route.
 * @module
 */
import { join } from 'node:path';
import { eventually, GatewayProcess, virtualPresence } from '../support/gateway-process.ts';
import type { Host, Network, Output, Program } from '../support/network.ts';
import type { Answer, Attempt } from './command-scene-client.ts';

export const CLOUD_WAN = '198.51.100.1';
export const HOST = '10.0.0.5';
/** Another address of the same host, which is not in the sources of its site at first. */
export const SECOND = '10.0.0.77';
export const ZONE = 'presence.internal';
/** The ports on which the hosts answer, by TCP and by UDP. */
export const PORTS: readonly number[] = [8080, 8081, 8082];

/** A network: the machine of its gateway, and a host behind it. */
export interface Realm {
  readonly gateway: Machine;
  readonly host: Host;
}

/** A machine on which an operator types commands, about the gateway in the directory `home`. */
export class Machine {
  readonly host: Host;
  readonly home: string;

  constructor(host: Host, home: string) {
    this.host = host;
    this.home = home;
  }

  path(name: string): string {
    return join(this.home, name);
  }

  /** Runs the command to its end. */
  try(...args: readonly string[]): Promise<Output> {
    return this.host.run(this.#words(args), DEADLINE_SECONDS);
  }

  /** Runs a command that must not fail; returns its standard output. */
  run(...args: readonly string[]): Promise<string> {
    return this.host.get(this.#words(args), DEADLINE_SECONDS);
  }

  /** Runs a reading command with `--json`. */
  async read<T>(...args: readonly string[]): Promise<T> {
    return JSON.parse(await this.run(...args, '--json')) as T;
  }

  /** Runs a command as it was printed. Its words have no blanks, so no shell is needed. */
  runPrinted(line: string): Promise<string> {
    const [program, ...args] = line.split(' ');
    if (program !== 'virtual-presence') throw new Error(`"${line}" is another program`);
    return this.run(...args);
  }

  /** Starts a command that runs on. Returns it with its pid on this machine. */
  async start(
    ...args: readonly string[]
  ): Promise<{ readonly program: Program; readonly pid: string }> {
    const script = 'echo "pid $$" >&2; exec "$@"';
    const program = this.host.start(['sh', '-c', script, 'sh', ...this.#words(args)]);
    await program.printed(/pid \d+/);
    return { program, pid: /pid (\d+)/.exec(program.stderr)![1]! };
  }

  startGateway(kind: 'cloud' | 'edge'): GatewayProcess {
    return new GatewayProcess(kind, [this.path(`${kind}.yaml`)], this.host.wrapper);
  }

  #words(args: readonly string[]): string[] {
    return [
      'env',
      `VIRTUAL_PRESENCE_SOCKET=${this.path('admin.sock')}`,
      ...virtualPresence(),
      ...args,
    ];
  }
}

/** A host that sends packets. */
export class Sender {
  readonly #program: Program;
  #count = 0;

  constructor(host: Host) {
    const client = [process.execPath, '--import', 'tsx', 'test/e2e/command-scene-client.ts'];
    this.#program = host.start(client, LIFETIME_SECONDS);
  }

  /**
   * Sends to a service, and returns what it has answered and from where.
   *
   * @param withinMs how long an answer is waited for
   */
  async send(
    flow: Omit<Attempt, 'id' | 'source' | 'withinMs'> & { readonly source?: string },
    withinMs: number
  ): Promise<Omit<Answer, 'id'>> {
    const id = ++this.#count;
    const attempt: Attempt = { source: HOST, ...flow, id, withinMs };
    this.#program.write(`${JSON.stringify(attempt)}\n`);
    const { id: _, ...answer } = await eventually('an answer of the client', () => {
      if (this.#program.child.exitCode !== null) throw new Error(this.#program.text);
      const lines = this.#program.stdout.split('\n').slice(0, -1);
      return lines.map((line) => JSON.parse(line) as Answer).find((each) => each.id === id);
    });
    return answer;
  }
}

/** Makes the networks, and starts what answers on the hosts. */
export async function buildRealms(
  network: Network,
  directory: string
): Promise<Readonly<Record<'cloud' | 'a' | 'b', Realm>>> {
  await network.root.sh('ip link add wan type bridge && ip link set wan up');
  const realm = async (name: string, number: number): Promise<Realm> => {
    const gateway = await network.newHost(`gw-${name}`, undefined);
    await network.cable(gateway, 'wan0', network.root, `wan${number}`);
    await network.root.sh(`ip link set wan${number} master wan`);
    const host = await network.newHost(name, '10.0.0.1');
    await network.cable(host, 'eth0', gateway, 'lan0');
    await gateway.sh(`
      ip address add 198.51.100.${number}/24 dev wan0
      ip address add 10.0.0.1/24 dev lan0
    `);
    await host.sh(`
      ip address add ${HOST}/24 dev eth0
      ip address add ${SECOND}/24 dev eth0
      ip route add default via 10.0.0.1
    `);
    const server = [process.execPath, '--import', 'tsx', 'test/e2e/several-processes-host.ts'];
    await host.start([...server, HOST, ...PORTS.map(String)], LIFETIME_SECONDS).printed(/ready/);
    return { gateway: new Machine(gateway, join(directory, name)), host };
  };
  const [cloud, a, b] = await Promise.all([realm('cloud', 1), realm('a', 11), realm('b', 12)]);
  return { cloud, a, b };
}

/** A limit for one command, which takes a second on an idle machine. */
const DEADLINE_SECONDS = 90;
/** Longer than the test; the programs end with the network. */
const LIFETIME_SECONDS = 600;
