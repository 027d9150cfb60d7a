/** The lists that an operator asks for: tokens, revocations, and the state of the CAs. */
import { X509Certificate } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import { StoreError } from '../../src/errors.ts';
import {
  type CertificateAuthority,
  generateCa,
  type ListQuery,
  parseToken,
} from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { CLOUD } from '../support/certificates.ts';
import {
  DAY_MS,
  HOUR_MS,
  newRequest,
  redemptionOf,
  reload,
  SITE_A,
  scene,
  TRUST_DOMAIN,
} from './fixtures.ts';

const ENDPOINTS = ['https://198.51.100.1:7444'];
const SITE_B = { ...SITE_A, site: 'site-b' };
const SITE_C = { ...SITE_A, site: 'site-c' };
const refused = (code: string) => expect.objectContaining({ code: `ERR_PRESENCE_${code}` });

/** Lists all, page by page. */
function all<T>(list: (query: ListQuery) => T[], keyOf: (entry: T) => string, limit = 2): T[] {
  const entries: T[] = [];
  for (;;) {
    const last = entries.at(-1);
    const page = list({ limit, ...(last && { after: keyOf(last) }) });
    expect(page.length).toBeLessThanOrEqual(limit);
    entries.push(...page);
    if (page.length < limit) return entries;
  }
}

const tokensOf = (authority: CertificateAuthority) =>
  all(
    (query) => authority.tokens(query),
    ({ id }) => id
  );

const WRONG_QUERIES: readonly [string, unknown][] = [
  ['no query', undefined],
  ['no limit', {}],
  ['a limit of none', { limit: 0 }],
  ['a limit above the most', { limit: 10_001 }],
  ['half an entry', { limit: 1.5 }],
  ['a number as the place', { limit: 1, after: 5 }],
  ['an empty site', { limit: 1, site: '' }],
];

describe('the list of tokens', () => {
  test('has each token with its state, in pages and by site, and no secret', async () => {
    const { authority, clock } = await scene();
    const create = (site: string, lifetimeMs = HOUR_MS) =>
      authority.createToken({ site, endpoints: ENDPOINTS, lifetimeMs });
    const short = await create('site-a', 60_000);
    const used = await create('site-a');
    const others = [await create('site-b'), await create('site-b'), await create('site-c')];
    const createdAt = new Date(clock.ms);
    clock.ms += 60_000;
    await authority.enrol(redemptionOf(used));

    const list = tokensOf(authority);
    expect(list.map(({ id }) => id)).toEqual(
      [short, used, ...others].map((text) => parseToken(text).id).sort()
    );
    const entryOf = (text: string) => list.find(({ id }) => id === parseToken(text).id);
    const expiresAt = new Date(createdAt.getTime() + HOUR_MS);
    const usedAt = new Date(clock.ms);
    const entry = { site: 'site-a', createdAt };
    expect(entryOf(short)).toMatchObject({ ...entry, expiresAt: usedAt, state: 'expired' });
    expect(entryOf(used)).toMatchObject({ ...entry, expiresAt, usedAt, state: 'used' });
    expect(entryOf(others[0]!)).toEqual({
      id: parseToken(others[0]!).id,
      site: 'site-b',
      createdAt,
      expiresAt,
      usedAt: undefined,
      state: 'valid',
    });
    const text = JSON.stringify(list);
    for (const each of [short, used, ...others])
      expect(text).not.toContain(parseToken(each).secret);
    expect(text).not.toContain('ash');

    const ofB = authority.tokens({ site: 'site-b', limit: 10 });
    expect(ofB).toEqual(list.filter(({ site }) => site === 'site-b'));
    expect(authority.tokens({ site: 'site-b', limit: 1, after: ofB[0]!.id })).toEqual([ofB[1]]);
    expect(authority.tokens({ site: 'site-x', limit: 1 })).toEqual([]);

    await authority.prune();
    expect(tokensOf(authority)).toHaveLength(4);
  });

  test('has what this process has just written before the watch delivers it', async () => {
    const store = new MemoryStore();
    vi.spyOn(store, 'watch').mockReturnValue(() => {});
    const { authority } = await scene({ store });
    const text = await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    expect(tokensOf(authority)).toHaveLength(1);
    await authority.deleteToken(parseToken(text).id);
    expect(tokensOf(authority)).toEqual([]);
  });

  test('follows what other processes write', async () => {
    const here = await scene();
    const other = await reload(here);
    const text = await other.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    expect(tokensOf(here.authority)).toEqual(tokensOf(other));
    await here.authority.deleteToken(parseToken(text).id);
    expect(tokensOf(other)).toEqual([]);
  });

  test('lists a token from before its creation was recorded', async () => {
    const store = new MemoryStore();
    const id = 'A'.repeat(22);
    const value = {
      secretHash: 'x',
      site: 'site-a',
      expiresAtMs: Date.now() + HOUR_MS,
      usedAtMs: null,
    };
    await store.commit([{ key: `token/${id}`, value }]);
    const { authority } = await scene({ store });
    expect(authority.tokens({ limit: 1 })).toMatchObject([{ id, createdAt: undefined }]);
  });

  test.each(WRONG_QUERIES)('refuses %s', async (_what, query) => {
    const { authority } = await scene();
    expect(() => authority.tokens(query as ListQuery)).toThrow(refused('API_MISUSE'));
    expect(() => authority.revocations.page(query as ListQuery)).toThrow(refused('API_MISUSE'));
  });
});

describe('deleteToken', () => {
  test('ends a token, and returns it as it was', async () => {
    const { authority } = await scene();
    const text = await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    const { id } = parseToken(text);
    const [before] = tokensOf(authority);
    expect(await authority.deleteToken(id)).toEqual(before);
    await expect(authority.enrol(redemptionOf(text))).rejects.toMatchObject({ fault: 'unknown' });
    await expect(authority.deleteToken(id)).rejects.toThrow(refused('NOT_FOUND'));
  });

  test.each(['', '../certificate/ab', 'A'.repeat(22), 'A'.repeat(1e6)])(
    'does not find %.30j',
    async (id) => {
      const { authority, store } = await scene();
      await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
      const before = await store.list('');
      await expect(authority.deleteToken(id)).rejects.toThrow(refused('NOT_FOUND'));
      expect(await store.list('')).toEqual(before);
    }
  );

  test('reports that a site enrols at the same moment', async () => {
    const { authority, store } = await scene();
    const text = await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    const commit = store.commit.bind(store);
    vi.spyOn(store, 'commit').mockImplementationOnce(async (writes) => {
      await authority.enrol(redemptionOf(text));
      return commit(writes);
    });
    const deleted = await authority.deleteToken(parseToken(text).id);
    expect(deleted).toMatchObject({ state: 'used', usedAt: expect.any(Date) });
    expect(tokensOf(authority)).toEqual([]);
  });

  test('leaves the token if it cannot be deleted', async () => {
    const { authority, store } = await scene();
    const text = await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    vi.spyOn(store, 'commit').mockRejectedValueOnce(new StoreError('disk full'));
    await expect(authority.deleteToken(parseToken(text).id)).rejects.toThrow('disk full');
    await expect(authority.enrol(redemptionOf(text))).resolves.toBeDefined();
  });
});

describe('the list of revocations', () => {
  async function revoked() {
    const here = await scene();
    const { authority, clock } = here;
    const a = await authority.issue(newRequest().csrPem, SITE_A);
    const b = await authority.issue(newRequest().csrPem, SITE_B);
    const cloud = await authority.issue(newRequest().csrPem, CLOUD);
    await authority.revoke({ site: 'site-a' }, 'keyCompromise');
    clock.ms += HOUR_MS;
    await authority.revoke({ serial: b.serial }, 'superseded');
    await authority.revoke({ serial: cloud.serial });
    await authority.revoke({ spki: SPKI });
    return { ...here, a, b, cloud };
  }
  const SPKI = Buffer.alloc(32).toString('base64url');
  const listOf = ({ revocations }: CertificateAuthority) =>
    all(
      (query) => revocations.page(query),
      ({ key }) => key
    );

  test('has what is revoked, since when, why, and whose it is', async () => {
    const { authority, clock, a, b, cloud } = await revoked();
    const later = new Date(clock.ms);
    const first = new Date(clock.ms - HOUR_MS);
    const list = listOf(authority);
    expect(list.map(({ key }) => key)).toEqual(
      [a, b, cloud]
        .map(({ serial }) => `serial/${serial}`)
        .sort()
        .concat('site/site-a', `spki/${SPKI}`)
    );
    const entryOf = (key: string) => list.find((entry) => entry.key === key);
    const cause = { reason: 'keyCompromise', revokedAt: first, site: 'site-a' };
    expect(entryOf('site/site-a')).toEqual({
      key: 'site/site-a',
      scope: { site: 'site-a' },
      certificate: undefined,
      ...cause,
    });
    expect(entryOf(`serial/${a.serial}`)).toMatchObject({
      scope: { serial: a.serial },
      certificate: { serial: a.serial, notAfterMs: a.notAfter.getTime() },
      ...cause,
    });
    const ofB = { reason: 'superseded', revokedAt: later, site: 'site-b' };
    expect(entryOf(`serial/${b.serial}`)).toMatchObject(ofB);
    expect(entryOf(`serial/${cloud.serial}`)).toMatchObject({ site: undefined });
    expect(entryOf(`spki/${SPKI}`)).toMatchObject({
      scope: { spki: SPKI },
      reason: 'unspecified',
      site: undefined,
    });
  });

  test('selects those of a site, and is the same after a restart and in another process', async () => {
    const here = await revoked();
    const list = listOf(here.authority);
    const ofA = here.authority.revocations.page({ site: 'site-a', limit: 10 });
    expect(ofA).toEqual(list.filter(({ site }) => site === 'site-a'));
    expect(ofA).toHaveLength(2);
    const rest = { site: 'site-a', limit: 10, after: ofA[0]!.key };
    expect(here.authority.revocations.page(rest)).toEqual([ofA[1]]);
    expect(here.authority.revocations.page({ site: 'site-c', limit: 10 })).toEqual([]);
    expect(listOf(await reload(here))).toEqual(list);
  });

  test('has a reinstated site no more, but its certificates', async () => {
    const here = await revoked();
    await here.authority.reinstate('site-a');
    const ofA = here.authority.revocations.page({ site: 'site-a', limit: 10 });
    expect(ofA.map(({ key }) => key)).toEqual([`serial/${here.a.serial}`]);
    here.clock.ms += HOUR_MS;
    await here.authority.revoke({ site: 'site-a' }, 'privilegeWithdrawn');
    const again = here.authority.revocations.page({ site: 'site-a', limit: 10 });
    expect(again[1]).toMatchObject({
      reason: 'privilegeWithdrawn',
      revokedAt: new Date(here.clock.ms),
    });
  });
});

describe('the status of the CAs', () => {
  const nextCa = () => generateCa({ trustDomain: TRUST_DOMAIN });

  test('has the certificates of each CA, and the step of the rollover', async () => {
    const { authority } = await scene({ intermediate: true });
    const [signing, root] = authority.certificatePem
      .split(/(?<=-----END CERTIFICATE-----\n)/)
      .map((pem) => new X509Certificate(pem));
    const { current, ...others } = authority.status();
    expect(others).toEqual({
      rollover: 'none',
      next: undefined,
      previous: undefined,
      crl: undefined,
      outdated: { count: 0, names: [] },
    });
    expect(current.spki).toBe(authority.spkiHash);
    expect(current.root.subject).toBe('CN=example.org gateways');
    expect(current.root.fingerprint).toBe(root!.fingerprint256);
    expect(current.intermediates).toEqual([
      {
        subject: 'CN=example.org gateways\\, issuing',
        serial: signing!.serialNumber.toLowerCase(),
        fingerprint: signing!.fingerprint256,
        notBefore: new Date(signing!.validFrom),
        notAfter: new Date(signing!.validTo),
      },
    ]);
    expect(current.notAfter).toEqual(authority.notAfter);

    await authority.prepareCa(nextCa());
    const prepared = authority.status();
    expect(prepared.rollover).toBe('prepared');
    expect(prepared.current).toEqual(current);
    await authority.activateCa();
    const active = authority.status();
    expect(active.rollover).toBe('active');
    expect([active.previous, active.current, active.next]).toEqual([
      current,
      prepared.next,
      undefined,
    ]);
    await authority.retireCa();
    expect(authority.status()).toMatchObject({ rollover: 'none', previous: undefined });
  });

  test('counts the sites whose newest certificate is of the previous CA', async () => {
    const { authority, clock } = await scene();
    const issue = (identity: typeof SITE_A, lifetimeMs?: number) =>
      authority.issue(
        newRequest().csrPem,
        identity,
        lifetimeMs === undefined ? {} : { lifetimeMs }
      );
    const first = await issue(SITE_A);
    await issue(SITE_B);
    await issue(SITE_C, DAY_MS);
    const lost = await issue({ ...SITE_A, site: 'site-d' });
    await issue({ ...SITE_A, site: 'site-e' });
    await authority.issue(newRequest().csrPem, CLOUD);
    await authority.prepareCa(nextCa());
    expect(authority.status().outdated.count).toBe(0);
    await authority.activateCa();
    const { outdated } = authority.status();
    expect(outdated).toEqual({
      count: 5,
      names: ['site-a', 'site-b', 'site-c', 'site-d', 'site-e'],
    });

    // Of two in the same millisecond, the one that is recorded later is the newer one.
    await authority.renew(new X509Certificate(first.certificatePem), newRequest().csrPem);
    expect(authority.status().outdated.names).not.toContain('site-a');
    await authority.revoke({ serial: lost.serial });
    await authority.revoke({ site: 'site-e' });
    clock.ms += 2 * DAY_MS;
    expect(authority.status().outdated).toEqual({ count: 1, names: ['site-b'] });
    await authority.retireCa();
    expect(authority.status().outdated.count).toBe(0);
  });

  test('names 100 sites at most', async () => {
    const { authority } = await scene({ keyType: 'ed25519' });
    const { csrPem } = newRequest();
    for (let i = 0; i < 102; i++) await authority.issue(csrPem, { ...SITE_A, site: `site-${i}` });
    await authority.prepareCa(nextCa());
    await authority.activateCa();
    const { count, names } = authority.status().outdated;
    expect([count, names.length]).toEqual([102, 100]);
    expect(names).toEqual([...names].sort());
  });

  test('has the number and the times of the latest CRL', async () => {
    const { authority, clock } = await scene({ crlLifetimeMs: DAY_MS });
    authority.crlPem();
    const first = authority.status().crl!;
    expect(first.nextUpdate).toEqual(new Date(clock.ms + DAY_MS));
    expect(first.thisUpdate.getTime()).toBeLessThanOrEqual(clock.ms);
    authority.crlPem();
    expect(authority.status().crl!.number).toBe(first.number + 1);
  });
});
