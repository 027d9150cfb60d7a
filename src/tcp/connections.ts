/**
 * All connections of an endpoint: their table, the timers that are due, who may send next, whose owner has something to
 * learn, and what is left of them in TIME-WAIT. It is what a control block knows of its endpoint.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Answer, AnswerQueue } from './answers.ts';
import { BlockTable } from './block-table.ts';
import type { BlockHost, ControlBlock } from './control-block.ts';
import { newCounters, type TcpCounters } from './counters.ts';
import type { TcpLimits } from './endpoint-options.ts';
import { EventQueue } from './event-queue.ts';
import { usableMtu } from './icmp-error.ts';
import { LastTransmission } from './last-transmission.ts';
import { BufferMemory, LARGE_SLAB } from './memory.ts';
import { ReadyClass, ReadyQueue } from './ready-queue.ts';
import { relieve } from './relief.ts';
import { FLAG_ACK, FLAG_RST } from './segment.ts';
import { TcpState } from './state.ts';
import { TIME_WAIT_MS, TimeWaitTable } from './time-wait.ts';
import { TimerWheel } from './timer-wheel.ts';
import { deadlineOf, expireTimers, planWindowProbe, resumeBlock } from './timers.ts';
import { readiness, type Transmitter } from './transmit.ts';

export interface ConnectionsOptions {
  readonly clock: () => number;
  readonly limits: TcpLimits;
  readonly mtu: number;
  readonly offload: boolean;
  /** Returns the longest packet in bytes that is known to reach a destination, 0 if nothing is known. */
  readonly pathMtu: (remote: IpAddress) => number;
  readonly answers: AnswerQueue;
  readonly transmitter: Transmitter;
  /** There is something to send; not called again until `read` returned 0. */
  readonly onReady: () => void;
  /** There are events; not called again until they are delivered. */
  readonly onEvents: () => void;
  /** Something is due earlier than the endpoint's caller knows. */
  readonly onDeadline: () => void;
}

export class Connections implements BlockHost {
  readonly counters: TcpCounters = newCounters();
  readonly lastTransmission: LastTransmission = new LastTransmission();
  readonly memory: BufferMemory;
  readonly mtu: number;
  readonly offload: boolean;
  readonly maxBufferBytes: number;
  now: number;
  readonly blocks: BlockTable;
  readonly events: EventQueue = new EventQueue();
  readonly timeWait: TimeWaitTable;
  readonly #options: ConnectionsOptions;
  readonly #wheel: TimerWheel<ControlBlock>;
  readonly #ready = new ReadyQueue<ControlBlock>();
  /** Connections that have ended and hold large slabs with what nobody has read: the memory bounds their number. */
  readonly #unread = new Set<ControlBlock>();
  #isReadySignalled = false;
  /** What the caller knows of the next deadline. */
  #knownDeadline: number = Number.POSITIVE_INFINITY;
  #isLinkUp = true;
  /** The memory of each group that has connections, or had some. */
  readonly #memories = new Map<string, BufferMemory>();

  constructor(options: ConnectionsOptions) {
    const { clock, limits, mtu, offload } = options;
    this.#options = options;
    this.memory = new BufferMemory(limits.bufferBytes);
    this.blocks = new BlockTable(limits.connections);
    this.mtu = mtu;
    this.offload = offload;
    this.maxBufferBytes = limits.connectionBufferBytes;
    this.now = clock();
    this.timeWait = new TimeWaitTable(limits.timeWait);
    this.#wheel = new TimerWheel(this.now);
  }

  /** How many timers run. */
  get timers(): number {
    return this.#wheel.size;
  }

  get isCrowded(): boolean {
    return this.#ready.size >= CROWD;
  }

  advance(): void {
    this.now = this.#options.clock();
  }

  pathMtu(remote: IpAddress): number {
    const known = this.#options.pathMtu(remote);
    return known > 0 ? Math.min(usableMtu(remote.family, known), this.mtu) : this.mtu;
  }

  update(block: ControlBlock): void {
    if (block.hasEnded) return;
    const readyClass = readiness(block);
    if (readyClass !== ReadyClass.None) {
      this.#ready.add(block, readyClass);
      this.wake();
    } else if (block.state >= TcpState.Established) {
      planWindowProbe(block, this.now);
    }
    this.#schedule(block);
  }

  notify(block: ControlBlock): void {
    if (this.events.add(block)) this.#options.onEvents();
  }

  answer(block: ControlBlock, isReset: boolean): boolean {
    const { window, timestamps } = block;
    const hasAck = block.state !== TcpState.SynSent;
    const isQueued = this.push({
      flow: block.flow,
      sequence: block.acceptableSequence,
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
    return isQueued;
  }

  /** RFC 9293 sections 3.10.7.3 and 3.10.7.4: such a reset has no ACK. Anybody can cause it, so it is bounded. */
  refuse({ flow }: ControlBlock, acknowledgement: number): void {
    const reset = {
      flow,
      sequence: acknowledgement,
      acknowledgement: 0,
      flags: FLAG_RST,
      window: 0,
    };
    this.push(reset, true);
  }

  retire(block: ControlBlock, isTimeWait: boolean): void {
    this.#ready.remove(block);
    this.#wheel.cancel(block);
    this.blocks.remove(block);
    this.keepUnread(block);
    this.#forgetMemory(block.group);
    if (isTimeWait) {
      // The peer's FIN, unless it was acknowledged in CLOSING: an ACK must not be answered with an ACK.
      if (block.isAckDue) this.answer(block, false);
      const { flow, sndNxt, window, timestamps } = block;
      this.timeWait.add(
        flow,
        sndNxt,
        window.next,
        timestamps.isUsed,
        timestamps.recent,
        timestamps.offset,
        this.now + TIME_WAIT_MS
      );
      this.announce(this.timeWait.deadline);
    }
  }

  keepUnread(block: ControlBlock): void {
    if (block.hasEnded && block.held > 0) this.#unread.add(block);
    else if (this.#unread.delete(block)) this.#forgetMemory(block.group);
  }

  /** Builds the next frame that a connection may send. Returns its length, 0 if none has something to send. */
  read(buffer: Uint8Array, at: number): number {
    for (;;) {
      const block = this.#ready.next();
      if (block === undefined) {
        this.#isReadySignalled = false;
        return 0;
      }
      const length = this.#options.transmitter.next(block, buffer, at);
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

  /**
   * Returns when `expire` has to be called; it is what the caller knows then.
   *
   * @param others when something else of the endpoint is due
   */
  deadline(others: number): number {
    this.#knownDeadline = Math.min(this.#wheel.deadline, this.timeWait.deadline, others);
    return this.#knownDeadline;
  }

  /** Acts on the timers that are due. */
  expire(): void {
    this.#wheel.expire(this.now, this.#expireBlock);
    this.timeWait.expire(this.now);
  }

  /** @param step a random number below 1 that says where the first resending connection begins */
  linkChanged(isUp: boolean, step: number): void {
    this.#isLinkUp = isUp;
    for (const block of this.blocks) {
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

  get isLinkUp(): boolean {
    return this.#isLinkUp;
  }

  /** Calls the owners of connections that have events. */
  deliver(): void {
    try {
      this.events.deliver();
    } finally {
      if (this.events.hasWaiting) this.#options.onEvents();
    }
  }

  /** Queues an answer; see `AnswerQueue.push`. */
  push(answer: Answer, isLimited = false): boolean {
    const { counters } = this;
    if (!this.#options.answers.push(answer, this.now, isLimited)) {
      counters.dropAnswers++;
      return false;
    }
    if ((answer.flags & FLAG_RST) !== 0) counters.resets++;
    this.wake();
    return true;
  }

  wake(): void {
    const hasNothing = !this.#options.answers.isReady && this.#ready.size === 0;
    if (this.#isReadySignalled || hasNothing) return;
    this.#isReadySignalled = true;
    this.#options.onReady();
  }

  /** Something is due at this time: the caller may not expect it so early. */
  announce(deadline: number): void {
    if (deadline >= this.#knownDeadline) return;
    this.#knownDeadline = deadline;
    this.#options.onDeadline();
  }

  memoryOf(group: string | undefined): BufferMemory {
    if (group === undefined) return this.memory;
    let memory = this.#memories.get(group);
    if (memory === undefined) {
      memory = new BufferMemory(Math.max(LARGE_SLAB, this.memory.limit / 4), this.memory);
      this.#memories.set(group, memory);
    }
    return memory;
  }

  /** Whether there is little memory for a group's connections. */
  isTightFor(group: string | undefined): boolean {
    const part = group === undefined ? undefined : this.#memories.get(group);
    return (part ?? this.memory).isTight;
  }

  /**
   * Frees memory: the connection that holds most and makes no progress; what came out of order, if payload was dropped
   * because not even one slab is left.
   *
   * @param part the memory that is tight; if the whole is not, the connections of other groups stay as they are
   */
  relieve(part: BufferMemory, hasDropped: boolean): void {
    const memory = this.memory.isTight ? this.memory : part;
    if (this.now - memory.relievedAt < RELIEF_INTERVAL_MS) return;
    memory.relievedAt = this.now;
    const isUsedUp = hasDropped && !memory.canTakeLarge(1);
    const only = memory === this.memory ? undefined : memory;
    const stuck = relieve([this.blocks, this.#unread], only, this.now, isUsedUp);
    if (stuck === undefined) return;
    if (!stuck.hasEnded) {
      this.answer(stuck, true);
      stuck.end('evicted');
    } else if (stuck.failure === undefined) {
      stuck.failure = 'evicted';
      this.counters.failed++;
    }
    // Nobody has read it for long.
    stuck.dropUnread();
  }

  /** What the program has not read yet of connections that have ended still counts. */
  #forgetMemory(group: string | undefined): void {
    if (group === undefined || this.blocks.groups.count(group) > 0) return;
    const { used, usedSmall } = this.memoryOf(group);
    if (used === 0 && usedSmall === 0) this.#memories.delete(group);
  }

  readonly #expireBlock = (block: ControlBlock): void => {
    const { now } = this;
    // The deadline may have moved since the timer was set.
    if (deadlineOf(block, this.#isLinkUp) <= now) expireTimers(block, now, this.#isLinkUp);
    this.#schedule(block);
  };

  #schedule(block: ControlBlock): void {
    if (block.hasEnded) return;
    const deadline = deadlineOf(block, this.#isLinkUp);
    if (deadline === Number.POSITIVE_INFINITY) {
      this.#wheel.cancel(block);
      return;
    }
    this.#wheel.schedule(block, deadline);
    this.announce(deadline);
  }
}

/** So many connections keep the device busy whatever one of them waits for. */
const CROWD = 8;
const RESUME_SPREAD_MS = 100;
const RELIEF_INTERVAL_MS = 1_000;
