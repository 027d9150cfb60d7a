/**
 * A TCP endpoint in user space, without I/O: frames go in by `receive` and come out by `read`, time is what the option
 * `clock` says, and the caller sets a timer for `deadline`.
 *
 * Packets and the code of the application never meet: `receive`, `read` and `expire` only note that a connection has
 * events, and `takeEvents` calls the owners later.
 * @module
 */
import { randomBytes } from 'node:crypto';
import type { IpAddress } from '../base/address.ts';
import { FragmentPart, PacketKind, Parse } from '../packet/fields.ts';
import { PacketHeader } from '../packet/header.ts';
import { PacketView } from '../packet/view.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import { type Answer, AnswerQueue } from './answers.ts';
import { connectionOf, type TcpConnection, type TcpOwner } from './connection.ts';
import { Connections } from './connections.ts';
import type { TcpCounters } from './counters.ts';
import {
  checkedLimits,
  checkedMtu,
  type TcpEndpointOptions,
  type TcpLimits,
} from './endpoint-options.ts';
import type { HalfOpen } from './half-open.ts';
import { receiveInSynSent } from './handshake.ts';
import { type IcmpError, onIcmpError } from './icmp-error.ts';
import { SequenceNumbers } from './isn.ts';
import { type ListenerOwner, ListenerTable, TcpListener } from './listener.ts';
import { LocalPorts } from './local-ports.ts';
import { type BufferMemory, SMALL_SLAB } from './memory.ts';
import { openActive, openPassive } from './open.ts';
import { TcpOpenError } from './open-error.ts';
import { PassiveOpens } from './passive-open.ts';
import type { TcpHolder } from './pending-open.ts';
import { receiveSegment } from './receive.ts';
import { FIRST_WINDOW } from './receive-window.ts';
import { SegmentReader, SegmentWriter } from './segment.ts';
import { TcpState } from './state.ts';
import { Transmitter } from './transmit.ts';
import { issBehind, UnconnectedSegments } from './unconnected.ts';

export class TcpEndpoint {
  readonly counters: TcpCounters;
  readonly limits: TcpLimits;
  readonly mtu: number;
  /** Whether frames may be super-segments. */
  readonly offload: boolean;
  /** Called when there is something to send, once until `read` returns 0. */
  onReady: () => void = ignore;
  /** Called when there are events, once until `takeEvents`. */
  onEvents: () => void = ignore;
  /** Called when `deadline` is earlier than it was when it was read last. */
  onDeadline: () => void = ignore;
  /**
   * Returns the group of a remote address; undefined for none, which is the default. Each group may have a quarter of
   * the connections and of the half-open ones that peers begin, of the memory, and of the resets in a second. Called
   * while a packet is handled.
   */
  groupOf: (remote: IpAddress) => string | undefined = noGroup;
  /** @internal */
  readonly host: Connections;
  readonly #random: (length: number) => Uint8Array;
  readonly #numbers: SequenceNumbers;
  readonly #header = new PacketHeader();
  readonly #views = new PacketView();
  readonly #segment = new SegmentReader();
  readonly #transmitter: Transmitter;
  readonly #answers: AnswerQueue;
  readonly #listeners = new ListenerTable();
  readonly #passive: PassiveOpens;
  readonly #ports: LocalPorts;
  readonly #unconnected: UnconnectedSegments;
  #isDestroyed = false;

  /** @throws {ApiMisuseError} if an option is out of its range. */
  constructor(options: TcpEndpointOptions) {
    const { random = randomBytes, offload = true, pathMtu = unknownMtu } = options;
    const limits = checkedLimits(options.limits);
    const mtu = checkedMtu(options.mtu);
    const writer = new SegmentWriter(offload);
    const groupOf = (remote: IpAddress): string | undefined => this.groupOf(remote);
    const answers = new AnswerQueue(writer, limits.resetsPerSecond, groupOf);
    const transmitter = new Transmitter(writer);
    const host = new Connections({
      clock: () => options.clock.monotonicMs(),
      limits,
      mtu,
      offload,
      pathMtu,
      answers,
      transmitter,
      onReady: () => this.onReady(),
      onEvents: () => this.onEvents(),
      onDeadline: () => this.onDeadline(),
    });
    const { counters, blocks, timeWait } = host;
    const listeners = this.#listeners;
    const numbers = new SequenceNumbers(random(32));
    const answer = (one: Answer): boolean => host.push(one, true);
    this.limits = limits;
    this.mtu = mtu;
    this.offload = offload;
    this.counters = counters;
    this.host = host;
    this.#random = random;
    this.#numbers = numbers;
    this.#answers = answers;
    this.#transmitter = transmitter;
    this.#ports = new LocalPorts({ numbers, random, blocks, listeners, timeWait });
    const passive = new PassiveOpens(
      {
        limit: limits.halfOpen,
        perClient: limits.halfOpenPerClient,
        mtu,
        counters,
        numbers,
        answer,
        firstWindow: (group) => (host.isTightFor(group) ? SMALL_SLAB : FIRST_WINDOW),
        advance: () => {
          host.advance();
          return host.now;
        },
        isFull: (group) => blocks.size >= limits.connections || !blocks.groups.hasRoom(group),
        establish: (opening, segment) => this.#establish(opening, segment),
        onEvents: () => this.onEvents(),
        onDeadline: () => host.announce(passive.deadline),
      },
      host.now
    );
    this.#passive = passive;
    const isFull = (group: string | undefined): boolean =>
      blocks.size + passive.size >= limits.connections || !blocks.groups.hasRoom(group);
    this.#unconnected = new UnconnectedSegments({
      counters,
      listeners,
      passive,
      timeWait,
      answer,
      groupOf,
      isFull,
    });
  }

  /** The time of the last `advance`, in ms. */
  get now(): number {
    return this.host.now;
  }

  /** The memory of all buffers. @internal */
  get memory(): BufferMemory {
    return this.host.memory;
  }

  /** How many entries each table has, and how many timers run. */
  get sizes(): Readonly<Record<'connections' | 'halfOpen' | 'timeWait' | 'timers', number>> {
    const { blocks, timeWait, timers } = this.host;
    return {
      connections: blocks.size,
      halfOpen: this.#passive.size,
      timeWait: timeWait.size,
      timers,
    };
  }

  /** The connections that exist. */
  *connections(): IterableIterator<TcpConnection> {
    for (const block of this.host.blocks) yield connectionOf(block);
  }

  /** Reads the clock. Call it once for each batch of packets: what is received in one batch has one time. */
  advance(): void {
    this.host.advance();
  }

  /** Receives the frame in `buffer[vnet .. end)`: a virtio-net header and an IP packet. It never throws. */
  receive(buffer: Uint8Array, vnet: number, end: number): void {
    const view = this.#views.of(buffer);
    const header = this.#header;
    const outcome = header.parse(view, vnet + VNET_HEADER_LENGTH, end, buffer.length);
    if (outcome !== Parse.Ok) {
      this.counters.dropMalformed++;
      return;
    }
    this.receivePacket(buffer, view, vnet, header);
  }

  /** Receives a packet whose headers are parsed. `view` is that of `buffer`. */
  receivePacket(buffer: Uint8Array, view: DataView, vnet: number, header: PacketHeader): void {
    const { counters } = this;
    counters.received++;
    if (header.kind !== PacketKind.Tcp || header.part !== FragmentPart.Whole) {
      counters.dropMalformed++;
      return;
    }
    const segment = this.#segment;
    if (!segment.read(buffer, view, vnet, header)) {
      counters.dropChecksum++;
      return;
    }
    const hash = this.#numbers.flowHash(
      segment.destination,
      segment.destinationPort,
      segment.source,
      segment.sourcePort
    );
    const { host } = this;
    const block = host.blocks.findSegment(segment, hash);
    if (block !== undefined) {
      const dropped = counters.dropNoMemory;
      if (block.state === TcpState.SynSent) receiveInSynSent(block, segment, host.now);
      else receiveSegment(block, segment, host.now);
      const { memory } = block;
      if (memory.isTight) host.relieve(memory, counters.dropNoMemory !== dropped);
      return;
    }
    this.#unconnected.receive(segment, segment.flow(hash), host.now);
    host.announce(this.#passive.deadline);
    host.wake();
  }

  /**
   * Builds the next frame in `buffer` at `at`, where the longest frame must fit. Returns its length, 0 if there is
   * nothing to send.
   */
  read(buffer: Uint8Array, at: number): number {
    const answered = this.#answers.next(buffer, at);
    if (answered > 0) {
      this.#transmitter.forget();
      this.counters.sent++;
      return answered;
    }
    return this.host.read(buffer, at);
  }

  /** The frame that `read` returned last was not taken. */
  refused(): void {
    this.counters.refused++;
    this.counters.sent--;
    this.#answers.takeBack(this.now);
    this.#transmitter.takeBack();
    this.host.announce(this.#answers.deadline);
  }

  /** When `expire` has to be called, in ms of `now`; Infinity if no timer runs. */
  get deadline(): number {
    return this.host.deadline(Math.min(this.#passive.deadline, this.#answers.deadline));
  }

  /** Acts on the timers that are due. */
  expire(): void {
    const { host } = this;
    host.advance();
    host.expire();
    this.#passive.expire(host.now);
    this.#answers.expire(host.now);
    host.wake();
  }

  /**
   * The link went down or came up. While it is down no timer of a transmission runs; when it is up again, each
   * connection sends one segment again within 100 ms.
   */
  linkChanged(isUp: boolean): void {
    const { host } = this;
    if (isUp === host.isLinkUp) return;
    host.advance();
    const [high, low] = this.#random(2);
    host.linkChanged(isUp, ((high! << 8) | low!) / 65_536);
  }

  /**
   * Opens a connection. The SYN is sent by the next `read`.
   *
   * @param localPort 0 takes a port that is free for this destination
   * @throws {TcpOpenError} if the port is taken, no port is free, there are too many connections, or the endpoint is
   *   destroyed.
   */
  connect(
    local: IpAddress,
    localPort: number,
    remote: IpAddress,
    remotePort: number,
    owner: TcpOwner
  ): TcpConnection {
    const { host, limits } = this;
    const { blocks, timeWait } = host;
    this.#checkOpen();
    host.advance();
    if (blocks.size >= limits.connections) {
      throw new TcpOpenError('ENOBUFS', `there are ${limits.connections} connections already`);
    }
    const flow = this.#ports.flowTo(local, localPort, remote, remotePort, host.now);
    const numbers = this.#numbers;
    const entry = timeWait.find(flow);
    const iss = entry < 0 ? numbers.isn(flow, host.now) : issBehind(timeWait, entry);
    if (entry >= 0) timeWait.remove(entry);
    const block = openActive(flow, host, iss, numbers.timestampOffset(flow), owner);
    blocks.add(block);
    this.counters.opened++;
    host.update(block);
    return connectionOf(block);
  }

  /**
   * Listens on a port.
   *
   * @param local one of the endpoint's addresses; undefined for all
   * @param port 0 takes a free one
   * @throws {TcpOpenError} if the port is taken, none is free, or the endpoint is destroyed.
   */
  listen(
    local: IpAddress | undefined,
    port: number,
    owner: ListenerOwner,
    backlog: number
  ): TcpListener {
    this.#checkOpen();
    const chosen = this.#ports.listeningPort(local, port);
    const listener = new TcpListener(local, chosen, owner, backlog, (closed) => {
      if (this.#listeners.remove(closed)) this.#passive.forget(closed);
    });
    this.#listeners.add(listener);
    return listener;
  }

  /**
   * Who decides about SYNs for which there is no listener, also to addresses that are not the endpoint's own; undefined
   * refuses them, which is the default.
   */
  set holder(holder: TcpHolder | undefined) {
    this.#unconnected.holder = holder;
  }

  /** Handles an ICMP error. Returns whether it is about a segment of this endpoint that is outstanding. */
  onIcmpError(error: IcmpError): boolean {
    const { local, localPort, remote, remotePort } = error;
    const hash = this.#numbers.flowHash(local.words, localPort, remote.words, remotePort);
    const family = local.family;
    const block = this.host.blocks.find({ family, local, localPort, remote, remotePort, hash });
    return block !== undefined && onIcmpError(block, error);
  }

  /** Calls the owners of connections that have events. It runs their code: never call it within `receive` or `read`. */
  takeEvents(): void {
    try {
      this.#passive.deliver();
    } finally {
      this.host.deliver();
    }
  }

  /** Resets all connections, and ends all listeners and all handshakes. None can be opened after that. */
  destroy(cause?: Error): void {
    this.#isDestroyed = true;
    for (const listener of this.#listeners) listener.stop();
    this.#passive.clear();
    for (const block of this.host.blocks) connectionOf(block).abort(cause);
    this.host.timeWait.clear();
  }

  #checkOpen(): void {
    if (this.#isDestroyed) throw new TcpOpenError('ENETDOWN', 'the endpoint is destroyed');
  }

  #establish(opening: HalfOpen, segment: SegmentReader): void {
    const { host } = this;
    const block = openPassive(opening, host, segment);
    host.blocks.add(block);
    this.counters.accepted++;
    host.update(block);
    // The ACK may carry payload, or a FIN.
    receiveSegment(block, segment, host.now);
    host.notify(block);
  }
}

function ignore(): void {}

function noGroup(): undefined {}

function unknownMtu(): number {
  return 0;
}
