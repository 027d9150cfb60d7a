/**
 * What each of two translators gets of a plan; `plan-partition-property.test.ts` shows that it comes
 * to the same.
 */
import { beforeEach, describe, expect, test } from 'vitest';
import { ELSEWHERE, PlanPartition, type RouteChange } from '../../src/control/index.ts';
import type {
  PlanChanges,
  PlanChangesInput,
  PresenceInput,
  TranslationPlan,
} from '../../src/translator/index.ts';
import { compileChanges, compilePresence } from '../../src/translator/plan.ts';
import { type TextOf, type TextPlan, type TextPresence, textOf } from '../support/text-of.ts';

const A = { realm: 'site-a', address: '10.0.0.5' };
const B = { realm: 'site-b', address: '10.0.0.6' };
const RABBITMQ = { realm: 'cloud', address: '10.0.0.7' };
const LAN = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] };

/** A uses a service of the cloud and one of B; the cloud uses B's too. */
const PLAN: TextPlan = {
  realms: [
    { name: 'cloud', ...LAN, mtu: 1400 },
    { name: 'site-a', ...LAN },
    { name: 'site-b', ...LAN, reject: 'reset' },
  ],
  presences: [
    { realm: 'cloud', address: '10.0.0.129', of: A },
    { realm: 'cloud', address: '10.0.0.145', of: B },
    { realm: 'site-a', address: '10.0.0.130', of: RABBITMQ },
    { realm: 'site-a', address: '10.0.0.131', of: B },
    { realm: 'site-b', address: '10.0.0.132', of: A },
  ],
  permits: [
    { realm: 'site-a', service: RABBITMQ, ports: ['tcp/5672'] },
    { realm: 'site-a', service: B, ports: ['tcp/22'], clients: ['10.0.0.5/32'] },
    { realm: 'cloud', service: B, ports: ['tcp/80'] },
  ],
};

class Target {
  plan: TextPlan = { realms: [], presences: [], permits: [] };
  loads = 0;
  bound: TextPresence[] = [];
  changes: TextOf<PlanChanges>[] = [];

  load(plan: TranslationPlan): void {
    this.loads++;
    this.plan = textOf(plan);
    this.bound = [];
  }

  apply(changes: PlanChanges): void {
    this.changes.push(textOf(changes));
    const { presences = [] } = textOf(changes);
    this.bound.push(...(presences.filter(({ of }) => of !== undefined) as TextPresence[]));
  }
}

let targets: [Target, Target];
let holders: Map<string, number>;
let received: RouteChange[];
let partition: PlanPartition;

function start(plan = PLAN, held: Readonly<Record<string, number>> = { 'site-a': 0, 'site-b': 1 }) {
  targets = [new Target(), new Target()];
  holders = new Map(Object.entries(held));
  received = [];
  partition = new PlanPartition({
    shared: 'cloud',
    targets,
    holderOf: (site) => holders.get(site)!,
    onRoutes: (changes) => received.push(...changes),
  });
  partition.load(plan);
}

beforeEach(() => start());

describe('a part', () => {
  test('has the shared realm, in which packets come from presences of other parts too', () => {
    const sources = ['10.0.0.0/24', '10.0.0.128/25'];
    const shared = { ...PLAN.realms[0], sources, poolsMaySend: true };
    expect(targets[0].plan.realms).toEqual([shared, PLAN.realms[1]]);
    expect(targets[1].plan.realms).toEqual([shared, PLAN.realms[2]]);
  });

  test('knows a foreign host by its presence in the shared realm', () => {
    expect(targets[0].plan.presences).toEqual([
      { realm: 'cloud', address: '10.0.0.129', of: A },
      { realm: 'site-a', address: '10.0.0.130', of: RABBITMQ },
      { realm: 'site-a', address: '10.0.0.131', of: { realm: 'cloud', address: '10.0.0.145' } },
    ]);
    expect(targets[1].plan.presences).toEqual([
      { realm: 'cloud', address: '10.0.0.145', of: B },
      { realm: 'site-b', address: '10.0.0.132', of: { realm: 'cloud', address: '10.0.0.129' } },
    ]);
  });

  test('permits on the clients’ side exactly what the plan does', () => {
    const service = { realm: 'cloud', address: '10.0.0.145' };
    expect(targets[0].plan.permits).toEqual([PLAN.permits[0], { ...PLAN.permits[1], service }]);
  });

  test('permits presences on the service’s side, and excludes the shared realm’s own hosts', () => {
    expect(targets[1].plan.permits).toEqual([
      { realm: 'cloud', service: B, ports: ['tcp/22'], clients: ['10.0.0.128/25'] },
      { realm: 'cloud', service: B, ports: ['tcp/80'], clients: ['10.0.0.0/25'] },
    ]);
  });

  test('leaves presences out of the named clients of the shared realm', () => {
    const clients = ['10.0.0.64/26', '10.0.0.128/30', '10.0.0.0/24', '2001:db8::/64'];
    start({ ...PLAN, permits: [{ ...PLAN.permits[2]!, clients }] });
    expect(targets[1].plan.permits[0]?.clients).toEqual([
      '10.0.0.64/26',
      '10.0.0.0/25',
      '2001:db8::/64',
    ]);
  });

  test('with both sites is the plan itself, except for the shared realm', () => {
    start(PLAN, { 'site-a': 1, 'site-b': 1 });
    const [empty, full] = targets;
    expect(full.plan.presences).toEqual(PLAN.presences);
    expect(full.plan.permits.slice(0, 2)).toEqual(PLAN.permits.slice(0, 2));
    expect(empty.plan).toMatchObject({ presences: [], permits: [] });
    expect(empty.plan.realms.map(({ name }) => name)).toEqual(['cloud']);
  });

  test('has nothing of a host without a presence in the shared realm', () => {
    start({ ...PLAN, presences: PLAN.presences.filter(({ realm }) => realm !== 'cloud') });
    expect(targets[0].plan.presences.map(({ address }) => address)).toEqual(['10.0.0.130']);
    expect(targets[0].plan.permits).toEqual([PLAN.permits[0]]);
    expect(targets[1].plan.presences).toEqual([]);
  });
});

function bind(presence: PresenceInput): void {
  partition.apply({ presences: [compilePresence(presence, () => 'presence')] });
}

describe('a presence that is added', () => {
  const OTHER = { realm: 'site-a', address: '10.0.0.9' };
  const inB: TextPresence = { realm: 'site-b', address: '10.0.0.133', of: OTHER };
  const inCloud: TextPresence = { realm: 'cloud', address: '10.0.0.137', of: OTHER };

  test('sends a client’s presence to the parts that it concerns, when its path is known', () => {
    bind(inB);
    expect(targets.map(({ bound }) => bound)).toEqual([[], []]);
    bind(inCloud);
    const standIn = { realm: 'cloud', address: '10.0.0.137' };
    expect(targets[0].bound).toEqual([inCloud]);
    expect(targets[1].bound).toEqual([{ ...inB, of: standIn }]);
    expect(targets.map(({ loads }) => loads)).toEqual([1, 1]);
  });

  test('sends the same presence once', () => {
    for (let i = 0; i < 2; i++) bind(inCloud);
    expect(targets[0].bound).toEqual([inCloud]);
  });

  test('is part of every later part', () => {
    bind(inCloud);
    bind(inB);
    expect(textOf(partition.part(1)).presences).toContainEqual({
      ...inB,
      of: { realm: 'cloud', address: '10.0.0.137' },
    });
  });

  test('opens the permits of a service’s presence in the shared realm', () => {
    const presence = PLAN.presences[1]!;
    start({ ...PLAN, presences: PLAN.presences.filter((each) => each !== presence) });
    expect(targets[0].plan.permits).toHaveLength(1);
    bind(presence);
    const service = { realm: 'cloud', address: '10.0.0.145' };
    const permits = [{ ...PLAN.permits[1], service }];
    expect(targets[0].changes[0]!.permits).toEqual([{ realm: 'site-a', service, permits }]);
  });

  test('takes a block that becomes shared from the site that had it alone', () => {
    received = [];
    bind({ realm: 'cloud', address: '10.0.0.130', of: { ...B, address: '10.0.0.9' } });
    expect(received.map(({ prefix, site }) => `${prefix} ${site}`)).toEqual([
      '10.0.0.129/32 site-a',
      '10.0.0.130/32 site-b',
      '10.0.0.128/28 undefined',
    ]);
    expect(targets.map(({ changes }) => changes.length)).toEqual([0, 1]);
  });
});

describe('a site that moves', () => {
  test('is in the new part at once, with the same addresses, and leaves the old one when that is asked for', () => {
    holders.set('site-b', 0);
    const leave = partition.moved('site-b');
    expect(textOf(partition.part(0)).presences).toEqual(PLAN.presences);
    expect(targets[0].changes).toHaveLength(1);
    expect(targets[1].changes).toHaveLength(0);
    leave();
    expect(textOf(partition.part(1)).presences).toEqual([]);
    expect(targets[1].changes).toMatchObject([{ realms: [{ name: 'site-b' }] }]);
    expect(targets.map(({ loads }) => loads)).toEqual([1, 1]);
    expect(received).toEqual([
      { prefix: '10.0.0.128/28', site: 'site-a' },
      { prefix: '10.0.0.144/28', site: 'site-b' },
    ]);
  });
});

describe('a site that no target holds', () => {
  test('is in no part, and its presences are foreign hosts to the others', () => {
    start(PLAN, { 'site-a': 0, 'site-b': ELSEWHERE });
    expect(targets[0].plan.presences).toContainEqual({
      ...PLAN.presences[3]!,
      of: { realm: 'cloud', address: '10.0.0.145' },
    });
    expect(targets[1].plan.realms.map(({ name }) => name)).toEqual(['cloud']);
    expect(partition.routes).toContainEqual(['10.0.0.144/28', 'site-b']);
  });
});

describe('a host with a former and a new address', () => {
  const former = { realm: 'cloud', address: '10.0.0.145', of: B, formerUntil: 1000 };
  const newest = { realm: 'cloud', address: '10.0.1.1', of: B };
  const presenceOf = (plan: TextPlan, address: string) =>
    plan.presences.find((each) => each.realm === 'site-a' && each.address === address);

  test('is known in other parts by the address that ends first, in whatever order they have come', () => {
    for (const both of [
      [former, newest],
      [newest, former],
    ]) {
      const others = PLAN.presences.filter(({ address }) => address !== former.address);
      start({ ...PLAN, presences: [...others, ...both] });
      const [first, second] = targets.map(({ plan }) => plan);
      expect(presenceOf(first!, '10.0.0.131')?.of.address).toBe(former.address);
      // The part that has the host has both.
      expect(second!.presences).toEqual(expect.arrayContaining([former, newest]));
    }
  });

  test('is known by the other one as soon as that has ended', () => {
    partition.apply(textChanges([former, newest]));
    expect(targets[1].changes.at(-1)!.presences).toEqual([former, newest]);
    partition.apply(textChanges([{ ...former, of: undefined }]));
    const { presences } = targets[0].changes.at(-1)!;
    expect(presences).toEqual([
      { realm: 'site-a', address: '10.0.0.131', of: { realm: 'cloud', address: '10.0.1.1' } },
    ]);
  });

  test('has both in another site, too', () => {
    const inA = { realm: 'site-a', address: '10.0.0.131', of: B, formerUntil: 1000 };
    partition.apply(textChanges([inA, { realm: 'site-a', address: '10.0.1.1', of: B }]));
    const of = { realm: 'cloud', address: '10.0.0.145' };
    expect(targets[0].changes.at(-1)!.presences).toEqual([
      { ...inA, of },
      { realm: 'site-a', address: '10.0.1.1', of },
    ]);
  });
});

/** Changes of presences as the controller makes them. */
function textChanges(presences: NonNullable<PlanChangesInput['presences']>): PlanChanges {
  return compileChanges({ presences });
}
