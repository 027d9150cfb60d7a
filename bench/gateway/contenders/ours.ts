/**
 * The reference gateways, with translation and policy: two networks with one address plan.
 * @module
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { admin } from '../../../test/support/gateway-process.ts';
import type { Program } from '../../../test/support/network.ts';
import { type Contender, LIFETIME_SECONDS, PORTS, TCP_PORTS } from '../contender.ts';
import type { GatewayPrograms } from '../gateway-build.ts';
import { CLOUD_WAN, type Scene } from '../scene.ts';

/** @param programs the gateways, built as for a user of the package */
export function ours(programs: GatewayPrograms): Contender {
  return {
    name: 'ours',
    about: 'the reference gateways, twice NAT and policy, mutual TLS 1.3',
    plan: 'same',
    hasUdp: true,
    missing: () => undefined,
    async start(scene) {
      const cloud = await startCloud(programs, scene, TCP_PORTS);
      const edge = await startEdge(programs, scene, cloud.token);
      const answer = await scene.client.get(['getent', 'ahostsv4', SERVICE]);
      return { address: answer.split(/\s/)[0]!, programs: [cloud.program, edge] };
    },
  };
}

/**
 * Starts the cloud gateway of a scene with the plan `same`, whose service has these TCP ports.
 *
 * @param device how it reaches the service; default: a TUN
 * @returns also a token for the site
 */
export async function startCloud(
  programs: GatewayPrograms,
  { directory, cloud, serviceLan }: Scene,
  ports: readonly number[],
  device: object = DEVICE
): Promise<{ readonly program: Program; readonly token: string }> {
  const home = newHome(directory, 'cloud');
  const adminSocket = join(home, 'admin.sock');
  const config = join(home, 'cloud.yaml');
  writeFileSync(
    config,
    stringify({
      trustDomain: ZONE,
      stateDirectory: './state',
      adminSocket,
      device,
      tunnel: `${CLOUD_WAN}:7443`,
      enrolment: { listen: `${CLOUD_WAN}:7444`, endpoints: [`https://${CLOUD_WAN}:7444`] },
      dns: { listen: `${serviceLan.gateway}:53` },
      desired: desired(serviceLan.host, ports),
    })
  );
  const program = cloud.start([process.execPath, ...programs.cloud, config], LIFETIME_SECONDS);
  await program.printed(/gateway ready/);
  const { status, body } = await admin(adminSocket, 'POST', '/v1/tokens', { site: SITE });
  if (status !== 201) throw new Error(`no token: ${body.detail}`);
  return { program, token: body.token! };
}

/** Starts the edge gateway of the site; it is online afterwards. */
export async function startEdge(
  programs: GatewayPrograms,
  { directory, edge, clientLan }: Scene,
  token: string
): Promise<Program> {
  const home = newHome(directory, 'edge');
  const config = join(home, 'edge.yaml');
  writeFileSync(join(home, 'token'), token, { mode: 0o600 });
  writeFileSync(
    config,
    stringify({
      stateDirectory: './state',
      tokenFile: './token',
      cloud: [`${CLOUD_WAN}:7443`],
      device: DEVICE,
      dns: { listen: `${clientLan.gateway}:53` },
    })
  );
  const program = edge.start([process.execPath, ...programs.edge, config], LIFETIME_SECONDS);
  await program.printed(/revision \d+, [1-9]/);
  return program;
}

function newHome(directory: string, name: string): string {
  const path = join(directory, name);
  mkdirSync(path);
  return path;
}

function desired(address: string, tcpPorts: readonly number[]): object {
  const realm = { sources: [LAN], pools: [POOL], zone: ZONE };
  const ports = [...tcpPorts.map((port) => `tcp/${port}`), `udp/${PORTS.datagrams}`];
  return {
    sites: [
      { name: 'cloud', ...realm },
      { name: SITE, ...realm },
    ],
    services: [{ name: 'service', site: 'cloud', address, ports }],
    exposures: [{ service: 'service', site: SITE }],
  };
}

const SITE = 'site-a';
const ZONE = 'example.test';
/** The name of the service at the site. */
export const SERVICE: string = `service.${ZONE}`;
const LAN = '10.0.0.0/24';
const POOL = '10.0.0.128/25';
const DEVICE = { type: 'tun', name: 'vp0', mtu: 1500, routes: [POOL], proxyArp: ['lan0'] };
