/**
 * `SocketStack`: TCP, UDP and echo requests in this process, as a packet device below and as Node's sockets above.
 *
 * As a device it makes its packets itself. Whoever moves them, an `EdgeDataPlane` for example, says whether the link is
 * up (`linkChanged`) and which packet was not taken (`refused`). Whoever knows the site says what it is like
 * (`setSite`), why packets do not flow (`setFailure`), and when all connections must end (`interrupt`).
 * @module
 */
import { randomBytes } from 'node:crypto';
import type { Family, IpAddress } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';
import type { PacketDevice } from '../device/index.ts';
import { ApiMisuseError } from '../errors.ts';
import { TcpEndpoint } from '../tcp/index.ts';
import { randomWord } from '../tcp/ports.ts';
import { type Forward, forward } from './forward/forward.ts';
import type { ForwardOptions, ForwardTarget } from './forward/forward-server.ts';
import { type Publication, type PublishOptions, publish } from './forward/publish.ts';
import { HostCounters } from './host/host-counters.ts';
import type { HostListen } from './host/host-listen.ts';
import { HostTargets } from './host/host-targets.ts';
import { IcmpEndpoint } from './icmp/icmp.ts';
import { type PingOptions, type PingResult, ping } from './icmp/ping.ts';
import { Identifications } from './ip/identifications.ts';
import { PathMtus } from './ip/path-mtu.ts';
import { Reassembler } from './ip/reassembly.ts';
import { lookupError } from './node/system-error.ts';
import { SocketProxy } from './proxy/proxy.ts';
import type { ProxyOptions } from './proxy/proxy-options.ts';
import { lookupOf, type PresenceLookup } from './site/lookup.ts';
import { SiteView, type StackProtocol, type StackSite } from './site/site-view.ts';
import { TunnelWait } from './site/tunnel-wait.ts';
import type { SocketHost } from './socket-host.ts';
import type { StackBackend } from './stack-backend.ts';
import { StackDevice, type StackDeviceCounters } from './stack-device.ts';
import { IcmpSide, TcpSide, UdpSide } from './stack-endpoints.ts';
import { resolveStackOptions, type SocketStackOptions } from './stack-options.ts';
import {
  type Connector,
  type ConnectorOptions,
  connector,
  httpAgent,
  httpsAgent,
} from './stream/agents.ts';
import type { PresenceNetConnectOptions } from './stream/arguments.ts';
import {
  type ConnectionListener,
  createServer,
  type PresenceServer,
  type PresenceServerOptions,
} from './stream/server.ts';
import { connect, type PresenceSocket } from './stream/socket.ts';
import { type PresenceDatagramOptions, PresenceDatagramSocket } from './udp/datagram.ts';
import { UdpEndpoint } from './udp/udp.ts';

export class SocketStack implements PacketDevice, SocketHost, AsyncDisposable {
  readonly name: string;
  readonly mtu: number;
  readonly offload: boolean;
  readonly clock: Clock;
  /** @internal */
  readonly tcp: TcpEndpoint;
  /** @internal */
  readonly udp: UdpEndpoint;
  /** @internal */
  readonly icmp: IcmpEndpoint;
  /** @internal */
  readonly servers: Set<{ close(): unknown }> = new Set();
  /** @internal */
  readonly targets: HostTargets = new HostTargets();
  /** @internal */
  readonly hostCounters: HostCounters = new HostCounters();
  /** A function like `dns.lookup`, which knows the names of the site's zone and addresses. */
  readonly lookup: PresenceLookup;
  readonly #device: StackDevice;
  readonly #wait: TunnelWait;
  readonly #reassembler: Reassembler;
  /** The option `address`. */
  readonly #given: readonly IpAddress[];
  #view: SiteView = SiteView.NONE;
  /** Publications, which listen for the services of each view. */
  readonly #followers = new Set<(view: SiteView) => void>();
  /** Why packets do not flow, if waiting does not help. */
  #refusedBy: Error | undefined;
  #closedBy: Error | undefined;
  #backend: StackBackend | undefined;

  /** @throws {ConfigError} with the path of the option that is wrong. */
  constructor(options: SocketStackOptions = {}) {
    const resolved = resolveStackOptions(options);
    const { name, mtu, offload, clock, limits, address, tunnelWaitMs } = resolved;
    this.name = name;
    this.mtu = mtu;
    this.offload = offload;
    this.clock = clock;
    this.#given = address;
    this.#wait = new TunnelWait(clock, tunnelWaitMs);
    const random = resolved.random ?? randomBytes;
    // The device is not there yet, and its endpoints ask for the time in their constructors.
    let device: StackDevice | undefined;
    const now = (): number => device?.now() ?? clock.monotonicMs();
    const word = (): number => randomWord(random);
    const identifications = new Identifications(word);
    const pathMtus = new PathMtus(now);
    const localAddress = (family: Family): IpAddress | undefined => this.localAddress(family);
    const common = { now, random: word, identifications, pathMtus, mtu, localAddress };
    this.tcp = new TcpEndpoint({
      clock: { monotonicMs: now },
      random,
      mtu,
      offload,
      limits,
      pathMtu: (remote) => pathMtus.get(remote),
    });
    this.udp = new UdpEndpoint({
      ...common,
      offload,
      maxWaitMs: tunnelWaitMs,
      queueBytes: limits.datagramBytes,
    });
    this.icmp = new IcmpEndpoint({
      ...common,
      onTcpError: (error) => this.tcp.onIcmpError(error),
      onUdpError: (error) => this.udp.onIcmpError(error),
    });
    this.#reassembler = new Reassembler(now);
    device = new StackDevice({
      name,
      mtu,
      offload,
      clock,
      endpoints: {
        tcp: new TcpSide(this.tcp),
        udp: new UdpSide(this.udp, this.#reassembler, this.icmp),
        icmp: new IcmpSide(this.icmp),
      },
      view: () => this.#view,
      hasBackend: () => this.#backend !== undefined,
      onUnknownProtocol: (buffer, header) => this.icmp.unreachable(buffer, header, 'protocol'),
    });
    this.#device = device;
    this.lookup = lookupOf(this);
  }

  // For programs.

  /**
   * Connects as `net.connect` does: `(options[, listener])` or `(port[, host][, listener])`. While the tunnel is down it
   * waits (option `tunnelWaitMs`). It returns at once; `connect` or `error` follows.
   *
   * @throws Node's errors if the arguments are wrong.
   */
  connect(options: PresenceNetConnectOptions, listener?: () => void): PresenceSocket;
  connect(port: number, host: string, listener?: () => void): PresenceSocket;
  connect(port: number, listener?: () => void): PresenceSocket;
  connect(...args: unknown[]): PresenceSocket {
    return connect(this, ...args);
  }

  /** Makes a server for connections of presences as `net.createServer` does. */
  createServer(options?: PresenceServerOptions, listener?: ConnectionListener): PresenceServer;
  createServer(listener?: ConnectionListener): PresenceServer;
  createServer(
    options?: PresenceServerOptions | ConnectionListener,
    listener?: ConnectionListener
  ): PresenceServer {
    return createServer(this, options, listener);
  }

  /** Returns the `connect` of an undici `Agent`: `new Agent({ connect: sockets.connector() })`. */
  connector(options?: ConnectorOptions): Connector {
    return connector(this, options);
  }

  /** Returns an `http.Agent` whose connections go over the stack. */
  httpAgent(options?: Parameters<typeof httpAgent>[1]): ReturnType<typeof httpAgent> {
    return httpAgent(this, options);
  }

  /** Returns an `https.Agent` whose connections go over the stack. */
  httpsAgent(options?: Parameters<typeof httpsAgent>[1]): ReturnType<typeof httpsAgent> {
    return httpsAgent(this, options);
  }

  /** Makes a UDP socket as `dgram.createSocket` does. */
  datagram(
    options: PresenceDatagramOptions | 'udp4' | 'udp6',
    listener?: ConstructorParameters<typeof PresenceDatagramSocket>[2]
  ): PresenceDatagramSocket {
    return new PresenceDatagramSocket(this, options, listener);
  }

  /**
   * Sends an echo request to a name of the site's zone or to an address, and resolves when the reply has come.
   *
   * @throws system errors: ENOTFOUND, ENETDOWN, ENETUNREACH, EHOSTUNREACH, ECONNREFUSED (the service has no `icmp`),
   *   EADDRNOTAVAIL (the stack's address is none of the site), EMSGSIZE, ENOBUFS, ETIMEDOUT.
   * @throws an AbortError, if the signal is aborted first.
   */
  ping(target: string, options?: PingOptions): Promise<PingResult> {
    return ping(this, this.icmp, target, options);
  }

  /**
   * Listens on a port or a unix socket of this host as a proxy of SOCKS5 and HTTP CONNECT, for other programs. It reaches
   * the names of the site's zone and the addresses of presences, and nothing else. It is closed with the stack.
   *
   * @param listen a port of 127.0.0.1 (0 takes a free one), `{ host, port }`, or `{ path, mode }`
   * @throws {ConfigError} with the path of the argument that is wrong.
   * @throws system errors of `listen`: EADDRINUSE, EADDRNOTAVAIL, EACCES and others; ENETDOWN if the stack is closed.
   */
  proxy(listen: HostListen, options?: ProxyOptions): Promise<SocketProxy> {
    return SocketProxy.listen(this, listen, options);
  }

  /**
   * Listens on a port or a unix socket of this host, and joins each connection with one to a name of the site's zone or
   * to the address of a presence. While the tunnel is down, connections wait (option `tunnelWaitMs`).
   *
   * @param listen a port of 127.0.0.1 (0 takes a free one), `{ host, port }`, or `{ path, mode }`
   * @throws {ConfigError} with the path of the argument that is wrong.
   * @throws system errors: EADDRINUSE, EACCES and others of `listen`; ENOTFOUND, ENETUNREACH, ECONNREFUSED and ENETDOWN
   *   if it is known that no connection to the target can be made.
   */
  forward(listen: HostListen, target: ForwardTarget, options?: ForwardOptions): Promise<Forward> {
    return forward(this, listen, target, options);
  }

  /**
   * Listens at a loopback address of its own for each TCP service of the site's zone, with the service's own ports, and
   * follows the snapshots. It needs Linux, where all of 127.0.0.0/8 is local.
   *
   * @throws {ConfigError} with the path of the option that is wrong.
   * @throws a system error ENETDOWN, if the stack is closed.
   */
  publish(options?: PublishOptions): Promise<Publication> {
    return publish(this, { view: this.#view, followers: this.#followers }, options);
  }

  // For those who know the site.

  /**
   * The site is like this from now on. Connections to presences or ports that are withdrawn, and those of an own address
   * that has changed, are reset: their error has the code ECONNRESET and a `cause` that says what was withdrawn. A UDP
   * socket that is connected to what was withdrawn stays as it is, and its listeners get an error ECONNREFUSED.
   *
   * @throws {ApiMisuseError} or {ConfigError} if the site has a text that is not an address, a prefix or a port.
   */
  setSite(site: StackSite): void {
    const before = this.#view;
    const view = new SiteView(site, this.#given, before === SiteView.NONE ? undefined : before);
    this.#view = view;
    this.#backend?.withdrawWhere((protocol, ends) => view.withdrawalOf(protocol, ends, before));
    for (const connection of [...this.tcp.connections()]) {
      const reason = view.withdrawalOf('tcp', connection.flow, before);
      if (reason !== undefined) connection.abort(new Error(reason));
    }
    for (const socket of this.udp.connected()) {
      const reason = view.withdrawalOf('udp', socket, before);
      if (reason !== undefined) socket.onFailed('ECONNREFUSED', new Error(reason));
    }
    const hasAddress = [4, 6].some((family) => view.localAddress(family as Family) !== undefined);
    this.#wait.setAddress(hasAddress);
    for (const follow of this.#followers) follow(view);
  }

  /**
   * The own addresses that the site does not have, or has in a pool. Packets from them are dropped on the way, so calls
   * that need them fail with EADDRNOTAVAIL.
   */
  get refusedAddresses(): readonly IpAddress[] {
    return this.#view.refusedAddresses;
  }

  /**
   * Says why packets do not flow, for the `cause` of ENETDOWN; undefined if there is nothing to say.
   *
   * @param isFinal whether waiting does not help: connections then fail at once, until the next call
   */
  setFailure(failure: Error | undefined, isFinal: boolean): void {
    if (this.#closedBy !== undefined) return;
    this.#refusedBy = isFinal ? failure : undefined;
    this.#wait.setFailure(failure, isFinal);
  }

  /**
   * Says to which presences packets do not flow, where the tunnels of sites come and go one by one: connections to them
   * wait as long as for the link. Call it again when the answers of the function have changed.
   *
   * @param failureTo returns why, for the `cause` of ENETDOWN; undefined if packets flow
   */
  setFailureTo(failureTo: (remote: IpAddress) => Error | undefined): void {
    this.#wait.setFailureTo(failureTo);
  }

  /** Resets all connections at once. Their error has the code ECONNRESET and this cause. */
  interrupt(cause: Error): void {
    this.#backend?.interrupt(cause);
    for (const connection of [...this.tcp.connections()]) connection.abort(cause);
  }

  /**
   * Begins to close, before the link is taken away: ends all servers, resets all connections, and fails new ones.
   * Resolves when the resets are on their way.
   */
  async finish(cause: Error): Promise<void> {
    this.#end(cause);
    // One turn for the ticks, and one for what did not fit.
    for (let i = 0; i < 2; i++) await new Promise<void>((resolve) => setImmediate(resolve));
  }

  /**
   * Takes packets to other addresses than the stack's own from now on, for this service side; undefined: no longer.
   *
   * @throws {ApiMisuseError} if the stack has another one.
   * @internal
   */
  setBackend(backend: StackBackend | undefined): void {
    if (backend !== undefined && this.#backend !== undefined) {
      throw new ApiMisuseError(`the stack ${this.name} has a backend already`);
    }
    this.#backend = backend;
    const siteOf = (client: IpAddress): string | undefined => backend?.siteOf(client);
    this.icmp.siteOf = siteOf;
    this.#reassembler.siteOf = siteOf;
  }

  // What the sockets need of their stack.

  whenUp(signal?: AbortSignal): Promise<void> {
    return this.#wait.whenUp(signal);
  }

  canReach(remotes: readonly IpAddress[]): boolean {
    return this.#wait.canReach(remotes);
  }

  whenReachable(remotes: readonly IpAddress[]): Promise<void> {
    return this.#wait.whenUp(undefined, remotes);
  }

  /** @internal */
  watchTunnel(onDown: (error: Error) => void, remotes?: () => readonly IpAddress[]): () => void {
    return this.#wait.watch(onDown, remotes);
  }

  resolve(host: string, family: 0 | Family): readonly IpAddress[] {
    const addresses = this.#view.resolve(host, family);
    if (addresses.length === 0) throw lookupError('ENOTFOUND', host);
    return addresses;
  }

  localAddress(family: Family): IpAddress | undefined {
    // An address of the option is known before the site is, and servers may listen at it.
    return this.#view.localAddress(family) ?? this.#given.find((it) => it.family === family);
  }

  addressFault(family: Family): Error | undefined {
    return this.#view.addressFault(family);
  }

  refusal(protocol: StackProtocol, remote: IpAddress, port: number): string | undefined {
    return this.#view.refusal(protocol, remote, port);
  }

  get closedBy(): Error | undefined {
    return this.#closedBy ?? this.#refusedBy;
  }

  get isClosed(): boolean {
    return this.#closedBy !== undefined;
  }

  // The packet device.

  get counters(): Readonly<StackDeviceCounters> {
    return this.#device.counters;
  }

  /**
   * The counters of the device, its protocols, and what listens on this host, by names such as `tcp.retransmitted` and
   * `forward.accepted`. Those of all forwards are added up, also of the closed ones; so are `publish.*` and `proxy.*`.
   */
  get allCounters(): Readonly<Record<string, number>> {
    const named: Record<string, number> = { ...this.#device.counters, ...this.hostCounters.sums };
    const parts = {
      tcp: this.tcp,
      udp: this.udp,
      icmp: this.icmp,
      reassembly: this.#reassembler,
      ...(this.#backend !== undefined && { backend: this.#backend }),
    };
    for (const [part, { counters }] of Object.entries(parts)) {
      for (const [name, count] of Object.entries(counters)) named[`${part}.${name}`] = count;
    }
    return named;
  }

  start(onReadable: () => void): void {
    this.#device.start(onReadable);
  }

  pause(): void {
    this.#device.pause();
  }

  resume(): void {
    this.#device.resume();
  }

  read(buffer: Buffer, offset: number): number {
    return this.#device.read(buffer, offset);
  }

  write(buffer: Buffer, offset: number, length: number): boolean {
    return this.#device.write(buffer, offset, length);
  }

  refused(): void {
    this.#device.refused();
  }

  linkChanged(isUp: boolean): void {
    this.tcp.linkChanged(isUp);
    this.#device.linkChanged(isUp);
    this.#wait.setUp(isUp);
  }

  /**
   * Ends all servers and all sockets. Connections fail with ECONNRESET, but a socket without a listener for `error` only
   * emits `close`, because the program does this itself. New connections fail with ENETDOWN.
   */
  close(): Promise<void> {
    this.#end(new Error(`the stack ${this.name} is closed`));
    this.tcp.destroy(this.#closedBy);
    this.udp.close();
    this.icmp.close();
    return this.#device.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #end(cause: Error): void {
    if (this.#closedBy !== undefined) return;
    this.setFailure(cause, true);
    this.#closedBy = cause;
    for (const server of [...this.servers]) server.close();
    this.interrupt(cause);
  }
}
