/**
 * The reference gateways, with translation and policy: two networks with one address plan.
 * @module
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { admin } from '../../../test/support/gateway-process.ts';
import { type Contender, LIFETIME_SECONDS, PORTS, TCP_PORTS } from '../contender.ts';
import type { GatewayPrograms } from '../gateway-build.ts';
import { CLOUD_WAN } from '../scene.ts';

/** @param programs the gateways, built as for a user of the package */
export function ours(programs: GatewayPrograms): Contender {
  return {
    name: 'ours',
    about: 'the reference gateways, twice NAT and policy, mutual TLS 1.3',
    plan: 'same',
    hasUdp: true,
    missing: () => undefined,
    async start({ directory, client, edge, cloud, clientLan, serviceLan }) {
      const home = (name: string): string => {
        const path = join(directory, name);
        mkdirSync(path);
        return path;
      };
      const device = {
        type: 'tun',
        name: 'vp0',
        mtu: 1500,
        routes: [POOL],
        proxyArp: ['lan0'],
      };
      const adminSocket = join(home('cloud'), 'admin.sock');
      const cloudConfig = join(directory, 'cloud/cloud.yaml');
      writeFileSync(
        cloudConfig,
        stringify({
          trustDomain: ZONE,
          stateDirectory: './state',
          adminSocket,
          device,
          tunnel: `${CLOUD_WAN}:7443`,
          enrolment: { listen: `${CLOUD_WAN}:7444`, endpoints: [`https://${CLOUD_WAN}:7444`] },
          dns: { listen: `${serviceLan.gateway}:53` },
          desired: desired(serviceLan.host),
        })
      );
      const cloudProgram = cloud.start(
        [process.execPath, programs.cloud, cloudConfig],
        LIFETIME_SECONDS
      );
      await cloudProgram.printed(/gateway ready/);

      const { status, body } = await admin(adminSocket, 'POST', '/v1/tokens', { site: SITE });
      if (status !== 200) throw new Error(`no token: ${body.message}`);
      const edgeConfig = join(home('edge'), 'edge.yaml');
      writeFileSync(join(directory, 'edge/token'), body.token!, { mode: 0o600 });
      writeFileSync(
        edgeConfig,
        stringify({
          stateDirectory: './state',
          tokenFile: './token',
          cloud: [`${CLOUD_WAN}:7443`],
          device,
          dns: { listen: `${clientLan.gateway}:53` },
        })
      );
      const edgeProgram = edge.start(
        [process.execPath, programs.edge, edgeConfig],
        LIFETIME_SECONDS
      );
      await edgeProgram.printed(/revision \d+, [1-9]/);

      const answer = await client.get(['getent', 'ahostsv4', `service.${ZONE}`]);
      return { address: answer.split(/\s/)[0]!, programs: [cloudProgram, edgeProgram] };
    },
  };
}

function desired(address: string): object {
  const realm = { sources: [LAN], pools: [POOL], zone: ZONE };
  const ports = [...TCP_PORTS.map((port) => `tcp/${port}`), `udp/${PORTS.datagrams}`];
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
const LAN = '10.0.0.0/24';
const POOL = '10.0.0.128/25';
