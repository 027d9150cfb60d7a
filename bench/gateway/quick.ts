/**
 * A quick benchmark without root: both reference gateways in this process, between devices in memory, with the
 * real tunnel on loopback, the real translator and policy. `main.ts --quick` builds and runs it.
 *
 * A packet is written to the site's device, passes edge, tunnel and cloud, and is read from the cloud's device,
 * where it must be the expected translated packet. A window bounds the packets in flight, so none may be missing.
 * @module
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CloudGateway, EdgeGateway, MemoryDevice } from 'virtual-presence';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from 'virtual-presence/packet';
import { eventually } from '../../test/support/gateway-process.ts';
import { type Ends, tcpPacket } from '../../test/support/packets.ts';
import { framed } from '../../test/support/vnet.ts';

interface Shape {
  readonly name: string;
  /** The length of the packet, in bytes. */
  readonly length: number;
  /** The number of packets in flight. */
  readonly window: number;
  readonly frame: (ends: Ends, index: number) => Uint8Array;
}

interface Result {
  readonly shape: string;
  readonly packets: number;
  readonly packetsPerSecond: number;
  readonly gbps: number;
  /** The CPU time of both gateways, and of what writes and checks the packets. */
  readonly cpuNsPerPacket: number;
}

const SHAPES: readonly Shape[] = [
  {
    name: 'tcp-1400B',
    length: 1400,
    window: 512,
    frame: (ends, index) => framed(segment(ends, index, 1400, 'complete')),
  },
  {
    name: 'tcp-64KiB-partial',
    length: 65_535,
    window: 32,
    frame: (ends, index) =>
      framed(segment(ends, index, 65_535, 'partial'), {
        flags: 1,
        gsoType: 1,
        headerLength: 40,
        gsoSize: 1_360,
        checksumStart: 20,
        checksumOffset: 16,
      }),
  },
];

/** The LANs of both sides, as seen from behind the gateways' devices. */
interface Pair {
  readonly site: MemoryDevice;
  readonly cloud: MemoryDevice;
  /** The service at the site. */
  readonly presence: string;
  /** Returns the endpoint that an address of the cloud stands for. */
  whois(address: string): string;
  close(): Promise<void>;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
  const directory = mkdtempSync(join(tmpdir(), 'vp-bench-quick-'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
  const pair = await startPair(directory);
  try {
    const client = await firstPacket(pair);
    const results: Result[] = [];
    const sender = new Sender(pair);
    for (const shape of SHAPES) {
      const own = templates(shape, { source: HOST, destination: pair.presence });
      const due = templates(shape, { source: client, destination: HOST });
      await sender.run(shape, own, due, WARM_UP_MS);
      const result = await sender.run(shape, own, due, RUN_MS);
      results.push(result);
      const { packetsPerSecond, gbps, cpuNsPerPacket } = result;
      console.log(
        `${shape.name}: ${Math.round(packetsPerSecond)} packets/s, ${gbps.toFixed(2)} Gbit/s, ` +
          `${Math.round(cpuNsPerPacket)} ns of CPU a packet`
      );
    }
    if (values.json) console.log(JSON.stringify({ node: process.version, quick: results }));
  } finally {
    await pair.close();
  }
}

async function startPair(directory: string): Promise<Pair> {
  const [siteDevice, site] = MemoryDevice.pair();
  const [cloudDevice, cloud] = MemoryDevice.pair();
  const realm = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'example.test' };
  const desired = {
    sites: [
      { name: 'cloud', ...realm },
      { name: SITE, ...realm },
    ],
    services: [{ name: 'service', site: 'cloud', address: HOST, ports: [`tcp/${PORT}`] }],
    exposures: [{ service: 'service', site: SITE }],
  };
  const gateway = await CloudGateway.start({
    trustDomain: 'example.test',
    stateDirectory: join(directory, 'cloud'),
    device: cloudDevice,
    tunnel: ANY_PORT,
    dns: { listen: ANY_PORT },
    desired,
  });
  const edge = await EdgeGateway.start({
    stateDirectory: join(directory, 'edge'),
    token: await gateway.createToken({ site: SITE }),
    device: siteDevice,
    dns: { listen: ANY_PORT },
  });
  await edge.ready({ signal: AbortSignal.timeout(90_000) });
  return {
    site,
    cloud,
    presence: edge.lookup('service')[0]!.addresses[0]!.toString(),
    whois: (address) => {
      const found = gateway.whois('cloud', address);
      return `${found?.address} of ${found?.site}`;
    },
    close: async () => {
      await edge.close();
      await gateway.close();
    },
  };
}

/** Gets the client's presence in the cloud and returns it. */
async function firstPacket({ site, cloud, presence, whois }: Pair): Promise<string> {
  const frame = Buffer.from(SHAPES[0]!.frame({ source: HOST, destination: presence }, 0));
  if (!site.write(frame, 0, frame.length)) throw new Error('the site took no packet');
  const buffer = newBuffer();
  await eventually('the first packet arrives', () => cloud.read(buffer, 0) || undefined);
  const source = buffer.subarray(VNET_HEADER_LENGTH + 12, VNET_HEADER_LENGTH + 16).join('.');
  const owner = `${HOST} of ${SITE}`;
  if (whois(source) !== owner)
    throw new Error(`${source} stands for ${whois(source)}, not ${owner}`);
  return source;
}

/** Keeps a window of packets in flight, and checks each packet that arrives. */
class Sender {
  readonly #site: MemoryDevice;
  readonly #buffer: Buffer = newBuffer();
  #onReadable = (): void => {};

  constructor({ site, cloud }: Pair) {
    this.#site = site;
    cloud.start(() => this.#onReadable());
    this.#read = () => cloud.read(this.#buffer, 0);
  }

  readonly #read: () => number;

  /** Runs for the time given, and until all that was sent has arrived. */
  run(
    shape: Shape,
    own: readonly Buffer[],
    due: readonly Buffer[],
    leastMs: number
  ): Promise<Result> {
    const { name, length, window } = shape;
    let sent = 0;
    let arrived = 0;
    const startMs = performance.now();
    const cpu = process.cpuUsage();
    return new Promise((resolve, reject) => {
      const send = () => {
        while (sent - arrived < window && performance.now() - startMs < leastMs) {
          const frame = own[sent % TEMPLATES]!;
          if (!this.#site.write(frame, 0, frame.length)) return;
          sent++;
        }
      };
      let before = -1;
      const watch = setInterval(() => {
        if (arrived === before) {
          finish();
          reject(new Error(`${name}: ${sent} packets sent, only ${arrived} have arrived`));
        }
        before = arrived;
      }, STALL_MS);
      const finish = () => {
        clearInterval(watch);
        this.#onReadable = () => {};
      };
      this.#onReadable = () => {
        for (let i = 0; i < window; i++) {
          const got = this.#read();
          if (got === 0) break;
          const expected = due[arrived % TEMPLATES]!;
          if (expected.compare(this.#buffer, 0, got) !== 0) {
            finish();
            reject(new Error(`${name}: packet ${arrived} is not the one that is due`));
            return;
          }
          arrived++;
        }
        send();
        if (arrived < sent) return;
        finish();
        const elapsedMs = performance.now() - startMs;
        const { user, system } = process.cpuUsage(cpu);
        resolve({
          shape: name,
          packets: arrived,
          packetsPerSecond: (arrived / elapsedMs) * 1000,
          gbps: (arrived * length * 8) / elapsedMs / 1e6,
          cpuNsPerPacket: ((user + system) * 1000) / arrived,
        });
      };
      send();
    });
  }
}

function segment(
  ends: Ends,
  index: number,
  length: number,
  checksum: 'complete' | 'partial'
): Uint8Array {
  return tcpPacket(ends, {
    sourcePort: 40_000,
    destinationPort: PORT,
    payload: new Uint8Array(length - 40).map((_, i) => i * 13 + index),
    identification: index,
    sequence: index,
    checksum,
  });
}

function templates(shape: Shape, ends: Ends): Buffer[] {
  return Array.from({ length: TEMPLATES }, (_, index) => Buffer.from(shape.frame(ends, index)));
}

function newBuffer(): Buffer {
  return Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
}

/** Packets that all differ, so that a lost or reordered frame is detected. */
const TEMPLATES = 61;
const WARM_UP_MS = 1_000;
const RUN_MS = 3_000;
const STALL_MS = 2_000;
const ANY_PORT = '127.0.0.1:0';
const HOST = '10.0.0.5';
const SITE = 'site-a';
const PORT = 5672;

await main();
