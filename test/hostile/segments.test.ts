/**
 * Super-packets from a hostile edge to a device of the cloud's network that cannot segment: the kernel
 * makes the segments while the gateway waits for it. The kernel of the service's host counts what
 * arrives.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  admin,
  eventually,
  GatewayProcess,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { type Host, Network, whatIsMissing } from '../support/network.ts';

const missing = whatIsMissing({ nft: 'nftables', ethtool: 'ethtool' });
const title = 'a hostile super-packet';
const LAN = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'openstack.test' };

describe.skipIf(missing !== undefined)(missing ? `${title} (skipped: ${missing})` : title, () => {
  const workspace = new Workspace();
  let network: Network;
  let service: Host;
  let home: string;
  let presence: string;

  const callAdmin = (method: string, path: string, body?: unknown) =>
    admin(join(home, 'admin.sock'), method, path, body);

  beforeAll(async () => {
    home = workspace.newDirectory();
    network = await Network.create(home);
    const gateway = await network.newHost('gateway', undefined);
    service = await network.newHost('service', undefined);
    await network.cable(gateway, 'wan0', network.root, 'wan0');
    await network.cable(gateway, 'lan0', service, 'eth0');
    await network.root.sh('ip address add 198.51.100.2/24 dev wan0');
    await gateway.sh(`
      ip address add 198.51.100.1/24 dev wan0
      ip address add 10.0.0.1/24 dev lan0
      ethtool -K lan0 tso off gso off tx-udp-segmentation off
    `);
    await service.sh(`
      ip address add 10.0.0.5/24 dev eth0
      ip route add default via 10.0.0.1
      nft 'add table ip count; add chain ip count input { type filter hook input priority 0; }'
      nft 'add rule ip count input tcp dport 7000 counter drop'
      nft 'add rule ip count input udp dport 7000 counter drop'
    `);
    const config = {
      trustDomain: 'openstack.test',
      stateDirectory: './state',
      adminSocket: './admin.sock',
      device: { type: 'tun', name: 'vp0', mtu: 1500, routes: LAN.pools, proxyArp: ['lan0'] },
      tunnel: '198.51.100.1:7443',
      enrolment: { listen: '198.51.100.1:7440', endpoints: ['https://198.51.100.1:7440'] },
      dns: { listen: '10.0.0.1:53' },
      desired: {
        sites: [
          { name: 'cloud', ...LAN },
          { name: 'site-a', ...LAN },
        ],
        services: [
          { name: 'bus', site: 'cloud', address: '10.0.0.5', ports: ['tcp/7000', 'udp/7000'] },
        ],
        exposures: [{ service: 'bus', site: 'site-a' }],
      },
    };
    const program = new GatewayProcess('cloud', [writeConfig(home, config)], gateway.wrapper);
    await program.logged(/gateway ready/);
    presence = await eventually('the presence of the service', async () => {
      const { body } = await callAdmin('GET', '/v1/presences');
      return (body as unknown as { realm: string; address: string }[]).find(
        ({ realm }) => realm === 'site-a'
      )?.address;
    });
  });

  afterAll(async () => {
    await network?.close();
    workspace.remove();
  });

  /** Returns how many packets have come to the service. */
  async function arrived(protocol: 'tcp' | 'udp'): Promise<number> {
    const rules = await service.get(['nft', 'list', 'chain', 'ip', 'count', 'input']);
    return Number(new RegExp(`${protocol} dport 7000 counter packets (\\d+)`).exec(rules)![1]);
  }

  async function refused(): Promise<number> {
    const { body } = await callAdmin('GET', '/v1/status');
    const sites = body.sites as { name: string; verdicts: Record<string, number> }[];
    return sites.find(({ name }) => name === 'site-a')!.verdicts.DropTooManySegments!;
  }

  /** Sends the frames through a tunnel of site-a; returns how many were refused because of their segments. */
  async function send(...frames: string[]): Promise<number> {
    const before = await refused();
    const { body } = await callAdmin('POST', '/v1/tokens', { site: 'site-a' });
    const args = [body.token!, '198.51.100.1', '7443', presence, ...frames];
    const program = 'test/hostile/segment-sender.ts';
    const said = await network.root.get(
      [process.execPath, '--import', 'tsx', program, ...args],
      60
    );
    expect(said).toContain('sent');
    return (await refused()) - before;
  }

  test.each([
    ['tcp', 'tcp/65495/216', 304, 'tcp/65495/215'],
    ['tcp', 'tcp/128/1', 128, 'tcp/129/1'],
    ['udp', `udp/${128 * 511}/511`, 128, 'udp/65507/511'],
    ['udp', 'udp/128/1', 128, 'udp/65507/1'],
  ] as const)(
    'in %s: %s, the worst one allowed, arrives as %i segments, and %s as none',
    async (protocol, worst, segments, more) => {
      const before = await arrived(protocol);
      // The first packet of a client waits until its presence is stored, so it is a small one.
      expect(await send(`${protocol}/100/100`, worst, more, 'tcp/65495/1')).toBe(2);
      const count = await eventually('the segments', async () => {
        const seen = (await arrived(protocol)) - before;
        return seen >= 1 + segments ? seen : undefined;
      });
      expect(count).toBe(1 + segments);
    }
  );
});
