/**
 * What the cloud gateway writes into its audit log: who came in, who was refused, what was exposed to whom.
 * @module
 */
import {
  type AuditEvent,
  AuditLog,
  type EnrolmentOutcome,
  type Exposure,
  type Registry,
  type RevocationReceipt,
} from 'virtual-presence';
import type { RefusedPeer } from './member.ts';

export class AuditTrail {
  readonly #audit: AuditLog;
  readonly #log: (line: string) => void;
  #exposures: ReadonlyMap<string, Exposure> = new Map();

  private constructor(audit: AuditLog, log: (line: string) => void) {
    this.#audit = audit;
    this.#log = log;
  }

  /** @throws {EnvironmentError|AuditError} if the file is not to be had, or is not what was written. */
  static async open(path: string, log: (line: string) => void): Promise<AuditTrail> {
    const trail = new AuditTrail(await AuditLog.open({ path }), log);
    trail.#append({ kind: 'start', detail: { pid: process.pid } });
    return trail;
  }

  /** The last line; who notes it elsewhere finds out when the end of the log is cut off. */
  get head(): AuditLog['head'] {
    return this.#audit.head;
  }

  /** Writes what is exposed and unexposed from now on, and what has been since the last time. */
  follow(registry: Registry): void {
    const take = (): void => {
      const now = new Map(registry.state.exposures.map((each) => [keyOf(each), each]));
      for (const [key, exposure] of this.#exposures) {
        if (!now.has(key)) this.#append({ kind: 'unexpose', ...told(exposure) });
      }
      for (const [key, exposure] of now) {
        if (!this.#exposures.has(key)) this.#append({ kind: 'expose', ...told(exposure) });
      }
      this.#exposures = now;
    };
    registry.on('change', take);
    take();
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

  revocation({ scope, sites, serials, tunnelsClosed, ...rest }: RevocationReceipt): void {
    const detail = {
      scope: { ...scope },
      sites,
      serials,
      tunnelsClosed,
      elapsedMs: rest.elapsedMs,
    };
    this.#append({ kind: 'revocation', ...('site' in scope && { site: scope.site }), detail });
  }

  reinstatement(site: string): void {
    this.#append({ kind: 'reinstatement', site });
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

/** An exposure that changes its name or its clients is another one. */
function keyOf(exposure: Exposure): string {
  return JSON.stringify([exposure.site, exposure.service, exposure.dnsName, exposure.clients]);
}

function told({ site, service, dnsName, clients }: Exposure): Pick<AuditEvent, 'site' | 'detail'> {
  return { site, detail: { service, ...(dnsName && { dnsName }), ...(clients && { clients }) } };
}
