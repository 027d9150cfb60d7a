/**
 * HTTP proxies on loopback for tests: one that carries connections as a real one does, and one that says what a
 * test tells it to.
 * @module
 */
import { once } from 'node:events';
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { pipeline } from 'node:stream';

export class ConnectProxy {
  readonly port: number;
  /** What each CONNECT has asked for, in the order of their coming. */
  readonly targets: string[] = [];
  /** Names that this proxy alone knows: where they lead. */
  readonly names: Map<string, { readonly host: string; readonly port: number }> = new Map();
  readonly #server: HttpServer;
  readonly #sockets = new Set<Socket>();

  private constructor(server: HttpServer, credentials: string | undefined) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    const wanted = credentials && `Basic ${Buffer.from(credentials).toString('base64')}`;
    server.on('connection', (socket) => this.#keep(socket));
    server.on('connect', (request, near: Socket, head: Buffer) => {
      this.targets.push(request.url!);
      if (wanted !== undefined && request.headers['proxy-authorization'] !== wanted) {
        near.end(
          'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n'
        );
        return;
      }
      const { hostname, port } = new URL(`http://${request.url}`);
      const address = { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 80) };
      const far = connect({ noDelay: true, ...(this.names.get(hostname) ?? address) });
      this.#keep(far);
      far.once('error', () => near.end('HTTP/1.1 502 Bad Gateway\r\n\r\n'));
      far.once('connect', () => {
        near.write('HTTP/1.1 200 Connection established\r\n\r\n');
        far.write(head);
        pipeline(near, far, () => {});
        pipeline(far, near, () => {});
      });
    });
  }

  /** @param credentials `user:password` that clients must send */
  static async open(credentials?: string): Promise<ConnectProxy> {
    const server = createHttpServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new ConnectProxy(server, credentials);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Connections that are open, both sides of each counted. */
  get connections(): number {
    return this.#sockets.size;
  }

  /** Closes the port and terminates all connections; safe to call twice. */
  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
  }
}

export interface ScriptedProxy {
  readonly port: number;
  /** Resolves when every connection is gone. */
  idle(): Promise<void>;
  close(): void;
}

/** A port that does with each connection what the test wants, as soon as a whole request has come. */
export async function scriptedProxy(
  answer: (socket: Socket, request: string) => void
): Promise<ScriptedProxy> {
  const sockets = new Set<Socket>();
  let onIdle = (): void => {};
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    let request = '';
    socket.on('error', () => {});
    socket.on('data', (piece) => {
      const isWhole = request.includes('\r\n\r\n');
      request += piece.toString('latin1');
      if (!isWhole && request.includes('\r\n\r\n')) answer(socket, request);
    });
    socket.on('close', () => {
      sockets.delete(socket);
      if (sockets.size === 0) onIdle();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    idle: () =>
      new Promise((resolve) => {
        if (sockets.size === 0) resolve();
        else onIdle = resolve;
      }),
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
