/**
 * The part of an `MtlsTunnel` that differs by who has dialled: a driver brings the connections, and says what follows
 * when they end.
 * @module
 */
import type { Credentials } from '../pki/credentials.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { TunnelConnection } from './connection.ts';
import type { ConnectionSet } from './connection-set.ts';
import type { CloseCause, ConnectionCounters } from './connection-types.ts';
import type { Close } from './messages.ts';
import type { ConnectionInfo, TunnelEvents, TunnelState } from './tunnel.ts';

export interface TunnelDriver {
  readonly peer: GatewayIdentity | undefined;
  readonly state: TunnelState;
  readonly info: ConnectionInfo | undefined;
  readonly software: string | undefined;
  /** Called once, when the tunnel is made. */
  start(): void;
  updateCredentials(credentials: Credentials): Promise<void>;
  /** Makes sure that no connection follows those there are. */
  finish(): void;
  /** Another connection is the first one from now on. */
  onRenewed(info: ConnectionInfo): void;
  /** The first connection is gone, and all others with it. */
  onLost(cause: CloseCause): void;
  /** A connection has ended, whichever. */
  onConnectionEnded(cause: CloseCause): void;
}

/** A tunnel as its driver sees it. */
export interface DrivenTunnel {
  readonly set: ConnectionSet;
  readonly counters: Readonly<ConnectionCounters>;
  /** How many connections carry packets. */
  connections(): number;
  /** How many flows have sent packets of late. */
  activeFlows(nowMs: number): number;
  /**
   * A connection whose handshake is done is the tunnel from now on.
   *
   * @param mayGrow whether flows are to be told apart also while there is one connection only
   */
  begin(connection: TunnelConnection, info: ConnectionInfo, mayGrow: boolean): void;
  /** Has the connections behind the first `count` drained, but for the first of all. */
  shrink(count: number): void;
  abort(close: Close): Promise<void>;
  emit<E extends keyof TunnelEvents>(event: E, payload: TunnelEvents[E][0]): void;
}
