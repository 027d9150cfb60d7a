/**
 * `PresenceServer`: a listening port of the stack with the public members of `net.Server`.
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
import { EventEmitter } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { IpAddress } from '../../base/address.ts';
import { throwToProcess } from '../../base/emitter.ts';
import type { ListenerOwner, TcpConnection, TcpListener } from '../../tcp/index.ts';
import { closeOnAbort } from '../node/abort.ts';
import { argumentError } from '../node/argument-checks.ts';
import type { AddListener } from '../node/events.ts';
import { listenError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';
import {
  checkSocketOptions,
  listenTarget,
  normalizeArguments,
  type PresenceListenOptions,
  type PresenceSocketOptions,
} from './arguments.ts';
import { PresenceSocket } from './socket.ts';
import type { SocketServer } from './socket-stream.ts';

/** The options of `createServer`. Those of sockets hold for each accepted one. */
export interface PresenceServerOptions {
  /** Whether the writable side stays open when the client has ended; without it, it ends too. */
  readonly allowHalfOpen?: boolean | undefined;
  /** Whether accepted sockets read nothing until `resume()`; without it they read at once. */
  readonly pauseOnConnect?: boolean | undefined;
  /** Whether small segments are sent at once; without it, Nagle's algorithm collects them. */
  readonly noDelay?: boolean | undefined;
  /** Whether an idle client is probed; without it, it is not. */
  readonly keepAlive?: boolean | undefined;
  /** The idle time in ms before the first probe, in whole seconds; without it, or with 0, it is 2 h. */
  readonly keepAliveInitialDelay?: number | undefined;
  /** Bytes that each stream holds in each direction, besides the buffers of TCP; without it, as Node. */
  readonly highWaterMark?: number | undefined;
}

/** What is called with each accepted socket. */
export type ConnectionListener = (socket: PresenceSocket) => void;

/** A connection that was refused because `maxConnections` was reached. */
export interface DroppedConnection {
  readonly localAddress: string;
  readonly localPort: number;
  readonly localFamily: 'IPv4' | 'IPv6';
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly remoteFamily: 'IPv4' | 'IPv6';
}

/** The events of a `PresenceServer`: those of `net.Server`. */
export interface PresenceServerEvents {
  listening: [];
  connection: [socket: PresenceSocket];
  drop: [connection: DroppedConnection];
  error: [error: Error];
  close: [];
}

/** Makes a server as `net.createServer` does: `([options][, listener])`. */
export function createServer(
  host: SocketHost,
  options?: PresenceServerOptions | ConnectionListener,
  listener?: ConnectionListener
): PresenceServer {
  return new PresenceServer(host, options, listener);
}

/** Everything of a server that programs do not call. */
abstract class ServerBase extends EventEmitter implements ListenerOwner, SocketServer {
  /** At this number of connections, further ones are closed with the event `drop`; undefined means no limit. */
  maxConnections: number | undefined = undefined;

  protected readonly _host: SocketHost;
  readonly #options: PresenceServerOptions;
  readonly #socketOptions: PresenceSocketOptions;
  protected _context: AsyncResource | undefined;
  protected _listener: TcpListener | undefined;
  protected _connections = 0;

  constructor(
    host: SocketHost,
    options: PresenceServerOptions | ConnectionListener = {},
    listener?: ConnectionListener
  ) {
    super();
    if (typeof options === 'function') {
      listener = options;
      options = {};
    } else if (typeof options !== 'object') {
      throw argumentError(
        TypeError,
        'ERR_INVALID_ARG_TYPE',
        `The "options" argument must be of type object. Received ${typeof options}`
      );
    }
    this._host = host;
    this.#options = options ?? {};
    const { allowHalfOpen, noDelay, keepAlive, keepAliveInitialDelay, highWaterMark } =
      this.#options;
    this.#socketOptions = {
      allowHalfOpen,
      noDelay,
      keepAlive,
      keepAliveInitialDelay,
      highWaterMark,
    };
    // A fault that shows with the first connection could be provoked from afar.
    checkSocketOptions(this.#socketOptions);
    if (typeof listener === 'function') this.on('connection', listener);
  }

  /** Is called by the stack for each connection. @internal */
  onTcpConnection(connection: TcpConnection): void {
    if (this._context === undefined || this._listener === undefined) {
      connection.abort();
      connection.release();
    } else {
      this._context.runInAsyncScope(this.#accept, this, connection);
    }
  }

  /** @internal */
  onSocketDestroyed(): void {
    this._connections--;
    this._emitCloseIfDrained();
  }

  #accept(connection: TcpConnection): void {
    try {
      if (this.maxConnections && this._connections >= this.maxConnections) {
        const dropped = describe(connection);
        connection.release();
        this.emit('drop', dropped);
      } else {
        this.emit('connection', this.#socketOf(connection));
      }
    } catch (error) {
      throwToProcess(error);
    }
  }

  #socketOf(connection: TcpConnection): PresenceSocket {
    const socket = new PresenceSocket(this._host, this.#socketOptions);
    socket.adopt(connection, this, this);
    this._connections++;
    if (this.#options.pauseOnConnect) socket.pause();
    else socket.read(0);
    return socket;
  }

  protected _emitCloseIfDrained(): void {
    if (this._listener !== undefined || this._connections > 0) return;
    const context = this._context;
    if (context === undefined) process.nextTick(emitClose, this);
    else context.runInAsyncScope(process.nextTick, process, emitClose, this);
  }
}

/**
 * A server for TCP connections from presences. Events: `listening`, `connection`, `drop`, `error`, `close`. It is closed
 * when the program closes its stack.
 */
export class PresenceServer extends ServerBase {
  declare addListener: AddListener<PresenceServerEvents, this>;
  declare on: AddListener<PresenceServerEvents, this>;
  declare once: AddListener<PresenceServerEvents, this>;
  declare prependListener: AddListener<PresenceServerEvents, this>;
  declare prependOnceListener: AddListener<PresenceServerEvents, this>;

  /** The address that it was told to listen at. */
  #address: IpAddress | undefined;

  /** Listens: `(options[, listener])` or `([port[, host[, backlog]]][, listener])`. Port 0 takes a free one. */
  listen(options: PresenceListenOptions, listener?: () => void): this;
  listen(port: number, host: string, backlog: number, listener?: () => void): this;
  listen(port: number, host: string, listener?: () => void): this;
  listen(port: number, backlog: number, listener?: () => void): this;
  listen(port: number, listener?: () => void): this;
  listen(listener?: () => void): this;
  listen(...args: unknown[]): this {
    if (this._listener !== undefined) {
      throw argumentError(
        Error,
        'ERR_SERVER_ALREADY_LISTEN',
        'Listen method has been called more than once without closing.'
      );
    }
    const [options, listener] = normalizeArguments<PresenceListenOptions>(args);
    const { port, host, backlog } = listenTarget(args, options);
    if (listener !== undefined) this.once('listening', listener);
    this._context = new AsyncResource('PRESENCESERVER', { requireManualDestroy: true });
    try {
      if (this._host.isClosed) {
        const { closedBy: cause } = this._host;
        throw listenError('ENETDOWN', 'listen', {
          address: host ?? this.#unspecified(),
          port,
          cause,
        });
      }
      this.#address = this.#ownAddress(host, port);
      this._listener = this._host.tcp.listen(this.#address, port, this, backlog);
      this._host.servers.add(this);
    } catch (error) {
      process.nextTick(emitError, this, this.#listenError(error, host, port));
      return this;
    }
    process.nextTick(emitListening, this);
    if (options.signal?.aborted) process.nextTick(close, this);
    else if (options.signal) closeOnAbort(this, options.signal, () => void this.close());
    return this;
  }

  get listening(): boolean {
    return this._listener !== undefined;
  }

  /** Where it listens: the unspecified address if it listens at all addresses; null if it does not listen. */
  address(): AddressInfo | null {
    if (this._listener === undefined) return null;
    const { localPort: port } = this._listener;
    const address = this.#address?.toString() ?? this.#unspecified();
    return { address, family: address.includes(':') ? 'IPv6' : 'IPv4', port };
  }

  getConnections(callback: (error: Error | null, count: number) => void): this {
    process.nextTick(callback, null, this._connections);
    return this;
  }

  /** Stops listening. `close` is emitted, and the callback called, when the last connection is gone. */
  close(callback?: (error?: Error) => void): this {
    if (typeof callback === 'function') {
      const error = argumentError(Error, 'ERR_SERVER_NOT_RUNNING', 'Server is not running.');
      const onClose = this._listener === undefined ? () => callback(error) : callback;
      // The context is that of this call, whichever connection is the last.
      this.once('close', AsyncResource.bind(onClose));
    }
    this._listener?.stop();
    this._listener = undefined;
    this._host.servers.delete(this);
    this._emitCloseIfDrained();
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    if (this._listener === undefined) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.close((error) => (error === undefined ? resolve() : reject(error)));
    });
  }

  /** Does nothing: the gateway decides whether the process lives. */
  ref(): this {
    return this;
  }

  /** Does nothing: the gateway decides whether the process lives. */
  unref(): this {
    return this;
  }

  #ownAddress(host: string | undefined, port: number): IpAddress | undefined {
    if (host === undefined) return undefined;
    const [address] = this._host.resolve(host, 0);
    if (address === undefined || address.words.every((word) => word === 0)) return undefined;
    const isOwn = this._host.localAddress(address.family)?.equals(address) === true;
    const cause = isOwn ? this._host.addressFault(address.family) : undefined;
    if (isOwn && cause === undefined) return address;
    throw listenError('EADDRNOTAVAIL', 'listen', { address: address.toString(), port, cause });
  }

  #listenError(error: unknown, host: string | undefined, port: number): Error {
    if (!(error instanceof Error && 'code' in error) || 'syscall' in error) return error as Error;
    const address = this.#address?.toString() ?? host ?? this.#unspecified();
    const cause = error.code === 'ENETDOWN' ? this._host.closedBy : undefined;
    return listenError(String(error.code), 'listen', { address, port, cause });
  }

  #unspecified(): string {
    return this._host.localAddress(6) === undefined ? '0.0.0.0' : '::';
  }
}

function describe({ flow }: TcpConnection): DroppedConnection {
  const family = flow.family === 4 ? 'IPv4' : 'IPv6';
  return {
    localAddress: flow.local.toString(),
    localPort: flow.localPort,
    localFamily: family,
    remoteAddress: flow.remote.toString(),
    remotePort: flow.remotePort,
    remoteFamily: family,
  };
}

function emitListening(server: PresenceServer): void {
  if (server.listening) server.emit('listening');
}

function close(server: PresenceServer): void {
  server.close();
}

function emitError(server: PresenceServer, error: Error): void {
  server.emit('error', error);
}

function emitClose(server: EventEmitter): void {
  server.emit('close');
}
