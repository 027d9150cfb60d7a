import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  ApiMisuseError,
  CertificateError,
  ConfigError,
  EnrolmentError,
  type EnrolmentFault,
  EnvironmentError,
  PeerProtocolError,
  PeerRefusedError,
  PresenceError,
  ProxyError,
  type ProxyFault,
  StoreError,
} from '../../src/errors.ts';
import { enrol } from '../../src/pki/index.ts';
import {
  type CloseCause,
  CloseCode,
  type Failure,
  FrameType,
  failureOf,
} from '../../src/tunnel/index.ts';
import { ALPN_PROTOCOL } from '../../src/tunnel/messages.ts';
import { CLOUD, site, TestCa } from '../support/certificates.ts';
import { ConnectProxy } from '../support/connect-proxy.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { hasOpenssl } from '../support/openssl.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';
import { ca, cleanUp, cloud, dial, listen, next, serve, setUpTunnels } from './scene.ts';

setUpTunnels();

type Meaning = `${Failure['kind']} ${Failure['party']} ${Failure['remedy']}`;

function meaningOf(...fault: Parameters<typeof failureOf>): Meaning {
  const { kind, party, remedy } = failureOf(...fault);
  return `${kind} ${party} ${remedy}`;
}

const network = (errorCode?: string, code: string = CloseCode.ConnectionLost): CloseCause => ({
  by: 'network',
  code,
  // The text is never looked at.
  reason: 'certificate revoked, token used, unknown ca, timeout',
  errorCode,
});

describe('failureOf', () => {
  test.each<[string | undefined, Meaning]>([
    [undefined, 'unreachable network wait'],
    ['E_UNHEARD_OF', 'unreachable network wait'],
    ['ECONNREFUSED', 'unreachable network wait'],
    ['ECONNRESET', 'unreachable network wait'],
    ['ENOTFOUND', 'unreachable network wait'],
    ['EAI_AGAIN', 'unreachable network wait'],
    ['EHOSTUNREACH', 'unreachable network wait'],
    ['ETIMEDOUT', 'timeout network wait'],
    ['EMFILE', 'local local configuration'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'peer-untrusted operator token'],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'peer-untrusted operator token'],
    ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'peer-untrusted operator token'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'peer-untrusted operator token'],
    ['CERT_HAS_EXPIRED', 'peer-untrusted peer report'],
    ['CERT_NOT_YET_VALID', 'peer-untrusted peer report'],
    ['ERR_PRESENCE_CERTIFICATE', 'peer-identity operator configuration'],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'not-tls operator configuration'],
    ['ERR_SSL_PACKET_LENGTH_TOO_LONG', 'not-tls operator configuration'],
    ['ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL', 'protocol operator configuration'],
    ['ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'protocol operator configuration'],
    ['ERR_SSL_TLSV1_ALERT_UNKNOWN_CA', 'certificate-untrusted operator token'],
    ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', 'certificate-untrusted operator token'],
    ['ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED', 'certificate-expired operator token'],
    ['ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED', 'revoked operator token'],
    ['ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE', 'protocol peer report'],
    ['ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC', 'protocol peer report'],
    ['EPROTO', 'protocol peer report'],
    ['ERR_PRESENCE_PROXY_UNREACHABLE', 'unreachable network wait'],
    ['ERR_PRESENCE_PROXY_ENDPOINT_UNREACHABLE', 'unreachable network wait'],
    ['ERR_PRESENCE_PROXY_CREDENTIALS_MISSING', 'proxy operator configuration'],
    ['ERR_PRESENCE_PROXY_CREDENTIALS_REFUSED', 'proxy operator configuration'],
    ['ERR_PRESENCE_PROXY_REFUSED', 'proxy operator configuration'],
    ['ERR_PRESENCE_PROXY_PROTOCOL', 'proxy operator configuration'],
    ['ERR_PRESENCE_CONFIG', 'local local configuration'],
  ])('classifies a connection that ended with %s', (errorCode, expected) => {
    expect(meaningOf(network(errorCode))).toBe(expected);
  });

  test.each<[string, Meaning]>([
    [CloseCode.ConnectionLost, 'unreachable network wait'],
    [CloseCode.KeepaliveTimeout, 'timeout network wait'],
    [CloseCode.HandshakeTimeout, 'timeout network wait'],
    [CloseCode.Untrusted, 'peer-untrusted operator token'],
    [CloseCode.WrongIdentity, 'peer-identity operator configuration'],
    [CloseCode.ProtocolError, 'protocol operator configuration'],
    [CloseCode.Evicted, 'rate-limited peer wait'],
    [CloseCode.RateLimited, 'rate-limited peer wait'],
  ])('classifies a connection that ended as %s, without an error', (code, expected) => {
    expect(meaningOf(network(undefined, code))).toBe(expected);
  });

  const CLOSES: Readonly<Record<string, Meaning>> = {
    [CloseCode.StaleEpoch]: 'unreachable peer wait',
    [CloseCode.Shutdown]: 'unreachable peer wait',
    [CloseCode.Replaced]: 'replaced operator configuration',
    [CloseCode.Revoked]: 'revoked operator token',
    [CloseCode.UnknownSite]: 'unknown-site operator configuration',
    [CloseCode.NotAuthorized]: 'refused operator report',
    [CloseCode.WrongIdentity]: 'certificate-untrusted operator token',
    [CloseCode.Moved]: 'unreachable peer wait',
    [CloseCode.Idle]: 'unreachable peer wait',
    [CloseCode.Renewed]: 'unreachable peer wait',
    [CloseCode.NoTunnel]: 'unreachable peer wait',
    [CloseCode.ProtocolError]: 'protocol local report',
    [CloseCode.ControlRate]: 'rate-limited local report',
    [CloseCode.TooMany]: 'rate-limited peer wait',
    [CloseCode.Busy]: 'unreachable peer wait',
    [CloseCode.Untrusted]: 'certificate-untrusted operator token',
  };
  const NEVER_SENT: readonly string[] = [
    CloseCode.ConnectionLost,
    CloseCode.KeepaliveTimeout,
    CloseCode.HandshakeTimeout,
    CloseCode.Evicted,
    CloseCode.RateLimited,
  ];

  test('knows every code that a peer closes with', () => {
    const sent = Object.values(CloseCode).filter((code) => !NEVER_SENT.includes(code));
    expect(Object.keys(CLOSES).sort()).toEqual(sent.sort());
  });

  test.each([...Object.entries(CLOSES), ['over-quota', 'refused operator report']] as [
    string,
    Meaning,
  ][])('classifies a CLOSE of the peer with %s', (code, expected) => {
    const cause: CloseCause = { by: 'peer', code, reason: 'the reason' };
    expect(meaningOf(cause)).toBe(expected);
    const { error } = failureOf(cause);
    expect(error).toBeInstanceOf(PeerRefusedError);
    expect(error.message).toContain(`${code}: the reason`);
  });

  test.each<[string, Meaning]>([
    [CloseCode.ProtocolError, 'protocol peer report'],
    [CloseCode.ControlRate, 'rate-limited peer report'],
    [CloseCode.Revoked, 'revoked operator token'],
    [CloseCode.Shutdown, 'local local configuration'],
  ])('classifies a CLOSE of this side with %s', (code, expected) => {
    expect(meaningOf({ by: 'us', code, reason: '' })).toBe(expected);
  });

  test('distinguishes a certificate of this side that has expired from one that is not trusted', () => {
    const cause: CloseCause = { by: 'peer', code: CloseCode.Untrusted, reason: '' };
    expect(meaningOf(cause, { isExpired: true })).toBe('certificate-expired operator token');
    expect(meaningOf(network('SELF_SIGNED_CERT_IN_CHAIN'), { isExpired: true })).toBe(
      'peer-untrusted operator token'
    );
  });

  test.each<[EnrolmentFault, Meaning]>([
    ['malformed', 'token operator token'],
    ['unknown', 'token operator token'],
    ['expired', 'token operator token'],
    ['not-authorized', 'refused operator report'],
    ['used', 'token operator token'],
    ['wrong-site', 'token operator token'],
    ['wrong-ca', 'peer-untrusted operator token'],
  ])('classifies an enrolment whose token is %s', (fault, expected) => {
    const error = new EnrolmentError(fault, '');
    expect(meaningOf(error)).toBe(expected);
    expect(failureOf(error).error).toBe(error);
  });

  test.each<[ProxyFault, Meaning]>([
    ['unreachable', 'unreachable network wait'],
    ['credentials-missing', 'proxy operator configuration'],
    ['credentials-refused', 'proxy operator configuration'],
    ['refused', 'proxy operator configuration'],
    ['endpoint-unreachable', 'unreachable network wait'],
    ['protocol', 'proxy operator configuration'],
  ])('classifies an error of a proxy with the fault %s', (fault, expected) => {
    expect(meaningOf(new ProxyError(fault, ''))).toBe(expected);
  });

  const caused = (...codes: string[]): Error | undefined => {
    const [code, ...others] = codes;
    if (code === undefined) return undefined;
    return Object.assign(new Error('', { cause: caused(...others) }), { code });
  };

  test.each<[PresenceError, Meaning]>([
    [new PeerProtocolError(''), 'protocol peer report'],
    [new PeerRefusedError(''), 'refused operator report'],
    [new CertificateError(''), 'certificate-untrusted operator configuration'],
    [new ConfigError('a', ''), 'local local configuration'],
    [new ApiMisuseError(''), 'local local configuration'],
    [new StoreError(''), 'local local configuration'],
    [new EnvironmentError(''), 'local local configuration'],
    [new EnvironmentError('', { cause: caused('EADDRINUSE') }), 'local local configuration'],
    [new EnvironmentError('', { cause: caused('ECONNREFUSED') }), 'unreachable network wait'],
    [new EnvironmentError('', { cause: caused('X', 'ETIMEDOUT') }), 'timeout network wait'],
    [new EnvironmentError('', { cause: 'text' }), 'local local configuration'],
    [new PresenceError('ERR_PRESENCE_NEW', ''), 'local local configuration'],
  ])('classifies %o', (error, expected) => {
    expect(meaningOf(error)).toBe(expected);
  });

  test('classifies an error that is its own cause', () => {
    const error = new EnvironmentError('');
    error.cause = error;
    expect(meaningOf(error)).toBe('local local configuration');
  });
});

/** Returns the first failure of a tunnel to a server. */
async function failed(
  port: number,
  options: Parameters<typeof dial>[1] = {}
): Promise<[Meaning, CloseCause]> {
  const tunnel = dial(port, options);
  const [{ cause }] = await next(tunnel, 'waiting');
  return [meaningOf(cause), cause];
}

async function tlsPort(options: TlsOptions): Promise<number> {
  const server = createTlsServer({ ALPNProtocols: [ALPN_PROTOCOL], ...options }, (socket) => {
    socket.on('error', () => {});
    cleanUp.push(() => socket.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUp.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

describe('failureOf classifies the failure of a real tunnel', () => {
  let other: TestCa;
  beforeAll(async () => {
    other = await TestCa.create();
  });

  test('to a closed port', async () => {
    const nobody = await refusingTcpPort();
    cleanUp.push(() => nobody.close());
    const [meaning, { errorCode }] = await failed(nobody.port);
    expect([meaning, errorCode]).toEqual(['unreachable network wait', 'ECONNREFUSED']);
  });

  test('to a name that does not exist', async () => {
    // No name server is asked for a name of this form.
    const endpoints = [{ host: 'no..such.name', port: 7443 }];
    const [meaning, { errorCode }] = await failed(0, { endpoints });
    expect(meaning).toBe('unreachable network wait');
    expect(errorCode).toMatch(/^(ENOTFOUND|EAI_AGAIN)$/);
  });

  test('to a server that is silent', async () => {
    const clock = new FakeClock();
    const server = createServer((socket) => {
      cleanUp.push(() => socket.destroy());
      clock.advance(10_000);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanUp.push(() => server.close());
    const [meaning] = await failed((server.address() as AddressInfo).port, { clock });
    expect(meaning).toBe('timeout network wait');
  });

  test.each(['SSH-2.0-OpenSSH_9.2\r\n', 'HTTP/1.1 400 Bad Request\r\n\r\n'])(
    'to a server that answers %j',
    async (text) => {
      const server = createServer((socket) => {
        socket.on('error', () => {});
        socket.end(text);
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      cleanUp.push(() => server.close());
      const [meaning] = await failed((server.address() as AddressInfo).port);
      expect(meaning).toBe('not-tls operator configuration');
    }
  );

  test.each(['with its root', 'without its root'])('to a server of another CA, %s', async (how) => {
    const { key, cert, ca: root } = await other.issue(CLOUD);
    const chain = how === 'with its root' ? `${cert}${root}` : cert;
    const [meaning, { errorCode }] = await failed(await tlsPort({ key, cert: chain }));
    expect(meaning).toBe('peer-untrusted operator token');
    expect(errorCode).toMatch(/^(SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_\w+)$/);
  });

  test('to a server whose certificate has expired', async () => {
    const [meaning, { errorCode }] = await failed(await tlsPort(await ca.issueExpired(CLOUD)));
    expect([meaning, errorCode]).toEqual(['peer-untrusted peer report', 'CERT_HAS_EXPIRED']);
  });

  test('to a server whose certificate does not hold yet', async () => {
    const later = await TestCa.create(() => Date.now() + 40 * 86_400_000);
    const credentials = await later.issue(CLOUD);
    const port = await tlsPort(credentials);
    const [meaning, { errorCode }] = await failed(port, { ca: credentials.ca });
    expect([meaning, errorCode]).toEqual(['peer-untrusted peer report', 'CERT_NOT_YET_VALID']);
  });

  test('to another gateway', async () => {
    const [meaning] = await failed(await tlsPort(await ca.issue(site('site-b'))));
    expect(meaning).toBe('peer-identity operator configuration');
  });

  test.skipIf(!hasOpenssl)('to a certificate that is not for servers', async () => {
    const uri = 'subjectAltName=URI:spiffe://example.org/cloud';
    const [meaning] = await failed(await tlsPort(ca.forge(uri)));
    expect(meaning).toBe('peer-identity operator configuration');
  });

  test('to a server of another protocol', async () => {
    const [meaning] = await failed(await tlsPort({ ...cloud, ALPNProtocols: ['h2'] }));
    expect(meaning).toBe('protocol operator configuration');
  });

  test('to a server that knows no ALPN', async () => {
    const server = createTlsServer({ ...cloud }, (socket) => {
      socket.on('error', () => {});
      cleanUp.push(() => socket.destroy());
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanUp.push(() => server.close());
    const [meaning] = await failed((server.address() as AddressInfo).port);
    expect(meaning).toBe('protocol operator configuration');
  });

  test('to a server of an older TLS', async () => {
    const [meaning] = await failed(await tlsPort({ ...cloud, maxVersion: 'TLSv1.2' }));
    expect(meaning).toBe('protocol operator configuration');
  });

  test('to a cloud that does not trust the certificate, or has seen it expire', async () => {
    const { port } = await listen();
    const { key, cert } = await other.issue(site('site-a'));
    expect((await failed(port, { key, cert }))[0]).toBe('certificate-untrusted operator token');
    const [, cause] = await failed(port, await ca.issueExpired(site('site-a')));
    expect(meaningOf(cause, { isExpired: true })).toBe('certificate-expired operator token');
  });

  test('to a cloud of another trust domain than is expected', async () => {
    const { port } = await listen();
    const [meaning] = await failed(port, {
      expectedPeer: { trustDomain: 'example.net', role: 'cloud' },
    });
    expect(meaning).toBe('peer-identity operator configuration');
  });

  test.each(Object.values(CloseCode))('to a cloud that closes with %s', async (code) => {
    const port = await serve((peer) => peer.send(FrameType.Close, { code, reason: '' }));
    const tunnel = dial(port, { clock: new FakeClock() });
    const [{ cause }] = await next(tunnel, 'waiting');
    expect(cause).toMatchObject({ by: 'peer', code });
    expect(meaningOf(cause)).toBe(meaningOf({ by: 'peer', code, reason: '' }));
  });

  test('through a proxy that refuses the credentials', async () => {
    const proxy = await ConnectProxy.open('user:secret');
    cleanUp.push(() => proxy.close());
    const [meaning] = await failed(1, { proxy: proxy.url });
    expect(meaning).toBe('proxy operator configuration');
  });

  test('through a proxy that is not there', async () => {
    const nobody = await refusingTcpPort();
    cleanUp.push(() => nobody.close());
    const [meaning] = await failed(1, { proxy: `http://127.0.0.1:${nobody.port}` });
    expect(meaning).toBe('unreachable network wait');
  });
});

describe('failureOf classifies the failure of a real enrolment', () => {
  async function failureAt(
    port: number,
    options: Parameters<typeof enrol>[1] = {}
  ): Promise<Meaning> {
    const endpoints = [`https://127.0.0.1:${port}`];
    const token = await ca.authority.createToken({ site: 'site-a', endpoints });
    return enrol(token, options).then(
      () => expect.unreachable(),
      (error) => meaningOf(error)
    );
  }

  test('at a closed port', async () => {
    const nobody = await refusingTcpPort();
    cleanUp.push(() => nobody.close());
    expect(await failureAt(nobody.port)).toBe('unreachable network wait');
  });

  test('at a server that is silent', async () => {
    const server = createServer((socket) => {
      cleanUp.push(() => socket.destroy());
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanUp.push(() => server.close());
    const { port } = server.address() as AddressInfo;
    expect(await failureAt(port, { timeoutMs: 20 })).toBe('timeout network wait');
  });

  test('at a server that speaks plain text', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.end('220 mail.example.org ESMTP\r\n');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanUp.push(() => server.close());
    const { port } = server.address() as AddressInfo;
    expect(await failureAt(port)).toBe('not-tls operator configuration');
  });

  test('at a server of another CA', async () => {
    const { key, cert, ca: root } = await (await TestCa.create()).issue(CLOUD);
    const port = await tlsPort({ key, cert: `${cert}${root}`, ALPNProtocols: ['http/1.1'] });
    expect(await failureAt(port)).toBe('peer-untrusted operator token');
  });

  test('at a server whose certificate has expired', async () => {
    const { key, cert, ca: root } = await ca.issueExpired(CLOUD);
    const port = await tlsPort({ key, cert: `${cert}${root}`, ALPNProtocols: ['http/1.1'] });
    expect(await failureAt(port)).toBe('peer-untrusted peer report');
  });

  test('with a token that is none', async () => {
    const error = await enrol('no token').catch((reason) => reason);
    expect(meaningOf(error)).toBe('token operator token');
  });

  test('through a proxy that asks for credentials', async () => {
    const proxy = await ConnectProxy.open('user:secret');
    cleanUp.push(() => proxy.close());
    expect(await failureAt(1, { proxy: proxy.url })).toBe('proxy operator configuration');
  });
});
