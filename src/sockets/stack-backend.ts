/**
 * What a stack needs of its service side.
 * @module
 */
import type { IpAddress } from '../base/address.ts';

/** Both ends of a connection or of a UDP flow of the service side. */
export interface ServiceEnds {
  /** The service. */
  readonly local: IpAddress;
  readonly localPort: number;
  /** The client. */
  readonly remote: IpAddress;
  readonly remotePort: number;
}

/** The service side of a stack: `SocketBackend`. @internal */
export interface StackBackend {
  /** The counters, by names such as `tcp.connected`. */
  readonly counters: Readonly<Record<string, number>>;
  /**
   * Ends connections, dials and flows at once, on both sides.
   *
   * @param reasonOf why one has to end; undefined if it has not
   */
  withdrawWhere(reasonOf: (protocol: 'tcp' | 'udp', ends: ServiceEnds) => string | undefined): void;
  /** Returns the site of a client; undefined if it is not known. */
  siteOf(client: IpAddress): string | undefined;
  /** Ends all of them at once. */
  interrupt(cause: Error): void;
}
