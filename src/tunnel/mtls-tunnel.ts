/**
 * `MtlsTunnel`, a tunnel between gateways that know each other by certificate, and `TunnelListener`, which makes those
 * of the listening side. They are in one file because each names the other.
 *
 * Packets go over several lanes, each flow on one of them. `lane-set.ts` knows which lanes there are; this file has
 * those that carry what this side sends. A driver for each side (`dialer.ts`, `accepted.ts`) brings the lanes.
 *
 * A packet's way out:
 * 1. `reserve` points into the lane of the packet before, for the next one is likely of the same flow
 * 2. `commit` finds the lane of the flow (`flow-spread.ts`), and copies the packet there if that is
 *    another one
 * 3. `flush` has every lane that got something send it
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../clock.ts';
import { ConnectionGate, resolveGateLimits } from '../connection-gate.ts';
import { flowHash } from '../packet/flow-hash.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import type { Credentials } from '../pki/credentials.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { AcceptDriver } from './accepted.ts';
import { Acceptor } from './acceptor.ts';
import type { TunnelRefusal } from './authorize.ts';
import { type DialOptions, resolveDialOptions } from './dial-options.ts';
import { DialDriver } from './dialer.ts';
import { FlowSpread } from './flow-spread.ts';
import { FrameType } from './frame.ts';
import type { RefusedConnection } from './handshakes.ts';
import { type Lane, type LaneCounters, type LaneOptions, newLaneCounters } from './lane.ts';
import { LaneSet, type LaneSetOwner } from './lane-set.ts';
import {
  type ListenerCounters,
  type ListenOptions,
  newListenerCounters,
  type ResolvedListenOptions,
  resolveListenOptions,
} from './listen-options.ts';
import { CloseCode, type Hello } from './messages.ts';
import { SlabPool } from './slab-pool.ts';
import type { TlsLane } from './tls-lane.ts';
import type { ConnectionInfo, Tunnel, TunnelEvents, TunnelState } from './tunnel.ts';
import type { DrivenTunnel, TunnelDriver } from './tunnel-driver.ts';

/** Makes a tunnel; only this file can. */
let newTunnel: (options: LaneOptions, driver: (tunnel: DrivenTunnel) => TunnelDriver) => MtlsTunnel;

export class MtlsTunnel extends EventEmitter<TunnelEvents> implements Tunnel, AsyncDisposable {
  readonly counters: LaneCounters = newLaneCounters();
  onPacket: (buffer: Buffer, start: number, end: number) => void = ignore;
  onBatchEnd: () => void = ignore;
  onDrain: () => void = ignore;
  #spread: FlowSpread | undefined;
  /** Whether flows are to be told apart also while there is one lane only. */
  #mayGrow = false;
  readonly #set: LaneSet;
  readonly #driver: TunnelDriver;
  #closing: Promise<void> | undefined;
  readonly #clock: Clock;
  /** Those that carry packets. */
  #lanes: TlsLane[] = [];
  /** That `reserve` pointed into last. */
  #reserved = 0;
  #reservedAt = 0;
  #wasRefused = false;
  /** Of the last flush; flows need no finer time. */
  #nowMs = 0;

  static {
    newTunnel = (options, driver) => new MtlsTunnel(options, driver);
  }

  private constructor(options: LaneOptions, driver: (tunnel: DrivenTunnel) => TunnelDriver) {
    super();
    this.#clock = options.clock;
    this.#set = new LaneSet(options, this.#owner());
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
    const lane = { ...limits, pool: new SlabPool(slabBytes), clock, limitUnsent };
    return newTunnel(lane, (tunnel) => new DialDriver(tunnel, resolved, lane));
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

  /** The verified end-entity certificates of the peer on all lanes: while it is renewed, old and new ones. */
  get certificates(): readonly X509Certificate[] {
    return this.#set.certificates;
  }

  get rttMs(): number | undefined {
    return this.#set.first?.rttMs;
  }

  get lanes(): number {
    return this.#lanes.length;
  }

  get buffer(): Buffer {
    return this.#lanes[this.#reserved]?.buffer ?? EMPTY;
  }

  reserve(): number {
    const lanes = this.#lanes;
    for (let i = 0; i < lanes.length; i++) {
      const at = lanes[this.#reserved]!.reserve();
      if (at >= 0) {
        this.#reservedAt = at;
        return at;
      }
      this.#reserved = this.#reserved + 1 < lanes.length ? this.#reserved + 1 : 0;
    }
    this.#wasRefused = true;
    return -1;
  }

  commit(type: FrameType, payloadLength: number): boolean {
    const lanes = this.#lanes;
    const from = lanes[this.#reserved];
    if (from === undefined) return false;
    const start = this.#reservedAt;
    const lane = this.#laneOf(from.buffer, start, start + payloadLength);
    if (lane === this.#reserved) return from.commit(type, payloadLength);
    const { buffer } = from;
    this.#reserved = lane;
    return this.#copy(lanes[lane]!, type, buffer, start, start + payloadLength);
  }

  flush(): void {
    this.#nowMs = this.#clock.monotonicMs();
    // A lane may break during its flush, and the last one takes its place: that one was flushed before.
    for (let i = this.#lanes.length - 1; i >= 0; i--) this.#lanes[i]?.flush();
  }

  sendPacket(buffer: Buffer, start: number, end: number): boolean {
    const lane = this.#lanes[this.#laneOf(buffer, start, end)];
    return lane !== undefined && this.#copy(lane, FrameType.Packet, buffer, start, end);
  }

  sendControl(message: Json): boolean {
    return this.#set.first?.sendControl(message) ?? false;
  }

  /**
   * Uses other credentials on the side that dialled: for a connection at once if the tunnel is not up. If it is, it
   * opens new lanes under them and then has the old ones drained, so that no packet and no message is lost, and
   * `renewed` is emitted. Resolves when the old ones are gone, or when the tunnel has gone down: it comes back under
   * the new credentials. One renewal follows the other, in the order of the calls.
   *
   * When it rejects, everything is as before, and it may be called again.
   *
   * @throws {ApiMisuseError} on the side that listens: `TunnelListener.updateCredentials` is for that.
   * @throws {CertificateError} if the credentials are unusable.
   * @throws {PeerRefusedError} if the peer does not want a lane under them.
   * @throws {EnvironmentError} if a lane cannot be had.
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
      lanes: () => this.#lanes.length,
      activeFlows: (nowMs) => this.#flows().active(nowMs),
      begin: (lane, info, mayGrow) => {
        this.#nowMs = this.#clock.monotonicMs();
        this.#spread = undefined;
        this.#mayGrow = mayGrow;
        this.#set.begin(lane, info);
      },
      shrink: (count) => {
        const further = this.#lanes.filter((lane) => lane !== this.#set.first);
        for (const lane of further.slice(Math.max(count - 1, 0))) this.#set.retire(lane);
      },
      abort: (close) => this.abort(close),
      emit: (event, payload) => this.emit(event, ...([payload] as never)),
    };
  }

  /** Made when it is first needed: most tunnels have one lane. */
  #flows(): FlowSpread {
    this.#spread ??= new FlowSpread();
    return this.#spread;
  }

  #owner(): LaneSetOwner {
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
      onCarrier: (lane) => this.#carry(lane),
      onCarrierGone: (lane) => this.#remove(lane),
      onRenewed: (info) => {
        this.#driver.onRenewed(info);
        this.emit('renewed', info);
      },
      onLaneEnded: (cause) => this.#driver.onLaneEnded(cause),
      onLost: (cause) => {
        this.#lanes = [];
        this.#reserved = 0;
        this.#driver.onLost(cause);
      },
    };
  }

  #laneOf(buffer: Buffer, start: number, end: number): number {
    if (this.#lanes.length <= 1 && !this.#mayGrow) return 0;
    const hash = flowHash(buffer, start + VNET_HEADER_LENGTH, end);
    return this.#flows().laneOf(hash, end - start, this.#nowMs);
  }

  #copy(lane: Lane, type: FrameType, buffer: Buffer, start: number, end: number): boolean {
    const at = lane.reserve();
    if (at < 0) {
      this.#wasRefused = true;
      this.counters.droppedFull++;
      return false;
    }
    buffer.copy(lane.buffer, at, start, end);
    return lane.commit(type, end - start);
  }

  #carry(lane: TlsLane): void {
    this.#lanes.push(lane);
    if (this.#lanes.length === 1) return;
    this.#flows().setLanes(this.#lanes.length, this.#clock.monotonicMs());
    this.#onLanes();
  }

  #remove(lane: TlsLane): void {
    const at = this.#lanes.indexOf(lane);
    if (at < 0) return;
    const last = this.#lanes.pop()!;
    if (last !== lane) this.#lanes[at] = last;
    this.#flows().removeLane(at, this.#clock.monotonicMs());
    this.#onLanes();
  }

  #onLanes(): void {
    this.#reserved = 0;
    this.emit('lanes', { count: this.#lanes.length });
  }
}

export interface ListenerEvents {
  /**
   * A tunnel is up; its `peer` and `info` are known. Set its `onPacket` before returning: the first packets may follow
   * at once.
   */
  tunnel: [tunnel: MtlsTunnel];
  /** A connection has led to no tunnel and no lane; for an audit log. */
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
  readonly #lanes = new Map<TlsLane, X509Certificate>();
  #closing: Promise<void> | undefined;

  private constructor(options: ResolvedListenOptions) {
    super();
    this.identity = options.identity;
    this.tunnels = this.#tunnels;
    this.#options = options;
    const { maxConnectionRate: maxRate, maxHandshakes } = options;
    const gate = new ConnectionGate(resolveGateLimits({ maxRate }, maxHandshakes));
    this.counters = newListenerCounters(gate.counters);
    this.#acceptor = new Acceptor(options, gate, {
      counters: this.counters,
      placeFault: (hello, id) => this.#placeFault(hello, id),
      onLane: (...lane) => this.#onLane(...lane),
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
   * Ends every tunnel that has a lane with one of these certificates, and every connection whose handshake
   * is under way with one. Nothing of them passes any more when it returns. A connection of which no
   * certificate is known yet is left to `authorize`, which ought to refuse it by then.
   *
   * @returns how many tunnels it has ended
   */
  cut(isRevoked: (certificate: X509Certificate) => boolean, code: string, reason: string): number {
    const tunnels = [...this.#tunnels].filter(({ certificates }) => certificates.some(isRevoked));
    // Of a tunnel that is being closed, what waits may still be under way to the peer.
    for (const [lane, certificate] of this.#lanes) {
      if (lane.isClosing && isRevoked(certificate)) lane.destroy(code, reason);
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

  /** Why there is no place for a lane that is not the first of a new tunnel. */
  #placeFault(hello: Hello, id: string | undefined): TunnelRefusal | undefined {
    const driver = id === undefined ? undefined : this.#drivers.get(id);
    const isNew = driver === undefined && isFirst(hello) && hello.renews !== true;
    if (isNew || driver?.takesLane(isFirst(hello), this.#options.lanes) === true) return undefined;
    return { code: CloseCode.NoTunnel, reason: 'there is no tunnel that takes the lane' };
  }

  #onLane(lane: TlsLane, hello: Hello, id: string | undefined, info: ConnectionInfo): void {
    this.#lanes.set(lane, info.certificate);
    void lane.gone.then(() => this.#lanes.delete(lane));
    const driver = id === undefined ? undefined : this.#drivers.get(id);
    if (driver === undefined) this.#welcome(lane, hello, id, info);
    else if (isFirst(hello)) driver.succeed(lane, info);
    else driver.join(lane, info);
  }

  #welcome(lane: TlsLane, hello: Hello, id: string | undefined, info: ConnectionInfo): void {
    const { counters } = this;
    const { clock, expiryGraceMs } = this.#options;
    let driver: AcceptDriver;
    const tunnel = newTunnel(this.#options.lane, (driven) => {
      driver = new AcceptDriver(driven, lane, {
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
