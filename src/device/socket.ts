/**
 * A packet device without a kernel interface: bare IP packets over UDP or over a unix stream socket,
 * for a host program that has a network stack of its own, or a virtual machine.
 *
 * There is no virtio-net header on the wire, so packets must be whole: `offload` is false.
 * Neither transport authenticates or encrypts; keep it on one machine or within a trusted network.
 * (Datagrams over a unix socket are not offered: `node:dgram` has none.)
 * @module
 */
import { ApiMisuseError } from '../errors.ts';
import type { HostPort } from '../host-port.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import {
  checkMtu,
  checkReadRange,
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
import { MAX_DATAGRAM_LENGTH, type UdpEndpoint, UdpTransport } from './udp-transport.ts';
import { UnixTransport } from './unix-transport.ts';

export interface SocketDeviceOptions {
  /** For messages; the local address or path by default. */
  readonly name?: string;
  /** In bytes; 1500 by default. Longer packets are not written; they are read. */
  readonly mtu?: number;
  /** How many packets may wait in each direction; 1024 by default. */
  readonly queueLength?: number;
  /** `setImmediate` by default. */
  readonly schedule?: Schedule;
}

export interface UdpDeviceOptions extends SocketDeviceOptions {
  /** Where to receive; port 0 takes a free one, see `SocketDevice.local`. */
  readonly bind: UdpEndpoint;
  /** Where packets go; those from elsewhere are dropped. */
  readonly peer?: UdpEndpoint;
  /**
   * Instead of `peer`: the source of the first datagram is the peer from then on, whoever it is.
   * False by default.
   */
  readonly learnPeer?: boolean;
}

export interface UnixDeviceOptions extends SocketDeviceOptions {
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
  /** `setTimeout` by default. */
  readonly setTimer?: (callback: () => void, delayMs: number) => NodeJS.Timeout;
}

export interface SocketDeviceCounters extends DeviceCounters, SocketFaultCounters {}

export class SocketDevice implements PacketDevice {
  /**
   * Opens a device over UDP, one packet in each datagram.
   *
   * @throws {ApiMisuseError} if an option is out of range, or not exactly one of `peer` and
   *   `learnPeer` is given.
   * @throws {EnvironmentError} if the address cannot be had, for example because it is in use.
   */
  static async udp(options: UdpDeviceOptions): Promise<SocketDevice> {
    const { bind, peer, learnPeer = false } = options;
    if ((peer !== undefined) === learnPeer) {
      throw new ApiMisuseError('a UDP device needs either peer or learnPeer');
    }
    checkMtu(options.mtu ?? DEFAULT_MTU, MAX_DATAGRAM_LENGTH);
    const device = new SocketDevice(`udp:${bind.address}:${bind.port}`, options);
    const transport = await UdpTransport.open(
      bind,
      peer,
      device.#inbound.capacity,
      device.#receiver
    );
    device.#transport = transport;
    device.#local = transport.local;
    return device;
  }

  /**
   * Opens a device over a unix stream socket; each packet stands behind its length as 32-bit
   * big-endian number, as with QEMU's `-netdev stream` and passt (which carry Ethernet frames; here
   * it is IP packets).
   *
   * @throws {ApiMisuseError} if an option is out of range.
   * @throws {EnvironmentError} if the path is in use, or nobody listens there.
   */
  static async unix(options: UnixDeviceOptions): Promise<SocketDevice> {
    const device = new SocketDevice(`unix:${options.path}`, options);
    device.#transport = await UnixTransport.open(
      options,
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
  #local: UdpEndpoint | undefined;
  #closed: Promise<void> | undefined;

  private constructor(name: string, options: SocketDeviceOptions) {
    const { mtu = DEFAULT_MTU, queueLength = DEFAULT_QUEUE_LENGTH } = options;
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
  get local(): UdpEndpoint | undefined {
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
  return local === undefined ? {} : { device: { host: local.address, port: local.port } };
}

const DEFAULT_QUEUE_LENGTH = 1024;
const MAX_QUEUE_LENGTH = 1_048_576;
