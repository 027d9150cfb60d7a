/**
 * An edge's side of the exchange: takes snapshots, keeps the last one, reports counters, hears whom to
 * trust, and asks for its next certificate.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import {
  ApiMisuseError,
  EnvironmentError,
  PeerProtocolError,
  PeerRefusedError,
} from '../errors.ts';
import { parseSchema } from '../schema.ts';
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
  /** Keeps the last snapshot, so that the edge answers after a restart without the cloud. */
  readonly store?: Store;
  /** The counters that the cloud is told. */
  readonly counters?: () => Readonly<Record<string, number>>;
  /** How often counters are told, if they have changed, in ms. */
  readonly statusIntervalMs?: number;
  /** How long the cloud may take to answer a request for a certificate, in ms; default 10,000. */
  readonly renewalTimeoutMs?: number;
}

export interface ControlClientEvents {
  /** A snapshot has come; it is acknowledged when all listeners have returned. */
  snapshot: [snapshot: Snapshot];
  /** The cloud says which CAs hold from now on, and whether and how soon the own certificate is to be renewed. */
  trust: [trust: Omit<TrustMessage, 'type'>];
  /** A snapshot could not be kept, or the cloud broke the protocol. */
  problem: [error: Error];
}

export class ControlClient extends EventEmitter<ControlClientEvents> {
  readonly #options: ControlClientOptions;
  readonly #timer: NodeJS.Timeout;
  #snapshot: Snapshot | undefined;
  #channel: ControlChannel | undefined;
  #told = '';
  #request: CertificateRequest | undefined;

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

  /**
   * Asks the cloud for the next certificate, one request at a time.
   *
   * @param csrPem a signing request, PEM
   * @returns the certificate, with what stands between it and the trust anchors, and these.
   * @throws {PeerRefusedError} if the cloud says no.
   * @throws {EnvironmentError} if the tunnel cannot take the request, or no answer comes in time.
   * @throws {ApiMisuseError} if one is under way.
   */
  renew(csrPem: string): Promise<Omit<CertificateMessage, 'type'>> {
    return new Promise((resolve, reject) => {
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
      const { renewalTimeoutMs = 10_000 } = this.#options;
      const fail = (reason: string): void => {
        this.#settle()?.reject(new EnvironmentError(`no certificate has come: ${reason}`));
      };
      const timeout = setTimeout(
        () => fail(`the cloud did not answer within ${renewalTimeoutMs} ms`),
        renewalTimeoutMs
      );
      timeout.unref();
      this.#request = { resolve, reject, timeout, fail };
    });
  }

  close(): void {
    this.#request?.fail('the client was closed');
    clearInterval(this.#timer);
    this.#channel?.off('control', this.#onMessage);
    this.#channel = undefined;
  }

  readonly #onMessage = (json: Json): void => {
    try {
      const message = parseCloudMessage(json);
      if (message !== undefined) this.#onKnown(message);
    } catch (error) {
      this.emit('problem', error as Error);
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
        // One that comes too late has been asked for again.
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
    clearTimeout(request?.timeout);
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

interface CertificateRequest {
  readonly resolve: (message: Omit<CertificateMessage, 'type'>) => void;
  readonly reject: (error: Error) => void;
  readonly timeout: NodeJS.Timeout;
  readonly fail: (reason: string) => void;
}

const SNAPSHOT_KEY = 'snapshot';
