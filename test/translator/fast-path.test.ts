import { expect, test } from 'vitest';
import type { PacketCapture } from '../../src/translator/index.ts';
import {
  type ChecksumFill,
  type Ends,
  echoPacket,
  icmpError,
  repairIpv4Checksum,
  tcpPacket,
  udpPacket,
} from '../support/packets.ts';
import { Random } from '../support/random.ts';
import type { VnetHeader } from '../support/vnet.ts';
import {
  MIXED_PATHS,
  type MixedPath,
  mixedPath,
  mixedPlan,
  mixedScene,
  type PlanOptions,
  UNBOUND,
  type Version,
} from './mixed.ts';
import type { Scene } from './scene.ts';

/** With a capture all packets take the slow path. */
const WANTS_NOTHING: PacketCapture = { wants: () => false, packet: () => undefined };

interface Sample {
  readonly realm: string;
  readonly packet: Uint8Array;
  readonly header: VnetHeader | undefined;
  readonly headroom: number;
}

/** Mostly packets for the fast path; sometimes one that differs in one point. */
function randomSample(random: Random): Sample {
  const isRequest = random.chance(0.5);
  const path = random.pick(MIXED_PATHS);
  const realm = isRequest ? 'site' : 'cloud';
  const headroom = random.pick([128, 128, 128, 20, 19, 10, 0]);
  if (random.chance(0.15)) {
    const packet = randomError(random, path, isRequest);
    mutate(random, packet, 72);
    const header = random.pick<VnetHeader | undefined>([undefined, {}, {}, { flags: 2 }]);
    return { realm, packet, header, headroom };
  }
  const { before } = isRequest ? path.request : path.reply;
  const version = before.source.includes(':') ? 6 : 4;
  const unknownHosts = version === 4 ? ['10.0.0.6', '192.0.2.9'] : ['fd00::6', '2001:db8::9'];
  const ends: Ends = {
    source: random.chance(0.97) ? before.source : random.pick(unknownHosts),
    destination: random.chance(0.97) ? before.destination : UNBOUND[version],
  };
  const isTcp = random.chance(0.5);
  const checksum = random.pick([
    'complete',
    'complete',
    'partial',
    'none',
    0x1234,
    0xffff,
  ] as const);
  const packet = randomPacket(random, ends, isTcp, isRequest, checksum);
  mutate(random, packet, version === 4 ? 44 : 64);
  return { realm, packet, header: randomHeader(random, version, isTcp, checksum), headroom };
}

function randomPacket(
  random: Random,
  ends: Ends,
  isTcp: boolean,
  isRequest: boolean,
  checksum: ChecksumFill
): Uint8Array {
  const service = isTcp ? random.pick([5672, 5672, 22]) : random.pick([53, 53, 54]);
  const client = 40_000 + random.below(8);
  const ports = isRequest
    ? { sourcePort: client, destinationPort: service }
    : { sourcePort: service, destinationPort: client };
  const lengths = [0, 1, 2, 3, 19, 100, 536, 1220, 1221, 1232, 1233, 1360, 1372, 1373, 1400, 9000];
  const options = { type: 60, bytes: Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0) };
  const manner = {
    ...ports,
    payload: random.bytes(random.pick(lengths)),
    checksum,
    trafficClass: random.below(256),
    hopLimit: random.below(256),
    fragment: random.pick([0, 0x4000, 0x4000, 0x4000, 0x8000, 0x2000, 0x0004]),
    ...(random.chance(0.05) ? { options: Uint8Array.of(1, 1, 1, 1), extensions: [options] } : {}),
  };
  if (!isTcp) return udpPacket(ends, manner);
  const flags = random.pick([0x10, 0x10, 0x10, 0x02, 0x12, 0x04, 0x11, 0]);
  const tcpOptions = new Uint8Array(random.pick([0, 0, 12, 40])).fill(1);
  return tcpPacket(ends, { ...manner, flags, tcpOptions });
}

/** An error about a packet of the other direction, of any length. */
function randomError(
  random: Random,
  { request, reply }: MixedPath,
  isRequest: boolean
): Uint8Array {
  const [ends, quotedEnds] = isRequest
    ? [request.before, reply.after]
    : [reply.before, request.after];
  const isIpv4 = ends.source.includes('.');
  const isTcp = random.chance(0.5);
  const quoted = random.chance(0.9)
    ? randomPacket(random, quotedEnds, isTcp, !isRequest, random.pick(['complete', 'none']))
    : echoPacket(quotedEnds, {});
  mutate(random, quoted, 44);
  const length = random.pick([28, 30, 36, 38, 40, 48, 56, 68, 576, quoted.length]);
  return icmpError(
    { ...ends, source: random.chance(0.5) ? ends.source : isIpv4 ? '192.0.2.1' : '2001:db8::1' },
    {
      type: isIpv4 ? random.pick([3, 3, 11, 12]) : random.pick([1, 2, 3, 4]),
      code: random.below(5),
      rest: random.pick([0, 0, 0, 1280, 8 << 24, 1 << 16]),
      quoted,
      quoteLength: Math.min(length, quoted.length),
      fragment: random.pick([0, 0x4000]),
      ...(random.chance(0.1) ? { icmpExtensions: random.bytes(8) } : {}),
      ...(random.chance(0.1) ? { checksum: 0x1234 } : {}),
    }
  );
}

function mutate(random: Random, packet: Uint8Array, limit: number): void {
  if (!random.chance(0.08)) return;
  packet[random.below(Math.min(packet.length, limit))] = random.below(256);
  if (random.chance(0.7)) repairIpv4Checksum(packet);
}

function randomHeader(
  random: Random,
  version: Version,
  isTcp: boolean,
  checksum: ChecksumFill
): VnetHeader | undefined {
  if (checksum !== 'partial') {
    return random.pick([undefined, {}, { flags: 2 }, { headerLength: 40 }]);
  }
  const checksumStart = version === 4 ? 20 : 40;
  const partial: VnetHeader = { flags: 1, checksumStart, checksumOffset: isTcp ? 16 : 6 };
  const gsoType = isTcp ? (version === 4 ? 1 : 4) : 5;
  return random.pick<VnetHeader>([
    partial,
    partial,
    { ...partial, headerLength: checksumStart + 20 },
    { ...partial, flags: 3 },
    { ...partial, gsoType, gsoSize: random.pick([0, 1, 100, 1340, 1341, 1360, 1361, 9000]) },
    { ...partial, gsoType, gsoSize: 1000, headerLength: checksumStart + 20 },
    { ...partial, gsoType: gsoType | 0x80, gsoSize: 1000 },
    { ...partial, gsoType: random.pick([1, 3, 4, 5]), gsoSize: 1000 },
    { ...partial, checksumStart: random.pick([0, 18, 20, 22, 40]) },
    { ...partial, checksumOffset: random.pick([2, 6, 16, 18]) },
  ]);
}

function outcomeOf(scene: Scene, sample: Sample): readonly unknown[] {
  const { realm, packet, header, headroom } = sample;
  const { verdict, egress, packet: after } = scene.send(realm, packet, header, headroom);
  const { segmentTo } = scene.translator;
  const isForward = verdict === 'Forward';
  return [
    verdict,
    isForward && egress,
    isForward && segmentTo,
    isForward && header !== undefined && [...scene.vnet].join(),
    Buffer.from(after).toString('hex'),
    isForward || verdict.startsWith('Needs') ? '' : Buffer.from(scene.reply ?? []).toString('hex'),
  ];
}

test.each<[name: string, seed: number, plan: PlanOptions]>([
  ['no MTU', 1, {}],
  ['an MTU', 2, { cloud: { mtu: 1400 }, site: { mtu: 1500 } }],
  ['replies', 3, { site: { reject: 'reset' }, cloud: { reject: 'unreachable', mtu: 1000 } }],
])(
  'both paths give plain packets the same verdict, bytes and counters: %s',
  (_name, seed, plan) => {
    const random = new Random(seed);
    const short = mixedScene(plan);
    const long = mixedScene(plan);
    long.translator.capture(WANTS_NOTHING);
    let now = 0;
    for (let i = 0; i < 15_000; i++) {
      now += random.pick([0, 0, 1, 10, 20_000]);
      const sample = randomSample(random);
      for (const { translator } of [short, long]) translator.advance(now);
      const [a, b] = [outcomeOf(short, sample), outcomeOf(long, sample)];
      if (a.join() !== b.join())
        expect({ i, sample, outcome: a }).toEqual({ i, sample, outcome: b });
      if (i % 1000 === 999) {
        for (const { translator } of [short, long]) translator.load(mixedPlan(plan));
      }
    }
    for (const realm of ['site', 'cloud'])
      expect(short.counters(realm)).toEqual(long.counters(realm));
    expect(short.paths()).toEqual(long.paths());
    // Each kind occurred often enough.
    expect(short.counters('site').Forward).toBeGreaterThan(1000);
    expect(short.counters('cloud').Forward).toBeGreaterThan(500);
    expect(short.counters('cloud').DropNoSession).toBeGreaterThan(10);
  }
);

test('does not read behind a short packet at the end of the buffer', () => {
  const scene = mixedScene();
  const { request } = mixedPath(4, 4);
  const packet = udpPacket(request.before, { sourcePort: 40_000, destinationPort: 53 });
  scene.forward('site', packet);
  const realm = scene.translator.realm('site');
  for (let length = 0; length <= packet.length; length++) {
    const buffer = packet.slice(0, length);
    if (length >= 20) {
      buffer[3] = length;
      repairIpv4Checksum(buffer);
    }
    const verdict = scene.translator.translate(realm, buffer, 0, length);
    expect([length, verdict]).toEqual([length, length === packet.length ? 0 : 3]);
  }
});

test('fast path and slow path use the paths and sessions that the other has opened', () => {
  const scene = mixedScene();
  const { request, reply } = mixedPath(4, 4);
  const ask = udpPacket(request.before, { sourcePort: 40_000, destinationPort: 53 });
  const answer = udpPacket(reply.before, { sourcePort: 53, destinationPort: 40_000 });
  scene.forward('site', ask);
  scene.translator.advance(200_000);
  // Each path refreshes the session that the other one checks.
  scene.forward('site', ask);
  scene.translator.advance(400_000);
  scene.translator.capture(WANTS_NOTHING);
  expect(scene.send('cloud', answer).verdict).toBe('Forward');
  scene.forward('site', ask);
  scene.translator.advance(600_000);
  scene.translator.capture(undefined);
  expect(scene.send('cloud', answer).verdict).toBe('Forward');
});
