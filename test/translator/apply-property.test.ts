/**
 * Random changes of a plan: a translator that applies them is as one that loads the whole changed plan each time. The
 * same packets get the same verdicts, bytes and explanations; the same paths are left, with the same counters.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ConfigError } from '../../src/errors.ts';
import { VERDICT_NAMES } from '../../src/translator/index.ts';
import { Tally } from '../oracle/tally.ts';
import {
  type Ends,
  echoPacket,
  fragment,
  SYN,
  tcpPacket,
  udp,
  udpPacket,
} from '../support/packets.ts';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import type { TextPermit, TextPlan, TextPresence, TextRealm } from '../support/text-of.ts';
import { Scene } from './scene.ts';

const RUNS = runsOf(100);

const REALMS = ['cloud', 'site-a', 'site-b', 'site-c'];
const HOSTS = ['10.0.0.1', '10.0.0.2', '10.0.0.130', 'fd00::1', 'fd00::2'];
/** The hosts that are services at the beginning. */
const SERVICES = ['10.0.0.1', 'fd00::1'];
const ADDRESSES = [
  ...Array.from({ length: 24 }, (_, i) => `100.64.0.${i + 1}`),
  ...Array.from({ length: 24 }, (_, i) => `fd64::${(i + 1).toString(16)}`),
  // These are addresses of hosts too.
  ...['10.0.0.2', '10.0.0.130'],
];
const PORTS = [
  ['tcp/80'],
  ['udp/53'],
  ['tcp/80', 'udp/53', 'icmp'],
  ['icmp', 'udp/1-100'],
  ['tcp/81'],
];
const CLIENTS = [
  undefined,
  undefined,
  ['10.0.0.1/32', 'fd00::/127'],
  ['10.0.0.0/25'],
  ['10.0.0.128/25'],
];
const SOURCES = [
  ['10.0.0.0/24', 'fd00::/64'],
  ['10.0.0.0/25', 'fd00::/64'],
  ['0.0.0.0/0', '::/0'],
];
const POOLS = [undefined, ['100.64.0.0/24', 'fd64::/64'], ['10.0.0.128/28', '100.64.0.0/24']];

const realmIndex = fc.nat({ max: REALMS.length - 1 });
const any = fc.nat({ max: 1000 });
const traits = fc.record({
  sources: fc.constantFrom(...SOURCES),
  pools: fc.constantFrom(...POOLS),
  poolsMaySend: fc.boolean(),
  mtu: fc.constantFrom(undefined, undefined, 576, 1400),
  reject: fc.constantFrom(undefined, 'reset' as const),
});
type Traits = typeof traits extends fc.Arbitrary<infer T> ? T : never;
const permit = fc.record({
  ports: fc.constantFrom(...PORTS),
  clients: fc.constantFrom(...CLIENTS),
});
const pair = {
  from: realmIndex,
  to: realmIndex,
  host: any,
  permits: fc.array(permit, { maxLength: 3 }),
};

/** One thing that changes; the plan of the moment says what its numbers mean. */
const change = fc.oneof(
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('realm' as const), realm: realmIndex, traits }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('gone' as const), realm: realmIndex }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('drop' as const), at: any }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('swap' as const), at: any, with: any }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('move' as const), at: any, to: any }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('repeat' as const), at: any }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('give' as const),
      realm: realmIndex,
      to: any,
      home: realmIndex,
      host: any,
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('permits' as const), ...pair }) }
);
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

const probe = fc.record({
  at: any,
  isReply: fc.boolean(),
  host: any,
  kind: fc.constantFrom('tcp', 'tcp', 'syn', 'udp', 'udp', 'echo', 'first', 'later'),
  port: fc.constantFrom(80, 53),
  isLarge: fc.boolean(),
  afterMs: fc.constantFrom(0, 0, 1, 70_000),
});
type Probe = typeof probe extends fc.Arbitrary<infer T> ? T : never;

const steps = fc.array(
  fc.oneof(
    {
      weight: 2,
      arbitrary: fc.record({ changes: fc.array(change, { minLength: 1, maxLength: 4 }) }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ probes: fc.array(probe, { minLength: 8, maxLength: 24 }) }),
    }
  ),
  { minLength: 6, maxLength: 20 }
);

/** `PlanChanges` as text. */
interface TextChanges {
  readonly realms: { name: string; realm: TextRealm | undefined }[];
  readonly presences: { realm: string; address: string; of: TextPresence['of'] | undefined }[];
  readonly permits: { realm: string; service: TextPresence['of']; permits: TextPermit[] }[];
}

const EFFECTS = ['changed', 'refused', 'gone', 'paths after a change'];
const seen = new Tally([...VERDICT_NAMES, ...EFFECTS]);

test(`applied changes are as the changed plan (VP_SEED=${RUNS.seed}, ${RUNS.numRuns} sequences)`, {
  timeout: timeoutOf(RUNS),
}, () => {
  fc.assert(
    fc.property(steps, (sequence) => {
      const translators = new Pair();
      for (const step of sequence) {
        if ('changes' in step) translators.change(step.changes);
        else for (const each of step.probes) translators.probe(each);
      }
      translators.compare();
    }),
    RUNS
  );
  if (RUNS.numRuns < 100) return;
  // The others need full tables, too little headroom, damaged packets or rare protocols.
  const wanted = ['Forward', 'NeedsPresence', 'DropNoPresence', 'DropSpoofed', 'DropNotPermitted'];
  wanted.push('DropNoSession', 'DropTooBig', 'DropFragmentOrphan', ...EFFECTS);
  expect(seen.below(10).filter((name) => wanted.includes(name))).toEqual([]);
});

/** A translator that applies changes, and one that loads the changed plan. */
class Pair {
  #plan = richPlan();
  readonly #applying = new Scene({ plan: this.#plan });
  readonly #loading = new Scene({ plan: this.#plan });
  #nowMs = 1000;

  change(wanted: readonly Change[]): void {
    this.compare();
    const changes = changesOf(this.#plan, wanted);
    const before = this.#state(this.#applying);
    const after = changed(this.#plan, changes);
    if (after === undefined) {
      seen.add('refused');
      expect(() => this.#applying.translator.apply(changes)).toThrow(ConfigError);
      expectSame(this.#state(this.#applying), before);
      return;
    }
    seen.add('changed');
    const gone = this.#applying.translator.apply(changes);
    expect(gone).toBe(this.#loading.translator.load(after));
    this.#plan = after;
    if (gone > 0) seen.add('gone');
    if (this.#applying.paths().length > 0) seen.add('paths after a change');
    this.compare();
    // To apply the same again changes nothing.
    expect(this.#applying.translator.apply(changes)).toBe(0);
    this.compare();
  }

  probe(each: Probe): void {
    this.#nowMs += each.afterMs;
    for (const { translator } of [this.#applying, this.#loading]) translator.advance(this.#nowMs);
    const { realm, ends } = endsOf(this.#plan.presences, each);
    const packet = packetOf(each, ends);
    const [a, b] = [this.#applying, this.#loading].map((scene) => ({
      explanation: scene.translator.explain(packet, realm),
      sent: scene.send(realm, packet),
      reply: scene.reply,
    }));
    expectSame(a, b);
    seen.add(a!.sent.verdict);
  }

  compare(): void {
    expectSame(this.#state(this.#applying), this.#state(this.#loading));
  }

  #state(scene: Scene): unknown {
    const { translator } = scene;
    const texts = scene.paths().map((path) => Object.values(path).join(' '));
    return {
      paths: texts.sort(),
      counts: REALMS.map((realm) => translator.pathsOf(realm)),
      counters: REALMS.map((realm) => scene.counters(realm)),
    };
  }
}

/** Compares texts first, because that is much faster. */
function expectSame(actual: unknown, expected: unknown): void {
  if (JSON.stringify(actual) !== JSON.stringify(expected)) expect(actual).toEqual(expected);
}

/** All realms with services that all others use, and presences of the clients. */
function richPlan(): TextPlan {
  const presences: TextPresence[] = [];
  const permits: TextPermit[] = [];
  for (const [h, home] of REALMS.entries()) {
    for (const realm of REALMS) {
      if (realm === home) continue;
      for (const [i, address] of HOSTS.entries()) {
        const of = { realm: home, address };
        // One host of each realm has no presences yet.
        if (i === 1) continue;
        presences.push({ realm, address: ADDRESSES[5 * h + i]!, of });
        presences.push({ realm, address: ADDRESSES[24 + 5 * h + i]!, of });
      }
      for (const address of SERVICES) {
        permits.push({ realm, service: { realm: home, address }, ports: PORTS[2]! });
      }
    }
  }
  const realms = REALMS.map((name) => ({ name, sources: SOURCES[0]!, pools: POOLS[1]!, mtu: 700 }));
  return { realms, presences, permits };
}

/** Says what changes mean in a plan. */
function changesOf(plan: TextPlan, wanted: readonly Change[]): TextChanges {
  const realms: TextChanges['realms'] = [];
  const presences: TextChanges['presences'] = [];
  const permits: TextChanges['permits'] = [];
  const at = (n: number): TextPresence | undefined => plan.presences[n % plan.presences.length];
  for (const each of wanted) {
    switch (each.kind) {
      case 'realm':
        realms.push({
          name: REALMS[each.realm]!,
          realm: realmOf(REALMS[each.realm]!, each.traits),
        });
        break;
      case 'gone':
        realms.push({ name: REALMS[each.realm]!, realm: undefined });
        break;
      case 'permits': {
        const [realm, home] = [REALMS[each.from]!, REALMS[each.to]!];
        if (realm === home) break;
        const service = { realm: home, address: HOSTS[each.host % HOSTS.length]! };
        const list = each.permits.map(({ ports, clients }) => ({
          realm,
          service,
          ports,
          ...(clients && { clients }),
        }));
        permits.push({ realm, service, permits: list });
        break;
      }
      case 'give': {
        const [realm, home] = [REALMS[each.realm]!, REALMS[each.home]!];
        if (realm === home) break;
        const of = { realm: home, address: HOSTS[each.host % HOSTS.length]! };
        presences.push({ realm, address: ADDRESSES[each.to % ADDRESSES.length]!, of });
        break;
      }
      default: {
        const presence = at(each.at);
        if (presence === undefined) break;
        const { realm, address, of } = presence;
        if (each.kind === 'repeat') presences.push(presence);
        if (each.kind === 'drop') presences.push({ realm, address, of: undefined });
        if (each.kind === 'move') {
          const to = ADDRESSES[each.to % ADDRESSES.length]!;
          presences.push({ realm, address, of: undefined }, { realm, address: to, of });
        }
        if (each.kind === 'swap') {
          const other = at(each.with)!;
          if (other.realm !== realm) break;
          presences.push({ realm, address, of: other.of }, { ...other, of });
        }
      }
    }
  }
  return { realms, presences, permits };
}

/** Returns the changed plan; undefined if the changes are invalid. It knows nothing but `load`. */
function changed(
  plan: TextPlan,
  { realms, presences, permits }: TextChanges
): TextPlan | undefined {
  const byName = new Map(plan.realms.map((realm) => [realm.name, realm]));
  for (const { name, realm } of realms) {
    // A realm that goes may be named, even if it is not there.
    const before = byName.get(name) ?? { name, sources: [] };
    byName.set(name, realm ?? before);
  }
  const byPlace = new Map(plan.presences.map((presence) => [placeOf(presence), presence]));
  for (const { realm, address, of } of presences) {
    if (of === undefined) byPlace.delete(placeOf({ realm, address }));
    else if (!byName.has(realm) || !byName.has(of.realm)) return undefined;
    else byPlace.set(placeOf({ realm, address }), { realm, address, of });
  }
  const byPair = new Map<string, TextPermit[]>();
  for (const each of plan.permits)
    byPair.set(keyOf(each), [...(byPair.get(keyOf(each)) ?? []), each]);
  for (const { realm, service, permits: list } of permits) {
    if (list.length > 0 && !(byName.has(realm) && byName.has(service.realm))) return undefined;
    byPair.set(keyOf({ realm, service }), list);
  }
  const all = {
    realms: [...byName.values()],
    presences: [...byPlace.values()],
    permits: [...byPair.values()].flat(),
  };
  try {
    new Scene({ plan: all });
  } catch {
    return undefined;
  }
  const last = new Map(realms.map(({ name, realm }) => [name, realm]));
  const isGone = (name: string): boolean => last.has(name) && last.get(name) === undefined;
  return {
    realms: all.realms.filter(({ name }) => !isGone(name)),
    presences: all.presences.filter(({ realm, of }) => !isGone(realm) && !isGone(of.realm)),
    permits: all.permits.filter(({ realm, service }) => !isGone(realm) && !isGone(service.realm)),
  };
}

function realmOf(name: string, traits: Traits): TextRealm {
  const { sources, pools, poolsMaySend, mtu, reject } = traits;
  return {
    name,
    sources,
    ...(pools && { pools }),
    ...(poolsMaySend && { poolsMaySend }),
    ...(mtu && { mtu }),
    ...(reject && { reject }),
  };
}

function placeOf({ realm, address }: { readonly realm: string; readonly address: string }): string {
  return `${realm} ${address}`;
}

function keyOf({ realm, service }: Pick<TextPermit, 'realm' | 'service'>): string {
  return `${realm} ${service.realm} ${service.address}`;
}

/** A request to a service, a reply from one, or now and then a packet to any address of a realm. */
function endsOf(
  presences: readonly TextPresence[],
  { at, isReply, host }: Probe
): { readonly realm: string; readonly ends: Ends } {
  const anywhere = {
    realm: REALMS[host % REALMS.length]!,
    address: ADDRESSES[at % ADDRESSES.length]!,
  };
  const likely = presences.filter(({ of }) => SERVICES.includes(of.address) !== isReply);
  const { realm, address } = (at % 8 === 0 ? undefined : likely[at % likely.length]) ?? anywhere;
  const isIpv6 = address.includes(':');
  const sources = (isReply ? SERVICES : HOSTS).filter((each) => each.includes(':') === isIpv6);
  return { realm, ends: { source: sources[host % sources.length]!, destination: address } };
}

function packetOf({ kind, port, isReply, isLarge }: Probe, ends: Ends): Uint8Array {
  const [client, service] = [40_000, port];
  const ports = isReply
    ? { sourcePort: service, destinationPort: client }
    : { sourcePort: client, destinationPort: service };
  const payload = new Uint8Array(isLarge ? 700 : 40);
  switch (kind) {
    case 'tcp':
      return tcpPacket(ends, { ...ports, payload });
    case 'syn':
      return tcpPacket(ends, { ...ports, flags: SYN });
    case 'udp':
      return udpPacket(ends, { ...ports, payload });
    case 'echo':
      return echoPacket(ends, { reply: isReply, payload });
    default: {
      const datagram = udp({ ...ports, payload: new Uint8Array(992) });
      return fragment(ends, datagram, kind === 'first' ? [0, 600] : [600, 1000]);
    }
  }
}
