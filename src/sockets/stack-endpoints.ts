/**
 * TCP, UDP and ICMP as the device of a stack sees them.
 * @module
 */
import { FragmentPart, PacketHeader, PacketKind, Parse } from '../packet/index.ts';
import { PacketView } from '../packet/view.ts';
import type { TcpEndpoint } from '../tcp/index.ts';
import type { IcmpEndpoint } from './icmp/icmp.ts';
import type { Reassembler } from './ip/reassembly.ts';
import type { StackEndpoint } from './stack-device.ts';
import { type UdpEndpoint, UdpVerdict } from './udp/udp.ts';

/** TCP does not parse again what the device has parsed. */
export class TcpSide implements StackEndpoint {
  readonly #tcp: TcpEndpoint;
  readonly #views = new PacketView();

  constructor(tcp: TcpEndpoint) {
    this.#tcp = tcp;
  }

  set onReady(callback: () => void) {
    this.#tcp.onReady = callback;
  }

  set onEvents(callback: () => void) {
    this.#tcp.onEvents = callback;
  }

  set onDeadline(callback: () => void) {
    this.#tcp.onDeadline = callback;
  }

  get deadline(): number {
    return this.#tcp.deadline;
  }

  advance(): void {
    this.#tcp.advance();
  }

  receive(buffer: Buffer, vnet: number, header: PacketHeader): void {
    this.#tcp.receivePacket(buffer, this.#views.of(buffer), vnet, header);
  }

  read(buffer: Buffer, at: number): number {
    return this.#tcp.read(buffer, at);
  }

  refused(): void {
    this.#tcp.refused();
  }

  expire(): void {
    this.#tcp.expire();
  }

  takeEvents(): void {
    this.#tcp.takeEvents();
  }
}

/** UDP gets whole datagrams, and ICMP answers for ports that are closed. */
export class UdpSide implements StackEndpoint {
  readonly #udp: UdpEndpoint;
  readonly #reassembler: Reassembler;
  readonly #icmp: IcmpEndpoint;
  readonly #views = new PacketView();
  readonly #header = new PacketHeader();
  /** Its deadlines change in `receive`, in `read`, and with what makes it ready, all of which are seen. */
  onDeadline: () => void = () => {};

  constructor(udp: UdpEndpoint, reassembler: Reassembler, icmp: IcmpEndpoint) {
    this.#udp = udp;
    this.#reassembler = reassembler;
    this.#icmp = icmp;
  }

  set onReady(callback: () => void) {
    this.#udp.onReady = callback;
  }

  set onEvents(callback: () => void) {
    this.#udp.onEvents = callback;
  }

  get deadline(): number {
    return Math.min(this.#udp.deadline, this.#reassembler.deadline);
  }

  advance(): void {}

  receive(buffer: Buffer, vnet: number, header: PacketHeader): void {
    if (header.part === FragmentPart.Whole) this.#receiveWhole(buffer, vnet, header);
    else this.#receiveFragment(buffer, vnet, header);
  }

  read(buffer: Buffer, at: number): number {
    return this.#udp.read(buffer, at);
  }

  refused(): void {
    this.#udp.refused();
  }

  expire(): void {
    this.#udp.expire();
    this.#reassembler.expire();
  }

  takeEvents(): void {
    this.#udp.takeEvents();
  }

  #receiveFragment(buffer: Buffer, vnet: number, header: PacketHeader): void {
    const length = this.#reassembler.receive(buffer, vnet, header);
    if (length === 0) return;
    const { packet } = this.#reassembler;
    const whole = this.#header;
    const outcome = whole.parse(this.#views.of(packet), 0, length, packet.length);
    if (outcome !== Parse.Ok) return;
    // Only the first fragment has said which protocol it is in full.
    if (whole.kind === PacketKind.Udp) this.#receiveWhole(packet, -1, whole);
    else if (whole.kind !== PacketKind.Tcp) this.#icmp.receive(packet, -1, whole);
  }

  #receiveWhole(packet: Uint8Array, vnet: number, header: PacketHeader): void {
    const verdict = this.#udp.receive(packet, vnet, header);
    if (verdict === UdpVerdict.Closed) this.#icmp.unreachable(packet, header, 'port');
  }
}

/** ICMP has no events: what waits for an echo reply is a promise, which calls nobody at once. */
export class IcmpSide implements StackEndpoint {
  readonly #icmp: IcmpEndpoint;
  readonly deadline: number = Number.POSITIVE_INFINITY;
  onEvents: () => void = () => {};
  onDeadline: () => void = () => {};

  constructor(icmp: IcmpEndpoint) {
    this.#icmp = icmp;
  }

  set onReady(callback: () => void) {
    this.#icmp.onReady = callback;
  }

  advance(): void {}

  receive(buffer: Buffer, vnet: number, header: PacketHeader): void {
    this.#icmp.receive(buffer, vnet, header);
  }

  read(buffer: Buffer, at: number): number {
    return this.#icmp.read(buffer, at);
  }

  refused(): void {
    this.#icmp.refused();
  }

  expire(): void {}

  takeEvents(): void {}
}
