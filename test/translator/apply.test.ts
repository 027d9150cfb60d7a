/**
 * Changes of a plan by keys: what each kind of change does, what is refused, and what it costs. The random changes of
 * `apply-property.test.ts` compare all else with `load`.
 */
import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/errors.ts';
import type { PathStatus, PlanChangesInput } from '../../src/translator/index.ts';
import { compileChanges, printChanges } from '../../src/translator/plan.ts';
import { type Ends, fragment, tcpPacket, udp, udpPacket } from '../support/packets.ts';
import type { TextPlan } from '../support/text-of.ts';
import { ADDRESSES, PLAN, pathOf, Scene, without } from './scene.ts';

const build = (ends: Ends, destinationPort = 5672): Uint8Array =>
  tcpPacket(ends, { sourcePort: 49_500, destinationPort });
const reply = (ends: Ends): Uint8Array =>
  tcpPacket(ends, { sourcePort: 5672, destinationPort: 49_500 });
const CLOUD = { realm: 'cloud', address: '10.0.0.5' };
const SITE_A = { realm: 'site-a', address: '10.0.0.5' };
const SITE_B = { realm: 'site-b', address: '10.0.0.5' };

/** A scene in which requests and replies of both sites have passed. */
function usedScene(): Scene {
  const scene = new Scene();
  for (const site of ['site-a', 'site-b'] as const) {
    scene.forward(site, build(pathOf(4, site, 'cloud').before));
    scene.forward('cloud', reply(pathOf(4, 'cloud', site).before));
  }
  return scene;
}

function namesOf(paths: readonly PathStatus[]): string[] {
  return paths.map(({ ingress, egress, packets }) => `${ingress} ${egress} ${packets}`).sort();
}

const ALL = ['cloud site-a 1', 'cloud site-b 1', 'site-a cloud 1', 'site-b cloud 1'];
const ONLY_A = ['cloud site-a 1', 'site-a cloud 1'];

describe('a realm', () => {
  test('that goes takes its presences, permits and paths with it', () => {
    const scene = usedScene();
    expect(scene.translator.apply({ realms: [{ name: 'site-b', realm: undefined }] })).toBe(2);
    expect(namesOf(scene.paths())).toEqual(ONLY_A);
    const { before } = pathOf(4, 'site-b', 'cloud');
    expect(scene.send('site-b', build(before)).verdict).toBe('DropNoPresence');
    expect(scene.send('cloud', reply(pathOf(4, 'cloud', 'site-b').before)).verdict).toBe(
      'DropNoPresence'
    );
    // It comes back with nothing.
    const realm = PLAN.realms.find(({ name }) => name === 'site-b')!;
    expect(scene.translator.apply({ realms: [{ name: 'site-b', realm }] })).toBe(0);
    expect(scene.send('site-b', build(before)).verdict).toBe('DropNoPresence');
    expect(scene.translator.apply({ realms: [{ name: 'moon', realm: undefined }] })).toBe(0);
  });

  test('that goes ends all of its paths, in whatever order they are in the table', () => {
    const scene = new Scene();
    const clients = [10, 11, 12].map((n) => ({ realm: 'site-a', address: `10.0.0.${n}` }));
    const presences = clients.map((of, i) => ({
      realm: 'cloud',
      address: `100.64.0.${20 + i}`,
      of,
    }));
    scene.translator.apply({ presences });
    const open = (i: number): Uint8Array =>
      scene.forward('site-a', build({ source: clients[i]!.address, destination: '100.64.0.1' }));
    open(0);
    open(1);
    scene.forward('site-b', build(pathOf(4, 'site-b', 'cloud').before));
    open(2);
    // Ended paths leave their numbers to the last ones.
    scene.translator.apply({ presences: [{ ...presences[0]!, of: undefined }] });
    expect(scene.translator.apply({ realms: [{ name: 'site-b' }] })).toBe(1);
    expect(namesOf(scene.paths())).toEqual(['site-a cloud 1', 'site-a cloud 1']);
    expect(scene.translator.apply({ realms: [{ name: 'site-a' }] })).toBe(2);
    expect(scene.paths()).toEqual([]);
    expect(scene.translator.pathsOf('cloud')).toBe(0);
  });

  test('that comes back is new: replies to its earlier requests pass for a while', () => {
    const scene = usedScene();
    scene.translator.advance(130_000);
    const [realm] = PLAN.realms.filter(({ name }) => name === 'site-b');
    const unasked = reply(pathOf(6, 'cloud', 'site-b').before);
    expect(scene.send('cloud', unasked).verdict).toBe('DropNoSession');
    scene.translator.apply({ realms: [{ name: 'site-b' }] });
    scene.translator.advance(260_000);
    scene.translator.apply({
      realms: [{ name: 'site-b', realm }],
      presences: PLAN.presences.filter(({ realm: name, of }) =>
        [name, of.realm].includes('site-b')
      ),
      permits: PLAN.permits
        .filter((permit) => permit.realm === 'site-b' && permit.service.realm === 'cloud')
        .map((permit) => ({ ...permit, permits: [permit] })),
    });
    expect(scene.send('cloud', unasked).verdict).toBe('Forward');
  });

  test('that comes may be named by the presences and permits of the same changes', () => {
    const scene = new Scene({ plan: without('site-b') });
    scene.translator.apply({
      permits: [
        {
          realm: 'site-b',
          service: CLOUD,
          permits: [{ realm: 'site-b', service: CLOUD, ports: ['tcp/5672'] }],
        },
      ],
      presences: PLAN.presences.filter(({ realm, of }) => [realm, of.realm].includes('site-b')),
      realms: [{ name: 'site-b', realm: PLAN.realms[2]! }],
    });
    const { before, after } = pathOf(4, 'site-b', 'cloud');
    expect(scene.forward('site-b', build(before))).toEqual(build(after));
  });

  test('with another mtu changes the sizes of its paths, which keep their counters', () => {
    const scene = usedScene();
    const large = udpPacket(pathOf(4, 'site-a', 'cloud').before, {
      sourcePort: 40_000,
      destinationPort: 53,
      payload: new Uint8Array(600),
    });
    scene.translator.apply({
      realms: [{ name: 'cloud', realm: { ...PLAN.realms[0]!, mtu: 576, reject: 'reset' } }],
    });
    expect(scene.send('site-a', large).verdict).toBe('DropTooBig');
    expect(namesOf(scene.paths())).toEqual(ALL);
    scene.translator.apply({ realms: [{ name: 'cloud', realm: PLAN.realms[0]! }] });
    expect(scene.send('site-a', large).verdict).toBe('Forward');
  });

  test('with other sources ends the paths of hosts that are none any more', () => {
    const scene = usedScene();
    const realm = { ...PLAN.realms[1]!, sources: ['10.0.0.0/30', '10.0.0.64/26', 'fd00::/64'] };
    expect(scene.translator.apply({ realms: [{ name: 'site-a', realm }] })).toBe(0);
    // The host is a service still, but no client any more.
    expect(namesOf(scene.paths())).toEqual(['cloud site-a 1', 'cloud site-b 1', 'site-b cloud 1']);
    expect(scene.send('cloud', reply(pathOf(4, 'cloud', 'site-a').before)).verdict).toBe(
      'DropNotPermitted'
    );
    expect(scene.send('site-a', build(pathOf(4, 'site-a', 'cloud').before)).verdict).toBe(
      'DropSpoofed'
    );
  });
});

describe('presences', () => {
  test('that move give their hosts other addresses, and only the paths of these end', () => {
    const scene = usedScene();
    scene.translator.apply({
      presences: [
        { realm: 'cloud', address: '100.64.0.99', of: SITE_A },
        { realm: 'cloud', address: '100.64.0.11', of: undefined },
      ],
    });
    expect(namesOf(scene.paths())).toEqual(['cloud site-b 1', 'site-b cloud 1']);
    const { before, after } = pathOf(4, 'site-a', 'cloud');
    expect(scene.forward('site-a', build(before))).toEqual(
      build({ ...after, source: '100.64.0.99' })
    );
  });

  test('that change places lead to the other host', () => {
    const scene = usedScene();
    scene.translator.apply({
      presences: [
        { realm: 'cloud', address: '100.64.0.11', of: SITE_B },
        { realm: 'cloud', address: '100.64.0.12', of: SITE_A },
      ],
    });
    expect(scene.paths()).toEqual([]);
    const sent = scene.send('site-b', build(pathOf(4, 'site-b', 'cloud').before));
    expect(sent.packet).toEqual(build({ source: '100.64.0.11', destination: '10.0.0.5' }));
    expect(scene.send('cloud', reply(pathOf(4, 'cloud', 'site-a').before)).egress).toBe('site-b');
  });

  test('that go take the datagrams with them whose first fragment has passed', () => {
    const scene = new Scene();
    const { before } = pathOf(4, 'site-a', 'cloud');
    const datagram = udp({ sourcePort: 40_000, destinationPort: 53, payload: new Uint8Array(992) });
    const [first, later] = [
      fragment(before, datagram, [0, 600]),
      fragment(before, datagram, [600, 1000]),
    ];
    const [presence] = PLAN.presences.filter(({ realm, of }) => realm + of.realm === 'cloudsite-a');
    expect(scene.verdicts('site-a', first)).toEqual(['Forward']);
    scene.translator.apply({ presences: [{ ...presence!, of: undefined }] });
    scene.translator.apply({ presences: [presence!] });
    expect(scene.verdicts('site-a', build(before), later)).toEqual([
      'Forward',
      'DropFragmentOrphan',
    ]);
    expect(scene.verdicts('site-a', first, later)).toEqual(['Forward', 'Forward']);
  });

  test('that get the address of a host end its paths, where addresses of pools may send', () => {
    const realm = { sources: ['10.0.0.0/24'], pools: ['100.64.0.0/24'] };
    const service = { realm: 'site-a', address: '10.0.0.5' };
    const foreign = { realm: 'cloud', address: '100.64.0.7' };
    const scene = new Scene({
      plan: {
        realms: [
          { name: 'cloud', ...realm, sources: ['100.64.0.0/24'], poolsMaySend: true },
          { name: 'site-a', ...realm },
          { name: 'site-b', ...realm },
        ],
        presences: [
          { realm: 'cloud', address: '100.64.0.9', of: service },
          { realm: 'site-a', address: '100.64.0.8', of: foreign },
        ],
        permits: [{ realm: 'cloud', service, ports: ['tcp/5672'], clients: realm.pools }],
      },
    });
    const request = build({ source: foreign.address, destination: '100.64.0.9' });
    scene.forward('cloud', request);
    const of = { realm: 'site-b', address: '10.0.0.6' };
    scene.translator.apply({ presences: [{ ...foreign, of }] });
    expect(scene.paths()).toEqual([]);
    expect(scene.send('cloud', request).verdict).toBe('DropSpoofed');
    scene.translator.apply({ presences: [{ ...foreign, of: undefined }] });
    scene.forward('cloud', request);
  });

  test('that go, twice or of a realm that is not there, change nothing more', () => {
    const scene = usedScene();
    const changes: PlanChangesInput = {
      presences: [
        { realm: 'cloud', address: '100.64.0.12', of: undefined },
        { realm: 'moon', address: '100.64.0.12', of: undefined },
      ],
      permits: [{ realm: 'moon', service: CLOUD, permits: [] }],
    };
    for (let n = 0; n < 2; n++) {
      expect(scene.translator.apply(changes)).toBe(0);
      expect(namesOf(scene.paths())).toEqual(ONLY_A);
    }
    expect(scene.send('site-b', build(pathOf(4, 'site-b', 'cloud').before)).verdict).toBe(
      'NeedsPresence'
    );
  });
});

describe('permits', () => {
  const change = (...ports: string[][]): PlanChangesInput => ({
    permits: [
      {
        realm: 'site-a',
        service: CLOUD,
        permits: ports.map((each) => ({ realm: 'site-a', service: CLOUD, ports: each })),
      },
    ],
  });

  test('of a pair are replaced: open paths let other ports pass', () => {
    const scene = usedScene();
    const { before } = pathOf(4, 'site-a', 'cloud');
    scene.translator.apply(change(['tcp/443'], ['tcp/80']));
    expect(scene.verdicts('site-a', build(before), build(before, 80), build(before, 443))).toEqual([
      'DropNotPermitted',
      'Forward',
      'Forward',
    ]);
    expect(namesOf(scene.paths())).toEqual([
      'cloud site-a 1',
      'cloud site-b 1',
      'site-a cloud 3',
      'site-b cloud 1',
    ]);
    expect(scene.send('site-b', build(pathOf(4, 'site-b', 'cloud').before)).verdict).toBe(
      'Forward'
    );
  });

  test('that are none leave what the other direction permits', () => {
    const scene = usedScene();
    scene.translator.apply(change());
    const { before } = pathOf(4, 'site-a', 'cloud');
    expect(scene.send('site-a', build(before)).verdict).toBe('DropNotPermitted');
    expect(scene.send('cloud', build(pathOf(4, 'cloud', 'site-a').before, 16_509)).verdict).toBe(
      'Forward'
    );
  });

  test('count a path against the realm that is the client now', () => {
    // The path from the cloud is one of replies, until the cloud is a client too.
    const plan: TextPlan = {
      ...PLAN,
      permits: PLAN.permits.filter(({ realm }) => realm !== 'cloud'),
    };
    const scene = new Scene({ plan, maxPathsOfRealm: 2 });
    scene.forward('site-a', build(pathOf(4, 'site-a', 'cloud').before));
    scene.forward('cloud', reply(pathOf(4, 'cloud', 'site-a').before));
    const more = build(pathOf(6, 'site-a', 'cloud').before);
    expect(scene.send('site-a', more).verdict).toBe('DropTableFull');
    scene.translator.apply({
      permits: [
        {
          realm: 'cloud',
          service: SITE_A,
          permits: [{ realm: 'cloud', service: SITE_A, ports: ['tcp/16509'] }],
        },
      ],
    });
    expect(scene.send('site-a', more).verdict).toBe('Forward');
  });
});

describe('invalid changes', () => {
  const realm = { name: 'site-c', sources: ['10.0.0.0/24'] };
  const permit = { realm: 'site-a', service: CLOUD, ports: ['tcp/5672'] };
  const permits = (each: object): PlanChangesInput => ({
    permits: [{ realm: 'site-a', service: CLOUD, permits: [permit, { ...permit, ...each }] }],
  });
  const presence = (each: object): PlanChangesInput => ({
    presences: [{ realm: 'site-a', address: '100.64.0.9', of: CLOUD, ...each }],
  });

  test.each<[path: string, changes: PlanChangesInput, message: string]>([
    ['realms[0].realm.name', { realms: [{ name: 'x', realm }] }, '"site-c" is not "x"'],
    [
      'realms[0].realm.sources[0]',
      { realms: [{ name: 'site-c', realm: { ...realm, sources: ['10.0.0.5/24'] } }] },
      'did you mean 10.0.0.0/24?',
    ],
    [
      'realms[0].realm.mtu',
      { realms: [{ name: 'site-c', realm: { ...realm, mtu: 575 } }] },
      '575 is not a whole number from 576 to 65535',
    ],
    ['presences[0].address', presence({ address: 'x' }), '"x" is not an IP address'],
    ['presences[0].address', presence({ address: 'x', of: undefined }), '"x" is not an IP address'],
    ['presences[0].realm', presence({ realm: 'moon' }), '"moon" is not one of the plan'],
    [
      'presences[0].of.realm',
      presence({ of: { realm: 'moon', address: '10.0.0.5' } }),
      '"moon" is not one of the plan',
    ],
    ['presences[0].of.realm', presence({ realm: 'cloud' }), "is the presence's own realm"],
    ['presences[0]', presence({}), '10.0.0.5 of cloud already has 100.64.0.1 in site-a'],
    [
      'presences[2]',
      {
        presences: [
          { realm: 'site-a', address: '100.64.0.1', of: undefined },
          { realm: 'site-a', address: '100.64.0.8', of: CLOUD },
          { realm: 'site-a', address: '100.64.0.9', of: CLOUD },
        ],
      },
      '10.0.0.5 of cloud already has 100.64.0.8 in site-a',
    ],
    ['permits[0].permits[1].ports[0]', permits({ ports: ['5672'] }), '"5672" is not a port'],
    [
      'permits[0].permits[1]',
      permits({ realm: 'site-b' }),
      'it lets "site-b" use cloud/10.0.0.5, not "site-a" use cloud/10.0.0.5',
    ],
    [
      'permits[0].realm',
      { permits: [{ realm: 'moon', service: CLOUD, permits: [{ ...permit, realm: 'moon' }] }] },
      '"moon" is not one of the plan',
    ],
  ])('are refused naming %s, and all stays as it was', (path, changes, message) => {
    const scene = usedScene();
    const before = [scene.paths(), scene.translator.memory];
    // What is valid in front of it is not applied either.
    const valid: PlanChangesInput = {
      realms: [{ name: 'site-b', realm: undefined }],
      presences: [{ realm: 'cloud', address: '100.64.0.11', of: undefined }],
      permits: [{ realm: 'site-a', service: CLOUD, permits: [] }],
    };
    const both: PlanChangesInput = {
      realms: [...(changes.realms ?? []), ...valid.realms!],
      presences: [...(changes.presences ?? []), ...valid.presences!],
      permits: [...(changes.permits ?? []), ...valid.permits!],
    };
    for (const each of [changes, both]) {
      let fault: unknown;
      try {
        scene.translator.apply(each);
      } catch (error) {
        fault = error;
      }
      expect(fault).toBeInstanceOf(ConfigError);
      expect(fault).toMatchObject({ path });
      expect((fault as Error).message).toContain(message);
    }
    expect([scene.paths(), scene.translator.memory]).toEqual(before);
    for (const site of ['site-a', 'site-b'] as const) {
      expect(scene.send(site, build(pathOf(4, site, 'cloud').before)).verdict).toBe('Forward');
    }
  });
});

describe('tables', () => {
  test('take no more memory after any number of changes', () => {
    const scene = new Scene();
    const { translator } = scene;
    const cycle = (n: number): void => {
      const service = { realm: 'cloud', address: `10.0.0.${100 + (n % 100)}` };
      const client = { realm: 'site-a', address: `10.0.0.${6 + (n % 90)}` };
      const [near, far] = [`100.64.1.${n % 250}`, `100.64.2.${n % 250}`];
      const ports = [`tcp/${1000 + n}`, `udp/${1 + n}`];
      translator.apply({
        presences: [
          { realm: 'site-a', address: near, of: service },
          { realm: 'cloud', address: far, of: client },
        ],
        permits: [
          {
            realm: 'site-a',
            service,
            permits: [{ realm: 'site-a', service, ports }],
          },
        ],
      });
      scene.forward('site-a', build({ source: client.address, destination: near }, 1000 + n));
      const other = { realm: 'site-a', service, ports: [`tcp/${3000 + n}`] };
      translator.apply({ permits: [{ realm: 'site-a', service, permits: [other] }] });
      expect(scene.paths()).toHaveLength(1);
      translator.apply({
        presences: [
          { realm: 'site-a', address: near, of: undefined },
          { realm: 'cloud', address: far, of: undefined },
        ],
        permits: [{ realm: 'site-a', service, permits: [] }],
      });
      expect(scene.paths()).toEqual([]);
    };
    cycle(0);
    const before = translator.memory;
    for (let n = 1; n < 1000; n++) cycle(n);
    expect(translator.memory).toEqual(before);
  });
});

test('a capture asks again about the paths', () => {
  const scene = usedScene();
  const asked: string[] = [];
  scene.translator.capture({
    wants: ({ ingress }) => {
      asked.push(ingress);
      return false;
    },
    packet() {},
  });
  const packet = build(pathOf(4, 'site-a', 'cloud').before);
  for (let n = 0; n < 2; n++) scene.forward('site-a', packet);
  scene.translator.apply({ presences: [{ realm: 'site-b', address: '100.64.0.77' }] });
  scene.forward('site-a', packet);
  expect(asked).toEqual(['site-a', 'site-a']);
});

test('printed changes survive JSON, and compile to the same values', () => {
  const { host, unbound } = ADDRESSES[6];
  const service = { realm: 'cloud', address: host };
  const changes = compileChanges({
    realms: [
      { name: 'site-a', realm: PLAN.realms[1]! },
      { name: 'site-b', realm: undefined },
    ],
    presences: [
      { realm: 'site-a', address: unbound, of: service },
      { realm: 'site-a', address: '100.64.0.9', of: undefined },
    ],
    permits: [
      {
        realm: 'site-a',
        service,
        permits: [{ realm: 'site-a', service, ports: ['tcp/80-90'], clients: ['10.0.0.0/24'] }],
      },
    ],
  });
  const printed = JSON.parse(JSON.stringify(printChanges(changes)));
  expect(compileChanges(printed)).toEqual(changes);
});
