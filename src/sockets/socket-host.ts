/**
 * What the sockets, the UDP endpoint and the lookups need of the stack that they belong to.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';
import type { TcpEndpoint } from '../tcp/index.ts';
import type { HostCounters } from './host/host-counters.ts';
import type { HostTargets } from './host/host-targets.ts';
import type { UdpEndpoint } from './udp/udp.ts';

/** What the sockets need of their stack: `EdgeGateway.sockets`, or another `SocketStack`. */
export interface SocketHost {
  /** @internal */
  readonly tcp: TcpEndpoint;
  /** @internal */
  readonly udp: UdpEndpoint;

  /**
   * Resolves when packets can flow and the stack has an address. Rejects with ENETDOWN after the wait for the
   * tunnel (5,000 ms by default), at once when the site is rejected or the stack closed, and with AbortError.
   */
  whenUp(signal?: AbortSignal): Promise<void>;

  /** Returns whether packets flow to one of these presences at present. */
  canReach(remotes: readonly IpAddress[]): boolean;

  /** Resolves and rejects as `whenUp` does, and waits until packets flow to one of these presences. */
  whenReachable(remotes: readonly IpAddress[]): Promise<void>;

  /**
   * Calls `onDown` once, with the error ENETDOWN of `whenUp`: when the site is rejected or the stack closed, perhaps
   * within this call, or when the tunnel was down for the wait, or the tunnel of the site of each of these presences if
   * there are some. Returns a function that ends the watch. @internal
   */
  watchTunnel(onDown: (error: Error) => void, remotes?: () => readonly IpAddress[]): () => void;

  /**
   * Returns the addresses of a name of the site's zone, or the address itself; `family` 0 means both.
   *
   * @throws a system error ENOTFOUND.
   */
  resolve(host: string, family: 0 | 4 | 6): readonly IpAddress[];

  /** The stack's own address of this family. */
  localAddress(family: 4 | 6): IpAddress | undefined;

  /** Why packets from the stack's own address of this family do not pass: it is none of the site. */
  addressFault(family: 4 | 6): Error | undefined;

  /**
   * Returns the code with which a connection to this fails at once: EADDRNOTAVAIL if the own address has a fault,
   * ENETUNREACH outside the pools, ECONNREFUSED for a TCP port that no presence has, or for a ping to a presence without
   * `icmp`. For UDP the port does not matter. Returns undefined if it may be tried.
   */
  refusal(protocol: 'tcp' | 'udp' | 'icmp', remote: IpAddress, port: number): string | undefined;

  /** Why the stack no longer works: the cause of ENETDOWN and ECONNRESET. */
  readonly closedBy: Error | undefined;

  /** Whether the program has closed the stack, or its gateway, after which nothing can be bound or connected. */
  readonly isClosed: boolean;

  /** The clock of the sockets' timers. */
  readonly clock: Clock;

  /** What listens, and UDP sockets that are not bound. It is closed when the stack is. @internal */
  readonly servers: Set<{ close(): unknown }>;

  /** Where forwards, publications and proxies listen on this host. @internal */
  readonly targets: HostTargets;

  /** The counters of forwards, publications and proxies. @internal */
  readonly hostCounters: HostCounters;
}
