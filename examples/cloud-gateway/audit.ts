/**
 * What the cloud gateway writes into its audit log: who came in, who was refused, what was exposed to whom.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import {
  type AuditEvent,
  AuditLog,
  type EnrolmentOutcome,
  type Exposure,
  identityOfCertificate,
  type Registry,
  type RevocationReason,
  type RevocationReceipt,
  type RevocationScope,
  type Service,
} from 'virtual-presence';
import type { RefusedPeer } from 'virtual-presence/worker';

export class AuditTrail {
  readonly #audit: AuditLog;
  readonly #log: (line: string) => void;
  #exposures: ReadonlyMap<string, Exposed> = new Map();

  private constructor(audit: AuditLog, log: (line: string) => void) {
    this.#audit = audit;
    this.#log = log;
  }

  /** @throws {StoreError|AuditError} if the file is not to be had, or is not what was written. */
  static async open(path: string, log: (line: string) => void): Promise<AuditTrail> {
    const trail = new AuditTrail(await AuditLog.open({ path }), log);
    trail.#append({ kind: 'start', detail: { pid: process.pid } });
    return trail;
  }

  /** The last line; who notes it elsewhere finds out when the end of the log is cut off. */
  get head(): AuditLog['head'] {
    return this.#audit.head;
  }

  /** Writes what is exposed and unexposed from now on. What there is was written when it came. */
  follow(registry: Registry): void {
    this.#exposures = exposuresOf(registry);
    registry.on('change', () => {
      const now = exposuresOf(registry);
      for (const [key, exposure] of this.#exposures) {
        if (!now.has(key)) this.#append({ kind: 'unexpose', ...told(exposure) });
      }
      for (const [key, exposure] of now) {
        if (!this.#exposures.has(key)) this.#append({ kind: 'expose', ...told(exposure) });
      }
      this.#exposures = now;
    });
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

  /** Before anything is done: what comes of it is a line of its own. */
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

  /** The addresses of a site's clients, on request. */
  release(site: string, released: number): void {
    this.#append({ kind: 'release', site, detail: { released } });
  }

  ca(step: 'prepare' | 'activate' | 'retire'): void {
    this.#append({ kind: 'ca', detail: { step } });
  }

  refusedHandshake({ remoteAddress, code, reason, site, serial }: RefusedPeer): void {
    const who = { ...(site && { site }), ...(serial && { serial }), remoteAddress };
    this.#append({ kind: 'refused-handshake', ...who, detail: { code, reason } });
  }

  close(): Promise<void> {
    return this.#audit.close();
  }

  /** What happens goes on also when it cannot be written; the operator is told. */
  #append(event: AuditEvent): void {
    this.#audit.append(event).catch((error: Error) => this.#log(`audit log: ${error.message}`));
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
  return { site, detail: { ...what, ...(dnsName && { dnsName }), ...(clients && { clients }) } };
}
