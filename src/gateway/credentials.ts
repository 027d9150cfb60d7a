/**
 * What a gateway got from its CA, as its tunnel takes it.
 * @module
 */
import type { GatewayCredentials } from '../pki/index.ts';
import type { TunnelCredentials } from '../tunnel/index.ts';

export function tunnelCredentials(credentials: GatewayCredentials): TunnelCredentials {
  const { privateKeyPem: key, certificatePem: cert, caPem: ca } = credentials;
  return { key, cert, ca };
}
