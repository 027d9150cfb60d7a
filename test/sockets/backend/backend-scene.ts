/**
 * Clients on stacks of their own, and a stack with a backend, joined in memory. As gateways do, the path translates: what
 * a client knows as 10.2.0.n is 127.0.0.n of this machine, and 2001:db8:2::1 is ::1. Other addresses stay as they are.
 */
import { once } from 'node:events';
import net from 'node:net';
import { afterEach } from 'vitest';
import { IpAddress } from '../../../src/base/address.ts';
import type { Clock } from '../../../src/base/clock.ts';
import { SocketBackend, type SocketBackendOptions } from '../../../src/sockets/index.ts';
import type { StackSite } from '../../../src/sockets/site/site-view.ts';
import { SocketStack } from '../../../src/sockets/stack.ts';
import type { SocketStackOptions } from '../../../src/sockets/stack-options.ts';
import { VNET } from '../../support/vnet.ts';
import { Frame } from '../../tcp/fuzz/frame.ts';

/** What the clients know. */
const CLIENT_SITE: StackSite = {
  sources: ['10.1.0.0/16', '2001:db8:1::/48'],
  pools: ['10.2.0.0/16', '2001:db8:2::/48', '198.51.100.0/24', '10.3.0.0/16'],
  zone: 'test',
  hosts: [
    { name: 'service.test', addresses: ['10.2.0.1'], ports: ['tcp/1-65535'] },
    { name: 'other.test', addresses: ['10.2.0.2'], ports: ['tcp/1-65535'] },
    { name: 'six.test', addresses: ['2001:db8:2::1'], ports: ['tcp/1-65535'] },
    { name: 'far.test', addresses: ['198.51.100.9'], ports: ['tcp/1-65535'] },
    { name: 'stack.test', addresses: ['10.3.0.1'], ports: ['tcp/1-65535'] },
  ],
};

/** What the stack with the backend knows. */
export const SERVICE_SITE: StackSite = {
  sources: ['10.3.0.0/16'],
  pools: ['10.1.0.0/16', '2001:db8:1::/48'],
  zone: 'test',
  hosts: [],
};

/** All ports of these are services. */
export const ALL_SERVICES: NonNullable<SocketBackendOptions['services']> = [
  '127.0.0.1',
  '127.0.0.2',
  '::1',
  '198.51.100.9',
].map((address) => ({ address, ports: ['tcp/1-65535', 'udp/1-65535', 'icmp'] }));

export class BackendScene {
  readonly stack: SocketStack;
  readonly backend: SocketBackend;
  /** The first client, 10.1.0.1. */
  readonly client: SocketStack;
  /** The lengths of the packets that were carried: to the stack with the backend, and from it. */
  readonly sent: { readonly to: number[]; readonly from: number[] } = { to: [], from: [] };
  /** Whether packets to the clients are lost. */
  isSilent = false;
  readonly #clock: Clock | undefined;
  readonly #clients = new Map<string, SocketStack>();
  readonly #frame = new Frame();

  constructor(
    options: Partial<SocketBackendOptions> = {},
    { clock, ...stackOptions }: SocketStackOptions = {}
  ) {
    this.#clock = clock;
    this.stack = new SocketStack({
      address: ['10.3.0.1', '2001:db8:3::1'],
      ...(clock && { clock }),
      ...stackOptions,
    });
    this.stack.setSite(SERVICE_SITE);
    this.#start(this.stack, this.sent.from, (frame) => {
      if (this.isSilent) return;
      const destination = addressIn(frame, 'destination');
      this.#clients.get(destination)?.write(frame, 0, frame.length);
    });
    this.backend = new SocketBackend({ stack: this.stack, services: ALL_SERVICES, ...options });
    this.client = this.clientAt('10.1.0.1', '2001:db8:1::1');
    open.push(this);
  }

  clientAt(...address: string[]): SocketStack {
    const client = new SocketStack({ address, ...(this.#clock && { clock: this.#clock }) });
    client.setSite(CLIENT_SITE);
    for (const each of address) this.#clients.set(each, client);
    this.#start(client, this.sent.to, (frame) => this.stack.write(frame, 0, frame.length));
    return client;
  }

  async close(): Promise<void> {
    for (const client of new Set(this.#clients.values())) await client.close();
    await this.stack.close();
    await this.backend.close();
  }

  #start(stack: SocketStack, sent: number[], deliver: (frame: Buffer) => void): void {
    const buffer = Buffer.alloc(VNET + 65_536);
    stack.linkChanged(true);
    stack.start(() => {
      for (let length = stack.read(buffer, 0); length > 0; length = stack.read(buffer, 0)) {
        sent.push(length - VNET);
        deliver(this.#translated(buffer.subarray(0, length)));
      }
    });
  }

  #translated(frame: Buffer): Buffer {
    const source = translation(addressIn(frame, 'source'));
    const destination = translation(addressIn(frame, 'destination'));
    if (source === undefined && destination === undefined) return frame;
    const copy = this.#frame;
    copy.take(frame);
    const bytes = Buffer.from(copy.bytes.buffer, 0, copy.length);
    if (source !== undefined) write(bytes, 'source', source);
    if (destination !== undefined) write(bytes, 'destination', destination);
    copy.sealPartially();
    return bytes;
  }
}

const open: BackendScene[] = [];

/** Closes the scenes of a test. */
export function closeScenesAfterEach(): void {
  afterEach(async () => {
    for (const scene of open.splice(0)) await scene.close();
  });
}

function translation(address: string): string | undefined {
  if (address.startsWith('10.2.0.')) return address.replace('10.2.0.', '127.0.0.');
  if (address.startsWith('127.0.0.')) return address.replace('127.0.0.', '10.2.0.');
  if (address === '2001:db8:2::1') return '::1';
  return address === '::1' ? '2001:db8:2::1' : undefined;
}

function placeOf(frame: Buffer, which: 'source' | 'destination'): [family: 4 | 6, at: number] {
  const isIpv4 = frame[VNET]! >> 4 === 4;
  const at = VNET + (isIpv4 ? 12 : 8);
  const size = isIpv4 ? 4 : 16;
  return [isIpv4 ? 4 : 6, which === 'source' ? at : at + size];
}

function addressIn(frame: Buffer, which: 'source' | 'destination'): string {
  const [family, at] = placeOf(frame, which);
  return IpAddress.fromBytes(family, frame, at).toString();
}

function write(frame: Buffer, which: 'source' | 'destination', address: string): void {
  let [, at] = placeOf(frame, which);
  for (const word of IpAddress.parse(address).words) at = frame.writeInt32BE(word, at);
}

/** A real server of this machine, closed after the test. */
export class RealServer {
  readonly server: net.Server;
  readonly sockets: net.Socket[] = [];
  #port = 0;

  constructor(options: net.ServerOpts, listener: (socket: net.Socket) => void) {
    this.server = net.createServer(options, (socket) => {
      this.sockets.push(socket);
      socket.on('error', () => {});
      listener(socket);
    });
    servers.push(this);
  }

  get port(): number {
    return this.#port;
  }

  async listen(host = '127.0.0.1'): Promise<this> {
    this.server.listen(0, host);
    await once(this.server, 'listening');
    this.#port = (this.server.address() as net.AddressInfo).port;
    return this;
  }

  /** The next connection, or the first one if there is one. */
  async socket(): Promise<net.Socket> {
    if (this.sockets.length === 0) await once(this.server, 'connection');
    return this.sockets[0]!;
  }
}

const servers: RealServer[] = [];

export function closeServersAfterEach(): void {
  afterEach(() => {
    for (const { server, sockets } of servers.splice(0)) {
      for (const socket of sockets) socket.destroy();
      server.close();
    }
  });
}

export function serve(
  listener: (socket: net.Socket) => void,
  options: net.ServerOpts = { allowHalfOpen: true }
): Promise<RealServer> {
  return new RealServer(options, listener).listen();
}
