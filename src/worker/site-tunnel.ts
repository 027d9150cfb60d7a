/**
 * A site's tunnel as the host of a worker sees it: what is to be done with it goes to the worker that holds it.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import type { ControlChannel } from '../control/index.ts';
import type { Logger } from '../observe/index.ts';
import type { Json } from '../store/index.ts';
import type { TunnelDetails, Worker, WorkerHost } from './worker.ts';

export interface SiteTunnelEvents {
  /** A message of the edge, not validated beyond being JSON. */
  control: [message: Json];
  /** The edge shows another certificate. */
  renewed: [];
  /** The tunnel is up no more. It is the last event. */
  down: [cause: { readonly code: string; readonly reason: string }];
}

/** A site's tunnel that is up. */
export interface SiteTunnel extends ControlChannel, Pick<EventEmitter<SiteTunnelEvents>, 'once'> {
  readonly site: string;
  readonly remoteAddress: string;
  readonly cipher: string;
  /** As the edge says; undefined if it says nothing. */
  readonly keyExchange: TunnelDetails['keyExchange'];
  /** The certificate that the edge shows now. */
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
   * Sends a message to the edge. Returns false when the tunnel cannot take it now. Of a worker in another process
   * that is not known yet: then this returns true, and the last message of each type is sent again until it is taken.
   *
   * @throws {ApiMisuseError} if the message is longer than a tunnel takes; of a worker in another process, the log
   *   says so.
   */
  sendControl(message: Json): boolean;
  /** Sends what the tunnel holds, tells the edge why, and ends the tunnel. */
  close(code: string, reason: string): void;
}

/** What the tunnels of a pool have in common. */
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
  /** The messages that no tunnel has taken yet, by type. */
  readonly #last = new Map<string, Json>();
  /** What takes back that a message is sent again, by its type. */
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
    // A message makes those of its type before it worthless.
    this.#last.set(type, message);
    taken.then(
      (isTaken) => {
        if (this.#last.get(type) !== message) return;
        if (isTaken) this.#last.delete(type);
        else this.#sendAgain(type, message);
      },
      (error: Error) => {
        if (this.#isUp) this.#tell(error);
      }
    );
    return true;
  }

  close(code: string, reason: string): void {
    if (!this.#isUp) return;
    this.#worker
      .terminate({ tunnel: this.#number }, { code, reason, drain: true })
      .catch((error: Error) => this.#tell(error));
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

  #tell(error: Error): void {
    const { site } = this;
    this.#context.logger.warn({ site, err: error }, `${site}: ${error.message}`);
  }
}

/** The tunnels of one worker: makes a `SiteTunnel` of what the worker says about numbers. */
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

  /** The worker is gone, and its tunnels with it. */
  endAll(code: string, reason: string): void {
    for (const number of [...this.#tunnels.keys()]) this.onDown(number, code, reason);
  }
}

const CONTROL_RETRY_MS = 500;
