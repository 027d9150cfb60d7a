/**
 * `PresenceDatagramSocket`: a UDP socket of the stack with the API of `dgram.Socket`.
 *
 * A datagram that is sent:
 *
 * 1. A socket that is not bound is bound to a random port. What is called meanwhile waits, as in Node.
 * 2. It waits until the stack is up (`SocketHost.whenUp`), and fails if that fails.
 * 3. The name is looked up in the site's zone, or by the `lookup` of the program.
 * 4. It goes into the queue of the UDP socket, and the callback is called when it has left it: a program that sends
 *    the next datagram in the callback of the one before cannot fill the queue.
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
import type { RemoteInfo } from 'node:dgram';
import type { AddressInfo } from 'node:net';
import type { Family, IpAddress } from '../../base/address.ts';
import { throwToProcess } from '../../base/emitter.ts';
import { QUEUE_LIMIT } from '../ip/datagram-queue.ts';
import { closeOnAbort } from '../node/abort.ts';
import {
  argumentError,
  checkCallback,
  checkName,
  checkSignal,
  checkWhole,
} from '../node/argument-checks.ts';
import type { AddListener, PresenceDatagramEvents } from '../node/events.ts';
import { downError, systemError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';
import {
  bindArguments,
  checkRemotePort,
  type DatagramPayload,
  isConnectedError,
  type PresenceDatagramBindOptions,
  type SendCallback,
  sendArguments,
} from './datagram-arguments.ts';
import { type DatagramLookup, DatagramSender } from './datagram-sender.ts';
import { UnsupportedDatagramCalls } from './datagram-unsupported.ts';
import { UdpEvent, type UdpOwner, type UdpSocket } from './udp-socket.ts';
import { WaitingCalls } from './waiting-calls.ts';

/** The options of `dgram.createSocket` that have a meaning here. */
export interface PresenceDatagramOptions {
  readonly type: 'udp4' | 'udp6';
  /** The bound of the queue of received datagrams in bytes; default, and at most, 262,144. */
  readonly recvBufferSize?: number | undefined;
  /** The bound of the queue of datagrams to be sent in bytes; default, and at most, 262,144. */
  readonly sendBufferSize?: number | undefined;
  /** Default: names of the site's zone, and addresses. */
  readonly lookup?: DatagramLookup | undefined;
  /** Closes the socket; without it only `close` does. */
  readonly signal?: AbortSignal | undefined;
}

/** Takes a datagram, and says where it came from. */
export type MessageListener = (message: Buffer, from: RemoteInfo) => void;

/**
 * Emits `message` (bytes, `RemoteInfo`), `listening`, `connect`, `error` and `close`. When the stack is closed, the
 * socket is closed too; if somebody listens for `error`, an error ENETDOWN with the `cause` comes first.
 * A connected socket whose peer or port is withdrawn from the site emits `error` (ECONNREFUSED with a `cause`), also only
 * if somebody listens, and goes on.
 *
 * A socket of type `udp6` takes IPv6 alone. Multicast, broadcast and hop limits do not exist here: their methods throw
 * a system error ENOTSUP.
 */
export class PresenceDatagramSocket extends UnsupportedDatagramCalls {
  declare addListener: AddListener<PresenceDatagramEvents, this>;
  declare on: AddListener<PresenceDatagramEvents, this>;
  declare once: AddListener<PresenceDatagramEvents, this>;
  declare prependListener: AddListener<PresenceDatagramEvents, this>;
  declare prependOnceListener: AddListener<PresenceDatagramEvents, this>;

  readonly type: 'udp4' | 'udp6';

  readonly #host: SocketHost;
  readonly #family: Family;
  readonly #resource: AsyncResource = new AsyncResource('PRESENCEDATAGRAM');
  readonly #sender: DatagramSender;
  readonly #owner: UdpOwner = { onUdpEvents: (_, events) => this.#onUdpEvents(events) };
  #recvBufferSize: number = QUEUE_LIMIT;
  #isOpen = true;
  #bindState: 'unbound' | 'binding' | 'bound' = 'unbound';
  #connectState: 'disconnected' | 'connecting' | 'connected' = 'disconnected';
  /** What was called while the socket is not bound yet. */
  readonly #bound: WaitingCalls = new WaitingCalls();
  #socket: UdpSocket | undefined;
  /** Is told by the stack that it is closed; the UDP endpoint only tells sockets that are bound. */
  readonly #whileUnbound = { close: () => process.nextTick(() => this.#onClosedUnbound()) };

  /** @throws Node's errors if the arguments are wrong. */
  constructor(
    host: SocketHost,
    options: PresenceDatagramOptions | 'udp4' | 'udp6',
    listener?: MessageListener
  ) {
    super();
    const given = typeof options === 'object' && options !== null ? options : { type: options };
    const { type, recvBufferSize, sendBufferSize, lookup, signal } = given;
    if (type !== 'udp4' && type !== 'udp6') {
      const text = 'Bad socket type specified. Valid types are: udp4, udp6';
      throw argumentError(TypeError, 'ERR_SOCKET_BAD_TYPE', text);
    }
    if (lookup != null) checkCallback('lookup', lookup);
    checkSignal(signal);
    this.type = type;
    this.#host = host;
    this.#family = type === 'udp4' ? 4 : 6;
    const emitError = (error: Error): void => process.nextTick(() => this.#emitError(error));
    this.#sender = new DatagramSender(host, this.#family, lookup ?? undefined, emitError);
    if (recvBufferSize) this.setRecvBufferSize(recvBufferSize);
    if (sendBufferSize) this.setSendBufferSize(sendBufferSize);
    if (typeof listener === 'function') this.on('message', listener);
    if (!host.isClosed) host.servers.add(this.#whileUnbound);
    const close = (): void => {
      if (this.#isOpen) this.close();
    };
    if (signal?.aborted) close();
    else if (signal) closeOnAbort(this, signal, close);
  }

  /**
   * Binds the socket and emits `listening`; the default is a random port on all addresses of the stack. Emits `error`
   * with EADDRINUSE, EADDRNOTAVAIL or ENETDOWN.
   *
   * @throws Node's errors if the arguments are wrong, and if the socket is bound or closed.
   */
  bind(port?: number, address?: string, callback?: () => void): this;
  bind(port: number, callback?: () => void): this;
  bind(callback: () => void): this;
  bind(options: PresenceDatagramBindOptions, callback?: () => void): this;
  bind(...args: readonly unknown[]): this {
    this.#checkOpen();
    if (this.#bindState !== 'unbound') {
      throw argumentError(Error, 'ERR_SOCKET_ALREADY_BOUND', 'Socket is already bound');
    }
    const place = bindArguments(args);
    const { port, address } = place;
    this.#bindState = 'binding';
    this.#host.servers.delete(this.#whileUnbound);
    const callback = args.at(-1);
    if (typeof callback === 'function') this.#onceListening(callback as () => void);
    if (address === '' || address === this.#anyAddress) {
      process.nextTick(() => this.#bindTo(this.#anyAddress, undefined, port));
    } else {
      const fail = (error: Error): void => this.#bindFailed(error);
      const isDown = (error: Error): void => fail(downError(error, 'bind', place) as Error);
      const onLookup = (error: Error | null, local: IpAddress | undefined): void =>
        error ? fail(error) : this.#bindTo(address, local, port);
      const lookUp = (): void => this.#sender.lookUp(address, onLookup);
      this.#sender.whenUp(() => process.nextTick(lookUp), isDown);
    }
    return this;
  }

  /**
   * Sends one datagram; `message` is its payload, or `message[offset .. offset + length)`. The callback is called when
   * it has left the queue, or with a system error: ENOBUFS (the queue is full), EMSGSIZE, ENETDOWN, ENETUNREACH,
   * EADDRNOTAVAIL (the stack's address is none of the site), ENOTFOUND. A datagram to a port that is not exposed is
   * dropped at the cloud, and nobody is told.
   *
   * @throws Node's errors if the arguments are wrong, and if the socket is closed.
   */
  send(message: DatagramPayload, port?: number, address?: string, callback?: SendCallback): void;
  send(message: DatagramPayload, port?: number, callback?: SendCallback): void;
  send(message: DatagramPayload, callback?: SendCallback): void;
  send(
    message: string | NodeJS.ArrayBufferView,
    offset: number,
    length: number,
    port?: number,
    address?: string,
    callback?: SendCallback
  ): void;
  send(
    message: string | NodeJS.ArrayBufferView,
    offset: number,
    length: number,
    port?: number,
    callback?: SendCallback
  ): void;
  send(
    message: string | NodeJS.ArrayBufferView,
    offset: number,
    length: number,
    callback?: SendCallback
  ): void;
  send(...args: readonly unknown[]): void {
    const isConnected = this.#connectState === 'connected';
    const { payload, port, address, callback } = sendArguments(args, isConnected);
    this.#checkOpen();
    const bound = callback && AsyncResource.bind(callback);
    const datagram = { payload, port, address, callback: bound };
    if (this.#bindState === 'unbound') this.bind();
    if (!this.#sender.hold(datagram)) return;
    this.#bound.add(
      () => this.#sender.send(datagram),
      (error) => this.#sender.fail(datagram, error)
    );
  }

  /**
   * Takes datagrams of one peer only from now on, and sends to it. Emits `connect`; without a callback it emits `error`
   * if the name is not found, the peer cannot be reached or the stack is down.
   *
   * @throws Node's errors if the arguments are wrong, and if the socket is connected or closed.
   */
  connect(port: number, address?: string, callback?: () => void): void;
  connect(port: number, callback: () => void): void;
  connect(port: unknown, address?: unknown, callback?: unknown): void {
    const remotePort = checkRemotePort(port);
    if (typeof address === 'function') [address, callback] = [undefined, address];
    const name = checkName('address', address);
    this.#checkOpen();
    if (this.#connectState !== 'disconnected') throw isConnectedError();
    this.#connectState = 'connecting';
    if (this.#bindState === 'unbound') this.bind();
    const connected = typeof callback === 'function' ? (callback as () => void) : undefined;
    if (connected !== undefined) this.once('connect', connected);
    const fail = (error: Error): void => this.#connectFailed(error, connected);
    this.#bound.add(() => this.#connect(remotePort, name, fail), fail);
  }

  /** @throws {Error} ERR_SOCKET_DGRAM_NOT_CONNECTED. */
  disconnect(): void {
    this.#checkConnected();
    this.#socket?.disconnect();
    this.#connectState = 'disconnected';
  }

  /**
   * Closes the socket, once it is bound if something waits for that, and then emits `close`. What is in its queue is
   * still sent; what waits for the stack or a lookup is not, and its callback gets ECANCELED.
   *
   * @throws {Error} ERR_SOCKET_DGRAM_NOT_RUNNING if it is closed.
   */
  close(callback?: () => void): this {
    if (typeof callback === 'function') this.on('close', callback);
    if (this.#bound.size > 0) {
      const close = (): void => {
        if (this.#isOpen) this.close();
      };
      this.#bound.add(close, close);
      return this;
    }
    this.#checkOpen();
    this.#isOpen = false;
    this.#host.servers.delete(this.#whileUnbound);
    this.#sender.onSent(this.#socket?.close() ?? []);
    this.#sender.cancel();
    process.nextTick(() => this.#inContext(() => this.emit('close')));
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOpen) return;
    await new Promise<void>((resolve) => this.close(resolve));
  }

  /** @throws {Error} ERR_SOCKET_DGRAM_NOT_RUNNING if it is closed; a system error EBADF if it is not bound. */
  address(): AddressInfo {
    this.#checkOpen();
    const socket = this.#socket;
    if (socket === undefined) throw systemError('EBADF', 'getsockname');
    const own = socket.remote && this.#host.localAddress(this.#family);
    const address = (socket.local ?? own)?.toString() ?? this.#anyAddress;
    return { address, family: `IPv${this.#family}`, port: socket.localPort };
  }

  /** @throws {Error} ERR_SOCKET_DGRAM_NOT_CONNECTED, or ERR_SOCKET_DGRAM_NOT_RUNNING if it is closed. */
  remoteAddress(): AddressInfo {
    this.#checkOpen();
    this.#checkConnected();
    const { remote, remotePort } = this.#socket!;
    return { address: remote!.toString(), family: `IPv${this.#family}`, port: remotePort };
  }

  getRecvBufferSize(): number {
    return this.#recvBufferSize;
  }

  getSendBufferSize(): number {
    return this.#sender.limit;
  }

  /** @param size in bytes; more than 262,144 counts as that, as a kernel has a limit too. */
  setRecvBufferSize(size: number): void {
    this.#recvBufferSize = Math.min(checkWhole('size', size, 1, MAX_UINT32), QUEUE_LIMIT);
    if (this.#socket !== undefined) this.#socket.received.limit = this.#recvBufferSize;
  }

  /** @param size in bytes; more than 262,144 counts as that, as a kernel has a limit too. */
  setSendBufferSize(size: number): void {
    this.#sender.limit = Math.min(checkWhole('size', size, 1, MAX_UINT32), QUEUE_LIMIT);
    if (this.#socket !== undefined) this.#socket.outgoing.limit = this.#sender.limit;
  }

  /** Returns how many bytes of payload wait to be sent. */
  getSendQueueSize(): number {
    return this.#sender.queueSize;
  }

  /** Returns how many datagrams wait to be sent. */
  getSendQueueCount(): number {
    return this.#sender.queueCount;
  }

  /** Does nothing: the gateway keeps the process running, not its sockets. */
  ref(): this {
    return this;
  }

  /** Does nothing: the gateway keeps the process running, not its sockets. */
  unref(): this {
    return this;
  }

  get #anyAddress(): string {
    return this.#family === 4 ? '0.0.0.0' : '::';
  }

  #checkOpen(): void {
    if (this.#isOpen) return;
    throw argumentError(Error, 'ERR_SOCKET_DGRAM_NOT_RUNNING', 'Not running');
  }

  #checkConnected(): void {
    if (this.#connectState === 'connected') return;
    throw argumentError(Error, 'ERR_SOCKET_DGRAM_NOT_CONNECTED', 'Not connected');
  }

  #onceListening(callback: () => void): void {
    const forget = (): void => {
      this.removeListener('error', forget);
      this.removeListener('listening', onListening);
    };
    const onListening = (): void => {
      forget();
      callback.call(this);
    };
    this.on('error', forget);
    this.on('listening', onListening);
  }

  /** @param local undefined: all addresses, or an address of the other IP version */
  #bindTo(address: string, local: IpAddress | undefined, port: number): void {
    if (!this.#isOpen) return;
    const isValid = local !== undefined || address === this.#anyAddress;
    const own = local?.words.every((word) => word === 0) ? undefined : local;
    const fault = own && this.#host.addressFault(this.#family);
    let bound: UdpSocket | string = 'EINVAL';
    if (fault !== undefined) bound = 'EADDRNOTAVAIL';
    else if (isValid) bound = this.#host.udp.bind(this.#family, own, port, this.#owner);
    if (typeof bound === 'string') {
      const cause = bound === 'ENETDOWN' ? this.#host.closedBy : fault;
      this.#bindFailed(systemError(bound, 'bind', { address, port, cause }));
      return;
    }
    bound.received.limit = this.#recvBufferSize;
    bound.outgoing.limit = this.#sender.limit;
    this.#socket = bound;
    this.#sender.socket = bound;
    this.#bindState = 'bound';
    this.#inContext(() => this.emit('listening'));
    // A listener of `listening` may have closed the socket.
    if (this.#isOpen) this.#bound.open();
    else this.#bound.fail(systemError('ECANCELED', 'bind'));
  }

  #bindFailed(error: Error): void {
    if (!this.#isOpen) return;
    this.#bindState = 'unbound';
    if (!this.#host.isClosed) this.#host.servers.add(this.#whileUnbound);
    this.#emitError(error);
    this.#bound.fail(error);
  }

  #connect(port: number, name: string | undefined, fail: (error: Error) => void): void {
    const onLookup = (error: Error | null, remote: IpAddress | undefined): void => {
      if (!this.#isOpen) return;
      const code = remote ? this.#host.refusal('udp', remote, port) : 'EINVAL';
      if (error !== null || code !== undefined) {
        const address = name ?? remote?.toString();
        const cause = this.#host.addressFault(this.#family);
        process.nextTick(fail, error ?? systemError(code!, 'connect', { address, port, cause }));
        return;
      }
      this.#socket!.connect(remote!, port);
      this.#connectState = 'connected';
      process.nextTick(() => this.#inContext(() => this.emit('connect')));
    };
    const isDown = (error: Error): void =>
      fail(downError(error, 'connect', { address: name, port }) as Error);
    this.#sender.whenUp(() => this.#sender.lookUp(name, onLookup), isDown);
  }

  #connectFailed(error: Error, callback: (() => void) | undefined): void {
    if (!this.#isOpen) return;
    this.#connectState = 'disconnected';
    if (callback === undefined) {
      this.#emitError(error);
      return;
    }
    this.removeListener('connect', callback);
    this.#inContext(() => (callback as (error: Error) => void)(error));
  }

  #onUdpEvents(events: number): void {
    const socket = this.#socket;
    if (socket === undefined) return;
    if ((events & UdpEvent.Sent) !== 0) this.#sender.onSent(socket.takeSent());
    if ((events & UdpEvent.Failed) !== 0) this.#onFailure(socket);
    if ((events & UdpEvent.Readable) !== 0) this.#onReadable(socket);
    if ((events & UdpEvent.Closed) !== 0 && this.#isOpen) this.#onEndpointClosed();
  }

  #onReadable(socket: UdpSocket): void {
    for (let next = socket.receive(); next !== undefined; next = socket.receive()) {
      const { payload, remote, remotePort } = next;
      const from: RemoteInfo = {
        address: remote.toString(),
        family: remote.family === 4 ? 'IPv4' : 'IPv6',
        port: remotePort,
        size: payload.length,
      };
      this.#inContext(() => this.emit('message', payload, from));
    }
  }

  #onFailure(socket: UdpSocket): void {
    const { remote, remotePort: port } = socket;
    const failure = socket.takeFailure();
    if (failure === undefined || !this.#isOpen || remote === undefined) return;
    const { code, cause } = failure;
    // `dgram` knows no withdrawals, so a program need not expect one.
    if (cause !== undefined && this.listenerCount('error') === 0) return;
    this.#emitError(systemError(code, 'recvmsg', { address: remote.toString(), port, cause }));
  }

  /**
   * The stack is closed. A program that closes it itself need not listen for an error of each socket; a call that is
   * under way fails in any case.
   */
  #onEndpointClosed(): void {
    const cause = this.#host.closedBy;
    if (cause !== undefined && this.listenerCount('error') > 0) {
      this.#emitError(systemError('ENETDOWN', 'recvmsg', { cause }));
    }
    if (this.#isOpen) this.close();
  }

  #onClosedUnbound(): void {
    if (this.#isOpen && this.#bindState === 'unbound') this.#onEndpointClosed();
  }

  #emitError(error: Error): void {
    this.#inContext(() => this.emit('error', error));
  }

  /** Runs user code in the async context of the socket. What it throws is an uncaught exception, as in Node. */
  #inContext(callback: () => void): void {
    try {
      this.#resource.runInAsyncScope(callback);
    } catch (error) {
      throwToProcess(error);
    }
  }
}

const MAX_UINT32: number = 2 ** 32 - 1;
