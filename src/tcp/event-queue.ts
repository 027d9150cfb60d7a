/**
 * The connections that have events for their owners. Events wait until the caller has time for the code of the
 * application, which must never run while a packet is handled.
 * @module
 */
import { connectionOf } from './connection.ts';
import type { ControlBlock } from './control-block.ts';
import { listenerOf } from './listener.ts';
import { TcpState } from './state.ts';

export class EventQueue {
  #waiting: ControlBlock[] = [];

  /** Adds a block that has events. Returns whether it is the first one. */
  add(block: ControlBlock): boolean {
    if (block.isNotified) return false;
    block.isNotified = true;
    this.#waiting.push(block);
    return this.#waiting.length === 1;
  }

  /** Whether connections wait. */
  get hasWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  /** Calls the owners. If one throws, the others learn of their events by the next call. */
  deliver(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    let taken = 0;
    try {
      for (; taken < waiting.length; ) deliverTo(waiting[taken++]!);
    } finally {
      if (taken < waiting.length) this.#waiting = [...waiting.slice(taken), ...this.#waiting];
    }
  }
}

function deliverTo(block: ControlBlock): void {
  block.isNotified = false;
  const connection = connectionOf(block);
  const listener = listenerOf(block);
  if (listener !== undefined) {
    block.listener = undefined;
    listener.waiting--;
    if (connection.state === TcpState.Closed && connection.available === 0) {
      listener.onLost();
      return;
    }
    listener.owner.onTcpConnection(connection);
  }
  const { events } = block;
  block.events = 0;
  if (events !== 0) connection.owner?.onTcpEvents(connection, events);
}
