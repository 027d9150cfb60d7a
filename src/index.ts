/**
 * virtual-presence: services of a cloud and of its edge sites communicate as if they were in one local network, while
 * the networks stay separate. This entry point exports the two gateways, the classes that they consist of, and the types
 * of their options, results and events. Everything else is in the entry points of the modules, such as
 * `virtual-presence/dns`.
 *
 * @module virtual-presence
 */

export type { AdminTarget, CaStep, CaStepOptions, SiteTokenOptions } from './admin/index.ts';
export {
  AddressAllocator,
  type AddressAllocatorOptions,
  type AllocatorStats,
  type Lease,
  type LeaseInput,
} from './allocator/index.ts';
export type { AuditHead } from './audit/index.ts';
export { type AddressInput, type Family, IpAddress } from './base/address.ts';
export type { Clock } from './base/clock.ts';
export type { HostPort, HostPortInput } from './base/host-port.ts';
export type { KeyExchangeGroup } from './base/key-exchange.ts';
export type { PortInput } from './base/port-range.ts';
export { IpPrefix, type PrefixInput } from './base/prefix.ts';
export type { ProxyChoice, ProxyOption } from './base/proxy.ts';
export { VERSION } from './base/version.ts';
export {
  type ConnectedEdgeStatus,
  type PlanTarget,
  type PoolStatus,
  type PoolVersionStatus,
  type PoolWarning,
  PresenceController,
  type PresenceControllerEvents,
  type PresenceControllerOptions,
  type PresenceUse,
  type RenewalCounters,
  type Snapshot,
  type SnapshotHost,
  type Whois,
} from './control/index.ts';
export type { CloudDataPlaneOptions, PendingQueueOptions } from './dataplane/index.ts';
export {
  type DeviceCounters,
  type DeviceOptions,
  type FaultCounters,
  type Faults,
  LinuxTun,
  type LinuxTunOptions,
  MemoryDevice,
  type MemoryDeviceOptions,
  type PacketDevice,
  type Schedule,
  SocketDevice,
  type SocketDeviceCounters,
  type SocketDeviceOptions,
  type TunConfiguration,
  type TunDeviceOptions,
  type TunOffload,
  type TunRoutes,
  type UdpDeviceOptions,
  type UnixDeviceOptions,
  type WakeupKind,
} from './device/index.ts';
export {
  type DnsOptions,
  type DnsTransport,
  type Edns,
  type Forwarder,
  type ForwardRule,
  type Query,
  type ResolverRules,
  type ResponseRateOptions,
  SiteResolver,
  type SiteResolverCounters,
  type SiteResolverOptions,
  type Upstream,
} from './dns/index.ts';
export { PresenceError } from './errors.ts';
export {
  type AuthorizeRequest,
  type CloudAddresses,
  type CloudEvents,
  CloudGateway,
  type CloudGatewayOptions,
  type CloudSiteStatus,
  type CloudState,
  type CloudStateChange,
  type CloudStatus,
  type CloudTrustOptions,
  type CommonOptions,
  type EdgeAddresses,
  type EdgeChange,
  type EdgeEvents,
  EdgeGateway,
  type EdgeGatewayOptions,
  type EdgeState,
  type EdgeStateChange,
  type EdgeStatus,
  type EnrolmentOptions,
  type HostConflict,
  type LeaseOptions,
  type MetricsOptions,
  type SocketsDeviceOptions,
  type StateOptions,
} from './gateway/index.ts';
export {
  encodeMetrics,
  type HistogramBucket,
  type HistogramFamily,
  type HistogramSample,
  LOG_EVENTS,
  type LogEvent,
  type LogFields,
  type Logger,
  METRICS_CONTENT_TYPE,
  type MetricFamily,
  type MetricHead,
  type MetricLabels,
  type MetricSample,
  type Readiness,
  type ReadinessReason,
  type ReadinessSubject,
  type ValueFamily,
} from './observe/index.ts';
export {
  type AuthorityEvents,
  type CaMaterial,
  CertificateAuthority,
  type CertificateAuthorityOptions,
  type CertificateRecord,
  type Credentials,
  type GatewayIdentity,
  type IssuedCertificate,
  type IssueOptions,
  type KeepStep,
  type KeyType,
  type RedeemOptions,
  type Redemption,
  type RevocationChanges,
  type RevocationReason,
  type RevocationRecord,
  type RevocationReport,
  type RevocationScope,
  type RevocationTable,
  type RolloverState,
  type TokenOptions,
} from './pki/index.ts';
export {
  type DesiredInput,
  type DesiredSource,
  type DesiredState,
  type Exposure,
  type ExposureId,
  type ExposureInput,
  type ExposureKey,
  type ExposureTerms,
  type ExposureTermsInput,
  type Labels,
  type Owner,
  Registry,
  type RegistryEvents,
  type RegistryOptions,
  type SelectorExposure,
  type SelectorExposureInput,
  type Service,
  type ServiceBinding,
  type ServiceInput,
  type Site,
  type SiteInput,
  type Touched,
} from './registry/index.ts';
export {
  SocketStack,
  type SocketStackLimits,
  type SocketStackOptions,
  type SocketStackSettings,
} from './sockets/index.ts';
export {
  type Change,
  type Entry,
  FileSecrets,
  type FileSecretsOptions,
  FileStore,
  type FileStoreOptions,
  type Json,
  MemorySecrets,
  MemoryStore,
  type SecretChanges,
  type Secrets,
  type Store,
  type Write,
} from './store/index.ts';
export {
  type EndpointInput,
  type Explanation,
  type ExplanationStep,
  type PacketCapture,
  PacketTranslator,
  type PacketTranslatorOptions,
  type PathStatus,
  type Permit,
  type PermitInput,
  type Presence,
  type PresenceInput,
  type Realm,
  type RealmInput,
  type Reject,
  type TranslationPlan,
  type TranslationPlanInput,
  Verdict,
  type VerdictCounters,
  type VerdictName,
} from './translator/index.ts';
export type { RevocationReceipt, TerminationReport } from './trust/index.ts';
export {
  type BackoffOptions,
  type CloseCause,
  type CloseEndpoint,
  type ConnectionCounters,
  type ConnectionInfo,
  type DialOptions,
  type Failure,
  type FailureKind,
  type HandshakeLimits,
  type ListenOptions,
  MtlsTunnel,
  type NotSentLowat,
  type Tunnel,
  type TunnelCandidate,
  type TunnelEvents,
  type TunnelLimits,
  type TunnelRefusal,
  type TunnelState,
} from './tunnel/index.ts';
export type {
  AccessRules,
  CandidateEdge,
  ConnectionLimits,
  WorkerPeer,
  WorkerPoolOptions,
  WorkerPoolStatus,
} from './worker/index.ts';
