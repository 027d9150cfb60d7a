/**
 * The local HTTP interface for operators and their scripts: the table of its operations, the server and the client.
 * @module
 */
export {
  ADMIN_SERVER_DEFAULTS,
  AdminServer,
  type AdminServerOptions,
} from './admin-server.ts';
export type {
  BindingAnswer,
  CaAnswer,
  CaStatusAnswer,
  CertificateAnswer,
  DesiredAnswer,
  DesiredChangeAnswer,
  ExposureAnswer,
  NamesAnswer,
  NewTokenAnswer,
  Page,
  PathAnswer,
  PresenceAnswer,
  ReceiptAnswer,
  ReloadAnswer,
  RevocationAnswer,
  ScopeAnswer,
  SelectorAnswer,
  ServiceAnswer,
  SiteAnswer,
  SiteListAnswer,
  TermsAnswer,
  TokenAnswer,
  UnconfirmedAnswer,
  WhoisAnswer,
} from './answers.ts';
export type {
  CaptureBody,
  DesiredBody,
  EdgeExplainBody,
  ExplainBody,
  ExposureBody,
  MachineMoveBody,
  MoveBody,
  PacketBody,
  PingBody,
  RevocationBody,
  RolloverBody,
  SelectorBody,
  ServiceBody,
  SiteBody,
  TokenBody,
  WorkerMoveBody,
} from './bodies.ts';
export {
  type AdminAnswer,
  type AdminCall,
  AdminClient,
  type AdminClientOptions,
  AdminProblemError,
  type StreamName,
} from './client.ts';
export { cloudHandlers } from './cloud-handlers.ts';
export {
  CLOUD_OPERATIONS,
  type CloudOperations,
  type LookupQuery,
  type MachineParams,
  type StatusQuery,
} from './cloud-operations.ts';
export type {
  DesiredOperations,
  ExposureParams,
  SelectorParams,
  ServiceParams,
  SiteParams,
} from './desired-operations.ts';
export { type EdgeTarget, type EdgeTargetStatus, edgeHandlers } from './edge-handlers.ts';
export { EDGE_OPERATIONS, type EdgeOperations, type EnrolmentBody } from './edge-operations.ts';
export type {
  EdgeExplainAnswer,
  ExplainAnswer,
  FixAnswer,
  PingAnswer,
  StageAnswer,
} from './explanation.ts';
export {
  Accepted,
  type AdminRequest,
  type Handler,
  type HandlerAnswer,
  type HandlerStream,
  type Handlers,
  Versioned,
} from './handler.ts';
export type {
  DrainAnswer,
  MachineAnswer,
  MachinesAnswer,
  OwnMachineAnswer,
} from './machines.ts';
export {
  type AnyOperation,
  type Call,
  type CallOf,
  type CallPart,
  type Operation,
  type Operations,
  PCAPNG_TYPE,
  type Role,
  type Route,
  type WrittenAs,
} from './operation.ts';
export type { ExposureFilter, OwnerFilter, PageQuery, SiteFilter } from './page.ts';
export { AdminRequestError, PROBLEM_TYPE, type Problem } from './problem.ts';
export type {
  CloudStatusAnswer,
  ConnectedEdgeAnswer,
  Counters,
  DerivationAnswer,
  EdgeStatusAnswer,
  EndpointAnswer,
  PoolAnswer,
  PoolVersionAnswer,
  SiteStatusAnswer,
  WarningAnswer,
} from './status.ts';
export type {
  AdminTarget,
  CaStep,
  CaStepOptions,
  CloudCaStatus,
  SiteTokenOptions,
} from './target.ts';
