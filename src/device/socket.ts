/**
 * A packet device without a kernel interface: bare IP packets over UDP or over a unix stream socket,
 * for a host program that has a network stack of its own, or a virtual machine.
 *
 * There is no virtio-net header on the wire, so packets must be whole: `offload` is false.
 * Neither transport authenticates or encrypts; keep it on one machine or within a trusted network.
 * (Datagrams over a unix socket are not offered: `node:dgram` has none.)
 * @module
 */
import { type Clock, systemClock } from '../base/clock.ts';
import {
  AddressPortSchema,
  type HostPort,
  type HostPortInput,
  ListenAddressSchema,
} from '../base/host-port.ts';
import { parseSchema, type Schema } from '../base/schema.ts';
import { ApiMisuseError } from '../errors.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import {
  checkGiven,
  checkMtu,
  checkReadRange,
  checkType,
  checkWhole,
  checkWrite,
  DEFAULT_MTU,
  isAcceptable,
  newDeviceCounters,
} from './contract.ts';
import { Delivery, type Schedule } from './delivery.ts';
import type { DeviceCounters, PacketDevice } from './device.ts';
import { PacketQueue } from './packet-queue.ts';
import type { Receiver, SocketFaultCounters, Transport } from './transport.ts';
import { MAX_DATAGRAM_LENGTH, UdpTransport } from './udp-transport.ts';
import { UnixTransport } from './unix-transport.ts';

export type SocketDeviceOptions = UdpDeviceOptions | UnixDeviceOptions;

/** What a device has, over whichever socket. */
export interface CommonSocketOptions {
  /** For messages; the local address or path by default. */
  readonly name?: string;
  /** In bytes; 1500 by default. Longer packets are not written; they are read. */
  readonly mtu?: number;
  /** How many packets may wait in each direction; 1024 by default. */
  readonly queueLength?: number;
  /** `setImmediate` by default. */
  readonly schedule?: Schedule;
}

/** Packets over UDP, one in each datagram. */
export interface UdpDeviceOptions extends CommonSocketOptions {
  readonly type: 'udp';
  /** The IP address and port where to receive; port 0 takes a free one, see `SocketDevice.local`. */
  readonly local: HostPortInput;
  /** The IP address and port where packets go; those from elsewhere are dropped. Not given with `learnPeer`. */
  readonly peer?: HostPortInput;
  /**
   * Instead of `peer`: the source of the first datagram is the peer from then on, whoever it is;
   * false by default.
   */
  readonly learnPeer?: boolean;
}

/**
 * Packets over a unix stream socket; each stands behind its length as 32-bit big-endian number, as with QEMU's
 * `-netdev stream` and passt (which carry Ethernet frames; here it is IP packets).
 */
export interface UnixDeviceOptions extends CommonSocketOptions {
  readonly type: 'unix';
  /** At most 107 bytes. */
  readonly path: string;
  /**
   * `listen` takes one connection at a time and removes a socket file that nobody listens at any
   * more; who may connect is a matter of the file's directory. `connect` comes back when the
   * connection is lost.
   */
  readonly role: 'listen' | 'connect';
  /** For `connect`: how long to wait before each new try, in milliseconds; 1000 by default. */
  readonly reconnectMs?: number;
  /** The system's by default. */
  readonly clock?: Clock;
}

export const SOCKET_DEVICE_DEFAULTS: Readonly<{
  mtu: number;
  queueLength: number;
  learnPeer: boolean;
  reconnectMs: number;
}> = Object.freeze({
  mtu: DEFAULT_MTU,
  queueLength: 1024,
  learnPeer: false,
  reconnectMs: 1000,
});

export interface SocketDeviceCounters extends DeviceCounters, SocketFaultCounters {}

export class SocketDevice implements PacketDevice, AsyncDisposable {
  /**
   * Opens the socket.
   *
   * @throws {ApiMisuseError} if an option is not what it has to be, or not exactly one of `peer` and `learnPeer` is
   *   given.
   * @throws {EnvironmentError} if the address or path cannot be had, for example because it is in use, or nobody
   *   listens at the path.
   */
  static async open(options: SocketDeviceOptions): Promise<SocketDevice> {
    checkGiven('options', options, 'object');
    const { type } = options;
    if (type === 'udp') return SocketDevice.#openUdp(options);
    if (type === 'unix') return SocketDevice.#openUnix(options);
    throw new ApiMisuseError(`type must be udp or unix, not ${type}`);
  }

  static async #openUdp(options: UdpDeviceOptions): Promise<SocketDevice> {
    const { learnPeer = SOCKET_DEVICE_DEFAULTS.learnPeer } = options;
    checkType('learnPeer', learnPeer, 'boolean');
    if ((options.peer !== undefined) === learnPeer) {
      throw new ApiMisuseError('a UDP device needs either peer or learnPeer');
    }
    const local = endpoint(ListenAddressSchema, 'local', options.local);
    const peer = learnPeer ? undefined : endpoint(AddressPortSchema, 'peer', options.peer!);
    if (options.mtu !== undefined) checkMtu(options.mtu, MAX_DATAGRAM_LENGTH);
    const device = new SocketDevice(`udp:${local.host}:${local.port}`, options);
    const { capacity } = device.#inbound;
    const transport = await UdpTransport.open(local, peer, capacity, device.#receiver);
    device.#transport = transport;
    device.#local = transport.local;
    return device;
  }

  static async #openUnix(options: UnixDeviceOptions): Promise<SocketDevice> {
    const { path, role, clock = systemClock } = options;
    const { reconnectMs = SOCKET_DEVICE_DEFAULTS.reconnectMs } = options;
    checkType('clock', clock, 'object');
    const device = new SocketDevice(`unix:${path}`, options);
    device.#transport = await UnixTransport.open(
      { path, role, reconnectMs, clock },
      device.#inbound.capacity,
      device.#receiver
    );
    return device;
  }

  readonly name: string;
  readonly mtu: number;
  readonly offload = false;
  readonly counters: Readonly<SocketDeviceCounters>;
  readonly #counters: SocketDeviceCounters;
  readonly #inbound: PacketQueue;
  readonly #delivery: Delivery;
  readonly #receiver: Receiver;
  /** Queue lengths at which the transport is asked to hold back, and to go on. */
  readonly #holdLength: number;
  readonly #drainedLength: number;
  #transport!: Transport;
  #local: HostPort | undefined;
  #closed: Promise<void> | undefined;

  private constructor(name: string, options: CommonSocketOptions) {
    const { mtu = SOCKET_DEVICE_DEFAULTS.mtu } = options;
    const { queueLength = SOCKET_DEVICE_DEFAULTS.queueLength } = options;
    checkType('name', options.name, 'string');
    checkType('schedule', options.schedule, 'function');
    checkMtu(mtu);
    checkWhole('queueLength', queueLength, 1, MAX_QUEUE_LENGTH);
    this.name = options.name ?? name;
    this.mtu = mtu;
    this.#counters = {
      ...newDeviceCounters(),
      readDrops: 0,
      strangers: 0,
      malformed: 0,
      socketErrors: 0,
    };
    this.counters = this.#counters;
    this.#inbound = new PacketQueue(queueLength);
    this.#delivery = new Delivery(
      this.name,
      () => this.#inbound.length > 0,
      options.schedule ?? setImmediate
    );
    this.#holdLength = Math.ceil(queueLength / 2);
    this.#drainedLength = Math.floor(this.#holdLength / 2);
    this.#receiver = { counters: this.#counters, receive: this.#receive };
  }

  /** Where a UDP device receives; undefined for a unix socket. */
  get local(): HostPort | undefined {
    return this.#local;
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
    const length = this.#inbound.shift(buffer, offset + VNET_HEADER_LENGTH);
    if (length === 0) return 0;
    buffer.fill(0, offset, offset + VNET_HEADER_LENGTH);
    this.#counters.readPackets++;
    this.#counters.readBytes += length;
    if (this.#inbound.length === this.#drainedLength) this.#transport.drained();
    return VNET_HEADER_LENGTH + length;
  }

  /** Returns false also while there is no peer. */
  write(buffer: Buffer, offset: number, length: number): boolean {
    checkWrite(buffer, offset, length);
    const packetLength = length - VNET_HEADER_LENGTH;
    if (
      this.#closed !== undefined ||
      !isAcceptable(buffer, offset, length, this.offload, this.mtu) ||
      !this.#transport.send(buffer, offset + VNET_HEADER_LENGTH, packetLength)
    ) {
      this.#counters.writeDrops++;
      return false;
    }
    this.#counters.writtenPackets++;
    this.#counters.writtenBytes += packetLength;
    return true;
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#delivery.close();
    await this.#transport.close();
    this.#inbound.clear();
  }

  readonly #receive = (buffer: Buffer, offset: number, length: number): boolean => {
    if (this.#inbound.push(buffer, offset, length)) this.#delivery.wake();
    else this.#counters.readDrops++;
    return this.#inbound.length < this.#holdLength;
  };
}

/** Returns where a device receives datagrams, under the name `device`; nothing for any but a UDP device. */
export function deviceAddress(device: PacketDevice): { readonly device?: HostPort } {
  const local = device instanceof SocketDevice ? device.local : undefined;
  return local === undefined ? {} : { device: local };
}

/** @throws {ApiMisuseError} if the value is none. */
function endpoint(schema: Schema<HostPort>, name: string, value: HostPortInput): HostPort {
  try {
    return parseSchema(schema, value, name);
  } catch (cause) {
    throw new ApiMisuseError((cause as Error).message, { cause });
  }
}

const MAX_QUEUE_LENGTH = 1_048_576;
