/**
 * What a gateway keeps of its trust: the CA of a cloud, the credentials of an edge.
 * @module
 */
export {
  AuthorityKeeper,
  type AuthorityKeeperEvents,
  type AuthorityKeeperOptions,
} from './authority-keeper.ts';
export { CredentialKeeper, type CredentialKeeperOptions, MENDABLE } from './credential-keeper.ts';
export {
  SiteCredentials,
  type SiteCredentialsOptions,
  type SiteIdentity,
} from './site-credentials.ts';
