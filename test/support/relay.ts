/**
 * A TCP port of 127.0.0.1 that stays the test's own while the program behind it comes and goes. A program that
 * is started again cannot count on the port that it had, because any other program may have taken it meanwhile.
 * @module
 */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { pipeline } from 'node:stream';

export class Relay {
  readonly port: number;
  /** The port of 127.0.0.1 that connections go on to; while it is undefined, they are closed at once. */
  target: number | undefined;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (near) => this.#relay(near));
  }

  static async open(target?: number): Promise<Relay> {
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const relay = new Relay(server);
    relay.target = target;
    return relay;
  }

  /** Terminates all connections, and those that come while there is no `target`. */
  cut(): void {
    this.target = undefined;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Closes the port and terminates all connections; safe to call twice. */
  close(): void {
    this.#server.close();
    this.cut();
  }

  #relay(near: Socket): void {
    this.#keep(near);
    if (this.target === undefined) {
      near.destroy();
      return;
    }
    const options = { host: '127.0.0.1', port: this.target, allowHalfOpen: true, noDelay: true };
    const far = connect(options);
    this.#keep(far);
    // What is wrong with one side ends the other one: each pipeline destroys both of its ends.
    pipeline(near, far, () => {});
    pipeline(far, near, () => {});
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
  }
}
