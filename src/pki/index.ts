/**
 * Certificates of gateways: the authority of a trust domain, enrolment, renewal and revocation.
 * @module
 */
export type { ConnectionLimiterOptions } from '../base/connection-limiter.ts';
export { CertificateAuthority } from './authority.ts';
export {
  type AuthorityEvents,
  CERTIFICATE_AUTHORITY_DEFAULTS,
  type CertificateAuthorityOptions,
  type IssuedCertificate,
  type IssueOptions,
  type KeepStep,
  type RedeemOptions,
  type Redemption,
  TOKEN_DEFAULTS,
  type TokenOptions,
} from './authority-options.ts';
export type {
  AuthorityStatus,
  CaCertificateStatus,
  CaStatus,
  SiteList,
} from './authority-status.ts';
export {
  type CaMaterial,
  GENERATE_CA_DEFAULTS,
  type GenerateCaOptions,
  type GeneratedCa,
  generateCa,
} from './ca.ts';
export type { CaRolloverMaterial, RolloverState } from './ca-rollover.ts';
export type { CertificateRecord } from './certificate-ledger.ts';
export type { Credentials } from './credentials.ts';
export {
  identityOfCredentials,
  isIssuedBy,
  type RenewedCertificate,
} from './credentials-check.ts';
export { encryptPrivateKey } from './encrypted-key.ts';
export { ENROL_DEFAULTS, type Enrolment, type EnrolOptions, enrol } from './enrolment-client.ts';
export type { EnrolmentRefusal } from './enrolment-message.ts';
export { EnrolmentServer } from './enrolment-server.ts';
export {
  type AuthorizeEnrolment,
  ENROLMENT_SERVER_DEFAULTS,
  type EnrolmentCandidate,
  type EnrolmentCounters,
  type EnrolmentOutcome,
  type EnrolmentServerEvents,
  type EnrolmentServerOptions,
} from './enrolment-server-options.ts';
export { type GatewayKey, generateGatewayKey, type KeyType } from './keys.ts';
export type { ListQuery } from './list-query.ts';
export {
  formatIdentity,
  type GatewayIdentity,
  identityOfCertificate,
  parseIdentity,
} from './names.ts';
export { CertificateRenewer } from './renewal.ts';
export {
  CERTIFICATE_RENEWER_DEFAULTS,
  type CertificateRenewerOptions,
  type RenewalEvents,
  type RenewalState,
} from './renewal-options.ts';
export type {
  RevocationEntry,
  RevocationReason,
  RevocationRecord,
  RevocationScope,
} from './revocation-index.ts';
export type { CrlStatus } from './revocation-list.ts';
export type { RevocationChanges, RevocationTable } from './revocation-table.ts';
export {
  isRevokedBy,
  type RevocationEvents,
  type RevocationReport,
  Revocations,
  type RevocationsOptions,
} from './revocations.ts';
export { createSigningRequest } from './signing-request.ts';
export { type EnrolmentToken, parseToken } from './token.ts';
export type { TokenEntry } from './token-ledger.ts';
