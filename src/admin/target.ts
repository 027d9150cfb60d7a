/**
 * The cloud gateway as the admin interface sees it.
 * @module
 */
import type { PresenceController, SnapshotHost } from '../control/index.ts';
import type {
  CaptureQuery,
  ExplainQuery,
  FlowExplanation,
  PingOptions,
  PingReport,
} from '../diagnosis/index.ts';
import type {
  AuthorityStatus,
  CaMaterial,
  CertificateAuthority,
  RevocationReason,
  RevocationScope,
  SiteList,
  TokenEntry,
} from '../pki/index.ts';
import type { Registry } from '../registry/index.ts';
import type { PathStatus } from '../translator/index.ts';
import type { Page, ReceiptAnswer, ReloadAnswer } from './answers.ts';
import type { DrainAnswer, MachinesAnswer } from './machines.ts';
import type { WrittenAs } from './operation.ts';
import type { SiteFilter } from './page.ts';
import type { CloudStatusAnswer } from './status.ts';

/** The steps of a CA rollover, in their order ([RFC 4210 section 4.4](https://www.rfc-editor.org/rfc/rfc4210#section-4.4)). */
export type CaStep = 'prepare' | 'activate' | 'retire';

export interface CaStepOptions {
  /** For `prepare`: the operator's own CA. Default: a CA is generated. */
  readonly ca?: CaMaterial | undefined;
  /** For `retire`: whether to close the tunnels of edges that have not renewed; default false, which refuses the step. */
  readonly force?: boolean | undefined;
}

export interface SiteTokenOptions {
  readonly site: string;
  /** In ms; default: that of `CertificateAuthority.createToken`. */
  readonly lifetimeMs?: number;
}

/** The CAs of a cloud gateway, and what the next step of a rollover waits for. */
export interface CloudCaStatus extends AuthorityStatus {
  /** What the operator has to do before the CA expires, from 60 days before that; else undefined. */
  readonly warning: string | undefined;
  /** The sites whose tunnels `retire` would close: it is refused without `force` while there are any. */
  readonly blocking: SiteList;
}

/** A cloud gateway, for `cloudHandlers`. An error that a method throws becomes the answer to the operator. */
export interface AdminTarget {
  readonly registry: Registry;
  readonly controller: PresenceController;
  readonly authority: CertificateAuthority;
  /** How many workers carry packets; `moveSite` takes their numbers, from 0. */
  readonly workerCount: number;
  /** @param site the only one in `sites`; default all. @throws {NotFoundError} if there is no such site. */
  status(site?: string): Promise<WrittenAs<CloudStatusAnswer>>;
  /** Lists paths; a page may have fewer than `limit`, although there is a next one. */
  pathPage(query: SiteFilter): Promise<Page<PathStatus>>;
  /** Explains whether a flow or a packet passes. */
  explain(query: ExplainQuery): Promise<FlowExplanation>;
  /** Captures packets as a pcapng file, piece by piece. */
  capture(query: CaptureQuery, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>>;
  /** Measures the round-trip time of a site's tunnel. */
  ping(site: string, options: PingOptions): Promise<PingReport>;
  /** Returns a token with which the edge gateway of a site enrols once. */
  createToken(options: SiteTokenOptions): Promise<string>;
  /** Deletes a token by its id, and returns it as it was. */
  deleteToken(id: string): Promise<TokenEntry>;
  caStatus(): CloudCaStatus;
  /** Returns the hosts that a name resolves to at a site; default: at the cloud's own site. */
  lookup(name: string, site?: string): readonly SnapshotHost[];
  /** Releases the addresses of a site's clients, and returns their number. */
  releaseClients(site: string): Promise<number>;
  /** Revokes a site, a certificate or a key, and terminates its tunnels. */
  revoke(scope: RevocationScope, reason?: RevocationReason): Promise<WrittenAs<ReceiptAnswer>>;
  /** Lets a revoked site enrol again. */
  reinstate(site: string): Promise<void>;
  /** Takes one step of a CA rollover. */
  rotateCa(step: CaStep, options?: CaStepOptions): Promise<void>;
  /** Moves a site to another worker, by its number, or to another machine. */
  moveSite(site: string, to: number | { readonly machine: string }): Promise<void>;
  /** Returns the machines of the cloud. @throws {ConflictError} if the gateway is the only one of its cloud. */
  machines(): WrittenAs<MachinesAnswer>;
  /** Hands all sites of this machine over to the others, and takes none until `resume`. */
  drain(): Promise<DrainAnswer>;
  /** Takes sites again. */
  resume(): Promise<void>;
  /** Removes a machine that is off. */
  removeMachine(machine: string): Promise<void>;
  /** Reads the desired state of the configuration again. */
  reload(): Promise<ReloadAnswer>;
}
