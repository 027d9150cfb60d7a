/**
 * `PresenceSocket`: a connection of the TCP endpoint with the public members of `net.Socket`.
 *
 * What the program has not read stays in the receive buffer of TCP, so that the window closes; the stream holds at
 * most its high-water mark. A write is copied into the send buffer, and its callback comes when there was room.
 *
 * The stack calls `onTcpEvents` outside of packet processing. All code of the program then runs in the async context
 * in which the socket was connected or its server started.
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
import type { AddressInfo } from 'node:net';
import { addAbortSignal, Duplex } from 'node:stream';
import { systemClock } from '../base/clock.ts';
import type { Flow } from '../tcp/index.ts';
import { type TcpConnection, TcpEvent } from '../tcp/index.ts';
import {
  argumentError,
  checkCallback,
  checkMs,
  connectTarget,
  normalizeArguments,
  type OnReadOptions,
  type PresenceConnectOptions,
  type PresenceNetConnectOptions,
  type PresenceSocketOptions,
} from './arguments.ts';
import { type AttemptOwner, ConnectAttempt } from './attempt.ts';
import { codeOfFailure } from './failure.ts';
import type { SocketHost } from './host.ts';
import { IdleTimer } from './idle-timer.ts';
import { systemError } from './system-error.ts';

/** The server that accepted a socket. */
export interface SocketServer {
  /** The socket is destroyed. */
  onSocketDestroyed(): void;
}

/** Connects as `net.connect` does: `(options[, listener])` or `(port[, host][, listener])`. */
export function connect(host: SocketHost, ...args: unknown[]): PresenceSocket {
  const [options, listener] = normalizeArguments<PresenceNetConnectOptions>(args);
  const socket = new PresenceSocket(host, options);
  if (options.timeout) socket.setTimeout(options.timeout);
  return socket.connect(options, listener);
}

/**
 * A TCP connection over the presences of a site. It is a Duplex with the public members and events of `net.Socket`.
 *
 * Events: `connect`, `ready`, `lookup`, `connectionAttempt`, `connectionAttemptFailed`, `connectionAttemptTimeout`,
 * `data`, `end`, `drain`, `finish`, `timeout`, `error`, `close` (with whether there was an error).
 */
export class PresenceSocket extends Duplex implements AttemptOwner {
  /** Whether `connect` was called and is not done. */
  connecting = false;
  /** What `setTimeout` was called with, in ms. */
  timeout: number | undefined = undefined;
  /** The server that accepted this socket. */
  server: SocketServer | null = null;
  /** The addresses that were tried, if there were several. */
  declare autoSelectFamilyAttemptedAddresses?: string[];

  readonly #host: SocketHost;
  readonly #onread: OnReadOptions | undefined;
  #context: AsyncResource | undefined;
  #attempt: ConnectAttempt | undefined;
  #connection: TcpConnection | undefined;
  /** The ends of the connection, also after it was destroyed. */
  #flow: Flow | undefined;
  #idle: IdleTimer | undefined;
  /** The stream or the `onread` callback wants data. */
  #isReading = false;
  /** The stream has been told of the end. */
  #isEnded = false;
  #isNoDelay: boolean;
  /** 0 without keepalive. */
  #keepAliveMs: number;
  #isResetting = false;
  #bytesRead = 0;
  /** Bytes that the send buffer has taken. */
  #bytesSent = 0;
  /** What is written and has not found room: one chunk or several, and how far they were taken. */
  #pending: Uint8Array | readonly WriteEntry[] | undefined;
  #pendingIndex = 0;
  #pendingOffset = 0;
  #pendingBytes = 0;
  #onWritten: WriteCallback | undefined;
  #onFinal: WriteCallback | undefined;

  /** Makes a socket that `connect` then connects. `host` is the stack: `edge.sockets`. */
  constructor(host: SocketHost, options: PresenceSocketOptions = {}) {
    super(streamOptions(options));
    this.#host = host;
    this.#onread = checkedOnRead(options.onread);
    this.#isNoDelay = Boolean(options.noDelay);
    this.#keepAliveMs = keepAliveMs(options.keepAlive, options.keepAliveInitialDelay);
    if (options.signal) addAbortSignal(options.signal, this);
  }

  /** Makes the socket of an accepted connection. @internal */
  static accept(
    host: SocketHost,
    server: SocketServer,
    options: PresenceSocketOptions,
    connection: TcpConnection
  ): PresenceSocket {
    const socket = new PresenceSocket(host, options);
    connection.owner = socket;
    socket.#context = new AsyncResource('PRESENCESOCKET', { requireManualDestroy: true });
    socket.server = server;
    socket.#open(connection);
    return socket;
  }

  /** Connects: `(options[, listener])` or `(port[, host][, listener])`. It returns at once. */
  connect(options: PresenceConnectOptions, listener?: () => void): this;
  connect(port: number, host: string, listener?: () => void): this;
  connect(port: number, listener?: () => void): this;
  connect(...args: unknown[]): this {
    const [options, listener] = normalizeArguments<PresenceConnectOptions>(args);
    const target = connectTarget(options);
    if (listener !== undefined) this.once('connect', listener);
    const { signal } = options as PresenceSocketOptions;
    if (signal?.aborted) return this.destroy(signal.reason);
    if (this.destroyed) this.#revive();
    if (this.#attempt !== undefined || this.#connection !== undefined) {
      const code = this.connecting ? 'EALREADY' : 'EISCONN';
      this.destroy(systemError(code, 'connect', { address: target.host, port: target.port }));
      return this;
    }
    this.#context = new AsyncResource('PRESENCESOCKET', { requireManualDestroy: true });
    this.#idle?.touch();
    this.connecting = true;
    this.#attempt = new ConnectAttempt(this.#host, target, this);
    this.#attempt.start(signal);
    return this;
  }

  /** Whether it is not connected: not yet, or no longer. */
  get pending(): boolean {
    return this.#connection === undefined;
  }

  get readyState(): 'opening' | 'open' | 'readOnly' | 'writeOnly' | 'closed' {
    if (this.connecting) return 'opening';
    if (this.readable) return this.writable ? 'open' : 'readOnly';
    return this.writable ? 'writeOnly' : 'closed';
  }

  get remoteAddress(): string | undefined {
    return this.#flow?.remote.toString();
  }

  get remotePort(): number | undefined {
    return this.#flow?.remotePort;
  }

  get remoteFamily(): 'IPv4' | 'IPv6' | undefined {
    return familyName(this.#flow);
  }

  get localAddress(): string | undefined {
    return this.#flow?.local.toString();
  }

  get localPort(): number | undefined {
    return this.#flow?.localPort;
  }

  get localFamily(): 'IPv4' | 'IPv6' | undefined {
    return familyName(this.#flow);
  }

  /** Our own end; an empty object if there is none. */
  address(): AddressInfo | Record<string, never> {
    const flow = this.#flow;
    if (flow === undefined) return {};
    return {
      address: flow.local.toString(),
      family: flow.family === 4 ? 'IPv4' : 'IPv6',
      port: flow.localPort,
    };
  }

  /** Bytes that the program has received, or that wait in the stream. */
  get bytesRead(): number {
    return this.#bytesRead;
  }

  /** Bytes that were written, also those that still wait in the stream. */
  get bytesWritten(): number {
    if (this.destroyed) return this.#bytesSent;
    return this.#bytesSent - this.#pendingBytes + this.writableLength;
  }

  /** Bytes that wait in the stream. */
  get bufferSize(): number | undefined {
    return this.pending && !this.connecting ? undefined : this.writableLength;
  }

  /** Emits `timeout` after this time in ms without traffic, and does no more than that; 0 switches it off. */
  setTimeout(ms: number, listener?: () => void): this {
    if (this.destroyed) return this;
    this.timeout = ms;
    const limitMs = checkMs('msecs', ms);
    if (listener !== undefined) checkCallback('callback', listener);
    this.#idle?.stop();
    this.#idle = undefined;
    if (limitMs === 0) {
      if (listener !== undefined) this.removeListener('timeout', listener);
      return this;
    }
    this.#idle = new IdleTimer(this.#host.clock ?? systemClock, limitMs, () => {
      this.runInContext(() => this.emit('timeout'));
    });
    if (listener !== undefined) this.once('timeout', listener);
    return this;
  }

  setNoDelay(noDelay = true): this {
    this.#isNoDelay = Boolean(noDelay);
    this.#connection?.setNoDelay(this.#isNoDelay);
    return this;
  }

  /** Switches keepalive. The delay in ms before the first probe is cut to whole seconds; 0 means 2 h. */
  setKeepAlive(enable = false, initialDelay = 0): this {
    this.#keepAliveMs = keepAliveMs(enable, initialDelay);
    this.#connection?.setKeepAlive(this.#keepAliveMs);
    return this;
  }

  /** Does nothing: the gateway decides whether the process lives. */
  ref(): this {
    return this;
  }

  /** Does nothing: the gateway decides whether the process lives. */
  unref(): this {
    return this;
  }

  /** Ends, and destroys when all is written. */
  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', this.destroy);
  }

  /** Destroys, and sends RST in any case. While it connects it waits for that. */
  resetAndDestroy(): this {
    if (this.connecting) {
      this.once('connect', this.resetAndDestroy);
      return this;
    }
    if (this.#connection === undefined) {
      return this.destroy(argumentError(Error, 'ERR_SOCKET_CLOSED', 'Socket is closed'));
    }
    this.#isResetting = true;
    return this.destroy();
  }

  override pause(): this {
    if (this.#onread !== undefined && this.#connection !== undefined) this.#isReading = false;
    return super.pause();
  }

  override resume(): this {
    this.#resumeOnRead();
    return super.resume();
  }

  // biome-ignore lint/suspicious/noExplicitAny: as Readable declares it
  override read(size?: number): any {
    this.#resumeOnRead();
    return super.read(size);
  }

  override write(chunk: unknown, callback?: (error: Error | null | undefined) => void): boolean;
  override write(
    chunk: unknown,
    encoding: BufferEncoding,
    callback?: (error: Error | null | undefined) => void
  ): boolean;
  override write(chunk: unknown, encoding?: unknown, callback?: unknown): boolean {
    if (!this.readableEnded || this.allowHalfOpen || !this.writableEnded) {
      return super.write(chunk, encoding as BufferEncoding, callback as WriteCallback);
    }
    // The other end has ended, and so has the stream of its own accord: that is not a "write after end".
    const error = argumentError(Error, 'EPIPE', 'This socket has been ended by the other party');
    const onError = typeof encoding === 'function' ? encoding : callback;
    if (typeof onError === 'function') process.nextTick(onError as WriteCallback, error);
    this.destroy(error);
    return false;
  }

  override _read(): void {
    this.#isReading = true;
    if (this.#connection === undefined) return;
    // `onread` runs code of the program, which must not happen inside its own call of `read` or `resume`.
    if (this.#onread === undefined) this.#receive();
    else process.nextTick(receiveLater, this);
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: WriteCallback): void {
    this.#send(chunk, callback);
  }

  override _writev(chunks: WriteEntry[], callback: WriteCallback): void {
    this.#send(chunks, callback);
  }

  override _final(callback: WriteCallback): void {
    if (this.#connection === undefined) {
      this.#onFinal = callback;
      return;
    }
    this.#connection.shutdown();
    // As in Node, a round of the event loop passes. Until then an end of both directions does not destroy.
    setImmediate(callback);
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.connecting = false;
    this.#idle?.stop();
    this.#idle = undefined;
    this.#attempt?.cancel();
    this.#attempt = undefined;
    const connection = this.#connection;
    this.#connection = undefined;
    if (this.#isResetting) connection?.abort();
    else connection?.release();
    this.#isReading = false;
    const onWritten = this.#onWritten;
    this.#forgetPending();
    this.#onFinal = undefined;
    callback(error);
    onWritten?.(error ?? closedEarly(connection !== undefined));
    this.#emitCloseLater(error !== null);
    const server = this.server;
    if (server !== null) {
      this.server = null;
      server.onSocketDestroyed();
    }
  }

  /** Is called by the stack when something has happened to the connection. @internal */
  onTcpEvents(connection: TcpConnection, events: number): void {
    this.#context?.runInAsyncScope(this.#handle, this, connection, events);
  }

  /** @internal */
  onConnected(connection: TcpConnection, events: number): void {
    this.connecting = false;
    this.#attempt = undefined;
    this.#open(connection);
    try {
      this.emit('connect');
      this.#flush();
      this.#finish();
      this.emit('ready');
    } finally {
      // The first read notices an end or a reset, and takes no data out of the stream.
      if (this.#connection === connection && !this.isPaused()) this.read(0);
      if (events !== 0) this.#handle(connection, events);
    }
  }

  /** @internal */
  onConnectFailed(error: Error): void {
    this.#attempt = undefined;
    this.destroy(error);
  }

  /** Calls it in the async context of the socket. @internal */
  runInContext(callback: () => void): void {
    if (this.#context === undefined) callback();
    else this.#context.runInAsyncScope(callback);
  }

  /** Takes data out of TCP as long as it is wanted. @internal */
  receive(): void {
    if (this.#connection !== undefined) this.#receive();
  }

  #handle(connection: TcpConnection, events: number): void {
    try {
      if (this.#attempt !== undefined) {
        this.#attempt.onTcpEvents(connection, events);
      } else if (connection === this.#connection) {
        this.#idle?.touch();
        if ((events & ~TcpEvent.Writable) !== 0) this.#receive();
        if ((events & (TcpEvent.Writable | TcpEvent.Closed)) !== 0) this.#flush();
      }
    } catch (error) {
      throwLater(error);
      process.nextTick(receiveLater, this);
    }
  }

  /** Ends if that was asked for before there was a connection. */
  #finish(): void {
    const onFinal = this.#onFinal;
    this.#onFinal = undefined;
    if (onFinal !== undefined) this._final(onFinal);
  }

  #open(connection: TcpConnection): void {
    this.#connection = connection;
    this.#flow = connection.flow;
    this.#idle?.touch();
    if (this.#isNoDelay) connection.setNoDelay(true);
    if (this.#keepAliveMs > 0) connection.setKeepAlive(this.#keepAliveMs);
  }

  /** Takes data, the end, or the error behind the data, as long as the stream wants it. */
  #receive(): void {
    const connection = this.#connection!;
    while (this.#isReading && connection === this.#connection && connection.available > 0) {
      if (this.#onread === undefined) this.#push(connection);
      else this.#fill(connection, this.#onread);
    }
    if (!this.#isReading || connection !== this.#connection) return;
    if (connection.isReadEnded) {
      this.#isReading = false;
      this.#isEnded = true;
      this.push(null);
      // `end` is emitted although nothing reads, if nothing is left to read.
      this.read(0);
    } else if (connection.failure !== undefined) {
      this.destroy(this.#failureError(connection, 'read'));
    }
  }

  #push(connection: TcpConnection): void {
    const room = this.readableFlowing ? 0 : this.readableHighWaterMark - this.readableLength;
    const length = Math.min(connection.available, room > 0 ? room : MAX_CHUNK);
    const chunk = Buffer.allocUnsafe(length);
    connection.read(chunk, 0, length);
    this.#bytesRead += length;
    if (!this.push(chunk)) this.#isReading = false;
  }

  #fill(connection: TcpConnection, onread: OnReadOptions): void {
    const buffer = typeof onread.buffer === 'function' ? onread.buffer() : onread.buffer;
    const length = connection.read(buffer, 0, Math.min(connection.available, buffer.length));
    if (length === 0) {
      this.destroy(systemError('ENOBUFS', 'read'));
      return;
    }
    this.#bytesRead += length;
    if (onread.callback(length, buffer) === false) this.#isReading = false;
  }

  /** Lets `onread` go on after a pause. */
  #resumeOnRead(): void {
    if (this.#onread === undefined || this.#connection === undefined) return;
    if (this.#isReading || this.#isEnded) return;
    this.#isReading = true;
    process.nextTick(receiveLater, this);
  }

  #send(data: Uint8Array | readonly WriteEntry[], callback: WriteCallback): void {
    if (this.#connection === undefined && !this.connecting) {
      callback(argumentError(Error, 'ERR_SOCKET_CLOSED', 'Socket is closed'));
      return;
    }
    this.#pending = data;
    this.#onWritten = callback;
    this.#idle?.touch();
    this.#flush();
  }

  /** Copies what is pending into the send buffer, as far as there is room. */
  #flush(): void {
    const connection = this.#connection;
    const onWritten = this.#onWritten;
    if (connection === undefined || onWritten === undefined) return;
    if (connection.failure !== undefined) {
      this.#forgetPending();
      onWritten(this.#failureError(connection, 'write'));
      return;
    }
    if (!this.#takePending(connection)) return;
    this.#forgetPending();
    onWritten();
  }

  /** Returns whether all of it found room. */
  #takePending(connection: TcpConnection): boolean {
    const pending = this.#pending!;
    const count = Array.isArray(pending) ? pending.length : 1;
    while (this.#pendingIndex < count) {
      const chunk: Uint8Array = Array.isArray(pending)
        ? pending[this.#pendingIndex].chunk
        : pending;
      const taken = connection.write(chunk, this.#pendingOffset);
      this.#bytesSent += taken;
      this.#pendingBytes += taken;
      this.#pendingOffset += taken;
      if (this.#pendingOffset < chunk.length) return false;
      this.#pendingIndex++;
      this.#pendingOffset = 0;
    }
    return true;
  }

  #forgetPending(): void {
    this.#pending = undefined;
    this.#onWritten = undefined;
    this.#pendingIndex = 0;
    this.#pendingOffset = 0;
    this.#pendingBytes = 0;
  }

  #failureError(connection: TcpConnection, syscall: 'read' | 'write'): Error {
    const { failure } = connection;
    // As on Linux, a reset behind the end of the other side is EPIPE for who still writes.
    const isPipe = failure === 'reset' && syscall === 'write' && connection.isReadEnded;
    const code = isPipe ? 'EPIPE' : codeOfFailure(failure);
    return systemError(code, syscall, { cause: connection.cause ?? this.#host.closedBy });
  }

  #emitCloseLater(hadError: boolean): void {
    const context = this.#context;
    this.#context = undefined;
    if (context === undefined) {
      process.nextTick(emitClose, this, hadError);
    } else {
      context.runInAsyncScope(process.nextTick, process, emitClose, this, hadError);
      context.emitDestroy();
    }
  }

  /** Makes a destroyed socket like new, as `net.Socket` allows it. */
  #revive(): void {
    (this as unknown as { _undestroy(): void })._undestroy();
    this.#flow = undefined;
    this.#isResetting = false;
    this.#isEnded = false;
    this.#bytesRead = 0;
    this.#bytesSent = 0;
  }
}

/**
 * Makes an uncaught exception of what a listener has thrown, in a tick of its own: the other sockets, and the rest of
 * the data, are not hurt if the program goes on.
 */
export function throwLater(error: unknown): void {
  process.nextTick(() => {
    throw error;
  });
}

type WriteCallback = (error?: Error | null) => void;

interface WriteEntry {
  readonly chunk: Uint8Array;
  readonly encoding: BufferEncoding;
}

function streamOptions(options: PresenceSocketOptions): Record<string, unknown> {
  const { highWaterMark, readableHighWaterMark, writableHighWaterMark } = options;
  // `close` is emitted here, with whether there was an error.
  const result: Record<string, unknown> = {
    allowHalfOpen: Boolean(options.allowHalfOpen),
    emitClose: false,
  };
  if (highWaterMark !== undefined) result.highWaterMark = highWaterMark;
  if (readableHighWaterMark !== undefined) result.readableHighWaterMark = readableHighWaterMark;
  if (writableHighWaterMark !== undefined) result.writableHighWaterMark = writableHighWaterMark;
  return result;
}

function checkedOnRead(onread: OnReadOptions | undefined): OnReadOptions | undefined {
  if (typeof onread !== 'object' || onread === null) return undefined;
  const isBuffer = onread.buffer instanceof Uint8Array || typeof onread.buffer === 'function';
  return isBuffer && typeof onread.callback === 'function' ? onread : undefined;
}

function keepAliveMs(enable: boolean | undefined, initialDelay = 0): number {
  if (!enable) return 0;
  const seconds = Math.min(Math.trunc(initialDelay / 1000), MAX_KEEP_ALIVE_S);
  return seconds > 0 ? seconds * 1000 : KEEP_ALIVE_MS;
}

function familyName(flow: Flow | undefined): 'IPv4' | 'IPv6' | undefined {
  if (flow === undefined) return undefined;
  return flow.family === 4 ? 'IPv4' : 'IPv6';
}

function closedEarly(wasConnected: boolean): Error {
  return wasConnected
    ? argumentError(Error, 'ERR_STREAM_DESTROYED', 'Cannot call write after a stream was destroyed')
    : argumentError(
        Error,
        'ERR_SOCKET_CLOSED_BEFORE_CONNECTION',
        'Socket closed before the connection was established'
      );
}

function emitClose(socket: PresenceSocket, hadError: boolean): void {
  socket.emit('close', hadError);
}

function receiveLater(socket: PresenceSocket): void {
  socket.receive();
}

/** The most that one `data` event carries when the stream flows. */
const MAX_CHUNK = 65_536;
/** The time before the first keepalive probe that Linux has by default. */
const KEEP_ALIVE_MS = 7_200_000;
/** The longest time that Linux takes. */
const MAX_KEEP_ALIVE_S = 32_767;
