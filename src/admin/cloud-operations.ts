/**
 * The operations of a cloud gateway.
 * @module
 */
import * as v from 'valibot';
import type { IpAddress } from '../base/address.ts';
import { AddressText, NameText, type Schema } from '../base/schema.ts';
import {
  type CaAnswer,
  CaAnswerSchema,
  type NamesAnswer,
  NamesAnswerSchema,
  type NewTokenAnswer,
  NewTokenAnswerSchema,
  type Page,
  type PathAnswer,
  PathAnswerSchema,
  type PresenceAnswer,
  PresenceAnswerSchema,
  pageSchema,
  type ReceiptAnswer,
  ReceiptAnswerSchema,
  type ReloadAnswer,
  ReloadAnswerSchema,
  type RevocationAnswer,
  RevocationAnswerSchema,
  type TokenAnswer,
  TokenAnswerSchema,
  type WhoisAnswer,
  WhoisAnswerSchema,
} from './answers.ts';
import {
  type CaptureBody,
  CaptureBodySchema,
  type ExplainBody,
  ExplainBodySchema,
  type MoveBody,
  MoveBodySchema,
  type PingBody,
  PingBodySchema,
  type RevocationBody,
  RevocationBodySchema,
  type RolloverBody,
  RolloverBodySchema,
  type TokenBody,
  TokenBodySchema,
} from './bodies.ts';
import {
  DESIRED_OPERATIONS,
  type DesiredOperations,
  inSite,
  type SiteParams,
} from './desired-operations.ts';
import {
  type ExplainAnswer,
  ExplainAnswerSchema,
  type PingAnswer,
  PingAnswerSchema,
} from './explanation.ts';
import {
  type DrainAnswer,
  DrainAnswerSchema,
  type MachinesAnswer,
  MachinesAnswerSchema,
} from './machines.ts';
import { DOCUMENT_OPERATION, type Operation, PCAPNG_TYPE } from './operation.ts';
import { type SiteFilter, SiteFilterSchema } from './page.ts';
import { type CloudStatusAnswer, CloudStatusAnswerSchema } from './status.ts';

/** The status of which sites. */
export interface StatusQuery {
  /** The only one in `sites`. Default: all. */
  readonly site?: string | undefined;
}

/** Which name. */
export interface LookupQuery {
  /** A full domain name, or a name within the zone of the site. */
  readonly name: string;
  /** Default: the cloud's own site. */
  readonly site?: string | undefined;
}

/** Which machine. */
export interface MachineParams {
  readonly machine: string;
}

export interface CloudOperations extends DesiredOperations {
  readonly getDocument: typeof DOCUMENT_OPERATION;
  readonly getStatus: Operation<{ query: StatusQuery; result: CloudStatusAnswer }>;

  readonly releaseClients: Operation<{ params: SiteParams; result: { released: number } }>;

  readonly listTokens: Operation<{ query: SiteFilter; result: Page<TokenAnswer> }>;
  readonly createToken: Operation<{ body: TokenBody; result: NewTokenAnswer }>;
  readonly deleteToken: Operation<{ params: { token: string }; result: TokenAnswer }>;

  readonly listRevocations: Operation<{ query: SiteFilter; result: Page<RevocationAnswer> }>;
  readonly revoke: Operation<{ body: RevocationBody; result: ReceiptAnswer }>;
  readonly reinstate: Operation<{ params: SiteParams }>;

  readonly listPresences: Operation<{ query: SiteFilter; result: Page<PresenceAnswer> }>;
  readonly listPaths: Operation<{ query: SiteFilter; result: Page<PathAnswer> }>;
  readonly whois: Operation<{ query: { site: string; address: IpAddress }; result: WhoisAnswer }>;
  readonly lookup: Operation<{ query: LookupQuery; result: NamesAnswer }>;
  readonly explain: Operation<{ body: ExplainBody; result: ExplainAnswer }>;
  readonly ping: Operation<{ params: SiteParams; body: PingBody; result: PingAnswer }>;
  readonly capture: Operation<{ body: CaptureBody; stream: AsyncIterable<Uint8Array> }>;

  readonly moveSite: Operation<{ body: MoveBody }>;
  readonly listMachines: Operation<{ result: MachinesAnswer }>;
  readonly drainMachine: Operation<{ params: MachineParams; result: DrainAnswer }>;
  readonly resumeMachine: Operation<{ params: MachineParams }>;
  readonly removeMachine: Operation<{ params: MachineParams }>;
  readonly reload: Operation<{ result: ReloadAnswer }>;
  readonly getCa: Operation<{ result: CaAnswer }>;
  readonly getTrustBundle: Operation<{ result: string }>;
  readonly getCrl: Operation<{ result: string }>;
  readonly rollCa: Operation<{ body: RolloverBody; result: CaAnswer }>;
}

const inMachine: Schema<MachineParams> = v.strictObject({ machine: NameText });

export const CLOUD_OPERATIONS: CloudOperations = {
  ...DESIRED_OPERATIONS,
  getDocument: DOCUMENT_OPERATION,
  getStatus: {
    method: 'GET',
    path: '/v1/status',
    summary: 'The gateway, its sites and its counters',
    role: 'viewer',
    query: v.strictObject({ site: v.optional(NameText) }) as Schema<StatusQuery>,
    result: CloudStatusAnswerSchema,
  },
  releaseClients: {
    method: 'DELETE',
    path: '/v1/sites/{site}/clients',
    summary: "Releases the addresses of a site's clients",
    role: 'operator',
    params: inSite,
    result: v.object({ released: v.number() }),
  },
  listTokens: {
    method: 'GET',
    path: '/v1/tokens',
    summary: 'The enrolment tokens, without their secrets',
    role: 'viewer',
    query: SiteFilterSchema,
    result: pageSchema(TokenAnswerSchema),
  },
  createToken: {
    method: 'POST',
    path: '/v1/tokens',
    summary: 'Makes a token with which the edge gateway of a site enrols once',
    role: 'operator',
    body: TokenBodySchema,
    result: NewTokenAnswerSchema,
    creates: true,
  },
  deleteToken: {
    method: 'DELETE',
    path: '/v1/tokens/{token}',
    summary: 'Deletes a token, which is named by its id; nobody enrols with it any more',
    role: 'operator',
    params: v.strictObject({ token: v.pipe(v.string(), v.maxLength(64)) }),
    result: TokenAnswerSchema,
  },
  listRevocations: {
    method: 'GET',
    path: '/v1/revocations',
    summary: 'What is revoked',
    role: 'viewer',
    query: SiteFilterSchema,
    result: pageSchema(RevocationAnswerSchema),
  },
  revoke: {
    method: 'POST',
    path: '/v1/revocations',
    summary: 'Revokes a site, a certificate or a key, and ends its tunnels',
    role: 'operator',
    body: RevocationBodySchema,
    result: ReceiptAnswerSchema,
    creates: true,
    accepts: true,
  },
  reinstate: {
    method: 'DELETE',
    path: '/v1/revocations/{site}',
    summary: 'Lets a revoked site enrol again',
    role: 'admin',
    params: inSite,
  },
  listPresences: {
    method: 'GET',
    path: '/v1/presences',
    summary: 'The presences in use; `site` is where they are',
    role: 'viewer',
    query: SiteFilterSchema,
    result: pageSchema(PresenceAnswerSchema),
  },
  listPaths: {
    method: 'GET',
    path: '/v1/paths',
    summary: 'The paths that have carried packets, with their counters',
    role: 'viewer',
    query: SiteFilterSchema,
    result: pageSchema(PathAnswerSchema),
  },
  whois: {
    method: 'GET',
    path: '/v1/whois',
    summary: 'The host that a presence stands for',
    role: 'viewer',
    query: v.strictObject({ site: NameText, address: AddressText }),
    result: WhoisAnswerSchema,
  },
  lookup: {
    method: 'GET',
    path: '/v1/lookup',
    summary: 'What a name resolves to at a site',
    role: 'viewer',
    query: v.strictObject({
      name: v.pipe(v.string(), v.minLength(1), v.maxLength(253)),
      site: v.optional(NameText),
    }),
    result: NamesAnswerSchema,
  },
  explain: {
    method: 'POST',
    path: '/v1/explain',
    summary: 'Whether a flow or a packet passes, what stops it, and what would mend that',
    role: 'viewer',
    body: ExplainBodySchema,
    result: ExplainAnswerSchema,
  },
  ping: {
    method: 'POST',
    path: '/v1/sites/{site}/ping',
    summary: "Measures the round-trip time of a site's tunnel now",
    role: 'viewer',
    params: inSite,
    body: PingBodySchema,
    result: PingAnswerSchema,
  },
  capture: {
    method: 'POST',
    path: '/v1/captures',
    summary: 'Captures packets before and after their translation, as a pcapng file',
    role: 'operator',
    body: CaptureBodySchema,
    streamType: PCAPNG_TYPE,
  },
  moveSite: {
    method: 'POST',
    path: '/v1/moves',
    summary: 'Moves a site to another worker, or to another machine; its connections survive',
    role: 'admin',
    body: MoveBodySchema,
  },
  listMachines: {
    method: 'GET',
    path: '/v1/machines',
    summary: 'The machines of the cloud, and the state of the one that is asked',
    role: 'viewer',
    result: MachinesAnswerSchema,
  },
  drainMachine: {
    method: 'POST',
    path: '/v1/machines/{machine}/drain',
    summary: 'Hands the sites of the machine that is asked over to the others; it takes no more',
    role: 'admin',
    params: inMachine,
    result: DrainAnswerSchema,
  },
  resumeMachine: {
    method: 'POST',
    path: '/v1/machines/{machine}/resume',
    summary: 'Lets the machine that is asked take sites again',
    role: 'admin',
    params: inMachine,
  },
  removeMachine: {
    method: 'DELETE',
    path: '/v1/machines/{machine}',
    summary:
      "Removes a machine, on the operator's word that it is off; nobody waits for it any more",
    role: 'admin',
    params: inMachine,
  },
  reload: {
    method: 'POST',
    path: '/v1/reload',
    summary: 'Reads the configuration again',
    role: 'operator',
    result: ReloadAnswerSchema,
  },
  getCa: {
    method: 'GET',
    path: '/v1/ca',
    summary: 'The CAs, and what the next step of a rollover waits for',
    role: 'viewer',
    result: CaAnswerSchema,
  },
  getTrustBundle: {
    method: 'GET',
    path: '/v1/ca/bundle',
    summary: 'The certificates of all CAs that are trusted now',
    role: 'viewer',
    result: v.string(),
    textType: 'application/x-pem-file',
  },
  getCrl: {
    method: 'GET',
    path: '/v1/crl',
    summary: 'The certificate revocation list',
    role: 'viewer',
    result: v.string(),
    textType: 'application/x-pem-file',
  },
  rollCa: {
    method: 'POST',
    path: '/v1/ca/rollover',
    summary: 'Takes one step of a CA rollover',
    role: 'admin',
    body: RolloverBodySchema,
    result: CaAnswerSchema,
  },
};
