/**
 * `MtlsTunnel`, a tunnel between gateways that know each other by certificate, and `TunnelListener`, which makes those
 * of the listening side. They are in one file because each names the other.
 *
 * A tunnel has a set of connections (`connection-set.ts`), a sender that steers packets to them (`flow-steering.ts`),
 * and a driver that adds connections (`dial-driver.ts`, `listen-driver.ts`).
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Credentials } from '../pki/credentials.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { type AcceptedConnection, Acceptor } from './acceptor.ts';
import type { TunnelConnection } from './connection.ts';
import { ConnectionSet } from './connection-set.ts';
import { DialDriver } from './dial-driver.ts';
import type { SteeredSender } from './flow-steering.ts';
import type { FrameType } from './frame.ts';
import { Handshakes, type ListenerCounters, type RefusedConnection } from './handshakes.ts';
import { isPrimary, ListenDriver } from './listen-driver.ts';
import { CloseCode, type Hello, type TunnelRefusal } from './messages.ts';
import {
  type ConnectionOptions,
  type DialOptions,
  type ListenOptions,
  type ResolvedListenOptions,
  resolveDialOptions,
  resolveListenOptions,
} from './options.ts';
import {
  type ConnectionCounters,
  type ConnectionInfo,
  newConnectionCounters,
  type Tunnel,
  type TunnelDriver,
  type TunnelEvents,
  type TunnelState,
} from './tunnel.ts';

type MakeDriver = (set: ConnectionSet, tunnel: EventEmitter<TunnelEvents>) => TunnelDriver;

/** Makes a tunnel; only this file can. */
let newTunnel: (options: ConnectionOptions, makeDriver: MakeDriver) => MtlsTunnel;

export class MtlsTunnel extends EventEmitter<TunnelEvents> implements Tunnel, AsyncDisposable {
  readonly counters: ConnectionCounters = newConnectionCounters();
  onPacket: (buffer: Buffer, start: number, end: number) => void = ignore;
  onBatchEnd: () => void = ignore;
  onDrain: () => void = ignore;
  readonly #set: ConnectionSet;
  readonly #sender: SteeredSender;
  readonly #driver: TunnelDriver;
  #closing: Promise<void> | undefined;

  static {
    newTunnel = (options, makeDriver) => new MtlsTunnel(options, makeDriver);
  }

  private constructor(options: ConnectionOptions, makeDriver: MakeDriver) {
    super();
    const set = new ConnectionSet(options, this.counters);
    this.#set = set;
    this.#sender = set.sender;
    set.onPacket = (buffer, start, end) => this.onPacket(buffer, start, end);
    set.onBatchEnd = () => this.onBatchEnd();
    set.sender.onDrain = () => this.onDrain();
    // The driver listens first, so that its state is up to date in each event of the tunnel.
    this.#driver = makeDriver(set, this);
    set.on('control', (message) => this.emit('control', message));
    set.on('connections', (connections) => this.emit('connections', connections));
    set.on('renewed', (info) => this.emit('renewed', info));
    this.#driver.start();
  }

  /**
   * Begins to connect, and connects again whenever the tunnel breaks, until it is closed. It keeps the process alive
   * until then.
   *
   * @throws {ApiMisuseError} if an option is not usable.
   * @throws {ConfigError} if an endpoint is not usable, or `proxy` names no proxy that can be used.
   * @throws {CertificateError} if the credentials are unusable, or `expectedPeer` cannot be a gateway.
   */
  static dial(options: DialOptions): MtlsTunnel {
    const resolved = resolveDialOptions(options);
    return newTunnel(resolved.connection, (set, tunnel) => new DialDriver(set, tunnel, resolved));
  }

  /**
   * Listens for tunnels.
   *
   * @throws {ApiMisuseError} if an option is not usable.
   * @throws {CertificateError} if the credentials are unusable or name no gateway.
   * @throws {EnvironmentError} if the port cannot be opened.
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

  /** The software that the peer says it runs. It is not verified, and undefined before the tunnel has been up. */
  get software(): string | undefined {
    return this.#driver.software;
  }

  /** The verified end-entity certificates of the peer on all connections: during a renewal, old and new ones. */
  get certificates(): readonly X509Certificate[] {
    return this.#set.certificates;
  }

  get rttMs(): number | undefined {
    return this.#set.primary?.rttMs;
  }

  get connections(): number {
    return this.#sender.connections.length;
  }

  /**
   * Measures the round-trip time on each connection that carries packets, now. Resolves with the times in ms, in the
   * order of the connections; one is undefined if no answer has come in `timeoutMs`. There are none unless the tunnel
   * is up.
   */
  measure(timeoutMs: number): Promise<readonly (number | undefined)[]> {
    return Promise.all(this.#sender.connections.map((connection) => connection.measure(timeoutMs)));
  }

  /**
   * Asks the peer for an answer on the primary connection, on either side. Resolves with true as soon as anything comes
   * from it, and with false if the tunnel is not up, or ends first: it does when three PINGs, one every 300 ms, are not
   * answered.
   */
  isAlive(): Promise<boolean> {
    return this.#set.primary?.isAlive() ?? Promise.resolve(false);
  }

  get buffer(): Buffer {
    return this.#sender.buffer;
  }

  reserve(): number {
    return this.#sender.reserve();
  }

  commit(type: FrameType, payloadLength: number): boolean {
    return this.#sender.commit(type, payloadLength);
  }

  flush(): void {
    this.#sender.flush();
  }

  sendPacket(buffer: Buffer, start: number, end: number): boolean {
    return this.#sender.send(buffer, start, end);
  }

  sendControl(message: Json): boolean {
    return this.#set.primary?.sendControl(message) ?? false;
  }

  /**
   * Uses other credentials on the side that dialled. If the tunnel is not up, it connects under them at once. If it is,
   * it opens new connections under them and then has the old ones drained, so that no packet and no message is lost, and
   * emits `renewed`. Resolves when the old ones are gone, or when the tunnel has gone down: it comes back under
   * the new credentials. One renewal follows the other, in the order of the calls.
   *
   * When it rejects, everything is as before, and it may be called again.
   *
   * @throws {ApiMisuseError} on the side that listens: use `TunnelListener.updateCredentials` there.
   * @throws {CertificateError} if the credentials are unusable.
   * @throws {PeerRefusedError} if the peer refuses a connection under them.
   * @throws {EnvironmentError} if a connection cannot be opened.
   */
  updateCredentials(credentials: Credentials): Promise<void> {
    return this.#driver.updateCredentials(credentials);
  }

  close({
    code = CloseCode.Shutdown,
    reason = '',
    endpoint,
    endpoints,
    retryAfterMs,
  }: Partial<TunnelRefusal> = {}): Promise<void> {
    this.#closing ??= this.#end('close', { code, reason, endpoint, endpoints, retryAfterMs });
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  abort({ code, reason, endpoint, endpoints, retryAfterMs }: TunnelRefusal): Promise<void> {
    return this.#end('abort', { code, reason, endpoint, endpoints, retryAfterMs });
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
}

export interface ListenerEvents {
  /**
   * A tunnel is up; its `peer` and `info` are known. Set its `onPacket` before returning, because the first packets may
   * follow at once.
   */
  tunnel: [tunnel: MtlsTunnel];
  /** A connection became part of no tunnel; for an audit log. */
  refused: [refused: RefusedConnection];
  /** `authorize` has failed, and so the peer was refused; `site` is undefined if the peer is not one. */
  problem: [problem: { readonly error: Error; readonly site: string | undefined }];
}

/** Takes the connections of peers, and makes tunnels of them. Made by `MtlsTunnel.listen`. */
export class TunnelListener extends EventEmitter<ListenerEvents> implements AsyncDisposable {
  /** The identity of this side, from its own certificate. */
  readonly identity: GatewayIdentity;
  /** Tunnels that are up. */
  readonly tunnels: ReadonlySet<MtlsTunnel>;
  readonly counters: ListenerCounters;
  readonly #options: ResolvedListenOptions;
  readonly #handshakes: Handshakes;
  readonly #acceptor: Acceptor;
  readonly #tunnels = new Set<MtlsTunnel>();
  /** Keyed by the peer's identity and its name for the tunnel. */
  readonly #drivers = new Map<string, ListenDriver>();
  /** All connections whose socket is open, with the peer's certificate. */
  readonly #connections = new Map<TunnelConnection, X509Certificate>();
  #closing: Promise<void> | undefined;

  private constructor(options: ResolvedListenOptions) {
    super();
    this.identity = options.identity;
    this.tunnels = this.#tunnels;
    this.#options = options;
    this.#handshakes = new Handshakes(options);
    this.counters = this.#handshakes.counters;
    this.#handshakes.on('refused', (refused) => this.emit('refused', refused));
    const tunnels = this.#tunnels;
    this.#acceptor = new Acceptor(options, this.#handshakes, {
      get size() {
        return tunnels.size;
      },
      findPlace: (hello, id) => this.#findPlace(hello, id),
    });
    this.#acceptor.on('connection', (accepted) => this.#onConnection(accepted));
    this.#acceptor.on('problem', (problem) => this.emit('problem', problem));
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

  /** Connections whose handshake is under way, or has not begun yet. */
  get handshakes(): number {
    return this.#handshakes.size;
  }

  /**
   * Uses other credentials for the connections to come; those that are up stay. `ca` may hold several
   * certificates: during a rollover of the CA, peers of both are let in.
   *
   * @throws {CertificateError} if they are unusable; then those before are kept.
   */
  updateCredentials(credentials: Credentials): void {
    this.#acceptor.updateCredentials(credentials);
  }

  /**
   * Ends every tunnel that has a connection with one of these certificates, and every connection whose handshake
   * is under way with one. Nothing of them passes any more when it returns. A connection of which no certificate is
   * known yet is not ended: `authorize` has to refuse it.
   *
   * @returns how many tunnels it has ended
   */
  terminate(isMeant: (certificate: X509Certificate) => boolean, close: TunnelRefusal): number {
    const tunnels = [...this.#tunnels].filter(({ certificates }) => certificates.some(isMeant));
    // A tunnel that is being closed may still be sending what waits.
    for (const [connection, certificate] of this.#connections) {
      if (connection.isClosing && isMeant(certificate))
        connection.destroy(close.code, close.reason);
    }
    for (const tunnel of tunnels) void tunnel.abort(close);
    this.#handshakes.terminate(isMeant, close);
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

  #findPlace(hello: Hello, tunnelId: string | undefined): TunnelRefusal | undefined {
    const driver = this.#driverOf(tunnelId);
    const isNew = driver === undefined && isPrimary(hello) && hello.renews !== true;
    if (isNew || driver?.takes(hello) === true) return undefined;
    return { code: CloseCode.NoTunnel, reason: 'there is no tunnel that takes the connection' };
  }

  #driverOf(tunnelId: string | undefined): ListenDriver | undefined {
    return tunnelId === undefined ? undefined : this.#drivers.get(tunnelId);
  }

  #onConnection(accepted: AcceptedConnection): void {
    const { connection, info, tunnelId } = accepted;
    this.#connections.set(connection, info.certificate);
    void connection.gone.then(() => this.#connections.delete(connection));
    const driver = this.#driverOf(tunnelId);
    if (driver === undefined) this.#makeTunnel(accepted);
    else driver.add(accepted);
  }

  #makeTunnel(accepted: AcceptedConnection): void {
    const { tunnelId } = accepted;
    const tunnel = newTunnel(this.#options.connection, (set, emitter) => {
      // This listens before the driver does, which emits `down`.
      set.once('lost', () => {
        this.#tunnels.delete(tunnel);
        if (tunnelId !== undefined && this.#drivers.get(tunnelId) === driver)
          this.#drivers.delete(tunnelId);
      });
      const driver = new ListenDriver(set, emitter, accepted, this.#options, this.counters);
      if (tunnelId !== undefined) this.#drivers.set(tunnelId, driver);
      return driver;
    });
    this.#tunnels.add(tunnel);
    this.counters.accepted++;
    this.emit('tunnel', tunnel);
  }
}

function ignore(): void {}
