/**
 * Two machines of one cloud and a router, each with BIRD and the configuration of docs/bgp.md: which machine the router
 * sends the packets of a site to, when the site is handed over, when a process hangs and when a machine falls silent.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { blocksOf } from '../documents/snippets.ts';
import { eventually } from '../support/gateway-process.ts';
import { type Host, Network, type Program, whatIsMissing } from '../support/network.ts';
import { titled } from '../support/titled.ts';

const skipReason = whatIsMissing({
  bird: 'bird2',
  birdc: 'bird2',
  nft: 'nftables',
  ping: 'iputils-ping',
});

const POOLS = ['10.0.0.128/25', 'fd00:0:0:1::/64'];
const A = {
  blocks: ['10.0.0.144/28', 'fd00:0:0:1::10/124'],
  presences: ['10.0.0.145', 'fd00:0:0:1::11'],
};
const B = {
  blocks: ['10.0.0.160/28', 'fd00:0:0:1::20/124'],
  presences: ['10.0.0.161', 'fd00:0:0:1::21'],
};
const BLOCKS = Object.fromEntries([
  ...A.blocks.map((block) => [block, 'site-a']),
  ...B.blocks.map((block) => [block, 'site-b']),
]);
const [OF_MACHINE, OF_ROUTER] = blocksOf('docs/bgp.md')
  .filter(({ language }) => language === 'bird')
  .map(({ text }) => text) as [string, string];
/** The same for machine 2. */
const OF_MACHINE_2 = OF_MACHINE.replaceAll('10.9.0.1;', '10.9.0.2;')
  .replaceAll('local 10.9.0.1 ', 'local 10.9.0.2 ')
  .replace('local 10.8.0.1', 'local 10.8.0.2')
  .replace('neighbor 10.8.0.2', 'neighbor 10.8.0.1');

interface Machine {
  readonly host: Host;
  readonly program: Program;
}

describe.skipIf(skipReason !== undefined)(titled('BIRD', skipReason), () => {
  const directory = mkdtempSync(join(tmpdir(), 'vp-bird-'));
  let network: Network;
  let router: Host;
  let one: Machine;
  let two: Machine;

  beforeAll(async () => {
    network = await Network.create(directory);
    await network.root.sh(
      'for net in rack transit; do ip link add $net type bridge; ip link set $net up; done'
    );
    const newHost = async (name: string, number: number, conf: string): Promise<Host> => {
      const host = await network.newHost(name, undefined);
      const nets = name === 'router' ? ['rack'] : ['rack', 'transit'];
      for (const [i, net] of nets.entries()) {
        await network.cable(host, `${net}0`, network.root, `${net}${number}`);
        await network.root.sh(`ip link set ${net}${number} master ${net}`);
        await host.sh(`
          ip address add 10.${9 - i}.0.${number}/24 dev ${net}0
          ip address add fd0${9 - i}::${number}/64 dev ${net}0 nodad
          # A packet is taken from the interface only that leads to its source.
          echo 1 >/proc/sys/net/ipv4/conf/${net}0/rp_filter
        `);
      }
      writeFileSync(join(directory, `${name}.conf`), conf);
      host.start(
        ['bird', '-f', '-c', `${directory}/${name}.conf`, '-s', `${directory}/${name}.ctl`],
        300
      );
      return host;
    };
    const machine = async (number: number, conf: string): Promise<Machine> => {
      const host = await newHost(`machine-${number}`, number, conf);
      const device = { name: 'vp0', routes: POOLS, lan: ['rack0'], transit: ['transit0'] };
      const program = host.start([...MACHINE, JSON.stringify(device), JSON.stringify(BLOCKS)], 300);
      await program.printed(/^ready/m);
      return { host, program };
    };
    [router, one, two] = await Promise.all([
      newHost('router', 254, OF_ROUTER),
      machine(1, OF_MACHINE),
      machine(2, OF_MACHINE_2),
    ]);
  });

  afterAll(async () => {
    await network?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function command({ program }: Machine, line: string): Promise<void> {
    program.write(`${line}\n`);
    await program.printed(new RegExp(`^${line}$`, 'm'), DEADLINE_MS);
  }

  const signal = ({ host, program }: Machine, name: string) =>
    host.sh(`kill -${name} ${/^ready (\d+)$/m.exec(program.stdout)![1]}`);

  const birdc = (name: string, ...args: string[]) =>
    network.root.get(['birdc', '-s', `${directory}/${name}.ctl`, ...args]);

  /** Returns the machines to which the kernel of a host routes prefixes, as `10.9.0.1 fd09::1`. */
  async function waysOf(host: Host, prefixes: readonly string[]): Promise<string> {
    const table = `${await host.sh('ip -4 route')}${await host.sh('ip -6 route')}`;
    return prefixes
      .map((prefix) => new RegExp(`^${prefix} via (\\S+)`, 'm').exec(table)?.[1] ?? 'nowhere')
      .join(' ');
  }

  const way = (host: Host, prefixes: readonly string[], expected: string) =>
    eventually(
      `${host.name} routes ${prefixes} to ${expected}`,
      async () => (await waysOf(host, prefixes)) === expected || undefined,
      DEADLINE_MS
    );

  /** A session of BGP may end on a busy machine, as BFD is fast; it comes back. */
  const answers = (presence: string) =>
    eventually(
      `${presence} answers the router`,
      async () => (await router.run(['ping', '-c1', '-W1', presence])).code === 0 || undefined,
      DEADLINE_MS
    );

  test('the router follows the machine that holds a site', async () => {
    // The pools are announced although nothing is held.
    await eventually('the pools', async () =>
      (await waysOf(router, POOLS)).includes('nowhere') ? undefined : true
    );
    expect(await waysOf(router, A.blocks)).toBe('nowhere nowhere');
    await Promise.all([command(one, 'hold site-a 100'), command(two, 'hold site-b 101')]);
    await way(router, A.blocks, '10.9.0.1 fd09::1');
    await way(router, B.blocks, '10.9.0.2 fd09::2');
    expect(await birdc('router', 'show', 'route', 'all', '10.0.0.144/28')).toContain(
      `BGP.med: ${2 ** 32 - 100}`
    );
    await Promise.all([...A.presences, ...B.presences].map(answers));
  });

  test('packets from site to site pass between the machines, and no host can send them', async () => {
    await way(one.host, B.blocks, '10.8.0.2 fd08::2');
    await way(two.host, A.blocks, '10.8.0.1 fd08::1');
    for (const [i, presence] of A.presences.entries()) {
      await command(one, `ping ${presence} ${B.presences[i]}`);
    }
    const dropped = async () => {
      const rules = await two.host.sh('nft list chain inet vp_vp0 sources');
      const counters = rules.matchAll(/saddr @ipv[46] counter packets (\d+)/g);
      return [...counters].map(([, packets]) => Number(packets));
    };
    expect(await dropped()).toEqual([0, 0]);
    const forge = (presence: string, i: number) =>
      router.sh(`
        ip address replace ${presence} dev lo
        ping -c1 -W0.2 -I ${presence} ${B.presences[i]} >/dev/null || true
        ip address delete ${presence} dev lo
      `);
    await eventually(
      'the forged packets are dropped',
      async () => {
        await Promise.all(A.presences.map(forge));
        return (await dropped()).every((packets) => packets > 0) || undefined;
      },
      DEADLINE_MS
    );
  });

  test('the route of a process that hangs loses, and comes back to nothing', async () => {
    await signal(one, 'STOP');
    await command(two, 'hold site-a 102');
    await way(router, A.blocks, '10.9.0.2 fd09::2');
    await eventually(
      'the router knows both routes, and prefers the newer one',
      async () => {
        const known = await birdc('router', 'show', 'route', '10.0.0.144/28');
        return (/\[machine2[^\n]*\] \*/.test(known) && known.includes('[machine1')) || undefined;
      },
      DEADLINE_MS
    );
    await signal(one, 'CONT');
    await command(one, 'release site-a');
    await eventually('one route is left', async () =>
      (await birdc('router', 'show', 'route', '10.0.0.144/28')).includes('machine1')
        ? undefined
        : true
    );
    await way(router, A.blocks, '10.9.0.2 fd09::2');
  });

  test('the router follows a hand-over', async () => {
    await command(two, 'release site-a');
    await way(router, A.blocks, 'nowhere nowhere');
    await command(one, 'hold site-a 103');
    await way(router, A.blocks, '10.9.0.1 fd09::1');
    await Promise.all(A.presences.map(answers));
  });

  test('a machine that falls silent is left at once, and the pools stay announced', async () => {
    // No link goes down.
    await one.host.sh(`nft '
      add table inet silence
      add chain inet silence out { type filter hook output priority 0; policy drop; }
    '`);
    await way(router, A.blocks, 'nowhere nowhere');
    await way(router, POOLS, '10.9.0.2 fd09::2');
    await command(two, 'release site-b');
    await way(router, B.blocks, 'nowhere nowhere');
    expect(await waysOf(router, POOLS)).toBe('10.9.0.2 fd09::2');
    for (const machine of [one, two]) expect(machine.program.text).not.toContain('warning');
  });
});

/** Less than that of a test, so that its message is seen. */
const DEADLINE_MS = 40_000;
const MACHINE = [
  process.execPath,
  ...['--import', 'tsx'],
  fileURLToPath(new URL('machine-child.ts', import.meta.url)),
];
