/**
 * Reads HTTP CONNECT requests by Node's own parser: an `http.Server` that does not listen, and gets each header.
 *
 * The parser is strict about line ends, lengths and characters. It never has a connection, only one complete header: it
 * would make an object of every request that a client sends behind the first one, faster than they can be ended.
 * @module
 */
import { createServer, type Server } from 'node:http';
import { Duplex } from 'node:stream';

/** The client that has sent the header. One of the two methods is called, once. */
export interface ConnectRequestOwner {
  /**
   * @param authority the target as the client has written it
   * @param authorization the header `Proxy-Authorization`
   */
  onConnectRequest(authority: string, authorization: string | undefined): void;
  /** It is no CONNECT request. */
  onOtherRequest(reason: 'unsupported' | 'malformed'): void;
}

export class ConnectRequestParser {
  readonly #server: Server;
  readonly #owners = new WeakMap<Duplex, ConnectRequestOwner>();

  /** @param maxHeaderBytes the longest header that `read` may be given */
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
    server.on('connect', ({ url, headers }, source) => {
      this.#take(source)?.onConnectRequest(url ?? '', headers['proxy-authorization']);
    });
    for (const event of ['request', 'checkContinue', 'checkExpectation']) {
      server.on(event, (request) => {
        // The header ends while there is a body.
        request.on('error', () => {});
        this.#take(request.socket)?.onOtherRequest('unsupported');
      });
    }
    server.on('clientError', (_error, source) => {
      this.#take(source)?.onOtherRequest('malformed');
    });
    this.#server = server;
  }

  /**
   * Reads a header. The owner is called in a later turn.
   *
   * @param header ends with its empty line
   */
  read(header: Buffer, owner: ConnectRequestOwner): void {
    const source = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
    this.#owners.set(source, owner);
    this.#server.emit('connection', source);
    source.push(header);
    // A header that the parser does not find complete is an error by that.
    source.push(null);
  }

  /** Ends the parser's work on a header. Returns undefined if that was done before. */
  #take(source: Duplex): ConnectRequestOwner | undefined {
    const owner = this.#owners.get(source);
    this.#owners.delete(source);
    source.destroy();
    return owner;
  }
}

/**
 * Returns the length of the header with the empty line behind it; undefined if it is not complete. Empty lines before
 * the request belong to the header (RFC 9112 section 2.2).
 */
export function headerLength(bytes: Buffer): number | undefined {
  let at = 0;
  while (bytes[at] === CR || bytes[at] === LF) at++;
  for (at = bytes.indexOf(LF, at); at >= 0; at = bytes.indexOf(LF, at + 1)) {
    if (bytes[at + 1] === LF) return at + 2;
    if (bytes[at + 1] === CR && bytes[at + 2] === LF) return at + 3;
  }
  return undefined;
}

const CR = 0x0d;
const LF = 0x0a;
