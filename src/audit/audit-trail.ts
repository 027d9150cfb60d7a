/**
 * Writes the events of a cloud gateway to its audit log: which peers were admitted or refused, and which services were
 * exposed to which sites.
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
  /** Default: the system's clock. */
  readonly clock?: Clock | undefined;
}

export interface AuditTrailEvents {
  /** A line could not be written. The event that it describes has happened nevertheless. */
  problem: [problem: { readonly error: Error }];
}

/** A connection to the tunnel port that was refused. */
export interface RefusedHandshake {
  readonly remoteAddress: string;
  readonly code: string;
  readonly reason: string;
  /** The site of the peer, if its certificate was verified. */
  readonly site?: string | undefined;
  /** The serial number of the certificate, if it was verified. */
  readonly serial?: string | undefined;
}

/** The audit log of a cloud gateway, with a method for each kind of event. */
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
   * @throws {StoreError} if another process has the file open, or it cannot be opened.
   * @throws {AuditError} if the last lines of the file were changed.
   * @throws {ApiMisuseError} if an option is invalid.
   */
  static async open(options: AuditTrailOptions): Promise<AuditTrail> {
    const trail = new AuditTrail(await AuditLog.open(options));
    trail.#append({ kind: 'start', detail: { pid: process.pid } });
    return trail;
  }

  /** The number and hash of the last line. With a copy of it elsewhere, a truncated log can be detected. */
  get head(): AuditHead {
    return this.#audit.head;
  }

  /** Writes changes of exposures from now on. Present exposures were written when they were made. */
  follow(registry: Registry): void {
    this.#unfollow();
    this.#exposures = exposuresOf(registry);
    const onChange = (): void => {
      const now = exposuresOf(registry);
      for (const [key, exposure] of this.#exposures) {
        if (!now.has(key)) this.#append({ kind: 'unexpose', ...describe(exposure) });
      }
      for (const [key, exposure] of now) {
        if (!this.#exposures.has(key)) this.#append({ kind: 'expose', ...describe(exposure) });
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

  /** Writes that a revocation begins. Call it before the revocation; its result is another line. */
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

  /** Writes that the addresses of a site's clients were released on request. */
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

  /** Stops following the registry, waits for lines in progress, and closes the file. Safe to call twice. */
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

/** An exposure with the service as it is now. */
interface Exposed {
  readonly exposure: Exposure;
  readonly service: Service;
}

/** Returns the exposures by their content, so that one whose service changes has another key. */
function exposuresOf({ state }: Registry): Map<string, Exposed> {
  const services = new Map(state.services.map((service) => [service.name, service]));
  return new Map(
    state.exposures.map((exposure) => {
      const exposed = { exposure, service: services.get(exposure.service)! };
      return [JSON.stringify(exposed), exposed];
    })
  );
}

function describe({ exposure, service }: Exposed): Pick<AuditEvent, 'site' | 'detail'> {
  const { site, dnsName, clients } = exposure;
  const { name, address, ports } = service;
  const what = { service: name, home: service.site, address, ports };
  const detail = { ...what, ...(dnsName && { dnsName }), ...(clients && { clients }) };
  // The values in it, such as addresses, are written as text.
  return { site, detail: JSON.parse(JSON.stringify(detail)) as Record<string, Json> };
}
