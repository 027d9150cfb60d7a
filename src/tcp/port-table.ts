/**
 * What is bound to the ports of an endpoint: listeners, or sockets of UDP.
 * @module
 */
import type { IpAddress } from '../base/address.ts';

/** Something that has a port, on one address or on all. */
export interface Bound {
  /** Undefined for all addresses. */
  readonly local: IpAddress | undefined;
  readonly localPort: number;
}

export class PortTable<T extends Bound> {
  readonly #ports = new Map<number, T[]>();

  /** What is bound to a port. */
  protected at(port: number): readonly T[] {
    return this.#ports.get(port) ?? NONE;
  }

  /** Whether the port cannot be bound for this address: what is bound to all addresses shares with nothing. */
  isTaken(port: number, local: IpAddress | undefined): boolean {
    return this.at(port).some(
      (each) => local === undefined || each.local === undefined || each.local.equals(local)
    );
  }

  add(bound: T): void {
    const others = this.#ports.get(bound.localPort);
    if (others === undefined) this.#ports.set(bound.localPort, [bound]);
    else others.push(bound);
  }

  /** Returns false if it was removed before. */
  remove(bound: T): boolean {
    const others = this.#ports.get(bound.localPort);
    const index = others?.indexOf(bound) ?? -1;
    if (others === undefined || index < 0) return false;
    others.splice(index, 1);
    if (others.length === 0) this.#ports.delete(bound.localPort);
    return true;
  }

  /** All of them; any may be removed meanwhile. */
  *[Symbol.iterator](): IterableIterator<T> {
    for (const bound of [...this.#ports.values()]) yield* [...bound];
  }
}

const NONE: readonly never[] = [];
