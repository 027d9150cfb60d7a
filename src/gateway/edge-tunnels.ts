/**
 * The tunnels of the edges at a cloud gateway: attaches each one to the control server while it is up, and logs its
 * changes.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { ControlServer } from '../control/index.ts';
import { errorFields, type Logger } from '../observe/index.ts';
import { CloseCode } from '../tunnel/index.ts';
import type { RefusedPeer, SiteTunnel } from '../worker/index.ts';

/** A site's tunnel came up or went down. */
export interface EdgeChange {
  readonly site: string;
  readonly state: 'up' | 'down';
  readonly remoteAddress: string;
  /** Why the tunnel went down, a `CloseCode`; undefined when it is up. */
  readonly code?: string;
}

export interface EdgeTunnelsEvents {
  edge: [change: EdgeChange];
}

/** The tunnels that are up, of all sites. */
export class EdgeTunnels extends EventEmitter<EdgeTunnelsEvents> {
  readonly #control: ControlServer;
  readonly #logger: Logger;
  readonly #tunnels = new Set<SiteTunnel>();
  readonly #refusalLoggedMs = new Map<string, number>();
  /** Keyed by the site, whose name is in the certificate of its edge. */
  readonly #faults = new Map<string, string>();

  constructor(control: ControlServer, logger: Logger) {
    super();
    this.#control = control;
    this.#logger = logger;
  }

  /** Sends snapshots and trust to a tunnel that is up, until it goes down. */
  attach(tunnel: SiteTunnel): void {
    const { site, remoteAddress, cipher, keyExchange = 'unknown key exchange group' } = tunnel;
    const logger = this.#logger;
    const detach = this.#control.attach(site, tunnel, (error) => {
      const fields = { event: 'edge_protocol_error', site, ...errorFields(error) } as const;
      logger.warn(fields, `${site}: ${error.message}`);
      tunnel.close(CloseCode.ProtocolError, error.message);
    });
    this.#tunnels.add(tunnel);
    const how = `${site}: up from ${remoteAddress}, ${cipher}, ${keyExchange}`;
    logger.info({ event: 'edge_up', site }, how);
    this.emit('edge', { site, state: 'up', remoteAddress });
    tunnel.on('renewed', () =>
      logger.info({ event: 'edge_renewed', site }, `${site}: presents a renewed certificate`)
    );
    tunnel.on('down', ({ code, reason }) => {
      this.#tunnels.delete(tunnel);
      detach();
      const text = `${site}: down, ${code} ${reason}`.trimEnd();
      this.#faults.set(site, `the last one went down: ${code} ${reason}`.trimEnd());
      logger.info({ event: 'edge_down', site, code }, text);
      this.emit('edge', { site, state: 'down', remoteAddress, code });
    });
  }

  /** Returns the sites whose edges present a certificate for which `predicate` is true. */
  sitesWith(predicate: (certificate: X509Certificate) => boolean): string[] {
    return [...this.#tunnels]
      .filter(({ certificate }) => predicate(certificate))
      .map(({ site }) => site);
  }

  /**
   * Returns why the last tunnel of a site went down, or its last connection was refused, one clause; undefined if that
   * has not happened.
   */
  lastFault(site: string): string | undefined {
    return this.#faults.get(site);
  }

  /**
   * Logs the refusal of a peer whose site is known, at most once in 10 s for each site and reason, because a peer may
   * connect as often as it likes. Unauthenticated peers appear in the counters and in the audit log only.
   */
  refused({ remoteAddress, code, reason, site }: RefusedPeer, nowMs: number): void {
    if (site === undefined) return;
    this.#faults.set(site, `the last connection was refused: ${code}, ${reason}`);
    const key = `${site} ${code}`;
    const loggedMs = this.#refusalLoggedMs.get(key) ?? Number.NEGATIVE_INFINITY;
    if (nowMs - loggedMs < REFUSAL_LOG_INTERVAL_MS) return;
    this.#refusalLoggedMs.set(key, nowMs);
    const text = `refused ${remoteAddress}: ${code}, ${reason}`;
    this.#logger.warn({ event: 'edge_refused', site, code }, text);
  }
}

const REFUSAL_LOG_INTERVAL_MS = 10_000;
