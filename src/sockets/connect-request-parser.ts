/**
 * Reads HTTP CONNECT requests by Node's own parser: an `http.Server` that does not listen, and gets each connection.
 *
 * The parser is strict about line ends, lengths and characters, and bounds the header. Node's timers are switched off:
 * who hands a connection over limits its time.
 * @module
 */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

/** Whose connection it is. One of the two is called, once or several times: the first call is what counts. */
export interface ConnectRequestOwner {
  /**
   * The request is complete, and the socket is nobody's from now on.
   *
   * @param authority the target as the client has written it
   * @param authorization the header `Proxy-Authorization`
   * @param head what the client has sent behind the request
   */
  onConnectRequest(authority: string, authorization: string | undefined, head: Buffer): void;
  /** It is no CONNECT request. */
  onOtherRequest(reason: 'unsupported' | 'malformed' | 'tooLarge'): void;
}

export class ConnectRequestParser {
  readonly #server: Server;
  readonly #owners = new WeakMap<Duplex, ConnectRequestOwner>();

  /** @param maxHeaderBytes the longest header; Node counts neither the separators nor the version */
  constructor(maxHeaderBytes: number) {
    const server = createServer({
      maxHeaderSize: maxHeaderBytes,
      insecureHTTPParser: false,
      // A request without a `Host` is answered by us, not by Node. The target does not depend on it.
      requireHostHeader: false,
      keepAlive: false,
      headersTimeout: 0,
      requestTimeout: 0,
    });
    server.on('connect', ({ url, headers }, socket, head) => {
      const authorization = headers['proxy-authorization'];
      this.#owners.get(socket)?.onConnectRequest(url ?? '', authorization, head);
    });
    const onOther = (request: IncomingMessage): void => {
      // The connection closes while there is a body.
      request.on('error', () => {});
      request.resume();
      this.#owners.get(request.socket)?.onOtherRequest('unsupported');
    };
    server.on('request', onOther);
    server.on('checkContinue', onOther);
    server.on('checkExpectation', onOther);
    server.on('clientError', ({ code }: NodeJS.ErrnoException, socket) => {
      const reason = code === 'HPE_HEADER_OVERFLOW' ? 'tooLarge' : 'malformed';
      this.#owners.get(socket)?.onOtherRequest(reason);
    });
    this.#server = server;
  }

  /**
   * Takes a connection over.
   *
   * @param socket is paused, and nobody else reads it
   * @param bytes what was read of it
   */
  adopt(socket: Socket, bytes: Buffer, owner: ConnectRequestOwner): void {
    this.#owners.set(socket, owner);
    socket.unshift(bytes);
    this.#server.emit('connection', socket);
    socket.resume();
  }
}
