/**
 * The TLS profile of a tunnel: version 1.3 only, own certificate, own trust anchors, few groups, no resumption.
 * @module
 */
import { type CipherGCM, constants, createCipheriv } from 'node:crypto';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import { keyExchangeGroups } from '../base/key-exchange.ts';
import { CertificateError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';

export function tlsProfile({ key, cert, ca }: Credentials): SecureContextOptions {
  return {
    key,
    cert,
    ca,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ciphers: fastestCiphers(),
    ecdhCurve: keyExchangeGroups(),
    // A resumed session would skip the check of the certificate. OpenSSL still sends tickets, but they name
    // sessions that nobody keeps.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

/** @throws {CertificateError} if one of the three is missing or is no PEM, or key and certificate do not match. */
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

/**
 * Returns the cipher suites of TLS 1.3 ([RFC 8446 section B.4](https://www.rfc-editor.org/rfc/rfc8446#appendix-B.4)) in
 * the form of Node's option `ciphers`, fastest first: AES where the processor has instructions for it, ChaCha20
 * elsewhere. All three are strong, and encryption bounds what a gateway carries. Measured once for a process, in a few
 * milliseconds.
 */
export function fastestCiphers(): string {
  fastest ??= SUITES.map(({ name, cipher, keyLength }) => ({ name, ms: timeOf(cipher, keyLength) }))
    .sort((a, b) => a.ms - b.ms)
    .map(({ name }) => name)
    .join(':');
  return fastest;
}

/** Returns the shortest of several times, in ms, to encrypt as much as one write of a tunnel. */
function timeOf(name: string, keyLength: number): number {
  const key = Buffer.alloc(keyLength);
  const nonce = Buffer.alloc(12);
  const data = Buffer.alloc(SAMPLE_BYTES);
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < SAMPLES; i++) {
    const start = performance.now();
    // Both modes take the same options, but Node's types accept one of the names only.
    const cipher = createCipheriv(name as 'aes-128-gcm', key, nonce, { authTagLength: 16 });
    (cipher as CipherGCM).update(data);
    cipher.final();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

let fastest: string | undefined;

const SUITES = [
  { name: 'TLS_AES_128_GCM_SHA256', cipher: 'aes-128-gcm', keyLength: 16 },
  { name: 'TLS_CHACHA20_POLY1305_SHA256', cipher: 'chacha20-poly1305', keyLength: 32 },
  { name: 'TLS_AES_256_GCM_SHA384', cipher: 'aes-256-gcm', keyLength: 32 },
] as const;
const SAMPLE_BYTES = 64 * 1024;
const SAMPLES = 7;
