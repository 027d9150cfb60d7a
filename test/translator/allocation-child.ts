/**
 * Measures, in its own process, how much heap very many packets of each kind take:
 *
 *     node --expose-gc --import tsx test/translator/allocation-child.ts 65536
 *
 * Prints one JSON object, `Cost` by kind of packet.
 * @module
 */
import { PerformanceObserver, performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type PacketTranslator,
  SiteFilter,
  TRANSLATION_HEADROOM,
  VERDICT_NAMES,
  type VerdictName,
} from '../../src/translator/index.ts';
import {
  type Ends,
  echoPacket,
  icmpError,
  ipPacket,
  SYN,
  sctpPacket,
  tcpPacket,
  udpPacket,
} from '../support/packets.ts';
import { framed, VNET } from '../support/vnet.ts';
import { MIXED_PATHS, type MixedPath, mixedScene } from './mixed.ts';
import { ADDRESSES, FAMILIES, pathOf, Scene } from './scene.ts';

/** `bytes` is everything that was allocated, unless garbage was collected in between. */
export interface Cost {
  readonly bytes: number;
  readonly collections: number;
}

/** Times in ms. */
interface Sample {
  readonly name: string;
  readonly from: number;
  readonly to: number;
  readonly bytes: number;
}

interface Load {
  readonly name: string;
  readonly verdict: VerdictName;
  readonly ingress: string;
  /** The packets, each with a virtio-net header in front. */
  readonly frames: readonly Uint8Array[];
  readonly translator: PacketTranslator;
  /** Whether every packet gets an answer. */
  readonly isAnswered?: boolean;
}

/** One small object for each would be visible. */
const PACKETS = 60_000;
/** The limit in bytes, an argument from the test. */
const MOST_BYTES = Number(process.argv[2]);
/** Rounds with a part of the packets before the one that counts, so that all code is compiled. */
const WARM_UP_ROUNDS = 3;
const WARM_UP_PART = 0.3;
/** More rounds for a load that took too much, because a recompilation allocates too. */
const MOST_ROUNDS = 4;

/** The offset of a frame in the buffer. */
const START = TRANSLATION_HEADROOM;
/** Packets between two calls of `advance`, which take 1 ms together: no session ends. */
const BATCH = 16_384;
let nowMs = 1000;

function measure(): Sample[] {
  const filter = new SiteFilter();
  filter.setAddresses({
    sources: ['10.0.0.0/24', 'fd00::/64'],
    pools: ['100.64.0.0/24', 'fd64::/64'],
  });
  const { translator } = new Scene();
  const loads = [
    ...FAMILIES.flatMap(loadsOf).map((load) => ({ ...load, translator })),
    ...MIXED_PATHS.flatMap(mixedLoadsOf),
  ];
  const buffer = new Uint8Array(START + 4096);

  /** Sends packets of one load, and returns how many did not get its verdict. */
  const send = (load: Load, packets: number): number => {
    const { translator, frames, isAnswered = false } = load;
    const realm = translator.realm(load.ingress);
    const expected = VERDICT_NAMES.indexOf(load.verdict);
    let others = 0;
    for (let sent = 0; sent < packets; sent++) {
      const frame = frames[sent % frames.length]!;
      const start = START + VNET;
      const end = START + frame.length;
      buffer.set(frame, START);
      if (sent % BATCH === 0) translator.advance(nowMs++);
      filter.checkOutbound(buffer, start, end);
      const number = translator.translate(realm, buffer, start, end, START, TRANSLATION_HEADROOM);
      if (number !== expected || (isAnswered && translator.replyLength === 0)) others++;
      if (number === 0) filter.checkInbound(buffer, translator.start, translator.end);
      else filter.checkInbound(buffer, start, end);
    }
    return others;
  };

  const measureOnce = (load: Load): Sample => {
    globalThis.gc!();
    const from = performance.now();
    const before = process.memoryUsage().heapUsed;
    const others = send(load, PACKETS);
    const bytes = process.memoryUsage().heapUsed - before;
    if (others > 0) throw new Error(`${load.name}: ${others} packets got another verdict`);
    return { name: load.name, from, to: performance.now(), bytes };
  };

  for (let round = 0; round < WARM_UP_ROUNDS; round++) {
    for (const load of loads) send(load, WARM_UP_PART * PACKETS);
  }
  const samples: Sample[] = [];
  for (const load of loads) {
    let sample = measureOnce(load);
    for (let i = 1; i < MOST_ROUNDS && sample.bytes > MOST_BYTES; i++) sample = measureOnce(load);
    samples.push(sample);
  }
  return samples;
}

function costOf({ from, to, bytes }: Sample, collections: readonly number[]): Cost {
  return { bytes, collections: collections.filter((at) => at >= from && at <= to).length };
}

function loadsOf(family: 4 | 6): Omit<Load, 'translator'>[] {
  const { cloud, unbound, foreign, router, host } = ADDRESSES[family];
  const toCloud = pathOf(family, 'site-a', 'cloud');
  const unknownHosts = Array.from({ length: 64 }, (_, i) =>
    family === 4 ? `10.0.0.${i + 100}` : `fd00::${(i + 100).toString(16)}`
  );
  const from = (sources: readonly string[], destination: string, port: number): Uint8Array[] =>
    sources.map((source) =>
      framed(tcpPacket({ source, destination }, { sourcePort: 49_500, destinationPort: port }))
    );
  const partial = (ends: Ends): Uint8Array =>
    framed(tcpPacket(ends, { sourcePort: 49_500, destinationPort: 5672, checksum: 'partial' }), {
      flags: 1,
      gsoType: family === 4 ? 1 : 4,
      gsoSize: 1448,
      checksumStart: family === 4 ? 20 : 40,
      checksumOffset: 16,
    });
  const query = (ends: Ends): Uint8Array =>
    udpPacket(ends, { sourcePort: 40_000, destinationPort: 53 });
  const error = (destination: string): Uint8Array =>
    framed(
      icmpError(
        { source: router, destination },
        {
          type: family === 4 ? 3 : 1,
          quoted: query({ source: destination, destination: host }),
        }
      )
    );
  const loads: Omit<Load, 'ingress' | 'translator'>[] = [
    { name: 'TCP', verdict: 'Forward', frames: from([host], cloud, 5672) },
    { name: 'TCP super-packet', verdict: 'Forward', frames: [partial(toCloud.before)] },
    { name: 'UDP', verdict: 'Forward', frames: [framed(query(toCloud.before))] },
    { name: 'truncated', verdict: 'DropMalformed', frames: [framed(new Uint8Array(30))] },
    {
      name: 'to an unused address',
      verdict: 'DropNoPresence',
      frames: from(unknownHosts, unbound, 5672),
    },
    { name: 'spoofed', verdict: 'DropSpoofed', frames: from([foreign], cloud, 5672) },
    { name: 'refused on a path', verdict: 'DropNotPermitted', frames: from([host], cloud, 22) },
    { name: 'refused hosts', verdict: 'DropNotPermitted', frames: from(unknownHosts, cloud, 22) },
    { name: 'new clients', verdict: 'NeedsPresence', frames: from(unknownHosts, cloud, 5672) },
  ];
  return [
    ...loads.map((load) => ({ ...load, ingress: 'site-a' })),
    {
      name: 'ICMP error',
      verdict: 'Forward' as const,
      ingress: 'cloud',
      frames: [error(ADDRESSES[family].siteA)],
    },
    {
      name: 'ICMP error to an unused address',
      verdict: 'DropNoPresence' as const,
      ingress: 'cloud',
      frames: [error(unbound)],
    },
  ].map((load) => ({ ...load, name: `${load.name} over IPv${family}` }));
}

/** Packets for a plan with limits, replies and both IP versions. */
function mixedLoadsOf({ from, to, name, request, reply }: MixedPath): Load[] {
  const { translator } = mixedScene({
    site: { reject: 'reset' },
    cloud: { mtu: 1400 },
    maxRepliesPerSecond: 2 ** 30,
  });
  const site = translator.realm('site');
  const udp = (ends: Ends, sourcePort: number, destinationPort: number, length = 100) =>
    udpPacket(ends, { sourcePort, destinationPort, payload: new Uint8Array(length) });
  const tcp = (ends: Ends, more: object = {}): Uint8Array =>
    tcpPacket(ends, { sourcePort: 40_000, destinationPort: 5672, ...more });
  const sctp = (ends: Ends): Uint8Array =>
    sctpPacket(ends, {
      sourcePort: 40_000,
      destinationPort: 3868,
      payload: Uint8Array.of(1, 0, 0, 4),
    });
  // The sessions that replies need.
  for (const packet of [udp(request.before, 40_000, 53), echoPacket(request.before, {})]) {
    const frame = new Uint8Array(START + packet.length);
    frame.set(packet, START);
    translator.advance(nowMs);
    translator.translate(site, frame, START, frame.length, -1, START);
  }
  const errorKind = to === 4 ? { type: 3, code: 3 } : { type: 1, code: 4 };
  const error = icmpError(reply.before, { ...errorKind, quoted: udp(request.after, 40_000, 53) });
  const options = { type: 60, bytes: Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0) };
  const routing = { type: 43, bytes: Uint8Array.of(0, 0, 4, 0, 0, 0, 0, 0) };

  const loads: Omit<Load, 'translator'>[] = [
    { name: 'UDP request', verdict: 'Forward', ...fromSite(udp(request.before, 40_000, 53)) },
    { name: 'UDP reply', verdict: 'Forward', ...fromCloud(udp(reply.before, 53, 40_000)) },
    {
      name: 'echo reply',
      verdict: 'Forward',
      ...fromCloud(echoPacket(reply.before, { reply: true })),
    },
    {
      name: 'unsolicited UDP reply',
      verdict: 'DropNoSession',
      ...fromCloud(udp(reply.before, 53, 40_001)),
    },
    { name: 'SCTP', verdict: 'Forward', ...fromSite(sctp(request.before)) },
    { name: 'ICMP error', verdict: 'Forward', ...fromCloud(error) },
    {
      name: 'fragments',
      verdict: 'Forward',
      ...fromSite(...fragments(request.before)),
    },
    {
      name: 'first fragments, more than are remembered',
      verdict: 'Forward',
      ...fromSite(
        ...Array.from({ length: 2048 }, (_, i) => fragment(request.before, 1000 + i, 0, true))
      ),
    },
    {
      name: 'UDP requests of 8192 sessions',
      verdict: 'Forward',
      ...fromSite(...Array.from({ length: 8192 }, (_, i) => udp(request.before, 2000 + i, 53, 0))),
    },
    {
      name: 'later fragment that is tiny',
      verdict: 'DropFragment',
      ...fromSite(fragment(request.before, 60_000, 8, true, 6)),
    },
    {
      name: 'SYN with a large MSS',
      verdict: 'Forward',
      ...fromSite(
        tcp(request.before, { flags: SYN, tcpOptions: Uint8Array.of(1, 2, 4, 0xff, 0xff, 0) })
      ),
    },
    {
      name: 'too big, answered',
      verdict: 'DropTooBig',
      ...fromSite(udp(request.before, 40_000, 53, 1450)),
      isAnswered: true,
    },
    {
      name: 'refused TCP, answered',
      verdict: 'DropNotPermitted',
      ...fromSite(tcp(request.before, { destinationPort: 9 })),
      isAnswered: true,
    },
    {
      name: 'refused UDP, answered',
      verdict: 'DropNotPermitted',
      ...fromSite(udp(request.before, 40_000, 9)),
      isAnswered: true,
    },
  ];
  if (from === 6) {
    const extensions = [options, routing, options];
    loads.push({
      name: 'extension headers',
      verdict: 'Forward',
      ...fromSite(tcp(request.before, { extensions })),
    });
  }
  return loads.map((load) => ({ ...load, name: `${load.name} ${name}`, translator }));
}

function fromSite(...packets: Uint8Array[]): { ingress: string; frames: Uint8Array[] } {
  return { ingress: 'site', frames: packets.map((packet) => framed(packet)) };
}

function fromCloud(packet: Uint8Array): { ingress: string; frames: Uint8Array[] } {
  return { ingress: 'cloud', frames: [framed(packet)] };
}

/** The fragments of 50 datagrams: all first ones, then those that complete them. */
function fragments(ends: Ends): Uint8Array[] {
  const numbers = Array.from({ length: 50 }, (_, i) => i + 1);
  return [
    ...numbers.map((number) => fragment(ends, number, 0, true)),
    ...numbers.map((number) => fragment(ends, number, 16, false)),
  ];
}

function fragment(
  ends: Ends,
  identification: number,
  offset: number,
  more: boolean,
  protocol = 47
): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint16(2, offset | (more ? 1 : 0));
  view.setUint32(4, identification);
  const isIpv6 = ends.source.includes(':');
  return ipPacket(ends, protocol, new Uint8Array(16), {
    ...(isIpv6 ? { extensions: [{ type: 44, bytes }] } : {}),
    identification,
    fragment: (more ? 0x2000 : 0) | (offset / 8),
  });
}

const collections: number[] = [];
const observer = new PerformanceObserver((list) => {
  for (const { startTime } of list.getEntries()) collections.push(startTime);
});
observer.observe({ entryTypes: ['gc'] });
const samples = measure();
// Entries come in order in later turns of the event loop: wait for that of a last collection.
const end = performance.now();
globalThis.gc!();
while (!collections.some((at) => at >= end)) await delay(1);
const costs = samples.map((sample) => [sample.name, costOf(sample, collections)]);
console.log(JSON.stringify(Object.fromEntries(costs)));
