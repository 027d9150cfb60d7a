/**
 * A site's tunnel as the host of a worker sees it. Its methods call the worker that holds the tunnel.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import type { ControlChannel } from '../control/index.ts';
import { errorFields, type Logger } from '../observe/index.ts';
import type { Json } from '../store/index.ts';
import type { TunnelDetails, Worker, WorkerHost } from './worker.ts';

export interface SiteTunnelEvents {
  /** A message of the edge, not validated beyond being JSON. */
  control: [message: Json];
  /** The edge presents another certificate. */
  renewed: [];
  /** The tunnel is down. This is the last event. */
  down: [cause: { readonly code: string; readonly reason: string }];
}

/** A site's tunnel that is up. */
export interface SiteTunnel extends ControlChannel, Pick<EventEmitter<SiteTunnelEvents>, 'once'> {
  readonly site: string;
  readonly remoteAddress: string;
  readonly cipher: string;
  /** The key exchange group that the edge reports; undefined if it reports none. */
  readonly keyExchange: TunnelDetails['keyExchange'];
  /** The certificate that the edge presents now. */
  readonly certificate: X509Certificate;
  on<E extends keyof SiteTunnelEvents>(
    event: E,
    listener: (...args: SiteTunnelEvents[E]) => void
  ): unknown;
  off<E extends keyof SiteTunnelEvents>(
    event: E,
    listener: (...args: SiteTunnelEvents[E]) => void
  ): unknown;
  /**
   * Sends a message to the edge. Returns false when the tunnel cannot accept it now. If the worker is in another
   * process, this returns true, and the last message of each type is sent again until the tunnel accepts it.
   *
   * @throws {ApiMisuseError} if the message is longer than a tunnel accepts; if the worker is in another process, the
   *   error is logged instead.
   */
  sendControl(message: Json): boolean;
  /** Sends the packets that the tunnel holds and the reason, and ends the tunnel. */
  close(code: string, reason: string): void;
}

/** What all tunnels of a pool share. */
export interface TunnelContext {
  readonly logger: Logger;
  readonly clock: Clock;
}

/** A tunnel of one worker. */
class WorkerTunnel extends EventEmitter<SiteTunnelEvents> implements SiteTunnel {
  readonly site: string;
  readonly remoteAddress: string;
  readonly cipher: string;
  readonly keyExchange: TunnelDetails['keyExchange'];
  readonly #number: number;
  readonly #worker: Worker;
  readonly #context: TunnelContext;
  #certificate: X509Certificate;
  #isUp = true;
  /** The last message of each type, until the tunnel accepts it. */
  readonly #last = new Map<string, Json>();
  /** Functions that cancel sending a message again, by its type. */
  readonly #retries = new Map<string, () => void>();

  constructor(number: number, details: TunnelDetails, worker: Worker, context: TunnelContext) {
    super();
    this.#number = number;
    this.#worker = worker;
    this.#context = context;
    this.site = details.site;
    this.remoteAddress = details.remoteAddress;
    this.cipher = details.cipher;
    this.keyExchange = details.keyExchange;
    this.#certificate = new X509Certificate(details.certificate);
  }

  get certificate(): X509Certificate {
    return this.#certificate;
  }

  sendControl(message: Json): boolean {
    if (!this.#isUp) return false;
    const taken = this.#worker.sendControl(this.#number, message);
    if (typeof taken === 'boolean') return taken;
    const type = String((message as { readonly type?: Json } | null)?.type);
    this.#retries.get(type)?.();
    // A message replaces earlier ones of its type.
    this.#last.set(type, message);
    taken.then(
      (isTaken) => {
        if (this.#last.get(type) !== message) return;
        if (isTaken) this.#last.delete(type);
        else this.#sendAgain(type, message);
      },
      (error: Error) => {
        if (this.#isUp) this.#warn(error);
      }
    );
    return true;
  }

  close(code: string, reason: string): void {
    if (!this.#isUp) return;
    this.#worker
      .terminate({ tunnel: this.#number }, { code, reason, drain: true })
      .catch((error: Error) => this.#warn(error));
  }

  renewed(certificate: Uint8Array): void {
    this.#certificate = new X509Certificate(certificate);
    this.emit('renewed');
  }

  end(code: string, reason: string): void {
    this.#isUp = false;
    for (const cancel of this.#retries.values()) cancel();
    this.emit('down', { code, reason });
  }

  #sendAgain(type: string, message: Json): void {
    if (!this.#isUp) return;
    const again = (): void => void this.sendControl(message);
    this.#retries.set(type, this.#context.clock.after(CONTROL_RETRY_MS, again, true));
  }

  #warn(error: Error): void {
    const { site } = this;
    const fields = { event: 'edge_message_failed', site, ...errorFields(error) } as const;
    this.#context.logger.warn(fields, `${site}: ${error.message}`);
  }
}

/** The tunnels of one worker: creates a `SiteTunnel` for each tunnel number that the worker reports. */
export class SiteTunnels
  implements Pick<WorkerHost, 'onTunnel' | 'onControl' | 'onRenewed' | 'onDown'>
{
  readonly #worker: () => Worker;
  readonly #onUp: (tunnel: SiteTunnel) => void;
  readonly #context: TunnelContext;
  readonly #tunnels = new Map<number, WorkerTunnel>();

  constructor(worker: () => Worker, onUp: (tunnel: SiteTunnel) => void, context: TunnelContext) {
    this.#worker = worker;
    this.#onUp = onUp;
    this.#context = context;
  }

  onTunnel(number: number, details: TunnelDetails): void {
    const tunnel = new WorkerTunnel(number, details, this.#worker(), this.#context);
    this.#tunnels.set(number, tunnel);
    this.#onUp(tunnel);
  }

  onControl(number: number, message: Json): void {
    this.#tunnels.get(number)?.emit('control', message);
  }

  onRenewed(number: number, certificate: Uint8Array): void {
    this.#tunnels.get(number)?.renewed(certificate);
  }

  onDown(number: number, code: string, reason: string): void {
    const tunnel = this.#tunnels.get(number);
    this.#tunnels.delete(number);
    tunnel?.end(code, reason);
  }

  /** Ends all tunnels, because the worker has ended. */
  endAll(code: string, reason: string): void {
    for (const number of [...this.#tunnels.keys()]) this.onDown(number, code, reason);
  }
}

const CONTROL_RETRY_MS = 500;
