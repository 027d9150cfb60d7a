/**
 * The edge's side of the control channel: receives snapshots and trust anchors, keeps the last snapshot, reports
 * counters, and requests the next certificate.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import {
  checkClock,
  checkFunction,
  checkMethods,
  checkObject,
  checkSignal,
  checkText,
  checkWhole,
} from '../base/option-check.ts';
import { parseSchema } from '../base/schema.ts';
import {
  ApiMisuseError,
  EnvironmentError,
  PeerProtocolError,
  PeerRefusedError,
} from '../errors.ts';
import type { Json, Store } from '../store/index.ts';
import {
  type CertificateMessage,
  type CloudMessage,
  type ControlChannel,
  parseCloudMessage,
  type TrustMessage,
} from './messages.ts';
import { type Snapshot, SnapshotSchema } from './snapshot.ts';

export interface ControlClientOptions {
  readonly site: string;
  /** Keeps the last snapshot, so that the edge answers after a restart without the cloud. Default: it is not kept. */
  readonly store?: Store;
  /** Returns the counters to report to the cloud. Default: nothing is reported. */
  readonly counters?: () => Readonly<Record<string, number>>;
  /** How often counters are reported, if they have changed, in ms; default 1000. */
  readonly statusIntervalMs?: number;
  /** How long the cloud may take to answer a request for a certificate, in ms; default 10,000. */
  readonly renewalTimeoutMs?: number;
  /** Default: the system's clock. */
  readonly clock?: Clock;
}

/** What is used where an option is absent; times are in ms. */
export const CONTROL_CLIENT_DEFAULTS: Readonly<{
  statusIntervalMs: number;
  renewalTimeoutMs: number;
}> = Object.freeze({ statusIntervalMs: 1000, renewalTimeoutMs: 10_000 });

export interface ControlClientEvents {
  /** A snapshot has arrived. It is acknowledged when all listeners have returned. */
  snapshot: [snapshot: Snapshot];
  /** The cloud has sent the CAs to trust from now on, and whether and when to renew the certificate. */
  trust: [trust: Omit<TrustMessage, 'type'>];
  /** A snapshot could not be kept, or the cloud broke the protocol. */
  problem: [problem: { readonly error: Error }];
}

export class ControlClient extends EventEmitter<ControlClientEvents> implements AsyncDisposable {
  readonly #options: ResolvedOptions;
  #endTimer: () => void;
  #snapshot: Snapshot | undefined;
  #channel: ControlChannel | undefined;
  #reported = '';
  #request: CertificateRequest | undefined;
  /** Resolves when the store has the snapshots so far. */
  #keeping: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  private constructor(options: ResolvedOptions, snapshot: Snapshot | undefined) {
    super();
    this.#options = options;
    this.#snapshot = snapshot;
    this.#endTimer = this.#reportLater();
  }

  /**
   * Reads the last snapshot from the store, if there is one.
   *
   * @throws {ApiMisuseError} naming the option that is wrong.
   * @throws {StoreError} if the store cannot be read.
   */
  static async open(options: ControlClientOptions): Promise<ControlClient> {
    const resolved = resolveOptions(options);
    const kept = await options.store?.get(SNAPSHOT_KEY);
    let snapshot: Snapshot | undefined;
    try {
      if (kept !== undefined) snapshot = parseSchema(SnapshotSchema, kept.value);
    } catch {
      // Another version has written it. The cloud sends a new one.
    }
    return new ControlClient(resolved, snapshot?.site === options.site ? snapshot : undefined);
  }

  /** The newest snapshot; undefined before the first. */
  get snapshot(): Snapshot | undefined {
    return this.#snapshot;
  }

  /** Receives messages from a tunnel, across its reconnects. */
  attach(channel: ControlChannel): void {
    checkMethods('channel', channel, ['sendControl', 'on', 'off']);
    if (this.#closing !== undefined) throw new ApiMisuseError('the control client is closed');
    this.#channel?.off('control', this.#onMessage);
    this.#channel = channel;
    channel.on('control', this.#onMessage);
  }

  /**
   * Requests the next certificate from the cloud, one request at a time.
   *
   * @param csrPem a signing request, PEM
   * @param options `signal` ends the wait; the promise then rejects with its reason
   * @returns the certificate with its intermediate certificates, and the trust anchors.
   * @throws {PeerRefusedError} if the cloud refuses.
   * @throws {EnvironmentError} if the tunnel cannot take the request, or no answer comes in time.
   * @throws {ApiMisuseError} if another request is under way.
   */
  async renew(
    csrPem: string,
    options: { readonly signal?: AbortSignal | undefined } = {}
  ): Promise<Omit<CertificateMessage, 'type'>> {
    checkText('csrPem', csrPem);
    const signal = checkSignal(checkObject('options', options).signal);
    signal?.throwIfAborted();
    return await new Promise((resolve, reject) => {
      if (this.#request !== undefined) {
        reject(new ApiMisuseError('a certificate has been asked for already'));
        return;
      }
      if (this.#channel?.sendControl({ type: 'renew', csrPem }) !== true) {
        reject(
          new EnvironmentError('the cloud cannot be asked for a certificate: no tunnel is up')
        );
        return;
      }
      const { renewalTimeoutMs, clock } = this.#options;
      const fail = (reason: string): void => {
        this.#settle()?.reject(new EnvironmentError(`no certificate has come: ${reason}`));
      };
      const onAbort = (): void => this.#settle()?.reject(signal!.reason);
      signal?.addEventListener('abort', onAbort);
      const endTimeout = clock.after(
        renewalTimeoutMs,
        () => fail(`the cloud did not answer within ${renewalTimeoutMs} ms`),
        true
      );
      const end = (): void => {
        endTimeout();
        signal?.removeEventListener('abort', onAbort);
      };
      this.#request = { resolve, reject, end, fail };
    });
  }

  /** Stops receiving messages, and waits until the last snapshot is stored. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#request?.fail('the client was closed');
    this.#endTimer();
    this.#channel?.off('control', this.#onMessage);
    this.#channel = undefined;
    await this.#keeping;
  }

  readonly #onMessage = (json: Json): void => {
    try {
      const message = parseCloudMessage(json);
      if (message !== undefined) this.#onKnown(message);
    } catch (error) {
      this.emit('problem', { error: error as Error });
    }
  };

  #onKnown(message: CloudMessage): void {
    switch (message.type) {
      case 'snapshot':
        this.#take(message.snapshot);
        break;
      case 'trust': {
        const { type: _, ...trust } = message;
        this.emit('trust', trust);
        break;
      }
      case 'certificate': {
        // An answer that arrives too late is ignored: the certificate was requested again.
        const { certificatePem, caPem } = message;
        this.#settle()?.resolve({ certificatePem, caPem });
        break;
      }
      case 'refusal': {
        const text = `the cloud refuses a certificate: ${message.message} (${message.code})`;
        this.#settle()?.reject(new PeerRefusedError(text));
        break;
      }
    }
  }

  #settle(): CertificateRequest | undefined {
    const request = this.#request;
    request?.end();
    this.#request = undefined;
    return request;
  }

  #take(snapshot: Snapshot): void {
    const { site, store } = this.#options;
    if (snapshot.site !== site) {
      throw new PeerProtocolError(`got the snapshot of "${snapshot.site}" instead of "${site}"`);
    }
    this.#snapshot = snapshot;
    this.emit('snapshot', snapshot);
    if (store !== undefined) this.#keep(store, snapshot);
    this.#channel?.sendControl({ type: 'ack', revision: snapshot.revision });
    this.#reported = '';
  }

  #keep(store: Store, snapshot: Snapshot): void {
    // The values in it, such as addresses, are stored as text.
    const value = JSON.parse(JSON.stringify(snapshot)) as Json;
    const kept = store
      .commit([{ key: SNAPSHOT_KEY, value }])
      .catch((error: Error) => this.emit('problem', { error }));
    this.#keeping = Promise.all([this.#keeping, kept]);
  }

  #reportLater(): () => void {
    const { clock, statusIntervalMs } = this.#options;
    const report = (): void => {
      this.#endTimer = this.#reportLater();
      this.#reportCounters();
    };
    return clock.after(statusIntervalMs, report, true);
  }

  #reportCounters(): void {
    const counters = this.#options.counters?.();
    if (counters === undefined) return;
    const text = JSON.stringify(counters);
    if (text === this.#reported) return;
    if (this.#channel?.sendControl({ type: 'status', counters }) === true) this.#reported = text;
  }
}

interface CertificateRequest {
  readonly resolve: (message: Omit<CertificateMessage, 'type'>) => void;
  readonly reject: (reason: unknown) => void;
  /** Ends the timer and the signal's listener. */
  readonly end: () => void;
  readonly fail: (reason: string) => void;
}

type ResolvedOptions = ControlClientOptions &
  typeof CONTROL_CLIENT_DEFAULTS & { readonly clock: Clock };

/** Checks what a caller gives, and fills in the defaults. */
function resolveOptions(options: ControlClientOptions): ResolvedOptions {
  const { site, store, counters } = checkObject('options', options);
  const {
    statusIntervalMs = CONTROL_CLIENT_DEFAULTS.statusIntervalMs,
    renewalTimeoutMs = CONTROL_CLIENT_DEFAULTS.renewalTimeoutMs,
  } = options;
  checkText('site', site);
  if (store !== undefined) checkMethods('store', store, ['get', 'commit']);
  if (counters !== undefined) checkFunction('counters', counters);
  checkWhole('statusIntervalMs', statusIntervalMs, 1, MAX_TIMER_MS);
  checkWhole('renewalTimeoutMs', renewalTimeoutMs, 1, MAX_TIMER_MS);
  return { ...options, statusIntervalMs, renewalTimeoutMs, clock: checkClock(options.clock) };
}

/** The longest time of a timer of Node. */
const MAX_TIMER_MS = 2 ** 31 - 1;
const SNAPSHOT_KEY = 'snapshot';
