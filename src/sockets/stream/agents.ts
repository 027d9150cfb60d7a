/**
 * HTTP clients over the sockets of a stack: an `http.Agent`, an `https.Agent`, and the `connect` of an undici `Agent`.
 *
 * TLS runs over the socket by `tls.connect({ socket })`.
 * @module
 */
import {
  type ClientRequestArgs,
  Agent as HttpAgent,
  type AgentOptions as HttpAgentOptions,
} from 'node:http';
import {
  Agent as HttpsAgent,
  type AgentOptions as HttpsAgentOptions,
  type RequestOptions,
} from 'node:https';
import { isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { checkMs } from '../node/argument-checks.ts';
import { systemError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';
import type { PresenceNetConnectOptions } from './arguments.ts';
import { connect, type PresenceSocket } from './socket.ts';

/** The options of `connector`. */
export interface ConnectorOptions {
  /** How many ms TCP and TLS may take together, 0 for no limit; without it 10,000, as in undici. */
  readonly timeout?: number | undefined;
  /** Options of TLS, for example `ca`, `cert` and `key`; without it, those of Node. The server is always verified. */
  readonly tls?: Omit<ConnectionOptions, 'rejectUnauthorized'> | undefined;
  /** Whether HTTP/2 is offered; the same option must be given to undici's `Agent`. Without it HTTP/1.1. */
  readonly allowH2?: boolean | undefined;
  /** Whether idle connections are probed; without it they are. */
  readonly keepAlive?: boolean | undefined;
  /** The idle time in ms before the first probe; without it 60,000. */
  readonly keepAliveInitialDelay?: number | undefined;
}

/** What undici asks a connector for. */
export interface ConnectorRequest {
  readonly hostname: string;
  readonly host?: string | undefined;
  readonly protocol: string;
  readonly port: string;
  readonly servername?: string | undefined;
  readonly localAddress?: string | null | undefined;
}

/** Is called once, with the socket or with the error. The socket has the public members of `net.Socket`. */
export type ConnectorCallback = (
  ...args: [error: null, socket: Socket | TLSSocket] | [error: Error, socket: null]
) => void;

/** A function for `new Agent({ connect })` of undici. */
export type Connector = (request: ConnectorRequest, callback: ConnectorCallback) => void;

/** Returns the `connect` of an undici `Agent` whose connections go over the stack. */
export function connector(host: SocketHost, options: ConnectorOptions = {}): Connector {
  const { keepAlive = true, keepAliveInitialDelay = 60_000, allowH2 = false } = options;
  const timeoutMs = checkMs('timeout', options.timeout ?? CONNECT_TIMEOUT_MS);
  return (request, callback) => {
    const isTls = request.protocol === 'https:';
    // The name of an IPv6 URL is in brackets.
    const hostname = request.hostname.replace(/^\[(.*)\]$/, '$1');
    const port = request.port || (isTls ? 443 : 80);
    const plain = connect(host, {
      host: hostname,
      port,
      localAddress: request.localAddress ?? undefined,
      noDelay: true,
      keepAlive,
      keepAliveInitialDelay,
    } satisfies PresenceNetConnectOptions);
    const socket = isTls
      ? connectTls({
          ALPNProtocols: allowH2 ? ['h2', 'http/1.1'] : ['http/1.1'],
          ...options.tls,
          ...serverName(request.servername || options.tls?.servername, hostname),
          host: hostname,
          socket: plain,
          rejectUnauthorized: true,
        })
      : plain;
    const stopTimeout =
      timeoutMs === 0
        ? undefined
        : host.clock.after(timeoutMs, () => {
            socket.destroy(
              systemError('ETIMEDOUT', 'connect', { address: hostname, port: Number(port) })
            );
          });
    const settle = (error: Error | null): void => {
      stopTimeout?.();
      socket.off('error', settle);
      // undici listens to `error` from the callback on; a socket that failed may still report another one.
      if (error === null) callback(null, asNodeSocket(socket));
      else {
        socket.on('error', () => {});
        callback(error, null);
      }
    };
    socket.once('error', settle);
    socket.once(isTls ? 'secureConnect' : 'connect', () => settle(null));
  };
}

/** Returns an agent for `http.request` whose connections go over the stack. */
export function httpAgent(host: SocketHost, options?: HttpAgentOptions): HttpAgent {
  return new PresenceHttpAgent(host, options);
}

/** Returns an agent for `https.request` whose connections go over the stack. */
export function httpsAgent(host: SocketHost, options?: HttpsAgentOptions): HttpsAgent {
  return new PresenceHttpsAgent(host, options);
}

class PresenceHttpAgent extends HttpAgent {
  readonly #host: SocketHost;

  constructor(host: SocketHost, options?: HttpAgentOptions) {
    super(options);
    this.#host = host;
  }

  /** Is called by `http` for each new connection. */
  override createConnection(options: ClientRequestArgs): PresenceSocket {
    return connect(this.#host, options);
  }
}

class PresenceHttpsAgent extends HttpsAgent {
  readonly #host: SocketHost;

  constructor(host: SocketHost, options?: HttpsAgentOptions) {
    super(options);
    this.#host = host;
  }

  /** Is called by `https` for each new connection. Node's own function adds TLS and its cache of sessions. */
  override createConnection(
    options: RequestOptions,
    callback?: (error: Error | null, stream: Duplex) => void
  ): Duplex | null | undefined {
    const withSocket = { ...options, socket: connect(this.#host, options) };
    return super.createConnection(withSocket, callback);
  }
}

/** A name, for SNI and the check of the certificate; an address is no name. */
function serverName(given: string | undefined, hostname: string): { servername?: string } {
  if (given) return { servername: given };
  return isIP(hostname) === 0 ? { servername: hostname } : {};
}

/** undici's types want a `net.Socket`; of it, only the public members are used. */
function asNodeSocket(socket: PresenceSocket | TLSSocket): Socket {
  return socket as unknown as Socket;
}

const CONNECT_TIMEOUT_MS = 10_000;
