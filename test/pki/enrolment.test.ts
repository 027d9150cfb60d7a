import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import tls, { type TLSSocket } from 'node:tls';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { StoreError } from '../../src/errors.ts';
import {
  type CertificateAuthority,
  EnrolmentServer,
  type EnrolmentServerOptions,
  enrol,
  type GatewayIdentity,
  identityOfCertificate,
  parseToken,
} from '../../src/pki/index.ts';
import { formatToken } from '../../src/pki/token.ts';
import { CLOUD, DAY_MS, newRequest, redemptionOf, SITE_A, scene } from './fixtures.ts';

const HOST = '127.0.0.1';
const closers: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function serve(
  authority: CertificateAuthority,
  options: Partial<EnrolmentServerOptions> = {}
): Promise<{ server: EnrolmentServer; port: number; endpoint: string }> {
  const server = new EnrolmentServer({ authority, ...options });
  const { port } = await server.listen({ host: HOST, port: 0 });
  closers.push(() => server.close());
  return { server, port, endpoint: `https://${HOST}:${port}` };
}

/** A TLS server that says it is whoever it likes, and records what it hears. */
async function impostor(
  key: string,
  cert: string,
  answer?: string
): Promise<{ endpoint: string; heard: string[] }> {
  const heard: string[] = [];
  const server = tls.createServer({ key, cert }, (socket) => {
    socket.on('error', () => {});
    socket.on('data', (data) => {
      heard.push(data.toString());
      if (answer !== undefined) socket.end(answer);
    });
  });
  server.listen(0, HOST);
  await once(server, 'listening');
  closers.push(() => server.close());
  return { endpoint: `https://${HOST}:${(server.address() as AddressInfo).port}`, heard };
}

/** A server with a genuine certificate of the CA that answers as it is told. */
async function genuine(
  authority: CertificateAuthority,
  answer: string,
  identity: GatewayIdentity = CLOUD
): Promise<{ endpoint: string; heard: string[] }> {
  const { privateKeyPem, csrPem } = newRequest();
  const { certificatePem } = await authority.issue(csrPem, identity);
  return impostor(privateKeyPem, certificatePem + authority.certificatePem, answer);
}

function httpAnswer(status: number, body: unknown): string {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return `HTTP/1.1 ${status} X\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
}

async function closedPort(): Promise<number> {
  const server = net.createServer().listen(0, HOST);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function connect(port: number): Promise<TLSSocket> {
  const socket = tls.connect({ host: HOST, port, rejectUnauthorized: false });
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  return socket;
}

async function request(
  port: number,
  options: http.RequestOptions,
  body?: string
): Promise<{ status: number | undefined; body: { code: string; message: string } }> {
  const socket = await connect(port);
  const sent = http.request({ createConnection: () => socket, ...options });
  sent.on('error', () => {});
  sent.end(body);
  const [response] = (await once(sent, 'response')) as [http.IncomingMessage];
  let text = '';
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode, body: JSON.parse(text) };
}

const post = (port: number, body: string) =>
  request(port, { method: 'POST', path: '/v1/enrol' }, body);
const refused = (code: string) => expect.objectContaining({ code: `ERR_PRESENCE_${code}` });

describe('enrol', () => {
  test.each(['p256', 'ed25519', 'rsa'] as const)(
    'brings a site its certificate from a %s CA',
    async (keyType) => {
      const { authority } = await scene({ keyType });
      const { server, endpoint } = await serve(authority);
      const result = await enrol(
        await authority.createToken({ site: 'site-a', endpoints: [endpoint] })
      );
      const certificate = new X509Certificate(result.certificatePem);
      expect(result.identity).toEqual(SITE_A);
      expect(identityOfCertificate(certificate)).toEqual(SITE_A);
      expect(certificate.verify(new X509Certificate(result.caPem).publicKey)).toBe(true);
      expect(
        tls.createSecureContext({ key: result.privateKeyPem, cert: result.certificatePem })
      ).toBeDefined();
      expect(server.counters).toMatchObject({ connections: 1, enrolled: 1, refused: 0, failed: 0 });
    }
  );

  test('keeps the key it is given', async () => {
    const { authority } = await scene();
    const { endpoint } = await serve(authority);
    const { privateKeyPem } = newRequest('ed25519');
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    expect((await enrol(token, { privateKeyPem })).privateKeyPem).toBe(privateKeyPem);
  });

  test('passes over an endpoint that is closed and one of another CA, which hears no secret', async () => {
    const { authority } = await scene();
    const { endpoint } = await serve(authority);
    const foreign = await genuine((await scene()).authority, '');
    const endpoints = [`https://${HOST}:${await closedPort()}`, foreign.endpoint, endpoint];
    const result = await enrol(await authority.createToken({ site: 'site-a', endpoints }));
    expect(result.identity).toEqual(SITE_A);
    expect(foreign.heard).toEqual([]);
  });

  test('refuses every server that is not the cloud of the pinned CA, before the secret', async () => {
    const { authority } = await scene();
    const other = (await scene()).authority;
    const { privateKeyPem: key, csrPem } = newRequest();
    const foreignLeaf = (await other.issue(csrPem, CLOUD)).certificatePem;
    const siteLeaf = (await authority.issue(csrPem, SITE_A)).certificatePem;
    const cloudLeaf = (await authority.issue(csrPem, CLOUD)).certificatePem;
    const chains: readonly [string, string][] = [
      ['another CA of the same name', foreignLeaf + other.certificatePem],
      ['a foreign leaf beside the genuine CA', foreignLeaf + authority.certificatePem],
      ['a site of the genuine CA', siteLeaf + authority.certificatePem],
      ['no CA in the chain', cloudLeaf],
      ['a leaf alone that says it is the CA', foreignLeaf],
    ];
    for (const [name, chain] of chains) {
      const { endpoint, heard } = await impostor(key, chain);
      const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
      await expect(enrol(token), name).rejects.toThrow(refused('ENROLMENT_WRONG_CA'));
      expect(heard, name).toEqual([]);
    }
  });

  test('names the clock when the certificate of the server does not hold yet or any more', async () => {
    const { authority } = await scene();
    const { endpoint } = await serve(authority);
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    for (const days of [-1, 31]) {
      const now = () => Date.now() + days * DAY_MS;
      const error = await enrol(token, { now }).catch((it) => it);
      expect(error).toEqual(refused('ENVIRONMENT'));
      expect(error.message).toContain('but the clock here says');
    }
    await enrol(token);
  });

  test('reports the fault of the token as the server saw it', async () => {
    const { authority, clock } = await scene();
    const { endpoint, server } = await serve(authority);
    const options = { site: 'site-a', endpoints: [endpoint] };
    const [used, expired] = [
      await authority.createToken(options),
      await authority.createToken(options),
    ];
    const unknown = formatToken({ ...parseToken(used), secret: 'A'.repeat(43) });
    await enrol(used);
    await expect(enrol(used)).rejects.toThrow(refused('ENROLMENT_USED'));
    await expect(enrol(unknown)).rejects.toThrow(refused('ENROLMENT_UNKNOWN'));
    clock.ms += DAY_MS;
    await expect(enrol(expired)).rejects.toThrow(refused('ENROLMENT_EXPIRED'));
    await expect(enrol('vp1.x')).rejects.toThrow(refused('ENROLMENT_MALFORMED'));
    expect(server.counters).toMatchObject({ enrolled: 1, refused: 3 });
  });

  test('says of each endpoint why none answered', async () => {
    const { authority } = await scene();
    const mute = net.createServer((socket) => socket.on('error', () => {})).listen(0, HOST);
    await once(mute, 'listening');
    closers.push(() => mute.close());
    const port = await closedPort();
    const endpoints = [
      `https://${HOST}:${port}`,
      `https://${HOST}:${(mute.address() as AddressInfo).port}`,
      (await genuine(authority, httpAnswer(503, {}))).endpoint,
      (await genuine(authority, 'rubbish\r\n\r\n')).endpoint,
    ];
    const token = await authority.createToken({ site: 'site-a', endpoints });
    const error = await enrol(token, { timeoutMs: 1500 }).catch((it) => it);
    expect(error).toEqual(refused('ENVIRONMENT'));
    for (const reason of [
      'ECONNREFUSED',
      'no answer within 1500 ms',
      'answered 503',
      'Parse Error',
    ]) {
      expect(error.message).toContain(reason);
    }
  });

  test('refuses a certificate that is not for its key, its site or by the pinned CA', async () => {
    const { authority } = await scene();
    const other = (await scene()).authority;
    const { privateKeyPem, csrPem } = newRequest();
    const caPem = authority.certificatePem;
    const own = await authority.issue(csrPem, SITE_A);
    const strange = await authority.issue(newRequest().csrPem, SITE_A);
    const elsewhere = await authority.issue(csrPem, { ...SITE_A, site: 'site-b' });
    const foreign = await other.issue(csrPem, SITE_A);
    const notAfter = own.notAfter.toISOString();
    const bodies: readonly [string, unknown, boolean][] = [
      ['as it should be', { ...own, caPem, notAfter }, true],
      ['another key', { ...strange, caPem, notAfter }, false],
      ['another site', { ...elsewhere, caPem, notAfter }, false],
      ['another CA', { ...foreign, caPem: other.certificatePem, notAfter }, false],
      ['another CA under ours', { ...foreign, caPem, notAfter }, false],
      ['no certificate', { certificatePem: 'x', caPem, notAfter }, false],
      ['no JSON', '<html>', false],
      ['nothing', {}, false],
    ];
    for (const [name, body, good] of bodies) {
      const { endpoint } = await genuine(authority, httpAnswer(200, body));
      const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
      const outcome = enrol(token, { privateKeyPem });
      if (good) await expect(outcome, name).resolves.toMatchObject({ identity: SITE_A });
      else await expect(outcome, name).rejects.toThrow(refused('PEER_PROTOCOL'));
    }
  });

  test('gives up on an answer that never ends', async () => {
    const { authority } = await scene();
    const { endpoint } = await genuine(authority, httpAnswer(200, 'x'.repeat(100_000)));
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    await expect(enrol(token)).rejects.toThrow('the answer is too large');
  });
});

describe('EnrolmentServer', () => {
  test('says that a port is in use, and can be used on another', async () => {
    const { authority } = await scene();
    const { port } = await serve(authority);
    const second = new EnrolmentServer({ authority });
    await expect(second.listen({ host: HOST, port })).rejects.toThrow(
      `port ${port} on ${HOST} is in use by another program`
    );
    expect((await second.listen({ host: HOST, port: 0 })).port).not.toBe(port);
    await expect(second.listen({ host: HOST, port: 0 })).rejects.toThrow(refused('API_MISUSE'));
    await second.close();
    await second.close();
  });

  test.each<[string, number, string, string, string]>([
    ['another path', 404, 'POST', '/', ''],
    ['another method', 405, 'GET', '/v1/enrol', ''],
    ['no body', 400, 'POST', '/v1/enrol', ''],
    ['text that is not JSON', 400, 'POST', '/v1/enrol', '{'],
    ['an array', 400, 'POST', '/v1/enrol', '[]'],
    ['missing fields', 400, 'POST', '/v1/enrol', '{"tokenId":"a"}'],
    [
      'a field too many',
      400,
      'POST',
      '/v1/enrol',
      '{"tokenId":"a","secret":"b","csrPem":"c","d":1}',
    ],
    ['numbers for text', 400, 'POST', '/v1/enrol', '{"tokenId":1,"secret":2,"csrPem":3}'],
    ['a body of 33 KiB', 413, 'POST', '/v1/enrol', 'x'.repeat(33_792)],
    ['JSON nested 10,000 deep', 400, 'POST', '/v1/enrol', '['.repeat(10_000)],
  ])('answers %s with %i and a reason', async (_, status, method, path, body) => {
    const { authority } = await scene();
    const { port, server } = await serve(authority);
    const answer = await request(port, { method, path }, body);
    expect(answer.status).toBe(status);
    expect(answer.body).toEqual({
      code: 'ERR_PRESENCE_ENROLMENT_MALFORMED',
      message: expect.any(String),
    });
    expect(server.counters).toMatchObject({ refused: 1, enrolled: 0 });
  });

  test('answers a bad signing request with 400 and leaves the token good', async () => {
    const { authority } = await scene();
    const { port, endpoint } = await serve(authority);
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    const { status, body } = await post(port, JSON.stringify(redemptionOf(token, 'x')));
    expect([status, body.code]).toEqual([400, 'ERR_PRESENCE_CERTIFICATE']);
    await enrol(token);
  });

  test('keeps its own faults to itself and tells the host', async () => {
    const { authority, store } = await scene();
    const errors: unknown[] = [];
    const { port, server } = await serve(authority, { onError: (error) => errors.push(error) });
    const fault = new StoreError('disk /dev/sda is full');
    const token = await authority.createToken({ site: 'site-a', endpoints: ['https://a'] });
    vi.spyOn(store, 'commit').mockRejectedValueOnce(fault);
    const { status, body } = await post(port, JSON.stringify(redemptionOf(token)));
    expect(status).toBe(503);
    expect(body).toEqual({ code: 'ERR_PRESENCE_INTERNAL', message: 'internal error' });
    expect(errors).toEqual([fault]);
    expect(server.counters.failed).toBe(1);
  });

  test('closes connections beyond the limit, and takes new ones when others end', async () => {
    const { authority } = await scene();
    const { port, server, endpoint } = await serve(authority, { maxConnections: 2 });
    const held = [await connect(port), await connect(port)];
    const third = net.connect(port, HOST);
    third.on('error', () => {});
    await once(third, 'close');
    expect(server.counters.refusedConnections).toBe(1);
    const freed = once(held[0]!, 'close');
    held[0]!.destroy();
    held[1]!.destroy();
    await freed;
    const token = await authority.createToken({
      site: 'site-a',
      endpoints: [endpoint, endpoint, endpoint],
    });
    await enrol(token);
  });

  test.each<[string, (port: number) => Promise<net.Socket>]>([
    ['never begins the handshake', async (port) => net.connect(port, HOST)],
    ['never sends a request', connect],
    [
      'never ends its request',
      async (port) => {
        const socket = await connect(port);
        socket.write('POST /v1/enrol HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{');
        return socket;
      },
    ],
  ])('closes a connection that %s', async (_, open) => {
    const { authority } = await scene();
    const { port, server } = await serve(authority, { timeoutMs: 1000 });
    const socket = await open(port);
    socket.on('error', () => {});
    socket.resume();
    await once(socket, 'close');
    await vi.waitFor(() => {
      expect(server.counters.timeouts + server.counters.handshakeFailures).toBeGreaterThan(0);
    });
  });

  test('speaks TLS 1.3 only', async () => {
    const { authority } = await scene();
    const { port, server } = await serve(authority);
    const socket = tls.connect({
      host: HOST,
      port,
      rejectUnauthorized: false,
      maxVersion: 'TLSv1.2',
    });
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toMatch(/TLSV1_ALERT_PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/);
    expect(server.counters.handshakeFailures).toBe(1);
  });

  test('shows a new certificate after half the lifetime of the old one', async () => {
    const { authority } = await scene();
    const issue = vi.spyOn(authority, 'issue');
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    closers.push(() => vi.useRealTimers());
    const { port } = await serve(authority, { certificateLifetimeMs: 2 * DAY_MS });
    await vi.advanceTimersByTimeAsync(DAY_MS);
    expect(issue).toHaveBeenCalledTimes(2);
    const { serial } = await issue.mock.results[1]!.value;
    await vi.waitFor(async () => {
      const socket = await connect(port);
      const shown = socket.getPeerX509Certificate()!.serialNumber.toLowerCase();
      socket.destroy();
      expect(shown).toBe(serial);
    });
  });

  test('finishes the redemption under way before it closes', async () => {
    const { authority } = await scene();
    const { server, endpoint } = await serve(authority);
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    const real = authority.enrol.bind(authority);
    let closing: Promise<void> | undefined;
    vi.spyOn(authority, 'enrol').mockImplementation(async (redemption) => {
      await null; // by now the server has taken note of the redemption
      closing = server.close();
      return real(redemption);
    });
    expect((await enrol(token)).identity).toEqual(SITE_A);
    await closing;
  });
});
