/**
 * Check 5 of the translator's contract: which requests were forwarded recently.
 * @module
 */
import { type Endpoint, isSamePath, type Path, type Tables } from './tables.ts';

/** Both directions of a conversation. */
export interface Session {
  readonly client: Endpoint;
  readonly service: Endpoint;
  readonly protocol: string;
  readonly clientPort: number;
  readonly servicePort: number;
}

interface Request {
  readonly at: number;
  /** Where the request entered, and between which addresses. */
  readonly realm: string;
  readonly source: string;
  readonly destination: string;
  readonly path: Path;
}

export class Sessions {
  readonly #requests = new Map<string, Request>();
  readonly #udpTimeoutMs: number;
  readonly #icmpTimeoutMs: number;

  constructor(udpTimeoutMs: number, icmpTimeoutMs: number) {
    this.#udpTimeoutMs = udpTimeoutMs;
    this.#icmpTimeoutMs = icmpTimeoutMs;
  }

  /** Returns whether there was a recent request of the session. */
  isOpen(session: Session, now: number): boolean {
    const request = this.#requests.get(keyOf(session));
    const timeout = session.protocol === 'icmp' ? this.#icmpTimeoutMs : this.#udpTimeoutMs;
    return request !== undefined && now - request.at <= timeout;
  }

  request(session: Session, request: Request): void {
    this.#requests.set(keyOf(session), request);
  }

  /** Forgets sessions whose path no longer exists. */
  keep(tables: Tables): void {
    for (const [key, { realm, source, destination, path }] of this.#requests) {
      if (!isSamePath(path, tables.path(realm, source, destination))) this.#requests.delete(key);
    }
  }
}

function keyOf({ client, service, protocol, clientPort, servicePort }: Session): string {
  return [
    protocol,
    client.realm,
    client.address,
    clientPort,
    service.realm,
    service.address,
    servicePort,
  ].join(' ');
}
