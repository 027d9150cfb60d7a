/**
 * An edge gateway whose only path to the cloud is an HTTP proxy with a password (Debian's tinyproxy), and a cloud
 * gateway that serves tunnels and enrolment on one port.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CloudAddresses } from '../../src/gateway/index.ts';
import {
  admin,
  cloudConfig,
  edgeConfig,
  eventually,
  GatewayProcess,
  killGateways,
  outcome,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { type Host, Network, type Program, whatIsMissing } from '../support/network.ts';

const missing = whatIsMissing({ tinyproxy: 'tinyproxy-bin' });
if (missing !== undefined && process.env.CI !== undefined) throw new Error(missing);
if (missing !== undefined) console.info(`skipped: ${missing}`);

const CLOUD_ADDRESS = '198.51.100.1';
const PROXY_PORT = 3128;
/** The shortest certificate lifetime that spans several renewals on a busy machine. */
const LIFETIME_SECONDS = 20;

describe.skipIf(missing !== undefined)('an edge behind a proxy', () => {
  const workspace = new Workspace();
  let network: Network;
  let cloudHost: Host;
  let proxyHost: Host;
  let edgeHost: Host;
  let proxy: Program;
  let cloud: GatewayProcess;
  let cloudPort: number;
  let adminSocket: string;

  beforeAll(async () => {
    network = await Network.create(workspace.newDirectory());
    [cloudHost, proxyHost, edgeHost] = await Promise.all([
      network.newHost('cloud', undefined),
      network.newHost('proxy', undefined),
      network.newHost('edge', undefined),
    ]);
    await network.cable(cloudHost, 'wan0', proxyHost, 'wan0');
    await network.cable(edgeHost, 'site0', proxyHost, 'site0');
    await Promise.all([
      cloudHost.sh(`ip address add ${CLOUD_ADDRESS}/24 dev wan0`),
      // This host forwards no packets: a connection to the outside needs the proxy.
      proxyHost.sh(`
        ip address add 198.51.100.2/24 dev wan0
        ip address add 192.0.2.1/24 dev site0
        echo 0 >/proc/sys/net/ipv4/ip_forward
      `),
      edgeHost.sh('ip address add 192.0.2.2/24 dev site0; ip route add default via 192.0.2.1'),
    ]);
    proxy = await startProxy();

    const directory = workspace.newDirectory();
    adminSocket = join(directory, 'admin.sock');
    const config = {
      ...cloudConfig(),
      tunnel: `${CLOUD_ADDRESS}:0`,
      enrolment: { listen: 'shared', endpoints: [`https://${CLOUD_ADDRESS}:0`] },
      trust: { certificateLifetimeSeconds: LIFETIME_SECONDS },
    };
    cloud = new GatewayProcess('cloud', [writeConfig(directory, config)], cloudHost.wrapper);
    const listening = await cloud.listening<CloudAddresses>();
    cloudPort = listening.tunnels[0]!.port;
    expect(listening.enrolment).toEqual({ host: CLOUD_ADDRESS, port: cloudPort });
  });

  afterAll(async () => {
    await network?.close();
    await killGateways();
    workspace.remove();
  });

  async function startProxy(): Promise<Program> {
    const path = join(workspace.path, 'tinyproxy.conf');
    writeFileSync(
      path,
      `Port ${PROXY_PORT}\nListen 192.0.2.1\nTimeout 600\nMaxClients 50\nBasicAuth edge pass-word\n`
    );
    const program = proxyHost.start(['tinyproxy', '-d', '-c', path], 600);
    await eventually('the proxy listens', async () => {
      const listening = await proxyHost.get(['ss', '-Hltn', `sport = ${PROXY_PORT}`]);
      return listening.trim() === '' ? undefined : true;
    });
    return program;
  }

  async function edgeFile(proxyUrl: string | undefined): Promise<string> {
    const directory = workspace.newDirectory();
    const { body } = await admin(adminSocket, 'POST', '/v1/tokens', { site: 'site-a' });
    writeFileSync(join(directory, 'token'), body.token!);
    const config = { ...edgeConfig(cloudPort), cloud: [`${CLOUD_ADDRESS}:${cloudPort}`] };
    return writeConfig(directory, proxyUrl === undefined ? config : { ...config, proxy: proxyUrl });
  }

  test('has no other path to the cloud', async () => {
    const file = await edgeFile(undefined);
    // The edge keeps trying until the network ends.
    const edge = new GatewayProcess('edge', [file], edgeHost.wrapper);
    await edge.logged(/ not enrolled: no enrolment endpoint answers: /);
  });

  test.each([
    ['without a password', '', 'it asks for credentials (status 407)'],
    ['with a wrong password', 'edge:wrong-word@', 'it refuses the credentials (status 401)'],
  ])('gets the refusal of the proxy %s', async (_, user, reason) => {
    const file = await edgeFile(`http://${user}192.0.2.1:${PROXY_PORT}`);
    const { code, complaint } = await outcome('edge', [file], edgeHost.wrapper);
    expect(code).not.toBe(0);
    expect(complaint).toContain(`proxy 192.0.2.1:${PROXY_PORT}: ${reason}`);
    expect(complaint).not.toContain('wrong-word');
  });

  test('enrols, is online, renews, and is online again after the proxy was down', async () => {
    const file = await edgeFile(`http://edge:pass-word@192.0.2.1:${PROXY_PORT}`);
    const edge = new GatewayProcess('edge', [file], edgeHost.wrapper);
    const line = await edge.logged(/site-a: up to /);
    expect(line).toContain(`up to ${CLOUD_ADDRESS} through the proxy 192.0.2.1, `);
    await edge.logged(/certificate renewed/);
    await cloud.logged(/site-a: presents a renewed certificate/);

    const since = edge.output.length;
    proxy.child.kill('SIGKILL');
    await proxyHost.run(['pkill', '-KILL', '-x', 'tinyproxy']);
    await edge.logged(/site-a: down/, since);
    await edge.logged(/proxy 192\.0\.2\.1:3128: /, since);
    proxy = await startProxy();
    await edge.logged(/site-a: up to /, since);
    expect(edge.output).not.toContain('pass-word');
  });
});
