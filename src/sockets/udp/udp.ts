/**
 * A UDP endpoint ([RFC 768](https://www.rfc-editor.org/rfc/rfc768)) in user space, without I/O: it takes packets that
 * have arrived, and writes those that may be sent.
 *
 * A packet that arrives:
 *
 * 1. Its checksum is verified, unless the virtio-net header says that this is done or need not be.
 * 2. Its destination port and address, and for connected sockets its source, choose the socket. If there is none, an
 *    acceptor may open one for the flow: the service side, which takes datagrams to other addresses than the stack's.
 * 3. A super-packet is split into its datagrams.
 * 4. Each one is copied to the queue of the socket, or dropped and counted if the queue is full.
 * 5. `takeEvents` tells the owners. No user code runs before.
 * @module
 */
import { type Family, IpAddress } from '../../base/address.ts';
import { throwToProcess } from '../../base/emitter.ts';
import { Protocol, UDP_HEADER } from '../../packet/fields.ts';
import type { PacketHeader } from '../../packet/header.ts';
import { PacketView } from '../../packet/view.ts';
import { pickPort } from '../../tcp/ports.ts';
import type { IcmpError } from '../icmp/icmp-error.ts';
import { isAddressAt } from '../ip/address-at.ts';
import { DEFAULT_QUEUE_BYTES, QUEUE_LIMIT, QueueMemory } from '../ip/datagram-queue.ts';
import { DatagramWriter } from '../ip/datagram-writer.ts';
import type { Identifications } from '../ip/identifications.ts';
import type { PathMtus } from '../ip/path-mtu.ts';
import { ICMP_CODES } from '../node/error-codes.ts';
import { checkUdp, DatagramFault } from './udp-check.ts';
import { type UdpEnds, UdpFlowTable } from './udp-flows.ts';
import {
  type UdpDriver,
  type UdpFailure,
  type UdpOwner,
  UdpSocket,
  type WaitingDatagram,
} from './udp-socket.ts';
import { UdpTable } from './udp-table.ts';

export interface UdpEndpointOptions {
  /** Returns the time in ms, monotonic. */
  readonly now: () => number;
  /** Returns an unsigned 32-bit integer that nobody can predict. */
  readonly random: () => number;
  readonly identifications: Identifications;
  readonly pathMtus: PathMtus;
  /** The longest packet that the device takes, in bytes. */
  readonly mtu: number;
  /** Whether checksums may be left partial. */
  readonly offload: boolean;
  /** The stack's own address of this family. */
  readonly localAddress: (family: Family) => IpAddress | undefined;
  /** How long a datagram waits in the queue before it fails with ENETDOWN, in ms; default 5,000. */
  readonly maxWaitMs?: number;
  /** The bytes that the queues of all sockets may hold together; default 16,777,216 (16 MiB). */
  readonly queueBytes?: number;
}

/** Opens sockets for datagrams that have come for no socket. It must not run code of the program. */
export interface UdpAcceptor {
  /**
   * Returns the socket of these ends, which `UdpEndpoint.open` has made. `refuse` answers the datagram with an ICMP error,
   * and `drop` does not answer it. The local address may be any that the device lets through.
   */
  accept(ends: UdpEnds): UdpSocket | 'refuse' | 'drop';
}

/** Cumulative. */
export interface UdpCounters {
  /** Datagrams that a socket got; a super-packet has several. */
  received: number;
  /** Datagrams that left as packets. */
  sent: number;
  /** Packets whose checksum is wrong. */
  badChecksums: number;
  /** Packets whose virtio-net header contradicts them, and super-packets of too many datagrams. */
  malformed: number;
  /** Packets to a port that no socket has, or from another peer than the connected one. */
  closedPorts: number;
  /** Datagrams that were dropped because the queue of their socket, or the memory of all, was full. */
  receiveDrops: number;
  /**
   * Datagrams for which the memory of all queues, or a site's part of it, had no room: those received are in
   * `receiveDrops` too, those to be sent have failed with ENOBUFS.
   */
  memoryDrops: number;
  /** Datagrams that the device refused, that waited too long, or that a closed socket left. */
  sendDrops: number;
}

/** What became of a packet. */
export const UdpVerdict = {
  /** It was taken, or dropped because the queue is full. */
  Taken: 0,
  /** It is not valid, or nobody may take it now. */
  Dropped: 1,
  /** No socket has the port: answer that it is unreachable. */
  Closed: 2,
} as const;
export type UdpVerdict = (typeof UdpVerdict)[keyof typeof UdpVerdict];

export class UdpEndpoint {
  readonly counters: UdpCounters = newCounters();
  /** Is called when something can be sent, once until `read` returns 0. */
  onReady: () => void = () => {};
  /** Is called when a socket has events, once until `takeEvents`. */
  onEvents: () => void = () => {};
  /** Opens sockets for datagrams that have come for none; undefined if nobody does. */
  acceptor: UdpAcceptor | undefined;
  /** What the queues of all sockets hold. */
  readonly memory: QueueMemory;

  readonly #options: UdpEndpointOptions;
  readonly #maxWaitMs: number;
  readonly #driver: UdpDriver;
  readonly #writer: DatagramWriter;
  readonly #view: PacketView = new PacketView();
  readonly #ipv4: UdpTable = new UdpTable();
  readonly #ipv6: UdpTable = new UdpTable();
  readonly #flows: UdpFlowTable;
  #size = 0;
  /** Sockets that have something to send, in turn. */
  #ring: UdpSocket[] = [];
  #eventful: UdpSocket[] = [];
  /** The socket whose datagram the writer has. */
  #writing: UdpSocket | undefined;
  #isReady = false;
  /** A time at which no datagram has waited too long yet; it may be early. */
  #deadline: number = Number.POSITIVE_INFINITY;
  /** What closed sockets have left to be sent, in bytes. */
  #orphaned = 0;
  /** The remote address of the packet before, which is often that of the next. */
  #lastRemote: IpAddress | undefined;
  #isClosed = false;

  constructor(options: UdpEndpointOptions) {
    const { mtu, offload, pathMtus, identifications, maxWaitMs = DEFAULT_MAX_WAIT_MS } = options;
    this.#options = options;
    this.#maxWaitMs = maxWaitMs;
    this.#writer = new DatagramWriter({ mtu, offload, pathMtus, identifications });
    this.#flows = new UdpFlowTable(options.random);
    this.memory = new QueueMemory(options.queueBytes ?? DEFAULT_QUEUE_BYTES, this.onRefused);
    this.#driver = {
      now: options.now,
      localAddress: options.localAddress,
      onWaiting: (socket) => this.#onWaiting(socket),
      onEvents: (socket) => this.#onEvents(socket),
      onClosed: (socket) => this.#onClosed(socket),
    };
  }

  /** How many sockets are bound; those that `open` has made are not counted. */
  get size(): number {
    return this.#size;
  }

  /** Counts a datagram for which the memory of queues has no room. */
  readonly onRefused = (): void => {
    this.counters.memoryDrops++;
  };

  /** The bound sockets that are connected to a peer. */
  *connected(): IterableIterator<UdpSocket & { readonly remote: IpAddress }> {
    for (const socket of this.#sockets()) if (isConnected(socket)) yield socket;
  }

  /** When `expire` has something to do, in ms; `Infinity` if nothing waits. It may be early. */
  get deadline(): number {
    return this.#deadline;
  }

  /**
   * Binds a socket.
   *
   * @param local undefined: to all addresses of the stack
   * @param port 0: a random port that is free
   * @returns the socket, or the code of the failure
   */
  bind(
    family: Family,
    local: IpAddress | undefined,
    port: number,
    owner: UdpOwner
  ): UdpSocket | UdpFailure {
    if (this.#isClosed) return 'ENETDOWN';
    if (local !== undefined && !this.#options.localAddress(family)?.equals(local))
      return 'EADDRNOTAVAIL';
    if (this.#size >= MAX_SOCKETS) return 'ENOBUFS';
    const table = this.#table(family);
    const isUsed = (each: number): boolean => table.isTaken(each, local);
    const chosen = port === 0 ? pickPort(this.#options.random, isUsed) : port;
    if (chosen < 0 || isUsed(chosen)) return 'EADDRINUSE';
    const socket = new UdpSocket(this.#driver, owner, family, local, chosen, this.memory);
    table.add(socket);
    this.#size++;
    return socket;
  }

  /**
   * Opens a socket of one flow, at any local address and at a port that others may have too. It takes only datagrams to
   * these ends for which no bound socket is. The caller bounds how many there are, and opens each only once.
   *
   * @param memory a part of `memory`, for its queues
   * @returns undefined if the endpoint is closed
   */
  open(ends: UdpEnds, owner: UdpOwner, memory: QueueMemory = this.memory): UdpSocket | undefined {
    if (this.#isClosed) return undefined;
    const { local, localPort, remote, remotePort } = ends;
    const socket = new UdpSocket(this.#driver, owner, local.family, local, localPort, memory);
    socket.connect(remote, remotePort);
    this.#flows.add(socket as UdpSocket & UdpEnds);
    return socket;
  }

  /** Closes a socket, and sends nothing more of it: not even the rest of a datagram of which fragments have left. */
  discard(socket: UdpSocket): void {
    this.counters.sendDrops += socket.outgoing.length;
    if (this.#writing === socket && this.#writer.isActive) {
      this.#writer.cancel();
      this.counters.sendDrops++;
    }
    socket.outgoing.clear();
    socket.close();
  }

  /**
   * Takes a packet to an address of this stack, whole, whose kind is UDP.
   *
   * @param vnet the offset of its virtio-net header; -1 if it has none
   */
  receive(buffer: Uint8Array, vnet: number, header: PacketHeader): UdpVerdict {
    const view = this.#view.of(buffer);
    const payload = header.transport + UDP_HEADER;
    const segment = checkUdp(view, vnet, header);
    if (segment < 0) {
      if (segment === DatagramFault.Malformed) this.counters.malformed++;
      else this.counters.badChecksums++;
      return UdpVerdict.Dropped;
    }
    const socket = this.#socketOf(buffer, view, header);
    if (socket === 'drop') return UdpVerdict.Dropped;
    if (socket === 'refuse') {
      this.counters.closedPorts++;
      return UdpVerdict.Closed;
    }
    const remote = this.#remoteOf(buffer, view, header);
    const remotePort = header.sourcePort;
    let from = payload;
    do {
      const to = Math.min(from + segment, header.end);
      if (socket.received.fits(to - from)) {
        const bytes = Buffer.from(buffer.subarray(from, to));
        socket.onReceived({ payload: bytes, remote, remotePort });
        this.counters.received++;
      } else {
        this.counters.receiveDrops++;
      }
      from = to;
    } while (from < header.end);
    return UdpVerdict.Taken;
  }

  /** Takes an ICMP error. Returns whether a socket can have sent the quoted packet. */
  onIcmpError(error: IcmpError): boolean {
    const { family } = error;
    const isOwn = this.#options.localAddress(family)?.equals(error.local) === true;
    const bound = isOwn ? this.#table(family).findSender(error) : undefined;
    const socket = bound ?? this.#flows.find(error);
    if (socket === undefined) return false;
    // RFC 1122 section 4.1.3.3. Only a connected socket can tell which peer an error is about, as in Linux.
    const failure: UdpFailure = ICMP_CODES[error.kind];
    const isReported = socket.remote !== undefined && !(family === 4 && failure === 'EMSGSIZE');
    if (isReported) socket.onFailed(failure);
    return true;
  }

  /** Writes the next frame that may be sent to `buffer` at `at`, as `PacketDevice.read` does. Returns its length, or 0. */
  read(buffer: Buffer, at: number): number {
    while (!this.#writer.isActive) {
      const socket = this.#ring.shift();
      if (socket === undefined) {
        this.#isReady = false;
        this.#deadline = Number.POSITIVE_INFINITY;
        return 0;
      }
      const datagram = this.#takeWaiting(socket);
      if (socket.outgoing.length > 0) this.#ring.push(socket);
      else socket.isWaiting = false;
      if (datagram !== undefined) this.#begin(socket, datagram);
    }
    return this.#writer.next(buffer, at);
  }

  /** The device did not take the frame that was read last: the rest of its datagram would be of no use. */
  refused(): void {
    this.#writer.cancel();
    this.counters.sendDrops++;
  }

  /** Drops the datagrams that have waited too long. */
  expire(): void {
    const now = this.#options.now();
    if (now < this.#deadline) return;
    this.#deadline = Number.POSITIVE_INFINITY;
    const ring = this.#ring;
    this.#ring = [];
    for (const socket of ring) {
      for (let next = socket.outgoing.peek(); next !== undefined; next = socket.outgoing.peek()) {
        const deadline = next.atMs + this.#maxWaitMs;
        if (deadline > now) {
          this.#deadline = Math.min(this.#deadline, deadline);
          break;
        }
        this.#takeWaiting(socket);
        this.counters.sendDrops++;
        socket.onLeft(next, 'ENETDOWN');
      }
      // A socket that was discarded has no datagrams either.
      if (socket.outgoing.length > 0) this.#ring.push(socket);
      else socket.isWaiting = false;
    }
  }

  /** Tells the owners of their sockets' events. It runs user code: never call it from within `receive` or `read`. */
  takeEvents(): void {
    const eventful = this.#eventful;
    this.#eventful = [];
    for (const socket of eventful) {
      try {
        socket.deliverEvents();
      } catch (error) {
        throwToProcess(error);
      }
    }
  }

  /** Closes the endpoint. The owners of the sockets get `UdpEvent.Closed`. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#writer.cancel();
    for (const socket of this.#ring) {
      for (let next = this.#takeWaiting(socket); next; next = this.#takeWaiting(socket)) {
        socket.onLeft(next, 'ENETDOWN');
      }
      socket.isWaiting = false;
    }
    this.#ring = [];
    this.#deadline = Number.POSITIVE_INFINITY;
    for (const socket of this.#sockets()) socket.onEndpointClosed();
    for (const socket of this.#flows) socket.onEndpointClosed();
  }

  *#sockets(): IterableIterator<UdpSocket> {
    yield* this.#ipv4;
    yield* this.#ipv6;
  }

  /** Returns the socket of a packet: a bound one, the one of its flow, or a new one; what happens to it if there is none. */
  #socketOf(
    buffer: Uint8Array,
    view: DataView,
    header: PacketHeader
  ): UdpSocket | 'refuse' | 'drop' {
    const { family, source, sourcePort, destinationPort } = header;
    const own = this.#options.localAddress(family);
    const destination = source + (family === 4 ? 4 : 16);
    const isOwn = own !== undefined && isAddressAt(view, destination, own);
    const bound = isOwn ? this.#table(family).find(view, header) : undefined;
    const socket = bound ?? this.#flows.findPacket(view, header);
    if (socket !== undefined) return socket;
    if (this.acceptor === undefined) return 'refuse';
    return this.acceptor.accept({
      local: isOwn ? own : IpAddress.fromBytes(family, buffer, destination),
      localPort: destinationPort,
      remote: this.#remoteOf(buffer, view, header),
      remotePort: sourcePort,
    });
  }

  #remoteOf(buffer: Uint8Array, view: DataView, { family, source }: PacketHeader): IpAddress {
    const last = this.#lastRemote;
    if (last?.family === family && isAddressAt(view, source, last)) return last;
    const remote = IpAddress.fromBytes(family, buffer, source);
    this.#lastRemote = remote;
    return remote;
  }

  #begin(socket: UdpSocket, datagram: WaitingDatagram): void {
    const { payload, local, remote, remotePort, atMs } = datagram;
    if (this.#options.now() - atMs > this.#maxWaitMs) {
      this.counters.sendDrops++;
      socket.onLeft(datagram, 'ENETDOWN');
      return;
    }
    const first = (socket.localPort << 16) | remotePort;
    const second = (UDP_HEADER + payload.length) << 16;
    this.#writing = socket;
    this.#writer.begin({ protocol: Protocol.Udp, local, remote, first, second, payload });
    this.counters.sent++;
    socket.onLeft(datagram, undefined);
  }

  #takeWaiting(socket: UdpSocket): WaitingDatagram | undefined {
    const before = socket.outgoing.bytes;
    const datagram = socket.outgoing.shift();
    if (socket.isClosed) this.#orphaned -= before - socket.outgoing.bytes;
    return datagram;
  }

  #onWaiting(socket: UdpSocket): void {
    if (!socket.isWaiting) {
      socket.isWaiting = true;
      this.#ring.push(socket);
    }
    const deadline = this.#options.now() + this.#maxWaitMs;
    if (deadline < this.#deadline) this.#deadline = deadline;
    if (this.#isReady) return;
    this.#isReady = true;
    this.onReady();
  }

  #onEvents(socket: UdpSocket): void {
    this.#eventful.push(socket);
    if (this.#eventful.length === 1) this.onEvents();
  }

  #onClosed(socket: UdpSocket): boolean {
    if (this.#table(socket.family).remove(socket)) this.#size--;
    else this.#flows.remove(socket as UdpSocket & UdpEnds);
    if (this.#orphaned + socket.outgoing.bytes <= MAX_ORPHANED) {
      this.#orphaned += socket.outgoing.bytes;
      return true;
    }
    this.counters.sendDrops += socket.outgoing.length;
    socket.outgoing.clear();
    return false;
  }

  #table(family: Family): UdpTable {
    return family === 4 ? this.#ipv4 : this.#ipv6;
  }
}

function isConnected(socket: UdpSocket): socket is UdpSocket & { readonly remote: IpAddress } {
  return socket.remote !== undefined;
}

function newCounters(): UdpCounters {
  return {
    received: 0,
    sent: 0,
    badChecksums: 0,
    malformed: 0,
    closedPorts: 0,
    receiveDrops: 0,
    memoryDrops: 0,
    sendDrops: 0,
  };
}

/** As many as connections. */
const MAX_SOCKETS = 16_384;
const MAX_ORPHANED: number = QUEUE_LIMIT;
const DEFAULT_MAX_WAIT_MS = 5000;
