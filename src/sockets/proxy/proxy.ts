/**
 * `SocketProxy`: SOCKS5 and HTTP CONNECT on one port of this machine, for programs that have an option for a proxy. Their
 * connections go over the stack, and only there.
 * @module
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { formatHostPort } from '../../base/host-port.ts';
import { parseSchema } from '../../base/schema.ts';
import {
  type HostListen,
  HostListenSchema,
  type HostPlace,
  type Listening,
  listenAt,
} from '../host/host-listen.ts';
import { reset } from '../host/splice.ts';
import { listenError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';
import { ConnectRequestParser } from './connect-request-parser.ts';
import { MAX_HEADER_BYTES, ProxyClient, type ProxyClientHost } from './proxy-client.ts';
import { credentialCheck, type ProxyCredentials } from './proxy-credentials.ts';
import {
  type ProxyOptions,
  type ResolvedProxyOptions,
  resolveProxyOptions,
} from './proxy-options.ts';
import { noOutcomes, type ProxyOutcomes } from './proxy-outcome.ts';

/** Cumulative counters. Each accepted connection is counted once more when its outcome is known. */
export interface ProxyCounters extends ProxyOutcomes {
  accepted: number;
  /** Connections that were closed at once, because there were `maxConnections`. */
  overLimit: number;
  /** Connections that the operating system could not hand over, for example for lack of descriptors. */
  notAccepted: number;
}

/** A proxy that listens. It is made by `SocketStack.proxy`, and closed with its stack. */
export class SocketProxy implements AsyncDisposable {
  readonly #stack: SocketHost;
  readonly #credentials: ProxyCredentials | undefined;
  readonly #counters: ProxyCounters = {
    accepted: 0,
    overLimit: 0,
    notAccepted: 0,
    ...noOutcomes(),
  };
  readonly #server: Server;
  /** The clients without an outcome. */
  readonly #undecided = new Set<ProxyClient>();
  readonly #sockets = new Set<Socket>();
  #listening: Listening = { address: '', remove: async () => {} };
  #closing: Promise<void> | undefined;

  private constructor(stack: SocketHost, options: ResolvedProxyOptions) {
    const { credentials, maxConnections, maxPending } = options;
    this.#stack = stack;
    this.#credentials = credentials;
    /** The clients whose request is not complete, the oldest first. */
    const pending = new Set<ProxyClient>();
    const host: ProxyClientHost = {
      stack,
      isValid: credentials && credentialCheck(credentials),
      http: new ConnectRequestParser(MAX_HEADER_BYTES),
      delayed: new Set(),
      lingering: new Set(),
      onRequest: (client) => pending.delete(client),
      onOutcome: (client, outcome) => {
        pending.delete(client);
        this.#undecided.delete(client);
        this.#counters[outcome]++;
      },
    };
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      if (this.#sockets.size - host.lingering.size >= maxConnections) {
        this.#counters.overLimit++;
        socket.destroy();
        return;
      }
      this.#counters.accepted++;
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      const [oldest] = pending;
      if (pending.size >= maxPending) oldest!.end('evicted');
      const client = new ProxyClient(host, socket);
      pending.add(client);
      this.#undecided.add(client);
    });
  }

  /**
   * Listens.
   *
   * @throws {ConfigError} with the path of the argument that is wrong.
   * @throws Node's errors of `listen`, for example EADDRINUSE; ENETDOWN if the stack is closed.
   */
  static async listen(
    stack: SocketHost,
    listen: HostListen,
    options: ProxyOptions = {}
  ): Promise<SocketProxy> {
    const place = parseSchema(HostListenSchema, listen, 'listen');
    const proxy = new SocketProxy(stack, resolveProxyOptions(options));
    checkOpen(stack, place);
    proxy.#listening = await listenAt(proxy.#server, place, stack.targets);
    proxy.#server.on('error', () => proxy.#counters.notAccepted++);
    stack.servers.add(proxy);
    stack.hostCounters.add('proxy', proxy);
    try {
      checkOpen(stack, place);
    } catch (error) {
      await proxy.close();
      throw error;
    }
    return proxy;
  }

  /** Where it listens: the address and the port, or the path. */
  get address(): AddressInfo | string {
    return this.#listening.address;
  }

  /** What clients must give; undefined with `auth: false`. */
  get username(): string | undefined {
    return this.#credentials?.username;
  }

  /** What clients must give; undefined with `auth: false`. */
  get password(): string | undefined {
    return this.#credentials?.password;
  }

  /** The URL of the HTTP proxy, with user name and password. Undefined for a unix socket, for which there is none. */
  get httpUrl(): string | undefined {
    return this.#url('http');
  }

  /**
   * The URL of the SOCKS5 proxy, with user name and password. Its scheme is `socks5h`, by which programs leave the
   * names to the proxy. Undefined for a unix socket.
   */
  get socksUrl(): string | undefined {
    return this.#url('socks5h');
  }

  get counters(): Readonly<ProxyCounters> {
    return this.#counters;
  }

  /** Stops listening and resets all connections. Resolves when they are gone. It may be called again. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#stack.servers.delete(this);
    // While it listens, no other process takes the path.
    await this.#listening.remove();
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const client of [...this.#undecided]) client.end('closed');
    for (const socket of this.#sockets) reset(socket);
    await closed;
    this.#stack.hostCounters.delete(this);
  }

  #url(scheme: string): string | undefined {
    if (typeof this.address === 'string') return undefined;
    const { address: host, port } = this.address;
    const credentials =
      this.#credentials === undefined
        ? ''
        : `${encodeURIComponent(this.#credentials.username)}:${encodeURIComponent(this.#credentials.password)}@`;
    return `${scheme}://${credentials}${formatHostPort({ host, port })}`;
  }
}

/** @throws a system error ENETDOWN if the stack is closed. */
function checkOpen({ isClosed, closedBy: cause }: SocketHost, place: HostPlace): void {
  if (!isClosed) return;
  const where =
    'path' in place ? { address: place.path } : { address: place.host, port: place.port };
  throw listenError('ENETDOWN', 'listen', { ...where, cause });
}
