/**
 * Two hosts whose TCP is a pair of queues in memory. Everything happens in ticks of the event loop, and nothing depends
 * on time: what one end sends is at the other end in the next round of `setImmediate`.
 */
import { IpAddress } from '../../src/base/address.ts';
import { lookupError, systemError } from '../../src/sockets/system-error.ts';
import {
  type ListenerOwner,
  type SocketHost,
  type TcpConnection,
  TcpEvent,
  type TcpFailure,
  type TcpListener,
  type TcpOwner,
} from '../../src/sockets/tcp-types.ts';
import type { Flow, TcpEndpoint } from '../../src/tcp/index.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** What a send buffer and a receive buffer hold. */
const CAPACITY = 65_536;

/** A network of hosts by address. */
export class FakeNetwork {
  readonly hosts = new Map<string, FakeHost>();
  /** Addresses that answer nothing. */
  readonly silent = new Set<string>();

  host(...addresses: string[]): FakeHost {
    const host = new FakeHost(this, addresses.map(IpAddress.parse));
    for (const address of addresses) this.hosts.set(address, host);
    return host;
  }
}

export class FakeHost implements SocketHost {
  readonly tcp: FakeEndpoint;
  readonly clock: FakeClock = new FakeClock();
  readonly network: FakeNetwork;
  readonly addresses: readonly IpAddress[];
  /** The site's zone. */
  readonly zone = new Map<string, string[]>();
  /** The codes of destinations `address:port` that fail at once. */
  readonly refusals = new Map<string, string>();
  closedBy: Error | undefined;
  up: Promise<void> = Promise.resolve();

  constructor(network: FakeNetwork, addresses: readonly IpAddress[]) {
    this.network = network;
    this.addresses = addresses;
    this.tcp = new FakeEndpoint(this);
  }

  whenUp(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    return this.up;
  }

  resolve(host: string, family: 0 | 4 | 6): readonly IpAddress[] {
    if (/^[\d.]+$|:/.test(host)) return [IpAddress.parse(host)];
    const found = (this.zone.get(host) ?? [])
      .map(IpAddress.parse)
      .filter((address) => family === 0 || address.family === family);
    if (found.length === 0) throw lookupError('ENOTFOUND', host);
    return found;
  }

  localAddress(family: 4 | 6): IpAddress | undefined {
    return this.addresses.find((address) => address.family === family);
  }

  refusal(_protocol: 'tcp' | 'udp' | 'icmp', remote: IpAddress, port: number): string | undefined {
    return this.refusals.get(`${remote}:${port}`) ?? this.refusals.get(`${remote}`);
  }
}

export class FakeEndpoint implements Pick<TcpEndpoint, 'connect' | 'listen'> {
  readonly host: FakeHost;
  readonly listeners = new Map<number, FakeListener>();
  readonly connections = new Set<FakeConnection>();
  readonly #pending = new Set<FakeConnection | FakeListener>();
  #nextPort = 40_000;

  constructor(host: FakeHost) {
    this.host = host;
  }

  connect(
    local: IpAddress,
    localPort: number,
    remote: IpAddress,
    remotePort: number,
    owner: TcpOwner
  ): TcpConnection {
    const flow: Flow = {
      family: remote.family,
      local,
      localPort: localPort || this.#nextPort++,
      remote,
      remotePort,
      hash: 0,
    };
    const isUsed = (connection: FakeConnection): boolean => {
      const other = connection.flow;
      return (
        other.localPort === flow.localPort &&
        other.remotePort === remotePort &&
        other.remote.equals(remote)
      );
    };
    if ([...this.connections].some(isUsed))
      throw Object.assign(new Error(), { code: 'EADDRINUSE' });
    const connection = new FakeConnection(this, flow, owner);
    setImmediate(() => connection.dial());
    return connection.asReal;
  }

  listen(_local: IpAddress | undefined, port: number, owner: ListenerOwner): TcpListener {
    const free = port || this.#nextPort++;
    if (this.listeners.has(free)) throw Object.assign(new Error(), { code: 'EADDRINUSE' });
    const listener = new FakeListener(this, free, owner);
    this.listeners.set(free, listener);
    return listener as unknown as TcpListener;
  }

  /** Has the owner called in a tick of its own, as the stack does. */
  wake(what: FakeConnection | FakeListener): void {
    if (this.#pending.size === 0) process.nextTick(() => this.#deliver());
    this.#pending.add(what);
  }

  #deliver(): void {
    const pending = [...this.#pending];
    this.#pending.clear();
    for (const what of pending) what.deliver();
  }
}

export class FakeListener {
  readonly port: number;
  readonly #endpoint: FakeEndpoint;
  readonly #owner: ListenerOwner;
  readonly queue: FakeConnection[] = [];

  constructor(endpoint: FakeEndpoint, port: number, owner: ListenerOwner) {
    this.#endpoint = endpoint;
    this.port = port;
    this.#owner = owner;
  }

  deliver(): void {
    for (const connection of this.queue.splice(0)) this.#owner.onTcpConnection(connection.asReal);
  }

  close(): void {
    this.#endpoint.listeners.delete(this.port);
    for (const connection of this.queue) connection.abort();
  }
}

export class FakeConnection {
  readonly flow: Flow;
  owner: TcpOwner | undefined;
  failure: TcpFailure | undefined;
  peer: FakeConnection | undefined;
  isNoDelay = false;
  keepAliveMs = -1;
  userTimeoutMs = 0;
  readonly #endpoint: FakeEndpoint;
  #events = 0;
  #sending = Buffer.alloc(0);
  #received = Buffer.alloc(0);
  #wantsRoom = false;
  #isShutdown = false;
  #isFinArrived = false;
  #isGone = false;
  #isMoving = false;

  constructor(endpoint: FakeEndpoint, flow: Flow, owner?: TcpOwner) {
    this.#endpoint = endpoint;
    this.flow = flow;
    this.owner = owner;
    endpoint.connections.add(this);
  }

  /** The sockets take it for a connection of TCP. */
  get asReal(): TcpConnection {
    return this as unknown as TcpConnection;
  }

  get available(): number {
    return this.#received.length;
  }

  get isReadEnded(): boolean {
    return this.#isFinArrived && this.#received.length === 0;
  }

  /** The SYN arrives. */
  dial(): void {
    const { network } = this.#endpoint.host;
    const { flow } = this;
    if (this.#isGone || network.silent.has(flow.remote.toString())) return;
    const far = network.hosts.get(flow.remote.toString());
    const listener = far?.tcp.listeners.get(flow.remotePort);
    if (far === undefined) this.fail('host-unreachable');
    else if (listener === undefined) this.fail('refused');
    else {
      this.peer = new FakeConnection(far.tcp, {
        family: flow.family,
        local: flow.remote,
        localPort: flow.remotePort,
        remote: flow.local,
        remotePort: flow.localPort,
        hash: 0,
      });
      this.peer.peer = this;
      listener.queue.push(this.peer);
      far.tcp.wake(listener);
      this.#event(TcpEvent.Connected);
    }
  }

  write(bytes: Uint8Array, from = 0): number {
    if (this.#isShutdown || this.failure !== undefined) return 0;
    const taken = Math.min(bytes.length - from, CAPACITY - this.#sending.length);
    this.#sending = Buffer.concat([this.#sending, bytes.subarray(from, from + taken)]);
    this.#wantsRoom = taken < bytes.length - from;
    this.#move();
    return taken;
  }

  read(target: Uint8Array, at: number, length: number): number {
    const count = this.#received.copy(target, at, 0, Math.min(length, this.#received.length));
    this.#received = this.#received.subarray(count);
    if (this.peer !== undefined) this.peer.#move();
    return count;
  }

  shutdown(): void {
    if (this.#isShutdown || this.failure !== undefined) return;
    this.#isShutdown = true;
    this.#move();
  }

  abort(): void {
    if (this.#isGone) return;
    this.#leave();
    const { peer } = this;
    setImmediate(() => peer?.fail('reset'));
  }

  release(): void {
    if (this.#isGone) return;
    if (this.#received.length > 0) this.abort();
    else {
      this.owner = undefined;
      this.shutdown();
      if (this.failure !== undefined) this.#leave();
    }
  }

  setNoDelay(on: boolean): void {
    this.isNoDelay = on;
  }

  setKeepAlive(delayMs: number): void {
    this.keepAliveMs = delayMs === 0 ? -1 : delayMs;
  }

  setUserTimeout(ms: number): void {
    this.userTimeoutMs = ms;
  }

  fail(failure: TcpFailure): void {
    if (this.#isGone || this.failure !== undefined) return;
    this.failure = failure;
    this.#endpoint.connections.delete(this);
    this.#event(TcpEvent.Closed);
  }

  deliver(): void {
    const events = this.#events;
    this.#events = 0;
    this.owner?.onTcpEvents(this.asReal, events);
  }

  /** What was sent is on its way. */
  #move(): void {
    if (this.#isMoving) return;
    this.#isMoving = true;
    setImmediate(() => {
      this.#isMoving = false;
      this.#arrive();
    });
  }

  #arrive(): void {
    const { peer } = this;
    if (peer === undefined || this.failure !== undefined || peer.failure !== undefined) return;
    const count = Math.min(this.#sending.length, CAPACITY - peer.#received.length);
    if (count > 0 && (peer.#isGone || peer.owner === undefined) && peer.#isShutdown) {
      // Data for a program that is gone.
      this.fail('reset');
      return;
    }
    if (count > 0) {
      peer.#received = Buffer.concat([peer.#received, this.#sending.subarray(0, count)]);
      this.#sending = this.#sending.subarray(count);
      peer.#event(TcpEvent.Readable);
      if (this.#wantsRoom) {
        this.#wantsRoom = false;
        this.#event(TcpEvent.Writable);
      }
    }
    if (this.#isShutdown && this.#sending.length === 0 && !peer.#isFinArrived) {
      peer.#isFinArrived = true;
      peer.#event(TcpEvent.ReadEnded);
      this.#endClosed();
      peer.#endClosed();
    }
  }

  #endClosed(): void {
    if (!this.#isShutdown || !this.#isFinArrived) return;
    this.#endpoint.connections.delete(this);
    this.#event(TcpEvent.Closed);
  }

  #leave(): void {
    this.#isGone = true;
    this.owner = undefined;
    this.#endpoint.connections.delete(this);
  }

  #event(event: number): void {
    this.#events |= event;
    this.#endpoint.wake(this);
  }
}

/** What `whenUp` of a stack rejects with that has waited for long enough. */
export function tunnelDown(cause: Error): Error {
  return systemError('ENETDOWN', 'connect', { cause });
}
