/**
 * Opens one TCP connection to one of several endpoints. If the first one does not connect in `STAGGER_MS`, the next one is
 * dialled beside it, and so on, as in Happy Eyeballs ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305) section 5). If
 * one fails, the next one is dialled at once. The first one that connects is used, and the others are closed: only one
 * gets a TLS handshake, which costs a listener far more. Through an HTTP proxy, connected means that the proxy has
 * answered CONNECT.
 *
 * When all were dialled, those that have not failed are dialled anew, one every `againMs`, in turn. The system sends the
 * first packet of a connection again after 1, 3 and 7 s, so a new connection is there sooner when the network is back. A
 * proxy would dial the endpoint itself, so it is asked once. A name that is still looked up is not looked up again: a lookup
 * cannot be cancelled, and those of an outage would keep the later ones waiting.
 * @module
 */
import { connect, isIP, type Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import type { HostPort } from '../base/host-port.ts';
import { type ProxyOption, proxyFor } from '../base/proxy.ts';
import { connectThrough } from '../base/proxy-connect.ts';

export interface TcpRaceOptions {
  /** One or more; the first one is dialled first. */
  readonly endpoints: readonly HostPort[];
  /** After how many ms each further attempt begins when all endpoints were dialled; default: there is none. */
  readonly againMs?: number | undefined;
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
  /** The connections that wait for the lookup of their name. */
  readonly #lookingUp = new Set<Socket>();
  /** The endpoints that are to be dialled, the next one in front. */
  readonly #queue: HostPort[];
  #dialled = 0;
  #cancelTimer: () => void = () => {};
  #isOver = false;

  /** Nothing is called before the constructor has returned. */
  constructor(options: TcpRaceOptions) {
    this.#options = options;
    this.#queue = [...options.endpoints];
    this.#dialNext();
  }

  /** The endpoints whose connections are not open yet. */
  get pending(): readonly HostPort[] {
    return [...new Set(this.#sockets.values())];
  }

  /** Closes the connections that are not open; nothing is called any more. */
  cancel(): void {
    this.#isOver = true;
    this.#cancelTimer();
    for (const socket of this.#sockets.keys()) socket.destroy();
    this.#sockets.clear();
  }

  #dialNext(): void {
    const { clock, againMs } = this.#options;
    this.#cancelTimer();
    const endpoint = this.#isOver ? undefined : this.#queue.shift();
    if (endpoint === undefined) return;
    if (this.#isLookedUp(endpoint) || !this.#makeRoom()) this.#queue.push(endpoint);
    else {
      this.#dialled++;
      try {
        if (!this.#dial(endpoint) && againMs !== undefined) this.#queue.push(endpoint);
      } catch (error) {
        process.nextTick(() => this.#onFailed(error as Error, endpoint));
      }
    }
    if (this.#queue.length === 0) return;
    const delayMs = this.#hasDialledAll ? (againMs ?? STAGGER_MS) : STAGGER_MS;
    this.#cancelTimer = clock.after(delayMs, () => this.#dialNext());
  }

  get #hasDialledAll(): boolean {
    return this.#dialled >= this.#options.endpoints.length;
  }

  #isLookedUp(endpoint: HostPort): boolean {
    for (const socket of this.#lookingUp) if (this.#sockets.get(socket) === endpoint) return true;
    return false;
  }

  /**
   * Gives up a connection if there are too many: the oldest one for an endpoint that was not dialled yet. For one that is
   * dialled anew, a connection to whose endpoint there is an older one, which is left for a slow network. Returns false if
   * there is none.
   */
  #makeRoom(): boolean {
    if (this.#sockets.size < MAX_AT_ONCE) return true;
    const all = [...this.#sockets];
    const isSecond = ([, endpoint]: (typeof all)[number], at: number): boolean =>
      all.findIndex(([, other]) => other === endpoint) < at;
    const found = this.#hasDialledAll ? all.find(isSecond) : all[0];
    if (found === undefined) return false;
    this.#giveUp(...found);
    return true;
  }

  /**
   * Returns whether it dials through a proxy.
   *
   * @throws {PresenceError} if there is no such proxy, or it cannot be asked for the host.
   */
  #dial(endpoint: HostPort): boolean {
    const { host, port } = endpoint;
    const proxy = proxyFor(this.#options.proxy, host, port);
    let socket: Socket;
    if (proxy === undefined) {
      socket = connect({ host, port, noDelay: true });
      if (isIP(host) === 0) {
        this.#lookingUp.add(socket);
        socket.once('lookup', () => this.#lookingUp.delete(socket));
      }
      const onError = (error: Error): void => this.#onFailed(error, endpoint);
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
          onFailed: (error) => this.#onFailed(error, endpoint),
        }
      );
    }
    // An error may come when nobody waits for the connection any more.
    socket.on('error', () => {});
    socket.once('close', () => this.#lookingUp.delete(socket));
    this.#sockets.set(socket, endpoint);
    return proxy !== undefined;
  }

  /** Another connection is tried instead, or has connected. */
  #giveUp(socket: Socket, endpoint: HostPort): void {
    this.#sockets.delete(socket);
    socket.destroy();
    if (this.pending.includes(endpoint)) return;
    const error = new Error('it does not connect, and other endpoints are tried');
    this.#options.onFailed(Object.assign(error, { code: 'ETIMEDOUT' }), endpoint, false);
  }

  #onOpen(socket: Socket, endpoint: HostPort, isProxied: boolean): void {
    if (this.#isOver) return;
    for (const [other, slower] of [...this.#sockets]) {
      if (other === socket) break;
      if (slower !== endpoint) this.#giveUp(other, slower);
    }
    this.#sockets.delete(socket);
    this.cancel();
    this.#options.onOpen(socket, endpoint, isProxied);
  }

  /** The endpoint cannot be reached, so none of its connections will open. */
  #onFailed(error: NodeJS.ErrnoException, endpoint: HostPort): void {
    if (this.#isOver) return;
    for (const [socket, to] of [...this.#sockets]) {
      if (to !== endpoint) continue;
      this.#sockets.delete(socket);
      socket.destroy();
    }
    const at = this.#queue.indexOf(endpoint);
    if (at >= 0) this.#queue.splice(at, 1);
    const isLast = this.#sockets.size === 0 && this.#queue.length === 0;
    if (isLast) this.cancel();
    this.#options.onFailed(error, endpoint, isLast);
    this.#dialNext();
  }
}

/** How long the next endpoint waits for the one before, in ms, and how many are dialled at once, at most. */
const STAGGER_MS = 250;
const MAX_AT_ONCE = 4;
