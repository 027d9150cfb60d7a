/**
 * The kernel's routes to a gateway's TUN, if the file names none: they are the pools of the gateway's own site, and
 * follow their changes. While pools are replaced, a transfer over an address of before goes on; it loses no byte. Nothing of the machines is in conflict with them but a resolver. The edge's file has neither the cloud's endpoint nor routes. All networks are
 * 10.0.0.0/24:
 *
 * ```
 *  service .5 -- gateway of the cloud .1 ---- 198.51.100.0/24 ---- gateway of site-a .1 -- client .5
 * ```
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  admin,
  type Config,
  eventually,
  GatewayProcess,
  killGateways,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { type Host, Network, whatIsMissing } from '../support/network.ts';
import { OPEN_PORT, resolve, Transfer, whoami, ZONE } from './several-processes-scene.ts';

const skipReason = whatIsMissing({ bash: 'bash' });
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';

const CLOUD_WAN = '198.51.100.1';
/** The resolver of the gateways' machines, which is in the next pool; nothing asks it. */
const RESOLVER = '10.0.0.66';
/** Pools that do not contain the hosts' own addresses. */
const FIRST_POOL = '10.0.0.128/25';
const NEXT_POOL = '10.0.0.64/26';
const IN_FIRST_POOL = /^10\.0\.0\.(12[89]|1[3-9]\d|2\d\d)$/;
const IN_NEXT_POOL = /^10\.0\.0\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])$/;

describe.skipIf(isSkipped).each([1, 2])(
  `routes from pools, %i processes at the cloud${reason}`,
  (processes) => {
    const workspace = new Workspace();
    let network: Network | undefined;
    let service: Host;
    let client: Host;
    let cloudGateway: Host;
    let edgeGateway: Host;
    let cloud: GatewayProcess;
    let edge: GatewayProcess;
    let home: string;
    let cloudFile: string;
    const pools = { cloud: FIRST_POOL, 'site-a': FIRST_POOL };
    let overlapSeconds = 3600;
    /** To the address that the service has at first. */
    let transfer: Transfer;
    let former: string;

    const device = { type: 'tun', name: 'vp0', proxyArp: ['lan0'] };
    const configOfCloud = (): Config => ({
      trustDomain: ZONE,
      stateDirectory: './state',
      adminSocket: './admin.sock',
      workers: processes,
      device,
      tunnel: `${CLOUD_WAN}:7443`,
      leases: { overlapSeconds },
      desired: {
        sites: Object.entries(pools).map(([name, pool]) => ({
          name,
          sources: ['10.0.0.0/26'],
          pools: [pool],
          zone: ZONE,
        })),
        services: [
          { name: 'service', site: 'cloud', address: '10.0.0.5', ports: [`tcp/${OPEN_PORT}`] },
        ],
        exposures: [{ service: 'service', site: 'site-a' }],
      },
    });

    /** Returns the prefixes that the kernel routes to a gateway's TUNs, or as unreachable. */
    async function routesOf(host: Host): Promise<string[]> {
      const lines = (await host.sh('ip -4 route show')).trim().split('\n');
      return lines
        .filter((line) => !/ dev (wan0|lan0) /.test(line))
        .map((line) => line.split(/ (?:proto|scope|metric|linkdown)\b/)[0]!.trim());
    }

    async function expectRoutes(host: Host, expected: readonly string[]): Promise<void> {
      let routes: string[] = [];
      await eventually(`routes of ${host.name}`, async () => {
        routes = await routesOf(host);
        return isDeepStrictEqual(routes, expected) || undefined;
      }).catch(() => expect(routes).toEqual(expected));
    }

    /** With several processes a pool itself is unreachable, and the blocks of the sites' clients lead to TUNs. */
    const routesOfCloud = (pool: string, hasClients: boolean): string[] => {
      if (processes === 1) return [`${pool} dev vp0`];
      const block = pool.replace(/\d+$/, '28');
      return [...(hasClients ? [`${block} dev vp0`] : []), `unreachable ${pool}`];
    };
    const overlapAtEdge = [`${NEXT_POOL} dev vp0`, `${FIRST_POOL} dev vp0`];

    /** Makes the client call the service by its name; returns the addresses that each sees of the other. */
    async function call(): Promise<{ readonly service: string; readonly client: string }> {
      const address = await resolve(client, 'service');
      return { service: address, client: await whoami(client, address) };
    }

    /** Changes the pool of a site in the cloud's file. */
    function writePool(site: keyof typeof pools, pool: string): void {
      pools[site] = pool;
      writeConfig(home, configOfCloud());
    }

    const callAdmin = (method: string, path: string, body?: unknown) =>
      admin(join(home, 'admin.sock'), method, path, body);

    beforeAll(async () => {
      if (skipReason !== undefined) throw new Error(skipReason);
      network = await Network.create(workspace.newDirectory());
      const realm = async (name: string): Promise<[gateway: Host, host: Host]> => {
        const gateway = await network!.newHost(`gateway-of-${name}`, RESOLVER);
        const host = await network!.newHost(name, '10.0.0.1');
        await network!.cable(host, 'eth0', gateway, 'lan0');
        await gateway.sh('ip address add 10.0.0.1/24 dev lan0');
        await host.sh('ip address add 10.0.0.5/24 dev eth0');
        return [gateway, host];
      };
      [[cloudGateway, service], [edgeGateway, client]] = await Promise.all([
        realm('service'),
        realm('client'),
      ]);
      await network.cable(edgeGateway, 'wan0', cloudGateway, 'wan0');
      await cloudGateway.sh(`ip address add ${CLOUD_WAN}/24 dev wan0`);
      await edgeGateway.sh('ip address add 198.51.100.11/24 dev wan0');
      await service
        .start([process.execPath, '--import', 'tsx', PROGRAM, '10.0.0.5', `${OPEN_PORT}`], 600)
        .printed(/ready/);

      home = workspace.newDirectory();
      cloudFile = writeConfig(home, configOfCloud());
      cloud = new GatewayProcess('cloud', [cloudFile], cloudGateway.wrapper);
      await cloud.logged(/gateway ready/);
      const { body } = await admin(join(home, 'admin.sock'), 'POST', '/v1/tokens', {
        site: 'site-a',
      });
      const edgeHome = workspace.newDirectory();
      writeFileSync(join(edgeHome, 'token'), body.token!, { mode: 0o600 });
      const edgeFile = writeConfig(edgeHome, {
        stateDirectory: './state',
        tokenFile: './token',
        device,
        dns: { listen: '10.0.0.1:53' },
      });
      edge = new GatewayProcess('edge', [edgeFile], edgeGateway.wrapper);
      await edge.logged(/revision \d+, 1 names/);
    });

    afterAll(async () => {
      await network?.close();
      await killGateways();
      workspace.remove();
    });

    test('an edge comes up with a token alone, and a client behind it reaches the service by name', async () => {
      await expectRoutes(edgeGateway, [`${FIRST_POOL} dev vp0`]);
      await expectRoutes(cloudGateway, routesOfCloud(FIRST_POOL, false));
      const seen = await call();
      expect(seen.service).toMatch(IN_FIRST_POOL);
      expect(seen.client).toMatch(IN_FIRST_POOL);
      await expectRoutes(cloudGateway, routesOfCloud(FIRST_POOL, true));
      former = seen.service;
      transfer = new Transfer(client, former);
      await transfer.flows(1);
    });

    test('the routes at the edge follow the pools of its site, after a SIGHUP', async () => {
      writePool('site-a', NEXT_POOL);
      const { body } = await callAdmin('GET', '/v1/status');
      // This is the pid of the gateway itself, not of the program that started it.
      await cloudGateway.sh(`kill -HUP ${body.pid}`);
      await cloud.logged(/ reloaded$/);
      await expectRoutes(edgeGateway, overlapAtEdge);
      const seen = await call();
      expect(seen.service).toMatch(IN_NEXT_POOL);
      expect(seen.client).toMatch(IN_FIRST_POOL);
      await expectRoutes(cloudGateway, routesOfCloud(FIRST_POOL, true));
      // The transfer goes on, and the former address leads to the service for new connections, too.
      await transfer.flows(1);
      expect(await whoami(client, former)).toBe(seen.client);
    });

    test('the routes at the cloud follow its own pools, after a reload', async () => {
      writePool('cloud', NEXT_POOL);
      const answer = await callAdmin('POST', '/v1/reload');
      expect(answer).toMatchObject({ status: 200, body: { needRestart: [] } });
      // The request is answered when the change is in force.
      expect(await routesOf(cloudGateway)).toEqual([
        ...routesOfCloud(NEXT_POOL, false),
        ...routesOfCloud(FIRST_POOL, true),
      ]);
      const seen = await call();
      expect(seen.service).toMatch(IN_NEXT_POOL);
      // The client keeps its address, so that its connections go on.
      expect(seen.client).toMatch(IN_FIRST_POOL);
      await transfer.flows(1);
      expect(await transfer.end()).toMatchObject({ isWhole: true });
    });

    // The controller is the same with several processes.
    if (processes === 1) {
      test('an overlap ends at a restart with a shorter one, and the address of before stands for nothing', async () => {
        overlapSeconds = 0;
        writeConfig(home, configOfCloud());
        const since = edge.output.length;
        const { body } = await callAdmin('GET', '/v1/status');
        await cloudGateway.sh(`kill -TERM ${body.pid}`);
        await cloud.ended;
        cloud = new GatewayProcess('cloud', [cloudFile], cloudGateway.wrapper);
        await cloud.logged(/gateway ready/);
        await edge.logged(/: up to /, since);
        await expectRoutes(edgeGateway, [`${NEXT_POOL} dev vp0`]);
        const seen = await call();
        expect(seen.service).toMatch(IN_NEXT_POOL);
        expect(seen.client).toMatch(IN_NEXT_POOL);
        await expectRoutes(cloudGateway, routesOfCloud(NEXT_POOL, true));
        // The former address stands for nothing, and the edge does not even route it.
        const query = `site=site-a&address=`;
        expect(await callAdmin('GET', `/v1/whois?${query}${former}`)).toMatchObject({
          status: 404,
          body: { detail: expect.stringContaining(former) },
        });
        expect(await callAdmin('GET', `/v1/whois?${query}${seen.service}`)).toMatchObject({
          body: { site: 'cloud', address: '10.0.0.5' },
        });
      });
    }

    test('each gateway has warned of the resolver in its next pool, and not of its own routes', () => {
      for (const gateway of [cloud, edge]) {
        const warned = [...gateway.output.matchAll(/pools: ([^:]*)/g)].map(([, text]) => text);
        expect(warned).toEqual([
          `the pool ${NEXT_POOL} contains ${RESOLVER}, a resolver of this host`,
        ]);
      }
    });
  }
);

const PROGRAM = 'test/e2e/several-processes-host.ts';
