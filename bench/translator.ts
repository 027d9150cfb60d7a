/**
 * How long `PacketTranslator.translate` takes for a packet, beside the naive oracle of the tests in the
 * same run:
 *
 *     node --import tsx bench/translator.ts [--quick] [--json]
 *
 * The method is in README.md.
 * @module
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { formatIPv4 } from '../src/address.ts';
import { PacketTranslator, type TranslationPlan, Verdict } from '../src/translator/index.ts';
import { framed, icmpError, tcpPacket, udpPacket, VNET } from '../test/oracle/packets.ts';
import { Random } from '../test/oracle/random.ts';
import { naiveTranslate } from '../test/oracle/translate.ts';

/** One kind of packet, as its client sends it. */
interface Shape {
  readonly name: string;
  /** Builds a frame: a virtio-net header and the packet. */
  readonly build: (client: string) => Uint8Array;
  /** Where the client's address stands in the frame. */
  readonly clientAt: readonly number[];
}

interface Result {
  readonly name: string;
  readonly paths: number;
  /** Per packet; medians. */
  readonly nanoseconds: number;
  readonly naiveNanoseconds: number;
  /** Million packets per second. */
  readonly mpps: number;
  /** How many times as fast as the naive oracle. */
  readonly ratio: number;
}

/** A plan with clients that use one service, loaded, and the clients in a random order. */
class Scene {
  readonly plan: TranslationPlan;
  readonly translator: PacketTranslator = new PacketTranslator();
  readonly paths: number;
  /** Addresses of the clients, as words. */
  readonly clients: Int32Array;
  readonly near: number;
  readonly far: number;

  constructor(paths: number) {
    this.paths = paths;
    // Each client has a path forth and one back.
    const words = Array.from({ length: paths / 2 }, (_, i) => clientWord(i));
    this.plan = planFor(words);
    this.clients = Int32Array.from(shuffled(words, new Random(paths)));
    this.translator.load(this.plan);
    this.near = this.translator.realm('near');
    this.far = this.translator.realm('far');
  }
}

/**
 * A round trip needs nothing between its two translations, because the plan is the same from both
 * ends: where the service's presence is translated to its real address, that address is the presence of
 * an endpoint behind the presence; and likewise for the clients.
 */
function planFor(clients: readonly number[]): TranslationPlan {
  const near = { realm: 'near', address: SERVICE_PRESENCE };
  const far = { realm: 'far', address: SERVICE };
  const pairs = clients.map((word, i) => [
    { realm: 'near', address: formatIPv4(word) },
    { realm: 'far', address: formatIPv4(CLIENT_PRESENCES + i) },
  ]);
  const presences = [[near, far], ...pairs].flatMap(([a, b]) => [
    { ...a!, of: b! },
    { ...b!, of: a! },
  ]);
  const ports = ['tcp/5672', 'udp/53'];
  return {
    realms: ['near', 'far'].map((name) => ({ name, sources: ['0.0.0.0/0'] })),
    presences,
    permits: [
      { realm: 'near', service: far, ports },
      { realm: 'far', service: near, ports },
    ],
  };
}

/** Forth and back for each client in turn, for the time given; returns ns per translated packet. */
function timeTranslator(scene: Scene, shape: Shape, leastMs: number): number {
  const { translator, clients, near, far } = scene;
  const frame = shape.build(formatIPv4(clients[0]!));
  const { length } = frame;
  const original = frame.slice();
  let others = 0;
  let trips = 0;
  const from = performance.now();
  let elapsed = 0;
  do {
    for (let n = 0; n < TRIPS_PER_LOOK_AT_THE_CLOCK; n++) {
      const client = clients[trips++ % clients.length]!;
      for (let i = 0; i < shape.clientAt.length; i++) putWord(frame, shape.clientAt[i]!, client);
      if (translator.translate(near, frame, VNET, length, 0) !== Verdict.Forward) others++;
      if (translator.translate(far, frame, VNET, length, 0) !== Verdict.Forward) others++;
    }
    elapsed = performance.now() - from;
  } while (elapsed < leastMs);
  for (const at of shape.clientAt) putWord(frame, at, clients[0]!);
  if (others > 0 || Buffer.compare(frame, original) !== 0) {
    throw new Error(`${shape.name}: ${others} packets were not forwarded, or came back changed`);
  }
  return (elapsed * 1e6) / (2 * trips);
}

/** The same by the oracle. */
function timeNaive({ plan, clients }: Scene, shape: Shape, leastMs: number): number {
  const frames = Array.from(clients.subarray(0, NAIVE_FRAMES), (word) =>
    shape.build(formatIPv4(word))
  );
  let trips = 0;
  const from = performance.now();
  let elapsed = 0;
  do {
    const forth = naiveTranslate(plan, 'near', frames[trips++ % frames.length]!);
    const back = naiveTranslate(plan, 'far', forth.frame!);
    if (back.verdict !== 'Forward') throw new Error(`${shape.name}: ${back.verdict}`);
    elapsed = performance.now() - from;
  } while (elapsed < leastMs);
  return (elapsed * 1e6) / (2 * trips);
}

function measure(scene: Scene, shape: Shape, rounds: number, roundMs: number): Result {
  const times: number[] = [];
  const naiveTimes: number[] = [];
  // Whichever is slower warms up longer; the first round is not counted.
  for (let round = 0; round <= rounds; round++) {
    const time = timeTranslator(scene, shape, roundMs);
    const naiveTime = timeNaive(scene, shape, roundMs);
    if (round === 0) continue;
    times.push(time);
    naiveTimes.push(naiveTime);
  }
  const nanoseconds = median(times);
  const naiveNanoseconds = median(naiveTimes);
  return {
    name: `translate/${shape.name}`,
    paths: scene.paths,
    nanoseconds,
    naiveNanoseconds,
    mpps: 1e3 / nanoseconds,
    ratio: naiveNanoseconds / nanoseconds,
  };
}

function row({ name, paths, nanoseconds, naiveNanoseconds, mpps, ratio }: Result): string {
  return [
    name.padEnd(28),
    paths.toLocaleString('en').padStart(9),
    nanoseconds.toFixed(1).padStart(11),
    mpps.toFixed(1).padStart(8),
    Math.round(naiveNanoseconds).toLocaleString('en').padStart(17),
    `${Math.round(ratio).toLocaleString('en')} x`.padStart(10),
  ].join('');
}

/**
 * Addresses whose halves are each other's complement, so both together are a zero to any checksum: the
 * packets of two clients differ in the address and nowhere else.
 */
function clientWord(index: number): number {
  const high = 0x0a00 + index;
  return (high << 16) | (~high & 0xffff);
}

function putWord(bytes: Uint8Array, at: number, word: number): void {
  bytes[at] = word >>> 24;
  bytes[at + 1] = word >>> 16;
  bytes[at + 2] = word >>> 8;
  bytes[at + 3] = word;
}

function shuffled(words: readonly number[], random: Random): number[] {
  const order = [...words];
  for (let i = order.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

/** In the near realm stands for the service. */
const SERVICE_PRESENCE = '100.64.0.1';
const SERVICE = '192.0.2.5';
/** 1.0.0.0 and on: in the far realm these stand for the clients. */
const CLIENT_PRESENCES = 0x01000000;

const TRIPS_PER_LOOK_AT_THE_CLOCK = 5_000;
const NAIVE_FRAMES = 64;

/** Where an IPv4 packet behind a virtio-net header has its addresses. */
const SOURCE_AT: number = VNET + 12;
/** The destination of the packet that an ICMP error quotes. */
const QUOTED_DESTINATION_AT: number = VNET + 20 + 8 + 16;

const SHAPES: readonly Shape[] = [
  {
    name: 'udp-64B',
    build: (client) =>
      framed(
        udpPacket(
          { source: client, destination: SERVICE_PRESENCE },
          { sourcePort: 40_000, destinationPort: 53, payload: new Uint8Array(64 - 28) }
        )
      ),
    clientAt: [SOURCE_AT],
  },
  {
    name: 'tcp-1400B',
    build: (client) =>
      framed(
        tcpPacket(
          { source: client, destination: SERVICE_PRESENCE },
          { sourcePort: 49_500, destinationPort: 5672, payload: new Uint8Array(1400 - 40) }
        )
      ),
    clientAt: [SOURCE_AT],
  },
  {
    name: 'tcp-64KiB-partial',
    build: (client) =>
      framed(
        tcpPacket(
          { source: client, destination: SERVICE_PRESENCE },
          {
            sourcePort: 49_500,
            destinationPort: 5672,
            payload: new Uint8Array(65_535 - 40),
            checksum: 'partial',
          }
        ),
        {
          flags: 1,
          gsoType: 1,
          headerLength: 40,
          gsoSize: 1360,
          checksumStart: 20,
          checksumOffset: 16,
        }
      ),
    clientAt: [SOURCE_AT],
  },
  {
    name: 'icmp-error',
    build: (client) =>
      framed(
        icmpError(
          { source: client, destination: SERVICE_PRESENCE },
          {
            type: 3,
            code: 3,
            quoted: udpPacket(
              { source: SERVICE_PRESENCE, destination: client },
              { sourcePort: 53, destinationPort: 40_000, payload: new Uint8Array(36) }
            ),
          }
        )
      ),
    clientAt: [SOURCE_AT, QUOTED_DESTINATION_AT],
  },
];

const { quick, json } = parseArgs({
  options: { quick: { type: 'boolean' }, json: { type: 'boolean' } },
}).values;
const [rounds, roundMs] = quick ? [3, 60] : [9, 300];

const cpu = cpus()[0]?.model.trim() ?? process.arch;
console.log(`Node ${process.version}, ${process.platform} ${process.arch}, ${cpu}\n`);
console.log(`${'shape'.padEnd(28)}    paths  ns/packet    Mpps  naive ns/packet  as fast`);
const results: Result[] = [];
for (const paths of [100, 100_000]) {
  const scene = new Scene(paths);
  for (const shape of SHAPES) {
    const result = measure(scene, shape, rounds!, roundMs!);
    results.push(result);
    console.log(row(result));
  }
}
if (json) console.log(JSON.stringify({ node: process.version, cpu, results }));
