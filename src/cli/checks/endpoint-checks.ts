/**
 * Whether an edge can reach its cloud: the name, the connection, and TLS with the CA that the edge trusts.
 *
 * Nothing is sent behind the TLS handshake, and no client certificate. With a token instead of a CA, the CA is taken from
 * what the server presents, as the enrolment does: it is the one whose key has the hash of the token.
 * @module
 */
import { createHash, X509Certificate } from 'node:crypto';
import { lookup } from 'node:dns/promises';
import { isIP, connect as netConnect, type Socket } from 'node:net';
import tls, { type TLSSocket } from 'node:tls';
import { formatHostPort, type HostPort } from '../../base/host-port.ts';
import { type ProxyOption, proxyFor } from '../../base/proxy.ts';
import { connectThrough } from '../../base/proxy-connect.ts';
import { reasonOf } from '../../base/socket-error.ts';
import { identityOfCertificate } from '../../pki/names.ts';
import { type Finding, fail, ok } from './finding.ts';

/** What the certificate of the cloud must follow from: a CA as PEM, or the hash of its key in a token. */
export type TrustAnchor = { readonly ca: string } | { readonly caSpkiHash: string };

export interface EndpointCheck {
  /** `tunnel` or `enrolment`. */
  readonly what: string;
  readonly endpoint: HostPort;
  /** The protocol that is asked for by ALPN. */
  readonly alpn: string;
  readonly anchor: TrustAnchor;
  readonly proxy: ProxyOption | undefined;
}

export async function endpointFinding(check: EndpointCheck): Promise<Finding> {
  const { what, endpoint } = check;
  const place = `the ${what} at ${formatHostPort(endpoint)}`;
  const proxy = proxyFor(check.proxy, endpoint.host, endpoint.port);
  const by = proxy === undefined ? '' : `, through the proxy ${proxy.host}:${proxy.port}`;
  const dialled = proxy ?? endpoint;
  try {
    if (isIP(dialled.host) === 0) await lookup(dialled.host);
  } catch (error) {
    const reason = reasonOf(error as Error);
    return fail(
      'endpoint',
      `${place} is not reached, because ${dialled.host} cannot be looked up: ${reason}`,
      'correct the name, or the resolvers of this machine in /etc/resolv.conf'
    );
  }
  try {
    await handshake(check);
    return ok('endpoint', `${place} answers${by}, and its certificate is one of the cloud's CA`);
  } catch (error) {
    const isReached = error instanceof HandshakeError;
    return fail(
      'endpoint',
      `${place} ${isReached ? 'is reached, but' : 'is not reached:'} ${reasonOf(error as Error)}${by}`,
      isReached
        ? 'compare the clocks of both machines, and make a new token at that cloud if the CA is another one'
        : 'correct the address, start the cloud gateway, or open the way through firewalls'
    );
  }
}

/** The connection is up, and TLS is not. */
class HandshakeError extends Error {}

async function handshake(check: EndpointCheck): Promise<void> {
  const { anchor } = check;
  const ca = 'ca' in anchor ? anchor.ca : await presentedRoot(check, anchor.caSpkiHash);
  const raw = await transport(check);
  const socket = tls.connect({
    socket: raw,
    ...optionsOf(check),
    ca,
    rejectUnauthorized: true,
    checkServerIdentity: (_host, { raw }) => cloudFault(new X509Certificate(raw)),
  });
  await secured(raw, socket, () => undefined);
}

/** Returns the certificate of the chain that the server presents whose key has the hash. */
function presentedRoot(check: EndpointCheck, hash: string): Promise<string> {
  return transport(check).then((raw) =>
    secured(
      raw,
      // Nothing is sent on this connection, and what is presented is compared with the hash.
      tls.connect({ socket: raw, ...optionsOf(check), ca: [], rejectUnauthorized: false }),
      (secure) => {
        // A second call returns no chain.
        let next = secure.getPeerX509Certificate();
        for (let i = 0; next !== undefined && i < MAX_PRESENTED; i++) {
          if (spkiHashOf(next) === hash) return next.toString();
          next = next.issuerCertificate;
        }
        throw new HandshakeError('it does not present the CA that the token names');
      }
    )
  );
}

function optionsOf({ endpoint, alpn }: EndpointCheck): tls.ConnectionOptions {
  const { host } = endpoint;
  return {
    ALPNProtocols: [alpn],
    minVersion: 'TLSv1.3',
    ...(isIP(host) === 0 && { servername: host }),
  };
}

/** Connects, through the proxy if there is one. */
function transport({ endpoint, proxy }: EndpointCheck): Promise<Socket> {
  const by = proxyFor(proxy, endpoint.host, endpoint.port);
  return new Promise((resolve, reject) => {
    const done = (): void => clearTimeout(timer);
    const onOpen = (open: Socket): void => {
      done();
      resolve(open);
    };
    const onFailed = (error: Error): void => {
      done();
      reject(error);
    };
    const socket =
      by === undefined
        ? netConnect({ ...endpoint, noDelay: true })
            .once('connect', () => onOpen(socket))
            .once('error', onFailed)
        : connectThrough(by, endpoint, { onOpen, onFailed });
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`no answer within ${TIMEOUT_MS / 1000} s`));
    }, TIMEOUT_MS);
  });
}

/** Calls `use` when TLS is up over `raw`, and ends the connection. */
function secured<T>(raw: Socket, socket: TLSSocket, use: (socket: TLSSocket) => T): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const end = (reason: Error): void => reject(new HandshakeError(reasonOf(reason)));
    socket.setTimeout(TIMEOUT_MS, () => end(new Error(`no TLS within ${TIMEOUT_MS / 1000} s`)));
    socket.once('error', end);
    socket.once('close', () => end(new Error('it closes the connection before TLS is up')));
    socket.once('secureConnect', () => {
      try {
        resolve(use(socket));
      } catch (error) {
        reject(error);
      }
    });
  }).finally(() => {
    socket.destroy();
    // After a failed handshake it would stay open.
    raw.destroy();
  });
}

function cloudFault(leaf: X509Certificate): Error | undefined {
  try {
    const { role } = identityOfCertificate(leaf);
    return role === 'cloud' ? undefined : new Error(`it is the gateway of a ${role}`);
  } catch (error) {
    return error as Error;
  }
}

function spkiHashOf({ publicKey }: X509Certificate): string {
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  return createHash('sha256').update(spki).digest('base64url');
}

const TIMEOUT_MS = 5_000;
/** Bounds what a server may present. */
const MAX_PRESENTED = 16;
