/**
 * The TCP half of the service side: takes the SYNs that come for services, and bounds the connections to them.
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
import type net from 'node:net';
import { Duplex } from 'node:stream';
import type { IpAddress } from '../../base/address.ts';
import { throwToProcess } from '../../base/emitter.ts';
import { GroupCounts, quarterOf } from '../../base/group-counts.ts';
import { ApiMisuseError } from '../../errors.ts';
import { Protocol } from '../../packet/fields.ts';
import type {
  Flow,
  TcpEndpoint,
  TcpHolder,
  TcpOpenOwner,
  TcpPendingOpen,
} from '../../tcp/index.ts';
import type { IcmpEndpoint, Unreachable } from '../icmp/icmp.ts';
import { quotePacket } from '../icmp/icmp-quote.ts';
import type { SocketHost } from '../socket-host.ts';
import type { ServiceEnds } from '../stack-backend.ts';
import { BackendConnection, type ConnectionBackend } from './backend-connection.ts';
import {
  type BackendDial,
  type DialFailure,
  dialHost,
  type HostEnds,
  targetOf,
} from './backend-dial.ts';
import type { BackendServices } from './backend-services.ts';
import type { HostDescriptors } from './host-descriptors.ts';

/** Cumulative. */
export interface TcpBackendCounters {
  /** Clients that were connected to a service. */
  connected: number;
  /** SYNs to an address and port that no service has; they are answered by a reset. */
  notAllowed: number;
  /** SYNs to the gateway itself, likewise. */
  refusedTargets: number;
  /**
   * SYNs beyond the bounds of connections, of dials and of descriptors, in all, of a client or of a site; clients repeat
   * them.
   */
  limited: number;
  /** Dials that a service has refused, and connections that it has closed before the client was connected. */
  dialsRefused: number;
  /** Dials whose service cannot be reached; the client gets an ICMP error. */
  dialsUnreachable: number;
  /** Dials for which the host had no descriptors, ports or memory; clients repeat their SYNs. */
  dialsPostponed: number;
  /** The postponed dials for which this host had no port left towards the service (EADDRNOTAVAIL). */
  portsExhausted: number;
  /** Dials whose client has gone, or has waited for too long. */
  dialsAbandoned: number;
  /** Connections and dials that were ended because the client or the service was withdrawn. */
  withdrawn: number;
}

export interface TcpBackendOptions {
  readonly host: SocketHost & { readonly icmp: Pick<IcmpEndpoint, 'report'> };
  /** The services as they are now. */
  readonly services: () => BackendServices;
  /** Returns the site of a client. It must not run code of the program. */
  readonly siteOf: (client: IpAddress) => string | undefined;
  readonly dial: BackendDial | undefined;
  readonly proxyProtocol: boolean;
  readonly loopbackSource: boolean;
  readonly keepAliveMs: number;
  readonly maxDials: number;
  /** What each connection takes one of, from its SYN on. */
  readonly descriptors: HostDescriptors;
}

export class TcpBackend implements TcpHolder, ConnectionBackend {
  readonly counters: TcpBackendCounters = newCounters();
  readonly host: SocketHost;
  readonly keepAliveMs: number;
  readonly #options: TcpBackendOptions;
  readonly #tcp: TcpEndpoint;
  readonly #dial: BackendDial;
  readonly #connections = new Set<BackendConnection>();
  /** How many connections, and dials, each site has. */
  readonly #sites: GroupCounts;
  readonly #dialsOfSite: GroupCounts;
  readonly #dialsOfClient: GroupCounts;
  #dials = 0;
  #isClosed = false;

  constructor(options: TcpBackendOptions) {
    const { host, dial, keepAliveMs, maxDials } = options;
    this.#options = options;
    this.host = host;
    this.keepAliveMs = keepAliveMs;
    this.#tcp = host.tcp;
    // The program's function runs in the context of the program, and not in that of a tunnel.
    this.#dial = dial === undefined ? dialHost : AsyncResource.bind(dial);
    this.#sites = new GroupCounts(quarterOf(host.tcp.limits.connections));
    this.#dialsOfSite = new GroupCounts(quarterOf(maxDials));
    this.#dialsOfClient = new GroupCounts(Math.max(1, maxDials >> 3));
    host.tcp.groupOf = options.siteOf;
    host.tcp.holder = this;
  }

  /** How many connections there are, with those that begin or end. */
  get size(): number {
    return this.#connections.size;
  }

  /** How many sockets of the host are connecting. */
  get dials(): number {
    return this.#dials;
  }

  // For the TCP endpoint.

  isOwn(address: IpAddress): boolean {
    return this.host.localAddress(address.family)?.equals(address) === true;
  }

  onTcpSyn(flow: Flow): TcpOpenOwner | 'refuse' | 'drop' {
    const { counters } = this;
    if (this.#isClosed || this.host.isClosed) return 'refuse';
    const services = this.#options.services();
    if (!services.has('tcp', flow.local, flow.localPort)) {
      counters.notAllowed++;
      return 'refuse';
    }
    if (services.isRefused(flow.local, flow.localPort)) {
      counters.refusedTargets++;
      return 'refuse';
    }
    const { descriptors, siteOf } = this.#options;
    const site = siteOf(flow.remote);
    // The endpoint counts those that it knows. A service that takes nothing can keep more of them here.
    const isFull = this.size >= this.#tcp.limits.connections || !this.#sites.hasRoom(site);
    if (isFull || !descriptors.hasRoom(site)) {
      counters.limited++;
      return 'drop';
    }
    const connection = new BackendConnection(this, flow, site);
    this.#connections.add(connection);
    this.#sites.add(site);
    descriptors.add(site);
    return connection;
  }

  /**
   * Ends connections and dials at once, on both sides, before it returns.
   *
   * @param reasonOf why one has to end; undefined if it has not
   */
  withdraw(reasonOf: (ends: ServiceEnds) => string | undefined): void {
    for (const connection of [...this.#connections]) {
      const reason = reasonOf(connection.flow);
      if (reason === undefined) continue;
      this.counters.withdrawn++;
      connection.end(new Error(reason));
    }
    // Some connections have ended here, but the client has not acknowledged their last bytes yet. Connections at the
    // stack's own address are not the backend's.
    for (const connection of [...this.#tcp.connections()]) {
      if (this.isOwn(connection.flow.local)) continue;
      const reason = reasonOf(connection.flow);
      if (reason !== undefined) connection.abort(new Error(reason));
    }
  }

  /** Ends all connections and dials at once. */
  interrupt(cause: Error): void {
    for (const connection of [...this.#connections]) connection.end(cause);
  }

  /** Takes no more, and ends all. */
  close(cause: Error): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.interrupt(cause);
    this.#tcp.holder = undefined;
    this.#tcp.groupOf = () => undefined;
  }

  // For the connections.

  hasHeader({ local, localPort }: Flow): boolean {
    const { services, proxyProtocol } = this.#options;
    return services().hasHeader(local, localPort) ?? proxyProtocol;
  }

  isGateway(ends: HostEnds): boolean {
    return this.#options.services().isGateway(ends);
  }

  dial(connection: BackendConnection): net.Socket | undefined {
    const { flow, site } = connection;
    const client = flow.remote.toString();
    const { maxDials, loopbackSource } = this.#options;
    // While few connect, one client may have as many as it likes.
    const isClientBounded = 2 * this.#dials >= maxDials && !this.#dialsOfClient.hasRoom(client);
    const isBounded =
      this.#dials >= maxDials || isClientBounded || !this.#dialsOfSite.hasRoom(site);
    this.#count(connection, true);
    if (isBounded) {
      this.counters.limited++;
      return undefined;
    }
    const host = this.#options.services().hostOf(flow.local);
    const socket: unknown = this.#dial(targetOf(flow, host, loopbackSource));
    if (socket instanceof Duplex) return socket as net.Socket;
    const error = new ApiMisuseError(
      `the function dial must return a socket, got ${typeof socket}`
    );
    throwToProcess(error);
    throw error;
  }

  onDialDone(connection: BackendConnection): void {
    this.#count(connection, false);
  }

  onDialFailed(failure: DialFailure, error: unknown): void {
    const { counters } = this;
    if (failure === 'refused') counters.dialsRefused++;
    else if (failure === 'later') counters.dialsPostponed++;
    else counters.dialsUnreachable++;
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EADDRNOTAVAIL') counters.portsExhausted++;
  }

  report(what: Unreachable, { flow, sequence }: TcpPendingOpen): void {
    // As much of the SYN as an ICMP error has to quote (RFC 792).
    const transport = Buffer.alloc(8);
    transport.writeUInt16BE(flow.remotePort, 0);
    transport.writeUInt16BE(flow.localPort, 2);
    transport.writeInt32BE(sequence, 4);
    const { local, remote } = flow;
    const protocol = Protocol.Tcp;
    const ends = { source: remote, destination: local, protocol };
    const quote = quotePacket({ ...ends, transport, length: TCP_HEADER });
    this.#options.host.icmp.report(what, local, remote, quote);
  }

  onAbandoned(): void {
    this.counters.dialsAbandoned++;
  }

  onConnected(): void {
    this.counters.connected++;
  }

  onGone(connection: BackendConnection): void {
    if (!this.#connections.delete(connection)) return;
    this.#sites.remove(connection.site);
    this.#options.descriptors.remove(connection.site);
  }

  #count({ flow, site }: BackendConnection, isMore: boolean): void {
    const client = flow.remote.toString();
    this.#dials += isMore ? 1 : -1;
    if (isMore) {
      this.#dialsOfSite.add(site);
      this.#dialsOfClient.add(client);
    } else {
      this.#dialsOfSite.remove(site);
      this.#dialsOfClient.remove(client);
    }
  }
}

function newCounters(): TcpBackendCounters {
  return {
    connected: 0,
    notAllowed: 0,
    refusedTargets: 0,
    limited: 0,
    dialsRefused: 0,
    dialsUnreachable: 0,
    dialsPostponed: 0,
    portsExhausted: 0,
    dialsAbandoned: 0,
    withdrawn: 0,
  };
}

/** The least length of a TCP header, in bytes. */
const TCP_HEADER = 20;
