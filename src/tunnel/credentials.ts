/**
 * The TLS profile of a tunnel: version 1.3 only, own certificate, own trust anchors, few groups, no resumption.
 * @module
 */
import { constants } from 'node:crypto';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import { keyExchangeGroups } from '../base/key-exchange.ts';
import { CertificateError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';
import { fastestCiphers } from './ciphers.ts';

export function tlsProfile({ key, cert, ca }: Credentials): SecureContextOptions {
  return {
    key,
    cert,
    ca,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ciphers: fastestCiphers(),
    ecdhCurve: keyExchangeGroups(),
    // A resumed session would pass by the check of the certificate. OpenSSL sends tickets still, but
    // they name sessions that it would have to ask for, and that nobody keeps.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

/** @throws {CertificateError} if one of the three is missing or no PEM, or key and certificate do not match. */
export function secureContext(credentials: Credentials): SecureContext {
  checkTexts(credentials);
  try {
    return createSecureContext(tlsProfile(credentials));
  } catch (error) {
    throw new CertificateError(
      `key, certificate or CA certificate of the tunnel is unusable: ${(error as Error).message}`,
      { cause: error }
    );
  }
}

/** Node would trust the public CAs of the web if there were no `ca`. */
function checkTexts(credentials: Credentials): void {
  for (const name of ['key', 'cert', 'ca'] as const) {
    const text: unknown = credentials[name];
    if (typeof text === 'string' && text.trim() !== '') continue;
    const given = typeof text === 'string' ? 'an empty one' : `a value of type ${typeof text}`;
    throw new CertificateError(`${name} of the tunnel must be a PEM text, not ${given}`);
  }
}
