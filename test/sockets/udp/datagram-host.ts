/**
 * Hosts with UDP and ICMP alone, in place of socket stacks, on a network that carries packets between them.
 * @module
 */
import { randomBytes } from 'node:crypto';
import { IpAddress } from '../../../src/base/address.ts';
import type { Clock } from '../../../src/base/clock.ts';
import { FragmentPart, PacketKind, Parse } from '../../../src/packet/fields.ts';
import { PacketHeader } from '../../../src/packet/header.ts';
import { HostCounters } from '../../../src/sockets/host/host-counters.ts';
import { HostTargets } from '../../../src/sockets/host/host-targets.ts';
import { IcmpEndpoint } from '../../../src/sockets/icmp/icmp.ts';
import { Identifications } from '../../../src/sockets/ip/identifications.ts';
import { PathMtus } from '../../../src/sockets/ip/path-mtu.ts';
import { Reassembler } from '../../../src/sockets/ip/reassembly.ts';
import { lookupError, systemError } from '../../../src/sockets/node/system-error.ts';
import type { SocketHost } from '../../../src/sockets/socket-host.ts';
import { UdpEndpoint, UdpVerdict } from '../../../src/sockets/udp/udp.ts';
import { randomWord } from '../../../src/tcp/ports.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { VNET } from '../../support/vnet.ts';

/** Carries packets between hosts, by destination address. */
export class DatagramNetwork {
  readonly hosts: DatagramHost[] = [];
  /** Packets that pass are shown to this function, which may drop them. */
  passes: (packet: Buffer) => boolean = () => true;
  readonly #buffer: Buffer = Buffer.alloc(70_000);
  #isScheduled = false;

  /** Adds a host with the addresses `10.0.0.n` and `fd00::n`. */
  host(n: number): DatagramHost {
    const host = new DatagramHost(n, () => this.#schedule());
    this.hosts.push(host);
    return host;
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      for (const host of this.hosts) this.#drain(host);
    });
  }

  #drain(host: DatagramHost): void {
    if (!host.isUp) return;
    for (const from of [host.icmp, host.udp]) {
      for (;;) {
        const length = from.read(this.#buffer, 0);
        if (length === 0) break;
        const packet = this.#buffer.subarray(VNET, length);
        if (!this.passes(packet)) continue;
        const family = packet[0]! >> 4 === 4 ? 4 : 6;
        const destination = IpAddress.fromBytes(family, packet, family === 4 ? 16 : 24);
        const to = this.hosts.find((each) => each.address(family).equals(destination));
        to?.receive(this.#buffer, length);
      }
    }
  }
}

/** A host whose time is that of its `clock`. Names are `n.test` for the host `10.0.0.n` and `fd00::n`. */
export class DatagramHost implements SocketHost {
  readonly tcp = undefined as never;
  readonly clock: Clock & FakeClock = new FakeClock();
  readonly udp: UdpEndpoint;
  readonly icmp: IcmpEndpoint;
  readonly reassembler: Reassembler = new Reassembler(() => this.clock.monotonicMs());
  readonly servers: Set<{ close(): unknown }> = new Set();
  readonly targets: HostTargets = new HostTargets();
  readonly hostCounters: HostCounters = new HostCounters();
  closedBy: Error | undefined;
  isClosed = false;
  isUp = true;
  /** Ports and hosts that are refused at once, with their code. */
  readonly refused: Map<number | string, string> = new Map();

  readonly #n: number;
  readonly #onReady: () => void;
  readonly #header: PacketHeader = new PacketHeader();
  readonly #watching = new Set<(error: Error) => void>();
  #waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];

  constructor(n: number, onReady: () => void) {
    this.#n = n;
    this.#onReady = onReady;
    const now = (): number => this.clock.monotonicMs();
    const random = (): number => randomWord(randomBytes);
    const shared = {
      now,
      random,
      identifications: new Identifications(random),
      pathMtus: new PathMtus(now),
      mtu: 65_515,
      localAddress: (family: 4 | 6) => this.address(family),
    };
    this.udp = new UdpEndpoint({ ...shared, offload: true });
    this.icmp = new IcmpEndpoint({
      ...shared,
      onTcpError: () => false,
      onUdpError: (error) => this.udp.onIcmpError(error),
    });
    this.udp.onReady = onReady;
    this.icmp.onReady = onReady;
    this.udp.onEvents = () => process.nextTick(() => this.udp.takeEvents());
  }

  address(family: 4 | 6): IpAddress {
    return IpAddress.parse(family === 4 ? `10.0.0.${this.#n}` : `fd00::${this.#n}`);
  }

  receive(buffer: Buffer, length: number): void {
    const header = this.#header;
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    if (header.parse(view, VNET, length) !== Parse.Ok) throw new Error('not valid');
    if (header.part !== FragmentPart.Whole) {
      const whole = this.reassembler.receive(buffer, 0, header);
      if (whole === 0) return;
      const { packet } = this.reassembler;
      const wholeView = new DataView(packet.buffer, packet.byteOffset, packet.length);
      if (header.parse(wholeView, 0, whole) !== Parse.Ok) throw new Error('not valid');
      this.#dispatch(packet, -1);
    } else {
      this.#dispatch(buffer, 0);
    }
  }

  #dispatch(buffer: Buffer, vnet: number): void {
    if (this.#header.kind !== PacketKind.Udp) {
      this.icmp.receive(buffer, vnet, this.#header);
    } else if (this.udp.receive(buffer, vnet, this.#header) === UdpVerdict.Closed) {
      this.icmp.unreachable(buffer, this.#header, 'port');
    }
  }

  /** Lets the wait for the tunnel end. */
  setUp(): void {
    this.isUp = true;
    for (const { resolve } of this.#waiting.splice(0)) resolve();
    this.#onReady();
  }

  /** Lets the wait for the tunnel fail, and tells those who watch it. */
  failUp(cause?: Error): void {
    const error = systemError('ENETDOWN', 'connect', { cause });
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    for (const onDown of this.#watching) onDown(error);
  }

  close(cause?: Error): void {
    this.closedBy = cause;
    this.isClosed = true;
    this.udp.close();
    this.icmp.close();
  }

  canReach(): boolean {
    return true;
  }

  whenReachable(): Promise<void> {
    return this.whenUp();
  }

  whenUp(): Promise<void> {
    if (this.isUp) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  watchTunnel(onDown: (error: Error) => void): () => void {
    this.#watching.add(onDown);
    return () => this.#watching.delete(onDown);
  }

  resolve(name: string, family: 0 | 4 | 6): readonly IpAddress[] {
    const [, n] = /^(\d+)\.test$/.exec(name) ?? [];
    const texts = n === undefined ? [name] : [`10.0.0.${n}`, `fd00::${n}`];
    try {
      return texts.map(IpAddress.parse).filter((each) => family === 0 || each.family === family);
    } catch {
      throw lookupError('ENOTFOUND', name);
    }
  }

  localAddress(family: 4 | 6): IpAddress {
    return this.address(family);
  }

  addressFault(): undefined {}

  refusal(_: string, remote: IpAddress, port: number): string | undefined {
    return this.refused.get(remote.toString()) ?? this.refused.get(port);
  }
}
