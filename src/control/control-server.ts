/**
 * The cloud's side of the exchange: brings every connected edge its snapshot and hears what became
 * of it.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import { PeerProtocolError } from '../errors.ts';
import type { Json } from '../store/index.ts';
import { type ControlChannel, parseControlMessage } from './messages.ts';
import type { PresenceController } from './presence-controller.ts';
import type { Snapshot } from './snapshot.ts';

/** What is known of a connected edge. */
export interface EdgeStatus {
  /** The revision sent last, and the one acknowledged last; 0 for none. */
  readonly sentRevision: number;
  readonly appliedRevision: number;
  /** The edge's own counters; empty until it has told them. */
  readonly counters: Readonly<Record<string, number>>;
}

export interface ControlServerEvents {
  /** A snapshot cannot be sent, not even later: typically it is longer than the tunnel takes. */
  problem: [site: string, error: Error];
}

export class ControlServer extends EventEmitter<ControlServerEvents> {
  readonly #controller: PresenceController;
  readonly #retryMs: number;
  readonly #edges = new Map<string, ConnectedEdge>();

  /** @param retryMs when a snapshot is offered again to an edge that could not take it, in ms */
  constructor(controller: PresenceController, retryMs = 500) {
    super();
    this.#controller = controller;
    this.#retryMs = retryMs;
    controller.on('snapshot', this.#onSnapshot);
  }

  /**
   * Serves the edge of a site on a tunnel that is up, in place of any earlier one. Returns the
   * function that ends it.
   *
   * @param onFault called when the edge breaks the protocol; the host closes the tunnel then
   */
  attach(
    site: string,
    channel: ControlChannel,
    onFault: (error: PeerProtocolError) => void
  ): () => void {
    this.#edges.get(site)?.close();
    this.#edges.delete(site);
    // Before the edge is entered: what is published only now would be sent twice.
    const snapshot = this.#controller.snapshot(site);
    const edge = new ConnectedEdge(channel, this.#retryMs, {
      onFault,
      onProblem: (error) => this.emit('problem', site, error),
    });
    this.#edges.set(site, edge);
    if (snapshot !== undefined) edge.send(snapshot);
    return () => {
      edge.close();
      if (this.#edges.get(site) === edge) this.#edges.delete(site);
    };
  }

  /** Returns undefined for a site that is not connected. */
  status(site: string): EdgeStatus | undefined {
    return this.#edges.get(site)?.status;
  }

  close(): void {
    this.#controller.off('snapshot', this.#onSnapshot);
    for (const edge of this.#edges.values()) edge.close();
    this.#edges.clear();
  }

  readonly #onSnapshot = (snapshot: Snapshot): void => {
    this.#edges.get(snapshot.site)?.send(snapshot);
  };
}

interface EdgeHooks {
  onFault(error: PeerProtocolError): void;
  onProblem(error: Error): void;
}

class ConnectedEdge {
  status: EdgeStatus = { sentRevision: 0, appliedRevision: 0, counters: {} };
  readonly #channel: ControlChannel;
  readonly #retryMs: number;
  readonly #hooks: EdgeHooks;
  #retry: NodeJS.Timeout | undefined;

  constructor(channel: ControlChannel, retryMs: number, hooks: EdgeHooks) {
    this.#channel = channel;
    this.#retryMs = retryMs;
    this.#hooks = hooks;
    channel.on('control', this.#onMessage);
  }

  /** Sends a snapshot, in place of any older one that could not be sent yet. */
  send(snapshot: Snapshot): void {
    clearTimeout(this.#retry);
    try {
      if (this.#channel.sendControl({ type: 'snapshot', snapshot } as unknown as Json)) {
        this.status = { ...this.status, sentRevision: snapshot.revision };
        return;
      }
    } catch (error) {
      this.#hooks.onProblem(error as Error);
      return;
    }
    this.#retry = setTimeout(() => this.send(snapshot), this.#retryMs);
    this.#retry.unref();
  }

  close(): void {
    clearTimeout(this.#retry);
    this.#channel.off('control', this.#onMessage);
  }

  readonly #onMessage = (json: Json): void => {
    try {
      const message = parseControlMessage(json);
      if (message?.type === 'snapshot') throw new PeerProtocolError('an edge sent a snapshot');
      if (message?.type === 'ack') {
        this.status = { ...this.status, appliedRevision: message.revision };
      }
      if (message?.type === 'status') this.status = { ...this.status, counters: message.counters };
    } catch (error) {
      this.#hooks.onFault(error as PeerProtocolError);
    }
  };
}
