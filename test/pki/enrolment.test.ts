import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import tls from 'node:tls';
import { describe, expect, test, vi } from 'vitest';
import { randomSerial, signEndEntity, validityOf } from '../../src/pki/certificate.ts';
import { readCertificates } from '../../src/pki/credentials-check.ts';
import { commonName } from '../../src/pki/der.ts';
import {
  enrol,
  type GatewayIdentity,
  generateCa,
  identityOfCertificate,
  parseToken,
} from '../../src/pki/index.ts';
import { spkiDigest } from '../../src/pki/keys.ts';
import { formatToken } from '../../src/pki/token.ts';
import { CLOUD } from '../support/certificates.ts';
import { clockOf } from '../support/clock-of.ts';
import {
  closedPort,
  closers,
  HOST,
  httpAnswer,
  impostor,
  refused,
  serve,
  withCertificate,
} from './enrolment-servers.ts';
import { DAY_MS, HOUR_MS, newRequest, SITE_A, scene } from './fixtures.ts';

/** The chain with one byte of the signature of its last certificate changed. */
function forged(pem: string): string {
  const der = Buffer.from(new X509Certificate(pem).raw);
  der[der.length - 1]! ^= 1;
  return `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`;
}

/** A certificate for a key, signed by a site with its own key. */
function signedBySite(siteKeyPem: string, keyPem: string, identity: GatewayIdentity): string {
  const privateKey = createPrivateKey(siteKeyPem);
  const keyId = spkiDigest(createPublicKey(privateKey));
  const issuer = { privateKey, name: commonName('site-a'), keyId };
  const validity = validityOf(Date.now(), DAY_MS);
  return signEndEntity(issuer, createPublicKey(keyPem), identity, randomSerial(), validity);
}

describe('enrol', () => {
  test.each(['p256', 'ed25519', 'rsa'] as const)(
    'obtains the certificate of a site from a %s CA',
    async (keyType) => {
      const { authority } = await scene({ keyType });
      const { server, endpoint } = await serve(authority);
      const result = await enrol(
        await authority.createToken({ site: 'site-a', endpoints: [endpoint] })
      );
      const certificate = new X509Certificate(result.cert);
      expect(result.identity).toEqual(SITE_A);
      expect(identityOfCertificate(certificate)).toEqual(SITE_A);
      expect(certificate.verify(new X509Certificate(result.ca).publicKey)).toBe(true);
      expect(tls.createSecureContext({ key: result.key, cert: result.cert })).toBeDefined();
      expect(server.counters).toMatchObject({ connections: 2, enrolled: 1, refused: 0, failed: 0 });
    }
  );

  test('uses the given key', async () => {
    const { authority } = await scene();
    const { endpoint } = await serve(authority);
    const { privateKeyPem } = newRequest('ed25519');
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    expect((await enrol(token, { privateKeyPem })).key).toBe(privateKeyPem);
  });

  test('skips an endpoint that is closed and one of another CA, which does not receive the secret', async () => {
    const { authority } = await scene();
    const { endpoint } = await serve(authority);
    const foreign = await withCertificate((await scene()).authority, '');
    const endpoints = [`https://${HOST}:${await closedPort()}`, foreign.endpoint, endpoint];
    const result = await enrol(await authority.createToken({ site: 'site-a', endpoints }));
    expect(result.identity).toEqual(SITE_A);
    expect(foreign.received).toEqual([]);
  });

  test('refuses every server that is not the cloud of the pinned CA, before it sends the secret', async () => {
    const { authority } = await scene();
    const other = (await scene()).authority;
    const { privateKeyPem: key, csrPem } = newRequest();
    const foreignLeaf = (await other.issue(csrPem, CLOUD)).certificatePem;
    const siteLeaf = (await authority.issue(csrPem, SITE_A)).certificatePem;
    const cloudLeaf = (await authority.issue(csrPem, CLOUD)).certificatePem;
    const site = newRequest();
    const bySite =
      signedBySite(site.privateKeyPem, key, CLOUD) +
      (await authority.issue(site.csrPem, SITE_A)).certificatePem;
    const chains: readonly [string, string][] = [
      ['another CA of the same name', foreignLeaf + other.certificatePem],
      ['a foreign leaf with the pinned CA', foreignLeaf + authority.certificatePem],
      ['a site of the pinned CA', siteLeaf + authority.certificatePem],
      ['no CA in the chain', cloudLeaf],
      ['a leaf alone that says it is the CA', foreignLeaf],
      ['a site as CA between', bySite + authority.certificatePem],
      [
        'a root with the pinned key that did not sign itself',
        cloudLeaf + forged(authority.certificatePem),
      ],
      [
        'the pinned CA after 16 others',
        cloudLeaf + other.certificatePem.repeat(16) + authority.certificatePem,
      ],
    ];
    for (const [name, chain] of chains) {
      const { endpoint, received } = await impostor(key, chain);
      const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
      await expect(enrol(token), name).rejects.toThrow(refused('ENROLMENT_WRONG_CA'));
      expect(received, name).toEqual([]);
    }
  });

  test.each(['P-384', 'ffdhe2048'])(
    'refuses a server that accepts only a key exchange with %s',
    async (ecdhCurve) => {
      const { authority } = await scene();
      const { privateKeyPem: key, csrPem } = newRequest();
      const { certificatePem } = await authority.issue(csrPem, CLOUD);
      const chain = certificatePem + authority.certificatePem;
      const { endpoint, received } = await impostor(key, chain, '', { ecdhCurve });
      const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
      const error = await enrol(token).catch((it) => it);
      expect(error).toEqual(refused('ENVIRONMENT'));
      expect(error.message).toMatch(/handshake failure/i);
      expect(received).toEqual([]);
    }
  );

  test('names the clock when the server certificate is not yet valid or has expired', async () => {
    const { authority } = await scene();
    const { endpoint } = await serve(authority);
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    for (const days of [-1, 31]) {
      const clock = clockOf(() => Date.now() + days * DAY_MS);
      const error = await enrol(token, { clock }).catch((it) => it);
      expect(error).toEqual(refused('ENVIRONMENT'));
      expect(error.message).toContain('but the clock here says');
    }
    await enrol(token);
  });

  test.each([
    ['has expired', -40],
    ['is yet to come', 40],
  ])('names the clock when OpenSSL finds that the server certificate %s', async (_, days) => {
    const { authority } = await scene({ clock: clockOf(() => Date.now() + days * DAY_MS) });
    const { endpoint } = await serve(authority);
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    const error = await enrol(token).catch((it) => it);
    expect(error).toEqual(refused('ENVIRONMENT'));
    expect(error.message).toMatch(/certificate valid from .* but the clock here says/);
  });

  test('returns the chain of an intermediate CA, and the root as trust bundle', async () => {
    const { authority } = await scene({ intermediate: true });
    const { endpoint } = await serve(authority);
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    const { cert: certificatePem, ca: caPem } = await enrol(token);
    const [leaf, intermediate, ...more] = readCertificates(certificatePem);
    const [root] = readCertificates(caPem);
    expect(more).toEqual([]);
    expect(leaf!.verify(intermediate!.publicKey)).toBe(true);
    expect(intermediate!.verify(root!.publicKey)).toBe(true);
    expect(caPem).toBe(authority.trustBundlePem);
  });

  test('works during a rollover, with tokens of the old CA and of the new one', async () => {
    const { authority, clock } = await scene();
    const { endpoint } = await serve(authority);
    const issue = vi.spyOn(authority, 'issue');
    const token = () => authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    const [first, second, third] = [await token(), await token(), await token()];
    const serverCertificateRenewed = (times: number) =>
      vi.waitFor(async () => {
        expect(issue).toHaveBeenCalledTimes(times);
        await issue.mock.results.at(-1)!.value;
      });
    await authority.prepareCa(
      generateCa({ trustDomain: authority.trustDomain, clock: clockOf(() => clock.ms) })
    );
    await serverCertificateRenewed(1);
    expect(readCertificates((await enrol(first)).ca)).toHaveLength(2);
    await authority.activateCa();
    await serverCertificateRenewed(2);
    const underNew = await enrol(second);
    expect(underNew.ca).toBe(authority.trustBundlePem);
    expect(authority.isCurrent(new X509Certificate(underNew.cert))).toBe(true);
    const fourth = await token();
    await enrol(fourth);
    await authority.retireCa();
    await serverCertificateRenewed(3);
    await expect(enrol(third)).rejects.toThrow(refused('ENROLMENT_WRONG_CA'));
    expect(readCertificates((await enrol(await token())).ca)).toHaveLength(1);
  });

  test('works again with another token when the certificate has expired, and revokes nothing', async () => {
    // The clock of the CA is three hours behind that of OpenSSL.
    const time = { ms: Date.now() - 3 * HOUR_MS };
    const clock = clockOf(() => time.ms);
    const { authority } = await scene({ clock, certificateLifetimeMs: HOUR_MS });
    const { endpoint } = await serve(authority);
    const token = () => authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    const before = await enrol(await token(), { clock });
    const old = new X509Certificate(before.cert);
    time.ms += 2 * HOUR_MS;
    await expect(authority.renew(old, newRequest().csrPem)).rejects.toThrow('expired');
    const after = await enrol(await token(), { clock });
    expect(after.identity).toEqual(before.identity);
    expect(Date.parse(new X509Certificate(after.cert).validTo)).toBeGreaterThan(time.ms);
    expect(authority.isRevoked(old)).toBe(false);
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

  test('reports for each endpoint why it did not answer', async () => {
    const { authority } = await scene();
    const mute = net.createServer((socket) => socket.on('error', () => {})).listen(0, HOST);
    await once(mute, 'listening');
    closers.push(() => mute.close());
    const failureAt = async (endpoints: readonly string[], options = {}): Promise<Error> => {
      const token = await authority.createToken({ site: 'site-a', endpoints });
      const error = await enrol(token, options).catch((it) => it);
      expect(error).toEqual(refused('ENVIRONMENT'));
      return error;
    };
    const { message } = await failureAt([
      `https://${HOST}:${await closedPort()}`,
      (await withCertificate(authority, httpAnswer(503, {}))).endpoint,
      (await withCertificate(authority, 'not HTTP\r\n\r\n')).endpoint,
    ]);
    for (const reason of ['ECONNREFUSED', 'answered 503', 'Parse Error']) {
      expect(message).toContain(reason);
    }
    const silent = `https://${HOST}:${(mute.address() as AddressInfo).port}`;
    const two = [silent, `https://${HOST}:${await closedPort()}`];
    const { message: late } = await failureAt(two, { timeoutMs: 500 });
    expect(late).toContain('no answer within 500 ms');
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
    const site = newRequest();
    const ofSite = (await authority.issue(site.csrPem, SITE_A)).certificatePem;
    const notAfter = own.notAfter.toISOString();
    const bodies: readonly [string, unknown, boolean][] = [
      ['as it should be', { ...own, caPem, notAfter }, true],
      ['another key', { ...strange, caPem, notAfter }, false],
      ['another site', { ...elsewhere, caPem, notAfter }, false],
      ['another CA', { ...foreign, caPem: other.certificatePem, notAfter }, false],
      ['another CA under ours', { ...foreign, caPem, notAfter }, false],
      ['ours, without the pinned CA', { ...own, caPem: other.certificatePem, notAfter }, false],
      [
        'another CA next to the pinned one',
        { ...foreign, caPem: caPem + other.certificatePem, notAfter },
        true,
      ],
      [
        'a leaf among the trust anchors',
        { ...own, caPem: caPem + own.certificatePem, notAfter },
        false,
      ],
      ['17 certificates', { ...own, caPem: caPem.repeat(17), notAfter }, false],
      [
        'one signed by a site',
        {
          certificatePem: signedBySite(site.privateKeyPem, privateKeyPem, SITE_A) + ofSite,
          caPem,
          notAfter,
        },
        false,
      ],
      ['no certificate', { certificatePem: 'x', caPem, notAfter }, false],
      ['no JSON', '<html>', false],
      ['nothing', {}, false],
      ['a member that nobody knows', { ...own, caPem, notAfter, later: [{}] }, true],
      ['no endpoints of tunnels', { ...own, caPem, notAfter, tunnels: [] }, true],
      [
        'sixteen endpoints',
        { ...own, caPem, notAfter, tunnels: Array(16).fill('192.0.2.1:1') },
        true,
      ],
      [
        'seventeen endpoints',
        { ...own, caPem, notAfter, tunnels: Array(17).fill('192.0.2.1:1') },
        false,
      ],
      ...[
        ...['', '192.0.2.1', '192.0.2.1:0', '192.0.2.1:65536', '2001:db8::1:7443', ':7443', 7443],
        ...['192.0.2.256:1', 'https://192.0.2.1:7443', 'a b:1', `${'a'.repeat(300)}:1`, null, []],
        { host: '192.0.2.1', port: 7443 },
      ].map((tunnel): [string, unknown, boolean] => [
        `the endpoint ${JSON.stringify(tunnel)}`,
        { ...own, caPem, notAfter, tunnels: ['192.0.2.1:7443', tunnel] },
        false,
      ]),
      ['endpoints as one text', { ...own, caPem, notAfter, tunnels: '192.0.2.1:7443' }, false],
      ['null for endpoints', { ...own, caPem, notAfter, tunnels: null }, false],
    ];
    for (const [name, body, good] of bodies) {
      const { endpoint } = await withCertificate(authority, httpAnswer(200, body));
      const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
      const outcome = enrol(token, { privateKeyPem });
      if (good) await expect(outcome, name).resolves.toMatchObject({ identity: SITE_A });
      else await expect(outcome, name).rejects.toThrow(refused('PEER_PROTOCOL'));
    }
  });

  test("returns the present endpoints of the cloud's tunnels", async () => {
    const { authority } = await scene();
    let tunnels = [
      { host: '198.51.100.1', port: 7443 },
      { host: '2001:db8::1', port: 443 },
      { host: 'gateway.example.org', port: 7444 },
    ];
    const { endpoint } = await serve(authority, { tunnels: () => tunnels });
    const token = () => authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    expect((await enrol(await token())).tunnels).toEqual(tunnels);
    tunnels = [];
    expect((await enrol(await token())).tunnels).toEqual([]);
    const silent = await serve(authority);
    const endpoints = [silent.endpoint];
    const other = await authority.createToken({ site: 'site-a', endpoints });
    expect((await enrol(other)).tunnels).toEqual([]);
  });

  test.each<[string, () => unknown]>([
    [
      'throws',
      () => {
        throw new Error('not yet');
      },
    ],
    ['names no list', () => undefined],
    ['names seventeen', () => Array(17).fill({ host: '192.0.2.1', port: 1 })],
    ['names port 0', () => [{ host: '192.0.2.1', port: 0 }]],
    ['names an address with a zone', () => [{ host: 'fe80::1%eth0', port: 7443 }]],
    ['names a host that is too long', () => [{ host: 'a'.repeat(300), port: 7443 }]],
  ])('uses no token when the option tunnels %s', async (_, tunnels) => {
    const { authority } = await scene();
    const errors: Error[] = [];
    let isFaulty = true;
    const { endpoint, server } = await serve(authority, {
      tunnels: () => (isFaulty ? (tunnels() as never) : []),
    });
    server.on('problem', ({ error }) => errors.push(error));
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    await expect(enrol(token)).rejects.toThrow('answered 500');
    expect(errors).toHaveLength(1);
    expect(errors[0]!.message).toMatch(/^(tunnels|not yet)/);
    isFaulty = false;
    await enrol(token);
    expect(server.counters).toMatchObject({ failed: 1, enrolled: 1 });
  });

  test('ends if the answer is endless', async () => {
    const { authority } = await scene();
    const { endpoint } = await withCertificate(authority, httpAnswer(200, 'x'.repeat(100_000)));
    const token = await authority.createToken({ site: 'site-a', endpoints: [endpoint] });
    await expect(enrol(token)).rejects.toThrow('the answer is too large');
  });
});
