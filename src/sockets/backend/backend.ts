/**
 * `SocketBackend`: the service side of a stack. The stack then takes packets to the real addresses of services, and the
 * backend goes on to the services by the host's own sockets, without a TUN and without root.
 *
 * The connection of the client ends here, and another one begins. So both end with this process, and the service sees an
 * address of this host (see `proxyProtocol` and `loopbackSource`).
 * @module
 */
import { type AddressInput, IpAddress } from '../../base/address.ts';
import { throwToProcess } from '../../base/emitter.ts';
import { ApiMisuseError } from '../../errors.ts';
import { SocketStack } from '../stack.ts';
import type { ServiceEnds } from '../stack-backend.ts';
import { targetOf } from './backend-dial.ts';
import {
  hostsByAddress,
  resolveBackendOptions,
  type SocketBackendOptions,
} from './backend-options.ts';
import { type BackendService, BackendServices, type BackendTarget } from './backend-services.ts';
import { TcpBackend } from './backend-tcp.ts';
import { UdpBackend } from './backend-udp.ts';
import { descriptorsFor, HostDescriptors } from './host-descriptors.ts';

export class SocketBackend implements AsyncDisposable {
  readonly #stack: SocketStack;
  readonly #siteOf: SocketBackendOptions['siteOf'];
  readonly #tcp: TcpBackend;
  readonly #udp: UdpBackend;
  readonly #hosts: ReadonlyMap<string, IpAddress>;
  #listed: readonly BackendService[];
  #refused: readonly BackendTarget[];
  #services: BackendServices;
  #closing: Promise<void> | undefined;

  /**
   * Becomes the service side of a stack, until `close`.
   *
   * @throws {ConfigError} with the path of the option that is wrong.
   * @throws {ApiMisuseError} if the stack has a backend already, or a text is not an address.
   */
  constructor(options: SocketBackendOptions) {
    const resolved = resolveBackendOptions(options);
    const { stack } = options;
    if (!(stack instanceof SocketStack)) {
      throw new ApiMisuseError('the option stack must be a SocketStack');
    }
    this.#stack = stack;
    this.#siteOf = resolved.siteOf;
    this.#listed = resolved.services;
    this.#refused = resolved.refusedTargets;
    this.#hosts = hostsByAddress(resolved.hosts);
    this.#services = this.#servicesOf(this.#listed, this.#refused);
    stack.setBackend(this);
    const { dial, dialUdp, proxyProtocol, loopbackSource, flowIdleMs, keepAliveMs, limits } =
      resolved;
    const needed = stack.tcp.limits.connections + limits.flows;
    const descriptors = new HostDescriptors(descriptorsFor(needed));
    this.#tcp = new TcpBackend({
      host: stack,
      services: () => this.#services,
      siteOf: (client) => this.siteOf(client),
      dial,
      proxyProtocol,
      loopbackSource,
      keepAliveMs,
      maxDials: limits.dials,
      descriptors,
    });
    this.#udp = new UdpBackend({
      udp: stack.udp,
      icmp: stack.icmp,
      clock: stack.clock,
      allows: (protocol, address, port) => this.#services.allows(protocol, address, port),
      siteOf: (client) => this.siteOf(client),
      isGateway: (ends) => this.#services.isGateway(ends),
      targetOf: (ends) => targetOf(ends, this.#services.hostOf(ends.local), loopbackSource),
      dial: dialUdp,
      maxFlows: limits.flows,
      idleMs: flowIdleMs,
      descriptors,
    });
  }

  /** Cumulative, by names such as `tcp.connected`; also in `SocketStack.allCounters`, as `backend.tcp.connected`. */
  get counters(): Readonly<Record<string, number>> {
    const named: Record<string, number> = {};
    for (const [part, { counters }] of Object.entries({ tcp: this.#tcp, udp: this.#udp })) {
      for (const [name, count] of Object.entries(counters)) named[`${part}.${name}`] = count;
    }
    return named;
  }

  /** How many TCP connections there are, with those that begin or end, how many sockets are connecting, and UDP flows. */
  get sizes(): Readonly<Record<'connections' | 'dials' | 'flows', number>> {
    return { connections: this.#tcp.size, dials: this.#tcp.dials, flows: this.#udp.size };
  }

  /**
   * Connects to these services from now on, and to no others. Connections and dials to what is not among them any more
   * are reset, at the client and at the service, before it returns.
   *
   * @throws {ApiMisuseError} if a text is not an address, {ConfigError} if it is not a port, or if two services contradict
   *   each other about `proxyProtocol` at one host and port. Then nothing has changed.
   */
  setServices(services: readonly BackendService[]): void {
    this.#replace(this.#servicesOf(services, this.#refused));
    this.#listed = services;
  }

  /**
   * Says where the gateway itself listens. Nothing there is connected to, even if a service has the address and port:
   * a client could else go around in circles, or reach what is only meant for operators. The forwards, the publications
   * and the proxies of the stack are refused without being named.
   *
   * @throws {ApiMisuseError} if a text is not an address. Then nothing has changed.
   */
  setRefusedTargets(targets: readonly BackendTarget[]): void {
    this.#replace(this.#servicesOf(this.#listed, targets));
    this.#refused = targets;
  }

  /**
   * The presences of these clients are withdrawn: all that they have is reset before it returns, at the clients and at
   * the services, because an address may mean another host next.
   *
   * @throws {ApiMisuseError} if a text is not an address.
   */
  withdraw(clients: readonly AddressInput[]): void {
    const gone = new Set(clients.map((client) => IpAddress.from(client).toString()));
    const isGone = ({ remote }: ServiceEnds): boolean => gone.has(remote.toString());
    this.withdrawWhere((_, ends) =>
      isGone(ends) ? `the presence ${ends.remote} was withdrawn` : undefined
    );
    for (const connection of [...this.#stack.tcp.connections()]) {
      const { remote } = connection.flow;
      if (!isGone(connection.flow)) continue;
      connection.abort(new Error(`the presence ${remote} was withdrawn`));
    }
  }

  /** @internal */
  withdrawWhere(
    reasonOf: (protocol: 'tcp' | 'udp', ends: ServiceEnds) => string | undefined
  ): void {
    this.#tcp.withdraw((ends) => reasonOf('tcp', ends));
    this.#udp.withdrawWhere((ends) => reasonOf('udp', ends) !== undefined);
  }

  /** Resets all connections, and ends all dials and flows at once; new ones may follow. */
  interrupt(cause: Error): void {
    this.#tcp.interrupt(cause);
    this.#udp.withdrawWhere(() => true);
  }

  /** Resets all connections, ends all dials and flows, and leaves the stack, which then takes its own packets alone. */
  close(): Promise<void> {
    if (this.#closing === undefined) {
      this.#tcp.close(new Error('the backend is closed'));
      this.#udp.close();
      this.#stack.setBackend(undefined);
      this.#closing = Promise.resolve();
    }
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #servicesOf(
    services: readonly BackendService[],
    refused: readonly BackendTarget[]
  ): BackendServices {
    return new BackendServices(services, refused, this.#hosts, this.#stack.targets);
  }

  #replace(services: BackendServices): void {
    if (services.text === this.#services.text) return;
    this.#services = services;
    this.withdrawWhere((protocol, { local, localPort }) =>
      services.allows(protocol, local, localPort)
        ? undefined
        : `the service at ${local}, ${protocol}/${localPort}, was withdrawn`
    );
  }

  /** @internal What the program's function throws must not end the handling of a packet. */
  siteOf(client: IpAddress): string | undefined {
    try {
      return this.#siteOf?.(client);
    } catch (error) {
      throwToProcess(error);
      return undefined;
    }
  }
}
