import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  ControlClient,
  ControlServer,
  type ControlServerOptions,
  type TrustProvider,
} from '../../src/control/index.ts';
import {
  ApiMisuseError,
  EnvironmentError,
  PeerRefusedError,
  StoreError,
} from '../../src/errors.ts';
import {
  CertificateAuthority,
  createSigningRequest,
  generateCa,
  generateGatewayKey,
} from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import type { FakeClock } from '../support/fake-clock.ts';
import { Link } from './link.ts';
import { DESIRED, startScene, turn } from './scene.ts';

const trustDomain = 'openstack.test';
const identity = { trustDomain, role: 'site', site: 'site-a' } as const;
const newRequest = () => createSigningRequest(generateGatewayKey().privateKeyPem);

interface World {
  readonly authority: CertificateAuthority;
  readonly server: ControlServer;
  readonly link: Link;
  readonly client: ControlClient;
  readonly clock: FakeClock;
  readonly problems: Error[];
  /** What the provider says and does; tests change it. */
  readonly provider: { -readonly [K in keyof TrustProvider]: TrustProvider[K] };
}

/** An edge of site-a with a certificate, connected to a server that can renew it. */
async function connect(options: ControlServerOptions = {}): Promise<World> {
  const authority = await CertificateAuthority.open({
    ...generateCa({ trustDomain }),
    trustDomain,
    store: new MemoryStore(),
  });
  const provider: World['provider'] = {
    trust: () => ({ caPem: authority.certificatePem, renew: false }),
    renew: async (certificate, csrPem) => ({
      certificatePem: (await authority.renew(certificate, csrPem)).certificatePem,
      caPem: authority.certificatePem,
    }),
  };
  const { controller, clock } = await startScene(DESIRED);
  clock.advance(5000);
  const server = new ControlServer(controller, { trust: provider, clock, ...options });
  const problems: Error[] = [];
  server.on('problem', ({ error }) => problems.push(error));
  const link = new Link();
  link.cloud.certificate = new X509Certificate(
    (await authority.issue(newRequest(), identity)).certificatePem
  );
  const client = await ControlClient.open({ site: 'site-a', renewalTimeoutMs: 5000, clock });
  client.attach(link.edge);
  server.attach('site-a', link.cloud, (error) => {
    throw error;
  });
  return { authority, server, link, client, problems, provider, clock };
}

/** A server with many edges, and how long each was last asked to wait before it renews. */
async function fleet(size: number, options: ControlServerOptions = {}) {
  const provider: World['provider'] = {
    trust: () => ({ caPem: 'one', renew: false }),
    renew: () => Promise.reject(new Error('nobody asks')),
  };
  const { controller, clock } = await startScene(DESIRED);
  clock.advance(5000);
  const server = new ControlServer(controller, { trust: provider, clock, ...options });
  const links: Link[] = [];
  const authority = await CertificateAuthority.open({
    ...generateCa({ trustDomain }),
    trustDomain,
    store: new MemoryStore(),
  });
  const { certificatePem } = await authority.issue(newRequest(), identity);
  const add = (site: string): X509Certificate => {
    const link = new Link();
    link.cloud.certificate = new X509Certificate(certificatePem);
    server.attach(site, link.cloud, (error) => {
      throw error;
    });
    links.push(link);
    return link.cloud.certificate;
  };
  for (let i = 0; i < size; i++) add(`site-${i}`);
  const waits = (): (number | undefined)[] =>
    links.map(({ cloud }) => {
      const seen = cloud.sent.filter((it) => (it as { type: string }).type === 'trust').at(-1);
      return (seen as { renewInMs?: number }).renewInMs;
    });
  return { server, provider, waits, add };
}

/** Delivers until the authority has answered, and that too. */
async function settle(link: Link): Promise<void> {
  link.deliver();
  for (let i = 0; i < 10; i++) await turn();
  link.deliver();
}

describe('renewal', () => {
  test('an edge gets the next certificate of its own site for a new key', async () => {
    const { link, client, server, authority } = await connect();
    const { privateKeyPem, publicKeyPem } = generateGatewayKey();
    const renewal = client.renew(createSigningRequest(privateKeyPem));
    await settle(link);
    const { certificatePem, caPem } = await renewal;
    const certificate = new X509Certificate(certificatePem);
    expect(certificate.subjectAltName).toBe('URI:spiffe://openstack.test/site/site-a');
    expect(certificate.publicKey.export({ type: 'spki', format: 'pem' })).toBe(publicKeyPem);
    expect(caPem).toBe(authority.certificatePem);
    expect(server.renewals).toEqual({ renewed: 1, refused: 0, limited: 0, failed: 0 });
  });

  test('an edge gets the reason when the authority refuses', async () => {
    const { link, client, server, authority } = await connect();
    await authority.revoke({ site: 'site-a' });
    const renewal = client.renew(newRequest());
    const refused = expect(renewal).rejects.toThrow(PeerRefusedError);
    await settle(link);
    await refused;
    await expect(renewal).rejects.toThrow(/revoked.*ERR_PRESENCE_CERTIFICATE/);
    expect(server.renewals).toMatchObject({ renewed: 0, refused: 1 });
  });

  test('a wrong request is refused, and the channel continues', async () => {
    const { link, client } = await connect();
    const renewal = client.renew('not a signing request');
    const refused = expect(renewal).rejects.toThrow(PeerRefusedError);
    await settle(link);
    await refused;
    const again = client.renew(newRequest());
    await settle(link);
    await expect(again).resolves.toHaveProperty('certificatePem');
  });

  test('an edge does not learn the details of a fault in the cloud', async () => {
    const { link, client, problems, server, provider } = await connect();
    provider.renew = () => Promise.reject(new StoreError('the disk is full'));
    const renewal = client.renew(newRequest());
    const refused = expect(renewal).rejects.toThrow(/internal error/);
    await settle(link);
    await refused;
    expect(problems.map(({ message }) => message)).toEqual(['the disk is full']);
    expect(server.renewals).toMatchObject({ failed: 1, refused: 0 });
  });

  test('a site renews no more often than it may, also over other connections', async () => {
    const { link, server } = await connect({ maxRenewalsPerHour: 2 });
    const csrPem = newRequest();
    for (let i = 0; i < 5; i++) {
      link.edge.sendControl({ type: 'renew', csrPem });
      await settle(link);
    }
    expect(server.renewals).toEqual({ renewed: 2, refused: 3, limited: 3, failed: 0 });
    const other = new Link();
    other.cloud.certificate = link.cloud.certificate;
    server.attach('site-a', other.cloud, () => {});
    other.cloud.receive({ type: 'renew', csrPem });
    await turn();
    expect(server.renewals).toMatchObject({ renewed: 2, limited: 4 });
  });

  test('a limit of no renewals is a misuse', async () => {
    await expect(connect({ maxRenewalsPerHour: 0 })).rejects.toThrow(ApiMisuseError);
  });

  test('a client stops waiting for an answer, and ignores one that comes late', async () => {
    const { link, client, clock } = await connect();
    const renewal = client.renew(newRequest());
    const failed = expect(renewal).rejects.toThrow(/did not answer within 5000 ms/);
    await expect(client.renew(newRequest())).rejects.toThrow(ApiMisuseError);
    clock.advance(5000);
    await failed;
    await settle(link);
    const again = client.renew(newRequest());
    await settle(link);
    await expect(again).resolves.toHaveProperty('caPem');
  });

  test('a client without a tunnel cannot ask, and one that closes stops waiting', async () => {
    const { link, client } = await connect();
    link.edge.isFull = true;
    await expect(client.renew(newRequest())).rejects.toThrow(EnvironmentError);
    link.edge.isFull = false;
    const renewal = client.renew(newRequest());
    client.close();
    await expect(renewal).rejects.toThrow(/the client was closed/);
  });

  test('a server without a trust provider ignores the request', async () => {
    const { link, server, client } = await connect();
    const bare = new Link();
    bare.edge.isFull = false;
    client.attach(bare.edge);
    server.attach('site-b', bare.cloud, () => {});
    bare.cloud.receive({ type: 'renew', csrPem: newRequest() });
    await settle(bare);
    expect(server.renewals).toMatchObject({ renewed: 0, refused: 0 });
    expect(link.cloud.sent.filter((it) => JSON.stringify(it).includes('certificate'))).toEqual([]);
  });
});

describe('trust', () => {
  test('an edge gets the trust anchors when it connects, and when they change', async () => {
    const { link, client, server, provider } = await connect();
    const seen: unknown[] = [];
    client.on('trust', (trust) => seen.push(trust));
    link.deliver();
    expect(seen).toEqual([expect.objectContaining({ renew: false })]);
    provider.trust = () => ({ caPem: 'both', renew: true });
    server.announceTrust();
    link.deliver();
    expect(seen[1]).toEqual({ caPem: 'both', renew: true });
  });

  test('a thousand edges renew one after the other when the CA changes, 20 in a second', async () => {
    const { server, provider, waits } = await fleet(1000);
    server.announceTrust();
    expect(waits().every((ms) => ms === undefined)).toBe(true);
    provider.trust = () => ({ caPem: 'both', renew: true });
    server.announceTrust();
    const inSecond = new Map<number, number>();
    for (const ms of waits()) {
      const second = Math.floor((ms ?? 0) / 1000);
      inSecond.set(second, (inSecond.get(second) ?? 0) + 1);
    }
    expect(Math.max(...inSecond.values())).toBe(20);
    expect(inSecond.size).toBe(50);
  });

  test.each([
    [3, undefined, [undefined, 50, 100]],
    [1, undefined, [undefined]],
    [3, 0, [undefined, undefined, undefined]],
    [4, 40, [undefined, 10, 20, 30]],
  ])('%i edges with renewalSpreadMs %s wait %j ms', async (edges, renewalSpreadMs, expected) => {
    const { server, provider, waits } = await fleet(
      edges,
      renewalSpreadMs === undefined ? {} : { renewalSpreadMs }
    );
    provider.trust = () => ({ caPem: 'both', renew: true });
    server.announceTrust();
    expect(waits()).toEqual(expected);
  });

  test('an edge that has renewed does not delay others, and one that connects renews at once', async () => {
    const { server, provider, waits, add } = await fleet(3);
    const fresh = new Set<unknown>();
    provider.trust = (certificate) => ({ caPem: 'both', renew: !fresh.has(certificate) });
    fresh.add(add('site-new'));
    server.announceTrust();
    expect(waits()).toEqual([undefined, 50, 100, undefined]);
    add('site-late');
    expect(waits().at(-1)).toBeUndefined();
  });

  test.each([-1, Number.NaN, 3_600_001, '5'])('refuses the spread %s', async (renewalSpreadMs) => {
    const { controller } = await startScene(DESIRED);
    const start = () =>
      new ControlServer(controller, { renewalSpreadMs: renewalSpreadMs as number });
    expect(start).toThrow(ApiMisuseError);
  });

  test('an edge learns how long to wait; an older cloud does not say it', async () => {
    const { link, client } = await connect();
    link.deliver();
    const seen: unknown[] = [];
    const problems: Error[] = [];
    client.on('trust', (trust) => seen.push(trust));
    client.on('problem', ({ error }) => problems.push(error));
    const message = { type: 'trust', caPem: 'x', renew: true };
    for (const more of [{}, { renewInMs: 7 }, { renewInMs: -1 }, { renewInMs: 1e9 }]) {
      link.edge.receive({ ...message, ...more });
    }
    expect(seen).toEqual([
      { caPem: 'x', renew: true },
      { caPem: 'x', renew: true, renewInMs: 7 },
    ]);
    expect(problems).toHaveLength(2);
  });

  test('the status says which certificate an edge presents, and whether the current CA signed it', async () => {
    const { link, server, provider } = await connect();
    const { serialNumber, validTo } = link.cloud.certificate!;
    expect(server.status('site-a')?.certificate).toEqual({
      serial: serialNumber.toLowerCase(),
      notAfter: new Date(validTo).toISOString(),
      isCurrent: true,
    });
    provider.trust = () => ({ caPem: 'both', renew: true });
    expect(server.status('site-a')?.certificate).toMatchObject({ isCurrent: false });
  });

  test.each(['trust', 'certificate', 'refusal'])(
    'an edge that sends what only a cloud does (%s) breaks the protocol',
    async (type) => {
      const { server } = await connect();
      const link = new Link();
      const faults: Error[] = [];
      server.attach('site-b', link.cloud, (error) => faults.push(error));
      const message = {
        trust: { type, caPem: 'x', renew: false },
        certificate: { type, certificatePem: 'x', caPem: 'x' },
        refusal: { type, code: 'ERR_X', message: 'x' },
      }[type]!;
      link.cloud.receive(message);
      expect(faults.map(({ message: text }) => text)).toEqual([
        `control message: an edge sent one of type ${type}`,
      ]);
    }
  );

  test('a PEM text that is too long is refused by the schema', async () => {
    const { server } = await connect();
    const link = new Link();
    const faults: Error[] = [];
    server.attach('site-b', link.cloud, (error) => faults.push(error));
    link.cloud.receive({ type: 'renew', csrPem: 'x'.repeat(65_537) });
    expect(faults).toHaveLength(1);
  });
});
