/**
 * A Linux TUN interface ([tuntap](https://docs.kernel.org/networking/tuntap.html)) with virtio-net
 * headers: super-packets and partial checksums pass between the kernel and the library as they are.
 *
 * A packet's way:
 * 1. The event loop finds the TUN readable and calls `onReadable` (`wakeup.ts`).
 * 2. The reader calls `read`, a read(2) straight into its buffer, as often as it likes.
 * 3. What it does not take, the kernel queues, and drops above `queueLength` packets.
 * 4. `write` is a write(2) straight from the buffer; the kernel takes the packet or refuses it.
 * @module
 */

import { closeSync, constants, openSync } from 'node:fs';
import type { PrefixInput } from '../base/prefix.ts';
import { ApiMisuseError, EnvironmentError } from '../errors.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import { configureTun, type TunConfiguration } from './configure.ts';
import {
  checkGiven,
  checkMtu,
  checkReadRange,
  checkType,
  checkWhole,
  checkWrite,
  DEFAULT_MTU,
  isAcceptable,
  MAX_FRAME_LENGTH,
  newDeviceCounters,
} from './contract.ts';
import type { DeviceCounters, PacketDevice } from './device.ts';
import { loadSyscalls, type Syscalls } from './syscalls.ts';
import type { TunSetup } from './tun-routes.ts';
import { attachTun, bringUp, checkTunName, type TunOffload } from './tun-setup.ts';
import { createWakeup, WAKEUP_KINDS, type Wakeup, type WakeupKind } from './wakeup.ts';

export interface LinuxTunOptions {
  /** Name of the interface, at most 15 characters; `%d` in it stands for the first free number. */
  readonly name: string;
  /** In bytes; 1500 by default. */
  readonly mtu?: number;
  /**
   * Packets that may wait to be read, from 1 to 100,000; 10,000 by default. The kernel's own default,
   * 500, is less than one burst of many connections: those that lose all of it starve. In a user
   * namespace it stays as it is.
   */
  readonly queueLength?: number;
  /** Whether super-packets and partial checksums pass; true by default. */
  readonly offload?: boolean;
  /**
   * Keeps the interface, its addresses and routes when the device is closed, so that a restart is
   * not seen as "network unreachable"; false by default, which leaves as it is an interface that
   * was made persistent before.
   */
  readonly persist?: boolean;
  /** How the device learns that packets wait; `auto` by default. */
  readonly wakeup?: WakeupKind;
  /**
   * Called once if the interface is gone, for example by `ip link delete`; nothing is read any more
   * then. By default the error becomes an uncaught exception.
   */
  readonly onGone?: (error: EnvironmentError) => void;
}

export const LINUX_TUN_DEFAULTS: Readonly<Required<Omit<LinuxTunOptions, 'name' | 'onGone'>>> =
  Object.freeze({
    mtu: DEFAULT_MTU,
    queueLength: 10_000,
    offload: true,
    persist: false,
    wakeup: 'auto',
  });

/** Not to be made with `new`; the buffers stay the caller's. */
export class LinuxTun implements PacketDevice, AsyncDisposable {
  /**
   * Opens the interface, making it if need be, sets its MTU and takes it up. Addresses, routes and
   * forwarding are set by `configure`. Needs CAP_NET_ADMIN, and koffi, which is loaded here.
   *
   * @throws {ApiMisuseError} if an option is out of range.
   * @throws {EnvironmentError} if this machine has no TUN, or does not let this process use it.
   */
  static async open(options: LinuxTunOptions): Promise<LinuxTun> {
    const resolved = resolveOptions(options);
    if (process.platform !== 'linux') {
      throw new EnvironmentError(`a Linux TUN cannot be opened on ${process.platform}`);
    }
    const syscalls = await loadSyscalls();
    const fd = openTunFile();
    try {
      const { mtu, offload, persist, queueLength } = resolved;
      const { name, offloads } = attachTun(syscalls, fd, resolved.name, offload, persist);
      bringUp(syscalls, name, mtu, queueLength);
      return new LinuxTun(syscalls, fd, name, offloads, resolved);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  readonly name: string;
  readonly mtu: number;
  readonly offload: boolean;
  /** What the kernel accepted; a peer's kernel may accept less (`uso` came with Linux 6.2). */
  readonly offloads: readonly TunOffload[];
  /** How the device learns that packets wait. */
  readonly wakeup: 'libuv' | 'thread-pool';
  readonly counters: Readonly<DeviceCounters>;
  readonly #counters: DeviceCounters = newDeviceCounters();
  readonly #syscalls: Syscalls;
  readonly #wakeup: Wakeup;
  readonly #onGone: ((error: EnvironmentError) => void) | undefined;
  /** -1 when closed. */
  #fd: number;
  #onReadable: (() => void) | undefined;
  #isPaused = false;
  #isGone = false;
  /** The last one undoes what all have set. */
  #setup: TunSetup | undefined;
  #lastTurn: Promise<unknown> = Promise.resolve();
  #closed: Promise<void> | undefined;

  // The buffers last used and where they are: a reader uses the same one for many packets.
  #readBuffer: Buffer | undefined;
  #readAddress = 0;
  #writeBuffer: Buffer | undefined;
  #writeAddress = 0;

  private constructor(
    syscalls: Syscalls,
    fd: number,
    name: string,
    offloads: readonly TunOffload[],
    options: ResolvedOptions
  ) {
    this.#syscalls = syscalls;
    this.#fd = fd;
    this.name = name;
    this.mtu = options.mtu;
    this.offload = options.offload;
    this.offloads = offloads;
    this.counters = this.#counters;
    this.#onGone = options.onGone;
    this.#wakeup = createWakeup(options.wakeup, fd, syscalls, {
      onReadable: () => this.#onReadable!(),
      onBroken: () => this.#gone(),
    });
    this.wakeup = this.#wakeup.kind;
  }

  /**
   * Sets the machine up for this interface, as `configureTun` does; `close` undoes it. Returns what the
   * machine lacks, one sentence each.
   *
   * @throws what `configureTun` throws.
   */
  async configure(
    configuration: Omit<TunConfiguration, 'name' | 'mtu'>
  ): Promise<readonly string[]> {
    return this.#inTurn(() => this.#configure(configuration));
  }

  /**
   * Has these prefixes lead to this interface, instead of those that `configure` and this method have set before,
   * and adapts the rules and the forwarding that `configure` has set; `close` undoes it. Calls run one after the
   * other. The same call again changes nothing. Returns what the machine lacks, one sentence each.
   *
   * @throws what `TunSetup.setRoutes` throws; then the former state is in force.
   */
  async setRoutes(routes: readonly PrefixInput[]): Promise<readonly string[]> {
    return this.#inTurn(() => this.#setup?.setRoutes({ routes }) ?? this.#configure({ routes }));
  }

  /** Keeps the process alive until `pause` or `close`. */
  start(onReadable: () => void): void {
    if (this.#closed) throw new ApiMisuseError(`device ${this.name} is closed`);
    if (this.#onReadable) throw new ApiMisuseError(`device ${this.name} was started before`);
    this.#onReadable = onReadable;
    if (!this.#isPaused) this.#wakeup.on();
  }

  pause(): void {
    this.#isPaused = true;
    if (this.#isDelivering()) this.#wakeup.off();
  }

  resume(): void {
    this.#isPaused = false;
    if (this.#isDelivering()) this.#wakeup.on();
  }

  /** Keeps a reference to `buffer` until another one is used, or `close`. */
  read(buffer: Buffer, offset: number): number {
    checkReadRange(buffer, offset);
    if (this.#fd < 0) return 0;
    if (buffer !== this.#readBuffer) {
      this.#readBuffer = buffer;
      this.#readAddress = this.#syscalls.addressOf(buffer);
    }
    const length = this.#syscalls.read(this.#fd, this.#readAddress + offset, MAX_FRAME_LENGTH);
    // -1: nothing waits, or the interface is gone, which the wake-up tells
    if (length <= VNET_HEADER_LENGTH) return 0;
    // the kernel may still say that it has verified the checksums
    if (!this.offload) buffer.fill(0, offset, offset + VNET_HEADER_LENGTH);
    this.#counters.readPackets++;
    this.#counters.readBytes += length - VNET_HEADER_LENGTH;
    return length;
  }

  /** Keeps a reference to `buffer` until another one is used, or `close`. */
  write(buffer: Buffer, offset: number, length: number): boolean {
    checkWrite(buffer, offset, length);
    if (this.#fd < 0 || !isAcceptable(buffer, offset, length, this.offload, this.mtu)) {
      this.#counters.writeDrops++;
      return false;
    }
    if (buffer !== this.#writeBuffer) {
      this.#writeBuffer = buffer;
      this.#writeAddress = this.#syscalls.addressOf(buffer);
    }
    if (this.#syscalls.write(this.#fd, this.#writeAddress + offset, length) !== length) {
      this.#counters.writeDrops++;
      return false;
    }
    this.#counters.writtenPackets++;
    this.#counters.writtenBytes += length - VNET_HEADER_LENGTH;
    return true;
  }

  /** @throws {EnvironmentError} if what `configure` has set cannot be undone; the interface is closed then too. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const fd = this.#fd;
    this.#fd = -1;
    this.#readBuffer = undefined;
    this.#writeBuffer = undefined;
    await this.#wakeup.close();
    await this.#lastTurn;
    try {
      await this.#setup?.close();
    } finally {
      closeSync(fd);
    }
  }

  async #configure(
    configuration: Omit<TunConfiguration, 'name' | 'mtu'>
  ): Promise<readonly string[]> {
    this.#setup = await configureTun({ ...configuration, name: this.name });
    return this.#setup.problems;
  }

  /** @throws {ApiMisuseError} if the device is closed. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new ApiMisuseError(`device ${this.name} is closed`);
    const working = this.#lastTurn.then(work);
    this.#lastTurn = working.catch(() => {});
    return working;
  }

  #isDelivering(): boolean {
    return this.#onReadable !== undefined && this.#closed === undefined && !this.#isGone;
  }

  #gone(): void {
    this.#isGone = true;
    const error = new EnvironmentError(`interface ${this.name} is gone`);
    if (!this.#onGone) throw error;
    this.#onGone(error);
  }
}

type ResolvedOptions = Required<Omit<LinuxTunOptions, 'onGone'>> & Pick<LinuxTunOptions, 'onGone'>;

/** @throws {ApiMisuseError} if an option is not what it has to be. */
function resolveOptions(options: LinuxTunOptions): ResolvedOptions {
  checkGiven('options', options, 'object');
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const { name } = options;
  const resolved: ResolvedOptions = { ...LINUX_TUN_DEFAULTS, name, ...Object.fromEntries(given) };
  checkTunName(name);
  checkMtu(resolved.mtu);
  checkWhole('queueLength', resolved.queueLength, 1, MAX_QUEUE_LENGTH);
  checkType('offload', resolved.offload, 'boolean');
  checkType('persist', resolved.persist, 'boolean');
  checkType('onGone', resolved.onGone, 'function');
  if (!WAKEUP_KINDS.includes(resolved.wakeup)) {
    throw new ApiMisuseError(
      `wakeup must be one of ${WAKEUP_KINDS.join(', ')}, not ${resolved.wakeup}`
    );
  }
  return resolved;
}

/** Opens without blocking; Node adds O_CLOEXEC. */
function openTunFile(): number {
  try {
    return openSync(TUN_FILE, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const reason = OPEN_FAULTS[code ?? ''] ?? `${TUN_FILE} cannot be opened: ${message}`;
    throw new EnvironmentError(reason, { cause });
  }
}

const MAX_QUEUE_LENGTH = 100_000;
const TUN_FILE = '/dev/net/tun';

const OPEN_FAULTS: Readonly<Record<string, string>> = {
  ENOENT: `${TUN_FILE} is missing; load the kernel module tun, or pass the device into the container`,
  ENODEV: `${TUN_FILE} has no driver; load the kernel module tun`,
  EACCES: `this process has no permission to open ${TUN_FILE}`,
  EPERM: `this process is not allowed to open ${TUN_FILE}`,
};
