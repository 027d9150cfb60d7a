/**
 * Two machines of one cloud and a client on one Ethernet segment, where the kernel of the machine that holds a site
 * answers for the site's presences. What the client does is read from its table of neighbours.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '../support/gateway-process.ts';
import { type Host, Network, type Program, whatIsMissing } from '../support/network.ts';
import { titled } from '../support/titled.ts';

const skipReason = whatIsMissing({
  ping: 'iputils-ping',
  nft: 'nftables',
});

const POOLS = ['10.0.0.128/25', 'fd00::1:0/112'];
const BLOCKS = { '10.0.0.144/28': 'site-a', 'fd00::1:10/124': 'site-a' };
/** A presence of each IP version. */
const PRESENCES = ['10.0.0.145', 'fd00::1:11'] as const;
/** The second of these as a number. */
const HEX = '0xfd000000000000000000000000010011';

interface Machine {
  readonly host: Host;
  readonly hardware: string;
  program: Program;
}

describe.skipIf(skipReason !== undefined)(titled('one segment', skipReason), () => {
  const directory = mkdtempSync(join(tmpdir(), 'vp-segment-'));
  let network: Network;
  let client: Host;
  let a: Machine;
  let b: Machine;

  beforeAll(async () => {
    network = await Network.create(directory);
    await network.root.sh('ip link add lan type bridge && ip link set lan up');
    const join = async (name: string, number: number, end: string): Promise<Host> => {
      const host = await network.newHost(name, undefined);
      await network.cable(host, end, network.root, `port${number}`);
      await network.root.sh(`ip link set port${number} master lan`);
      await host.sh(`
        ip address add 10.0.0.${number}/24 dev ${end}
        ip address add fd00::${number}/64 dev ${end} nodad
      `);
      return host;
    };
    const machine = async (name: string, number: number): Promise<Machine> => {
      const host = await join(name, number, 'lan0');
      const hardware = (await host.sh('ip -br link show lan0')).trim().split(/\s+/)[2]!;
      return { host, hardware, program: await started(host) };
    };
    [a, b, client] = await Promise.all([
      machine('machine-a', 1),
      machine('machine-b', 2),
      join('client', 5, 'eth0'),
    ]);
    // What the client knows stays reachable, so that only an announcement changes it.
    for (const family of ['ipv4', 'ipv6']) {
      await client.sh(`echo 36000000 >/proc/sys/net/${family}/neigh/eth0/base_reachable_time_ms`);
    }
  });

  afterAll(async () => {
    await network?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function started(host: Host): Promise<Program> {
    const device = { name: 'vp0', routes: POOLS, proxyArp: ['lan0'] };
    const program = host.start([...MACHINE, JSON.stringify(device), JSON.stringify(BLOCKS)], 300);
    await program.printed(/^ready/m);
    return program;
  }

  async function command({ program }: Machine, line: string): Promise<void> {
    program.write(`${line}\n`);
    await program.printed(new RegExp(`^${line}$`, 'm'), DEADLINE_MS);
  }

  /** Returns how many of two pings of each presence are answered; without any answer it waits for some seconds. */
  async function answered(seconds = 9): Promise<number[]> {
    return Promise.all(
      PRESENCES.map(async (presence) => {
        const { stdout } = await client.run(['ping', '-c2', '-i0.2', `-W${seconds}`, presence]);
        return Number(/(\d+) received/.exec(stdout)![1]);
      })
    );
  }

  /** Returns the machines to which the client sends what is for the presences. */
  async function known(): Promise<string[]> {
    const table = await client.sh('ip neighbour show dev eth0');
    return PRESENCES.map((presence) => {
      const [, hardware] = new RegExp(`^${presence} lladdr (\\S+)`, 'm').exec(table) ?? [];
      return hardware === a.hardware ? 'a' : hardware === b.hardware ? 'b' : 'nowhere';
    });
  }

  const allAt = (name: string) =>
    eventually(
      `the client sends to ${name}`,
      async () => (await known()).every((each) => each === name) || undefined,
      DEADLINE_MS
    );

  test('the machine that takes a site over gets the packets of hosts that know the other one', async () => {
    await command(a, 'hold site-a 100');
    expect(await answered()).toEqual([2, 2]);
    expect(await known()).toEqual(['a', 'a']);

    await command(a, 'release site-a');
    // The other machine answers, but nobody tells the client.
    await b.host.sh(`
      ip route add 10.0.0.144/28 dev vp0
      ip -6 route add fd00::1:10/124 dev vp0
      ip -6 neighbour add proxy fd00::1:11 dev lan0
    `);
    expect(await answered(0.5)).toEqual([0, 0]);
    expect(await known()).toEqual(['a', 'a']);
    await b.host.sh(`
      ip -6 neighbour delete proxy fd00::1:11 dev lan0
      ip -6 route delete fd00::1:10/124 dev vp0
      ip route delete 10.0.0.144/28 dev vp0
    `);

    await client.sh(`nft '
      add table arp announced
      add chain arp announced in { type filter hook input priority 0; }
      add rule arp announced in arp saddr ip ${PRESENCES[0]} arp daddr ip ${PRESENCES[0]} counter
      add table ip6 announced
      add chain ip6 announced in { type filter hook input priority 0; }
      add rule ip6 announced in ip6 daddr ff02::1 icmpv6 type nd-neighbor-advert @th,64,128 ${HEX} counter
    '`);
    await command(b, 'hold site-a 101');
    await allAt('b');
    expect(await answered()).toEqual([2, 2]);
    await eventually(
      'each presence is announced twice',
      async () => {
        const rules = await client.sh('nft list table arp announced; nft list table ip6 announced');
        return rules.match(/counter packets 2 /g)?.length === 2 || undefined;
      },
      DEADLINE_MS
    );
    expect(b.program.text).not.toContain('warning');

    await command(b, 'release site-a');
    await command(a, 'hold site-a 102');
    await allAt('a');
    expect(await answered()).toEqual([2, 2]);
  });

  test('a machine that was killed leaves entries of IPv6, which its next start removes', async () => {
    const entries = () => a.host.sh('ip -6 neighbour show proxy dev lan0');
    expect((await entries()).trim().split('\n')).toHaveLength(16);
    await a.host.sh(`kill -9 ${/^ready (\d+)$/m.exec(a.program.stdout)![1]}`);
    await a.program.ended;
    await a.host.sh('ip -6 neighbour add proxy fd00::1:99 dev lan0');
    a.program = await started(a.host);
    expect(await entries()).toMatch(/^fd00::1:99[^\n]*\n$/);
    await command(a, 'hold site-a 103');
    await allAt('a');
    expect(await answered()).toEqual([2, 2]);
    await command(a, 'close');
    expect(await entries()).toMatch(/^fd00::1:99[^\n]*\n$/);
    expect(await a.host.sh('ip route show proto 118; ip -6 route show proto 118')).toBe('');
  });
});

/** Less than that of a test, so that its message is seen. */
const DEADLINE_MS = 40_000;
const MACHINE = [
  process.execPath,
  ...['--import', 'tsx'],
  fileURLToPath(new URL('machine-child.ts', import.meta.url)),
];
