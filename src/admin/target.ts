/**
 * What the admin interface asks of a cloud gateway.
 * @module
 */
import type { PresenceController } from '../control/index.ts';
import type {
  CaMaterial,
  CertificateAuthority,
  RevocationReason,
  RevocationScope,
} from '../pki/index.ts';
import type { Registry } from '../registry/index.ts';
import type { Explanation, PathStatus } from '../translator/index.ts';
import type { RevocationReceipt } from '../trust/index.ts';

/** The steps of a change of CA, in their order ([RFC 4210 section 4.4](https://www.rfc-editor.org/rfc/rfc4210#section-4.4)). */
export type CaStep = 'prepare' | 'activate' | 'retire';

export interface CaStepOptions {
  /** The operator's own CA, with `prepare`; by default one is made. */
  readonly ca?: CaMaterial | undefined;
  /** With `retire`: whether edges that are connected and have not renewed are cut off; default false. */
  readonly force?: boolean | undefined;
}

export interface SiteTokenOptions {
  readonly site: string;
  /** In ms; the default is that of `CertificateAuthority.createToken`. */
  readonly lifetimeMs?: number;
}

/** A cloud gateway, as `adminRoutes` sees it. What a method throws becomes the answer to the operator. */
export interface AdminTarget {
  readonly registry: Registry;
  readonly controller: PresenceController;
  readonly authority: CertificateAuthority;
  /** How many workers carry packets; `moveSite` takes their numbers. */
  readonly workerCount: number;
  /** Returns what can be written as JSON. */
  status(): Promise<object>;
  paths(): Promise<readonly PathStatus[]>;
  /** What would become of a packet that comes out of the realm `realm`. */
  explain(packet: Uint8Array, realm: string): Promise<Explanation>;
  /** Returns a token with which the edge gateway of a site enrols once. */
  createToken(options: SiteTokenOptions): Promise<string>;
  /** Releases the addresses of a site's clients; returns how many there were. */
  releaseClients(site: string): Promise<number>;
  /** Cuts a site, a certificate or a key off; says what that took. */
  revoke(scope: RevocationScope, reason?: RevocationReason): Promise<RevocationReceipt>;
  /** Lets a revoked site enrol again. */
  reinstate(site: string): Promise<void>;
  /** Does one step of a change of CA. */
  rotateCa(step: CaStep, options?: CaStepOptions): Promise<void>;
  /** Gives a site to another worker. */
  moveSite(site: string, worker: number): Promise<void>;
  /** Reads the desired state of the configuration again; returns what is to be answered. */
  reload(): Promise<object>;
}
