/**
 * The part of the TCP endpoint that the sockets use. It stands here until `src/tcp` exports it.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Flow } from '../tcp/index.ts';

export interface TcpOwner {
  onTcpEvents(connection: TcpConnection, events: number): void;
}

export interface ListenerOwner {
  /** Connections wait to be accepted. */
  onTcpAccept(listener: TcpListener): void;
}

export interface TcpListener {
  readonly port: number;
  accept(owner: TcpOwner): TcpConnection | undefined;
  close(): void;
}

export const TcpEvent = {
  Connected: 1,
  Readable: 2,
  Writable: 4,
  ReadEnded: 8,
  Closed: 16,
} as const;

export type TcpFailure =
  | 'refused'
  | 'reset'
  | 'timed-out'
  | 'host-unreachable'
  | 'network-unreachable'
  | 'aborted'
  | 'keepalive';

export interface TcpConnection {
  readonly flow: Flow;
  readonly failure: TcpFailure | undefined;
  readonly available: number;
  readonly isReadEnded: boolean;
  write(bytes: Uint8Array, from?: number): number;
  read(target: Uint8Array, at: number, length: number): number;
  shutdown(): void;
  abort(): void;
  release(): void;
  setNoDelay(on: boolean): void;
  setKeepAlive(on: boolean, delayMs: number): void;
  setUserTimeout(ms: number): void;
}

export interface TcpEndpoint {
  connect(
    local: IpAddress,
    localPort: number,
    remote: IpAddress,
    remotePort: number,
    owner: TcpOwner
  ): TcpConnection;
  listen(
    local: IpAddress | undefined,
    port: number,
    owner: ListenerOwner,
    backlog: number
  ): TcpListener;
}

export type SocketHost = Omit<import('./host.ts').SocketHost, 'tcp' | 'udp'> & {
  readonly tcp: TcpEndpoint;
};
