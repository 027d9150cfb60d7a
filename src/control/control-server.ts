/**
 * The cloud's side of the control channel: sends snapshots and trust anchors to every connected edge, receives
 * acknowledgements and counters, and renews certificates.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import {
  checkClock,
  checkFunction,
  checkMethods,
  checkObject,
  checkThat,
} from '../base/option-check.ts';
import { ApiMisuseError, type PeerProtocolError } from '../errors.ts';
import type { Json } from '../store/index.ts';
import { type ControlChannel, MAX_RENEWAL_SPREAD_MS, parseEdgeMessage } from './messages.ts';
import type { PresenceController } from './presence-controller.ts';
import { type RenewalCounters, RenewalService, type TrustProvider } from './renewal-service.ts';
import type { Snapshot } from './snapshot.ts';

/** The control channel of a tunnel, with the certificate of its edge. */
export interface EdgeChannel extends ControlChannel {
  /** The certificate that the edge presents now, verified. Without it, nothing is done about certificates. */
  readonly certificate?: X509Certificate | undefined;
}

export interface ControlServerOptions {
  /** The time after which a snapshot that an edge could not take is sent again, in ms; default 500. */
  readonly retryMs?: number;
  /** Renews certificates and provides trust anchors; without it, requests of edges are ignored. */
  readonly trust?: TrustProvider;
  /** How many renewals one site may have in an hour; default 12. */
  readonly maxRenewalsPerHour?: number;
  /**
   * The longest time over which the connected edges renew when the CA changes, in ms, 0 to an hour; default 300,000.
   * It takes less time with few edges, since 20 renew in a second. With 0 all renew at once.
   */
  readonly renewalSpreadMs?: number;
  /** Default: the system's clock. */
  readonly clock?: Clock;
}

/** What is used where an option is absent; times are in ms. */
export const CONTROL_SERVER_DEFAULTS: Readonly<{
  retryMs: number;
  maxRenewalsPerHour: number;
  renewalSpreadMs: number;
}> = Object.freeze({ retryMs: 500, maxRenewalsPerHour: 12, renewalSpreadMs: 300_000 });

/** The state of a connected edge. */
export interface ConnectedEdgeStatus {
  /** The last revision that was sent, and the last one that was acknowledged; 0 for none. */
  readonly sentRevision: number;
  readonly appliedRevision: number;
  /** The counters that the edge reports; empty before its first report. */
  readonly counters: Readonly<Record<string, number>>;
  readonly certificate?: {
    /** The serial number in lower-case hexadecimal digits. */
    readonly serial: string;
    /** The end of its validity, ISO 8601. */
    readonly notAfter: string;
    /** Whether it is signed by the CA that signs now. */
    readonly isCurrent: boolean;
  };
}

export interface ControlServerEvents {
  /**
   * A snapshot cannot be sent, not even later; typically it is longer than a message of the tunnel may be. It is
   * also emitted when a fault on this side has prevented the renewal of a certificate.
   */
  problem: [problem: { readonly site: string; readonly error: Error }];
}

export class ControlServer extends EventEmitter<ControlServerEvents> implements AsyncDisposable {
  /** The counters of certificate renewals; undefined without `trust`. */
  readonly renewals: Readonly<RenewalCounters> | undefined;
  readonly #controller: PresenceController;
  readonly #clock: Clock;
  readonly #retryMs: number;
  readonly #trust: TrustProvider | undefined;
  readonly #renewals: RenewalService | undefined;
  readonly #renewalSpreadMs: number;
  readonly #edges = new Map<string, ConnectedEdge>();
  readonly #renewing = new Set<Promise<void>>();
  #closing: Promise<void> | undefined;

  /** @throws {ApiMisuseError} naming the option that is wrong. */
  constructor(controller: PresenceController, options: ControlServerOptions = {}) {
    super();
    const { trust } = checkObject('options', options);
    const {
      retryMs = CONTROL_SERVER_DEFAULTS.retryMs,
      maxRenewalsPerHour = CONTROL_SERVER_DEFAULTS.maxRenewalsPerHour,
      renewalSpreadMs = CONTROL_SERVER_DEFAULTS.renewalSpreadMs,
    } = options;
    checkMethods('controller', controller, ['snapshot', 'on', 'off']);
    checkThat('retryMs', retryMs, isTimer(retryMs), `a number from 0 to ${MAX_TIMER_MS}`);
    if (trust !== undefined) checkMethods('trust', trust, ['trust', 'renew']);
    this.#clock = checkClock(options.clock);
    if (!(maxRenewalsPerHour >= 1 && Number.isFinite(maxRenewalsPerHour))) {
      throw new ApiMisuseError(`maxRenewalsPerHour must be 1 or more, not ${maxRenewalsPerHour}`);
    }
    const isInRange = renewalSpreadMs >= 0 && renewalSpreadMs <= MAX_RENEWAL_SPREAD_MS;
    if (!Number.isFinite(renewalSpreadMs) || !isInRange) {
      throw new ApiMisuseError(
        `renewalSpreadMs must be 0 to ${MAX_RENEWAL_SPREAD_MS}, not ${renewalSpreadMs}`
      );
    }
    this.#renewalSpreadMs = renewalSpreadMs;
    this.#controller = controller;
    this.#retryMs = retryMs;
    this.#trust = trust;
    if (trust !== undefined) {
      this.#renewals = new RenewalService(trust, {
        maxRenewalsPerHour,
        clock: this.#clock,
        onFailure: (site, error) => this.emit('problem', { site, error }),
      });
    }
    this.renewals = this.#renewals?.counters;
    controller.on('snapshot', this.#onSnapshot);
  }

  /**
   * Serves the edge of a site on a tunnel that is up, in place of an earlier tunnel. A closed server serves no edge.
   *
   * @param onFault is called when the edge breaks the protocol; the host then closes the tunnel
   * @returns a function that ends this.
   */
  attach(
    site: string,
    channel: EdgeChannel,
    onFault: (error: PeerProtocolError) => void
  ): () => void {
    checkMethods('channel', channel, ['sendControl', 'on', 'off']);
    checkFunction('onFault', onFault);
    if (this.#closing !== undefined) return () => {};
    this.#edges.get(site)?.close();
    this.#edges.delete(site);
    // The edge is added after this, because a snapshot that is published only now would be sent twice.
    const snapshot = this.#controller.snapshot(site);
    const edge: ConnectedEdge = new ConnectedEdge(channel, this.#clock, this.#retryMs, {
      onFault,
      onProblem: (error) => this.emit('problem', { site, error }),
      onRenew: (csrPem) => this.#renewLater(site, edge, csrPem),
    });
    this.#edges.set(site, edge);
    // An edge that has just connected renews at once.
    this.#sendTrust(edge, 0);
    if (snapshot !== undefined) edge.send(snapshot);
    return () => {
      edge.close();
      if (this.#edges.get(site) === edge) this.#edges.delete(site);
    };
  }

  /** Returns the state of a site's edge; undefined if it is not connected. */
  status(site: string): ConnectedEdgeStatus | undefined {
    const edge = this.#edges.get(site);
    const certificate = edge?.channel.certificate;
    if (edge === undefined || certificate === undefined) return edge?.status;
    return {
      ...edge.status,
      certificate: {
        serial: certificate.serialNumber.toLowerCase(),
        notAfter: new Date(certificate.validTo).toISOString(),
        isCurrent: this.#trust?.trust(certificate).renew !== true,
      },
    };
  }

  /**
   * Sends the trust anchors to every connected edge. Edges whose certificates are signed by a CA that goes out of use
   * renew one after the other, as fast as `renewalSpreadMs` says.
   */
  announceTrust(): void {
    const stale = [...this.#edges.values()].filter((edge) => this.#isStale(edge));
    const intervalMs = Math.min(RENEWAL_INTERVAL_MS, this.#renewalSpreadMs / stale.length);
    const waits = new Map(stale.map((edge, at) => [edge, Math.floor(at * intervalMs)]));
    for (const edge of this.#edges.values()) this.#sendTrust(edge, waits.get(edge) ?? 0);
  }

  /** Stops serving edges, and waits for the certificate renewals under way. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#controller.off('snapshot', this.#onSnapshot);
    for (const edge of this.#edges.values()) edge.close();
    this.#edges.clear();
    await Promise.all(this.#renewing);
  }

  readonly #onSnapshot = (snapshot: Snapshot): void => {
    this.#edges.get(snapshot.site)?.send(snapshot);
  };

  #isStale({ channel: { certificate } }: ConnectedEdge): boolean {
    return certificate !== undefined && this.#trust?.trust(certificate).renew === true;
  }

  /** An edge that cannot take the message now gets it when it connects again. */
  #sendTrust({ channel }: ConnectedEdge, renewInMs: number): void {
    const { certificate } = channel;
    if (this.#trust === undefined || certificate === undefined) return;
    const trust = this.#trust.trust(certificate);
    const wait = trust.renew && renewInMs > 0 ? { renewInMs } : {};
    channel.sendControl({ type: 'trust', ...trust, ...wait });
  }

  #renewLater(site: string, edge: ConnectedEdge, csrPem: string): void {
    const renewal = this.#renew(site, edge, csrPem).finally(() => this.#renewing.delete(renewal));
    this.#renewing.add(renewal);
  }

  /** If the answer cannot be sent, it is lost, and the edge asks again. */
  async #renew(site: string, edge: ConnectedEdge, csrPem: string): Promise<void> {
    const { certificate } = edge.channel;
    if (this.#renewals === undefined || certificate === undefined) return;
    const answer = await this.#renewals.answer(site, certificate, csrPem);
    if (this.#edges.get(site) === edge) edge.channel.sendControl({ ...answer });
  }
}

interface EdgeHooks {
  onFault(error: PeerProtocolError): void;
  onProblem(error: Error): void;
  onRenew(csrPem: string): void;
}

class ConnectedEdge {
  status: ConnectedEdgeStatus = { sentRevision: 0, appliedRevision: 0, counters: {} };
  readonly channel: EdgeChannel;
  readonly #clock: Clock;
  readonly #retryMs: number;
  readonly #hooks: EdgeHooks;
  #endRetry: (() => void) | undefined;

  constructor(channel: EdgeChannel, clock: Clock, retryMs: number, hooks: EdgeHooks) {
    this.channel = channel;
    this.#clock = clock;
    this.#retryMs = retryMs;
    this.#hooks = hooks;
    channel.on('control', this.#onMessage);
  }

  /** Sends a snapshot, in place of an older one that could not be sent yet. */
  send(snapshot: Snapshot): void {
    this.#endRetry?.();
    try {
      const message = { type: 'snapshot', snapshot };
      // The values in it, such as addresses, are sent as text.
      if (this.channel.sendControl(JSON.parse(JSON.stringify(message)) as Json)) {
        this.status = { ...this.status, sentRevision: snapshot.revision };
        return;
      }
    } catch (error) {
      this.#hooks.onProblem(error as Error);
      return;
    }
    this.#endRetry = this.#clock.after(this.#retryMs, () => this.send(snapshot), true);
  }

  close(): void {
    this.#endRetry?.();
    this.channel.off('control', this.#onMessage);
  }

  readonly #onMessage = (json: Json): void => {
    try {
      const message = parseEdgeMessage(json);
      if (message?.type === 'renew') this.#hooks.onRenew(message.csrPem);
      if (message?.type === 'ack') {
        this.status = { ...this.status, appliedRevision: message.revision };
      }
      if (message?.type === 'status') this.status = { ...this.status, counters: message.counters };
    } catch (error) {
      this.#hooks.onFault(error as PeerProtocolError);
    }
  };
}

function isTimer(ms: number): boolean {
  return typeof ms === 'number' && ms >= 0 && ms <= MAX_TIMER_MS;
}

/** The longest time of a timer of Node. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** The time between the renewals of two edges, unless `renewalSpreadMs` demands a shorter one. */
const RENEWAL_INTERVAL_MS = 50;
