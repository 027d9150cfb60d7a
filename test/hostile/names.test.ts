/**
 * The resolver of the reference cloud gateway, with its defaults and a rule for ".", where unauthenticated peers reach
 * it (the edge gateway's is the same): nobody makes an amplifier of it, and no client takes what others need.
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
import { EDGE, GATEWAY, HONEST, SLOW_PORT, STRANGER, UPSTREAM_PORT, VICTIM } from './names-plan.ts';

const isRoot = process.getuid?.() === 0;
const NEW_NAMESPACE = ['--net', ...(isRoot ? [] : ['--user', '--map-root-user'])];
const SET_UP = [
  'ip link set dev lo up',
  ...[GATEWAY, EDGE, VICTIM, HONEST, STRANGER].map(
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

  /** @param sources of site-a */
  function configOf(sources: readonly string[]): Config {
    return {
      ...cloudConfig(),
      dns: {
        // The namespace is the gateway's own, and so are all ports in it.
        listen: `${GATEWAY}:53`,
        forward: [
          { suffix: '.', upstreams: [`${GATEWAY}:${UPSTREAM_PORT}`] },
          // Asked one after the other, they hold a query for half a minute.
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
    gateway = new GatewayProcess('cloud-gateway', [path], wrapper);
    await gateway.logged(/ready/);
  });

  afterAll(async () => {
    await killGateways();
    workspace.remove();
  });

  /** What to put in front of a command that is to run in the gateway's namespace. */
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

  function ask(method: string, path: string, body?: unknown): Promise<AdminAnswer> {
    return admin(join(home, 'admin.sock'), method, path, body);
  }

  function amplification({ bytesOut, received = 0, queryBytes }: FloodReport): number {
    return bytesOut / (received * queryBytes);
  }

  test('a flood from a foreign source is answered by fewer bytes than it has', async () => {
    const report = await attack<FloodReport>('flood', STRANGER);
    expect(report).toMatchObject({ whole: 0, truncated: 0, upstreamQueries: 0, honest: 5 });
    expect(report.refused).toBeGreaterThan(0);
    expect(report.refused).toBeLessThanOrEqual(50 * (1 + report.seconds));
    expect(amplification(report)).toBeLessThan(1);
  });

  test('a flood from a forged source of the site brings its network 1000 answers a second', async () => {
    const report = await attack<FloodReport>('flood', VICTIM);
    expect(report.honest).toBe(5);
    expect(report.whole).toBeGreaterThan(0);
    expect(report.whole).toBeLessThanOrEqual(1000 * (1 + report.seconds));
    // What goes beyond the rate is no longer than what came.
    const allowedBytes = report.whole * 1232;
    expect(report.bytesOut - allowedBytes).toBeLessThanOrEqual(
      report.received! * report.queryBytes
    );
  });

  test('a client that has its queries wait for upstreams leaves room for those of others', async () => {
    expect(await attack<GreedReport>('forwards', VICTIM)).toEqual({ wasBounded: true, honest: 5 });
  });

  test.each([
    ['a client of the site', VICTIM],
    ['an unauthenticated peer', STRANGER],
  ])('%s that opens all the connections it can leaves room for others', async (_, source) => {
    expect(await attack<GreedReport>('connections', source)).toEqual({
      wasBounded: true,
      honest: 5,
    });
  });

  test('an edge answers the sources of its site, as they are at that moment', async () => {
    const edgeHome = workspace.newDirectory();
    const token = (await ask('POST', '/v1/tokens', { site: 'site-a' })).body.token!;
    writeFileSync(join(edgeHome, 'token'), token);
    const { tunnels } = await gateway.listening<CloudAddresses>();
    const path = writeConfig(edgeHome, {
      ...edgeConfig(tunnels[0]!.port),
      dns: { listen: `${EDGE}:53` },
    });
    const edge = new GatewayProcess('edge-gateway', [path], inside());
    await edge.logged(/site-a: revision/);
    const rcodes = async (): Promise<[number, number]> => [
      await attack<number>('ask', HONEST),
      await attack<number>('ask', STRANGER),
    ];
    expect(await rcodes()).toEqual([NXDOMAIN, REFUSED]);
    const since = edge.output.length;
    writeConfig(home, configOf(['203.0.113.0/24']));
    expect((await ask('POST', '/v1/reload')).status).toBe(200);
    await edge.logged(/site-a: revision/, since);
    expect(await rcodes()).toEqual([REFUSED, NXDOMAIN]);
    // The edge tells its counters from time to time.
    const told = async (): Promise<unknown> => {
      const { body } = await ask('GET', '/v1/status');
      const sites = body.sites as { name: string; edge?: { counters: Record<string, number> } }[];
      return sites.find(({ name }) => name === 'site-a')?.edge?.counters;
    };
    await expect
      .poll(told, { timeout: 60_000 })
      .toMatchObject({ 'dns.notAllowed': 2, 'dns.nxdomain': 2, 'dns.udpQueries': 4 });
  });
});

const NXDOMAIN = 3;
const REFUSED = 5;
