/**
 * A Linux TUN interface ([tuntap](https://docs.kernel.org/networking/tuntap.html)) with virtio-net
 * headers: super-packets and partial checksums pass unchanged between the kernel and the library.
 *
 * The path of a packet:
 * 1. The event loop finds the TUN readable and calls `onReadable` (`wakeup.ts`).
 * 2. The reader calls `read` as often as it likes; each call is a read(2) into the reader's buffer.
 * 3. The kernel queues packets that are not read, and drops them above `queueLength` packets.
 * 4. `write` is a write(2) from the caller's buffer; the kernel takes the packet or refuses it.
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
  /** Name of the interface, at most 15 characters; the kernel replaces `%d` by the first free number. */
  readonly name: string;
  /** In bytes; 1500 by default. */
  readonly mtu?: number;
  /**
   * The number of packets that may wait to be read, from 1 to 100,000; default 10,000. The kernel's own
   * default, 500, is less than one burst of many connections, and a connection that loses a whole burst
   * stalls. In a user namespace the kernel keeps its own value.
   */
  readonly queueLength?: number;
  /** Whether super-packets and partial checksums pass; default true. */
  readonly offload?: boolean;
  /**
   * Keeps the interface, its addresses and routes when the device is closed, so that programs do not get
   * "network unreachable" during a restart. Default false, which does not change an interface that is
   * persistent already.
   */
  readonly persist?: boolean;
  /** How the device learns that packets wait; default `auto`. */
  readonly wakeup?: WakeupKind;
  /**
   * Called once if the interface was deleted, for example by `ip link delete`; nothing is read any more
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

/** A TUN of this process; created by `open`. Buffers belong to the caller. */
export class LinuxTun implements PacketDevice, AsyncDisposable {
  /**
   * Opens the interface, or creates it, sets its MTU and sets it up. `configure` sets addresses, routes and
   * forwarding. Needs CAP_NET_ADMIN, and koffi, which is loaded here.
   *
   * @throws {ApiMisuseError} if an option is invalid.
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
  /** The offloads that the kernel accepted; older kernels accept fewer (`uso` came with Linux 6.2). */
  readonly offloads: readonly TunOffload[];
  /** How this device learns that packets wait. */
  readonly wakeup: 'libuv' | 'thread-pool';
  readonly counters: Readonly<DeviceCounters>;
  readonly #counters: DeviceCounters = newDeviceCounters();
  readonly #syscalls: Syscalls;
  readonly #wakeup: Wakeup;
  readonly #onGone: ((error: EnvironmentError) => void) | undefined;
  /** -1 when the device is closed. */
  #fd: number;
  #onReadable: (() => void) | undefined;
  #isPaused = false;
  #isGone = false;
  /** The last setup, which undoes what all setups have set. */
  #setup: TunSetup | undefined;
  #lastTurn: Promise<unknown> = Promise.resolve();
  #closed: Promise<void> | undefined;

  // The buffers last used and their addresses: a reader uses the same buffer for many packets.
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
   * Sets up the machine for this interface, as `configureTun` does; `close` undoes it. Returns one sentence
   * for each thing that the machine lacks.
   *
   * @throws the errors of `configureTun`.
   */
  async configure(
    configuration: Omit<TunConfiguration, 'name' | 'mtu'>
  ): Promise<readonly string[]> {
    return this.#inTurn(() => this.#configure(configuration));
  }

  /**
   * Routes these prefixes to this interface, instead of those that `configure` and this method have set before,
   * and adapts the rules and the forwarding of `configure`; `close` undoes it. Calls run one after the other. The
   * same call again changes nothing. Returns one sentence for each thing that the machine lacks.
   *
   * @throws the errors of `TunSetup.setRoutes`; the former state is in force then.
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

  /** Keeps a reference to `buffer` until another buffer is used or the device is closed. */
  read(buffer: Buffer, offset: number): number {
    checkReadRange(buffer, offset);
    if (this.#fd < 0) return 0;
    if (buffer !== this.#readBuffer) {
      this.#readBuffer = buffer;
      this.#readAddress = this.#syscalls.addressOf(buffer);
    }
    const length = this.#syscalls.read(this.#fd, this.#readAddress + offset, MAX_FRAME_LENGTH);
    // -1: nothing waits, or the interface was deleted, which the wake-up reports.
    if (length <= VNET_HEADER_LENGTH) return 0;
    // The kernel may still set the flag that it has verified the checksums.
    if (!this.offload) buffer.fill(0, offset, offset + VNET_HEADER_LENGTH);
    this.#counters.readPackets++;
    this.#counters.readBytes += length - VNET_HEADER_LENGTH;
    return length;
  }

  /** Keeps a reference to `buffer` until another buffer is used or the device is closed. */
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

  /** @throws {EnvironmentError} if the setup of `configure` cannot be undone; the interface is closed nevertheless. */
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

/** @throws {ApiMisuseError} if an option is invalid. */
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

/** Opens the file in non-blocking mode; Node adds O_CLOEXEC. */
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
