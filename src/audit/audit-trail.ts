/**
 * The events of a cloud gateway as lines of its audit log: who came in, who was refused, what was exposed to whom.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import {
  type EnrolmentOutcome,
  identityOfCertificate,
  type RevocationReason,
  type RevocationScope,
} from '../pki/index.ts';
import type { Exposure, Registry, Service } from '../registry/index.ts';
import type { Json } from '../store/index.ts';
import type { RevocationReceipt } from '../trust/index.ts';
import { AuditLog } from './audit-log.ts';
import type { AuditEvent, AuditHead } from './line.ts';

export interface AuditTrailOptions {
  /** The file of the log; see `AuditLogOptions`. */
  readonly path: string;
  /** Default: that of the system. */
  readonly clock?: Clock | undefined;
}

export interface AuditTrailEvents {
  /** A line could not be written. What the line is about has happened all the same. */
  problem: [problem: { readonly error: Error }];
}

/** A connection to the tunnel port that led to no tunnel. */
export interface RefusedHandshake {
  readonly remoteAddress: string;
  readonly code: string;
  readonly reason: string;
  /** The site of the peer, if its certificate was verified. */
  readonly site?: string | undefined;
  /** The serial number of the certificate, if it was verified. */
  readonly serial?: string | undefined;
}

export class AuditTrail extends EventEmitter<AuditTrailEvents> {
  readonly #audit: AuditLog;
  #exposures: ReadonlyMap<string, Exposed> = new Map();

  #unfollow: () => void = () => {};

  private constructor(audit: AuditLog) {
    super();
    this.#audit = audit;
    audit.on('problem', (problem) => this.emit('problem', problem));
  }

  /**
   * Opens the log and writes that the gateway has started.
   *
   * @throws {StoreError} if another process has the file, or it cannot be opened.
   * @throws {AuditError} if the file is not what was written.
   * @throws {ApiMisuseError} if an option is not what it must be.
   */
  static async open(options: AuditTrailOptions): Promise<AuditTrail> {
    const trail = new AuditTrail(await AuditLog.open(options));
    trail.#append({ kind: 'start', detail: { pid: process.pid } });
    return trail;
  }

  /** The last line. Whoever keeps a copy elsewhere can tell when the end of the log was cut off. */
  get head(): AuditHead {
    return this.#audit.head;
  }

  /** Writes what is exposed and unexposed from now on. What is exposed already was written when it was. */
  follow(registry: Registry): void {
    this.#unfollow();
    this.#exposures = exposuresOf(registry);
    const onChange = (): void => {
      const now = exposuresOf(registry);
      for (const [key, exposure] of this.#exposures) {
        if (!now.has(key)) this.#append({ kind: 'unexpose', ...told(exposure) });
      }
      for (const [key, exposure] of now) {
        if (!this.#exposures.has(key)) this.#append({ kind: 'expose', ...told(exposure) });
      }
      this.#exposures = now;
    };
    registry.on('change', onChange);
    this.#unfollow = () => registry.off('change', onChange);
  }

  token(site: string): void {
    this.#append({ kind: 'token', site });
  }

  enrolment({ site, serial, remoteAddress, refused }: EnrolmentOutcome): void {
    const who = { ...(site && { site }), ...(serial && { serial }), remoteAddress };
    if (refused === undefined) this.#append({ kind: 'enrolment', ...who });
    else this.#append({ kind: 'refused-enrolment', ...who, detail: { ...refused } });
  }

  renewal(site: string, serial: string): void {
    this.#append({ kind: 'renewal', site, serial });
  }

  refusedRenewal(certificate: X509Certificate, { message }: Error): void {
    const identity = identityOfCertificate(certificate);
    const serial = certificate.serialNumber.toLowerCase();
    const who = { ...(identity.role === 'site' && { site: identity.site }), serial };
    this.#append({ kind: 'refused-enrolment', ...who, detail: { code: 'renewal', message } });
  }

  /** To be called before anything is done; what comes of the revocation is a line of its own. */
  revocationBegins(scope: RevocationScope, reason: RevocationReason = 'unspecified'): void {
    const detail = { scope: { ...scope }, reason };
    this.#append({ kind: 'revocation', ...('site' in scope && { site: scope.site }), detail });
  }

  revocation({ scope, ...receipt }: RevocationReceipt): void {
    const detail = { ...receipt, scope: { ...scope } };
    this.#append({ kind: 'revocation', ...('site' in scope && { site: scope.site }), detail });
  }

  reinstatement(site: string): void {
    this.#append({ kind: 'reinstatement', site });
  }

  /** The addresses of a site's clients were released on request. */
  release(site: string, released: number): void {
    this.#append({ kind: 'release', site, detail: { released } });
  }

  ca(step: 'prepare' | 'activate' | 'retire'): void {
    this.#append({ kind: 'ca', detail: { step } });
  }

  refusedHandshake({ remoteAddress, code, reason, site, serial }: RefusedHandshake): void {
    const who = { ...(site && { site }), ...(serial && { serial }), remoteAddress };
    this.#append({ kind: 'refused-handshake', ...who, detail: { code, reason } });
  }

  /** Follows the registry no more, waits for lines under way, and frees the file. Safe to call twice. */
  close(): Promise<void> {
    this.#unfollow();
    return this.#audit.close();
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #append(event: AuditEvent): void {
    this.#audit.append(event).catch((error: Error) => this.emit('problem', { error }));
  }
}

/** What is exposed, with the service as it is. */
interface Exposed {
  readonly exposure: Exposure;
  readonly service: Service;
}

/** One that changes, its service too, is another one. */
function exposuresOf({ state }: Registry): Map<string, Exposed> {
  const services = new Map(state.services.map((service) => [service.name, service]));
  return new Map(
    state.exposures.map((exposure) => {
      const exposed = { exposure, service: services.get(exposure.service)! };
      return [JSON.stringify(exposed), exposed];
    })
  );
}

function told({ exposure, service }: Exposed): Pick<AuditEvent, 'site' | 'detail'> {
  const { site, dnsName, clients } = exposure;
  const { name, address, ports } = service;
  const what = { service: name, home: service.site, address, ports };
  const detail = { ...what, ...(dnsName && { dnsName }), ...(clients && { clients }) };
  // The values in it, such as addresses, are written as text.
  return { site, detail: JSON.parse(JSON.stringify(detail)) as Record<string, Json> };
}
