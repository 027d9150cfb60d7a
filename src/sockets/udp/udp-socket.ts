/**
 * A UDP socket of the stack: where it is bound and connected, and its queues.
 *
 * A socket that waits for nothing holds no buffers.
 * @module
 */
import type { Family, IpAddress } from '../../base/address.ts';
import { DatagramQueue, type QueueMemory } from '../ip/datagram-queue.ts';

/** Bits of the argument of `UdpOwner.onUdpEvents`. */
export const UdpEvent = {
  /** `receive` has datagrams. */
  Readable: 1,
  /** `takeSent` has datagrams that left the queue. */
  Sent: 2,
  /** `takeFailure` says what became of the peer. */
  Failed: 4,
  /** The endpoint was closed; no more events follow. */
  Closed: 8,
} as const;

/** The owner of a socket gets its events. */
export interface UdpOwner {
  /** @param events bits of `UdpEvent` */
  onUdpEvents(socket: UdpSocket, events: number): void;
}

export interface ReceivedDatagram {
  readonly payload: Buffer;
  readonly remote: IpAddress;
  readonly remotePort: number;
}

/** A datagram that left the queue of a socket. */
export interface SentDatagram {
  /** What `send` was given. */
  readonly request: unknown;
  /** The length of its payload. */
  readonly bytes: number;
  /** Why it was not sent; undefined if it was. */
  readonly failure: UdpFailure | undefined;
}

/** What a connected socket learns of its peer. */
export interface PeerFailure {
  readonly code: UdpFailure;
  /** What was withdrawn; undefined if an ICMP error has reported it. */
  readonly cause: Error | undefined;
}

/** System error codes. */
export type UdpFailure =
  | 'EADDRINUSE'
  | 'EADDRNOTAVAIL'
  | 'ECONNREFUSED'
  | 'EHOSTUNREACH'
  | 'EMSGSIZE'
  | 'ENETDOWN'
  | 'ENETUNREACH'
  | 'ENOBUFS';

/** A datagram that waits to be sent. */
export interface WaitingDatagram {
  readonly payload: Uint8Array;
  readonly local: IpAddress;
  readonly remote: IpAddress;
  readonly remotePort: number;
  readonly request: unknown;
  readonly atMs: number;
}

/** What a socket needs of its endpoint. */
export interface UdpDriver {
  readonly now: () => number;
  localAddress(family: Family): IpAddress | undefined;
  /** The socket has a datagram to send. */
  onWaiting(socket: UdpSocket): void;
  /** The socket has events. */
  onEvents(socket: UdpSocket): void;
  /** The socket is closed. Returns whether what waits in its queue is still sent. */
  onClosed(socket: UdpSocket): boolean;
}

/** Made by `UdpEndpoint.bind` and `UdpEndpoint.open`. */
export class UdpSocket {
  readonly family: Family;
  /** The address that it is bound to; undefined: all of the stack. */
  readonly local: IpAddress | undefined;
  readonly localPort: number;
  /** The peer, if it is connected. */
  remote: IpAddress | undefined;
  remotePort = 0;
  /** Whether the endpoint has it in the ring of sockets that have something to send. Only the endpoint sets it. */
  isWaiting = false;
  /** The next one in a chain of `UdpFlowTable`, which alone uses it. */
  chained: UdpSocket | undefined;
  readonly received: DatagramQueue<ReceivedDatagram>;
  readonly outgoing: DatagramQueue<WaitingDatagram>;

  readonly #driver: UdpDriver;
  #owner: UdpOwner | undefined;
  #events = 0;
  #sent: SentDatagram[] | undefined;
  #failure: PeerFailure | undefined;

  /** @param memory what its queues share with those of others */
  constructor(
    driver: UdpDriver,
    owner: UdpOwner,
    family: Family,
    local: IpAddress | undefined,
    localPort: number,
    memory: QueueMemory
  ) {
    this.received = new DatagramQueue(memory);
    this.outgoing = new DatagramQueue(memory);
    this.#driver = driver;
    this.#owner = owner;
    this.family = family;
    this.local = local;
    this.localPort = localPort;
  }

  get isClosed(): boolean {
    return this.#owner === undefined;
  }

  /** Takes only datagrams of this peer from now on, and its ICMP errors. */
  connect(remote: IpAddress, remotePort: number): void {
    this.remote = remote;
    this.remotePort = remotePort;
    this.received.clear();
  }

  disconnect(): void {
    this.remote = undefined;
    this.remotePort = 0;
  }

  /**
   * Queues a datagram.
   *
   * @param payload must not change until the datagram has left the queue
   * @param request undefined, or what `takeSent` returns when the datagram has left the queue
   * @returns the code if it cannot be sent
   */
  send(
    payload: Uint8Array,
    remote: IpAddress,
    remotePort: number,
    request: unknown
  ): UdpFailure | undefined {
    if (this.isClosed) return 'ENETDOWN';
    if (remote.family !== this.family) return 'ENETUNREACH';
    if (payload.length > maxPayload(this.family)) return 'EMSGSIZE';
    const local = this.local ?? this.#driver.localAddress(this.family);
    if (local === undefined) return 'EADDRNOTAVAIL';
    const atMs = this.#driver.now();
    if (!this.outgoing.push({ payload, local, remote, remotePort, request, atMs }))
      return 'ENOBUFS';
    this.#driver.onWaiting(this);
    return undefined;
  }

  /** Takes the next datagram that was received. */
  receive(): ReceivedDatagram | undefined {
    return this.received.shift();
  }

  /** Takes the datagrams that left the queue and had a request. */
  takeSent(): readonly SentDatagram[] {
    const sent = this.#sent ?? NONE;
    this.#sent = undefined;
    return sent;
  }

  /** Takes the last failure of the peer. */
  takeFailure(): PeerFailure | undefined {
    const failure = this.#failure;
    this.#failure = undefined;
    return failure;
  }

  /**
   * Frees the port. What waits to be sent still goes, within bounds.
   *
   * @returns the datagrams with a request that `takeSent` has not returned; those that wait count as sent
   */
  close(): readonly SentDatagram[] {
    if (this.isClosed) return NONE;
    const sent = [...this.takeSent()];
    const waiting = this.outgoing.values();
    this.#owner = undefined;
    this.received.clear();
    const failure = this.#driver.onClosed(this) ? undefined : 'ENOBUFS';
    for (const { request, payload } of waiting) {
      if (request !== undefined) sent.push({ request, bytes: payload.length, failure });
    }
    return sent;
  }

  /** The endpoint calls this with a datagram that has arrived and fits into the queue. */
  onReceived(datagram: ReceivedDatagram): void {
    if (this.received.push(datagram)) this.#raise(UdpEvent.Readable);
  }

  /** The endpoint calls this when a datagram has left the queue. */
  onLeft({ request, payload }: WaitingDatagram, failure: UdpFailure | undefined): void {
    if (request === undefined || this.isClosed) return;
    this.#sent ??= [];
    this.#sent.push({ request, bytes: payload.length, failure });
    this.#raise(UdpEvent.Sent);
  }

  /** The stack calls this when an ICMP error is about the peer, or when the peer was withdrawn. */
  onFailed(code: UdpFailure, cause?: Error): void {
    this.#failure = { code, cause };
    this.#raise(UdpEvent.Failed);
  }

  /** The endpoint calls this when it is closed. */
  onEndpointClosed(): void {
    this.#raise(UdpEvent.Closed);
  }

  /** Hands the events to the owner. Only the endpoint calls this. */
  deliverEvents(): void {
    const events = this.#events;
    this.#events = 0;
    if (events !== 0) this.#owner?.onUdpEvents(this, events);
  }

  #raise(event: number): void {
    if (this.isClosed) return;
    const before = this.#events;
    this.#events |= event;
    if (before === 0) this.#driver.onEvents(this);
  }
}

/** The longest payload of a datagram in bytes: 65,535 without the UDP header, and in IPv4 without the IP header. */
export function maxPayload(family: Family): number {
  return family === 4 ? 65_507 : 65_527;
}

const NONE: readonly SentDatagram[] = [];
