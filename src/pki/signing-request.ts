/**
 * Signing requests, PKCS#10 ([RFC 2986](https://www.rfc-editor.org/rfc/rfc2986)): a gateway asks for a certificate
 * and proves that it has the key.
 *
 * The CA takes only the public key from a request. It does not read the names and extensions: the token, or the
 * certificate that is renewed, decides the identity.
 * @module
 */
import crypto, { type KeyObject } from 'node:crypto';
import { CertificateError } from '../errors.ts';
import { commonName, decode, encodePem, integer, sequence, tagged } from './der.ts';
import { isSignedBy, readPrivateKey, readPublicKey, signed, spkiOf } from './keys.ts';
import { children, contentOf } from './strict-der.ts';

/**
 * Makes a signing request for the public half of a private key.
 *
 * @returns PEM.
 * @throws {CertificateError} if the key cannot be read or its type is not accepted.
 */
export function createSigningRequest(privateKeyPem: string): string {
  const privateKey = readPrivateKey(privateKeyPem);
  const spki = spkiOf(crypto.createPublicKey(privateKey));
  const info = sequence(integer(0n), commonName('gateway'), decode(spki), tagged(0));
  return encodePem('CERTIFICATE REQUEST', signed(info, privateKey));
}

/**
 * Verifies that the sender of the request has its private key, and returns the public key in canonical form. The
 * signature is checked over the bytes as received.
 *
 * @throws {CertificateError} if the request is malformed or too large, its algorithm is not accepted, or its own key
 * has not signed it.
 */
export function verifySigningRequest(pem: string): KeyObject {
  const request = children(decodePem(pem));
  const [info, algorithm, signature] = request;
  if (request.length !== 3 || signature![0] !== BIT_STRING) {
    throw new CertificateError('the signing request is malformed');
  }
  const fields = children(info!);
  // RFC 2986 requires the attributes, but some tools leave the field out if there are none.
  if (fields.length !== 3 && fields.length !== 4) {
    throw new CertificateError('the signing request is malformed');
  }
  const publicKey = readPublicKey(fields[2]!);
  const [unusedBits, ...bytes] = contentOf(signature!);
  if (unusedBits !== 0 || !isSignedBy(publicKey, info!, algorithm!, Buffer.from(bytes))) {
    throw new CertificateError('the signing request is not signed by its own key');
  }
  return publicKey;
}

function decodePem(pem: string): Buffer {
  if (pem.length > MAX_REQUEST_LENGTH) {
    throw new CertificateError(
      `the signing request has ${pem.length} bytes, more than ${MAX_REQUEST_LENGTH}`
    );
  }
  const body = PEM.exec(pem)?.[1]?.replace(/[\r\n]/g, '');
  const der = Buffer.from(body ?? '', 'base64');
  if (der.length === 0 || der.toString('base64') !== body) {
    throw new CertificateError('the signing request is not PEM');
  }
  return der;
}

const PEM =
  /^-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END (?:NEW )?CERTIFICATE REQUEST-----\s*$/;
const BIT_STRING = 0x03;
/** Bytes of PEM; a request for RSA-4096 has about 1,700. */
const MAX_REQUEST_LENGTH = 16_384;
