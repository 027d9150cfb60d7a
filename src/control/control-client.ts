/**
 * An edge's side of the exchange: takes snapshots, keeps the last one, reports counters.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import { PeerProtocolError } from '../errors.ts';
import { parseSchema } from '../schema.ts';
import type { Json, Store } from '../store/index.ts';
import { type ControlChannel, parseControlMessage } from './messages.ts';
import { type Snapshot, SnapshotSchema } from './snapshot.ts';

export interface ControlClientOptions {
  readonly site: string;
  /** Keeps the last snapshot, so that the edge answers after a restart without the cloud. */
  readonly store?: Store;
  /** The counters that the cloud is told. */
  readonly counters?: () => Readonly<Record<string, number>>;
  /** How often counters are told, if they have changed, in ms. */
  readonly statusIntervalMs?: number;
}

export interface ControlClientEvents {
  /** A snapshot has come; it is acknowledged when all listeners have returned. */
  snapshot: [snapshot: Snapshot];
  /** A snapshot could not be kept, or the cloud broke the protocol. */
  problem: [error: Error];
}

export class ControlClient extends EventEmitter<ControlClientEvents> {
  readonly #options: ControlClientOptions;
  readonly #timer: NodeJS.Timeout;
  #snapshot: Snapshot | undefined;
  #channel: ControlChannel | undefined;
  #told = '';

  private constructor(options: ControlClientOptions, snapshot: Snapshot | undefined) {
    super();
    this.#options = options;
    this.#snapshot = snapshot;
    this.#timer = setInterval(() => this.#tellCounters(), options.statusIntervalMs ?? 1000);
    this.#timer.unref();
  }

  /**
   * Reads the snapshot that was kept, if any.
   *
   * @throws {StoreError} if the store cannot be read.
   */
  static async open(options: ControlClientOptions): Promise<ControlClient> {
    const kept = await options.store?.get(SNAPSHOT_KEY);
    let snapshot: Snapshot | undefined;
    try {
      if (kept !== undefined) snapshot = parseSchema(SnapshotSchema, kept.value);
    } catch {
      // Written by another version: the cloud sends a new one.
    }
    return new ControlClient(options, snapshot?.site === options.site ? snapshot : undefined);
  }

  /** The newest snapshot; undefined before the first. */
  get snapshot(): Snapshot | undefined {
    return this.#snapshot;
  }

  /** Takes messages from a tunnel, through all its reconnects. */
  attach(channel: ControlChannel): void {
    this.#channel?.off('control', this.#onMessage);
    this.#channel = channel;
    channel.on('control', this.#onMessage);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#channel?.off('control', this.#onMessage);
    this.#channel = undefined;
  }

  readonly #onMessage = (json: Json): void => {
    try {
      const message = parseControlMessage(json);
      if (message?.type === 'snapshot') this.#take(message.snapshot);
    } catch (error) {
      this.emit('problem', error as Error);
    }
  };

  #take(snapshot: Snapshot): void {
    const { site, store } = this.#options;
    if (snapshot.site !== site) {
      throw new PeerProtocolError(`got the snapshot of "${snapshot.site}" instead of "${site}"`);
    }
    this.#snapshot = snapshot;
    this.emit('snapshot', snapshot);
    store
      ?.commit([{ key: SNAPSHOT_KEY, value: snapshot as unknown as Json }])
      .catch((error: Error) => this.emit('problem', error));
    this.#channel?.sendControl({ type: 'ack', revision: snapshot.revision });
    this.#told = '';
  }

  #tellCounters(): void {
    const counters = this.#options.counters?.();
    if (counters === undefined) return;
    const text = JSON.stringify(counters);
    if (text === this.#told) return;
    if (this.#channel?.sendControl({ type: 'status', counters }) === true) this.#told = text;
  }
}

const SNAPSHOT_KEY = 'snapshot';
