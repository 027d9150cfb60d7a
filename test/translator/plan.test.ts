import { describe, expect, test } from 'vitest';
import { ApiMisuseError, ConfigError } from '../../src/errors.ts';
import { compilePlan, printPlan } from '../../src/translator/plan.ts';
import { type Ends, tcpPacket } from '../support/packets.ts';
import type { TextPermit, TextPlan, TextPresence, TextRealm } from '../support/text-of.ts';
import { ADDRESSES, FAMILIES, PLAN, pathOf, Scene, without } from './scene.ts';

const build = (ends: Ends, destinationPort = 5672): Uint8Array =>
  tcpPacket(ends, { sourcePort: 49_500, destinationPort });
const reply = (ends: Ends): Uint8Array =>
  tcpPacket(ends, { sourcePort: 5672, destinationPort: 49_500 });

describe('a client without a presence', () => {
  const newcomers = FAMILIES.map((family) => {
    const { unknownHost, cloud, unbound, host } = ADDRESSES[family];
    return {
      family,
      before: { source: unknownHost, destination: cloud },
      after: { source: unbound, destination: host },
      presence: { realm: 'cloud', address: unbound, of: { realm: 'site-a', address: unknownHost } },
    };
  });

  test.each(newcomers)('is named, gets a presence, and is forwarded, IPv$family', (newcomer) => {
    const { before, after, presence } = newcomer;
    const scene = new Scene();
    const sent = scene.send('site-a', build(before));
    expect([sent.verdict, sent.egress]).toEqual(['NeedsPresence', 'cloud']);
    expect(scene.translator.lackingPresence().toString()).toBe(before.source);
    scene.translator.bind(presence);
    expect(scene.forward('site-a', build(before))).toEqual(build(after));
    const back = { source: after.destination, destination: after.source };
    expect(scene.forward('cloud', reply(back))).toEqual(
      reply({ source: before.destination, destination: before.source })
    );
    expect(scene.counters('site-a')).toEqual({ NeedsPresence: 1, Forward: 1 });
  });

  test('is that of the last verdict, whichever IP version came before', () => {
    const { translator, send } = bound(new Scene());
    for (const { before } of [...newcomers, ...newcomers.toReversed()]) {
      send('site-a', build(before));
      expect(translator.lackingPresence().toString()).toBe(before.source);
    }
  });

  test('is still named after a new plan', () => {
    const { translator, send } = bound(new Scene());
    send('site-a', build(pathOf(4, 'site-a', 'cloud').before));
    send('site-a', build(newcomers[0]!.before));
    translator.load(PLAN);
    expect(translator.lackingPresence().toString()).toBe(newcomers[0]!.before.source);
  });

  test('is distinguished from the host with the same address at the other site', () => {
    const [{ before, presence }] = newcomers as [(typeof newcomers)[0]];
    const scene = new Scene();
    scene.translator.bind(presence);
    expect(scene.send('site-a', build(before)).verdict).toBe('Forward');
    expect(scene.send('site-b', build(before)).verdict).toBe('NeedsPresence');
  });
});

describe('bind', () => {
  const presence: TextPresence = {
    realm: 'cloud',
    address: '100.64.0.50',
    of: { realm: 'site-a', address: '10.0.0.7' },
  };

  test('the same presence again changes nothing', () => {
    const scene = new Scene();
    for (const known of [presence, presence, ...PLAN.presences]) scene.translator.bind(known);
    const { before, after } = pathOf(4, 'site-a', 'cloud');
    expect(scene.forward('site-a', build(before))).toEqual(build(after));
  });

  test.each<[string, TextPresence, string]>([
    [
      'an address that stands for a host of the same address in another realm',
      { ...presence, address: '100.64.0.11', of: { realm: 'site-b', address: '10.0.0.5' } },
      '100.64.0.11 already stands for 10.0.0.5 of site-a in cloud',
    ],
    [
      'an address that stands for another host, given to one without a presence',
      { ...presence, address: 'fd64::a', of: { realm: 'site-a', address: 'fd00::0007' } },
      'fd64::a already stands for fd00::5 of site-a in cloud',
    ],
    [
      'a host that has another address',
      { ...presence, of: { realm: 'site-a', address: '10.0.0.5' } },
      '10.0.0.5 of site-a already has 100.64.0.11 in cloud',
    ],
  ])('is refused: %s', (_name, wrong, message) => {
    const scene = new Scene();
    expect(() => scene.translator.bind(wrong)).toThrow(new ApiMisuseError(message));
    const { before, after } = pathOf(4, 'site-a', 'cloud');
    expect(scene.forward('site-a', build(before))).toEqual(build(after));
  });

  test.each<[string, TextPresence, string]>([
    [
      'a realm that the plan does not have',
      { ...presence, realm: 'moon' },
      'presence.realm: "moon" is not one of the plan\'s realms',
    ],
    [
      'the host of a realm that the plan does not have',
      { ...presence, of: { realm: 'moon', address: '10.0.0.7' } },
      'presence.of.realm: "moon" is not one of the plan\'s realms',
    ],
    [
      'an address that is none',
      { ...presence, address: '100.64.0.256' },
      'presence.address: "100.64.0.256" is not an IP address',
    ],
  ])('is refused: %s', (_name, wrong, message) => {
    expect(() => new Scene().translator.bind(wrong)).toThrow(message);
    expect(() => new Scene().translator.bind(wrong)).toThrow(ConfigError);
  });
});

describe('an invalid plan', () => {
  const cloud = { realm: 'cloud', address: '10.0.0.5' };
  const realm = (change: Partial<TextRealm>): TextPlan => ({
    ...PLAN,
    realms: [...PLAN.realms, { name: 'site-c', sources: ['10.0.0.0/24'], ...change }],
  });
  const presence = (change: Partial<TextPresence>): TextPlan => ({
    ...PLAN,
    presences: [{ realm: 'site-a', address: '100.64.0.9', of: cloud, ...change }],
  });
  const permit = (change: Partial<TextPermit>): TextPlan => ({
    ...PLAN,
    permits: [{ realm: 'site-a', service: cloud, ports: ['tcp/5672'], ...change }],
  });

  test.each<[path: string, plan: TextPlan, message: string]>([
    ['realms[3].name', realm({ name: 'cloud' }), '"cloud" is there twice'],
    ['realms[3].sources[0]', realm({ sources: ['10.0.0.0/33'] }), '"10.0.0.0/33" is not an IP'],
    ['realms[3].sources[1]', realm({ sources: ['10.0.0.0/24', ''] }), '"" is not an IP prefix'],
    ['realms[3].sources[0]', realm({ sources: ['10.0.0.5/24'] }), 'did you mean 10.0.0.0/24?'],
    ['realms[3].pools[0]', realm({ pools: ['100.64.0.0/x'] }), '"100.64.0.0/x" is not an IP'],
    ['realms[3].mtu', realm({ mtu: 575 }), '575 is not a whole number from 576 to 65535'],
    ['realms[3].mtu', realm({ mtu: 65_536 }), '65536 is not a whole number'],
    ['realms[3].mtu', realm({ mtu: 1400.5 }), '1400.5 is not a whole number'],
    ['realms[3].mtu', realm({ mtu: Number.NaN }), 'NaN is not a whole number'],
    [
      'realms[3].reject',
      realm({ reject: 'tarpit' as never }),
      '"tarpit" is none of "drop", "unreachable", "reset"',
    ],

    ['presences[0].address', presence({ address: '::1%lo' }), '"::1%lo" is not an IP address'],
    ['presences[0].realm', presence({ realm: 'moon' }), '"moon" is not one of the plan'],
    ['presences[0].of.realm', presence({ realm: 'cloud' }), "is the presence's own realm"],
    [
      'presences[0].of.realm',
      presence({ of: { realm: 'moon', address: '10.0.0.5' } }),
      '"moon" is not one of the plan',
    ],
    [
      'presences[0].of.address',
      presence({ of: { realm: 'cloud', address: '10.0.0' } }),
      '"10.0.0" is not an IP address',
    ],
    [
      'presences[12]',
      {
        ...PLAN,
        presences: [...PLAN.presences, { realm: 'cloud', address: '100.64.0.77', of: hostOfA() }],
      },
      '10.0.0.5 of site-a already has 100.64.0.11 in cloud',
    ],
    [
      'presences[12]',
      {
        ...PLAN,
        presences: [
          ...PLAN.presences,
          { realm: 'cloud', address: '100.64.0.11', of: { realm: 'site-b', address: '10.0.0.7' } },
        ],
      },
      '100.64.0.11 already stands for 10.0.0.5 of site-a in cloud',
    ],

    ['permits[0].realm', permit({ realm: 'moon' }), '"moon" is not one of the plan'],
    ['permits[0].service.realm', permit({ realm: 'cloud' }), "is the permit's own realm"],
    [
      'permits[0].service.address',
      permit({ service: { realm: 'cloud', address: 'rabbit' } }),
      '"rabbit" is not an IP address',
    ],
    ['permits[0].ports[0]', permit({ ports: ['5672'] }), '"5672" is not a port such as'],
    ['permits[0].ports[1]', permit({ ports: ['icmp', 'tcp/0'] }), '"tcp/0" is not a port'],
    ['permits[0].ports[0]', permit({ ports: ['udp/9-8'] }), '"udp/9-8" is not a port'],
    ['permits[0].ports[0]', permit({ ports: ['tcp/65536'] }), '"tcp/65536" is not a port'],
    ['permits[0].ports[0]', permit({ ports: ['sctp/0'] }), '"sctp/0" is not a port'],
    ['permits[0].ports[0]', permit({ ports: ['ip/256'] }), 'protocol numbers end at 255'],
    ['permits[0].ports[0]', permit({ ports: ['ip/6'] }), 'write tcp/ and a port'],
    ['permits[0].ports[0]', permit({ ports: ['ip/33'] }), 'the checksum of DCCP'],
    ['permits[0].ports[0]', permit({ ports: ['ip/44'] }), 'it is an IPv6 extension header'],
    ['permits[0].clients[0]', permit({ clients: ['10.0.0.1/24'] }), 'bits set behind its length'],
  ])('is refused naming %s, and the old plan stays', (path, plan, message) => {
    const scene = new Scene();
    const { before, after } = pathOf(4, 'site-a', 'cloud');
    scene.forward('site-a', build(before));
    const paths = scene.paths();

    const fault = thrownBy(() => scene.translator.load(plan));
    expect(fault).toBeInstanceOf(ConfigError);
    expect(fault).toMatchObject({ path });
    expect((fault as Error).message).toContain(`${path}: `);
    expect((fault as Error).message).toContain(message);

    expect(scene.paths()).toEqual(paths);
    expect(scene.forward('site-a', build(before))).toEqual(build(after));
    expect(scene.send('site-b', build(pathOf(6, 'site-b', 'cloud').before)).verdict).toBe(
      'Forward'
    );
    expect(scene.counters('site-a')).toEqual({ Forward: 2 });
  });
});

describe('presences of both IP versions', () => {
  const both: TextPresence[] = [
    { realm: 'site-a', address: 'fd64::4', of: { realm: 'cloud', address: '10.0.0.5' } },
    { realm: 'cloud', address: 'fd64::46', of: { realm: 'site-a', address: '10.0.0.5' } },
  ];

  test('a host has one of each version in a realm', () => {
    const presences = [...PLAN.presences, ...both];
    const scene = new Scene({ plan: { ...PLAN, presences } });
    const { before, after } = pathOf(4, 'site-a', 'cloud');
    expect(scene.forward('site-a', build(before))).toEqual(build(after));
  });

  test('a second one of the same version is refused', () => {
    const scene = new Scene();
    for (const presence of both) scene.translator.bind(presence);
    const second = { ...both[1]!, address: 'fd64::47' };
    expect(() => scene.translator.bind(second)).toThrow(
      '10.0.0.5 of site-a already has fd64::46 in cloud'
    );
  });

  test('an address that stands for a host of the other version stands for no other', () => {
    const scene = new Scene();
    for (const presence of both) scene.translator.bind(presence);
    const other = { ...both[1]!, of: { realm: 'site-b', address: 'fd00::5' } };
    expect(() => scene.translator.bind(other)).toThrow(
      'fd64::46 already stands for 10.0.0.5 of site-a in cloud'
    );
  });
});

describe('a new plan', () => {
  const sendAll = (scene: Scene): void => {
    for (const family of FAMILIES) {
      for (const site of ['site-a', 'site-b'] as const) {
        scene.send(site, build(pathOf(family, site, 'cloud').before));
        scene.send('cloud', reply(pathOf(family, 'cloud', site).before));
      }
    }
  };
  const summary = (scene: Scene): string[] =>
    scene
      .paths()
      .map(({ ingress, egress, source, packets }) => [ingress, egress, source, packets].join(' '));

  test('with the same content keeps every path and all counters', () => {
    const scene = new Scene();
    sendAll(scene);
    const [paths, counters] = [scene.paths(), scene.counters('cloud')];
    scene.translator.load(PLAN);
    expect(scene.paths()).toEqual(paths);
    sendAll(scene);
    expect(scene.paths()).toEqual(
      paths.map((path) => ({ ...path, packets: 2, bytes: 2 * path.bytes }))
    );
    expect(scene.counters('cloud')).toEqual({ Forward: 2 * counters.Forward! });
  });

  test('without a realm ends its paths, and keeps those of the others with their counters', () => {
    const scene = new Scene();
    sendAll(scene);
    sendAll(scene);
    scene.translator.load(without('site-b'));
    expect(summary(scene)).toEqual([
      'site-a cloud 10.0.0.5 2',
      'cloud site-a 10.0.0.5 2',
      'site-a cloud fd00::5 2',
      'cloud site-a fd00::5 2',
    ]);
  });

  test('without a realm drops packets from it and to it', () => {
    const scene = new Scene();
    sendAll(scene);
    scene.translator.load(without('site-b'));
    const toCloud = pathOf(4, 'site-b', 'cloud');
    expect(scene.send('site-b', build(toCloud.before)).verdict).toBe('DropNoPresence');
    expect(scene.send('cloud', reply(pathOf(4, 'cloud', 'site-b').before)).verdict).toBe(
      'DropNoPresence'
    );
    expect(scene.counters('site-b')).toEqual({ Forward: 2, DropNoPresence: 1 });

    scene.translator.load(PLAN);
    expect(scene.forward('site-b', build(toCloud.before))).toEqual(build(toCloud.after));
    expect(summary(scene)).toContain('site-b cloud 10.0.0.5 1');
  });

  test('without a permit stops what it permitted at once, and lists no path for it', () => {
    const scene = new Scene();
    sendAll(scene);
    const permits = PLAN.permits.filter(({ realm }) => realm !== 'site-a');
    // The other direction has its own permit, on another port.
    scene.translator.load({ ...PLAN, permits });
    const verdict = scene.send('site-a', build(pathOf(4, 'site-a', 'cloud').before)).verdict;
    expect(verdict).toBe('DropNotPermitted');
    scene.translator.load({ ...PLAN, permits: [] });
    expect(scene.paths()).toEqual([]);
    sendAll(scene);
    expect(scene.counters('site-b')).toEqual({ Forward: 2, DropNotPermitted: 2 });
  });

  test('with another address for a client sends its packets from that address', () => {
    const scene = new Scene();
    sendAll(scene);
    const presences = PLAN.presences.map((presence) =>
      presence.address === '100.64.0.11' ? { ...presence, address: '100.64.0.99' } : presence
    );
    scene.translator.load({ ...PLAN, presences });
    const { before, after } = pathOf(4, 'site-a', 'cloud');
    expect(scene.forward('site-a', build(before))).toEqual(
      build({ ...after, source: '100.64.0.99' })
    );
    expect(scene.send('cloud', reply(pathOf(4, 'cloud', 'site-a').before)).verdict).toBe(
      'DropNoPresence'
    );
  });

  test('with another host behind an address sends packets to that host', () => {
    const scene = new Scene();
    sendAll(scene);
    const swapped: Record<string, string> = {
      '100.64.0.11': '100.64.0.12',
      '100.64.0.12': '100.64.0.11',
    };
    const presences = PLAN.presences.map((presence) => ({
      ...presence,
      address: swapped[`${presence.address}`] ?? presence.address,
    }));
    scene.translator.load({ ...PLAN, presences });
    const sent = scene.send('cloud', reply(pathOf(4, 'cloud', 'site-a').before));
    expect([sent.verdict, sent.egress]).toEqual(['Forward', 'site-b']);
  });

  test('removes presences that were bound and that it does not have', () => {
    const scene = new Scene();
    const { unknownHost, cloud, unbound } = ADDRESSES[4];
    const packet = build({ source: unknownHost, destination: cloud });
    scene.translator.bind({
      realm: 'cloud',
      address: unbound,
      of: { realm: 'site-a', address: unknownHost },
    });
    scene.forward('site-a', packet);
    scene.translator.load(PLAN);
    expect(scene.paths()).toEqual([]);
    expect(scene.send('site-a', packet).verdict).toBe('NeedsPresence');
  });
});

describe('realms', () => {
  test('keep their index, whatever later plans contain', () => {
    const { translator } = new Scene();
    const names = ['cloud', 'site-a', 'site-b'];
    expect(names.map((name) => translator.realm(name))).toEqual([0, 1, 2]);
    translator.load({ ...PLAN, realms: PLAN.realms.toReversed() });
    translator.load({ realms: [], presences: [], permits: [] });
    translator.load(PLAN);
    expect(names.map((name) => translator.realm(name))).toEqual([0, 1, 2]);
    expect([0, 1, 2].map((index) => translator.realmName(index))).toEqual(names);
  });

  test('have an index before a plan has them', () => {
    const scene = new Scene({ plan: without('site-b') });
    const index = scene.translator.realm('site-b');
    expect(scene.counters('site-b')).toEqual({});
    scene.translator.load(PLAN);
    expect(scene.translator.realm('site-b')).toBe(index);
    expect(scene.send('site-b', build(pathOf(4, 'site-b', 'cloud').before)).verdict).toBe(
      'Forward'
    );
  });

  test.each([
    ['__proto__', 'constructor'],
    ['', 'toString'],
    ['0', '1'],
  ])('may be called "%s" and "%s"', (x, y) => {
    const plan = {
      realms: [x, y].map((name) => ({ name, sources: ['10.0.0.0/24'] })),
      presences: [
        { realm: x, address: '100.64.0.1', of: { realm: y, address: '10.0.0.5' } },
        { realm: y, address: '100.64.0.2', of: { realm: x, address: '10.0.0.5' } },
      ],
      permits: [{ realm: x, service: { realm: y, address: '10.0.0.5' }, ports: ['tcp/5672'] }],
    };
    const scene = new Scene({ plan });
    const sent = scene.send(x, build({ source: '10.0.0.5', destination: '100.64.0.1' }));
    expect([sent.verdict, sent.egress]).toEqual(['Forward', y]);
    expect(scene.counters(x)).toEqual({ Forward: 1 });
    expect(scene.counters(y)).toEqual({});
    expect(scene.paths()).toMatchObject([{ ingress: x, egress: y, packets: 1 }]);
  });

  test('drop every packet before there is a plan', () => {
    const scene = new Scene({ plan: { realms: [], presences: [], permits: [] } });
    expect(scene.send('site-a', build(pathOf(4, 'site-a', 'cloud').before)).verdict).toBe(
      'DropNoPresence'
    );
  });
});

/** The scene's parts, for use without naming it. */
function bound(scene: Scene): {
  translator: Scene['translator'];
  send: (ingress: string, packet: Uint8Array) => void;
} {
  return { translator: scene.translator, send: (...packet) => void scene.send(...packet) };
}

function hostOfA(): TextPresence['of'] {
  return { realm: 'site-a', address: '10.0.0.5' };
}

function thrownBy(call: () => void): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  return undefined;
}

test('a printed plan survives a structured clone, and compiles to the same values', () => {
  const realms = [
    { name: 'cloud', sources: ['10.0.0.0/24'], mtu: 1500 },
    { name: 'site-a', sources: ['2001:db8::/64'], pools: ['2001:DB8::8/125'] },
  ];
  const service = { realm: 'cloud', address: '10.0.0.5' };
  const plan = compilePlan({
    realms,
    presences: [{ realm: 'site-a', address: '2001:db8::9', of: service }],
    permits: [{ realm: 'site-a', service, ports: ['tcp/80-90'], clients: ['2001:db8::5'] }],
  });
  expect(compilePlan(plan).presences[0]).toBe(plan.presences[0]);
  const printed = structuredClone(printPlan(plan));
  expect(printed.presences).toEqual([
    { realm: 'site-a', address: '2001:db8::9', of: { realm: 'cloud', address: '10.0.0.5' } },
  ]);
  expect(printed.permits[0]).toEqual({
    realm: 'site-a',
    service: { realm: 'cloud', address: '10.0.0.5' },
    ports: ['tcp/80-90'],
    clients: ['2001:db8::5/128'],
  });
  expect(compilePlan(printed)).toEqual(plan);
});
