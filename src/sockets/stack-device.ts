/**
 * The packet device of a stack. It has no queue of packets: a `read` asks TCP, UDP and ICMP for the next one, and a
 * `write` hands the packet to one of them. It runs no code of the program within either (`turns.ts`).
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { checkReadRange, checkWrite, isAcceptable, newDeviceCounters } from '../device/contract.ts';
import type { DeviceCounters, PacketDevice } from '../device/index.ts';
import { ApiMisuseError } from '../errors.ts';
import {
  FragmentPart,
  PacketHeader,
  PacketKind,
  Parse,
  Protocol,
  VNET_HEADER_LENGTH,
} from '../packet/index.ts';
import { PacketView } from '../packet/view.ts';
import { DeadlineTimer } from './deadline-timer.ts';
import { isHostAt, isUnicastAt } from './ip/address-at.ts';
import type { SiteView } from './site/site-view.ts';
import { type PacketSource, SourceRing } from './source-ring.ts';
import { Turns } from './turns.ts';

/** A protocol of the stack. None of its methods but `takeEvents` may run code of the program. */
export interface StackEndpoint extends PacketSource {
  /** The time, in ms of the monotonic clock, that holds for what follows. */
  advance(nowMs: number): void;
  /**
   * Takes the frame at `buffer[vnet ..]`, which has come for the stack. `header` has its checked headers; it holds
   * during the call, as the bytes do.
   */
  receive(buffer: Buffer, vnet: number, header: PacketHeader): void;
  /** When `expire` is due, in ms of the monotonic clock; Infinity if it is not. */
  readonly deadline: number;
  expire(): void;
  /** Called when `read` has frames, once until it returns 0. */
  onReady: () => void;
  /** Called when events wait, once until `takeEvents`. */
  onEvents: () => void;
  /** Called when `deadline` is earlier than it was when it was read last. */
  onDeadline: () => void;
  /** Hands the events to the program. */
  takeEvents(): void;
}

export interface StackEndpoints {
  readonly tcp: StackEndpoint;
  readonly udp: StackEndpoint;
  readonly icmp: StackEndpoint;
}

/** Cumulative. What TCP, UDP and ICMP refuse is in their own counters. */
export interface StackDeviceCounters extends DeviceCounters {
  /** Packets that were read and that the data plane had no room for. */
  refused: number;
  /** Packets whose headers are wrong. */
  dropMalformed: number;
  /** Packets for another address. */
  dropNotOwn: number;
  /** Packets from an address that is no presence of the site; ICMP errors may come from any host. */
  dropBadSource: number;
  /** Packets of protocols that the stack has not, and fragments of others than UDP and ICMP. */
  dropUnsupported: number;
}

export interface StackDeviceOptions {
  readonly name: string;
  readonly mtu: number;
  readonly offload: boolean;
  readonly clock: Clock;
  readonly endpoints: StackEndpoints;
  /** The site as it is now. */
  readonly view: () => SiteView;
  /** Whether packets to other addresses than the stack's own are for it: the stack has a service side. */
  readonly hasBackend: () => boolean;
  /** Called with a whole packet of a protocol that the stack does not have; runs no code of the program. */
  readonly onUnknownProtocol: (buffer: Buffer, header: PacketHeader) => void;
}

export class StackDevice implements PacketDevice {
  readonly name: string;
  readonly mtu: number;
  readonly offload: boolean;
  readonly counters: Readonly<StackDeviceCounters>;
  readonly #counters: StackDeviceCounters;
  readonly #clock: Clock;
  readonly #view: () => SiteView;
  readonly #hasBackend: () => boolean;
  readonly #onUnknownProtocol: StackDeviceOptions['onUnknownProtocol'];
  readonly #endpoints: readonly StackEndpoint[];
  readonly #tcp: StackEndpoint;
  readonly #udp: StackEndpoint;
  readonly #icmp: StackEndpoint;
  readonly #header = new PacketHeader();
  readonly #views = new PacketView();
  /** The source and the destination of a packet. */
  readonly #words = new Int32Array(8);
  readonly #ring: SourceRing;
  readonly #turns: Turns;
  readonly #timer: DeadlineTimer;
  #onReadable: (() => void) | undefined;
  #isPaused = false;
  #isUp = true;
  #isClosed = false;
  /** Whether the endpoints know the time of this callback of the event loop. */
  #isTimeSet = false;
  #nowMs = 0;
  #hasEvents = false;

  constructor(options: StackDeviceOptions) {
    const { name, mtu, offload, clock, endpoints, view, hasBackend, onUnknownProtocol } = options;
    this.name = name;
    this.mtu = mtu;
    this.offload = offload;
    this.#clock = clock;
    this.#view = view;
    this.#hasBackend = hasBackend;
    this.#onUnknownProtocol = onUnknownProtocol;
    this.#tcp = endpoints.tcp;
    this.#udp = endpoints.udp;
    this.#icmp = endpoints.icmp;
    this.#counters = {
      ...newDeviceCounters(),
      refused: 0,
      dropMalformed: 0,
      dropNotOwn: 0,
      dropBadSource: 0,
      dropUnsupported: 0,
    };
    this.counters = this.#counters;
    this.#endpoints = [this.#tcp, this.#udp, this.#icmp];
    this.#ring = new SourceRing(this.#endpoints);
    this.#turns = new Turns({
      deliver: () => this.#deliver(),
      canSend: () => this.#canSend(),
      send: () => this.#send(),
      settle: () => this.#settle(),
    });
    this.#timer = new DeadlineTimer(clock, (dueMs) => this.#expire(dueMs));
    for (const [index, endpoint] of this.#endpoints.entries()) {
      endpoint.onReady = () => {
        this.#ring.markReady(index);
        this.#turns.wake();
      };
      endpoint.onDeadline = () => this.#turns.wake();
      endpoint.onEvents = () => {
        this.#hasEvents = true;
        this.#turns.wake();
      };
    }
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  start(onReadable: () => void): void {
    if (this.#isClosed) throw new ApiMisuseError(`device ${this.name} is closed`);
    if (this.#onReadable) throw new ApiMisuseError(`device ${this.name} was started before`);
    this.#onReadable = onReadable;
    this.#turns.wake();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#turns.wake();
  }

  linkChanged(isUp: boolean): void {
    this.#isUp = isUp;
    this.#turns.wake();
  }

  /** The time in ms of the monotonic clock; it stands still while packets are read and written. */
  now(): number {
    return this.#isTimeSet ? this.#nowMs : this.#clock.monotonicMs();
  }

  read(buffer: Buffer, offset: number): number {
    checkReadRange(buffer, offset);
    if (this.#isClosed) return 0;
    this.#setTime();
    const length = this.#ring.read(buffer, offset);
    if (length === 0) return 0;
    this.#counters.readPackets++;
    this.#counters.readBytes += length - VNET_HEADER_LENGTH;
    return length;
  }

  refused(): void {
    this.#counters.refused++;
    this.#ring.refused();
  }

  write(buffer: Buffer, offset: number, length: number): boolean {
    checkWrite(buffer, offset, length);
    const counters = this.#counters;
    if (this.#isClosed || !isAcceptable(buffer, offset, length, this.offload, this.mtu)) {
      counters.writeDrops++;
      return false;
    }
    counters.writtenPackets++;
    counters.writtenBytes += length - VNET_HEADER_LENGTH;
    this.#setTime();
    const endpoint = this.#endpointOf(buffer, offset + VNET_HEADER_LENGTH, offset + length);
    endpoint?.receive(buffer, offset, this.#header);
    return true;
  }

  /** Ends delivery at once; events that wait are still delivered. */
  close(): Promise<void> {
    this.#isClosed = true;
    this.#timer.close();
    return Promise.resolve();
  }

  /** Finds out whose packet this is, and counts it if it is nobody's. */
  #endpointOf(buffer: Buffer, start: number, end: number): StackEndpoint | undefined {
    const counters = this.#counters;
    const header = this.#header;
    const view = this.#views.of(buffer);
    const outcome = header.parse(view, start, end, buffer.length);
    if (outcome !== Parse.Ok) {
      if (outcome === Parse.Malformed) counters.dropMalformed++;
      else counters.dropUnsupported++;
      return undefined;
    }
    const words = this.#words;
    const width = header.family === 4 ? 1 : 4;
    for (let i = 0; i < 2 * width; i++) words[i] = view.getInt32(header.source + 4 * i);
    const site = this.#view();
    if (!site.isOwn(header.family, words, width) && !this.#isForBackend(site, view, width)) {
      counters.dropNotOwn++;
      return undefined;
    }
    // An ICMP error may come from any router on the way.
    const isKnown =
      header.kind === PacketKind.IcmpError || site.isPresenceAt(header.family, words, 0);
    const isHost = isHostAt(view, header.source, header.family);
    if (!isKnown || !isHost || site.isOwn(header.family, words, 0)) {
      counters.dropBadSource++;
      return undefined;
    }
    const isWhole = header.part === FragmentPart.Whole;
    const endpoint = isWhole ? this.#endpointOfKind() : this.#endpointOfFragment();
    if (endpoint === undefined) {
      counters.dropUnsupported++;
      if (isWhole) this.#onUnknownProtocol(buffer, header);
    }
    return endpoint;
  }

  /** Whether the destination may be that of a service: of a real host, perhaps of this one by its loopback address. */
  #isForBackend(site: SiteView, view: DataView, width: number): boolean {
    if (!this.#hasBackend()) return false;
    const { family, source } = this.#header;
    const isHost = isUnicastAt(view, source + 4 * width, family);
    return isHost && !site.isPresenceAt(family, this.#words, width);
  }

  #endpointOfKind(): StackEndpoint | undefined {
    switch (this.#header.kind) {
      case PacketKind.Tcp:
        return this.#tcp;
      case PacketKind.Udp:
        return this.#udp;
      case PacketKind.EchoRequest:
      case PacketKind.EchoReply:
      case PacketKind.IcmpError:
        return this.#icmp;
      default:
        return undefined;
    }
  }

  /** UDP puts fragments together. TCP sends no packets that may be cut on the way. */
  #endpointOfFragment(): StackEndpoint | undefined {
    const { protocol } = this.#header;
    const isKnown =
      protocol === Protocol.Udp || protocol === Protocol.Icmp || protocol === Protocol.Icmpv6;
    return isKnown ? this.#udp : undefined;
  }

  /** One time holds for all packets of a callback: they may have arrived together. */
  #setTime(): void {
    if (this.#isTimeSet) return;
    this.#isTimeSet = true;
    this.#nowMs = this.#clock.monotonicMs();
    for (const endpoint of this.#endpoints) endpoint.advance(this.#nowMs);
    // The tick ends the callback.
    this.#turns.wake();
  }

  #deliver(): boolean {
    this.#isTimeSet = false;
    if (!this.#hasEvents) return false;
    this.#hasEvents = false;
    let hasThrown = true;
    try {
      for (const endpoint of this.#endpoints) endpoint.takeEvents();
      hasThrown = false;
    } finally {
      // The events behind the one whose listener has thrown are delivered in the next tick.
      if (hasThrown) {
        this.#hasEvents = true;
        this.#turns.wake();
      }
    }
    return true;
  }

  #canSend(): boolean {
    return (
      this.#ring.isReady &&
      this.#onReadable !== undefined &&
      this.#isUp &&
      !this.#isPaused &&
      !this.#isClosed
    );
  }

  #send(): void {
    this.#onReadable!();
  }

  #settle(): void {
    this.#timer.set(this.#deadline());
  }

  #deadline(): number {
    let deadlineMs = Number.POSITIVE_INFINITY;
    for (const { deadline } of this.#endpoints) if (deadline < deadlineMs) deadlineMs = deadline;
    return deadlineMs;
  }

  #expire(dueMs: number): void {
    if (this.#deadline() <= dueMs) {
      this.#setTime();
      for (const endpoint of this.#endpoints) endpoint.expire();
    } else {
      this.#settle();
    }
  }
}
