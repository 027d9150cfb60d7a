/**
 * The edge's key and certificate: fetched with the token at the first start, then read from the state
 * directory.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import {
  CertificateError,
  enrol,
  type GatewayIdentity,
  identityOfCertificate,
  type TunnelCredentials,
} from 'virtual-presence';
import { readText, type StateDirectory } from '../program/files.ts';

export interface EdgeTrust {
  readonly credentials: TunnelCredentials;
  readonly identity: GatewayIdentity & { readonly role: 'site' };
}

/**
 * @throws {EnrolmentError} if the token is refused.
 * @throws {CertificateError} if the certificate is of another CA, has run out, or is not a site's.
 */
export async function openTrust(state: StateDirectory, tokenFile: string): Promise<EdgeTrust> {
  if (!state.has(CERTIFICATE)) {
    const enrolment = await enrol(readText('the token file', tokenFile));
    state.write(KEY, enrolment.privateKeyPem);
    state.write(CA, enrolment.caPem);
    state.write(CERTIFICATE, enrolment.certificatePem);
  }
  const key = state.read(KEY);
  const certificate = readCertificate(state, CERTIFICATE);
  const ca = readCertificate(state, CA);
  const identity = checkCertificate(certificate, ca, state.pathOf(CERTIFICATE));
  return { credentials: { key, cert: certificate.toString(), ca: ca.toString() }, identity };
}

function readCertificate(state: StateDirectory, name: string): X509Certificate {
  try {
    return new X509Certificate(state.read(name));
  } catch (error) {
    if (!(error instanceof Error && 'opensslErrorStack' in error)) throw error;
    throw new CertificateError(`${state.pathOf(name)} is damaged: ${error.message}`);
  }
}

/** What the cloud would refuse anyway is told here, where it can be mended. */
function checkCertificate(
  certificate: X509Certificate,
  ca: X509Certificate,
  path: string
): EdgeTrust['identity'] {
  if (!certificate.verify(ca.publicKey)) {
    throw new CertificateError(`${path} was not signed by the CA in ca.pem beside it`);
  }
  if (Date.parse(certificate.validTo) < Date.now()) {
    throw new CertificateError(
      `${path} ran out on ${certificate.validTo}: remove it and enrol with a new token`
    );
  }
  const identity = identityOfCertificate(certificate);
  if (identity.role !== 'site') throw new CertificateError(`${path} is not the one of a site`);
  return identity;
}

const KEY = 'key.pem';
const CA = 'ca.pem';
/** Written last: where it is, the others are too. */
const CERTIFICATE = 'certificate.pem';
