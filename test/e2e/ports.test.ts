/**
 * Gateways whose file has port 0 everywhere: each reports its actual ports. So a test needs no port that it found
 * free, and that another program may have taken in the meantime.
 */
import { Resolver } from 'node:dns/promises';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { CloudAddresses } from '../../src/gateway/index.ts';
import {
  admin,
  cloudConfig,
  edgeConfig,
  GatewayProcess,
  killGateways,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';

const workspace = new Workspace();
afterAll(async () => {
  await killGateways();
  workspace.remove();
});

describe('port 0', () => {
  test('takes a free port for each listener, which the gateway reports and an edge uses', async () => {
    const home = workspace.newDirectory();
    const cloud = new GatewayProcess('cloud', [writeConfig(home, cloudConfig())]);
    const listening = await cloud.listening<CloudAddresses>();
    const { tunnels, enrolment, dns, device } = listening;
    const ports = [...tunnels, enrolment, dns].map(({ port }) => port);
    expect(tunnels).toHaveLength(1);
    expect(new Set(ports).size).toBe(3);
    for (const { host, port } of [...tunnels, enrolment, dns, device!]) {
      expect(host).toBe('127.0.0.1');
      expect(port).toBeGreaterThan(0);
    }
    const callAdmin = (method: string, path: string, body?: unknown) =>
      admin(join(home, 'admin.sock'), method, path, body);
    expect((await callAdmin('GET', '/v1/status')).body).toMatchObject({ listening });

    const { body } = await callAdmin('POST', '/v1/tokens', { site: 'site-a' });
    const { endpoints } = JSON.parse(
      Buffer.from(body.token!.split('.')[1]!, 'base64url').toString()
    ) as { endpoints: string[] };
    expect(endpoints).toEqual([`https://127.0.0.1:${enrolment.port}`]);

    const edgeHome = workspace.newDirectory();
    const path = writeConfig(edgeHome, edgeConfig(tunnels[0]!.port));
    writeFileSync(join(edgeHome, 'token'), body.token!);
    const edge = new GatewayProcess('edge', [path]);
    const atEdge = await edge.listening();
    expect(atEdge.device).toMatchObject({ host: '127.0.0.1' });
    await edge.logged(/revision \d+, [1-9]/);
    const resolver = new Resolver({ timeout: 10_000, tries: 2 });
    resolver.setServers([`127.0.0.1:${atEdge.dns.port}`]);
    expect(await resolver.resolve4('rabbitmq.openstack.test')).toHaveLength(1);

    for (const gateway of [edge, cloud]) {
      expect(await gateway.kill('SIGTERM')).toMatchObject({ code: 0, complaint: '' });
    }
    expect(existsSync(join(home, 'admin.sock'))).toBe(false);
  });
});
