/**
 * Measures, in a process of its own, what a million packets of each kind cost of the heap:
 *
 *     node --expose-gc --import tsx test/translator/allocation-child.ts 65536
 *
 * Prints one JSON object, `Cost` by kind of packet.
 * @module
 */
import { PerformanceObserver, performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { SiteGate, VERDICT_NAMES, type VerdictName } from '../../src/translator/index.ts';
import { type Ends, framed, icmpError, tcpPacket, udpPacket, VNET } from '../oracle/packets.ts';
import { ADDRESSES, FAMILIES, Scene, way } from './scene.ts';

/** `bytes` is all that was allocated, unless the heap was collected meanwhile. */
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
  /** Each of another host; a virtio-net header in front. */
  readonly frames: readonly Uint8Array[];
}

const PACKETS = 1_000_000;
/** Given by the test: what the packets may take. */
const MOST_BYTES = Number(process.argv[2]);
/** Rounds before the one that counts: by then all code is compiled. */
const WARM_UP_ROUNDS = 3;
const WARM_UP_PACKETS = 100_000;
/** Another round for a load that took too much: the compiler, too, allocates when it comes back. */
const MOST_ROUNDS = 4;

function measure(): Sample[] {
  const { translator } = new Scene();
  const gate = new SiteGate();
  gate.setAddresses({
    sources: ['10.0.0.0/24', 'fd00::/64'],
    pools: ['100.64.0.0/24', 'fd64::/64'],
  });
  const loads = FAMILIES.flatMap(loadsOf);
  const buffer = new Uint8Array(2048);

  /** Sends packets of one load, and returns how many did not get its verdict. */
  const send = ({ frames, ingress, verdict }: Load, packets: number): number => {
    const realm = translator.realm(ingress);
    const expected = VERDICT_NAMES.indexOf(verdict);
    let others = 0;
    for (let sent = 0; sent < packets; sent++) {
      const frame = frames[sent % frames.length]!;
      buffer.set(frame);
      gate.checkOutbound(buffer, VNET, frame.length);
      const number = translator.translate(realm, buffer, VNET, frame.length, 0);
      if (number !== expected) others++;
      gate.checkInbound(buffer, VNET, frame.length);
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
    for (const load of loads) send(load, WARM_UP_PACKETS);
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

function loadsOf(family: 4 | 6): Load[] {
  const { cloud, unbound, foreign, router, host } = ADDRESSES[family];
  const toCloud = way(family, 'site-a', 'cloud');
  const strangers = Array.from({ length: 64 }, (_, i) =>
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
  const loads: Omit<Load, 'ingress'>[] = [
    { name: 'TCP', verdict: 'Forward', frames: from([host], cloud, 5672) },
    { name: 'TCP super-packet', verdict: 'Forward', frames: [partial(toCloud.before)] },
    { name: 'UDP', verdict: 'Forward', frames: [framed(query(toCloud.before))] },
    { name: 'cut off', verdict: 'DropMalformed', frames: [framed(new Uint8Array(30))] },
    { name: 'to nobody', verdict: 'DropNoPresence', frames: from(strangers, unbound, 5672) },
    { name: 'spoofed', verdict: 'DropSpoofed', frames: from([foreign], cloud, 5672) },
    { name: 'refused on a path', verdict: 'DropNotPermitted', frames: from([host], cloud, 22) },
    { name: 'refused hosts', verdict: 'DropNotPermitted', frames: from(strangers, cloud, 22) },
    { name: 'new clients', verdict: 'NeedsPresence', frames: from(strangers, cloud, 5672) },
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
      name: 'ICMP error to nobody',
      verdict: 'DropNoPresence' as const,
      ingress: 'cloud',
      frames: [error(unbound)],
    },
  ].map((load) => ({ ...load, name: `${load.name} over IPv${family}` }));
}

const collections: number[] = [];
const observer = new PerformanceObserver((list) => {
  for (const { startTime } of list.getEntries()) collections.push(startTime);
});
observer.observe({ entryTypes: ['gc'] });
const samples = measure();
// Entries come in later turns of the event loop, in order: wait for that of a last collection.
const end = performance.now();
globalThis.gc!();
while (!collections.some((at) => at >= end)) await delay(1);
const costs = samples.map((sample) => [sample.name, costOf(sample, collections)]);
console.log(JSON.stringify(Object.fromEntries(costs)));
