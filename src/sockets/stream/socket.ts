/**
 * `PresenceSocket`: a connection of the TCP endpoint with the public members of `net.Socket`.
 *
 * `SocketStream` carries its bytes; here is what programs call.
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
import type { AddressInfo } from 'node:net';
import { addAbortSignal } from 'node:stream';
import type { Flow } from '../../tcp/index.ts';
import { argumentError, checkCallback, checkMs } from '../node/argument-checks.ts';
import type { AddListener, PresenceSocketEvents } from '../node/events.ts';
import { systemError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';
import {
  connectTarget,
  keepAliveMs,
  normalizeArguments,
  type PresenceConnectOptions,
  type PresenceNetConnectOptions,
} from './arguments.ts';
import { ConnectAttempt } from './attempt.ts';
import { IdleTimer } from './idle-timer.ts';
import { newContext, SocketStream } from './socket-stream.ts';

/** Connects as `net.connect` does: `(options[, listener])` or `(port[, host][, listener])`. */
export function connect(host: SocketHost, ...args: unknown[]): PresenceSocket {
  const [options, listener] = normalizeArguments<PresenceNetConnectOptions>(args);
  const socket = new PresenceSocket(host, options);
  if (options.timeout) socket.setTimeout(options.timeout);
  return socket.connect(options, listener);
}

/**
 * A TCP connection over the presences of a site. It is a Duplex with the public members and events of `net.Socket`.
 * TypeScript needs a cast where a type wants a `net.Socket`.
 *
 * Events: `connect`, `ready`, `lookup`, `connectionAttempt`, `connectionAttemptFailed`, `connectionAttemptTimeout`,
 * `data`, `end`, `drain`, `finish`, `timeout`, `error`, `close` (with whether there was an error).
 */
export class PresenceSocket extends SocketStream {
  declare addListener: AddListener<PresenceSocketEvents, this>;
  declare on: AddListener<PresenceSocketEvents, this>;
  declare once: AddListener<PresenceSocketEvents, this>;
  declare prependListener: AddListener<PresenceSocketEvents, this>;
  declare prependOnceListener: AddListener<PresenceSocketEvents, this>;

  /** What `setTimeout` was called with, in ms. */
  timeout: number | undefined = undefined;

  /** Connects: `(options[, listener])` or `(port[, host][, listener])`. It returns at once. */
  connect(options: PresenceConnectOptions, listener?: () => void): this;
  connect(port: number, host: string, listener?: () => void): this;
  connect(port: number, listener?: () => void): this;
  connect(...args: unknown[]): this {
    const [options, listener] = normalizeArguments<PresenceConnectOptions>(args);
    const target = connectTarget(options);
    if (listener !== undefined) this.once('connect', listener);
    const signal = options.signal || this._signal;
    if (signal?.aborted && this.destroyed) return this;
    // A socket that is destroyed has left its signal.
    const isWatched = signal === this._signal && !this.destroyed;
    if (this.destroyed) this._revive();
    if (signal && !isWatched) {
      this._signal = signal;
      addAbortSignal(signal, this);
    }
    if (signal?.aborted) return this;
    if (this._attempt !== undefined || this._connection !== undefined) {
      const code = this.connecting ? 'EALREADY' : 'EISCONN';
      this.destroy(systemError(code, 'connect', { address: target.host, port: target.port }));
      return this;
    }
    this._context = newContext();
    this._idle?.touch();
    this.connecting = true;
    this._attempt = new ConnectAttempt(this._host, target, this);
    this._attempt.start(signal);
    return this;
  }

  /** Whether it is not connected: not yet, or no longer. */
  get pending(): boolean {
    return this._connection === undefined;
  }

  get readyState(): 'opening' | 'open' | 'readOnly' | 'writeOnly' | 'closed' {
    if (this.connecting) return 'opening';
    if (this.readable) return this.writable ? 'open' : 'readOnly';
    return this.writable ? 'writeOnly' : 'closed';
  }

  get remoteAddress(): string | undefined {
    return this._flow?.remote.toString();
  }

  get remotePort(): number | undefined {
    return this._flow?.remotePort;
  }

  get remoteFamily(): 'IPv4' | 'IPv6' | undefined {
    return familyName(this._flow);
  }

  get localAddress(): string | undefined {
    return this._flow?.local.toString();
  }

  get localPort(): number | undefined {
    return this._flow?.localPort;
  }

  get localFamily(): 'IPv4' | 'IPv6' | undefined {
    return familyName(this._flow);
  }

  /** Our own end; an empty object if there is none. */
  address(): AddressInfo | Record<string, never> {
    const flow = this._flow;
    if (flow === undefined) return {};
    return {
      address: flow.local.toString(),
      family: flow.family === 4 ? 'IPv4' : 'IPv6',
      port: flow.localPort,
    };
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
    this._idle?.stop();
    this._idle = undefined;
    if (limitMs === 0) {
      if (listener !== undefined) this.removeListener('timeout', listener);
      return this;
    }
    const onIdle = AsyncResource.bind(() => void this.emit('timeout'));
    this._idle = new IdleTimer(this._host.clock, limitMs, onIdle);
    if (listener !== undefined) this.once('timeout', listener);
    return this;
  }

  setNoDelay(noDelay = true): this {
    this._isNoDelay = Boolean(noDelay);
    this._connection?.setNoDelay(this._isNoDelay);
    return this;
  }

  /** Switches keepalive. The delay in ms before the first probe is cut to whole seconds; 0 means 2 h. */
  setKeepAlive(enable = false, initialDelay = 0): this {
    this._keepAliveMs = keepAliveMs(enable, initialDelay);
    this._connection?.setKeepAlive(this._keepAliveMs);
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
    if (this._connection === undefined) {
      return this.destroy(argumentError(Error, 'ERR_SOCKET_CLOSED', 'Socket is closed'));
    }
    this._isResetting = true;
    return this.destroy();
  }

  override write(chunk: unknown, callback?: (error: Error | null | undefined) => void): boolean;
  override write(
    chunk: unknown,
    encoding: BufferEncoding,
    callback?: (error: Error | null | undefined) => void
  ): boolean;
  override write(chunk: unknown, encoding?: unknown, callback?: unknown): boolean {
    if (!this.readableEnded || this.allowHalfOpen || !this.writableEnded) {
      return super.write(chunk, encoding as BufferEncoding, callback as never);
    }
    // The other end has ended, and so has the stream of its own accord: that is not a "write after end".
    const error = argumentError(Error, 'EPIPE', 'This socket has been ended by the other party');
    const onError = typeof encoding === 'function' ? encoding : callback;
    if (typeof onError === 'function') process.nextTick(onError as never, error);
    this.destroy(error);
    return false;
  }
}

function familyName(flow: Flow | undefined): 'IPv4' | 'IPv6' | undefined {
  if (flow === undefined) return undefined;
  return flow.family === 4 ? 'IPv4' : 'IPv6';
}
