/**
 * A port that takes connections.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { TcpConnection } from './connection.ts';
import { PortTable } from './port-table.ts';

/** Takes the connections of a listener. */
export interface ListenerOwner {
  /** A connection is established. The owner sets its `owner`; until then its events wait. */
  onTcpConnection(connection: TcpConnection): void;
}

/** Who takes a connection whose handshake a peer has begun: a listener, or the owner of a held handshake. @internal */
export interface Acceptor {
  readonly owner: ListenerOwner;
  /** How many connections may wait for the owner to learn of them. */
  readonly backlog: number;
  /** How many do. */
  waiting: number;
  /** A connection has ended before the owner could learn of it. */
  onLost(): void;
}

/** Listens from `TcpEndpoint.listen` to `stop`. */
export class TcpListener {
  /** The address that it listens on; undefined for all. */
  readonly local: IpAddress | undefined;
  readonly localPort: number;
  readonly owner: ListenerOwner;
  /** How many connections may wait for the owner to learn of them. */
  readonly backlog: number;
  /** How many do. */
  waiting = 0;
  readonly #stop: (listener: TcpListener) => void;

  /** @internal */
  constructor(
    local: IpAddress | undefined,
    localPort: number,
    owner: ListenerOwner,
    backlog: number,
    stop: (listener: TcpListener) => void
  ) {
    this.local = local;
    this.localPort = localPort;
    this.owner = owner;
    this.backlog = backlog;
    this.#stop = stop;
  }

  /** Ends the listening. Half-open connections are forgotten; established ones go on. A second call does nothing. */
  stop(): void {
    this.#stop(this);
  }

  /** @internal */
  onLost(): void {}
}

/** Who takes the connection that a peer began; undefined once its owner has learned of it. */
export function listenerOf(of: { readonly listener: unknown }): Acceptor | undefined {
  return of.listener as Acceptor | undefined;
}

/** The listeners of an endpoint by port. */
export class ListenerTable extends PortTable<TcpListener> {
  /** Returns the listener for a destination; one for the address itself comes before one for all. */
  find(port: number, address: ArrayLike<number>): TcpListener | undefined {
    let found: TcpListener | undefined;
    for (const listener of this.at(port)) {
      if (listener.local === undefined) found ??= listener;
      else if (isSame(listener.local.words, address)) return listener;
    }
    return found;
  }
}

function isSame(words: readonly number[], address: ArrayLike<number>): boolean {
  if (words.length !== address.length) return false;
  for (let i = 0; i < words.length; i++) if (words[i] !== address[i]) return false;
  return true;
}
