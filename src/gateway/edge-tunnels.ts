/**
 * The tunnels of the edges, at a cloud gateway: each is served snapshots and trust while it is up, and what becomes of
 * it is logged.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { ControlServer } from '../control/index.ts';
import type { Logger } from '../observe/index.ts';
import { CloseCode } from '../tunnel/index.ts';
import type { RefusedPeer, SiteTunnel } from '../worker/index.ts';

/** A site's tunnel has come up or gone down. */
export interface EdgeChange {
  readonly site: string;
  readonly state: 'up' | 'down';
  readonly remoteAddress: string;
  /** Why it is down, as in `CloseCode`; undefined when it is up. */
  readonly code?: string;
}

export interface EdgeTunnelsEvents {
  edge: [change: EdgeChange];
}

export class EdgeTunnels extends EventEmitter<EdgeTunnelsEvents> {
  readonly #control: ControlServer;
  readonly #logger: Logger;
  readonly #tunnels = new Set<SiteTunnel>();
  readonly #refusalLoggedMs = new Map<string, number>();

  constructor(control: ControlServer, logger: Logger) {
    super();
    this.#control = control;
    this.#logger = logger;
  }

  /** Serves a tunnel that is up. */
  attach(tunnel: SiteTunnel): void {
    const { site, remoteAddress, cipher, keyExchange = 'group not told' } = tunnel;
    const logger = this.#logger;
    const detach = this.#control.attach(site, tunnel, (error) => {
      logger.warn({ site, err: error }, `${site}: ${error.message}`);
      tunnel.close(CloseCode.ProtocolError, error.message);
    });
    this.#tunnels.add(tunnel);
    logger.info({ site }, `${site}: up from ${remoteAddress}, ${cipher}, ${keyExchange}`);
    this.emit('edge', { site, state: 'up', remoteAddress });
    tunnel.on('renewed', () => logger.info({ site }, `${site}: shows a renewed certificate`));
    tunnel.on('down', ({ code, reason }) => {
      this.#tunnels.delete(tunnel);
      detach();
      logger.info({ site, code }, `${site}: down, ${code} ${reason}`.trimEnd());
      this.emit('edge', { site, state: 'down', remoteAddress, code });
    });
  }

  /** The sites whose edges show a certificate that is not as it should be. */
  sitesThat(isStale: (certificate: X509Certificate) => boolean): string[] {
    return [...this.#tunnels]
      .filter(({ certificate }) => isStale(certificate))
      .map(({ site }) => site);
  }

  /**
   * Logs refused peers that are known, of each site and for each reason once in a while: they can knock as often as
   * they like. Unauthenticated peers are for the counters and the audit log.
   */
  refused({ remoteAddress, code, reason, site }: RefusedPeer, nowMs: number): void {
    if (site === undefined) return;
    const key = `${site} ${code}`;
    const loggedMs = this.#refusalLoggedMs.get(key) ?? Number.NEGATIVE_INFINITY;
    if (nowMs - loggedMs < REFUSAL_LOG_INTERVAL_MS) return;
    this.#refusalLoggedMs.set(key, nowMs);
    this.#logger.warn({ site, code }, `refused ${remoteAddress}: ${code}, ${reason}`);
  }
}

const REFUSAL_LOG_INTERVAL_MS = 10_000;
