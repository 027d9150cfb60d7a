/**
 * The resolver of the reference cloud gateway, with its defaults and a rule for ".", where unauthenticated peers reach
 * it (the edge gateway has the same resolver): it is not an amplifier, and one client does not starve others.
 */
import { execFile, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CloudAddresses } from '../../src/gateway/index.ts';
import {
  type AdminAnswer,
  admin,
  type Config,
  cloudConfig,
  edgeConfig,
  GatewayProcess,
  killGateways,
  REALM,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import type { FloodReport, GreedReport } from './names-attacker.ts';
import { CLIENT, EDGE, FOREIGN, GATEWAY, SLOW_PORT, UPSTREAM_PORT, VICTIM } from './names-plan.ts';

const isRoot = process.getuid?.() === 0;
const NEW_NAMESPACE = ['--net', ...(isRoot ? [] : ['--user', '--map-root-user'])];
const SET_UP = [
  'ip link set dev lo up',
  ...[GATEWAY, EDGE, VICTIM, CLIENT, FOREIGN].map(
    (address) => `ip address add ${address}/32 dev lo`
  ),
].join(' && ');
const tried = spawnSync('unshare', [...NEW_NAMESPACE, 'sh', '-c', SET_UP], { encoding: 'utf8' });
const skipReason =
  tried.status === 0 ? '' : ` (skipped: no namespace: ${tried.error?.message ?? tried.stderr})`;

describe.skipIf(skipReason !== '')(`names under attack${skipReason}`, () => {
  const workspace = new Workspace();
  const home = workspace.newDirectory();
  let gateway: GatewayProcess;

  /** @param sources the sources of site-a */
  function configOf(sources: readonly string[]): Config {
    return {
      ...cloudConfig(),
      dns: {
        // The namespace belongs to the gateway, and so do all ports in it.
        listen: `${GATEWAY}:53`,
        forward: [
          { suffix: '.', upstreams: [`${GATEWAY}:${UPSTREAM_PORT}`] },
          // Both upstreams, tried one after the other, hold a query for half a minute.
          {
            suffix: 'slow.example.org',
            upstreams: Array.from({ length: 15 }, () => `${GATEWAY}:${SLOW_PORT}`),
          },
        ],
      },
      desired: {
        sites: [
          { name: 'cloud', ...REALM },
          { name: 'site-a', ...REALM, sources },
        ],
        services: [],
        exposures: [],
      },
    };
  }

  beforeAll(async () => {
    const path = writeConfig(home, configOf(REALM.sources));
    const script = `${SET_UP} && exec "$0" "$@"`;
    const wrapper = ['unshare', ...NEW_NAMESPACE, 'sh', '-c', script];
    gateway = new GatewayProcess('cloud', [path], wrapper);
    await gateway.logged(/ready/);
  });

  afterAll(async () => {
    await killGateways();
    workspace.remove();
  });

  /** Returns the words to put before a command that runs in the gateway's namespace. */
  function inside(): [string, ...string[]] {
    const user = isRoot ? [] : ['--user', '--preserve-credentials'];
    return ['nsenter', `--target=${gateway.child.pid}`, '--net', ...user];
  }

  async function attack<T>(what: string, source: string): Promise<T> {
    const [command, ...args] = inside();
    const { stdout } = await promisify(execFile)(command, [
      ...args,
      ...[process.execPath, '--import', 'tsx', 'test/hostile/names-attacker.ts'],
      ...[what, source, join(home, 'admin.sock')],
    ]);
    const report = JSON.parse(stdout) as T;
    console.log(`${what} from ${source}: ${JSON.stringify(report)}`);
    return report;
  }

  function callAdmin(method: string, path: string, body?: unknown): Promise<AdminAnswer> {
    return admin(join(home, 'admin.sock'), method, path, body);
  }

  function amplification({ bytesOut, received = 0, queryBytes }: FloodReport): number {
    return bytesOut / (received * queryBytes);
  }

  test('a flood from a foreign source gets fewer bytes than it sends', async () => {
    const report = await attack<FloodReport>('flood', FOREIGN);
    expect(report).toMatchObject({ whole: 0, truncated: 0, upstreamQueries: 0, answered: 5 });
    expect(report.refused).toBeGreaterThan(0);
    expect(report.refused).toBeLessThanOrEqual(50 * (1 + report.seconds));
    expect(amplification(report)).toBeLessThan(1);
  });

  test('a flood from a forged source of the site sends its network at most 1000 answers a second', async () => {
    const report = await attack<FloodReport>('flood', VICTIM);
    expect(report.answered).toBe(5);
    expect(report.whole).toBeGreaterThan(0);
    expect(report.whole).toBeLessThanOrEqual(1000 * (1 + report.seconds));
    // An answer beyond the rate is no longer than its query.
    const allowedBytes = report.whole * 1232;
    expect(report.bytesOut - allowedBytes).toBeLessThanOrEqual(
      report.received! * report.queryBytes
    );
  });

  test('a client whose queries wait for upstreams does not starve other clients', async () => {
    expect(await attack<GreedReport>('forwards', VICTIM)).toEqual({
      wasBounded: true,
      answered: 5,
    });
  });

  test.each([
    ['a client of the site', VICTIM],
    ['an unauthenticated peer', FOREIGN],
  ])(
    '%s that opens all the connections it can does not starve other clients',
    async (_, source) => {
      expect(await attack<GreedReport>('connections', source)).toEqual({
        wasBounded: true,
        answered: 5,
      });
    }
  );

  test('an edge answers the sources that its site has at that moment', async () => {
    const edgeHome = workspace.newDirectory();
    const token = (await callAdmin('POST', '/v1/tokens', { site: 'site-a' })).body.token!;
    writeFileSync(join(edgeHome, 'token'), token);
    const { tunnels } = await gateway.listening<CloudAddresses>();
    const path = writeConfig(edgeHome, {
      ...edgeConfig(tunnels[0]!.port),
      dns: { listen: `${EDGE}:53` },
    });
    const edge = new GatewayProcess('edge', [path], inside());
    await edge.logged(/site-a: revision/);
    const rcodes = async (): Promise<[number, number]> => [
      await attack<number>('query', CLIENT),
      await attack<number>('query', FOREIGN),
    ];
    expect(await rcodes()).toEqual([NXDOMAIN, REFUSED]);
    const since = edge.output.length;
    writeConfig(home, configOf(['203.0.113.0/24']));
    expect((await callAdmin('POST', '/v1/reload')).status).toBe(200);
    await edge.logged(/site-a: revision/, since);
    expect(await rcodes()).toEqual([REFUSED, NXDOMAIN]);
    // The edge reports its counters from time to time.
    const reported = async (): Promise<unknown> => {
      const { body } = await callAdmin('GET', '/v1/status');
      const sites = body.sites as { name: string; edge?: { counters: Record<string, number> } }[];
      return sites.find(({ name }) => name === 'site-a')?.edge?.counters;
    };
    await expect
      .poll(reported, { timeout: 60_000 })
      .toMatchObject({ 'dns.notAllowed': 2, 'dns.nxdomain': 2, 'dns.udpQueries': 4 });
  });
});

const NXDOMAIN = 3;
const REFUSED = 5;
