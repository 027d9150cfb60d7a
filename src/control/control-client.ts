/**
 * The edge's side of the control channel: receives snapshots and trust anchors, keeps the last snapshot until it
 * expires, reports counters, and requests the next certificate.
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
  SnapshotExpiredError,
} from '../errors.ts';
import type { Json, Store, Write } from '../store/index.ts';
import {
  type CertificateMessage,
  type CloudMessage,
  type ControlChannel,
  parseCloudMessage,
  type TrustMessage,
} from './messages.ts';
import { type Snapshot, SnapshotSchema } from './snapshot.ts';
import { SnapshotContact, storedContactOf } from './snapshot-contact.ts';

export interface ControlClientOptions {
  readonly site: string;
  /** Keeps the last snapshot, so that the edge answers after a restart without the cloud. Default: it is not kept. */
  readonly store?: Store;
  /**
   * How long a snapshot holds without contact with the cloud, in ms, up to ten years; default 7 days. There is contact
   * while the tunnel is up, see `linkChanged`.
   */
  readonly snapshotValidMs?: number;
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
  snapshotValidMs: number;
  statusIntervalMs: number;
  renewalTimeoutMs: number;
}> = Object.freeze({
  snapshotValidMs: 7 * 24 * 3_600_000,
  statusIntervalMs: 1000,
  renewalTimeoutMs: 10_000,
});

export interface ControlClientEvents {
  /** A snapshot has arrived. It is acknowledged when all listeners have returned. */
  snapshot: [snapshot: Snapshot];
  /** There was no contact with the cloud for too long: there is no snapshot until the cloud sends one. */
  expired: [expiry: SnapshotExpiry];
  /** The cloud has sent the CAs to trust from now on, and whether and when to renew the certificate. */
  trust: [trust: Omit<TrustMessage, 'type'>];
  /** A snapshot could not be kept, or the cloud broke the protocol. */
  problem: [problem: { readonly error: Error }];
}

/** The end of a snapshot. */
export interface SnapshotExpiry {
  /** The snapshot that has expired. */
  readonly snapshot: Snapshot;
  /** Says since when there was no contact, and what to do. */
  readonly error: SnapshotExpiredError;
}

export class ControlClient extends EventEmitter<ControlClientEvents> implements AsyncDisposable {
  readonly #options: ResolvedOptions;
  #endTimer: () => void;
  /** Ends the next check whether the snapshot has expired. */
  #endCheck: () => void = () => {};
  /** The newest snapshot, also if it has expired. */
  #snapshot: Snapshot | undefined;
  #contact: SnapshotContact;
  #expiry: SnapshotExpiry | undefined;
  #isLinkUp = false;
  /** When the contact was stored, on the monotonic clock. */
  #storedAtMs = Number.NEGATIVE_INFINITY;
  #channel: ControlChannel | undefined;
  #reported = '';
  #request: CertificateRequest | undefined;
  /** Resolves when the store has the snapshots so far. */
  #keeping: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  private constructor(
    options: ResolvedOptions,
    snapshot: Snapshot | undefined,
    contact: SnapshotContact
  ) {
    super();
    this.#options = options;
    this.#snapshot = snapshot;
    this.#contact = contact;
    this.#endTimer = this.#reportLater();
    if (snapshot !== undefined) this.#check();
  }

  /**
   * Reads the last snapshot from the store, if there is one.
   *
   * @throws {ApiMisuseError} naming the option that is wrong.
   * @throws {StoreError} if the store cannot be read.
   */
  static async open(options: ControlClientOptions): Promise<ControlClient> {
    const resolved = resolveOptions(options);
    const { site, store, clock } = resolved;
    const kept = await store?.get(SNAPSHOT_KEY);
    let snapshot: Snapshot | undefined;
    try {
      if (kept !== undefined) snapshot = parseSchema(SnapshotSchema, kept.value);
    } catch {
      // Another version has written it. The cloud sends a new one.
    }
    if (snapshot?.site !== site) snapshot = undefined;
    const stored = snapshot && (await store?.get(CONTACT_KEY));
    const contact = storedContactOf(stored?.value, snapshot?.revision ?? 0);
    return new ControlClient(resolved, snapshot, new SnapshotContact(clock, contact));
  }

  /** The newest snapshot; undefined before the first, and when it has expired. */
  get snapshot(): Snapshot | undefined {
    return this.#expiry === undefined ? this.#snapshot : undefined;
  }

  /** Present from the expiry of a snapshot, also in an earlier process, until the next snapshot. */
  get expiry(): SnapshotExpiry | undefined {
    return this.#expiry;
  }

  /**
   * Until when the snapshot holds if there is no further contact, or when it has expired, by the present wall clock;
   * undefined before the first snapshot.
   */
  get validUntil(): Date | undefined {
    if (this.#snapshot === undefined) return undefined;
    const { clock, snapshotValidMs } = this.#options;
    return new Date(clock.wallMs() + snapshotValidMs - this.#contact.awayMs);
  }

  /** For how long there has been no contact with the cloud, also in earlier processes, in ms; 0 while the tunnel is up. */
  get awayMs(): number {
    return this.#contact.awayMs;
  }

  /**
   * Says whether the tunnel is up. While it is, there is contact with the cloud. Without this call, each message of the
   * cloud is a contact.
   */
  linkChanged(isUp: boolean): void {
    this.#isLinkUp = isUp;
    // An expired snapshot stays so: the cloud sends a new one.
    if (this.#expiry === undefined) this.#contact.linkChanged(isUp);
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
    this.#endCheck();
    const snapshot = this.#snapshot;
    if (snapshot !== undefined) this.#store(() => [this.#contactWrite(snapshot)]);
    this.#channel?.off('control', this.#onMessage);
    this.#channel = undefined;
    await this.#keeping;
  }

  readonly #onMessage = (json: Json): void => {
    try {
      const message = parseCloudMessage(json);
      if (this.#expiry === undefined) this.#contact.renew();
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
    const { site } = this.#options;
    if (snapshot.site !== site) {
      throw new PeerProtocolError(`got the snapshot of "${snapshot.site}" instead of "${site}"`);
    }
    this.#snapshot = snapshot;
    this.#expiry = undefined;
    this.#contact.linkChanged(this.#isLinkUp);
    this.#contact.renew();
    // A listener may throw; then the snapshot is kept and ends all the same, and is not acknowledged.
    this.#store(() => [
      // The values in it, such as addresses, are stored as text.
      { key: SNAPSHOT_KEY, value: JSON.parse(JSON.stringify(snapshot)) as Json },
      this.#contactWrite(snapshot),
    ]);
    this.#reported = '';
    this.#check();
    this.emit('snapshot', snapshot);
    this.#channel?.sendControl({ type: 'ack', revision: snapshot.revision });
  }

  #store(writes: () => readonly Write[]): void {
    const { store } = this.#options;
    if (store === undefined) return;
    const kept = store.commit(writes()).catch((error: Error) => this.emit('problem', { error }));
    this.#keeping = Promise.all([this.#keeping, kept]);
  }

  #contactWrite({ revision }: Snapshot): Write {
    this.#storedAtMs = this.#options.clock.monotonicMs();
    return { key: CONTACT_KEY, value: { ...this.#contact.toStored(revision) } };
  }

  /** Checks whether the snapshot has expired, and when to check again. The wall clock may jump meanwhile. */
  #check(): void {
    this.#endCheck();
    const snapshot = this.#snapshot!;
    const { clock, snapshotValidMs } = this.#options;
    const leftMs = snapshotValidMs - this.#contact.awayMs;
    if (leftMs <= 0) {
      this.#expire(snapshot);
      return;
    }
    if (clock.monotonicMs() - this.#storedAtMs >= Math.min(STORE_MS, snapshotValidMs / 10)) {
      this.#store(() => [this.#contactWrite(snapshot)]);
    }
    this.#endCheck = clock.after(Math.min(leftMs, CHECK_MS), () => this.#check(), true);
  }

  #expire(snapshot: Snapshot): void {
    const { site, snapshotValidMs } = this.#options;
    const { lastContactMs } = this.#contact;
    const error = new SnapshotExpiredError(site, new Date(lastContactMs), snapshotValidMs);
    this.#expiry = { snapshot, error };
    this.emit('expired', this.#expiry);
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
    snapshotValidMs = CONTROL_CLIENT_DEFAULTS.snapshotValidMs,
    statusIntervalMs = CONTROL_CLIENT_DEFAULTS.statusIntervalMs,
    renewalTimeoutMs = CONTROL_CLIENT_DEFAULTS.renewalTimeoutMs,
  } = options;
  checkText('site', site);
  if (store !== undefined) checkMethods('store', store, ['get', 'commit']);
  if (counters !== undefined) checkFunction('counters', counters);
  checkWhole('snapshotValidMs', snapshotValidMs, 1, MAX_SNAPSHOT_VALID_MS);
  checkWhole('statusIntervalMs', statusIntervalMs, 1, MAX_TIMER_MS);
  checkWhole('renewalTimeoutMs', renewalTimeoutMs, 1, MAX_TIMER_MS);
  const clock = checkClock(options.clock);
  return { ...options, snapshotValidMs, statusIntervalMs, renewalTimeoutMs, clock };
}

/** The longest time of a timer of Node. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Ten years. */
const MAX_SNAPSHOT_VALID_MS = 10 * 365 * 24 * 3_600_000;
/** The longest time between two checks whether the snapshot has expired. */
const CHECK_MS = 60_000;
/** How often the contact is stored, unless a tenth of `snapshotValidMs` is less. */
const STORE_MS = 3_600_000;
const SNAPSHOT_KEY = 'snapshot';
const CONTACT_KEY = 'snapshot-contact';
