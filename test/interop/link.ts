/**
 * A link between a `SocketStack` and the TCP of Linux: the stack, two memory devices that make the faults of a bad
 * network between them, and a TUN whose other side is the kernel of the thread's namespace.
 *
 * A fault hits one packet. Super-segments are split to packets of the TUN's MTU in front of it, as a network card does
 * it, unless the test says otherwise.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { expect, vi } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import {
  type FaultCounters,
  type Faults,
  LinuxTun,
  MemoryDevice,
  type PacketDevice,
} from '../../src/device/index.ts';
import {
  MAX_PACKET_LENGTH,
  PacketSegmenter,
  SegmentResult,
  VNET_HEADER_LENGTH,
} from '../../src/packet/index.ts';
import { SocketStack } from '../../src/sockets/index.ts';
import { ip } from '../support/namespace.ts';

export type End = 'stack' | 'linux';

export interface LinkOptions {
  /** Of the stack and of the TUN; default true. */
  readonly offload?: boolean | undefined;
  /** Of the TUN, in bytes; default 1500. */
  readonly mtu?: number | undefined;
  /** Of the stack; default 65,515, without offload the TUN's. */
  readonly stackMtu?: number | undefined;
  /** What happens to packets, in both directions. */
  readonly faults?: Faults | undefined;
  /** Whether super-segments are split before faults happen; by default they are if there are faults. */
  readonly splits?: boolean | undefined;
  /** How many packets may be on their way in each direction; default 16,384. */
  readonly queueLength?: number | undefined;
  /** Further addresses that the stack may connect to, from `10.77.0.0/16` and `fd77::/16`. */
  readonly behind?: readonly string[] | undefined;
  /** The stack's clock. */
  readonly clock?: Clock | undefined;
}

/** The addresses of both ends by IP version. */
export interface Addresses {
  readonly stack: string;
  readonly linux: string;
}

export class Link {
  static #count = 0;

  /** Opens a link in the namespace of the thread. */
  static async open(options: LinkOptions = {}): Promise<Link> {
    const { offload = true, mtu = 1500 } = options;
    const number = ++Link.#count;
    const tun = await LinuxTun.open({ name: `interop${number}`, mtu, offload });
    const link = new Link(number, tun, options);
    for (const family of [4, 6] as const) {
      const { stack, linux } = link.addresses(family);
      const bits = family === 4 ? 32 : 128;
      // The namespace has IPv6 off for new interfaces.
      if (family === 6) sysctl(`net.ipv6.conf.${tun.name}.disable_ipv6=0`);
      const noCheck = family === 6 ? ['nodad'] : [];
      ip(`-${family}`, 'address', 'add', `${linux}/${bits}`, 'dev', tun.name, ...noCheck);
      ip(`-${family}`, 'route', 'add', `${stack}/${bits}`, 'dev', tun.name, 'congctl', 'cubic');
    }
    link.#start();
    return link;
  }

  readonly stack: SocketStack;
  readonly tun: LinuxTun;
  /** Is told each packet (without its virtio-net header) that an end sends, before faults. */
  onPacket: ((from: End, packet: Buffer) => void) | undefined;
  /** Nothing passes while this is true, in neither direction, and nothing is refused. */
  isCut = false;
  readonly #number: number;
  /** Between the ends, if the link is not good: what the stack writes to, and what the kernel writes to. */
  readonly #wire: Readonly<Record<End, MemoryDevice>> | undefined;
  readonly #counts: Readonly<Record<End, PacketCounts>> = {
    stack: newCounts(),
    linux: newCounts(),
  };
  readonly #splits: boolean;
  readonly #mtu: number;
  readonly #buffer = Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  readonly #segmenter = new PacketSegmenter();

  private constructor(number: number, tun: LinuxTun, options: LinkOptions) {
    const { offload = true, faults, mtu = 1500, clock, queueLength } = options;
    this.#number = number;
    this.tun = tun;
    this.#mtu = mtu;
    this.#splits = options.splits ?? faults !== undefined;
    const stackMtu = options.stackMtu ?? (offload ? undefined : mtu);
    const { stack: own4, linux: linux4 } = this.addresses(4);
    const { stack: own6, linux: linux6 } = this.addresses(6);
    this.stack = new SocketStack({ offload, mtu: stackMtu, clock, address: [own4, own6] });
    this.stack.setSite({
      sources: [own4, own6],
      pools: [...POOLS],
      zone: 'interop.test',
      hosts: [
        {
          name: 'linux.interop.test',
          addresses: [linux4, linux6, ...(options.behind ?? [])],
          ports: ['tcp/1-65535', 'icmp'],
        },
      ],
    });
    if (faults === undefined && queueLength === undefined) return;
    const { seed = 1 } = faults ?? {};
    const [first, second] = MemoryDevice.pair({
      offload,
      mtu: Math.max(mtu, stackMtu ?? 0),
      queueLength: queueLength ?? QUEUE_LENGTH,
      faults: { first: { ...faults, seed }, second: { ...faults, seed: seed + 1_000 } },
    });
    this.#wire = { stack: first, linux: second };
  }

  addresses(family: 4 | 6): Addresses {
    return family === 4
      ? { stack: `10.78.${this.#number}.2`, linux: `10.77.${this.#number}.1` }
      : { stack: `fd78:${this.#number}::2`, linux: `fd77:${this.#number}::1` };
  }

  /** The faults of the packets that this end has sent. */
  faultsOf(end: End): Readonly<FaultCounters> {
    return this.#wire![end].faults;
  }

  /** The packets that this end has sent. */
  packetsOf(end: End): Readonly<PacketCounts> {
    return this.#counts[end];
  }

  /**
   * Waits until no packet is on its way, and checks by a count at the other end that the link has lost and duplicated
   * what it says. Returns the counts of packets that this end has sent.
   */
  async settled(end: End): Promise<Readonly<PacketCounts>> {
    const faults = this.faultsOf(end);
    await vi.waitFor(() => {
      const { sent, delivered } = this.packetsOf(end);
      expect(delivered).toBe(sent - faults.lost + faults.duplicated);
    });
    return this.packetsOf(end);
  }

  async close(): Promise<void> {
    await this.stack.close();
    await Promise.all([this.#wire?.stack.close(), this.#wire?.linux.close(), this.tun.close()]);
  }

  #start(): void {
    const { stack, tun } = this;
    this.#receive('linux', stack);
    this.#receive('stack', tun);
    stack.start(() => this.#send('stack', stack, tun));
    tun.start(() => this.#send('linux', tun, stack));
    stack.linkChanged(true);
  }

  /** Hands over what has arrived from an end. */
  #receive(from: End, to: PacketDevice): void {
    const wire = this.#wire?.[otherEnd(from)];
    const buffer = this.#buffer;
    wire?.start(() => {
      for (let i = 0; i < BATCH; i++) {
        const length = wire.read(buffer, 0);
        if (length === 0) return;
        this.#deliver(from, to, buffer, length);
      }
    });
  }

  /** Reads what an end sends, and writes it to the memory device that makes the faults, or to the other end. */
  #send(end: End, from: PacketDevice, to: PacketDevice): void {
    const buffer = this.#buffer;
    for (let i = 0; i < BATCH; i++) {
      const length = from.read(buffer, 0);
      if (length === 0) return;
      if (isMulticast(buffer)) continue;
      if (this.#splits) this.#split(end, to, length);
      else if (!this.#write(end, to, buffer, length)) {
        if (from === this.stack) this.stack.refused();
        return;
      }
    }
  }

  #split(end: End, to: PacketDevice, length: number): void {
    const segmenter = this.#segmenter;
    const result = segmenter.begin(this.#buffer, 0, VNET_HEADER_LENGTH, length, this.#mtu);
    if (result !== SegmentResult.Ready) throw new Error(`${end}: a packet cannot be split`);
    for (let next = segmenter.next(); next > 0; next = segmenter.next()) {
      this.#write(end, to, segmenter.frame, next);
    }
  }

  #write(end: End, to: PacketDevice, buffer: Buffer, length: number): boolean {
    this.onPacket?.(end, buffer.subarray(VNET_HEADER_LENGTH, length));
    if (this.isCut) return true;
    const counts = this.#counts[end];
    const wire = this.#wire?.[end];
    const isTaken =
      wire === undefined ? this.#deliver(end, to, buffer, length) : wire.write(buffer, 0, length);
    if (isTaken) counts.sent++;
    else counts.dropped++;
    return isTaken;
  }

  #deliver(from: End, to: PacketDevice, buffer: Buffer, length: number): boolean {
    const isTaken = to.write(buffer, 0, length);
    if (isTaken) this.#counts[from].delivered++;
    return isTaken;
  }
}

/** The packets that an end has sent. */
export interface PacketCounts {
  /** The link has taken them. */
  sent: number;
  /** They were written to the other end. */
  delivered: number;
  /** The link has not taken them. */
  dropped: number;
}

export function otherEnd(end: End): End {
  return end === 'stack' ? 'linux' : 'stack';
}

function newCounts(): PacketCounts {
  return { sent: 0, delivered: 0, dropped: 0 };
}

/** Prepares the namespace of the thread: no connection learns from others, and all ICMP errors are sent. */
export function prepareNamespace(): void {
  sysctl('net.ipv4.tcp_no_metrics_save=1');
  sysctl('net.ipv4.icmp_ratelimit=0');
  sysctl('net.ipv6.icmp.ratelimit=0');
}

export function sysctl(setting: string): void {
  execFileSync('sysctl', ['-qw', setting]);
}

/** The kernel tells its neighbours about groups whenever it likes, which would use up random numbers. */
function isMulticast(frame: Buffer): boolean {
  const start = VNET_HEADER_LENGTH;
  return frame[start]! >>> 4 === 6 && frame[start + 24] === 0xff;
}

const POOLS: readonly string[] = ['10.77.0.0/16', 'fd77::/16'];
const QUEUE_LENGTH = 16_384;
/** Packets of one turn of the event loop. */
const BATCH = 128;
