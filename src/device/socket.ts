/**
 * A packet device without a kernel interface: it carries bare IP packets over UDP or over a unix stream socket,
 * for a virtual machine or a program that has its own network stack.
 *
 * There is no virtio-net header on the wire, so packets must be complete: `offload` is false.
 * Neither transport authenticates or encrypts; use it on one machine or within a trusted network.
 * (Unix datagram sockets are not supported, because `node:dgram` has none.)
 * @module
 */
import { type Clock, systemClock } from '../base/clock.ts';
import type { HostPort, HostPortInput } from '../base/host-port.ts';
import { AddressPortSchema, ListenAddressSchema } from '../base/host-port-schema.ts';
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

/** The options that both kinds of socket have. */
export interface CommonSocketOptions {
  /** The name in messages; default the local address or path. */
  readonly name?: string;
  /** In bytes; default 1500. Longer packets are read, but not written. */
  readonly mtu?: number;
  /** The number of packets that may wait in each direction; default 1024. */
  readonly queueLength?: number;
  /** Default `setImmediate`. */
  readonly schedule?: Schedule;
}

/** A device that carries each packet in a UDP datagram. */
export interface UdpDeviceOptions extends CommonSocketOptions {
  readonly type: 'udp';
  /** The IP address and port that receive; port 0 takes a free port, see `SocketDevice.local`. */
  readonly local: HostPortInput;
  /**
   * The IP address and port of the peer; datagrams from other sources are dropped. Must be absent with `learnPeer`, and
   * given otherwise.
   */
  readonly peer?: HostPortInput;
  /**
   * Replaces `peer`: the source of the first datagram becomes the peer, and any host may be that source.
   * Default false.
   */
  readonly learnPeer?: boolean;
}

/**
 * A device that carries packets over a unix stream socket, each behind its length as a 32-bit big-endian number.
 * QEMU's `-netdev stream` and passt use the same framing, but carry Ethernet frames.
 */
export interface UnixDeviceOptions extends CommonSocketOptions {
  readonly type: 'unix';
  /** At most 107 bytes. */
  readonly path: string;
  /**
   * `listen` takes one connection at a time, and first removes a socket file at which nobody listens any
   * more. The permissions of the directory decide who may connect. `connect` connects again when the
   * connection is lost.
   */
  readonly role: 'listen' | 'connect';
  /** The time that `connect` waits before each new try, in ms; default 1000. */
  readonly reconnectMs?: number;
  /** Default: the clock of the system. */
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

/** A device over one socket, from `open` to `close`. */
export class SocketDevice implements PacketDevice, AsyncDisposable {
  /**
   * Opens the socket.
   *
   * @throws {ApiMisuseError} if an option is invalid, or not exactly one of `peer` and `learnPeer` is given.
   * @throws {EnvironmentError} if the address or path cannot be used, for example because another program has it, or
   *   nobody listens at the path.
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
  /** The transport must stop at this queue length. */
  readonly #holdLength: number;
  /** The transport may go on at this queue length. */
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

  /** The address and port at which a UDP device receives; undefined for a unix socket. */
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

  /** Also returns false while there is no peer. */
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

/** Returns the address at which a UDP device receives, as the property `device`; `{}` for other devices. */
export function deviceAddress(device: PacketDevice): { readonly device?: HostPort } {
  const local = device instanceof SocketDevice ? device.local : undefined;
  return local === undefined ? {} : { device: local };
}

/** @throws {ApiMisuseError} if the value is not an address and a port. */
function endpoint(schema: Schema<HostPort>, name: string, value: HostPortInput): HostPort {
  try {
    return parseSchema(schema, value, name);
  } catch (cause) {
    throw new ApiMisuseError((cause as Error).message, { cause });
  }
}

const MAX_QUEUE_LENGTH = 1_048_576;
