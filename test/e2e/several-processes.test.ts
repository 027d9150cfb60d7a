/**
 * The cloud gateway as two processes with one site each, and as one process with both: the results must be the same.
 * Then what only several processes have: a site that moves, and a process that is killed.
 * `several-processes-scene.ts` draws the networks.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Page, PathAnswer } from '../../src/admin/index.ts';
import { eventually, killGateways, Workspace } from '../support/gateway-process.ts';
import { type Host, Network, whatIsMissing } from '../support/network.ts';
import {
  CLOSED_PORT,
  type Hosts,
  OPEN_PORT,
  resolve,
  Scene,
  Transfer,
  whoami,
} from './several-processes-scene.ts';

const skipReason = whatIsMissing({ bash: 'bash', ping: 'iputils-ping' });
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';

describe.skipIf(isSkipped).each([1, 2])(`a cloud gateway of %i${reason}`, (processes) => {
  let workspace: Workspace | undefined;
  let network: Network | undefined;
  let scene: Scene;
  let hosts: Hosts;
  /** The addresses of services as each host finds them. */
  const at = { service: '', serviceOfB: '', hostA: '', hostB: '', hostBOfA: '' };

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    workspace = new Workspace();
    network = await Network.create(workspace.newDirectory());
    scene = await Scene.start(network, workspace.newDirectory(), processes);
    hosts = scene.hosts;
    at.service = await resolve(hosts.a, 'service');
    at.serviceOfB = await resolve(hosts.b, 'service');
    at.hostA = await resolve(hosts.service, 'host-a');
    at.hostB = await resolve(hosts.service, 'host-b');
    at.hostBOfA = await resolve(hosts.a, 'host-b');
  });

  afterAll(async () => {
    await network?.close();
    await killGateways();
    workspace?.remove();
  });

  test('distributes its sites over all processes, with consecutive ports', async () => {
    const { sites, workers: all, listening } = await scene.status();
    const ports = listening.tunnels.map(({ port }) => port);
    expect(ports).toEqual([7443, 7444].slice(0, processes));
    expect(sites.map(({ worker }) => worker)).toEqual([undefined, 0, processes - 1]);
    expect(new Set(all.map(({ pid }) => pid)).size).toBe(processes);
    const links = await scene.gateway.sh('ip -o link show type tun');
    expect(links.trim().split('\n')).toHaveLength(processes);
  });

  test('lets both sites use a service of the cloud, which can distinguish them', async () => {
    const a = await whoami(hosts.a, at.service);
    const b = await whoami(hosts.b, at.serviceOfB);
    expect(a).not.toBe(b);
    for (const [address, site] of [
      [a, 'site-a'],
      [b, 'site-b'],
    ]) {
      const found = await scene.callAdmin('GET', `/v1/whois?site=cloud&address=${address}`);
      expect(found).toMatchObject({ site, address: '10.0.0.5' });
    }
  });

  test('lets the cloud use the services of both sites', async () => {
    for (const address of [at.hostA, at.hostB]) {
      expect(await whoami(hosts.service, address)).toMatch(/^10\.0\.0\.(12[89]|1[3-9]\d|2\d\d)$/);
    }
    expect(at.hostA).not.toBe(at.hostB);
  });

  test('lets a site use a service of another site, where it has an address of its own', async () => {
    const client = await whoami(hosts.a, at.hostBOfA);
    const found = await scene.callAdmin('GET', `/v1/whois?site=site-b&address=${client}`);
    expect(found).toMatchObject({ site: 'site-a', address: '10.0.0.5' });
    expect(await hosts.a.get(['ping', '-c', '3', '-i', '0.2', at.hostBOfA])).toContain(
      ' 0% packet'
    );
  });

  test('refuses what is not exposed, and counts it', async () => {
    for (const [host, address, site] of [
      [hosts.a, at.service, 'site-a'],
      [hosts.a, at.hostBOfA, 'site-a'],
      [hosts.service, at.hostB, 'cloud'],
    ] as const) {
      const before = await scene.verdicts(site, 'DropNotPermitted');
      await expect(whoami(host, address, CLOSED_PORT)).rejects.toThrow(/refused/);
      expect(await scene.verdicts(site, 'DropNotPermitted')).toBeGreaterThan(before);
    }
    // An unused address has no route with two processes, so the kernel answers no ARP; one process refuses the packet.
    const reason = processes === 1 ? /refused/ : /No route to host/;
    await expect(whoami(hosts.service, '10.0.0.250')).rejects.toThrow(reason);
    // The service of site A is not exposed to site B, so it has no name there.
    await expect(resolve(hosts.b, 'host-a')).rejects.toThrow();
  });

  test('explains a packet at the process that receives it', async () => {
    const verdictOf = async (site: string, destination: string, port: number) => {
      const packet = synTo(destination, port);
      const { verdict } = await scene.callAdmin('POST', '/v1/explain', {
        from: { site },
        packet,
      });
      return verdict;
    };
    expect(await verdictOf('site-a', at.service, OPEN_PORT)).toBe('Forward');
    expect(await verdictOf('site-a', at.service, CLOSED_PORT)).toBe('DropNotPermitted');
    expect(await verdictOf('cloud', at.hostB, OPEN_PORT)).toBe('Forward');
    expect(await verdictOf('cloud', at.hostA, CLOSED_PORT)).toBe('DropNotPermitted');
  });

  // With one process a site cannot be moved, and no process restarts another.
  const describeSeveral = processes === 1 ? () => {} : describe;

  describeSeveral('whose site is moved', () => {
    test('passes its packets between TUNs by the kernel, not between processes', async () => {
      const packets = async (): Promise<number[]> => {
        const links = JSON.parse(await scene.gateway.sh('ip -j -s link show type tun'));
        return links.flatMap((link: { stats64: Record<'rx' | 'tx', { packets: number }> }) => [
          link.stats64.rx.packets,
          link.stats64.tx.packets,
        ]);
      };
      const before = await packets();
      await hosts.a.get(['ping', '-c', '5', '-i', '0.2', at.hostBOfA]);
      const after = await packets();
      // Each echo and each reply leaves one TUN and enters the other.
      for (const [i, count] of after.entries())
        expect(count - before[i]!).toBeGreaterThanOrEqual(5);
      const routes = await scene.gateway.sh('ip route');
      expect(routes).toMatch(/^unreachable 10\.0\.0\.128\/25 /m);
      expect(routes).toMatch(/^10\.0\.0\.\d+\/28 dev vp0 /m);
      expect(routes).toMatch(/^10\.0\.0\.\d+\/28 dev vp1 /m);
    });

    test('keeps the connections of a moved site: to the cloud, from it, and to another site', async () => {
      const addresses = await scene.callAdmin('GET', '/v1/presences');
      const transfers = [
        new Transfer(hosts.a, at.service),
        new Transfer(hosts.service, at.hostA),
        new Transfer(hosts.a, at.hostBOfA),
      ];
      await Promise.all(transfers.map((transfer) => transfer.flows()));
      for (const to of [1, 0]) {
        const since = scene.edges.a.output.length;
        await scene.callAdmin('POST', '/v1/moves', { site: 'site-a', worker: to });
        await scene.edges.a.logged(/: up to /, since);
        expect(await scene.holderOf('site-a')).toBe(to);
        await Promise.all(transfers.map((transfer) => transfer.flows()));
      }
      for (const transfer of transfers)
        expect(await transfer.end()).toMatchObject({ isWhole: true });
      expect(await scene.callAdmin('GET', '/v1/presences')).toEqual(addresses);
    });

    test('refuses moves that are impossible', async () => {
      const move = (body: object) => scene.callAdmin('POST', '/v1/moves', body);
      await expect(move({ site: 'site-a', worker: 2 })).rejects.toThrow(/worker: there are 2/);
      await expect(move({ site: 'nowhere', worker: 1 })).rejects.toThrow(/is not a site/);
      await expect(move({ site: 'cloud', worker: 1 })).rejects.toThrow(/no edge gateway/);
    });
  });

  describeSeveral('one process of which is killed', () => {
    test.each([1, 0])(
      'keeps connections when process %i is killed and restarted',
      async (number) => {
        const transfers = [
          new Transfer(hosts.a, at.service),
          new Transfer(hosts.b, at.serviceOfB),
          new Transfer(hosts.service, at.hostB),
          new Transfer(hosts.a, at.hostBOfA),
        ];
        await Promise.all(transfers.map((transfer) => transfer.flows()));
        const { pid } = (await scene.status()).workers[number]!;
        const since = scene.cloud.output.length;
        await scene.gateway.sh(`kill -KILL ${pid}`);
        await scene.cloud.logged(new RegExp(`process ${number} is back`), since);
        await Promise.all(transfers.map((transfer) => transfer.flows(2, RESTART_DEADLINE_MS)));
        for (const transfer of transfers)
          expect(await transfer.end()).toMatchObject({ isWhole: true });
        expect((await scene.status()).workers[number]!.pid).not.toBe(pid);
      }
    );
  });

  test('keeps connections when all of its processes were killed', async () => {
    const transfers = [new Transfer(hosts.a, at.service), new Transfer(hosts.a, at.hostBOfA)];
    await Promise.all(transfers.map((transfer) => transfer.flows()));
    const { workers: all } = await scene.status();
    await scene.killCloud('KILL');
    // All processes end with the one that was killed.
    await eventually('the end of all processes', async () => {
      // A process that has ended, and was not waited for, is still listed, without a command line.
      const lines = all.map(({ pid }) => `cat /proc/${pid}/cmdline 2>/dev/null;`);
      const { stdout } = await scene.gateway.run(['sh', '-c', lines.join(' ')]);
      return stdout === '' || undefined;
    });
    await scene.restartCloud();
    await Promise.all(transfers.map((transfer) => transfer.flows(2, RESTART_DEADLINE_MS)));
    for (const transfer of transfers) expect(await transfer.end()).toMatchObject({ isWhole: true });
  });

  test('revokes a site in one call, and affects no other', async () => {
    const atA = new Transfer(hosts.a, at.service);
    const atB = new Transfer(hosts.b, at.serviceOfB);
    const between = new Transfer(hosts.a, at.hostBOfA);
    await Promise.all([atA, atB, between].map((transfer) => transfer.flows()));
    const since = scene.edges.a.output.length;
    const receipt = await scene.callAdmin('POST', '/v1/revocations', { site: 'site-a' });
    expect(receipt).toMatchObject({ sites: ['site-a'], tunnelsClosed: 1 });
    const { items: paths } = await scene.callAdmin<Page<PathAnswer>>('GET', '/v1/paths');
    expect(paths.filter(({ ingress, egress }) => [ingress, egress].includes('site-a'))).toEqual([]);
    await scene.edges.a.logged(/refused, .*\(revoked\)/, since);
    await atB.flows();
    expect(await atB.end()).toMatchObject({ isWhole: true });
  });

  test('ends on SIGTERM, and leaves nothing in the kernel', async () => {
    expect(await scene.killCloud('TERM')).toMatchObject({ code: 0, complaint: '' });
    expect(await scene.gateway.sh('ip -o link show type tun')).toBe('');
    expect(await scene.gateway.sh('ip route')).not.toMatch(/vp\d|unreachable/);
  });
});

describe.skipIf(isSkipped)(`a cloud gateway of 2 on ports of the system’s choice${reason}`, () => {
  let workspace: Workspace | undefined;
  let network: Network | undefined;
  let scene: Scene;
  const portsOf = async () => (await scene.status()).listening.tunnels.map(({ port }) => port);
  /** Returns the ports of the cloud gateway to which an edge has a connection. */
  const portsAtCloud = async (edge: Host) => {
    const connections = await edge.sh('ss -Htn state established');
    const ports = [...connections.matchAll(/198\.51\.100\.1:(\d+)/g)].map((match) =>
      Number(match[1])
    );
    return [...new Set(ports)];
  };

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    workspace = new Workspace();
    network = await Network.create(workspace.newDirectory());
    scene = await Scene.start(network, workspace.newDirectory(), 2, 0);
  });

  afterAll(async () => {
    await network?.close();
    await killGateways();
    workspace?.remove();
  });

  test('redirects each edge to the port of the process that holds its site', async () => {
    const [first, second] = await portsOf();
    expect(first).toBeGreaterThan(0);
    expect(second).toBeGreaterThan(0);
    expect(second).not.toBe(first);
    expect(await portsAtCloud(scene.gateways.a)).toEqual([first]);
    expect(await portsAtCloud(scene.gateways.b)).toEqual([second]);
    const since = scene.edges.a.output.length;
    await scene.callAdmin('POST', '/v1/moves', { site: 'site-a', worker: 1 });
    await scene.edges.a.logged(/: up to /, since);
    expect(await portsAtCloud(scene.gateways.a)).toEqual([second]);
  });

  test('restarts a killed process on its previous port', async () => {
    const ports = await portsOf();
    const { pid } = (await scene.status()).workers[1]!;
    const since = scene.edges.b.output.length;
    await scene.gateway.sh(`kill -KILL ${pid}`);
    await scene.edges.b.logged(/: up to /, since);
    expect(await portsOf()).toEqual(ports);
    expect(await portsAtCloud(scene.gateways.b)).toEqual([ports[1]]);
  });
});

/** A TCP SYN from 10.0.0.5, as hexadecimal digits; its checksum is not verified. */
function synTo(destination: string, port: number): string {
  const packet = Buffer.alloc(40);
  packet.writeUInt16BE(0x4500, 0);
  packet.writeUInt16BE(packet.length, 2);
  packet.writeUInt16BE(0x4006, 8);
  for (const [i, part] of ['10.0.0.5', destination].entries()) {
    packet.set(part.split('.').map(Number), 12 + 4 * i);
  }
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += packet.readUInt16BE(i);
  packet.writeUInt16BE(0xffff - ((sum & 0xffff) + (sum >>> 16)), 10);
  packet.writeUInt16BE(40_000, 20);
  packet.writeUInt16BE(port, 22);
  packet.writeUInt16BE(0x5002, 32);
  return packet.toString('hex');
}

/** Edges and TCP have doubled their delays by then. */
const RESTART_DEADLINE_MS = 120_000;
