/**
 * Trust: the certificate authority of a trust domain, and how a site gets its first certificate.
 * @module
 */
export { CertificateAuthority } from './authority.ts';
export type {
  AuthorityEvents,
  AuthorityOptions,
  CreateAuthorityOptions,
  IssuedCertificate,
  LoadAuthorityOptions,
  Redemption,
  TokenOptions,
} from './authority-options.ts';
export { type Enrolment, type EnrolOptions, enrol } from './enrolment-client.ts';
export {
  type EnrolmentCounters,
  EnrolmentServer,
  type EnrolmentServerOptions,
} from './enrolment-server.ts';
export { type GatewayKey, generateGatewayKey, type KeyType } from './keys.ts';
export {
  formatIdentity,
  type GatewayIdentity,
  identityOfCertificate,
  parseIdentity,
} from './names.ts';
export type {
  CertificateRecord,
  RevocationReason,
  RevocationRecord,
  RevocationScope,
} from './revocations.ts';
export { createSigningRequest } from './signing-request.ts';
export { type EnrolmentToken, parseToken } from './token.ts';
