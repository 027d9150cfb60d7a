/**
 * The two sides of a tunnel as an attacker or another implementation would write them: TLS and
 * bytes, of src/tunnel only the frame layout.
 * @module
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import {
  type ConnectionOptions,
  connect,
  createServer,
  type Server,
  type TLSSocket,
} from 'node:tls';
import type { Credentials } from '../../src/tunnel/index.ts';

export const HELLO = { version: 1, software: 'raw' };
export const WELCOME = {
  version: 1,
  software: 'raw',
  peer: 'spiffe://example.org/site/site-a',
  keepaliveMs: 1000,
};

export function frameBytes(type: number, payload: Buffer | object): Buffer {
  const body = Buffer.isBuffer(payload) ? payload : Buffer.from(JSON.stringify(payload));
  const header = Buffer.alloc(4);
  header.writeUInt8(type, 0);
  header.writeUIntBE(body.length, 1, 3);
  return Buffer.concat([header, body]);
}

/** A TLS socket whose frames can be waited for. */
export class RawPeer {
  readonly socket: TLSSocket;
  readonly closed: Promise<unknown>;
  error: NodeJS.ErrnoException | undefined;
  #bytes: Buffer = Buffer.alloc(0);
  #wake: () => void = () => {};

  constructor(socket: TLSSocket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', (error) => {
      this.error = error;
    });
    socket.on('data', (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#wake();
    });
    socket.on('close', () => this.#wake());
  }

  static dial(
    port: number,
    credentials: Partial<Credentials>,
    options?: ConnectionOptions
  ): RawPeer {
    return new RawPeer(
      connect({
        port,
        host: '127.0.0.1',
        ...credentials,
        ALPNProtocols: ['virtual-presence/1'],
        checkServerIdentity: () => undefined,
        ...options,
      })
    );
  }

  send(type: number, payload: Buffer | object): void {
    this.socket.write(frameBytes(type, payload));
  }

  /** The next frame of that type, others are passed over; undefined when the connection ends. */
  async frame(wanted: number): Promise<Buffer | undefined> {
    for (;;) {
      while (this.#bytes.length >= 4) {
        const end = 4 + this.#bytes.readUIntBE(1, 3);
        if (this.#bytes.length < end) break;
        const type = this.#bytes.readUInt8(0);
        const payload = this.#bytes.subarray(4, end);
        this.#bytes = this.#bytes.subarray(end);
        if (type === wanted) return payload;
      }
      if (this.socket.destroyed) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async json(wanted: number): Promise<Record<string, unknown> | undefined> {
    const payload = await this.frame(wanted);
    return payload === undefined ? undefined : JSON.parse(payload.toString());
  }
}

/** A TLS server that hands out its connections. */
export async function rawServer(
  credentials: Credentials,
  onPeer: (peer: RawPeer) => void,
  options: {
    readonly ALPNProtocols?: string[];
    readonly ecdhCurve?: string;
    readonly port?: number;
  } = {}
): Promise<{ port: number; server: Server }> {
  const server = createServer({
    ...credentials,
    requestCert: true,
    minVersion: 'TLSv1.3',
    ALPNProtocols: ['virtual-presence/1'],
    ...options,
  });
  server.on('secureConnection', (socket) => onPeer(new RawPeer(socket)));
  server.on('tlsClientError', () => {});
  server.listen(options.port ?? 0, '127.0.0.1');
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, server };
}
