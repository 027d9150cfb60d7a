/**
 * `DnsListener`: takes queries for a `SiteResolver` over UDP and TCP on one address and port; a server
 * must offer both ([RFC 7766 section 5](https://www.rfc-editor.org/rfc/rfc7766#section-5)).
 * @module
 */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { IpAddress } from '../base/address.ts';
import type { HostPort, HostPortInput } from '../base/host-port.ts';
import { ListenAddressSchema } from '../base/host-port-schema.ts';
import { checkMethods, checkObject } from '../base/option-check.ts';
import { parseSchema } from '../base/schema.ts';
import { EnvironmentError } from '../errors.ts';
import { FairShare } from './fair-share.ts';
import { integerWithin } from './limits.ts';
import type { SiteResolver } from './resolver.ts';
import { TcpConnection } from './tcp-connection.ts';

export interface DnsListenerOptions {
  readonly resolver: SiteResolver;
  /** An address and a port, `10.0.0.1:53`. `0.0.0.0` and `::` mean all addresses; port 0 takes a free port. */
  readonly listen: HostPortInput;
  /** The longest time that a TCP connection may stay open without a whole query, in ms; default 10,000. */
  readonly tcpIdleTimeoutMs?: number;
  /**
   * The number of TCP connections at a time; further ones are closed at once. Default 128. One client
   * never holds more than are free for others, so that it gets half of them when it is alone. All
   * clients that may not ask count as one.
   */
  readonly maxTcpConnections?: number;
  /** The number of queries of one TCP connection that may wait for upstreams at a time; default 16. */
  readonly maxTcpInFlight?: number;
  /** The number of answers that may wait for the UDP socket; further ones are dropped. Default 1024. */
  readonly maxUdpSending?: number;
}

/** The default of each option. */
export const DNS_LISTENER_DEFAULTS: Readonly<{
  /** In ms. */
  tcpIdleTimeoutMs: number;
  maxTcpConnections: number;
  maxTcpInFlight: number;
  maxUdpSending: number;
}> = Object.freeze({
  tcpIdleTimeoutMs: 10_000,
  maxTcpConnections: 128,
  maxTcpInFlight: 16,
  maxUdpSending: 1024,
});

/** Cumulative since the listener was opened. */
export interface DnsListenerCounters {
  udpQueries: number;
  /** Answers that the socket did not take, and errors that it reported. */
  udpDrops: number;
  tcpConnections: number;
  /** Connections over the limit. */
  tcpRefused: number;
  /** The part of `tcpRefused` whose client had its share, while there were free places for others. */
  tcpOverShare: number;
}

/** Listens until `close`, which does not close the resolver: others may use it too. */
export class DnsListener implements AsyncDisposable {
  /** The address and the port that it listens at. */
  readonly address: HostPort;
  readonly #counters: DnsListenerCounters = {
    udpQueries: 0,
    udpDrops: 0,
    tcpConnections: 0,
    tcpRefused: 0,
    tcpOverShare: 0,
  };
  readonly #resolver: SiteResolver;
  readonly #udp: UdpSocket;
  readonly #tcp: Server;
  readonly #limits: Limits;
  readonly #connections = new Set<Socket>();
  readonly #shares: FairShare;
  readonly #maxUdpSending: number;
  #udpSending = 0;
  #closing: Promise<void> | undefined;

  private constructor(options: DnsListenerOptions, limits: Limits, udp: UdpSocket, tcp: Server) {
    const { address, port } = tcp.address() as AddressInfo;
    this.address = { host: address, port };
    this.#resolver = options.resolver;
    this.#udp = udp;
    this.#tcp = tcp;
    this.#limits = limits;
    this.#maxUdpSending = limits.maxUdpSending;
    this.#shares = new FairShare(limits.maxTcpConnections);
    tcp.on('connection', (socket) => this.#onConnection(socket));
    // Accepting fails when there are no file descriptors left; the server goes on.
    tcp.on('error', () => this.#counters.tcpRefused++);
    udp.on('message', (query, client) => this.#onDatagram(query, client));
    udp.on('error', () => this.#counters.udpDrops++);
  }

  /**
   * Begins to answer on both transports.
   *
   * @throws {EnvironmentError} if the port is busy or not permitted, or no interface has the address.
   * @throws {ConfigError} if `listen` is not an address and a port, or a limit is out of its range.
   * @throws {ApiMisuseError} if `resolver` is not a resolver.
   */
  static async listen(options: DnsListenerOptions): Promise<DnsListener> {
    const { resolver, listen } = checkObject('options', options);
    checkMethods('resolver', resolver, ['resolve', 'mayAsk']);
    const endpoint = parseSchema(ListenAddressSchema, listen, 'listen');
    const host = IpAddress.parse(endpoint.host);
    const { port } = endpoint;
    const limits = checkLimits(options);
    for (let attempt = 1; ; attempt++) {
      const tcp = await openTcp(host, port);
      try {
        const udp = await openUdp(host, (tcp.address() as AddressInfo).port);
        return new DnsListener(options, limits, udp, tcp);
      } catch (error) {
        tcp.close();
        // A port that is free for TCP may be taken for UDP.
        if (port !== 0 || !isBusy(error) || attempt === MAX_ATTEMPTS) throw error;
      }
    }
  }

  get counters(): Readonly<DnsListenerCounters> {
    return this.#counters;
  }

  /** Closes every connection; resolves when the port is free again. Can be called twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const closed = [once(this.#udp, 'close'), once(this.#tcp, 'close')];
    this.#udp.close();
    this.#tcp.close();
    for (const socket of this.#connections) socket.destroy();
    await Promise.all(closed);
  }

  #onConnection(socket: Socket): void {
    // The socket of a client that has gone has no address.
    const { remoteAddress: address = '' } = socket;
    const client = this.#resolver.mayAsk(address) ? address : '';
    if (!this.#shares.take(client)) {
      this.#counters.tcpRefused++;
      if (!this.#shares.isFull) this.#counters.tcpOverShare++;
      socket.destroy();
      return;
    }
    this.#counters.tcpConnections++;
    this.#connections.add(socket);
    socket.on('close', () => {
      this.#connections.delete(socket);
      this.#shares.release(client);
    });
    new TcpConnection(socket, address, this.#resolver, this.#limits);
  }

  #onDatagram(query: Buffer, client: RemoteInfo): void {
    this.#counters.udpQueries++;
    const answer = this.#resolver.resolve(query, 'udp', client.address);
    if (answer instanceof Promise) void answer.then((bytes) => this.#sendDatagram(bytes, client));
    else this.#sendDatagram(answer, client);
  }

  #sendDatagram(answer: Uint8Array | undefined, client: RemoteInfo): void {
    if (answer === undefined || this.#closing !== undefined) return;
    // A forged datagram may come from port 0; Node throws if it has to send there.
    if (client.port === 0 || this.#udpSending >= this.#maxUdpSending) {
      this.#counters.udpDrops++;
      return;
    }
    this.#udpSending++;
    this.#udp.send(answer, client.port, client.address, this.#onDatagramSent);
  }

  readonly #onDatagramSent = (error: Error | null): void => {
    this.#udpSending--;
    if (error !== null) this.#counters.udpDrops++;
  };
}

interface Limits {
  readonly idleTimeoutMs: number;
  readonly maxInFlight: number;
  readonly maxTcpConnections: number;
  readonly maxUdpSending: number;
}

function checkLimits(options: DnsListenerOptions): Limits {
  const limit = (name: keyof typeof DNS_LISTENER_DEFAULTS): number =>
    integerWithin(name, options[name] ?? DNS_LISTENER_DEFAULTS[name], 1, 2 ** 31 - 1);
  return {
    idleTimeoutMs: limit('tcpIdleTimeoutMs'),
    maxInFlight: limit('maxTcpInFlight'),
    maxTcpConnections: limit('maxTcpConnections'),
    maxUdpSending: limit('maxUdpSending'),
  };
}

async function openTcp(host: IpAddress, port: number): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true });
  try {
    server.listen({ host: host.toString(), port });
    await once(server, 'listening');
  } catch (error) {
    throw bindError(error, 'TCP', host, port);
  }
  return server;
}

async function openUdp(host: IpAddress, port: number): Promise<UdpSocket> {
  const socket = createSocket(host.family === 4 ? 'udp4' : 'udp6');
  try {
    socket.bind({ address: host.toString(), port, exclusive: true });
    await once(socket, 'listening');
  } catch (error) {
    socket.close();
    throw bindError(error, 'UDP', host, port);
  }
  return socket;
}

function bindError(error: unknown, transport: string, host: IpAddress, port: number): Error {
  const reason = BIND_FAULTS[codeOf(error)] ?? (error as Error).message;
  return new EnvironmentError(
    `cannot answer DNS at ${host} on ${transport} port ${port}: ${reason}`,
    { cause: error }
  );
}

function isBusy(error: unknown): boolean {
  return codeOf((error as Error).cause) === 'EADDRINUSE';
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? '';
}

/** How many free TCP ports are tried to find one that is free for UDP too. */
const MAX_ATTEMPTS = 16;
const BIND_FAULTS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there',
  EACCES: 'it needs root or CAP_NET_BIND_SERVICE',
  EADDRNOTAVAIL: 'no interface has that address',
};
