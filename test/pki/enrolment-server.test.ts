import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import tls from 'node:tls';
import { describe, expect, test, vi } from 'vitest';
import { StoreError } from '../../src/errors.ts';
import { type EnrolmentOutcome, EnrolmentServer, enrol, generateCa } from '../../src/pki/index.ts';
import { clockOf } from '../support/clock-of.ts';
import { closers, connect, HOST, post, refused, request, serve } from './enrolment-servers.ts';
import { DAY_MS, HOUR_MS, redemptionOf, SITE_A, scene } from './fixtures.ts';

describe('EnrolmentServer', () => {
  test('reports that a port is in use, and can then listen on another', async () => {
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

  test('answers a bad signing request with 400 and keeps the token valid', async () => {
    const { authority } = await scene();
    const { port, endpoint } = await serve(authority);
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    const { status, body } = await post(port, JSON.stringify(redemptionOf(token, 'x')));
    expect([status, body.code]).toEqual([400, 'ERR_PRESENCE_CERTIFICATE']);
    await enrol(token);
  });

  test('hides its own failures from the client and emits them as problem', async () => {
    const { authority, store } = await scene();
    const errors: unknown[] = [];
    const { port, server } = await serve(authority);
    server.on('problem', ({ error }) => errors.push(error));
    const fault = new StoreError('disk /dev/sda is full');
    const token = await authority.createToken({ site: 'site-a', endpoints: ['https://a'] });
    vi.spyOn(store, 'commit').mockRejectedValueOnce(fault);
    const { status, body } = await post(port, JSON.stringify(redemptionOf(token)));
    expect(status).toBe(503);
    expect(body).toEqual({ code: 'ERR_PRESENCE_INTERNAL', message: 'internal error' });
    expect(errors).toEqual([fault]);
    expect(server.counters.failed).toBe(1);
  });

  test('accepts only TLS 1.3', async () => {
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
    // The server may learn of it later than the client.
    await vi.waitFor(() => expect(server.counters.handshakeFailures).toBe(1));
  });

  test.each(['P-384', 'ffdhe2048'])(
    'refuses a key exchange with %s, whichever certificate it presents',
    async (ecdhCurve) => {
      const { authority } = await scene();
      const { port, server } = await serve(authority);
      for (const failures of [1, 2]) {
        const socket = tls.connect({ host: HOST, port, rejectUnauthorized: false, ecdhCurve });
        const outcome = new Promise<string | undefined>((resolve) => {
          socket.on('secureConnect', () => resolve('connected'));
          socket.on('error', ({ code }: NodeJS.ErrnoException) => resolve(code));
        });
        expect(await outcome).toMatch(/HANDSHAKE_FAILURE$/);
        socket.destroy();
        await vi.waitFor(() => expect(server.counters.handshakeFailures).toBe(failures), {
          timeout: 20_000,
        });
        await server.renewCertificate();
      }
    }
  );

  test.each(['X25519', 'P-256'])('accepts a key exchange with %s', async (ecdhCurve) => {
    const { authority } = await scene();
    const { port } = await serve(authority);
    const socket = tls.connect({ host: HOST, port, rejectUnauthorized: false, ecdhCurve });
    await once(socket, 'secureConnect');
    socket.destroy();
  });

  test('presents a new certificate after half the lifetime of the old one', async () => {
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
      const presented = socket.getPeerX509Certificate()!.serialNumber.toLowerCase();
      socket.destroy();
      expect(presented).toBe(serial);
    });
  });

  test.each([
    ['fast', 38 * DAY_MS],
    ['slow', -400 * DAY_MS],
  ])(
    'renews its certificate within an hour after a clock that was %s is corrected',
    async (_, ms) => {
      let aheadMs = 0;
      const { authority } = await scene({ clock: clockOf(() => Date.now() + aheadMs) });
      aheadMs = ms;
      const issue = vi.spyOn(authority, 'issue');
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
      closers.push(() => vi.useRealTimers());
      await serve(authority);
      aheadMs = 0;
      await vi.advanceTimersByTimeAsync(HOUR_MS);
      expect(issue).toHaveBeenCalledTimes(2);
      const { notBefore, notAfter } = await issue.mock.results[1]!.value;
      expect(notBefore.getTime()).toBeLessThan(Date.now());
      expect(notAfter.getTime()).toBeGreaterThan(Date.now());
      await vi.advanceTimersByTimeAsync(DAY_MS);
      expect(issue).toHaveBeenCalledTimes(2);
    }
  );

  test('finishes the redemption in progress before it closes', async () => {
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

  test('presents a certificate of the new CA when the CA is replaced', async () => {
    const { authority, clock } = await scene();
    const { port } = await serve(authority);
    const issue = vi.spyOn(authority, 'issue');
    await authority.prepareCa(
      generateCa({ trustDomain: authority.trustDomain, clock: clockOf(() => clock.ms) })
    );
    await authority.activateCa();
    expect(issue).toHaveBeenCalledTimes(2);
    await Promise.all(issue.mock.results.map(({ value }) => value));
    await vi.waitFor(async () => {
      const socket = await connect(port);
      const presented = socket.getPeerX509Certificate()!;
      socket.destroy();
      expect(authority.isCurrent(presented)).toBe(true);
    });
  });

  test('presents the certificate that was requested last, even if it was issued first', async () => {
    const { authority } = await scene();
    const { server, port } = await serve(authority);
    const real = authority.issue.bind(authority);
    const release: (() => void)[] = [];
    vi.spyOn(authority, 'issue').mockImplementationOnce(async (...args) => {
      const issued = await real(...args);
      await new Promise<void>((resolve) => release.push(resolve));
      return issued;
    });
    const first = server.renewCertificate();
    await server.renewCertificate();
    const presented = async () => {
      const socket = await connect(port);
      const { serialNumber } = socket.getPeerX509Certificate()!;
      socket.destroy();
      return serialNumber;
    };
    const last = await presented();
    await vi.waitFor(() => expect(release).toHaveLength(1));
    release[0]!();
    await first;
    expect(await presented()).toBe(last);
  });

  test('emits an outcome for each token that is redeemed or refused, with the address and the reason', async () => {
    const { authority, store } = await scene();
    const outcomes: EnrolmentOutcome[] = [];
    const { port, endpoint, server } = await serve(authority);
    server.on('outcome', (outcome) => outcomes.push(outcome));
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    const { cert: certificatePem } = await enrol(token);
    const serial = new X509Certificate(certificatePem).serialNumber.toLowerCase();
    await post(port, JSON.stringify(redemptionOf(token)));
    vi.spyOn(store, 'get').mockRejectedValueOnce(new StoreError('disk /dev/sda is full'));
    await post(port, JSON.stringify(redemptionOf(token)));
    await post(port, 'not a request');
    const remoteAddress = HOST;
    expect(outcomes).toEqual([
      { remoteAddress, site: 'site-a', serial },
      {
        remoteAddress,
        refused: {
          code: 'ERR_PRESENCE_ENROLMENT_USED',
          message: 'the enrolment token has been used',
        },
      },
      { remoteAddress, refused: { code: 'ERR_PRESENCE_INTERNAL', message: 'internal error' } },
    ]);
  });

  test('continues to serve when a listener of outcome throws', async () => {
    const { authority } = await scene();
    const errors: unknown[] = [];
    const fault = new Error('audit log is full');
    const { endpoint, server } = await serve(authority);
    server.on('outcome', () => {
      throw fault;
    });
    server.on('problem', ({ error }) => errors.push(error));
    await enrol(await authority.createToken({ site: 'site-a', endpoints: [endpoint] }));
    expect(errors).toEqual([fault]);
  });
});
