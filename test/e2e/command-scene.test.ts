/**
 * What an operator does, from nothing to a revoked site that comes back, with the command `virtual-presence` alone, while
 * hosts send real packets. `command-scene.ts` draws the networks.
 */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import {
  eventually,
  type GatewayProcess,
  killGateways,
  Workspace,
} from '../support/gateway-process.ts';
import { Network, whatIsMissing } from '../support/network.ts';
import {
  buildRealms,
  CLOUD_WAN,
  HOST,
  type Machine,
  type Realm,
  SECOND,
  Sender,
  ZONE,
} from './command-scene.ts';
import type { Attempt } from './command-scene-client.ts';

const skipReason = whatIsMissing({ nft: 'nftables', tshark: 'tshark' });
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';

type SiteLetter = 'a' | 'b';

interface Flow extends Pick<Attempt, 'protocol' | 'port'> {
  /** The site of the client. */
  readonly site: SiteLetter;
  readonly service: string;
  /** Default: `HOST`. */
  readonly source?: string;
}

/** A flow that passes, between two hosts with the same address. */
const PASSING: Flow = { site: 'a', service: 'web', protocol: 'tcp', port: 8080 };
/** Flows that do not pass, each for another cause, with the fixes that explain proposes. */
const REFUSED: Readonly<Record<string, readonly [Flow, fix: string]>> = {
  'a service that is not exposed': [
    { site: 'b', service: 'web', protocol: 'tcp', port: 8080 },
    'expose web site-b',
  ],
  'a client outside of the list': [
    { site: 'b', service: 'registry', protocol: 'tcp', port: 8081 },
    `expose registry site-b --add-clients ${HOST}/32`,
  ],
  'a port that the service does not have': [
    { site: 'a', service: 'web', protocol: 'udp', port: 8080 },
    'service set web --add-ports udp/8080',
  ],
  'a host outside of the sources': [
    { ...PASSING, source: SECOND },
    `site set site-a --add-sources ${SECOND}/32`,
  ],
  'an exposure whose time is over': [
    { site: 'a', service: 'batch', protocol: 'tcp', port: 8082 },
    'expose batch site-a --unset not-before,not-after',
  ],
};
/** A flow of the site that is revoked, which passes after a fix. */
const OF_SITE_B = REFUSED['a service that is not exposed']![0];

describe.skipIf(isSkipped)(`an operator with the command alone${reason}`, () => {
  let workspace: Workspace | undefined;
  let network: Network | undefined;
  let realms: Readonly<Record<'cloud' | SiteLetter, Realm>>;
  let operator: Machine;
  let senders: Readonly<Record<SiteLetter, Sender>>;
  const edges: Partial<Record<SiteLetter, GatewayProcess>> = {};

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    workspace = new Workspace();
    network = await Network.create(workspace.newDirectory());
    realms = await buildRealms(network, workspace.newDirectory());
    operator = realms.cloud.gateway;
    senders = { a: new Sender(realms.a.host), b: new Sender(realms.b.host) };
  });

  afterAll(async () => {
    await network?.close();
    await killGateways();
    workspace?.remove();
  });

  /** Sends real packets, and returns what the service has answered. */
  async function answerTo({ site, service, ...flow }: Flow, withinMs: number) {
    const { answer } = await senders[site].send({ ...flow, host: `${service}.${ZONE}` }, withinMs);
    return answer;
  }

  /** Asks why; returns whether it passes, and the fix that is printed. */
  async function explain({ site, service, protocol, port, source = HOST }: Flow) {
    const ends = [`site-${site}/${source}`, `${service}:${port}/${protocol}`];
    const { code, stdout, text } = await operator.try('explain', ...ends);
    expect([0, 1], text).toContain(code);
    return { passes: code === 0, fix: /^fix: (.*)$/m.exec(stdout)?.[1], text };
  }

  /** Fails unless explain says that the flows pass, and their packets are answered. */
  async function expectPassing(flows: readonly Flow[]) {
    const explained = flows.map((flow) =>
      vi.waitFor(
        async () => {
          const { passes, fix, text } = await explain(flow);
          expect({ passes, fix }, text).toEqual({ passes: true, fix: undefined });
        },
        { timeout: PATIENCE_MS }
      )
    );
    const answers = flows.map(async (flow) => {
      expect(await answerTo(flow, PATIENCE_MS), JSON.stringify(flow)).toBeDefined();
    });
    await Promise.all([...explained, ...answers]);
  }

  /** Fails unless explain says that the flow does not pass, and its packets are not answered. */
  async function expectRefused(flow: Flow, fix: string) {
    const [explained, answer] = await Promise.all([explain(flow), answerTo(flow, QUIET_MS)]);
    const { passes, text } = explained;
    expect({ passes, fix: explained.fix }, text).toEqual({
      passes: false,
      fix: `virtual-presence ${fix}`,
    });
    expect(answer).toBeUndefined();
    return explained.fix!;
  }

  test('makes a cloud gateway and two sites, which enrol with tokens', async () => {
    const said = await operator.run(
      ...['init', 'cloud', operator.home, '--lan', 'lan0', '--tunnel', `${CLOUD_WAN}:7443`]
    );
    expect(said).toContain(`virtual-presence cloud ${operator.path('cloud.yaml')}`);
    const cloud = operator.startGateway('cloud');
    await cloud.listening();

    const addSite = async (site: SiteLetter) => {
      const name = `site-${site}`;
      // Without the limit, the status warns that the pools are too small for all clients that may come.
      const keys = `--sources 10.0.0.0/26 --pools 100.64.0.0/24 --zone ${ZONE} --max-clients 16`;
      await operator.run('site', 'set', name, ...keys.split(' '));
      const { gateway } = realms[site];
      // The directory of the operator stands for the way on which a token is handed over.
      const token = operator.path(`token-${site}`);
      await operator.run('token', 'create', name, '--out', token);
      await gateway.run('init', 'edge', gateway.home, '--lan', 'lan0', '--token-file', token);
      const edge = gateway.startGateway('edge');
      edges[site] = edge;
      await edge.logged(/ up to /);
    };
    await Promise.all([addSite('a'), addSite('b')]);
  });

  test('makes services, and exposes them', async () => {
    const add = async (service: string, port: number, site: string, ...terms: string[]) => {
      const where = ['--site', 'cloud', '--address', HOST, '--ports', `tcp/${port}`];
      await operator.run('service', 'set', service, ...where);
      return operator.run('expose', service, site, '--wait', ...terms);
    };
    const [web] = await Promise.all([
      add('web', 8080, 'site-a'),
      add('registry', 8081, 'site-b', '--clients', '10.0.0.9'),
      add('batch', 8082, 'site-a', '--not-after', '2026-01-01T00:00:00Z'),
    ]);
    expect(web).toContain('and its edge has acknowledged it');
  });

  test('is told that a packet passes, and it does', async () => {
    await expectPassing([PASSING]);
  });

  test('is told why five packets do not pass; each passes when its fix is carried out', async () => {
    const all = Object.values(REFUSED);
    const fixes = await Promise.all(all.map((each) => expectRefused(...each)));
    await Promise.all(fixes.map((fix) => operator.runPrinted(fix)));
    await expectPassing(all.map(([flow]) => flow));
  });

  test('captures packets before and after their translation', async () => {
    const file = operator.path('web.pcapng');
    const flow = ['--from', 'site-a', '--to', 'web', '--duration', '60s'];
    const { program, pid } = await operator.start('capture', ...flow, '-w', file);
    await eventually('a capture that has begun', () => existsSync(file) || undefined);
    const sent = { protocol: 'tcp', host: `web.${ZONE}`, port: 8080 } as const;
    const { address: presence, answer: client } = await senders.a.send(sent, PATIENCE_MS);
    await eventually('a packet before and after its translation', () => {
      const found = readFileSync(file, 'latin1').split('whoami').length - 1;
      return found >= 2 || undefined;
    });
    await operator.host.sh(`kill -INT ${pid}`);
    const { code, stdout, text } = await program.ended;
    expect({ code }, text).toEqual({ code: 0 });
    expect(stdout).toMatch(/web\.pcapng has \d+ bytes with \d+ packets/);

    const fields = ['ip.src', 'ip.dst', 'tcp.dstport'].flatMap((field) => ['-e', field]);
    const args = ['-r', file, '-Y', 'tcp.flags.syn == 1 && tcp.flags.ack == 0', '-T', 'fields'];
    const { stdout: rows } = await promisify(execFile)('tshark', [...args, ...fields]);
    expect(rows.trim().split('\n')).toEqual([
      [HOST, presence, 8080].join('\t'),
      [client, HOST, 8080].join('\t'),
    ]);
  });

  test('revokes a site, whose packets stop, and lets it come back with a new token', async () => {
    await expectPassing([OF_SITE_B]);
    const since = edges.b!.output.length;
    const receipt = await operator.read('revoke', 'site-b', '--reason', 'keyCompromise');
    expect(receipt).toMatchObject({ scope: { site: 'site-b' }, tunnelsClosed: 1 });
    const [fix] = await Promise.all([
      expectRefused(OF_SITE_B, 'reinstate site-b'),
      expectPassing([PASSING]),
      edges.b!.logged(/refused.*revoked/, since),
    ]);
    const { problems } = await operator.read<{ problems: string[] }>('status');
    expect(problems).toEqual(['"site-b" is revoked: "reinstate site-b" lets it enrol again']);

    await operator.runPrinted(fix);
    const token = operator.path('new-token');
    await operator.run('token', 'create', 'site-b', '--out', token);
    await realms.b.gateway.run('enrol', '--token-file', token);
    await expectPassing([OF_SITE_B, PASSING]);
  });

  test('is told at the end that nothing is wrong', async () => {
    const all = Object.values(realms).map(({ gateway }) => gateway);
    const status = (machine: Machine) =>
      machine.read<{ gateway: string; site?: string; problems: string[] }>('status');
    const found = await Promise.all(all.map(status));
    expect(found.map(({ gateway, problems }) => ({ gateway, problems }))).toEqual([
      { gateway: 'cloud', problems: [] },
      { gateway: 'edge', problems: [] },
      { gateway: 'edge', problems: [] },
    ]);
  });
});

/** How long something that takes a second on an idle machine may take. */
const PATIENCE_MS = 60_000;
/** How long no answer is seen of a packet that does not pass. An answer takes milliseconds. */
const QUIET_MS = 1_000;
