/**
 * The UDP half of the service side: datagrams that come for a service, and for no socket of the stack, go on to the
 * service by sockets of the host, and replies leave from the service's address and port.
 *
 * 1. The UDP endpoint asks `accept` about a datagram for which it has no socket. If a service is there, the flow of the
 *    client's and the service's address and port begins: a `UdpFlow` with a socket of the stack.
 * 2. In a later tick the flow makes its connected socket of the host, and hands the datagrams on.
 * 3. A flow ends when it was idle for too long, when another one needs its place, when the service refuses, and when
 *    the service or the client is withdrawn.
 *
 * The service sees the address of the gateway, and a port for each flow.
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
import { createSocket, type Socket as HostSocket } from 'node:dgram';
import { EventEmitter } from 'node:events';
import type { IpAddress } from '../../base/address.ts';
import type { Clock } from '../../base/clock.ts';
import { throwToProcess } from '../../base/emitter.ts';
import { ApiMisuseError } from '../../errors.ts';
import type { IcmpEndpoint, Unreachable } from '../icmp/icmp.ts';
import { SiteRate } from '../site/site-rate.ts';
import type { UdpAcceptor, UdpEndpoint } from '../udp/udp.ts';
import type { UdpEnds } from '../udp/udp-flows.ts';
import type { UdpSocket } from '../udp/udp-socket.ts';
import type { BackendDialTarget, HostEnds } from './backend-dial.ts';
import { type UdpBackendCounters, UdpFlow, type UdpFlowBackend } from './backend-udp-flow.ts';
import { FlowShares } from './backend-udp-shares.ts';
import type { HostDescriptors } from './host-descriptors.ts';

/**
 * Makes a socket that is connected, or is connecting, to the service. It belongs to the backend from then on. An error
 * that is thrown counts as a failure of the flow.
 */
export type UdpDial = (target: BackendDialTarget) => HostSocket;

export interface UdpBackendOptions {
  /** The endpoint of the stack, whose acceptor the backend becomes. */
  readonly udp: UdpEndpoint;
  readonly icmp: Pick<IcmpEndpoint, 'report'>;
  readonly clock: Clock;
  /** Returns whether a service takes datagrams there. It must not run code of the program. */
  readonly allows: (protocol: 'udp', address: IpAddress, port: number) => boolean;
  /**
   * Returns the site of a client, by which flows and memory are shared; undefined if none is known. It must not run
   * code of the program. Default: no site is known.
   */
  readonly siteOf?: ((client: IpAddress) => string | undefined) | undefined;
  /** Returns whether a socket has reached the gateway itself; default: it never has. */
  readonly isGateway?: ((ends: HostEnds) => boolean) | undefined;
  /** Returns where a flow goes. It must not run code of the program. */
  readonly targetOf: (ends: UdpEnds) => BackendDialTarget;
  /** Default: a new `dgram.Socket` that connects to the service's address and port. */
  readonly dial?: UdpDial | undefined;
  /** How many flows there may be. The one whose last datagram is the longest time ago goes first. */
  readonly maxFlows: number;
  /** How long a flow may be without a datagram, in ms (RFC 4787 section 4.3 asks for 120,000 or more). */
  readonly idleMs: number;
  /** The bytes that wait at the sockets of all flows of one site; default a quarter of those of the stack. */
  readonly siteBytes?: number | undefined;
  /** What each flow takes one of. */
  readonly descriptors: HostDescriptors;
}

export class UdpBackend implements UdpAcceptor, UdpFlowBackend {
  readonly counters: UdpBackendCounters = newCounters();
  readonly #options: UdpBackendOptions;
  readonly #dial: UdpDial;
  readonly #idleMs: number;
  readonly #shares: FlowShares<UdpFlow>;
  /** How many flows begin. */
  readonly #rate = new SiteRate(FLOWS_PER_SECOND);
  /** The flows of each client and of each service, by the text of the address. */
  readonly #byAddress = new Map<string, Set<UdpFlow>>();
  #cancelTimer: (() => void) | undefined;
  #isClosed = false;

  constructor(options: UdpBackendOptions) {
    const { udp, dial, maxFlows } = options;
    this.#options = options;
    this.#idleMs = options.idleMs;
    // The program's function runs in the context of the program, and not in that of a tunnel.
    this.#dial = dial === undefined ? dialHost : AsyncResource.bind(dial);
    const { memory, onRefused } = udp;
    const siteBytes = options.siteBytes ?? Math.floor(memory.limit / 4);
    this.#shares = new FlowShares({ maxFlows, memory, siteBytes, onRefused });
    udp.acceptor = this;
  }

  /** How many flows there are. */
  get size(): number {
    return this.#shares.size;
  }

  /** @internal */
  accept(ends: UdpEnds): UdpSocket | 'refuse' | 'drop' {
    const { udp, allows, siteOf, clock, descriptors } = this.#options;
    if (!allows('udp', ends.local, ends.localPort)) {
      this.counters.notAllowed++;
      return 'refuse';
    }
    const site = siteOf?.(ends.remote);
    const hasRoom = descriptors.hasRoom(site);
    const victim = hasRoom ? this.#shares.victimFor(site) : this.#shares.oldestOf(site);
    const isLimited = !hasRoom && victim === undefined;
    if (isLimited || !this.#rate.take(site, clock.monotonicMs())) {
      this.counters.limited++;
      return 'drop';
    }
    if (victim !== undefined) {
      this.counters.evicted++;
      victim.end(false);
    }
    const flow = new UdpFlow(this, ends);
    flow.place = this.#shares.add(flow, site);
    const socket = udp.open(ends, flow, flow.place.share.memory);
    if (socket === undefined) {
      this.#shares.remove(flow.place);
      return 'refuse';
    }
    descriptors.add(site);
    flow.socket = socket;
    flow.lastMs = clock.monotonicMs();
    this.counters.opened++;
    this.#index(ends.local, flow);
    this.#index(ends.remote, flow);
    this.#setTimer();
    return socket;
  }

  /**
   * Ends flows of which this is the address of the client or of the service, at once: their sockets are closed, and what
   * waits there is dropped, because the address may mean another host next.
   *
   * @param isWithdrawn which of them; by default all
   */
  withdraw(address: IpAddress, isWithdrawn: (ends: UdpEnds) => boolean = () => true): void {
    this.#withdraw(this.#byAddress.get(address.toString()) ?? NONE, isWithdrawn);
  }

  /** Does the same for all flows, whatever their addresses. */
  withdrawWhere(isWithdrawn: (ends: UdpEnds) => boolean): void {
    for (const flows of [...this.#byAddress.values()]) this.#withdraw(flows, isWithdrawn);
  }

  /** Ends all flows, and takes no more. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const { udp } = this.#options;
    if (udp.acceptor === this) udp.acceptor = undefined;
    for (let flow = this.#shares.oldest; flow; flow = this.#shares.oldest) flow.end(true);
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  /** @internal */
  dial(ends: UdpEnds): HostSocket {
    const socket: unknown = this.#dial(this.#options.targetOf(ends));
    if (socket instanceof EventEmitter && 'remoteAddress' in socket) return socket as HostSocket;
    const error = new ApiMisuseError(
      `the function dialUdp must return a datagram socket, got ${typeof socket}`
    );
    throwToProcess(error);
    throw error;
  }

  /** @internal */
  isGateway(ends: HostEnds): boolean {
    return this.#options.isGateway?.(ends) === true;
  }

  /** @internal */
  report(what: Unreachable, from: IpAddress, to: IpAddress, quote: Uint8Array): void {
    this.#options.icmp.report(what, from, to, quote);
  }

  /** @internal */
  onActive(flow: UdpFlow): void {
    flow.lastMs = this.#options.clock.monotonicMs();
    this.#shares.touch(flow.place);
  }

  /** @internal */
  onEnded(flow: UdpFlow, isDiscarded: boolean): void {
    const { ends, socket, place } = flow;
    this.#shares.remove(place);
    this.#options.descriptors.remove(place.share.site);
    this.#unindex(ends.local, flow);
    this.#unindex(ends.remote, flow);
    if (isDiscarded) this.#options.udp.discard(socket);
    else socket.close();
  }

  #withdraw(flows: ReadonlySet<UdpFlow>, isWithdrawn: (ends: UdpEnds) => boolean): void {
    for (const flow of flows) {
      if (!isWithdrawn(flow.ends)) continue;
      this.counters.withdrawn++;
      flow.end(true);
    }
  }

  /** The timer is set for the oldest flow as it was then: it may call too early. */
  #setTimer(): void {
    const { oldest } = this.#shares;
    if (oldest === undefined || this.#cancelTimer !== undefined) return;
    const { clock } = this.#options;
    const delayMs = Math.max(1, oldest.lastMs + this.#idleMs - clock.monotonicMs());
    this.#cancelTimer = clock.after(delayMs, this.#onTimer, true);
  }

  readonly #onTimer = (): void => {
    this.#cancelTimer = undefined;
    const idleSinceMs = this.#options.clock.monotonicMs() - this.#idleMs;
    for (let flow = this.#shares.oldest; flow; flow = this.#shares.oldest) {
      if (flow.lastMs > idleSinceMs) break;
      this.counters.idle++;
      flow.end(false);
    }
    this.#setTimer();
  };

  #index(address: IpAddress, flow: UdpFlow): void {
    const key = address.toString();
    const flows = this.#byAddress.get(key);
    if (flows === undefined) this.#byAddress.set(key, new Set([flow]));
    else flows.add(flow);
  }

  #unindex(address: IpAddress, flow: UdpFlow): void {
    const key = address.toString();
    const flows = this.#byAddress.get(key);
    flows?.delete(flow);
    if (flows?.size === 0) this.#byAddress.delete(key);
  }
}

function dialHost({ address, port, family, localAddress }: BackendDialTarget): HostSocket {
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
  if (localAddress !== undefined) socket.bind({ address: localAddress, port: 0, exclusive: true });
  socket.connect(port, address);
  return socket;
}

function newCounters(): UdpBackendCounters {
  return {
    opened: 0,
    notAllowed: 0,
    limited: 0,
    refused: 0,
    failed: 0,
    evicted: 0,
    idle: 0,
    withdrawn: 0,
    clientGone: 0,
    toServices: 0,
    toClients: 0,
    serviceDrops: 0,
    strangers: 0,
    clientDrops: 0,
  };
}

const NONE: ReadonlySet<UdpFlow> = new Set();
/** Each costs a new socket of the host. */
const FLOWS_PER_SECOND = 4_096;
