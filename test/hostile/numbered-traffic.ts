/**
 * Numbered packets between the cloud's network and the host of each site, both ways, at a steady pace.
 * @module
 */
import { CLOUD } from '../../src/registry/index.ts';
import { type Credentials, MtlsTunnel } from '../../src/tunnel/index.ts';
import { udpPacket } from '../support/packets.ts';
import { framed, VNET } from '../support/vnet.ts';
import { type Cloud, HOST, SERVICE, siteName, TRUST_DOMAIN } from './revocation-scene.ts';

/** One direction of one site. Packets come in the order of their numbers, or are lost. */
export class Count {
  /** Number of the packet that is sent next. */
  next = 0;
  received = 0;
  lost = 0;
  doubled = 0;
  /** The one that is to come next; undefined: whichever. */
  #expected: number | undefined = 0;

  /** How many are on the way, as far as that is known. */
  get missing(): number {
    return this.next - (this.#expected ?? this.next);
  }

  arrived(number: number): void {
    const expected = this.#expected ?? number;
    if (number < expected) {
      this.doubled++;
      return;
    }
    this.lost += number - expected;
    this.#expected = number + 1;
    this.received++;
  }

  /** Whether all before this number have come, or are lost. */
  isThrough(number: number): boolean {
    return this.#expected !== undefined && this.#expected >= number;
  }

  /** What was on the way when the tunnel was cut is not waited for. */
  beginAnew(): void {
    this.#expected = undefined;
    this.received = 0;
  }
}

/** The edge of one site, and the host behind it. */
export class Site {
  readonly name: string;
  readonly up: Count = new Count();
  readonly down: Count = new Count();
  credentials!: Credentials;
  tunnel!: MtlsTunnel;
  /** While it is cut off: the first packet to its host that may not arrive any more. */
  cutAt: number | undefined;
  /** Packets that passed though it was cut off. */
  leaked = 0;
  readonly #cloud: Cloud;
  readonly #upPacket: Buffer;
  readonly #downPacket: Buffer;

  constructor(cloud: Cloud, name: string) {
    this.#cloud = cloud;
    this.name = name;
    const service = cloud.presenceOf({ realm: CLOUD, address: SERVICE.address }, name);
    this.#upPacket = numbered(HOST.address, service, SERVICE.port);
    this.#downPacket = numbered(SERVICE.address, this.presence, HOST.port);
  }

  /** Of its host, in the cloud. */
  get presence(): string {
    return this.#cloud.presenceOf({ realm: this.name, address: HOST.address }, CLOUD);
  }

  /** Resolves when the tunnel is up; from then on the site is not cut off any more. */
  connect(credentials: Credentials): Promise<void> {
    this.credentials = credentials;
    this.tunnel = dial(this.#cloud, credentials);
    this.tunnel.onPacket = (buffer, _, end) => this.#onPacket(buffer.readUInt32BE(end - 4));
    return new Promise((resolve, reject) => {
      this.tunnel.once('refused', reject);
      this.tunnel.once('up', () => {
        this.up.beginAnew();
        this.down.beginAnew();
        this.cutAt = undefined;
        this.tunnel.off('refused', reject);
        resolve();
      });
    });
  }

  /** The next packet of its host; good until the one after it. */
  nextUp(): Buffer {
    const packet = this.#upPacket;
    packet.writeUInt32BE(this.up.next++, packet.length - 4);
    return packet;
  }

  sendUp(): void {
    if (this.tunnel.state !== 'up') return;
    const packet = this.nextUp();
    this.tunnel.sendPacket(packet, 0, packet.length);
    this.tunnel.flush();
  }

  /** The next packet to its host. */
  nextDown(): Buffer {
    const packet = this.#downPacket;
    packet.writeUInt32BE(this.down.next++, packet.length - 4);
    return packet;
  }

  #onPacket(number: number): void {
    if (this.cutAt === undefined) this.down.arrived(number);
    // What was with the system already cannot be called back.
    else if (number >= this.cutAt) this.leaked++;
  }
}

/** A tunnel to the cloud as an honest edge dials it. */
export function dial(cloud: Cloud, credentials: Credentials): MtlsTunnel {
  return MtlsTunnel.dial({
    endpoints: [{ host: '127.0.0.1', port: cloud.listener.port }],
    ...credentials,
    expectedPeer: { trustDomain: TRUST_DOMAIN, role: 'cloud' },
  });
}

export class NumberedTraffic {
  readonly sites: readonly Site[];
  readonly #cloud: Cloud;
  readonly #byPresence: ReadonlyMap<string, Site>;
  readonly #buffer: Buffer = Buffer.alloc(VNET + 65_535);
  #timer: NodeJS.Timeout | undefined;
  #turn = 0;

  constructor(cloud: Cloud, count: number) {
    this.#cloud = cloud;
    this.sites = Array.from({ length: count }, (_, i) => new Site(cloud, siteName(i)));
    this.#byPresence = new Map(this.sites.map((site) => [site.presence, site]));
    cloud.network.start(() => this.drain());
  }

  start(): void {
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** What sites other than this one have lost, or got twice. */
  faultsBeside(site?: Site): number {
    return this.sites
      .filter((each) => each !== site)
      .flatMap(({ up, down }) => [up.lost, up.doubled, down.lost, down.doubled])
      .reduce((sum, count) => sum + count, 0);
  }

  /** Takes all that has come to the cloud's network. */
  drain(): void {
    const { network } = this.#cloud;
    for (;;) {
      const length = network.read(this.#buffer, 0);
      if (length === 0) return;
      const source = [...this.#buffer.subarray(VNET + 12, VNET + 16)].join('.');
      const site = this.#byPresence.get(source);
      if (site === undefined) throw new Error(`a packet from ${source}, which is nobody`);
      if (site.cutAt !== undefined) site.leaked++;
      else site.up.arrived(this.#buffer.readUInt32BE(length - 4));
    }
  }

  /** Resolves when all that the sites have sent, and were sent, until now has come; not of those cut off. */
  async settled(): Promise<void> {
    const marks = this.sites
      .filter(({ cutAt }) => cutAt === undefined)
      .map((site) => ({ site, up: site.up.next, down: site.down.next }));
    const end = performance.now() + DEADLINE_MS;
    for (;;) {
      const late = marks.filter(
        ({ site, up, down }) => !site.up.isThrough(up) || !site.down.isThrough(down)
      );
      if (late.length === 0) return;
      if (performance.now() > end) {
        const [{ site, up, down }] = late as [(typeof late)[0]];
        const text = JSON.stringify({ up: site.up, down: site.down, waitedFor: { up, down } });
        throw new Error(`${late.length} sites wait, ${site.name} for ${text}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** Some sites in each tick, so that all is not due at once. */
  #tick(): void {
    for (let i = 0; i < SITES_A_TICK; i++) {
      const site = this.sites[this.#turn]!;
      this.#turn = (this.#turn + 1) % this.sites.length;
      const isCut = site.cutAt !== undefined;
      if (isCut || site.up.missing < WINDOW) site.sendUp();
      if (!isCut && site.down.missing >= WINDOW) continue;
      const packet = site.nextDown();
      this.#cloud.network.write(packet, 0, packet.length);
    }
  }
}

/** A UDP packet whose last four bytes are a number; without a checksum, so that it may change. */
function numbered(source: string, destination: string, destinationPort: number): Buffer {
  const datagram = { sourcePort: 4000, destinationPort, payload: Buffer.alloc(100) };
  return Buffer.from(framed(udpPacket({ source, destination }, { ...datagram, checksum: 'none' })));
}

/** 100 sites: each sends and is sent 25 packets a second. */
const TICK_MS = 4;
const SITES_A_TICK = 10;
const WINDOW = 64;
const DEADLINE_MS = 10_000;
