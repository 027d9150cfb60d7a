/**
 * The stream of a socket: carries bytes, ends and errors between a Duplex and its TCP connection.
 *
 * What the program has not read stays in the receive buffer of TCP, so that the window closes; the stream holds at
 * most its high-water mark. A write is copied into the send buffer, and its callback comes when there was room.
 *
 * The stack calls `onTcpEvents` outside of packet processing. All code of the program then runs in the async context
 * in which the socket was connected or its server started.
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
import type { EventEmitter } from 'node:events';
import { addAbortSignal, Duplex } from 'node:stream';
import { throwToProcess } from '../../base/emitter.ts';
import { type Flow, type TcpConnection, TcpEvent } from '../../tcp/index.ts';
import { argumentError } from '../node/argument-checks.ts';
import { codeOfFailure } from '../node/error-codes.ts';
import { systemError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';
import {
  checkedOnRead,
  checkSocketOptions,
  keepAliveMs,
  type OnReadOptions,
  type PresenceSocketOptions,
  streamOptions,
} from './arguments.ts';
import type { AttemptOwner, ConnectAttempt } from './attempt.ts';
import type { IdleTimer } from './idle-timer.ts';
import { PendingWrite, type WriteCallback, type WriteEntry } from './pending-write.ts';

/** The server that accepted a socket. */
export interface SocketServer {
  /** The socket is destroyed. */
  onSocketDestroyed(): void;
}

/** Everything of a socket that programs do not call. */
export abstract class SocketStream extends Duplex implements AttemptOwner {
  /** Whether `connect` was called and is not done. */
  connecting = false;
  /** The server that accepted this socket, or the `http.Server` that it was handed to. */
  server: EventEmitter | null = null;
  /** The addresses that were tried, if there were several. */
  declare autoSelectFamilyAttemptedAddresses?: string[];

  // No `#` where subclasses look, and an underscore as in Node, since programs keep things of their own in sockets.
  protected readonly _host: SocketHost;
  /** @internal */
  protected _server: SocketServer | undefined;
  readonly #onread: OnReadOptions | undefined;
  protected _context: AsyncResource | undefined;
  /** @internal */
  protected _attempt: ConnectAttempt | undefined;
  protected _connection: TcpConnection | undefined;
  /** The ends of the connection, also after it was destroyed. */
  protected _flow: Flow | undefined;
  /** @internal */
  protected _idle: IdleTimer | undefined;
  /** The stream or the `onread` callback wants data. */
  #isReading = false;
  /** The stream has been told of the end. */
  #isEnded = false;
  /**
   * The connection is new: what it brings waits for `setImmediate`, so that a program may await something before it
   * listens, as in Node. There, nothing can arrive within the call that hands over the socket.
   */
  #isNew = false;
  protected _signal: AbortSignal | undefined;
  protected _isNoDelay: boolean;
  /** 0 without keepalive. */
  protected _keepAliveMs: number;
  protected _isResetting = false;
  #bytesRead = 0;
  /** Bytes that the send buffer has taken. */
  #bytesSent = 0;
  #pending: PendingWrite | undefined;
  #onFinal: WriteCallback | undefined;
  /** How many streams are piped into this one: `pipe` adds a listener for `error` that only passes it on. */
  #pipes = 0;

  /** @param host the stack: `edge.sockets` */
  constructor(host: SocketHost, options?: PresenceSocketOptions | null) {
    options ??= {};
    super(streamOptions(options));
    checkSocketOptions(options);
    this._host = host;
    this.#onread = checkedOnRead(options.onread);
    this._isNoDelay = Boolean(options.noDelay);
    this._keepAliveMs = keepAliveMs(options.keepAlive, options.keepAliveInitialDelay);
    this._signal = options.signal || undefined;
    if (this._signal !== undefined) addAbortSignal(this._signal, this);
    this.on('pipe', countPipe).on('unpipe', countUnpipe);
  }

  /** @internal */
  addPipes(count: number): void {
    this.#pipes += count;
  }

  /**
   * Takes an accepted connection.
   *
   * @param emitter the server, if it is one for programs
   * @internal
   */
  adopt(connection: TcpConnection, server: SocketServer, emitter: EventEmitter | null): void {
    connection.owner = this;
    this._context = newContext();
    this.server = emitter;
    this._server = server;
    this._open(connection);
  }

  /** Bytes that the program has received, or that wait in the stream. */
  get bytesRead(): number {
    return this.#bytesRead;
  }

  /** Bytes that were written, also those that still wait in the stream. */
  get bytesWritten(): number {
    if (this.destroyed) return this.#bytesSent;
    return this.#bytesSent - (this.#pending?.taken ?? 0) + this.writableLength;
  }

  override pause(): this {
    if (this.#onread !== undefined && this._connection !== undefined) this.#isReading = false;
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

  override _read(): void {
    this.#isReading = true;
    if (this._connection === undefined) return;
    // `onread` runs code of the program, which must not happen inside its own call of `read` or `resume`.
    if (this.#onread === undefined) this.#receive();
    else process.nextTick(receiveLater, this);
  }

  /**
   * Copies into the send buffer what there is room for, without a chunk of the stream, if none waits there. Returns how
   * many bytes.
   *
   * @internal
   */
  writeNow(bytes: Uint8Array): number {
    const connection = this._connection;
    if (connection === undefined || connection.failure !== undefined) return 0;
    if (this.writableEnded || this.writableLength > 0) return 0;
    this._idle?.touch();
    const taken = connection.write(bytes);
    this.#bytesSent += taken;
    return taken;
  }

  /** @internal */
  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: WriteCallback): void {
    const connection = this._connection;
    let taken = 0;
    if (connection !== undefined && connection.failure === undefined) {
      this._idle?.touch();
      taken = connection.write(chunk);
      this.#bytesSent += taken;
      if (taken === chunk.length) {
        callback();
        return;
      }
    }
    this.#wait([{ chunk }], taken, callback);
  }

  /** @internal */
  override _writev(chunks: WriteEntry[], callback: WriteCallback): void {
    this.#wait(chunks, 0, callback);
  }

  /** @internal */
  override _final(callback: WriteCallback): void {
    if (this._connection === undefined) {
      this.#onFinal = callback;
      return;
    }
    this._connection.shutdown();
    // As in Node, a round of the event loop passes. Until then an end of both directions does not destroy.
    setImmediate(callback);
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.connecting = false;
    this._idle?.stop();
    this._idle = undefined;
    const attempt = this._attempt;
    this._attempt = undefined;
    attempt?.cancel();
    const connection = this._connection;
    this._connection = undefined;
    if (this._isResetting) connection?.abort();
    // What nobody has read is given back in any case.
    connection?.release();
    this.#isReading = false;
    const pending = this.#pending;
    this.#pending = undefined;
    this.#onFinal = undefined;
    // Without an error here the stream emits none; it knows it nevertheless, for those who ask later.
    callback(this.#isExpected(error, attempt) ? null : error);
    pending?.callback(error ?? closedEarly(connection !== undefined));
    this.#emitCloseLater(error !== null);
    this._server?.onSocketDestroyed();
    this._server = undefined;
  }

  /** Is called by the stack when something has happened to the connection. @internal */
  onTcpEvents(connection: TcpConnection, events: number): void {
    this._context?.runInAsyncScope(this.#handle, this, connection, events);
  }

  /** @internal */
  onConnected(connection: TcpConnection): void {
    this.connecting = false;
    this._attempt = undefined;
    this._open(connection);
    try {
      this.emit('connect');
      this.#flush();
      this.#finish();
      this.emit('ready');
    } finally {
      // The first read notices an end or a reset, and takes no data out of the stream.
      if (this._connection === connection && !this.isPaused()) this.read(0);
    }
  }

  /** @internal */
  onConnectFailed(error: Error): void {
    this.destroy(error);
  }

  /** Calls it in the async context of the socket. @internal */
  runInContext(callback: () => void): void {
    if (this._context === undefined) callback();
    else this._context.runInAsyncScope(callback);
  }

  /** Takes data out of TCP as long as it is wanted. @internal */
  receive(): void {
    if (this._connection !== undefined) this.#receive();
  }

  #handle(connection: TcpConnection, events: number): void {
    try {
      if (this._attempt !== undefined) {
        this._attempt.onTcpEvents(connection, events);
      } else if (connection === this._connection && !this.#isNew) {
        this._idle?.touch();
        if ((events & ~TcpEvent.Writable) !== 0) this.#receive();
        if ((events & (TcpEvent.Writable | TcpEvent.Closed)) !== 0) this.#flush();
        if ((events & TcpEvent.Closed) !== 0) this.#leaveStack();
      }
    } catch (error) {
      // The other sockets, and the rest of the data, are not hurt if the program goes on.
      throwToProcess(error);
      process.nextTick(receiveLater, this);
    }
  }

  /** Ends if that was asked for before there was a connection. */
  #finish(): void {
    const onFinal = this.#onFinal;
    this.#onFinal = undefined;
    if (onFinal !== undefined) this._final(onFinal);
  }

  protected _open(connection: TcpConnection): void {
    this._connection = connection;
    this._flow = connection.flow;
    this.#isNew = true;
    setImmediate(takeFirst, this, connection);
    this._idle?.touch();
    if (this._isNoDelay) connection.setNoDelay(true);
    if (this._keepAliveMs > 0) connection.setKeepAlive(this._keepAliveMs);
  }

  /** Takes what a new connection has brought meanwhile. @internal */
  takeFirst(connection: TcpConnection): void {
    if (connection !== this._connection) return;
    this.#isNew = false;
    this.onTcpEvents(connection, TcpEvent.Readable | TcpEvent.Closed);
  }

  /** Takes data, the end, or the error behind the data, as long as the stream wants it. */
  #receive(): void {
    if (this.#isNew) return;
    const connection = this._connection!;
    while (this.#isReading && connection === this._connection && connection.available > 0) {
      if (this.#onread === undefined) this.#push(connection);
      else this.#fill(connection, this.#onread);
    }
    if (!this.#isReading || connection !== this._connection) return;
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

  /** A closed stack ends also those who do not read, and would never learn of it, unless they have something to read. */
  #leaveStack(): void {
    const connection = this._connection;
    if (!this._host.isClosed || connection?.failure === undefined) return;
    if (connection.available > 0 || this.readableLength > 0) return;
    this.destroy(this.#failureError(connection, 'read'));
  }

  /**
   * Whether the program has brought the error about by closing the stack, and nobody listens but `pipe`: an `error`
   * event would then end the process.
   */
  #isExpected(error: Error | null, attempt: ConnectAttempt | undefined): boolean {
    const { isClosed, closedBy } = this._host;
    if (error === null || !isClosed || error.cause !== closedBy) return false;
    return attempt?.isTooLate !== true && this.listenerCount('error') <= this.#pipes;
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
    if (this.#onread === undefined || this._connection === undefined) return;
    if (this.#isReading || this.#isEnded) return;
    this.#isReading = true;
    process.nextTick(receiveLater, this);
  }

  /** Copies now what there is room for, and the rest later. */
  #wait(chunks: readonly WriteEntry[], taken: number, callback: WriteCallback): void {
    const isConnected = this._connection !== undefined;
    if (!isConnected && !this.connecting) {
      callback(argumentError(Error, 'ERR_SOCKET_CLOSED', 'Socket is closed'));
      return;
    }
    // As in Node, the context is that of the write, or of `connect` if it waits for that.
    const bound = isConnected ? AsyncResource.bind(callback) : callback;
    this.#pending = new PendingWrite(chunks, taken, bound);
    this._idle?.touch();
    this.#flush();
  }

  #flush(): void {
    const connection = this._connection;
    const pending = this.#pending;
    if (connection === undefined || pending === undefined) return;
    if (connection.failure !== undefined) {
      this.#pending = undefined;
      pending.callback(this.#failureError(connection, 'write'));
      return;
    }
    const { taken } = pending;
    const isWritten = pending.copyTo(connection);
    this.#bytesSent += pending.taken - taken;
    if (!isWritten) return;
    this.#pending = undefined;
    pending.callback();
  }

  #failureError(connection: TcpConnection, syscall: 'read' | 'write'): Error {
    const { failure } = connection;
    // As on Linux, a reset behind the end of the other side is EPIPE for who still writes.
    const isPipe = failure === 'reset' && syscall === 'write' && connection.isReadEnded;
    const code = isPipe ? 'EPIPE' : codeOfFailure(failure);
    return systemError(code, syscall, { cause: connection.cause ?? this._host.closedBy });
  }

  /** Makes a destroyed socket like new, as `net.Socket` allows it. */
  protected _revive(): void {
    (this as unknown as { _undestroy(): void })._undestroy();
    this._flow = undefined;
    this._isResetting = false;
    this.#isEnded = false;
    this.#bytesRead = 0;
    this.#bytesSent = 0;
  }

  /**
   * As in Node, all ticks and promises run first: what has awaited another event, such as `error`, can still wait for
   * `close`.
   */
  #emitCloseLater(hadError: boolean): void {
    const context = this._context;
    this._context = undefined;
    if (context === undefined) {
      setImmediate(emitClose, this, hadError);
    } else {
      context.runInAsyncScope(setImmediate, undefined, emitClose, this, hadError);
      context.emitDestroy();
    }
  }
}

/** Captures the async context of the caller. */
export function newContext(): AsyncResource {
  return new AsyncResource('PRESENCESOCKET', { requireManualDestroy: true });
}

/** What became of a write that `destroy` has cut off. */
function closedEarly(wasConnected: boolean): Error {
  return wasConnected
    ? systemError('ECANCELED', 'write')
    : argumentError(
        Error,
        'ERR_SOCKET_CLOSED_BEFORE_CONNECTION',
        'Socket closed before the connection was established'
      );
}

// Functions of the module, so that they cost a socket no closure.
function countPipe(this: SocketStream): void {
  this.addPipes(1);
}

function countUnpipe(this: SocketStream): void {
  this.addPipes(-1);
}

function emitClose(socket: SocketStream, hadError: boolean): void {
  socket.emit('close', hadError);
}

function takeFirst(socket: SocketStream, connection: TcpConnection): void {
  socket.takeFirst(connection);
}

function receiveLater(socket: SocketStream): void {
  socket.receive();
}

/** The most that one `data` event carries when the stream flows. */
const MAX_CHUNK = 65_536;
