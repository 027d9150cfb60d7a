/**
 * How a new site enrols. The token's hash is all it knows of the CA, so on each connection:
 *
 * 1. TLS 1.3 is established with whoever answers; that proves only that they hold the key of the
 *    certificate they show.
 * 2. The chain is checked: the CA in it has the hash of the token and has signed the server's
 *    certificate, which is valid now and names the cloud.
 * 3. Only then is the secret sent, on that same connection.
 * 4. The certificate that comes back must be for our key, for the token's site, and by that CA.
 * @module
 */
import { type KeyObject, X509Certificate } from 'node:crypto';
import http from 'node:http';
import tls, { type TLSSocket } from 'node:tls';
import {
  CertificateError,
  EnrolmentError,
  type EnrolmentFault,
  EnvironmentError,
  PeerProtocolError,
  PeerRefusedError,
} from '../errors.ts';
import {
  ENROLMENT_PATH,
  type EnrolmentRequest,
  parseAnswer,
  parseRefusal,
} from './enrolment-message.ts';
import { generateGatewayKey, readPrivateKey, spkiHashOf } from './keys.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from './names.ts';
import { createSigningRequest } from './signing-request.ts';
import { type EnrolmentToken, parseToken } from './token.ts';

export interface EnrolOptions {
  /** For each endpoint of the token, in ms; default 10 s. */
  readonly timeoutMs?: number;
  /** PKCS#8; default a new P-256 key. */
  readonly privateKeyPem?: string;
  /** Time in ms since 1970; default `Date.now`. */
  readonly now?: () => number;
}

/** What a gateway needs to open its tunnel. */
export interface Enrolment {
  readonly privateKeyPem: string;
  readonly certificatePem: string;
  readonly caPem: string;
  readonly identity: GatewayIdentity;
}

/**
 * Redeems a token at the first of its endpoints that answers. An endpoint that is not the CA's is
 * passed over, and never sees the secret.
 *
 * @throws {EnrolmentError} if the token is malformed or refused; with fault `wrong-ca` if an
 * endpoint that answered was not of the CA that the token pins.
 * @throws {CertificateError} if the key is of a kind that is not accepted.
 * @throws {PeerProtocolError} or {PeerRefusedError} if the server's answer makes no sense.
 * @throws {EnvironmentError} if no endpoint answers.
 */
export async function enrol(tokenText: string, options: EnrolOptions = {}): Promise<Enrolment> {
  const token = parseToken(tokenText);
  const now = options.now ?? Date.now;
  const privateKeyPem = options.privateKeyPem ?? generateGatewayKey().privateKeyPem;
  const request = {
    tokenId: token.id,
    secret: token.secret,
    csrPem: createSigningRequest(privateKeyPem),
  };
  const failures: EndpointFailure[] = [];
  for (const endpoint of token.endpoints) {
    try {
      const reply = await exchange(endpoint, token, request, options.timeoutMs ?? 10_000, now);
      return accept(reply, token, readPrivateKey(privateKeyPem), now());
    } catch (error) {
      if (!(error instanceof EndpointFailure)) throw error;
      failures.push(error);
    }
  }
  const reasons = failures.map((it) => it.message).join('; ');
  if (failures.some((it) => it.wrongCa)) throw new EnrolmentError('wrong-ca', reasons);
  throw new EnvironmentError(`no enrolment endpoint answers: ${reasons}`, { cause: failures[0] });
}

/** Why one endpoint was no good and the next is tried. */
class EndpointFailure extends Error {
  readonly wrongCa: boolean;

  constructor(endpoint: string, reason: string, wrongCa: boolean) {
    super(`${endpoint}: ${reason}`);
    this.wrongCa = wrongCa;
  }
}

interface Reply {
  readonly status: number;
  readonly body: string;
}

/** One connection: handshake, check, request, reply. */
function exchange(
  endpoint: string,
  token: EnrolmentToken,
  request: EnrolmentRequest,
  timeoutMs: number,
  now: () => number
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(endpoint);
    const host = hostname.replace(/^\[|\]$/g, '');
    const socket = tls.connect({
      host,
      port: Number(port === '' ? 443 : port),
      minVersion: 'TLSv1.3',
      ALPNProtocols: ['http/1.1'],
      // OpenSSL has no trust anchor to check against; `verifiedServer` does it from the pin.
      rejectUnauthorized: false,
    });
    const fail = (reason: string, wrongCa = false) => {
      reject(new EndpointFailure(endpoint, reason, wrongCa));
      socket.destroy();
    };
    const deadline = setTimeout(() => fail(`no answer within ${timeoutMs} ms`), timeoutMs);
    socket.on('close', () => {
      clearTimeout(deadline);
      fail('closed the connection');
    });
    socket.on('error', (error) => fail(error.message));
    socket.on('secureConnect', () => {
      let leaf: X509Certificate;
      try {
        leaf = verifiedServer(socket, token);
      } catch (error) {
        return fail((error as Error).message, true);
      }
      const clockFault = dateFault(leaf, now());
      if (clockFault !== undefined) return fail(clockFault);
      post(socket, host, request).then(
        (reply) => {
          if (reply.status >= 500) return fail(`answered ${reply.status}`);
          resolve(reply);
          socket.destroy();
        },
        (error: Error) => fail(error.message)
      );
    });
  });
}

/**
 * Returns the server's certificate if it is the one the token means.
 *
 * @throws {CertificateError} if its chain is not of the pinned CA, or it is not the cloud.
 */
function verifiedServer(socket: TLSSocket, token: EnrolmentToken): X509Certificate {
  // Asked for once only: a second call finds the socket's chain used up.
  const leaf = socket.getPeerX509Certificate();
  const ca = leaf?.issuerCertificate;
  if (leaf === undefined || ca === undefined) {
    throw new CertificateError('shows no CA certificate');
  }
  checkCa(ca, token);
  checkIssued(leaf, ca, { trustDomain: token.trustDomain, role: 'cloud' });
  return leaf;
}

function post(socket: TLSSocket, host: string, body: EnrolmentRequest): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const request = http.request({
      createConnection: () => socket,
      method: 'POST',
      path: ENROLMENT_PATH,
      host,
      headers: { 'content-type': 'application/json' },
    });
    request.on('error', reject);
    request.on('response', (response) => {
      const chunks: Buffer[] = [];
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        length += chunk.length;
        chunks.push(chunk);
        if (length > MAX_REPLY_BYTES) reject(new Error('the answer is too large'));
      });
      response.on('error', reject);
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() });
      });
    });
    request.end(JSON.stringify(body));
  });
}

/** Takes from the reply what it grants, or throws what it refuses. */
function accept(
  reply: Reply,
  token: EnrolmentToken,
  privateKey: KeyObject,
  nowMs: number
): Enrolment {
  if (reply.status !== 200) throw refusal(reply);
  const answer = parseAnswer(reply.body);
  if (answer === undefined) throw new PeerProtocolError('the enrolment answer is malformed');
  const identity: GatewayIdentity = {
    trustDomain: token.trustDomain,
    role: 'site',
    site: token.site,
  };
  try {
    const ca = new X509Certificate(answer.caPem);
    const certificate = new X509Certificate(answer.certificatePem);
    checkCa(ca, token);
    checkIssued(certificate, ca, identity);
    const fault = dateFault(certificate, nowMs) ?? dateFault(ca, nowMs);
    if (fault !== undefined) throw new CertificateError(fault);
    if (!certificate.checkPrivateKey(privateKey)) {
      throw new CertificateError('the certificate is for another key');
    }
    return {
      privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      certificatePem: certificate.toString(),
      caPem: ca.toString(),
      identity,
    };
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new PeerProtocolError(`the certificate granted is not usable: ${reason}`, { cause });
  }
}

function refusal({ status, body }: Reply): Error {
  const { code, message } = parseRefusal(body) ?? { code: '', message: `answered ${status}` };
  const fault = FAULTS.find((it) => new EnrolmentError(it, '').code === code);
  if (fault !== undefined) return new EnrolmentError(fault, message);
  if (code === new CertificateError('').code) return new CertificateError(message);
  return new PeerRefusedError(`enrolment refused: ${message}`);
}

/** @throws {CertificateError} unless `ca` is the one that the token pins. */
function checkCa(ca: X509Certificate, token: EnrolmentToken): void {
  if (!ca.ca || spkiHashOf(ca.publicKey) !== token.caSpkiHash) {
    throw new CertificateError('not of the CA that the token pins');
  }
}

/** @throws {CertificateError} unless `ca` has issued `certificate` to `identity`. */
function checkIssued(
  certificate: X509Certificate,
  ca: X509Certificate,
  identity: GatewayIdentity
): void {
  if (!certificate.checkIssued(ca) || !certificate.verify(ca.publicKey)) {
    throw new CertificateError('not signed by the CA that the token pins');
  }
  const found = formatIdentity(identityOfCertificate(certificate));
  const wanted = formatIdentity(identity);
  if (found !== wanted) throw new CertificateError(`is ${found}, not ${wanted}`);
}

/** Says so if the certificate does not hold now: as often a wrong clock as a wrong certificate. */
function dateFault({ validFrom, validTo }: X509Certificate, nowMs: number): string | undefined {
  if (nowMs >= Date.parse(validFrom) && nowMs <= Date.parse(validTo)) return undefined;
  const here = new Date(nowMs).toISOString();
  return `certificate valid from ${validFrom} to ${validTo}, but the clock here says ${here}`;
}

const MAX_REPLY_BYTES = 65_536;
/** What a server may answer; `wrong-ca` is ours alone to find. */
const FAULTS: readonly EnrolmentFault[] = ['malformed', 'unknown', 'expired', 'used'];
