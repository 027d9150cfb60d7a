import { afterEach, describe, expect, test } from 'vitest';
import type {
  ExplainQuery,
  Fix,
  FlowExplanation,
  FlowQuery,
  StageName,
} from '../../src/diagnosis/index.ts';
import { tcpPacket } from '../support/packets.ts';
import { DiagnosedScene, WORLD } from './scene.ts';

const scenes: DiagnosedScene[] = [];
afterEach(async () => {
  for (const scene of scenes.splice(0)) await scene.close();
});

async function start(desired: unknown = WORLD): Promise<DiagnosedScene> {
  const scene = await DiagnosedScene.start(desired);
  scenes.push(scene);
  return scene;
}

function flow(from: string, to: string, port = 5672): FlowQuery {
  const [site = '', address] = from.split('/');
  return { from: { site, address }, to, protocol: 'tcp', port };
}

function stage({ stages }: FlowExplanation, name: StageName): { outcome: string; reason: string } {
  return stages.find((each) => each.name === name)!;
}

/** Carries a fix out, as a command does. */
async function carryOut(scene: DiagnosedScene, { change }: Fix): Promise<void> {
  const { registry } = scene.scene;
  switch (change?.kind) {
    case 'expose':
      await registry.expose(change.exposure, 'file');
      return;
    case 'service':
      await registry.putService(change.service, 'file');
      return;
    case 'site':
      await registry.putSite(change.site, 'file');
      return;
    case 'reinstate':
      scene.suspend(change.site, false);
      return;
    default:
      throw new Error('the fix is no change');
  }
}

/** Desired states with one more record, and a query whose fix mends what is wrong. */
const MENDED: Record<
  string,
  {
    readonly query: ExplainQuery;
    readonly at: StageName;
    readonly reason: string;
    readonly verdict?: string;
    readonly command: string | undefined;
    readonly desired?: object;
    readonly before?: (scene: DiagnosedScene) => void;
  }
> = {
  'a service that is not exposed': {
    query: flow('site-b/10.0.0.5', 'neutron', 9696),
    at: 'destination',
    reason: 'neutron has no address at site-b',
    command: 'virtual-presence expose neutron site-b',
  },
  'a service whose host has another service that is exposed': {
    query: flow('site-b/10.0.0.5', 'rabbitmq', 9696),
    at: 'permission',
    reason: 'neutron is not exposed to site-b',
    verdict: 'DropNotPermitted',
    command: 'virtual-presence expose neutron site-b',
  },
  'a client that is not among the clients': {
    query: flow('site-b/10.0.0.9', 'rabbitmq'),
    at: 'permission',
    reason: 'rabbitmq is exposed to site-b for 10.0.0.0/29 only',
    verdict: 'DropNotPermitted',
    command: undefined,
  },
  'a client that a selector leaves out': {
    query: flow('site-b/10.0.0.9', 'glance', 9292),
    desired: {
      ...WORLD,
      exposures: [
        ...WORLD.exposures,
        { name: 'all', siteSelector: {}, service: 'glance', clients: ['10.0.0.5/32'] },
      ],
    },
    at: 'permission',
    reason: 'glance is exposed to site-b for 10.0.0.5/32 only, by the selector all',
    verdict: 'DropNotPermitted',
    command: 'virtual-presence expose glance site-b --clients 10.0.0.5/32,10.0.0.9/32',
  },
  'a port that the service does not have': {
    query: flow('site-a/10.0.0.9', 'rabbitmq', 15_672),
    at: 'permission',
    reason: 'rabbitmq has tcp/5672, icmp, and not tcp/15672',
    verdict: 'DropNotPermitted',
    command: undefined,
  },
  'a host outside of the sources': {
    query: flow('site-a/10.9.0.9', 'rabbitmq'),
    at: 'source',
    reason: '10.9.0.9 is not in the sources of site-a, 10.0.0.0/24',
    verdict: 'DropSpoofed',
    command: undefined,
  },
  'an exposure whose time is over': {
    query: flow('site-b/10.0.0.9', 'glance', 9292),
    desired: {
      ...WORLD,
      exposures: [
        ...WORLD.exposures,
        { service: 'glance', site: 'site-b', notAfter: '1969-01-01T00:00:00Z' },
      ],
    },
    at: 'destination',
    reason: 'glance has no address at site-b',
    command: undefined,
  },
  'an exposure whose time has not come, by a selector': {
    query: flow('site-b/10.0.0.9', 'glance', 9292),
    desired: {
      ...WORLD,
      exposures: [
        ...WORLD.exposures,
        { name: 'x', siteSelector: {}, service: 'glance', notBefore: '2999-01-01T00:00:00Z' },
      ],
    },
    at: 'destination',
    reason: 'glance has no address at site-b',
    command: 'virtual-presence expose glance site-b --unset not-before,not-after',
  },
  'a revoked site': {
    query: flow('site-b/10.0.0.5', 'rabbitmq'),
    before: (scene) => scene.suspend('site-b', true),
    at: 'site',
    reason: 'site-b is revoked: no packet from it or to it passes',
    verdict: 'DropNoPresence',
    command: 'virtual-presence reinstate site-b',
  },
  'a revoked site that offers the service': {
    query: flow('site-b/10.0.0.5', 'console-a', 6080),
    before: (scene) => scene.suspend('site-a', true),
    at: 'site',
    reason: 'site-a is revoked: no packet from it or to it passes',
    verdict: 'DropNoPresence',
    command: 'virtual-presence reinstate site-a',
  },
};

describe('explainFlow', () => {
  test.each(Object.entries(MENDED))('%s: the fix lets the packet pass', async (_, row) => {
    const scene = await start(row.desired);
    row.before?.(scene);
    const refused = await scene.explain(row.query);
    expect(refused.passes).toBe(false);
    expect(refused.droppedAt).toBe(row.at);
    expect(stage(refused, row.at).reason).toBe(row.reason);
    expect(refused.verdict).toBe(row.verdict);
    expect(refused.fix?.command).toBe(row.command);
    if (row.command === undefined) {
      expect(refused.fix?.owner).toBe('file');
      expect(refused.fix?.why).toContain('configuration file');
    }
    await carryOut(scene, refused.fix!);
    const mended = await scene.explain(row.query);
    expect(mended.passes, JSON.stringify(mended.stages)).toBe(true);
    expect(mended.fix).toBeUndefined();
  });

  test('a record of the admin interface is changed by a command', async () => {
    const scene = await start({ ...WORLD, exposures: [] });
    const terms = { service: 'rabbitmq', site: 'site-b', clients: ['10.0.0.0/29'] };
    await scene.scene.registry.expose(terms, 'admin');
    const { fix } = await scene.explain(flow('site-b/10.0.0.9', 'rabbitmq'));
    expect(fix).toMatchObject({
      why: 'let 10.0.0.9 use rabbitmq too',
      command: 'virtual-presence expose rabbitmq site-b --add-clients 10.0.0.9/32',
      owner: 'admin',
    });
  });

  test('all stages are judged, also those behind the refusal', async () => {
    const scene = await start();
    scene.offline.set('site-b', 'it went down: keepalive-timeout');
    const explained = await scene.explain(flow('site-b/10.0.0.9', 'rabbitmq'));
    expect(explained.summary).toBe('dropped at permission (DropNotPermitted)');
    expect(explained.stages.map(({ name, outcome }) => `${name} ${outcome}`)).toEqual([
      'destination ok',
      'source ok',
      'permission no',
      'presence unknown',
      'site ok',
      'tunnel no',
      'programmed ok',
      'acknowledged unknown',
      'translation unknown',
      'reply unknown',
    ]);
    expect(stage(explained, 'tunnel').reason).toBe(
      'site-b has no tunnel: it went down: keepalive-timeout'
    );
  });

  test.each([
    ['IPv4', flow('site-a/10.0.0.9', 'rabbitmq'), 4],
    ['IPv6', { ...flow('site-c/2001:db8:c::9', 'web'), port: 443 }, 6],
    ['IPv6 to IPv4', flow('site-c/2001:db8:c::9', 'rabbitmq'), 4],
  ] as const)('a packet of %s passes, and so does its answer', async (_, query, family) => {
    const scene = await start();
    const first = await scene.explain(query);
    expect(first).toMatchObject({ passes: true, verdict: 'NeedsPresence', to: 'cloud' });
    await scene.admit(first, family);
    const explained = await scene.explain(query);
    expect(explained).toMatchObject({
      passes: true,
      verdict: 'Forward',
      summary: 'passes to cloud',
    });
    expect(explained.stages.map(({ outcome }) => outcome)).toEqual(Array(10).fill('ok'));
    const { after, translated } = explained;
    const client = scene.scene.controller
      .presences()
      .find(({ realm, of }) => realm === 'cloud' && of.address.toString() === query.from.address)!;
    expect(after).toMatchObject({ source: `${client.address}`, port: query.port });
    expect(translated!.length).toBe(family === 4 ? 40 : 60);
  });

  test.each([
    ['a service alone, with its first port', { from: { site: 'site-a' }, to: 'dns' }, 'udp'],
    ['an echo', { from: { site: 'site-a' }, to: 'rabbitmq', protocol: 'icmp' }, 'icmp'],
    ['a name of the site', { ...flow('site-a/10.0.0.9', 'rabbitmq.a.test') }, 'tcp'],
    ['a name within its zone', { ...flow('site-b/10.0.0.5', 'console-a', 6080) }, 'tcp'],
    [
      'a protocol by its number',
      { from: { site: 'site-a' }, to: 'dns', protocol: 'ip', port: 47 },
      'ip',
    ],
    [
      'a service as the sender',
      { ...flow('cloud', 'console-a', 6080), from: { site: 'cloud', service: 'dns' } },
      'tcp',
    ],
  ] as const)('takes %s', async (_, query, protocol) => {
    const explained = await (await start()).explain(query);
    expect(explained).toMatchObject({ passes: true, protocol });
  });

  test.each([
    ['nothing', '"nothing" is neither a service nor a name at site-a'],
    ['rabitmq', '"rabitmq" is neither a service nor a name at site-a; did you mean "rabbitmq"?'],
    [
      '10.0.0.6',
      'no presence at site-a has the address 10.0.0.6: it is the real address of glance at cloud',
    ],
    ['10.0.0.250', 'no presence at site-a has the address 10.0.0.250, which is in its pools'],
    [
      '192.0.2.1',
      'no presence at site-a has the address 192.0.2.1: the pools of site-a are 10.0.0.128/25',
    ],
    [
      'console-a',
      'console-a is at home at site-a itself, at 10.0.0.5: packets to it do not pass the gateways',
    ],
  ])('says what %s is', async (to, reason) => {
    const explained = await (await start()).explain(flow('site-a/10.0.0.9', to));
    expect(explained.droppedAt).toBe('destination');
    expect(stage(explained, 'destination').reason).toBe(reason);
  });

  test('a host in a pool takes no part', async () => {
    const explained = await (await start()).explain(flow('site-a/10.0.0.200', 'rabbitmq'));
    expect(explained).toMatchObject({ droppedAt: 'source', verdict: 'DropSpoofed' });
    expect(explained.fix?.why).toContain('10.0.0.128/25');
  });

  test('a client that finds no free address is told of before its first packet', async () => {
    const sites = WORLD.sites.map((site) =>
      site.name === 'cloud'
        ? { ...site, pools: ['10.0.0.128/31', 'fd00::/120'], serviceReserve: 0 }
        : site
    );
    const scene = await start({ ...WORLD, sites });
    const admitted: string[] = [];
    for (const host of ['10.0.0.1', '10.0.0.2', '10.0.0.3']) {
      const explained = await scene.explain(flow(`site-a/${host}`, 'rabbitmq'));
      expect(explained.verdict).toBe('NeedsPresence');
      const isAdmitted = await scene.admit(explained, 4).then(
        () => true,
        () => false
      );
      expect(explained.passes).toBe(isAdmitted);
      if (isAdmitted) admitted.push(host);
      else expect(explained.droppedAt).toBe('presence');
    }
    expect(admitted.length).toBeLessThan(3);
  });

  test('takes the bytes of a packet', async () => {
    const scene = await start();
    const destination = `${scene.scene.controller.lookup.service({ service: 'rabbitmq', site: 'site-b' })!.address}`;
    const packet = tcpPacket(
      { source: '10.0.0.9', destination },
      { sourcePort: 40_000, destinationPort: 5672 }
    );
    const explained = await scene.explain({ from: { site: 'site-b' }, packet });
    expect(explained).toMatchObject({
      droppedAt: 'permission',
      before: { source: '10.0.0.9', sourcePort: 40_000, destination, port: 5672 },
    });
    const broken = await scene.explain({
      from: { site: 'site-b' },
      packet: packet.subarray(0, 30),
    });
    expect(broken).toMatchObject({ droppedAt: 'translation', verdict: 'DropMalformed' });
  });

  test('says which site has an edge that is behind, and lets the packet pass', async () => {
    const scene = await start();
    scene.behind.add('site-a');
    const explained = await scene.explain(flow('site-a/10.0.0.9', 'rabbitmq'));
    expect(explained.passes).toBe(true);
    expect(stage(explained, 'acknowledged').outcome).toBe('no');
  });

  test.each([
    [
      { from: { site: 'site-x' }, to: 'rabbitmq' },
      'from.site: "site-x" is not a site; did you mean "site-a"?',
    ],
    [{ from: { site: 'site-a', service: 'console-b' }, to: 'dns' }, 'did you mean "console-a"?'],
    [{ from: { site: 'site-a', address: '10.0.0.300' }, to: 'dns' }, 'from.address: '],
    [{ from: { site: 'site-a' }, to: 'dns', protocol: 'gre' }, 'protocol: "gre" is none of'],
    [{ from: { site: 'site-a' }, to: 'dns', protocol: 'tcp', port: 0 }, 'port: expected'],
    [{ from: { site: 'site-a' }, to: 'dns', protocol: 'tcp' }, 'port: is missing'],
    [{ from: { site: 'site-a' }, to: '' }, 'to: expected'],
  ])('refuses %j', async (query, message) => {
    await expect((await start()).explain(query as ExplainQuery)).rejects.toThrow(message);
  });
});
