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
import {
  type DesiredSource,
  type Exposure,
  type ExposureId,
  exposureId,
  type Registry,
  type Service,
  type Touched,
} from '../registry/index.ts';
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
  /** The exposures in force that are written, by `exposureId`. */
  #exposures = new Map<string, Exposed>();
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

  /**
   * Writes changes of exposures in force from now on, also when their service changes. Present exposures were written when
   * they were made. A change costs what it touches.
   */
  follow(registry: Pick<Registry, keyof DesiredSource | 'on' | 'off'>): void {
    this.#unfollow();
    this.#exposures = new Map();
    for (const exposure of registry.exposures()) this.#note(registry, exposure);
    const onChange = (touched: Touched): void => this.#compare(registry, touched);
    registry.on('change', onChange);
    this.#unfollow = () => registry.off('change', onChange);
  }

  token(site: string): void {
    this.#append({ kind: 'token', site });
  }

  /** Writes that a token was deleted. @param isUsed whether a site had enrolled with it before */
  tokenDeletion(site: string, id: string, isUsed: boolean): void {
    this.#append({ kind: 'token', site, detail: { id, deleted: true, used: isUsed } });
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

  /**
   * Writes that a capture of packets begins, or has ended.
   *
   * @param filter which packets it captures, as plain data
   * @param summary what it has got; undefined when it begins
   */
  capture(filter: object, summary: object | undefined): void {
    const detail = { step: summary === undefined ? 'begin' : 'end', filter, ...summary };
    const plain = JSON.parse(JSON.stringify(detail)) as Record<string, Json>;
    this.#append({ kind: 'capture', detail: plain });
  }

  /**
   * Writes what an operator has done with a machine of the cloud.
   *
   * @param site the site that was moved to the machine; undefined for the other acts
   */
  machine(act: 'drain' | 'resume' | 'remove' | 'move', machine: string, site?: string): void {
    this.#append({ kind: 'machine', ...(site && { site }), detail: { act, machine } });
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

  /** Writes what of the touched exposures is different now: first what has ended. */
  #compare(desired: DesiredSource, { services, exposures }: Touched): void {
    const ids = new Map(exposures);
    for (const service of services) {
      for (const exposure of desired.exposuresOf(service)) ids.set(exposureId(exposure), exposure);
    }
    const ended: Exposed[] = [];
    const begun: Exposed[] = [];
    for (const [key, id] of ids) {
      const before = this.#exposures.get(key);
      const now = this.#note(desired, id);
      if (before !== undefined && now !== undefined && isSame(before, now)) continue;
      if (before !== undefined) ended.push(before);
      if (now !== undefined) begun.push(now);
    }
    for (const exposed of ended) this.#append({ kind: 'unexpose', ...describe(exposed) });
    for (const exposed of begun) this.#append({ kind: 'expose', ...describe(exposed) });
  }

  /** Notes an exposure as it is now, and returns it; undefined if there is none. */
  #note(desired: DesiredSource, id: ExposureId): Exposed | undefined {
    const exposure = desired.exposure(id);
    const service = exposure && desired.service(exposure.service);
    const exposed = exposure && service && { exposure, service };
    if (exposed === undefined) this.#exposures.delete(exposureId(id));
    else this.#exposures.set(exposureId(id), exposed);
    return exposed;
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

function isSame(a: Exposed, b: Exposed): boolean {
  if (a.exposure === b.exposure && a.service === b.service) return true;
  return JSON.stringify(a) === JSON.stringify(b);
}

function describe({ exposure, service }: Exposed): Pick<AuditEvent, 'site' | 'detail'> {
  const { site, dnsName, clients } = exposure;
  const { name, address, ports } = service;
  const what = { service: name, home: service.site, address, ports };
  const detail = { ...what, ...(dnsName && { dnsName }), ...(clients && { clients }) };
  // The values in it, such as addresses, are written as text.
  return { site, detail: JSON.parse(JSON.stringify(detail)) as Record<string, Json> };
}
