/**
 * What a gateway got from its CA, as its tunnel takes it.
 * @module
 */
import type { GatewayCredentials, TunnelCredentials } from 'virtual-presence';

export function tunnelCredentials(credentials: GatewayCredentials): TunnelCredentials {
  const { privateKeyPem: key, certificatePem: cert, caPem: ca } = credentials;
  return { key, cert, ca };
}
