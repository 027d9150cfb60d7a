/**
 * A pair of linked packet devices in memory: a packet that is written to one is read from the other. They are
 * for tests and examples without root, and can simulate the faults of a bad network.
 * @module
 */
import { type Clock, systemClock } from '../base/clock.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import {
  checkMtu,
  checkReadRange,
  checkTexts,
  checkType,
  checkWhole,
  checkWrite,
  DEFAULT_MTU,
  isAcceptable,
  newDeviceCounters,
} from './contract.ts';
import { Delivery, type Schedule } from './delivery.ts';
import type { DeviceCounters, PacketDevice } from './device.ts';
import { type FaultCounters, FaultInjector, type Faults } from './faults.ts';
import { PacketQueue } from './packet-queue.ts';

export interface MemoryDeviceOptions {
  /** Names of the two devices; default `memory0` and `memory1`. */
  readonly names?: readonly [string, string];
  /** In bytes; default 1500. */
  readonly mtu?: number;
  /** Whether super-packets and partial checksums pass; default true. */
  readonly offload?: boolean;
  /** The number of packets that may wait or be on their way in each direction; default 1024. */
  readonly queueLength?: number;
  /** The faults of the packets that the first and the second device write; default none. */
  readonly faults?: { readonly first?: Faults; readonly second?: Faults };
  /** Default `setImmediate`. */
  readonly schedule?: Schedule;
  /** The clock of `delayMs` and `jitterMs` of the faults; default that of the system. */
  readonly clock?: Clock;
}

export const MEMORY_DEVICE_DEFAULTS: Readonly<
  Required<Pick<MemoryDeviceOptions, 'names' | 'mtu' | 'offload' | 'queueLength'>>
> = Object.freeze({
  names: Object.freeze(['memory0', 'memory1'] as const),
  mtu: DEFAULT_MTU,
  offload: true,
  queueLength: 1024,
});

/** One end of a pair. */
export class MemoryDevice implements PacketDevice, AsyncDisposable {
  /**
   * Creates two linked devices.
   *
   * @throws {ApiMisuseError} if an option is invalid.
   */
  static pair(options: MemoryDeviceOptions = {}): [MemoryDevice, MemoryDevice] {
    const { names = MEMORY_DEVICE_DEFAULTS.names, faults } = checkOptions(options);
    const first = new MemoryDevice(names[0], options, faults?.first);
    const second = new MemoryDevice(names[1], options, faults?.second);
    first.#peer = second;
    second.#peer = first;
    return [first, second];
  }

  readonly name: string;
  readonly mtu: number;
  readonly offload: boolean;
  readonly counters: Readonly<DeviceCounters>;
  /** The faults of the packets that this device has written. */
  readonly faults: Readonly<FaultCounters>;
  readonly #counters: DeviceCounters = newDeviceCounters();
  readonly #queue: PacketQueue;
  readonly #delivery: Delivery;
  readonly #injector: FaultInjector;
  readonly #clock: Clock;
  /** Ends the wait for the first packet, if it is still on its way. */
  #stopWaiting: (() => void) | undefined;
  #peer!: MemoryDevice;
  #closing: Promise<void> | undefined;

  private constructor(name: string, options: MemoryDeviceOptions, faults: Faults = {}) {
    const {
      mtu = MEMORY_DEVICE_DEFAULTS.mtu,
      offload = MEMORY_DEVICE_DEFAULTS.offload,
      queueLength = MEMORY_DEVICE_DEFAULTS.queueLength,
      clock = systemClock,
    } = options;
    this.name = name;
    this.mtu = mtu;
    this.offload = offload;
    this.counters = this.#counters;
    this.#queue = new PacketQueue(queueLength);
    this.#clock = clock;
    this.#delivery = new Delivery(name, () => this.#isDue(), options.schedule ?? setImmediate);
    this.#injector = new FaultInjector(faults, () => clock.monotonicMs());
    this.faults = this.#injector.counters;
  }

  start(onReadable: () => void): void {
    this.#delivery.start(onReadable);
  }

  pause(): void {
    this.#delivery.pause();
  }

  resume(): void {
    this.#delivery.resume();
  }

  read(buffer: Buffer, offset: number): number {
    checkReadRange(buffer, offset);
    const length = this.#isDue() ? this.#queue.shift(buffer, offset) : 0;
    this.#awaitFirst();
    if (length === 0) return 0;
    this.#counters.readPackets++;
    this.#counters.readBytes += length - VNET_HEADER_LENGTH;
    return length;
  }

  write(buffer: Buffer, offset: number, length: number): boolean {
    checkWrite(buffer, offset, length);
    const peer = this.#peer;
    if (
      this.#delivery.isClosed ||
      peer.#delivery.isClosed ||
      !isAcceptable(buffer, offset, length, this.offload, this.mtu) ||
      !this.#injector.push(peer.#queue, buffer, offset, length)
    ) {
      this.#counters.writeDrops++;
      return false;
    }
    this.#counters.writtenPackets++;
    this.#counters.writtenBytes += length - VNET_HEADER_LENGTH;
    peer.#delivery.wake();
    peer.#awaitFirst();
    return true;
  }

  close(): Promise<void> {
    this.#delivery.close();
    this.#queue.clear();
    this.#stopWaiting?.();
    this.#stopWaiting = undefined;
    this.#closing ??= Promise.resolve();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Whether the first packet has arrived. The clock is asked only if there are delays. */
  #isDue(): boolean {
    const { dueMs } = this.#queue;
    return dueMs === 0 || (dueMs < Number.POSITIVE_INFINITY && dueMs <= this.#clock.monotonicMs());
  }

  /** Sets the timer for the first packet, if it is still on its way. */
  #awaitFirst(): void {
    const { dueMs } = this.#queue;
    if (dueMs === 0 || dueMs === Number.POSITIVE_INFINITY || this.#stopWaiting !== undefined) {
      return;
    }
    const delayMs = dueMs - this.#clock.monotonicMs();
    if (delayMs <= 0) return;
    this.#stopWaiting = this.#clock.after(delayMs, () => {
      this.#stopWaiting = undefined;
      this.#delivery.wake();
      this.#awaitFirst();
    });
  }
}

function checkOptions(options: MemoryDeviceOptions): MemoryDeviceOptions {
  checkType('options', options, 'object');
  const { names, mtu, offload, queueLength, faults, schedule, clock } = options;
  checkTexts('names', names);
  if (names !== undefined) checkWhole('length of names', names.length, 2, 2);
  if (mtu !== undefined) checkMtu(mtu);
  if (queueLength !== undefined) checkWhole('queueLength', queueLength, 1, MAX_QUEUE_LENGTH);
  checkType('offload', offload, 'boolean');
  checkType('faults', faults, 'object');
  checkType('schedule', schedule, 'function');
  checkType('clock', clock, 'object');
  return options;
}

const MAX_QUEUE_LENGTH = 1_048_576;
