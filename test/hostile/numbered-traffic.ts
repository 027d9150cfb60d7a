/**
 * Numbered packets between the cloud's network and the host of each site, in both directions, at a steady pace.
 * @module
 */
import { CLOUD } from '../../src/registry/index.ts';
import { type Credentials, MtlsTunnel } from '../../src/tunnel/index.ts';
import { udpPacket } from '../support/packets.ts';
import { framed, VNET } from '../support/vnet.ts';
import { type Cloud, HOST, SERVICE, siteName, TRUST_DOMAIN } from './revocation-scene.ts';

/** One direction of one site. Packets arrive in the order of their numbers, or are lost. */
export class Count {
  /** The number of the packet that is sent next. */
  next = 0;
  received = 0;
  lost = 0;
  doubled = 0;
  /** The number that must come next; undefined if any may. */
  #expected: number | undefined = 0;

  /** How many packets are in transit, as far as that is known. */
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

  /** Whether all packets before this number have arrived, or are lost. */
  isThrough(number: number): boolean {
    return this.#expected !== undefined && this.#expected >= number;
  }

  /** Packets that were in transit when the tunnel was terminated are not waited for. */
  restart(): void {
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
  /** While the site is revoked: the first packet to its host that must not arrive. */
  revokedAt: number | undefined;
  /** Packets that passed although the site was revoked. */
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

  /** The presence of its host in the cloud. */
  get presence(): string {
    return this.#cloud.presenceOf({ realm: this.name, address: HOST.address }, CLOUD);
  }

  /** Resolves when the tunnel is up; from then on the site counts as not revoked. */
  connect(credentials: Credentials): Promise<void> {
    this.credentials = credentials;
    this.tunnel = dial(this.#cloud, credentials);
    this.tunnel.onPacket = (buffer, _, end) => this.#onPacket(buffer.readUInt32BE(end - 4));
    return new Promise((resolve, reject) => {
      this.tunnel.once('refused', reject);
      this.tunnel.once('up', () => {
        this.up.restart();
        this.down.restart();
        this.revokedAt = undefined;
        this.tunnel.off('refused', reject);
        resolve();
      });
    });
  }

  /** Returns the next packet of its host; valid until the next call. */
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

  /** Returns the next packet to its host. */
  nextDown(): Buffer {
    const packet = this.#downPacket;
    packet.writeUInt32BE(this.down.next++, packet.length - 4);
    return packet;
  }

  #onPacket(number: number): void {
    if (this.revokedAt === undefined) this.down.arrived(number);
    // Packets that the system already has cannot be recalled.
    else if (number >= this.revokedAt) this.leaked++;
  }
}

/** Dials a tunnel to the cloud as a legitimate edge does. */
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

  /** Returns the packets that other sites than this one have lost, or received twice. */
  faultsBeside(site?: Site): number {
    return this.sites
      .filter((each) => each !== site)
      .flatMap(({ up, down }) => [up.lost, up.doubled, down.lost, down.doubled])
      .reduce((sum, count) => sum + count, 0);
  }

  /** Reads all packets that have come to the cloud's network. */
  drain(): void {
    const { network } = this.#cloud;
    for (;;) {
      const length = network.read(this.#buffer, 0);
      if (length === 0) return;
      const source = [...this.#buffer.subarray(VNET + 12, VNET + 16)].join('.');
      const site = this.#byPresence.get(source);
      if (site === undefined) throw new Error(`a packet from the unknown source ${source}`);
      if (site.revokedAt !== undefined) site.leaked++;
      else site.up.arrived(this.#buffer.readUInt32BE(length - 4));
    }
  }

  /** Resolves when all packets sent so far have arrived, except those of revoked sites. */
  async settled(): Promise<void> {
    const marks = this.sites
      .filter(({ revokedAt }) => revokedAt === undefined)
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

  /** Serves some sites in each tick, to spread the load. */
  #tick(): void {
    for (let i = 0; i < SITES_A_TICK; i++) {
      const site = this.sites[this.#turn]!;
      this.#turn = (this.#turn + 1) % this.sites.length;
      const isRevoked = site.revokedAt !== undefined;
      if (isRevoked || site.up.missing < WINDOW) site.sendUp();
      if (!isRevoked && site.down.missing >= WINDOW) continue;
      const packet = site.nextDown();
      this.#cloud.network.write(packet, 0, packet.length);
    }
  }
}

/** Returns a UDP packet whose last four bytes are a number; without a checksum, so that the number may change. */
function numbered(source: string, destination: string, destinationPort: number): Buffer {
  const datagram = { sourcePort: 4000, destinationPort, payload: Buffer.alloc(100) };
  return Buffer.from(framed(udpPacket({ source, destination }, { ...datagram, checksum: 'none' })));
}

/** 100 sites, with 25 packets a second in each direction each. */
const TICK_MS = 4;
const SITES_A_TICK = 10;
const WINDOW = 64;
const DEADLINE_MS = 10_000;
