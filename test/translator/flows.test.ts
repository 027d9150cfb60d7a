/**
 * Hosts with several addresses in a realm, because that is renumbered: answers leave under the address that the request
 * went to, everything else under the one that ends first.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { PlanChangesInput } from '../../src/translator/index.ts';
import {
  ACK,
  type Ends,
  echoPacket,
  fragment,
  icmpError,
  SYN,
  sctpPacket,
  tcpPacket,
  udp,
  udpPacket,
} from '../support/packets.ts';
import type { TextPlan } from '../support/text-of.ts';
import { ADDRESSES, FAMILIES, PLAN, Scene } from './scene.ts';

const SEED = Number(process.env.VP_SEED ?? 1);
const RUNS = Number(process.env.VP_RUNS ?? 40);

type Family = 4 | 6;

/** The addresses that the pools had before, and those of the new pools. */
const FORMER = { 4: ADDRESSES[4], 6: ADDRESSES[6] };
const NEW: Record<Family, { readonly cloud: string; readonly siteA: string }> = {
  4: { cloud: '100.65.0.1', siteA: '100.65.0.11' },
  6: { cloud: 'fd65::1', siteA: 'fd65::a' },
};
const HOST = (realm: string, family: Family) => ({ realm, address: ADDRESSES[family].host });

/** Gives the cloud's host in site A, or site A's host in the cloud, another address beside its present one. */
function renumbered(family: Family, realm: 'site-a' | 'cloud', formerUntil = 1000) {
  const [key, home] =
    realm === 'site-a' ? (['cloud', 'cloud'] as const) : (['siteA', 'site-a'] as const);
  const of = HOST(home, family);
  return {
    presences: [
      { realm, address: FORMER[family][key], of, formerUntil },
      { realm, address: NEW[family][key], of },
    ],
  } satisfies PlanChangesInput;
}

/** Ends the former address. */
function ended(family: Family, realm: 'site-a' | 'cloud'): PlanChangesInput {
  const address = FORMER[family][realm === 'site-a' ? 'cloud' : 'siteA'];
  return { presences: [{ realm, address, of: undefined }] };
}

const tcp =
  (sourcePort: number, destinationPort: number, flags = ACK) =>
  (ends: Ends): Uint8Array =>
    tcpPacket(ends, { sourcePort, destinationPort, flags });
const datagram =
  (sourcePort: number, destinationPort: number) =>
  (ends: Ends): Uint8Array =>
    udpPacket(ends, { sourcePort, destinationPort });

/** Expects what site A's host sends to an address to reach the cloud's host from an address. */
function expectRequest(
  scene: Scene,
  family: Family,
  to: string,
  build: (ends: Ends) => Uint8Array,
  from: string = FORMER[family].siteA
): void {
  const { host } = ADDRESSES[family];
  const sent = scene.forward('site-a', build({ source: host, destination: to }));
  expect(sent).toEqual(build({ source: from, destination: host }));
}

/** Expects what the cloud's host sends to site A's host to come from an address. */
function expectAnswer(
  scene: Scene,
  family: Family,
  from: string,
  build: (ends: Ends) => Uint8Array,
  to: string = FORMER[family].siteA
): void {
  const { host } = ADDRESSES[family];
  const sent = scene.forward('cloud', build({ source: host, destination: to }));
  expect(sent).toEqual(build({ source: from, destination: host }));
}

describe.each(FAMILIES)('a service with a former and a new address over IPv%s', (family) => {
  const former = FORMER[family].cloud;
  const current = NEW[family].cloud;

  test('answers each connection from the address that it went to', () => {
    const scene = new Scene();
    expectRequest(scene, family, former, tcp(40_001, 5672, SYN));
    expectAnswer(scene, family, former, tcp(5672, 40_001));
    scene.translator.apply(renumbered(family, 'site-a'));
    // A connection from before goes on, whichever side sends first.
    expectAnswer(scene, family, former, tcp(5672, 40_001));
    expectRequest(scene, family, former, tcp(40_001, 5672));
    // A new one to the new address, and another one to the former one.
    expectRequest(scene, family, current, tcp(40_002, 5672, SYN));
    expectAnswer(scene, family, current, tcp(5672, 40_002, SYN | ACK));
    expectRequest(scene, family, former, tcp(40_003, 5672, SYN));
    expectAnswer(scene, family, former, tcp(5672, 40_003, SYN | ACK));
    for (const [address, port] of [
      [former, 40_001],
      [current, 40_002],
      [former, 40_003],
    ] as const) {
      expectRequest(scene, family, address, tcp(port, 5672));
      expectAnswer(scene, family, address, tcp(5672, port));
    }
  });

  test('does so for datagrams and echoes, also if nothing was sent to the former address', () => {
    const scene = new Scene();
    scene.translator.apply(renumbered(family, 'site-a'));
    expectRequest(scene, family, current, datagram(40_001, 53));
    expectRequest(scene, family, former, datagram(40_002, 53));
    expectAnswer(scene, family, current, datagram(53, 40_001));
    expectAnswer(scene, family, former, datagram(53, 40_002));
    for (const [id, address] of [
      [7, current],
      [8, former],
    ] as const) {
      const echo = (ends: Ends) => echoPacket(ends, { id });
      expectRequest(scene, family, address, echo);
    }
    for (const [id, address] of [
      [7, current],
      [8, former],
    ] as const) {
      expectAnswer(scene, family, address, (ends) => echoPacket(ends, { id, reply: true }));
    }
    expect(
      scene.send(
        'cloud',
        datagram(53, 40_009)({ source: ADDRESSES[family].host, destination: FORMER[family].siteA })
      ).verdict
    ).toBe('DropNoSession');
  });

  test('answers in fragments from one address', () => {
    const scene = new Scene();
    scene.translator.apply(renumbered(family, 'site-a'));
    expectRequest(scene, family, former, datagram(40_001, 53));
    expectRequest(scene, family, current, datagram(40_002, 53));
    const payload = new Uint8Array(64).fill(7);
    const answer = (port: number) => udp({ sourcePort: 53, destinationPort: port, payload });
    const part = (ends: Ends, from: number, to: number) =>
      fragment(ends, answer(40_002), [from, to], { identification: 99 });
    // The checksum is that of the packet as it leaves, so the addresses alone are compared.
    const ends = { source: ADDRESSES[family].host, destination: FORMER[family].siteA };
    const sourceOf = (bytes: Uint8Array) =>
      family === 4 ? bytes.slice(12, 16) : bytes.slice(8, 24);
    const expected = sourceOf(datagram(1, 1)({ ...ends, source: current }));
    expect(sourceOf(scene.forward('cloud', part(ends, 0, 32)))).toEqual(expected);
    expect(sourceOf(scene.forward('cloud', part(ends, 32, 72)))).toEqual(expected);
  });

  test('sends ICMP errors about a packet from the address that it went to', () => {
    const scene = new Scene();
    scene.translator.apply(renumbered(family, 'site-a'));
    expectRequest(scene, family, current, tcp(40_001, 5672, SYN));
    expectRequest(scene, family, former, tcp(40_002, 5672, SYN));
    const { host } = ADDRESSES[family];
    for (const [port, address] of [
      [40_001, current],
      [40_002, former],
    ] as const) {
      const build = (error: Ends, quoted: Ends) =>
        icmpError(error, {
          type: family === 4 ? 3 : 1,
          code: family === 4 ? 1 : 0,
          quoted: tcp(port, 5672)(quoted),
        });
      const q = FORMER[family].siteA;
      const sent = scene.forward(
        'cloud',
        build({ source: host, destination: q }, { source: q, destination: host })
      );
      expect(sent).toEqual(
        build({ source: address, destination: host }, { source: host, destination: address })
      );
    }
  });

  test('forwards the former address to nothing when it has ended, and keeps the rest', () => {
    const scene = new Scene();
    expectRequest(scene, family, former, tcp(40_001, 5672, SYN));
    expectAnswer(scene, family, former, tcp(5672, 40_001, SYN | ACK));
    scene.translator.apply(renumbered(family, 'site-a'));
    expectRequest(scene, family, current, tcp(40_002, 5672, SYN));
    expectAnswer(scene, family, current, tcp(5672, 40_002, SYN | ACK));
    scene.translator.apply(ended(family, 'site-a'));
    const { host } = ADDRESSES[family];
    expect(
      scene.send('site-a', tcp(40_001, 5672)({ source: host, destination: former })).verdict
    ).toBe('DropNoPresence');
    expectAnswer(scene, family, current, tcp(5672, 40_002));
    expectRequest(scene, family, current, tcp(40_002, 5672));
    expect(scene.translator.forgottenFlows).toBe(0);
  });

  test('gives the answers to the connection that began last, if two have one port', () => {
    const scene = new Scene();
    scene.translator.apply(renumbered(family, 'site-a'));
    expectRequest(scene, family, former, tcp(40_001, 5672, SYN));
    expectRequest(scene, family, current, tcp(40_001, 5672, SYN));
    expectRequest(scene, family, former, tcp(40_001, 5672));
    expectAnswer(scene, family, current, tcp(5672, 40_001));
  });
});

describe.each(FAMILIES)('a client with a former and a new address over IPv%s', (family) => {
  const former = FORMER[family].siteA;
  const current = NEW[family].siteA;

  test('sends under the former one, and gets what is sent to either', () => {
    const scene = new Scene();
    expectRequest(scene, family, FORMER[family].cloud, tcp(40_001, 5672, SYN));
    scene.translator.apply(renumbered(family, 'cloud'));
    expectRequest(scene, family, FORMER[family].cloud, tcp(40_001, 5672));
    expectRequest(scene, family, FORMER[family].cloud, tcp(40_002, 5672, SYN));
    expectAnswer(scene, family, FORMER[family].cloud, tcp(5672, 40_001), former);
    // The cloud's host is a client of site A's too, and may use either address.
    for (const [port, address] of [
      [50_001, former],
      [50_002, current],
    ] as const) {
      const { cloud } = FORMER[family];
      expectAnswer(scene, family, cloud, tcp(port, 16_509, SYN), address);
      expectRequest(scene, family, cloud, tcp(16_509, port, SYN | ACK), address);
    }
    scene.translator.apply(ended(family, 'cloud'));
    expectRequest(scene, family, FORMER[family].cloud, tcp(40_003, 5672, SYN), current);
  });
});

test('of several former addresses the one that ends first is used for what is no answer', () => {
  const of = HOST('site-a', 4);
  const scene = new Scene();
  const place = (address: string, formerUntil?: number) => ({
    realm: 'cloud',
    address,
    of,
    ...(formerUntil === undefined ? {} : { formerUntil }),
  });
  scene.translator.apply({
    presences: [place('100.64.0.11', 1000), place('100.65.0.11', 2000), place('100.66.0.11')],
  });
  const { cloud } = FORMER[4];
  expectRequest(scene, 4, cloud, tcp(40_001, 5672, SYN), '100.64.0.11');
  scene.translator.apply({ presences: [{ realm: 'cloud', address: '100.64.0.11' }] });
  expectRequest(scene, 4, cloud, tcp(40_002, 5672, SYN), '100.65.0.11');
  // It is the host's newest address again.
  scene.translator.apply({ presences: [place('100.66.0.11', 3000), place('100.65.0.11')] });
  expectRequest(scene, 4, cloud, tcp(40_003, 5672, SYN), '100.66.0.11');
});

test('a host cannot have two addresses of which none is a former one', () => {
  const scene = new Scene();
  const of = HOST('cloud', 4);
  expect(() =>
    scene.translator.apply({ presences: [{ realm: 'site-a', address: '100.65.0.1', of }] })
  ).toThrow('already has 100.64.0.1');
  scene.translator.apply(renumbered(4, 'site-a'));
  const again = [{ realm: 'site-a', address: '100.64.0.1', of }];
  expect(() => scene.translator.apply({ presences: again })).toThrow('already has 100.65.0.1');
  const wrong = [{ ...again[0]!, formerUntil: Number.NaN }];
  expect(() => scene.translator.apply({ presences: wrong })).toThrow('formerUntil');
});

test('flows beyond the room of their realm are forgotten, the oldest first, and counted', () => {
  const scene = new Scene({ maxSessions: 16 });
  scene.translator.apply(renumbered(4, 'site-a'));
  for (let port = 1; port <= 200; port++) {
    scene.translator.advance(port);
    expectRequest(scene, 4, NEW[4].cloud, tcp(40_000 + port, 5672, SYN));
  }
  expect(scene.translator.forgottenFlows).toBe(200 - 32);
  expectAnswer(scene, 4, NEW[4].cloud, tcp(5672, 40_200));
  scene.translator.apply(ended(4, 'site-a'));
  expect(scene.translator.forgottenFlows).toBe(0);
});

/** One step of a random history. */
const step = fc.oneof(
  { weight: 1, arbitrary: fc.constantFrom('begin', 'end', 'load') },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constantFrom('tcp', 'udp', 'sctp', 'echo'),
      flow: fc.nat({ max: 12 }),
      isAnswer: fc.boolean(),
      isToFormer: fc.boolean(),
    }),
  }
);

test(`each answer comes from where its request went (VP_SEED=${SEED}, ${RUNS} sequences)`, () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...FAMILIES),
      fc.array(step, { maxLength: 80 }),
      (family, steps) => {
        const permits = PLAN.permits.map((permit) => ({
          ...permit,
          ports: [...permit.ports, 'sctp/5672'],
        }));
        const plan: TextPlan = { ...PLAN, permits };
        const scene = new Scene({ plan });
        const former = FORMER[family].cloud;
        const current = NEW[family].cloud;
        /** The addresses of the service now: the former one only while both stand for it. */
        let stands = [former];
        /** Keyed by protocol and flow: where its requests have gone. */
        const asked = new Map<string, string>();
        const presences = () => [
          ...PLAN.presences.filter(
            ({ realm, address }) => !(realm === 'site-a' && address === former)
          ),
          ...(stands[0] === former && stands.length === 1
            ? [{ realm: 'site-a', address: former, of: HOST('cloud', family) }]
            : []),
          ...(stands.length === 2 ? renumbered(family, 'site-a').presences : []),
          ...(stands[0] === current
            ? [{ realm: 'site-a', address: current, of: HOST('cloud', family) }]
            : []),
        ];
        for (const each of steps) {
          if (each === 'begin') {
            if (stands.length > 1 || stands[0] === current) continue;
            stands = [former, current];
            scene.translator.apply(renumbered(family, 'site-a'));
          } else if (each === 'end') {
            if (stands.length < 2) continue;
            stands = [current];
            scene.translator.apply(ended(family, 'site-a'));
            for (const [key, address] of asked) if (address === former) asked.delete(key);
          } else if (each === 'load') {
            scene.translator.load({ ...plan, presences: presences() });
          } else if (typeof each === 'object') {
            const { kind, flow } = each;
            const key = `${kind} ${flow}`;
            const port = 40_000 + flow;
            const build = (isAnswer: boolean) => (ends: Ends) => {
              const [sourcePort, destinationPort] = isAnswer ? [5672, port] : [port, 5672];
              if (kind === 'tcp') return tcpPacket(ends, { sourcePort, destinationPort });
              if (kind === 'sctp') return sctpPacket(ends, { sourcePort, destinationPort });
              if (kind === 'echo') return echoPacket(ends, { id: flow, reply: isAnswer });
              return isAnswer ? datagram(53, port)(ends) : datagram(port, 53)(ends);
            };
            const known = asked.get(key);
            if (each.isAnswer && known !== undefined) {
              expectAnswer(scene, family, known, build(true));
            } else if (!each.isAnswer) {
              const wanted = each.isToFormer ? stands[0]! : stands.at(-1)!;
              // A connection stays where it began; a new datagram or echo may go elsewhere.
              const isConnection = kind === 'tcp' || kind === 'sctp';
              const to = isConnection ? (known ?? wanted) : wanted;
              asked.set(key, to);
              expectRequest(scene, family, to, build(false));
            }
          }
        }
      }
    ),
    { numRuns: RUNS, seed: SEED }
  );
});
