/** The commands that an explanation gives as the fix of a refusal: each is run as it is printed, and then the flow passes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CloudGateway, EdgeGateway } from '../../src/gateway/index.ts';
import { Gateways, LAN } from '../gateway/scene.ts';
import { runCommand, TestIo } from './run-command.ts';

const directory = mkdtempSync(join(tmpdir(), 'vp-fixes-'));
const socket = join(directory, 'cloud.sock');
const gateways = new Gateways();
let cloud: CloudGateway;
let edge: EdgeGateway;

// All records are the operator's, so that the command may change them.
const STATE = {
  sites: [
    { name: 'cloud', ...LAN },
    { name: 'site-a', ...LAN, labels: { tier: 'edge' } },
  ],
  services: [{ name: 'bus', site: 'cloud', address: '10.0.0.5', ports: ['udp/7'] }],
  exposures: [],
};

beforeAll(async () => {
  cloud = await gateways.cloud({ adminSocket: socket });
  await run('desired apply -', JSON.stringify(STATE));
  edge = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
  await edge.ready({ signal: AbortSignal.timeout(60_000) });
});
afterAll(async () => {
  await gateways.close();
  rmSync(directory, { recursive: true });
});

async function run(line: string, input = ''): Promise<string> {
  const io = new TestIo({ input, env: { VIRTUAL_PRESENCE_SOCKET: socket } });
  const outcome = await runCommand(line.split(' '), io);
  expect(outcome, outcome.err).toMatchObject({ code: 0, err: '' });
  return outcome.out;
}

/** Returns what an explanation prints. */
async function explain(flow: string): Promise<string> {
  const io = new TestIo({ env: { VIRTUAL_PRESENCE_SOCKET: socket } });
  const { out, err } = await runCommand(['explain', ...flow.split(' ')], io);
  expect(err).toBe('');
  return out;
}

interface Case {
  /** The commands before. */
  readonly given: readonly string[];
  readonly flow: string;
  readonly fix: string;
}

const FLOW = 'site-a/10.0.0.9 bus:7/udp';
const cases: readonly Case[] = [
  { given: [], flow: FLOW, fix: 'expose bus site-a' },
  {
    given: ['expose bus site-a --clients 10.0.0.0/29'],
    flow: FLOW,
    fix: 'expose bus site-a --add-clients 10.0.0.9/32',
  },
  {
    given: ['expose bus --name all --selector tier=edge --clients 10.0.0.0/29'],
    flow: FLOW,
    fix: 'expose bus site-a --clients 10.0.0.0/29,10.0.0.9/32',
  },
  {
    given: ['expose bus site-a --not-before 2099-01-01T00:00:00Z'],
    flow: FLOW,
    fix: 'expose bus site-a --not-before none --not-after none',
  },
  {
    given: ['expose bus --name all --selector tier=edge --not-after 2020-01-01T00:00:00Z'],
    flow: FLOW,
    fix: 'expose bus site-a --not-before none --not-after none',
  },
  {
    given: ['expose bus site-a'],
    flow: 'site-a/10.0.0.9 bus:8/udp',
    fix: 'service set bus --add-ports udp/8',
  },
  {
    given: ['expose bus site-a'],
    flow: 'site-a/10.9.0.1 bus:7/udp',
    fix: 'site set site-a --add-sources 10.9.0.1/32',
  },
];

test.each(cases.map((each) => [each.fix, each] as const))('%s', async (_, { given, flow, fix }) => {
  await run('desired apply -', JSON.stringify(STATE));
  for (const line of given) await run(line);
  await expect.poll(() => explain(flow), POLL).toContain(`\nfix: virtual-presence ${fix}\n     `);
  await run(fix);
  await expect.poll(() => explain(flow), POLL).toMatch(/^passes to cloud\n/);
});

test('reinstate, and a new token', async () => {
  await run('desired apply -', JSON.stringify(STATE));
  await run('expose bus site-a');
  await run('revoke site-a');
  expect(await explain(FLOW)).toContain('\nfix: virtual-presence reinstate site-a\n');
  await run('reinstate site-a');
  await edge.enrol((await run('token create site-a')).trim());
  await edge.ready({ signal: AbortSignal.timeout(60_000) });
  await expect.poll(() => explain(FLOW), POLL).toMatch(/^passes to cloud\n/);
});

test('site set --add-pools, with a prefix that the operator chooses', async () => {
  const site = { name: 'site-b', ...LAN, pools: ['10.0.0.128/31'], serviceReserve: 2 };
  const names = ['one', 'two', 'three'];
  const services = names.map((name, i) => ({
    name,
    site: 'cloud',
    address: `10.0.0.${i + 6}`,
    ports: ['udp/7'],
  }));
  const exposures = names.map((service) => ({ service, site: 'site-b' }));
  const state = { sites: [...STATE.sites, site], services, exposures };
  await run('desired apply -', JSON.stringify(state));
  const flows = names.map((name) => `site-b/10.0.0.9 ${name}`);
  const all = async (): Promise<string> => (await Promise.all(flows.map(explain))).join('\n');
  await expect.poll(all, POLL).toContain('virtual-presence site set site-b --add-pools PREFIX');
  await run('site set site-b --add-pools 10.0.0.192/26');
  // The site has no gateway here.
  await expect.poll(all, POLL).not.toContain('dropped at destination');
  expect(await all()).toMatch(/^dropped at tunnel/);
});

const POLL = { timeout: 60_000, interval: 20 } as const;
