/**
 * Opens one TCP connection to one of several endpoints. If the first one does not connect in `STAGGER_MS`, the next one is
 * dialled beside it, and so on, as in Happy Eyeballs ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305) section 5). If
 * one fails, the next one is dialled at once. The first one that connects is used, and the others are closed: only one
 * gets a TLS handshake, which costs a listener far more. Through an HTTP proxy, connected means that the proxy has
 * answered CONNECT.
 * @module
 */
import { connect, type Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import type { HostPort } from '../base/host-port.ts';
import { type ProxyOption, proxyFor } from '../base/proxy.ts';
import { connectThrough } from '../base/proxy-connect.ts';

export interface TcpRaceOptions {
  /** One or more; the first one is dialled first. */
  readonly endpoints: readonly HostPort[];
  readonly proxy: ProxyOption | undefined;
  readonly clock: Clock;
  /** Called once, unless all fail or the race is cancelled. The socket is paused, and its errors are ignored. */
  readonly onOpen: (socket: Socket, endpoint: HostPort, isProxied: boolean) => void;
  /**
   * An endpoint cannot be connected to, or one that was dialled after it was faster; `isLast` if none is left to be
   * dialled or to connect.
   */
  readonly onFailed: (error: NodeJS.ErrnoException, endpoint: HostPort, isLast: boolean) => void;
}

export class TcpRace {
  readonly #options: TcpRaceOptions;
  /** The connections that are not open yet, oldest first. */
  readonly #sockets = new Map<Socket, HostPort>();
  #next = 0;
  #cancelTimer: () => void = () => {};
  #isOver = false;

  /** Nothing is called before the constructor has returned. */
  constructor(options: TcpRaceOptions) {
    this.#options = options;
    this.#dialNext();
  }

  /** The endpoints whose connections are not open yet. */
  get pending(): readonly HostPort[] {
    return [...this.#sockets.values()];
  }

  /** Closes the connections that are not open; nothing is called any more. */
  cancel(): void {
    this.#isOver = true;
    this.#cancelTimer();
    for (const socket of this.#sockets.keys()) socket.destroy();
    this.#sockets.clear();
  }

  #dialNext(): void {
    const { endpoints, clock } = this.#options;
    this.#cancelTimer();
    const endpoint = endpoints[this.#next];
    if (this.#isOver || endpoint === undefined) return;
    this.#next++;
    const [oldest] = this.#sockets;
    if (oldest !== undefined && this.#sockets.size >= MAX_AT_ONCE) this.#giveUp(...oldest);
    try {
      this.#dial(endpoint);
    } catch (error) {
      process.nextTick(() => this.#onFailed(error as Error, endpoint, undefined));
    }
    if (this.#next < endpoints.length) {
      this.#cancelTimer = clock.after(STAGGER_MS, () => this.#dialNext());
    }
  }

  /** @throws {PresenceError} if there is no such proxy, or it cannot be asked for the host. */
  #dial(endpoint: HostPort): void {
    const { host, port } = endpoint;
    const proxy = proxyFor(this.#options.proxy, host, port);
    let socket: Socket;
    if (proxy === undefined) {
      socket = connect({ host, port, noDelay: true });
      const onError = (error: Error): void => this.#onFailed(error, endpoint, socket);
      socket.once('error', onError);
      socket.once('connect', () => {
        socket.off('error', onError).pause();
        this.#onOpen(socket, endpoint, false);
      });
    } else {
      socket = connectThrough(
        proxy,
        { host, port },
        {
          onOpen: (opened) => this.#onOpen(opened, endpoint, true),
          onFailed: (error) => this.#onFailed(error, endpoint, socket),
        }
      );
    }
    // An error may come when nobody waits for the connection any more.
    socket.on('error', () => {});
    this.#sockets.set(socket, endpoint);
  }

  /** Another endpoint is tried instead, or has connected. */
  #giveUp(socket: Socket, endpoint: HostPort): void {
    this.#sockets.delete(socket);
    socket.destroy();
    const error = new Error('it does not connect, and other endpoints are tried');
    this.#options.onFailed(Object.assign(error, { code: 'ETIMEDOUT' }), endpoint, false);
  }

  #onOpen(socket: Socket, endpoint: HostPort, isProxied: boolean): void {
    if (this.#isOver) return;
    for (const [other, slower] of [...this.#sockets]) {
      if (other === socket) break;
      this.#giveUp(other, slower);
    }
    this.#sockets.delete(socket);
    this.cancel();
    this.#options.onOpen(socket, endpoint, isProxied);
  }

  #onFailed(error: NodeJS.ErrnoException, endpoint: HostPort, socket: Socket | undefined): void {
    if (this.#isOver) return;
    if (socket !== undefined) this.#sockets.delete(socket);
    const isLast = this.#sockets.size === 0 && this.#next === this.#options.endpoints.length;
    if (isLast) this.cancel();
    this.#options.onFailed(error, endpoint, isLast);
    this.#dialNext();
  }
}

/** How long the next endpoint waits for the one before, in ms, and how many are dialled at once, at most. */
const STAGGER_MS = 250;
const MAX_AT_ONCE = 4;
