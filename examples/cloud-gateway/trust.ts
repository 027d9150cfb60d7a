/**
 * The CA of the cloud gateway: made at the first start, then read from the state directory.
 * @module
 */
import {
  CertificateAuthority,
  createSigningRequest,
  generateGatewayKey,
  type Store,
  type TunnelCredentials,
} from 'virtual-presence';
import type { StateDirectory } from '../program/files.ts';

export async function openAuthority(
  trustDomain: string,
  state: StateDirectory,
  store: Store
): Promise<CertificateAuthority> {
  if (state.has(CERTIFICATE)) {
    const certificatePem = state.read(CERTIFICATE);
    const privateKeyPem = state.read(KEY);
    return CertificateAuthority.load({ trustDomain, store, certificatePem, privateKeyPem });
  }
  const authority = await CertificateAuthority.create({ trustDomain, store });
  state.write(KEY, authority.privateKeyPem);
  state.write(CERTIFICATE, authority.certificatePem);
  return authority;
}

/** A new key and certificate for the cloud gateway itself, at every start. */
export async function cloudCredentials(
  authority: CertificateAuthority
): Promise<TunnelCredentials> {
  const { trustDomain, certificatePem: ca } = authority;
  const { privateKeyPem: key } = generateGatewayKey();
  const identity = { trustDomain, role: 'cloud' } as const;
  const { certificatePem: cert } = await authority.issue(createSigningRequest(key), identity);
  return { key, cert, ca };
}

/** Serial numbers of the certificates that the authority's store says are revoked. */
export async function revokedSerials(store: Store): Promise<Set<string>> {
  const entries = await store.list(REVOKED);
  return new Set(entries.map(({ key }) => key.slice(REVOKED.length)));
}

const REVOKED = 'revocation/serial/';
const KEY = 'ca-key.pem';
/** Written last: where it is, the key is too. */
const CERTIFICATE = 'ca.pem';
