/**
 * One flow of a UDP backend: the datagrams of one client's port to one service's port, and a connected socket of the
 * host in between.
 *
 * A datagram of the client waits in the queue of the stack's socket, which is bounded, until the host's socket is
 * connected and has sent those before it; so the host holds one at a time. A reply is queued at the stack's socket, which
 * sends it from the address and port of the service, and drops it when that queue is full.
 * @module
 */
import type { Socket as HostSocket, RemoteInfo } from 'node:dgram';
import type { IpAddress } from '../../base/address.ts';
import type { Unreachable } from '../icmp/icmp.ts';
import { MAX_QUOTED_PAYLOAD, quoteDatagram } from '../icmp/icmp-quote.ts';
import type { UdpEnds } from '../udp/udp-flows.ts';
import { UdpEvent, type UdpOwner, type UdpSocket } from '../udp/udp-socket.ts';
import { type HostEnds, isToItself } from './backend-dial.ts';
import type { FlowPlace } from './backend-udp-shares.ts';

/** Cumulative. */
export interface UdpBackendCounters {
  /** Flows that began. */
  opened: number;
  /** Datagrams to an address and port at which no service is. */
  notAllowed: number;
  /**
   * Datagrams that were dropped, because too many flows have begun in this second, or because there was no descriptor for
   * another one, in all or for their site.
   */
  limited: number;
  /** Flows that ended because the service or its host cannot be reached; the client has got an ICMP error. */
  refused: number;
  /** Flows that ended because a socket of the host failed, for example because there are too many (EMFILE). */
  failed: number;
  /** Flows that had to go for others. */
  evicted: number;
  /** Flows that were idle for too long. */
  idle: number;
  /** Flows whose service or client was withdrawn. */
  withdrawn: number;
  /** Flows that ended because the client's host says that nobody has its port. */
  clientGone: number;
  /** Datagrams that the host took for a service. */
  toServices: number;
  /** Datagrams of services that were queued for a client. */
  toClients: number;
  /** Datagrams of clients that the host did not take (ENOBUFS, EMSGSIZE), or that waited when their flow ended. */
  serviceDrops: number;
  /** Datagrams that did not come from the service: anybody can send to a socket before it is connected. */
  strangers: number;
  /** Datagrams of services for which there was no room in the queue to the client. */
  clientDrops: number;
}

/** What a flow needs of its backend. */
export interface UdpFlowBackend {
  readonly counters: UdpBackendCounters;
  /** Makes a socket that is connected, or that emits `connect` or `error` later. */
  dial(ends: UdpEnds): HostSocket;
  /** Returns whether a socket has reached the gateway itself. */
  isGateway(ends: HostEnds): boolean;
  /** Sends an ICMP error to the client. */
  report(what: Unreachable, from: IpAddress, to: IpAddress, quote: Uint8Array): void;
  /** A datagram has passed. */
  onActive(flow: UdpFlow): void;
  /**
   * The flow has ended, and its socket of the stack is not closed yet.
   *
   * @param isDiscarded whether what is queued for the client must not be sent
   */
  onEnded(flow: UdpFlow, isDiscarded: boolean): void;
}

export class UdpFlow implements UdpOwner {
  readonly ends: UdpEnds;
  /** When its last datagram passed, in ms of the monotonic clock. Only the backend sets it. */
  lastMs = 0;
  /** Only the backend sets it, at once. */
  place!: FlowPlace<UdpFlow>;
  /** Its socket of the stack. Only the backend sets it, at once. */
  socket!: UdpSocket;

  readonly #backend: UdpFlowBackend;
  #host: HostSocket | undefined;
  /** The ends of its socket of the host; undefined until that is connected. */
  #hostEnds: HostEnds | undefined;
  #isEnded = false;
  /** What the client sent last: its first bytes, and its length. */
  #last: Uint8Array | undefined;
  #lastLength = 0;

  constructor(backend: UdpFlowBackend, ends: UdpEnds) {
    this.#backend = backend;
    this.ends = ends;
  }

  onUdpEvents(socket: UdpSocket, events: number): void {
    if ((events & UdpEvent.Closed) !== 0) {
      this.end(true);
      return;
    }
    if ((events & UdpEvent.Failed) !== 0 && socket.takeFailure()?.code === 'ECONNREFUSED') {
      this.#backend.counters.clientGone++;
      this.end(true);
      return;
    }
    if ((events & UdpEvent.Readable) === 0) return;
    if (this.#host === undefined) this.#dial();
    else this.#pump();
  }

  /**
   * Ends the flow and its sockets. Nothing happens if it has ended.
   *
   * @param isDiscarded whether what is queued for the client must not be sent
   */
  end(isDiscarded: boolean): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#backend.counters.serviceDrops += this.socket.received.length;
    this.#backend.onEnded(this, isDiscarded);
    const host = this.#host;
    if (host === undefined) return;
    this.#host = undefined;
    host.off('connect', this.#onConnect);
    host.off('message', this.#onMessage);
    host.off('close', this.#onClose);
    host.off('error', this.#onError);
    closeHost(host);
  }

  #dial(): void {
    try {
      const host = this.#backend.dial(this.ends);
      // The program's function may have closed the backend.
      if (this.#isEnded) {
        closeHost(host);
        return;
      }
      this.#host = host;
      host.on('error', this.#onError);
      host.on('message', this.#onMessage);
      host.on('close', this.#onClose);
      // The gateway keeps the process alive, and not the flows that it has open.
      host.unref();
      const ends = endsOf(host);
      if (ends === undefined) host.once('connect', this.#onConnect);
      else this.#begin(ends);
    } catch (error) {
      this.#fail(codeOf(error));
    }
  }

  readonly #onConnect = (): void => {
    const ends = this.#host && endsOf(this.#host);
    // Whoever has made a socket may have closed it.
    if (ends === undefined) this.#fail('');
    else this.#begin(ends);
  };

  #begin(ends: HostEnds): void {
    if (isToItself(ends) || this.#backend.isGateway(ends)) {
      this.#fail('ECONNREFUSED');
      return;
    }
    this.#hostEnds = ends;
    this.#pump();
  }

  readonly #onMessage = (payload: Buffer, from: RemoteInfo): void => {
    const ends = this.#hostEnds;
    if (from.port !== ends?.remotePort || from.address !== ends.remoteAddress) {
      this.#backend.counters.strangers++;
      return;
    }
    const { remote, remotePort } = this.ends;
    this.#backend.onActive(this);
    if (this.socket.send(payload, remote, remotePort, undefined) === undefined) {
      this.#backend.counters.toClients++;
    } else {
      this.#backend.counters.clientDrops++;
    }
  };

  readonly #onError = (error: unknown): void => this.#fail(codeOf(error));

  readonly #onClose = (): void => {
    this.#backend.counters.failed++;
    this.end(false);
  };

  readonly #onSent = (error: Error | null): void => {
    const { counters } = this.#backend;
    if (error === null) counters.toServices++;
    else counters.serviceDrops++;
    if (error === null || PASSING.has(codeOf(error))) this.#pump();
    else this.#fail(codeOf(error));
  };

  /** Hands datagrams to the host until one has to wait there; `#onSent` goes on then. */
  #pump(): void {
    const host = this.#host;
    if (host === undefined || this.#hostEnds === undefined) return;
    while (host.getSendQueueCount() === 0) {
      const datagram = this.socket.receive();
      if (datagram === undefined) return;
      this.#keep(datagram.payload);
      this.#backend.onActive(this);
      host.send(datagram.payload, this.#onSent);
    }
  }

  /** Keeps what an ICMP error may have to quote. */
  #keep(payload: Buffer): void {
    const isLong = payload.length > MAX_QUOTED_PAYLOAD;
    // A part would hold the memory of the whole.
    this.#last = isLong ? Buffer.from(payload.subarray(0, MAX_QUOTED_PAYLOAD)) : payload;
    this.#lastLength = payload.length;
  }

  #fail(code: string): void {
    if (this.#isEnded) return;
    const what = UNREACHABLE.get(code);
    // The host may be unreachable before anything was sent.
    const first = this.#last === undefined ? this.socket.received.peek() : undefined;
    if (first !== undefined) this.#keep(first.payload);
    if (what !== undefined && this.#last !== undefined) {
      this.#backend.counters.refused++;
      this.#report(what, this.#last);
    } else {
      this.#backend.counters.failed++;
    }
    this.end(false);
  }

  #report(what: Unreachable, payload: Uint8Array): void {
    const { local, localPort, remote, remotePort } = this.ends;
    const quote = quoteDatagram({
      source: remote,
      sourcePort: remotePort,
      destination: local,
      destinationPort: localPort,
      payload,
      length: this.#lastLength,
    });
    this.#backend.report(what, local, remote, quote);
  }
}

function closeHost(host: HostSocket): void {
  // What fails now is of no interest; without a listener it would be an uncaught exception.
  host.on('error', () => {});
  try {
    host.close();
  } catch {
    // Whoever has made the socket has closed it.
  }
}

/** Returns undefined if the socket is not connected; `dgram` has no better way to ask. */
function endsOf(socket: HostSocket): HostEnds | undefined {
  try {
    const local = socket.address();
    const remote = socket.remoteAddress();
    return {
      localAddress: local.address,
      localPort: local.port,
      remoteAddress: remote.address,
      remotePort: remote.port,
    };
  } catch {
    return undefined;
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

/** What the client is told of the host's errors. */
const UNREACHABLE: ReadonlyMap<string, Unreachable> = new Map<string, Unreachable>([
  ['ECONNREFUSED', 'port'],
  ['EHOSTUNREACH', 'host'],
  ['EHOSTDOWN', 'host'],
  ['ENETUNREACH', 'network'],
  ['ENETDOWN', 'network'],
  // A filter of this host.
  ['EACCES', 'prohibited'],
  ['EPERM', 'prohibited'],
]);

/** Errors of one datagram, behind which others may follow. */
const PASSING: ReadonlySet<string> = new Set(['EMSGSIZE', 'ENOBUFS', 'ENOMEM']);
