/**
 * `MtlsTunnel`, a tunnel between gateways that know each other by certificate, and `TunnelListener`, which makes those
 * of the listening side. They are in one file because each names the other.
 *
 * Packets go over several connections, each flow on one of them. `connection-set.ts` knows which connections there are; this file has
 * those that carry what this side sends. A driver for each side (`dialer.ts`, `accepted.ts`) brings the connections.
 *
 * A packet's way out:
 * 1. `reserve` points into the connection of the packet before, for the next one is likely of the same flow
 * 2. `commit` finds the connection of the flow (`flow-steering.ts`), and copies the packet there if that is
 *    another one
 * 3. `flush` has every connection that got something send it
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { ConnectionLimiter, resolveLimiterOptions } from '../base/connection-limiter.ts';
import { flowHash } from '../packet/flow-hash.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import type { Credentials } from '../pki/credentials.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { AcceptDriver } from './accepted.ts';
import { Acceptor } from './acceptor.ts';
import type { TunnelRefusal } from './authorize.ts';
import type { TunnelConnection } from './connection.ts';
import { ConnectionSet, type ConnectionSetOwner } from './connection-set.ts';
import {
  type Connection,
  type ConnectionCounters,
  type ConnectionOptions,
  newConnectionCounters,
} from './connection-types.ts';
import { type DialOptions, resolveDialOptions } from './dial-options.ts';
import { DialDriver } from './dialer.ts';
import { FlowSteering } from './flow-steering.ts';
import { FrameType } from './frame.ts';
import type { RefusedConnection } from './handshakes.ts';
import {
  type ListenerCounters,
  type ListenOptions,
  newListenerCounters,
  type ResolvedListenOptions,
  resolveListenOptions,
} from './listen-options.ts';
import { CloseCode, type Hello } from './messages.ts';
import { SlabPool } from './slab-pool.ts';
import type { ConnectionInfo, Tunnel, TunnelEvents, TunnelState } from './tunnel.ts';
import type { DrivenTunnel, TunnelDriver } from './tunnel-driver.ts';

/** Makes a tunnel; only this file can. */
let newTunnel: (
  options: ConnectionOptions,
  driver: (tunnel: DrivenTunnel) => TunnelDriver
) => MtlsTunnel;

export class MtlsTunnel extends EventEmitter<TunnelEvents> implements Tunnel, AsyncDisposable {
  readonly counters: ConnectionCounters = newConnectionCounters();
  onPacket: (buffer: Buffer, start: number, end: number) => void = ignore;
  onBatchEnd: () => void = ignore;
  onDrain: () => void = ignore;
  #spread: FlowSteering | undefined;
  /** Whether flows are to be told apart also while there is one connection only. */
  #mayGrow = false;
  readonly #set: ConnectionSet;
  readonly #driver: TunnelDriver;
  #closing: Promise<void> | undefined;
  readonly #clock: Clock;
  /** Those that carry packets. */
  #connections: TunnelConnection[] = [];
  /** That `reserve` pointed into last. */
  #reserved = 0;
  #reservedAt = 0;
  #wasRefused = false;
  /** Of the last flush; flows need no finer time. */
  #nowMs = 0;

  static {
    newTunnel = (options, driver) => new MtlsTunnel(options, driver);
  }

  private constructor(options: ConnectionOptions, driver: (tunnel: DrivenTunnel) => TunnelDriver) {
    super();
    this.#clock = options.clock;
    this.#set = new ConnectionSet(options, this.#owner());
    this.#driver = driver(this.#driven());
    this.#driver.start();
  }

  /**
   * Begins to connect, and to connect again whenever the tunnel breaks, until it is closed. It keeps
   * the process alive until then.
   *
   * @throws {ApiMisuseError} if an option is not usable.
   * @throws {ConfigError} if an endpoint is not usable, or `proxy` names no proxy that can be used.
   * @throws {CertificateError} if the credentials are unusable, or `expectedPeer` cannot be a gateway.
   */
  static dial(options: DialOptions): MtlsTunnel {
    const resolved = resolveDialOptions(options);
    const { slabBytes, clock, limitUnsent, limits } = resolved;
    const connection = { ...limits, pool: new SlabPool(slabBytes), clock, limitUnsent };
    return newTunnel(connection, (tunnel) => new DialDriver(tunnel, resolved, connection));
  }

  /**
   * Listens for tunnels.
   *
   * @throws {ApiMisuseError} if an option is not usable.
   * @throws {CertificateError} if the credentials are unusable or name no gateway.
   * @throws {EnvironmentError} if the port cannot be had.
   */
  static listen(options: ListenOptions): Promise<TunnelListener> {
    return TunnelListener.listen(options);
  }

  get peer(): GatewayIdentity | undefined {
    return this.#driver.peer;
  }

  get state(): TunnelState {
    return this.#driver.state;
  }

  get info(): ConnectionInfo | undefined {
    return this.#driver.info;
  }

  /** What the peer says it runs, which is not verified; undefined before the tunnel has been up. */
  get software(): string | undefined {
    return this.#driver.software;
  }

  /** The verified end-entity certificates of the peer on all connections: while it is renewed, old and new ones. */
  get certificates(): readonly X509Certificate[] {
    return this.#set.certificates;
  }

  get rttMs(): number | undefined {
    return this.#set.first?.rttMs;
  }

  get connections(): number {
    return this.#connections.length;
  }

  get buffer(): Buffer {
    return this.#connections[this.#reserved]?.buffer ?? EMPTY;
  }

  reserve(): number {
    const connections = this.#connections;
    for (let i = 0; i < connections.length; i++) {
      const at = connections[this.#reserved]!.reserve();
      if (at >= 0) {
        this.#reservedAt = at;
        return at;
      }
      this.#reserved = this.#reserved + 1 < connections.length ? this.#reserved + 1 : 0;
    }
    this.#wasRefused = true;
    return -1;
  }

  commit(type: FrameType, payloadLength: number): boolean {
    const connections = this.#connections;
    const from = connections[this.#reserved];
    if (from === undefined) return false;
    const start = this.#reservedAt;
    const connection = this.#connectionOf(from.buffer, start, start + payloadLength);
    if (connection === this.#reserved) return from.commit(type, payloadLength);
    const { buffer } = from;
    this.#reserved = connection;
    return this.#copy(connections[connection]!, type, buffer, start, start + payloadLength);
  }

  flush(): void {
    this.#nowMs = this.#clock.monotonicMs();
    // A connection may break during its flush, and the last one takes its place: that one was flushed before.
    for (let i = this.#connections.length - 1; i >= 0; i--) this.#connections[i]?.flush();
  }

  sendPacket(buffer: Buffer, start: number, end: number): boolean {
    const connection = this.#connections[this.#connectionOf(buffer, start, end)];
    return connection !== undefined && this.#copy(connection, FrameType.Packet, buffer, start, end);
  }

  sendControl(message: Json): boolean {
    return this.#set.first?.sendControl(message) ?? false;
  }

  /**
   * Uses other credentials on the side that dialled: for a connection at once if the tunnel is not up. If it is, it
   * opens new connections under them and then has the old ones drained, so that no packet and no message is lost, and
   * `renewed` is emitted. Resolves when the old ones are gone, or when the tunnel has gone down: it comes back under
   * the new credentials. One renewal follows the other, in the order of the calls.
   *
   * When it rejects, everything is as before, and it may be called again.
   *
   * @throws {ApiMisuseError} on the side that listens: `TunnelListener.updateCredentials` is for that.
   * @throws {CertificateError} if the credentials are unusable.
   * @throws {PeerRefusedError} if the peer does not want a connection under them.
   * @throws {EnvironmentError} if a connection cannot be had.
   */
  updateCredentials(credentials: Credentials): Promise<void> {
    return this.#driver.updateCredentials(credentials);
  }

  close({
    code = CloseCode.Shutdown,
    reason = '',
    endpoint,
  }: Partial<TunnelRefusal> = {}): Promise<void> {
    this.#closing ??= this.#end('close', { code, reason, endpoint });
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  abort({ code, reason, endpoint }: TunnelRefusal): Promise<void> {
    return this.#end('abort', { code, reason, endpoint });
  }

  destroy(): void {
    const reason = 'the tunnel was destroyed';
    this.#driver.finish();
    void this.#set.end('destroy', { code: CloseCode.ConnectionLost, reason });
  }

  #end(how: 'close' | 'abort', close: TunnelRefusal): Promise<void> {
    this.#driver.finish();
    return this.#set.end(how, close);
  }

  #driven(): DrivenTunnel {
    const { counters } = this;
    return {
      set: this.#set,
      counters,
      connections: () => this.#connections.length,
      activeFlows: (nowMs) => this.#flows().active(nowMs),
      begin: (connection, info, mayGrow) => {
        this.#nowMs = this.#clock.monotonicMs();
        this.#spread = undefined;
        this.#mayGrow = mayGrow;
        this.#set.begin(connection, info);
      },
      shrink: (count) => {
        const further = this.#connections.filter((connection) => connection !== this.#set.first);
        for (const connection of further.slice(Math.max(count - 1, 0)))
          this.#set.retire(connection);
      },
      abort: (close) => this.abort(close),
      emit: (event, payload) => this.emit(event, ...([payload] as never)),
    };
  }

  /** Made when it is first needed: most tunnels have one connection. */
  #flows(): FlowSteering {
    this.#spread ??= new FlowSteering();
    return this.#spread;
  }

  #owner(): ConnectionSetOwner {
    return {
      counters: this.counters,
      onPacket: (buffer, start, end) => this.onPacket(buffer, start, end),
      onBatchEnd: () => this.onBatchEnd(),
      onDrain: () => {
        if (!this.#wasRefused) return;
        this.#wasRefused = false;
        this.onDrain();
      },
      onControl: (message) => this.emit('control', message),
      onCarrier: (connection) => this.#carry(connection),
      onCarrierGone: (connection) => this.#remove(connection),
      onRenewed: (info) => {
        this.#driver.onRenewed(info);
        this.emit('renewed', info);
      },
      onConnectionEnded: (cause) => this.#driver.onConnectionEnded(cause),
      onLost: (cause) => {
        this.#connections = [];
        this.#reserved = 0;
        this.#driver.onLost(cause);
      },
    };
  }

  #connectionOf(buffer: Buffer, start: number, end: number): number {
    if (this.#connections.length <= 1 && !this.#mayGrow) return 0;
    const hash = flowHash(buffer, start + VNET_HEADER_LENGTH, end);
    return this.#flows().connectionOf(hash, end - start, this.#nowMs);
  }

  #copy(
    connection: Connection,
    type: FrameType,
    buffer: Buffer,
    start: number,
    end: number
  ): boolean {
    const at = connection.reserve();
    if (at < 0) {
      this.#wasRefused = true;
      this.counters.droppedFull++;
      return false;
    }
    buffer.copy(connection.buffer, at, start, end);
    return connection.commit(type, end - start);
  }

  #carry(connection: TunnelConnection): void {
    this.#connections.push(connection);
    if (this.#connections.length === 1) return;
    this.#flows().setConnections(this.#connections.length, this.#clock.monotonicMs());
    this.#onConnections();
  }

  #remove(connection: TunnelConnection): void {
    const at = this.#connections.indexOf(connection);
    if (at < 0) return;
    const last = this.#connections.pop()!;
    if (last !== connection) this.#connections[at] = last;
    this.#flows().removeConnection(at, this.#clock.monotonicMs());
    this.#onConnections();
  }

  #onConnections(): void {
    this.#reserved = 0;
    this.emit('connections', { count: this.#connections.length });
  }
}

export interface ListenerEvents {
  /**
   * A tunnel is up; its `peer` and `info` are known. Set its `onPacket` before returning: the first packets may follow
   * at once.
   */
  tunnel: [tunnel: MtlsTunnel];
  /** A connection has led to no tunnel and no connection; for an audit log. */
  refused: [refused: RefusedConnection];
  /** `authorize` has failed, and so the peer was refused; `site` is undefined if the peer is not one. */
  problem: [problem: { readonly error: Error; readonly site: string | undefined }];
}

/** Takes the connections of peers, and makes tunnels of them. Made by `MtlsTunnel.listen`. */
export class TunnelListener extends EventEmitter<ListenerEvents> implements AsyncDisposable {
  /** Who this side is, by its own certificate. */
  readonly identity: GatewayIdentity;
  /** Tunnels that are up. */
  readonly tunnels: ReadonlySet<MtlsTunnel>;
  readonly counters: ListenerCounters;
  readonly #options: ResolvedListenOptions;
  readonly #acceptor: Acceptor;
  readonly #tunnels = new Set<MtlsTunnel>();
  /** By the peer's identity and what it calls the tunnel. */
  readonly #drivers = new Map<string, AcceptDriver>();
  /** All whose connection is there, with the peer's certificate. */
  readonly #connections = new Map<TunnelConnection, X509Certificate>();
  #closing: Promise<void> | undefined;

  private constructor(options: ResolvedListenOptions) {
    super();
    this.identity = options.identity;
    this.tunnels = this.#tunnels;
    this.#options = options;
    const { maxConnectionRate: maxRate, maxHandshakes } = options;
    const gate = new ConnectionLimiter(resolveLimiterOptions({ maxRate }, maxHandshakes));
    this.counters = newListenerCounters(gate.counters);
    this.#acceptor = new Acceptor(options, gate, {
      counters: this.counters,
      placeFault: (hello, id) => this.#placeFault(hello, id),
      onConnection: (...connection) => this.#onConnection(...connection),
      onRefused: (refused) => this.emit('refused', refused),
      onProblem: (error, identity) => {
        const site = identity.role === 'site' ? identity.site : undefined;
        this.emit('problem', { error, site });
      },
    });
  }

  /** See `MtlsTunnel.listen`. */
  static async listen(options: ListenOptions): Promise<TunnelListener> {
    const listener = new TunnelListener(resolveListenOptions(options));
    await listener.#acceptor.open();
    return listener;
  }

  /** The port that it listens on, also after `close`. */
  get port(): number {
    return this.#acceptor.port;
  }

  /** Connections whose handshake is under way. */
  get handshakes(): number {
    return this.#acceptor.handshakes;
  }

  /**
   * Uses other credentials for the connections to come; those that are up stay. `ca` may hold several
   * certificates: while an authority is followed by another one, peers of both are let in.
   *
   * @throws {CertificateError} if they are unusable; those before are kept then.
   */
  updateCredentials(credentials: Credentials): void {
    this.#acceptor.updateCredentials(credentials);
  }

  /**
   * Ends every tunnel that has a connection with one of these certificates, and every connection whose handshake
   * is under way with one. Nothing of them passes any more when it returns. A connection of which no
   * certificate is known yet is left to `authorize`, which ought to refuse it by then.
   *
   * @returns how many tunnels it has ended
   */
  cut(isRevoked: (certificate: X509Certificate) => boolean, code: string, reason: string): number {
    const tunnels = [...this.#tunnels].filter(({ certificates }) => certificates.some(isRevoked));
    // Of a tunnel that is being closed, what waits may still be under way to the peer.
    for (const [connection, certificate] of this.#connections) {
      if (connection.isClosing && isRevoked(certificate)) connection.destroy(code, reason);
    }
    for (const tunnel of tunnels) void tunnel.abort({ code, reason });
    this.#acceptor.cut(isRevoked, { code, reason });
    return tunnels.length;
  }

  /** Takes no more connections, sends what the tunnels hold, and ends them; by default with `CloseCode.Shutdown`. */
  close(close?: Partial<TunnelRefusal>): Promise<void> {
    this.#closing ??= this.#close(close);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(close: Partial<TunnelRefusal> | undefined): Promise<void> {
    const closed = this.#acceptor.close();
    await Promise.all([...this.#tunnels].map((tunnel) => tunnel.close(close)));
    await closed;
  }

  /** Why there is no place for a connection that is not the first of a new tunnel. */
  #placeFault(hello: Hello, id: string | undefined): TunnelRefusal | undefined {
    const driver = id === undefined ? undefined : this.#drivers.get(id);
    const isNew = driver === undefined && isFirst(hello) && hello.renews !== true;
    if (isNew || driver?.takesConnection(isFirst(hello), this.#options.connections) === true)
      return undefined;
    return { code: CloseCode.NoTunnel, reason: 'there is no tunnel that takes the connection' };
  }

  #onConnection(
    connection: TunnelConnection,
    hello: Hello,
    id: string | undefined,
    info: ConnectionInfo
  ): void {
    this.#connections.set(connection, info.certificate);
    void connection.gone.then(() => this.#connections.delete(connection));
    const driver = id === undefined ? undefined : this.#drivers.get(id);
    if (driver === undefined) this.#welcome(connection, hello, id, info);
    else if (isFirst(hello)) driver.succeed(connection, info);
    else driver.join(connection, info);
  }

  #welcome(
    connection: TunnelConnection,
    hello: Hello,
    id: string | undefined,
    info: ConnectionInfo
  ): void {
    const { counters } = this;
    const { clock, expiryGraceMs } = this.#options;
    let driver: AcceptDriver;
    const tunnel = newTunnel(this.#options.connection, (driven) => {
      driver = new AcceptDriver(driven, connection, {
        info,
        hello,
        clock,
        expiryGraceMs,
        counters,
        onClosed: () => {
          this.#tunnels.delete(tunnel);
          if (id !== undefined && this.#drivers.get(id) === driver) this.#drivers.delete(id);
        },
      });
      return driver;
    });
    this.#tunnels.add(tunnel);
    if (id !== undefined) this.#drivers.set(id, driver!);
    counters.accepted++;
    this.emit('tunnel', tunnel);
  }
}

function isFirst({ lane = 0 }: Hello): boolean {
  return lane === 0;
}

function ignore(): void {}

const EMPTY: Buffer = Buffer.alloc(0);
