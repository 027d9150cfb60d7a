/**
 * A proxy on loopback, over a stack that is joined in memory with those of its targets; and a client that writes bytes.
 */
import net from 'node:net';
import { afterEach } from 'vitest';
import type { Clock } from '../../../src/base/clock.ts';
import type { SocketProxy } from '../../../src/sockets/proxy/proxy.ts';
import type { ProxyOptions } from '../../../src/sockets/proxy/proxy-options.ts';
import type { SocketStack } from '../../../src/sockets/stack.ts';
import type { PresenceSocket } from '../../../src/sockets/stream/socket.ts';
import { StackNetwork } from '../stack-network.ts';
import { until } from '../worlds.ts';

export const USER = { username: 'user', password: 'a long secret' };

export interface Scene extends AsyncDisposable {
  readonly network: StackNetwork;
  readonly stack: SocketStack;
  /** Has 10.2.0.1 and 2001:db8:2::1. Port 7 of it echoes, and ends when the client has ended. */
  readonly far: SocketStack;
  readonly proxy: SocketProxy;
  readonly port: number;
  /** What port 7 has accepted. */
  readonly accepted: PresenceSocket[];
  /** Makes a client that connects to the proxy. */
  client(): RawClient;
  readonly clients: readonly RawClient[];
}

const scenes: (() => Promise<void>)[] = [];

/** Closes the scenes that a test has made. */
export function closeScenes(): void {
  afterEach(async () => {
    await Promise.all(scenes.splice(0).map((close) => close()));
  });
}

export async function scene(
  options: ProxyOptions = { auth: USER },
  { clock, path }: { clock?: Clock; path?: string } = {}
): Promise<Scene> {
  const network = new StackNetwork(clock);
  const stack = network.stack('10.1.0.1', '2001:db8:1::1');
  const far = network.stack('10.2.0.1', '2001:db8:2::1');
  const accepted: PresenceSocket[] = [];
  far
    .createServer({ allowHalfOpen: true }, (socket) => {
      accepted.push(socket);
      socket.on('error', () => {});
      socket.pipe(socket);
    })
    .listen(7);
  const proxy = await stack.proxy(path === undefined ? 0 : { path }, options);
  const clients: RawClient[] = [];
  const close = async (): Promise<void> => {
    for (const client of clients) client.socket.destroy();
    await proxy.close();
    await Promise.all([stack.close(), far.close()]);
  };
  scenes.push(close);
  const { address } = proxy;
  const port = typeof address === 'string' ? 0 : address.port;
  return {
    network,
    stack,
    far,
    proxy,
    port,
    accepted,
    clients,
    client: () => {
      const client = new RawClient(path === undefined ? { port } : { path });
      clients.push(client);
      return client;
    },
    [Symbol.asyncDispose]: close,
  };
}

/** A connection that writes bytes, and collects what comes. */
export class RawClient {
  readonly socket: net.Socket;
  received: Buffer = Buffer.alloc(0);
  isEnded = false;
  isClosed = false;
  error: string | undefined;

  constructor(target: net.NetConnectOpts) {
    this.socket = net.connect({ host: '127.0.0.1', allowHalfOpen: true, ...target } as never);
    this.socket.on('data', (chunk) => {
      this.received = Buffer.concat([this.received, chunk]);
    });
    this.socket.on('end', () => {
      this.isEnded = true;
    });
    this.socket.on('error', (error: NodeJS.ErrnoException) => {
      this.error = error.code;
    });
    this.socket.on('close', () => {
      this.isClosed = true;
    });
  }

  /** The other end has ended or reset it. Linux reports a reset behind data as an end. */
  get isGone(): boolean {
    return this.isEnded || this.isClosed;
  }

  send(...parts: (Buffer | string)[]): this {
    this.socket.write(Buffer.concat(parts.map((part) => Buffer.from(part as never))));
    return this;
  }

  /** Waits for this many bytes, and takes them. */
  async take(length: number): Promise<Buffer> {
    await until(() => this.received.length >= length || this.isGone);
    const bytes = this.received.subarray(0, length);
    this.received = this.received.subarray(length);
    return bytes;
  }

  /** Waits for the end, or the failure, and takes all that came before. */
  async rest(): Promise<Buffer> {
    await until(() => this.isGone);
    this.socket.destroy();
    return this.take(this.received.length);
  }

  async closed(): Promise<void> {
    if (!this.isClosed) await new Promise((resolve) => this.socket.once('close', resolve));
  }
}

export const METHODS: Buffer = Buffer.of(5, 1, 2);
export const CREDENTIALS: Buffer = credentials(USER.username, USER.password);
/** The replies to these two. */
export const LET_IN: Buffer = Buffer.of(5, 2, 1, 0);

export function credentials(username: string, password: string): Buffer {
  const parts = [username, password].map((text) => Buffer.from(text));
  return Buffer.from([1, ...parts.flatMap((part) => [part.length, ...part])]);
}

/** A request to connect to a name. */
export function socksRequest(host: string, port: number): Buffer {
  const name = Buffer.from(host);
  return Buffer.of(5, 1, 0, 3, name.length, ...name, port >> 8, port & 255);
}

export function basic(): string {
  const { username, password } = USER;
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

export function httpRequest(
  authority: string,
  authorization: string | undefined = basic()
): string {
  return `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\nProxy-Authorization: ${authorization}\r\n\r\n`;
}

export const ACCEPTED = 'HTTP/1.1 200 Connection Established\r\n\r\n';

/** The counters of a proxy that are not 0. */
export function countsOf(proxy: SocketProxy): Record<string, number> {
  return Object.fromEntries(Object.entries(proxy.counters).filter(([, count]) => count !== 0));
}
