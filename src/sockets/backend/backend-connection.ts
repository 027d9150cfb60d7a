/**
 * One TCP connection of a client to a service, through a backend.
 *
 * 1. `onTcpOpen`: the client's SYN is held, and a socket of the host connects to the service.
 * 2. It is connected: the SYN-ACK is sent. It has failed: the client gets a reset, an ICMP error, or nothing.
 * 3. `onTcpConnection`: the client has completed the handshake, and both sockets are joined (`splice.ts`).
 * 4. Both are closed, or the connection was ended: the backend forgets it.
 *
 * The client may be gone at any time, which ends the dial; so does what withdraws the client or the service.
 * @module
 */
import type net from 'node:net';
import type { TcpOpenOwner, TcpOwner, TcpPendingOpen } from '../../tcp/index.ts';
import { type Flow, type TcpConnection, TcpEvent } from '../../tcp/index.ts';
import { onreadTo, reset, splice } from '../host/splice.ts';
import type { SocketHost } from '../socket-host.ts';
import { PresenceSocket } from '../stream/socket.ts';
import type { SocketServer } from '../stream/socket-stream.ts';
import { type DialFailure, failureOfDial, type HostEnds, isToItself } from './backend-dial.ts';
import { proxyHeader } from './proxy-header.ts';

/** What a connection needs of its backend. */
export interface ConnectionBackend {
  readonly host: SocketHost;
  readonly keepAliveMs: number;
  /** Returns whether a connection to the service begins with a PROXY protocol header. */
  hasHeader(flow: Flow): boolean;
  /** Returns whether a socket has reached the gateway itself, at an address that the system does not list. */
  isGateway(ends: HostEnds): boolean;
  /** Begins to connect, or returns undefined if too many do; `onDialDone` follows. It runs code of the program. */
  dial(connection: BackendConnection): net.Socket | undefined;
  /** A dial has ended, well or not. */
  onDialDone(connection: BackendConnection): void;
  /**
   * A dial has failed.
   *
   * @param error what the socket or the function `dial` has said
   */
  onDialFailed(failure: DialFailure, error: unknown): void;
  /** Tells the client by ICMP that the service cannot be reached. */
  report(what: Exclude<DialFailure, 'refused' | 'later'>, open: TcpPendingOpen): void;
  /** The client has gone before it was connected. */
  onAbandoned(): void;
  onConnected(): void;
  /** Nothing is left of the connection. */
  onGone(connection: BackendConnection): void;
}

export class BackendConnection implements TcpOpenOwner, TcpOwner, SocketServer {
  readonly flow: Flow;
  /** The site of the client. */
  readonly site: string | undefined;
  readonly #backend: ConnectionBackend;
  #open: TcpPendingOpen | undefined;
  #host: net.Socket | undefined;
  #connection: TcpConnection | undefined;
  #presence: PresenceSocket | undefined;
  #isDialing = false;
  /** Why it was ended. */
  #endedBy: Error | undefined;
  #isGone = false;

  constructor(backend: ConnectionBackend, flow: Flow, site: string | undefined) {
    this.#backend = backend;
    this.flow = flow;
    this.site = site;
  }

  /** Ends both sides at once, and whatever it is waiting for. */
  end(cause: Error): void {
    if (this.#endedBy !== undefined || this.#isGone) return;
    this.#endedBy = cause;
    this.#connection?.abort(cause);
    this.#open?.refuse();
    if (this.#host !== undefined) reset(this.#host);
    // The other states end by what they are waiting for.
    if (this.#presence === undefined && this.#open !== undefined) this.#leave();
  }

  // The handshake.

  onTcpOpen(open: TcpPendingOpen): void {
    this.#open = open;
    if (this.#endedBy !== undefined) {
      open.refuse();
      this.#leave();
      return;
    }
    let host: net.Socket | undefined;
    this.#isDialing = true;
    try {
      host = this.#backend.dial(this);
    } catch (error) {
      this.#failDial(error);
      return;
    }
    if (host === undefined) {
      open.drop();
      this.#leave();
      return;
    }
    if (this.#isGone) {
      // The program's function has ended it, for example by new services.
      host.on('error', () => {});
      reset(host);
      return;
    }
    this.#host = host;
    host.on('error', this.#onHostFailed);
    host.on('close', this.#onHostFailed);
    if (host.destroyed) this.#failDial(host.errored);
    else if (host.connecting) host.once('connect', this.#onHostConnected);
    else this.#onHostConnected();
  }

  onTcpOpenEnded(): void {
    if (this.#isGone) return;
    this.#backend.onAbandoned();
    if (this.#host !== undefined) reset(this.#host);
    this.#leave();
  }

  onTcpConnection(connection: TcpConnection): void {
    const host = this.#host;
    if (this.#isGone || this.#endedBy !== undefined || host === undefined) {
      connection.abort(this.#endedBy);
      connection.release();
      this.#leave();
      return;
    }
    const { host: stack, keepAliveMs } = this.#backend;
    host.off('error', this.#onHostFailed).off('close', this.#onHostFailed);
    this.#open = undefined;
    this.#connection = connection;
    const presence = new PresenceSocket(stack, { allowHalfOpen: true, onread: onreadTo(host) });
    this.#presence = presence;
    presence.adopt(connection, this, null);
    connection.owner = this;
    this.#backend.onConnected();
    // The services may have been replaced since the SYN.
    if (this.#backend.hasHeader(this.flow)) host.write(proxyHeader(this.flow));
    splice(presence, host, { keepAliveMs, onClosed: () => this.#leave() });
  }

  // The connection.

  onTcpEvents(connection: TcpConnection, events: number): void {
    const { failure } = connection;
    this.#presence?.onTcpEvents(connection, events);
    if ((events & TcpEvent.Closed) === 0 || failure === undefined) return;
    // A socket that is not read, because the service takes nothing, does not learn that the client is gone. It would
    // keep its buffers, and the socket of the host, for as long as the service likes.
    if (this.#presence?.destroyed === false) {
      reset(this.#presence);
      if (this.#host !== undefined) reset(this.#host);
    }
  }

  onSocketDestroyed(): void {
    this.#connection = undefined;
  }

  readonly #onHostConnected = (): void => {
    const host = this.#host;
    if (host !== undefined && (isToItself(host) || this.#backend.isGateway(host))) {
      reset(host);
      this.#failDial(undefined);
      return;
    }
    this.#endDial();
    // `onTcpOpenEnded` follows where this is false.
    this.#open?.accept();
  };

  /** The socket of the host has failed, or closed, before the client was connected. */
  readonly #onHostFailed = (error: unknown): void => {
    this.#failDial(error instanceof Error ? error : this.#host?.errored);
  };

  #failDial(error: unknown): void {
    const open = this.#open;
    if (this.#isGone || open === undefined) return;
    // What fails behind the SYN-ACK is a reset, as the client would see it without a gateway.
    const failure = this.#isDialing ? failureOfDial(error) : 'refused';
    this.#backend.onDialFailed(failure, error);
    if (failure === 'refused') {
      open.refuse();
    } else {
      if (failure !== 'later') this.#backend.report(failure, open);
      open.drop();
    }
    this.#leave();
  }

  #endDial(): void {
    if (!this.#isDialing) return;
    this.#isDialing = false;
    this.#backend.onDialDone(this);
  }

  #leave(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#endDial();
    this.#open = undefined;
    this.#backend.onGone(this);
  }
}
