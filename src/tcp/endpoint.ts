/**
 * A TCP endpoint in user space, without I/O: frames go in by `receive` and come out by `read`, time is what the option
 * `now` returns, and the caller sets a timer for `deadline`.
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
import { BlockTable } from './block-table.ts';
import { connectionOf, type TcpConnection, type TcpOwner } from './connection.ts';
import type { BlockHost, ControlBlock } from './control-block.ts';
import { newCounters, type TcpCounters } from './counters.ts';
import {
  checkedLimits,
  checkedMtu,
  type TcpEndpointOptions,
  type TcpLimits,
} from './endpoint-options.ts';
import { EventQueue } from './event-queue.ts';
import type { HalfOpen } from './half-open.ts';
import { receiveInSynSent } from './handshake.ts';
import { type IcmpError, onIcmpError, usableMtu } from './icmp-error.ts';
import { SequenceNumbers } from './isn.ts';
import { type ListenerOwner, ListenerTable, TcpListener } from './listener.ts';
import { LocalPorts } from './local-ports.ts';
import { BufferMemory, SMALL_SLAB } from './memory.ts';
import { openActive, openPassive } from './open.ts';
import { TcpOpenError } from './open-error.ts';
import { PassiveOpens } from './passive-open.ts';
import { ReadyClass, ReadyQueue } from './ready-queue.ts';
import { receiveSegment } from './receive.ts';
import { FIRST_WINDOW } from './receive-window.ts';
import { relieve } from './relief.ts';
import { FLAG_ACK, FLAG_RST, SegmentReader, SegmentWriter } from './segment.ts';
import { TcpState } from './state.ts';
import { TIME_WAIT_MS, TimeWaitTable } from './time-wait.ts';
import { TimerWheel } from './timer-wheel.ts';
import { deadlineOf, expireTimers, planWindowProbe, resumeBlock } from './timers.ts';
import { readiness, Transmitter } from './transmit.ts';
import { issBehind, UnconnectedSegments } from './unconnected.ts';

export class TcpEndpoint implements BlockHost {
  readonly counters: TcpCounters = newCounters();
  readonly memory: BufferMemory;
  readonly limits: TcpLimits;
  readonly mtu: number;
  readonly offload: boolean;
  /** The time of the last `advance`. */
  now: number;
  /** Called when there is something to send, once until `read` returns 0. */
  onReady: () => void = ignore;
  /** Called when there are events, once until `takeEvents`. */
  onEvents: () => void = ignore;
  /** Called when `deadline` is earlier than it was when it was read last. */
  onDeadline: () => void = ignore;

  readonly #clock: () => number;
  readonly #random: (length: number) => Uint8Array;
  readonly #pathMtu: (remote: IpAddress) => number;
  readonly #numbers: SequenceNumbers;
  readonly #header = new PacketHeader();
  readonly #views = new PacketView();
  readonly #segment = new SegmentReader();
  readonly #transmitter: Transmitter;
  readonly #answers: AnswerQueue;
  readonly #blocks = new BlockTable();
  readonly #listeners = new ListenerTable();
  readonly #passive: PassiveOpens;
  readonly #timeWait: TimeWaitTable;
  readonly #ports: LocalPorts;
  readonly #wheel: TimerWheel<ControlBlock>;
  readonly #ready = new ReadyQueue<ControlBlock>();
  readonly #events = new EventQueue();
  readonly #unconnected: UnconnectedSegments;
  #isReadySignalled = false;
  /** What the caller knows of `deadline`. */
  #knownDeadline: number = Number.POSITIVE_INFINITY;
  #isLinkUp = true;
  #relievedAt: number = Number.NEGATIVE_INFINITY;

  /** @throws {ApiMisuseError} if an option is out of its range. */
  constructor(options: TcpEndpointOptions) {
    this.#clock = options.now;
    this.#random = options.random ?? randomBytes;
    this.#pathMtu = options.pathMtu ?? unknownMtu;
    this.limits = checkedLimits(options.limits);
    this.mtu = checkedMtu(options.mtu);
    this.offload = options.offload ?? true;
    this.now = this.#clock();
    this.memory = new BufferMemory(this.limits.bufferBytes);
    this.#numbers = new SequenceNumbers(this.#random(32));
    const writer = new SegmentWriter(this.offload);
    this.#transmitter = new Transmitter(writer);
    this.#answers = new AnswerQueue(writer, this.limits.resetsPerSecond);
    this.#timeWait = new TimeWaitTable(this.limits.timeWait);
    this.#ports = new LocalPorts({
      numbers: this.#numbers,
      random: this.#random,
      blocks: this.#blocks,
      listeners: this.#listeners,
      timeWait: this.#timeWait,
    });
    this.#wheel = new TimerWheel(this.now);
    this.#passive = new PassiveOpens(
      {
        limit: this.limits.halfOpen,
        perClient: this.limits.halfOpenPerClient,
        mtu: this.mtu,
        counters: this.counters,
        numbers: this.#numbers,
        answer: (answer) => this.#push(answer, true),
        firstWindow: () => (this.memory.isTight ? SMALL_SLAB : FIRST_WINDOW),
        isFull: () => this.#blocks.size >= this.limits.connections,
        establish: (opening, segment) => this.#establish(opening, segment),
      },
      this.now
    );
    this.#unconnected = new UnconnectedSegments({
      counters: this.counters,
      listeners: this.#listeners,
      passive: this.#passive,
      timeWait: this.#timeWait,
      answer: (answer) => this.#push(answer, true),
      isFull: () => this.#blocks.size + this.#passive.size >= this.limits.connections,
    });
  }

  get maxBufferBytes(): number {
    return this.limits.connectionBufferBytes;
  }

  /** How many entries each table has, and how many timers run. */
  get sizes(): Readonly<Record<'connections' | 'halfOpen' | 'timeWait' | 'timers', number>> {
    return {
      connections: this.#blocks.size,
      halfOpen: this.#passive.size,
      timeWait: this.#timeWait.size,
      timers: this.#wheel.size,
    };
  }

  /** The connections that exist. */
  *connections(): IterableIterator<TcpConnection> {
    for (const block of this.#blocks) yield connectionOf(block);
  }

  /** Reads the clock. Call it once for each batch of packets: what is received in one batch has one time. */
  advance(): void {
    this.now = this.#clock();
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
    const block = this.#blocks.findSegment(segment, hash);
    if (block !== undefined) {
      const dropped = counters.dropNoMemory;
      if (block.state === TcpState.SynSent) receiveInSynSent(block, segment, this.now);
      else receiveSegment(block, segment, this.now);
      if (this.memory.isTight) this.#relieve(counters.dropNoMemory !== dropped);
      return;
    }
    this.#unconnected.receive(segment, segment.flow(hash), this.now);
    this.#announce(this.#passive.deadline);
    this.#wake();
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
    for (;;) {
      const block = this.#ready.next();
      if (block === undefined) {
        this.#isReadySignalled = false;
        return 0;
      }
      const length = this.#transmitter.next(block, buffer, at);
      if (length > 0) {
        this.#ready.charge(block, length);
        this.update(block);
        return length;
      }
      this.#ready.remove(block);
      if (block.state >= TcpState.Established) planWindowProbe(block, this.now);
      this.#schedule(block);
    }
  }

  /** The frame that `read` returned last was not taken. */
  refused(): void {
    this.#transmitter.takeBack();
  }

  /** When `expire` has to be called, in ms of `now`; Infinity if no timer runs. */
  get deadline(): number {
    this.#knownDeadline = Math.min(
      this.#wheel.deadline,
      this.#passive.deadline,
      this.#timeWait.deadline
    );
    return this.#knownDeadline;
  }

  /** Acts on the timers that are due. */
  expire(): void {
    this.advance();
    this.#wheel.expire(this.now, this.#expireBlock);
    this.#passive.expire(this.now);
    this.#timeWait.expire(this.now);
    this.#wake();
  }

  /**
   * The link went down or came up. While it is down no timer of a transmission runs; when it is up again, each
   * connection sends one segment again within 100 ms.
   */
  linkChanged(isUp: boolean): void {
    if (isUp === this.#isLinkUp) return;
    this.advance();
    this.#isLinkUp = isUp;
    const spread = this.#random(4);
    let step = ((spread[0]! << 8) | spread[1]!) / 65_536;
    for (const block of this.#blocks) {
      if (isUp) {
        resumeBlock(block, this.now, this.now + step * RESUME_SPREAD_MS);
        // The golden ratio spreads any number of connections evenly.
        step = (step + 0.618_033_988_75) % 1;
      } else {
        block.loss.suspend();
      }
      this.update(block);
    }
  }

  /**
   * Opens a connection. The SYN is sent by the next `read`.
   *
   * @param localPort 0 takes a port that is free for this destination
   * @throws {TcpOpenError} if the port is taken, no port is free, or there are too many connections.
   */
  connect(
    local: IpAddress,
    localPort: number,
    remote: IpAddress,
    remotePort: number,
    owner: TcpOwner
  ): TcpConnection {
    this.advance();
    if (this.#blocks.size >= this.limits.connections) {
      throw new TcpOpenError('ENOBUFS', `there are ${this.limits.connections} connections already`);
    }
    const flow = this.#ports.flowTo(local, localPort, remote, remotePort, this.now);
    const timeWait = this.#timeWait;
    const entry = timeWait.find(flow);
    const iss = entry < 0 ? this.#numbers.isn(flow, this.now) : issBehind(timeWait, entry);
    if (entry >= 0) timeWait.remove(entry);
    const block = openActive(flow, this, iss, this.#numbers.timestampOffset(flow), owner);
    this.#blocks.add(block);
    this.counters.opened++;
    this.update(block);
    return connectionOf(block);
  }

  /**
   * Listens on a port.
   *
   * @param local one of the endpoint's addresses; undefined for all
   * @param port 0 takes a free one
   * @throws {TcpOpenError} if the port is taken, or none is free.
   */
  listen(
    local: IpAddress | undefined,
    port: number,
    owner: ListenerOwner,
    backlog: number
  ): TcpListener {
    const chosen = this.#ports.listeningPort(local, port);
    const listener = new TcpListener(local, chosen, owner, backlog, (closed) => {
      if (this.#listeners.remove(closed)) this.#passive.forget(closed);
    });
    this.#listeners.add(listener);
    return listener;
  }

  /** Handles an ICMP error about a segment of this endpoint. */
  onIcmpError(error: IcmpError): boolean {
    const { local, localPort, remote, remotePort } = error;
    const hash = this.#numbers.flowHash(local.words, localPort, remote.words, remotePort);
    const family = local.family;
    const block = this.#blocks.find({ family, local, localPort, remote, remotePort, hash });
    return block !== undefined && onIcmpError(block, error);
  }

  /** Calls the owners of connections that have events. It runs their code: never call it within `receive` or `read`. */
  takeEvents(): void {
    try {
      this.#events.deliver();
    } finally {
      if (this.#events.hasWaiting) this.onEvents();
    }
  }

  /** Resets all connections and ends all listeners. */
  close(cause?: Error): void {
    for (const listener of this.#listeners) listener.close();
    for (const block of this.#blocks) connectionOf(block).abort(cause);
    this.#timeWait.clear();
  }

  // What control blocks need.

  get isCrowded(): boolean {
    return this.#ready.size >= CROWD;
  }

  pathMtu(remote: IpAddress): number {
    const known = this.#pathMtu(remote);
    return known > 0 ? Math.min(usableMtu(remote.family, known), this.mtu) : this.mtu;
  }

  update(block: ControlBlock): void {
    if (block.state === TcpState.Closed || block.state === TcpState.TimeWait) return;
    const readyClass = readiness(block);
    if (readyClass !== ReadyClass.None) {
      this.#ready.add(block, readyClass);
      this.#wake();
    } else if (block.state >= TcpState.Established) {
      planWindowProbe(block, this.now);
    }
    this.#schedule(block);
  }

  notify(block: ControlBlock): void {
    if (this.#events.add(block)) this.onEvents();
  }

  answer(block: ControlBlock, isReset: boolean, sequence: number = block.acceptableSequence): void {
    const { window, timestamps } = block;
    const hasAck = block.state !== TcpState.SynSent;
    this.#push({
      flow: block.flow,
      sequence,
      acknowledgement: hasAck ? window.next : 0,
      flags: isReset ? (hasAck ? FLAG_RST | FLAG_ACK : FLAG_RST) : FLAG_ACK,
      window: isReset ? 0 : block.offerWindow(),
      // In SYN-SENT nothing is negotiated yet (RFC 7323 section 3.2).
      timestamps:
        timestamps.isUsed && hasAck
          ? { value: timestamps.at(this.now), echo: timestamps.recent }
          : undefined,
    });
    if (!isReset) timestamps.lastAckSent = window.next;
  }

  retire(block: ControlBlock, isTimeWait: boolean): void {
    this.#ready.remove(block);
    this.#wheel.cancel(block);
    this.#blocks.remove(block);
    if (isTimeWait) {
      // The peer's FIN, unless it was acknowledged in CLOSING: an ACK must not be answered with an ACK.
      if (block.isAckDue) this.answer(block, false);
      const { flow, sndNxt, window, timestamps } = block;
      this.#timeWait.add(
        flow,
        sndNxt,
        window.next,
        timestamps.isUsed,
        timestamps.recent,
        timestamps.offset,
        this.now + TIME_WAIT_MS
      );
      this.#announce(this.#timeWait.deadline);
    } else if (block.failure !== undefined) {
      this.counters.failed++;
    }
  }

  #establish(opening: HalfOpen, segment: SegmentReader): void {
    const block = openPassive(opening, this, segment);
    this.#blocks.add(block);
    this.counters.accepted++;
    this.update(block);
    // The ACK may carry payload, or a FIN.
    receiveSegment(block, segment, this.now);
    this.notify(block);
  }

  readonly #expireBlock = (block: ControlBlock): void => {
    const { now } = this;
    // The deadline may have moved since the timer was set.
    if (deadlineOf(block, this.#isLinkUp) <= now) expireTimers(block, now, this.#isLinkUp);
    this.#schedule(block);
  };

  #schedule(block: ControlBlock): void {
    if (block.state === TcpState.Closed || block.state === TcpState.TimeWait) return;
    const deadline = deadlineOf(block, this.#isLinkUp);
    if (deadline === Number.POSITIVE_INFINITY) {
      this.#wheel.cancel(block);
      return;
    }
    this.#wheel.schedule(block, deadline);
    this.#announce(deadline);
  }

  /** Something is due at this time: the caller may not expect it so early. */
  #announce(deadline: number): void {
    if (deadline >= this.#knownDeadline) return;
    this.#knownDeadline = deadline;
    this.onDeadline();
  }

  #push(answer: Answer, isLimited = false): void {
    const { counters } = this;
    if (!this.#answers.push(answer, this.now, isLimited)) {
      counters.dropAnswers++;
      return;
    }
    if ((answer.flags & FLAG_RST) !== 0) counters.resets++;
    this.#wake();
  }

  #wake(): void {
    if (this.#isReadySignalled || (this.#answers.size === 0 && this.#ready.size === 0)) return;
    this.#isReadySignalled = true;
    this.onReady();
  }

  /** Frees memory: what came out of order, and the connection that holds most and makes no progress. */
  #relieve(isUsedUp: boolean): void {
    if (this.now - this.#relievedAt < RELIEF_INTERVAL_MS) return;
    this.#relievedAt = this.now;
    const stuck = relieve(this.#blocks, this.now, isUsedUp);
    if (stuck === undefined) return;
    this.answer(stuck, true);
    stuck.end('evicted');
    // Nobody has read it for long.
    stuck.receive.destroy();
  }
}

function ignore(): void {}

function unknownMtu(): number {
  return 0;
}

/** So many connections keep the device busy whatever one of them waits for. */
const CROWD = 8;
const RESUME_SPREAD_MS = 100;
const RELIEF_INTERVAL_MS = 1_000;
