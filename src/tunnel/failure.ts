/**
 * Says what a failure means: from the end of a connection, or from an error of this library, `failureOf` derives what
 * has failed, on whose side, and what helps. It looks at codes only, never at the text of a message.
 * @module
 */
import {
  ApiMisuseError,
  CertificateError,
  ConfigError,
  EnrolmentError,
  EnvironmentError,
  PeerProtocolError,
  PeerRefusedError,
  PresenceError,
  ProxyError,
  type ProxyFault,
} from '../errors.ts';
import { CloseCode } from './messages.ts';
import type { CloseCause } from './tunnel.ts';

export type FailureKind =
  /** There is no connection to the peer, or it broke. */
  | 'unreachable'
  /** The peer did not answer in time. */
  | 'timeout'
  /** The HTTP proxy gives no connection: it refuses the credentials or the endpoint, or is no proxy. */
  | 'proxy'
  /** The other end does not speak TLS. */
  | 'not-tls'
  /** The two sides do not speak the same protocol, or one has broken it. */
  | 'protocol'
  /** The certificate of the peer does not lead to a CA that is trusted here, or is not valid now. */
  | 'peer-untrusted'
  /** The certificate of the peer is genuine, but names another gateway than the expected one. */
  | 'peer-identity'
  /** The peer does not trust the certificate of this side. */
  | 'certificate-untrusted'
  /** The certificate of this side has expired. */
  | 'certificate-expired'
  /** The certificate of this side is revoked. */
  | 'revoked'
  /** The peer knows no site of this name. */
  | 'unknown-site'
  /** Another gateway uses the same identity, and has taken over. */
  | 'replaced'
  /** The peer refuses this side for a reason of its operator. */
  | 'refused'
  /** This side, or the peer, has sent or opened more in the time than the other takes. */
  | 'rate-limited'
  /** The enrolment token is not valid, or not any more. */
  | 'token'
  /** This machine, its configuration or the calling program is at fault. */
  | 'local';

export interface Failure {
  readonly kind: FailureKind;
  /** Where the cause lies: at this machine, the operator of the gateways, the peer, or the network between. */
  readonly party: 'local' | 'operator' | 'peer' | 'network';
  /** What helps: time, a new token, another configuration of either side, or a report to the operator of the peer. */
  readonly remedy: 'wait' | 'token' | 'configuration' | 'report';
  readonly error: PresenceError;
}

type Meaning = readonly [FailureKind, Failure['party'], Failure['remedy']];

/**
 * Returns what a failure means.
 *
 * @param fault why a tunnel is down or waits, or what `enrol` or another function of this library has thrown
 * @param own what this side knows of its own certificate, because a peer that does not trust it does not say whether it
 * has expired
 */
export function failureOf(
  fault: CloseCause | PresenceError,
  own: { readonly isExpired: boolean } = { isExpired: false }
): Failure {
  const isError = fault instanceof PresenceError;
  const meaning = isError ? meaningOfError(fault) : meaningOfCause(fault);
  const [kind, party, remedy] = meaning === OWN_UNTRUSTED && own.isExpired ? OWN_EXPIRED : meaning;
  return { kind, party, remedy, error: isError ? fault : errorOf(fault, kind) };
}

function meaningOfCause({ by, code, errorCode }: CloseCause): Meaning {
  if (by === 'peer') return BY_PEER.get(code) ?? REFUSED;
  if (by === 'us') return BY_US.get(code) ?? LOCAL;
  // The code of the error says more than that of the lost connection.
  return meaningOfCode(errorCode) ?? BY_NETWORK.get(code) ?? UNREACHABLE;
}

function meaningOfError(error: PresenceError): Meaning {
  if (error instanceof EnrolmentError) {
    if (error.fault === 'wrong-ca') return WRONG_CA;
    return error.fault === 'not-authorized' ? REFUSED : TOKEN;
  }
  const known = OF_ERRORS.get(error.code);
  if (known !== undefined) return known;
  // For an error of the environment, the code of the system says more.
  for (let it: unknown = error, depth = 0; it instanceof Error && depth < MAX_DEPTH; depth++) {
    const meaning = meaningOfCode((it as NodeJS.ErrnoException).code);
    if (meaning !== undefined) return meaning;
    it = it.cause;
  }
  return LOCAL;
}

/** Returns the meaning of a code of the system, of TLS, or of an error of this library that ended a connection. */
function meaningOfCode(code: unknown): Meaning | undefined {
  if (typeof code !== 'string') return undefined;
  const known = OF_CODES.get(code);
  if (known !== undefined || !code.startsWith('ERR_SSL_')) return known;
  // OpenSSL names an alert after the version of TLS that introduced it: ERR_SSL_TLSV1_ALERT_..., for example.
  const alert = /_ALERT_(\w+)$/.exec(code)?.[1];
  return (alert === undefined ? undefined : OF_ALERTS.get(alert)) ?? PROTOCOL;
}

function errorOf({ by, code, reason }: CloseCause, kind: FailureKind): PresenceError {
  const text = reason === '' ? code : `${code}: ${reason}`;
  if (by === 'peer') return new PeerRefusedError(`the peer has ended the tunnel, ${text}`);
  if (kind.startsWith('peer-') || kind.startsWith('certificate-')) {
    return new CertificateError(`no tunnel, the certificates do not fit: ${text}`);
  }
  return kind === 'protocol'
    ? new PeerProtocolError(`no tunnel, ${text}`)
    : new EnvironmentError(`no tunnel, ${text}`);
}

/** How many causes of an error are looked at. */
const MAX_DEPTH = 8;
const UNREACHABLE: Meaning = ['unreachable', 'network', 'wait'];
const TIMEOUT: Meaning = ['timeout', 'network', 'wait'];
const NOT_TLS: Meaning = ['not-tls', 'operator', 'configuration'];
const PROTOCOL: Meaning = ['protocol', 'peer', 'report'];
const OTHER_PROTOCOL: Meaning = ['protocol', 'operator', 'configuration'];
const PEER_UNTRUSTED: Meaning = ['peer-untrusted', 'operator', 'token'];
/** The peer renews its own certificates, unless a clock is wrong. */
const PEER_EXPIRED: Meaning = ['peer-untrusted', 'peer', 'report'];
const PEER_IDENTITY: Meaning = ['peer-identity', 'operator', 'configuration'];
const OWN_UNTRUSTED: Meaning = ['certificate-untrusted', 'operator', 'token'];
const OWN_EXPIRED: Meaning = ['certificate-expired', 'operator', 'token'];
const REVOKED: Meaning = ['revoked', 'operator', 'token'];
const REFUSED: Meaning = ['refused', 'operator', 'report'];
const RATE_LIMITED: Meaning = ['rate-limited', 'peer', 'wait'];
const WRONG_CA: Meaning = ['peer-untrusted', 'operator', 'token'];
const TOKEN: Meaning = ['token', 'operator', 'token'];
const LOCAL: Meaning = ['local', 'local', 'configuration'];
const PROXY: Meaning = ['proxy', 'operator', 'configuration'];

/** Keyed by the code of a CLOSE of the peer; any other code is one of its host's own. */
const BY_PEER: ReadonlyMap<string, Meaning> = new Map([
  [CloseCode.Shutdown, ['unreachable', 'peer', 'wait']],
  [CloseCode.Moved, ['unreachable', 'peer', 'wait']],
  [CloseCode.Idle, ['unreachable', 'peer', 'wait']],
  [CloseCode.Renewed, ['unreachable', 'peer', 'wait']],
  [CloseCode.NoTunnel, ['unreachable', 'peer', 'wait']],
  [CloseCode.Replaced, ['replaced', 'operator', 'configuration']],
  [CloseCode.Revoked, REVOKED],
  [CloseCode.UnknownSite, ['unknown-site', 'operator', 'configuration']],
  [CloseCode.WrongIdentity, OWN_UNTRUSTED],
  [CloseCode.Untrusted, OWN_UNTRUSTED],
  [CloseCode.ProtocolError, ['protocol', 'local', 'report']],
  [CloseCode.ControlRate, ['rate-limited', 'local', 'report']],
  [CloseCode.TooMany, RATE_LIMITED],
  [CloseCode.Busy, ['unreachable', 'peer', 'wait']],
  [CloseCode.StaleEpoch, ['unreachable', 'peer', 'wait']],
] as [string, Meaning][]);

const BY_US: ReadonlyMap<string, Meaning> = new Map([
  [CloseCode.ProtocolError, PROTOCOL],
  [CloseCode.ControlRate, ['rate-limited', 'peer', 'report']],
  [CloseCode.Revoked, REVOKED],
  [CloseCode.Untrusted, PEER_UNTRUSTED],
  [CloseCode.StaleEpoch, ['unreachable', 'peer', 'wait']],
] as [string, Meaning][]);

const BY_NETWORK: ReadonlyMap<string, Meaning> = new Map([
  [CloseCode.KeepaliveTimeout, TIMEOUT],
  [CloseCode.HandshakeTimeout, TIMEOUT],
  [CloseCode.Untrusted, PEER_UNTRUSTED],
  [CloseCode.WrongIdentity, PEER_IDENTITY],
  [CloseCode.ProtocolError, OTHER_PROTOCOL],
  [CloseCode.Evicted, RATE_LIMITED],
  [CloseCode.RateLimited, RATE_LIMITED],
] as [string, Meaning][]);

const OF_ERRORS: ReadonlyMap<string, Meaning> = new Map([
  [new PeerProtocolError('').code, PROTOCOL],
  [new PeerRefusedError('').code, REFUSED],
  [new CertificateError('').code, ['certificate-untrusted', 'operator', 'configuration']],
] as [string, Meaning][]);

const proxyCode = (fault: ProxyFault): string => new ProxyError(fault, '').code;

/** Keyed by the code of an error; a code that is not listed says nothing. */
const OF_CODES: ReadonlyMap<string, Meaning> = new Map([
  ...[
    ...['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ENOTFOUND', 'EAI_AGAIN'],
    ...['EHOSTUNREACH', 'EHOSTDOWN', 'ENETUNREACH', 'ENETDOWN', 'EADDRNOTAVAIL'],
  ].map((code) => [code, UNREACHABLE]),
  ['ETIMEDOUT', TIMEOUT],
  // The certificate of the peer, as OpenSSL verifies it (verify(1)) and Node names it.
  ...[
    ...['DEPTH_ZERO_SELF_SIGNED_CERT', 'SELF_SIGNED_CERT_IN_CHAIN', 'UNABLE_TO_GET_ISSUER_CERT'],
    ...['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
    ...['UNABLE_TO_DECRYPT_CERT_SIGNATURE', 'UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY'],
    ...['CERT_SIGNATURE_FAILURE', 'CERT_CHAIN_TOO_LONG', 'CERT_REVOKED', 'CERT_UNTRUSTED'],
    ...['CERT_REJECTED', 'INVALID_CA', 'INVALID_PURPOSE', 'PATH_LENGTH_EXCEEDED'],
    ...['ERROR_IN_CERT_NOT_BEFORE_FIELD', 'ERROR_IN_CERT_NOT_AFTER_FIELD', 'UNSPECIFIED'],
  ].map((code) => [code, PEER_UNTRUSTED]),
  ['CERT_HAS_EXPIRED', PEER_EXPIRED],
  ['CERT_NOT_YET_VALID', PEER_EXPIRED],
  // An error of this library, after OpenSSL has verified the chain.
  [new CertificateError('').code, PEER_IDENTITY],
  // No record of TLS came; the name depends on which of its bytes OpenSSL looks at first.
  ...['WRONG_VERSION_NUMBER', 'PACKET_LENGTH_TOO_LONG', 'HTTP_REQUEST', 'BAD_RECORD_TYPE'].map(
    (name) => [`ERR_SSL_${name}`, NOT_TLS]
  ),
  ['ERR_SSL_UNSUPPORTED_PROTOCOL', OTHER_PROTOCOL],
  ['EPROTO', PROTOCOL],
  // The system forbids it, or is out of a resource.
  ...['EACCES', 'EPERM', 'EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM'].map((code) => [code, LOCAL]),
  [proxyCode('unreachable'), UNREACHABLE],
  [proxyCode('endpoint-unreachable'), UNREACHABLE],
  ...(['credentials-missing', 'credentials-refused', 'refused', 'protocol'] as const).map(
    (fault) => [proxyCode(fault), PROXY]
  ),
  [new ConfigError('', '').code, LOCAL],
  [new ApiMisuseError('').code, LOCAL],
] as [string, Meaning][]);

/** Keyed by the alert of the peer in TLS (RFC 8446 section 6.2). */
const OF_ALERTS: ReadonlyMap<string, Meaning> = new Map([
  ['NO_APPLICATION_PROTOCOL', OTHER_PROTOCOL],
  ['PROTOCOL_VERSION', OTHER_PROTOCOL],
  ...['BAD_CERTIFICATE', 'UNSUPPORTED_CERTIFICATE', 'CERTIFICATE_UNKNOWN', 'UNKNOWN_CA'].map(
    (alert) => [alert, OWN_UNTRUSTED]
  ),
  ['CERTIFICATE_REQUIRED', OWN_UNTRUSTED],
  ['ACCESS_DENIED', OWN_UNTRUSTED],
  ['CERTIFICATE_REVOKED', REVOKED],
  ['CERTIFICATE_EXPIRED', OWN_EXPIRED],
] as [string, Meaning][]);
