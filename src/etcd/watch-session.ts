/**
 * One watch of etcd over one stream: whole revisions in their order, and proof that the watch is alive.
 * @module
 */
import { CallError, Code } from './call-error.ts';
import type { EtcdConnection, Exchange } from './connection.ts';
import type { ResponseHeader, WatchEvent, WatchRequest, WatchResponse } from './descriptor.ts';
import type { Keyspace } from './keyspace.ts';
import type { EtcdSettings } from './options.ts';

export interface WatchHandlers {
  /** The watch has begun. */
  onCreated(): void;
  onHeader(header: ResponseHeader): void;
  /** The events of one revision or several, each of them whole. */
  onEvents(events: readonly WatchEvent[]): void;
  /** The watch has shown what there was at a time on the monotonic clock. */
  onFresh(atMs: number): void;
}

/** Why a watch has ended. */
export type WatchEnd =
  /** etcd has no more all changes since the revision where it was to begin, or where it was. */
  'compacted' | CallError;

export class WatchSession {
  readonly #connection: EtcdConnection;
  readonly #settings: EtcdSettings;
  readonly #handlers: WatchHandlers;
  #exchange: Exchange<WatchRequest> | undefined;
  /** The events of the revisions that are not whole yet. */
  #events: WatchEvent[] = [];
  /** When the question was sent that is not answered; undefined if there is none. */
  #askedMs: number | undefined;
  #stopTimer: () => void = () => {};
  #end!: (end: WatchEnd) => void;
  readonly #ended: Promise<WatchEnd>;

  constructor(connection: EtcdConnection, settings: EtcdSettings, handlers: WatchHandlers) {
    this.#connection = connection;
    this.#settings = settings;
    this.#handlers = handlers;
    this.#ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /**
   * Watches from a revision on, until the watch ends.
   *
   * @throws {CallError} if there is no connection.
   */
  async run(keyspace: Keyspace, fromRevision: number): Promise<WatchEnd> {
    this.#exchange = await this.#connection.exchange(
      '/etcdserverpb.Watch/Watch',
      this.#settings.requestTimeoutMs,
      (answer) => this.#take(answer),
      (error) => this.#end(error)
    );
    this.#askedMs = this.#settings.clock.monotonicMs();
    this.#exchange.send({
      create_request: {
        key: keyspace.start,
        range_end: keyspace.end,
        start_revision: fromRevision,
        fragment: true,
      },
    });
    this.#startTimer();
    const end = await this.#ended;
    this.#stopTimer();
    this.#exchange.cancel();
    return end;
  }

  /** Ends the watch. */
  stop(why: string): void {
    this.#end(new CallError(Code.Cancelled, why, true));
  }

  #take(answer: WatchResponse): void {
    const { header, created, canceled, compact_revision, cancel_reason, fragment, events } = answer;
    this.#handlers.onHeader(header);
    if (canceled) {
      const isCompacted = Number(compact_revision) > 0;
      this.#end(isCompacted ? 'compacted' : new CallError(Code.Refused, cancel_reason, true));
      return;
    }
    if (created) {
      this.#handlers.onCreated();
      this.#askedMs = undefined;
      this.#ask();
      return;
    }
    if (events.length > 0) {
      this.#events.push(...events);
      if (fragment) return;
      this.#handlers.onEvents(this.#events);
      this.#events = [];
      return;
    }
    // What has no events is the answer to a request for the progress.
    if (this.#askedMs !== undefined) this.#handlers.onFresh(this.#askedMs);
    this.#askedMs = undefined;
  }

  #startTimer(): void {
    const { clock } = this.#settings;
    this.#stopTimer = clock.after(
      ASK_INTERVAL_MS,
      () => {
        if (this.#askedMs === undefined) this.#ask();
        else if (clock.monotonicMs() - this.#askedMs > SILENCE_MS) {
          // The connection may be dead, and would be used again.
          this.#connection.renew();
          this.stop(`${SILENCE_MS} ms without an answer`);
          return;
        }
        this.#startTimer();
      },
      true
    );
  }

  #ask(): void {
    this.#askedMs = this.#settings.clock.monotonicMs();
    this.#exchange?.send({ progress_request: {} });
  }
}

/** A lease ends when the watch has not proved for its time that it is alive; the shortest lease has 1 s. */
const ASK_INTERVAL_MS = 250;
/** Without an answer for so long, the watch is given up. */
const SILENCE_MS = 2000;
