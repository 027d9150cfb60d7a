/**
 * A cloud gateway that is killed and started again while TCP connections pass through it: none of them ends,
 * whichever end sends first afterwards. With VP_FULL=1 there is also a connection that is silent for longer than
 * unsolicited replies pass.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  admin,
  GatewayProcess,
  killGateways,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { type Host, Network, type Program, whatIsMissing } from '../support/network.ts';

const skipReason = whatIsMissing({ getent: 'libc-bin', nft: 'nftables', pkill: 'procps' });
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const title = `a cloud gateway that is killed${isSkipped ? ` (skipped: ${skipReason})` : ''}`;
const LAN = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'openstack.test' };
const DEVICE = { type: 'tun', name: 'vp0', mtu: 1500, routes: LAN.pools, proxyArp: ['lan0'] };
const CLOUD = '198.51.100.1';
const TRANSFER_BYTES = 96 << 20;

describe.skipIf(isSkipped)(title, () => {
  let workspace: Workspace | undefined;
  let network: Network | undefined;
  let gateway: Host;
  let cloud: GatewayProcess;
  let edge: GatewayProcess;
  let configPath: string;
  let service: Host;
  let client: Host;

  const startCloud = async (): Promise<void> => {
    cloud = new GatewayProcess('cloud', [configPath], gateway.wrapper);
    await cloud.logged(/gateway ready/);
  };

  /** Kills the gateway, and starts it again; waits until the edge has its tunnel. */
  const restart = async (): Promise<void> => {
    const since = edge.output.length;
    // The gateway is the child of this process, in another PID namespace.
    await gateway.sh("pkill -KILL -f '(mjs|main[.]ts) [c]loud '");
    await cloud.ended;
    await edge.logged(/: down, /, since);
    await startCloud();
    await edge.logged(/: up to /, since);
  };

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    workspace = new Workspace();
    const home = workspace.newDirectory();
    network = await Network.create(home);
    await network.root.sh('ip link add wan type bridge && ip link set wan up');
    const lan = async (name: string, number: number): Promise<[gateway: Host, host: Host]> => {
      const gatewayHost = await network!.newHost(`gateway-of-${name}`, undefined);
      const host = await network!.newHost(name, '10.0.0.1');
      await network!.cable(gatewayHost, 'wan0', network!.root, `wan${number}`);
      await network!.cable(gatewayHost, 'lan0', host, 'eth0');
      await network!.root.sh(`ip link set wan${number} master wan`);
      await gatewayHost.sh(`
        ip address add 198.51.100.${number}/24 dev wan0
        ip address add 10.0.0.1/24 dev lan0
      `);
      await host.sh(`
        ip address add 10.0.0.5/24 dev eth0
        ip address add 10.0.0.6/24 dev eth0
        ip route add default via 10.0.0.1
      `);
      return [gatewayHost, host];
    };
    const edgeHome = workspace.newDirectory();
    let edgeHost: Host;
    [gateway, service] = await lan('service', 1);
    [edgeHost, client] = await lan('client', 2);
    const cloudHome = join(home, 'cloud');
    mkdirSync(cloudHome);
    configPath = writeConfig(cloudHome, {
      trustDomain: 'openstack.test',
      stateDirectory: './state',
      adminSocket: './admin.sock',
      device: DEVICE,
      tunnel: `${CLOUD}:7443`,
      enrolment: { listen: `${CLOUD}:7440`, endpoints: [`https://${CLOUD}:7440`] },
      dns: { listen: '10.0.0.1:53' },
      desired: {
        sites: [
          { name: 'cloud', ...LAN },
          { name: 'site-a', ...LAN },
        ],
        services: [{ name: 'bus', site: 'cloud', address: '10.0.0.5', ports: ['tcp/7000-7009'] }],
        exposures: [{ service: 'bus', site: 'site-a' }],
      },
    });
    await startCloud();
    const socket = join(cloudHome, 'admin.sock');
    const { body } = await admin(socket, 'POST', '/v1/tokens', { site: 'site-a' });
    writeFileSync(join(edgeHome, 'token'), body.token!, { mode: 0o600 });
    const edgeConfig = writeConfig(edgeHome, {
      stateDirectory: './state',
      tokenFile: './token',
      cloud: [`${CLOUD}:7443`],
      device: DEVICE,
      dns: { listen: '10.0.0.1:53' },
    });
    edge = new GatewayProcess('edge', [edgeConfig], edgeHost.wrapper);
    await edge.logged(/revision \d+, [1-9]/);
  });

  afterAll(async () => {
    await network?.close();
    await killGateways();
    workspace?.remove();
  });

  /** Opens a connection between both hosts, on a port of its own. */
  const connection = async (
    port: number,
    from = '10.0.0.5'
  ): Promise<[server: Program, client: Program]> => {
    const talker = [process.execPath, '--import', 'tsx', 'test/e2e/talker.ts'];
    const server = service.start([...talker, 'listen', String(port)], LIFETIME_SECONDS);
    await server.printed(/listening/, DEADLINE_MS);
    const address = (await client.get(['getent', 'ahostsv4', 'bus.openstack.test'])).split(' ')[0]!;
    const command = [...talker, 'connect', address, String(port), from];
    const other = client.start(command, LIFETIME_SECONDS);
    await other.printed(/connected/, DEADLINE_MS);
    await server.printed(/connected/, DEADLINE_MS);
    return [server, other];
  };
  const isUnharmed = ({ text }: Program): boolean => !/wrong|error|closed/.test(text);

  test('loses no byte and no connection under transfers in both directions', async () => {
    const ends = await connection(7000);
    for (const end of ends) end.write(`send ${TRANSFER_BYTES}\n`);
    for (const end of ends) await end.printed(/received/, DEADLINE_MS);
    await restart();
    for (const end of ends) {
      expect(end.text).not.toContain(`received ${TRANSFER_BYTES}\n`); // it was in the middle
    }
    for (const end of ends) {
      await end.printed(new RegExp(`received ${TRANSFER_BYTES}\n`), TRANSFER_DEADLINE_MS);
      expect(end.text).toSatisfy(() => isUnharmed(end));
    }
  });

  test('loses no silent connection, whichever end sends first afterwards', async () => {
    const [first, second] = [await connection(7001), await connection(7002)];
    for (const ends of [first, second]) {
      ends[1].write('send 100\n');
      await ends[0].printed(/received 100\n/, DEADLINE_MS);
    }
    await restart();
    first[0].write('send 50\n'); // the service
    await first[1].printed(/received 50\n/, DEADLINE_MS);
    second[1].write('send 70\n'); // the client
    await second[0].printed(/received 170\n/, DEADLINE_MS);
    for (const end of [...first, ...second]) expect(end.text).toSatisfy(() => isUnharmed(end));
  });

  // This takes more than two minutes.
  if (process.env.VP_FULL === '1') {
    test('makes a connection that was silent for too long wait until its client sends', async () => {
      const other = await connection(7003);
      const silent = await connection(7004, '10.0.0.6');
      await restart();
      other[1].write('send 10\n'); // data from both sides passes, except on the silent connection
      await other[0].printed(/received 10\n/, DEADLINE_MS);
      await new Promise((resolve) => setTimeout(resolve, START_MS));
      silent[0].write('send 50\n');
      await new Promise((resolve) => setTimeout(resolve, 5_000));
      expect(silent[1].text).not.toContain('received');
      silent[1].write('send 70\n');
      await silent[0].printed(/received 70\n/, DEADLINE_MS);
      await silent[1].printed(/received 50\n/, 60_000);
      for (const end of silent) expect(end.text).toSatisfy(() => isUnharmed(end));
    });
  }
});

/** Longer than all tests; the programs end with the network. */
const LIFETIME_SECONDS = 300;
const DEADLINE_MS = 30_000;
/** Longer than unsolicited replies pass after a start. */
const START_MS = 125_000;
const TRANSFER_DEADLINE_MS = 120_000;
