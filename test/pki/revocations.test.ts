import { createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import { StoreError } from '../../src/errors.ts';
import {
  type CertificateAuthority,
  isRevokedBy,
  type RevocationReason,
  type RevocationScope,
  Revocations,
} from '../../src/pki/index.ts';
import { spkiHashOf } from '../../src/pki/keys.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { CLOUD } from '../support/certificates.ts';
import { hasOpenssl, openssl } from '../support/openssl.ts';
import {
  DAY_MS,
  HOUR_MS,
  newRequest,
  redemptionOf,
  reload,
  SITE_A,
  scene,
  verdictOf,
} from './fixtures.ts';

const ENDPOINTS = ['https://198.51.100.1:7444'];
const SITE_B = { ...SITE_A, site: 'site-b' };
const refused = (code: string) => expect.objectContaining({ code: `ERR_PRESENCE_${code}` });
const certificateOf = ({ certificatePem }: { certificatePem: string }) =>
  new X509Certificate(certificatePem);
const hashOf = (privateKeyPem: string) => spkiHashOf(createPublicKey(privateKeyPem));

/** Revocations whose watch has ended, so that their memory stays behind the store. */
async function deafTo(here: Awaited<ReturnType<typeof scene>>): Promise<CertificateAuthority> {
  const deaf = await reload(here);
  deaf.close();
  return deaf;
}

describe('Revocations without a CA', () => {
  test("revoke an unknown key, for the certificates of an operator's own CA", async () => {
    const foreign = (await scene()).authority;
    const { csrPem, privateKeyPem } = newRequest();
    const lost = certificateOf(await foreign.issue(csrPem, SITE_A));
    const kept = certificateOf(await foreign.issue(newRequest().csrPem, SITE_A));
    const store = new MemoryStore();
    const revocations = await Revocations.open({ store });
    const spki = hashOf(privateKeyPem);
    const report = await revocations.revoke({ spki }, 'keyCompromise');
    expect(report).toEqual({ certificates: [], tokensVoided: 0, sites: [], unexpired: [] });
    expect(revocations.hasKey(spki)).toBe(true);
    expect([lost, kept].map((it) => revocations.isRevoked(it))).toEqual([true, false]);
    const again = await Revocations.open({ store });
    expect([lost, kept].map((it) => again.isRevoked(it))).toEqual([true, false]);
    expect(again.records()).toEqual([]);
  });

  test('revoke and reinstate a site, and refuse a serial number that was not issued here', async () => {
    const revocations = await Revocations.open({ store: new MemoryStore() });
    const report = await revocations.revoke({ site: 'site-a' });
    expect(report).toEqual({
      certificates: [],
      tokensVoided: 0,
      sites: ['site-a'],
      unexpired: [],
    });
    expect(revocations.isSiteRevoked('site-a')).toBe(true);
    await revocations.reinstate('site-a');
    expect(revocations.isSiteRevoked('site-a')).toBe(false);
    await expect(revocations.revoke({ serial: 'ab' })).rejects.toThrow(refused('NOT_FOUND'));
  });

  test.each(['', 'x', 'A'.repeat(42), 'A'.repeat(44), `${'A'.repeat(42)}B`, `${'A'.repeat(42)}=`])(
    'refuse %j as the hash of a key',
    async (spki) => {
      const store = new MemoryStore();
      const revocations = await Revocations.open({ store });
      await expect(revocations.revoke({ spki })).rejects.toThrow(refused('CERTIFICATE'));
      expect(await store.list('')).toEqual([]);
    }
  );

  test('refuse an unknown reason, which a CRL cannot express', async () => {
    const revocations = await Revocations.open({ store: new MemoryStore() });
    for (const reason of ['other', 'toString', ''] as unknown[] as RevocationReason[]) {
      await expect(revocations.revoke({ site: 'site-a' }, reason)).rejects.toThrow(
        refused('API_MISUSE')
      );
    }
    expect(revocations.isSiteRevoked('site-a')).toBe(false);
  });

  test('neither hold nor emit what could not be stored', async () => {
    const store = new MemoryStore();
    const revocations = await Revocations.open({ store });
    const emitted = vi.fn();
    revocations.on('revoked', emitted);
    vi.spyOn(store, 'commit').mockRejectedValueOnce(new StoreError('disk full'));
    await expect(revocations.revoke({ site: 'site-a' })).rejects.toThrow('disk full');
    expect(revocations.isSiteRevoked('site-a')).toBe(false);
    expect(emitted).not.toHaveBeenCalled();
  });

  test('follow the store until they are closed, and stop following it if they cannot be opened', async () => {
    const store = new MemoryStore();
    const watching = () => {
      const ends = vi.fn();
      const watch = store.watch.bind(store);
      vi.spyOn(store, 'watch').mockImplementationOnce((...args) => {
        const end = watch(...args);
        return () => ends(end());
      });
      return ends;
    };
    const ends = watching();
    vi.spyOn(store, 'list').mockRejectedValueOnce(new StoreError('away'));
    await expect(Revocations.open({ store })).rejects.toThrow('away');
    expect(ends).toHaveBeenCalledOnce();
    const revocations = await Revocations.open({ store });
    const other = await Revocations.open({ store });
    await other.revoke({ site: 'site-a' });
    revocations.close();
    revocations.close();
    await other.revoke({ site: 'site-b' });
    expect(['site-a', 'site-b'].map((it) => revocations.isSiteRevoked(it))).toEqual([true, false]);
  });
});

test('a revocation reads what belongs to it, not all certificates and tokens', async () => {
  const { authority, store } = await scene();
  const { serial } = await authority.issue(newRequest().csrPem, SITE_A);
  const other = newRequest();
  await authority.issue(other.csrPem, SITE_B);
  const list = vi.spyOn(store, 'list');
  expect((await authority.revoke({ serial })).certificates).toHaveLength(1);
  expect((await authority.revoke({ spki: hashOf(other.privateKeyPem) })).certificates).toHaveLength(
    1
  );
  await authority.issue(newRequest().csrPem, SITE_B);
  expect((await authority.revoke({ site: 'site-b' })).certificates).toHaveLength(2);
  // The second time, its entry is there already.
  expect((await authority.revoke({ site: 'site-b' })).certificates).toHaveLength(2);
  expect(list).not.toHaveBeenCalled();
});

describe('the table of what is revoked', () => {
  test('is a live view, and gives the same answers when it was sent to another process', async () => {
    const { authority } = await scene();
    const { revocations } = authority;
    const { table } = revocations;
    const bySite = certificateOf(await authority.issue(newRequest().csrPem, SITE_A));
    const bySerial = await authority.issue(newRequest().csrPem, SITE_B);
    const byKey = newRequest();
    const ofKey = certificateOf(await authority.issue(byKey.csrPem, CLOUD));
    const kept = certificateOf(await authority.issue(newRequest().csrPem, SITE_B));
    const all = [bySite, certificateOf(bySerial), ofKey, kept];
    expect(all.map((it) => isRevokedBy(table, it))).toEqual([false, false, false, false]);
    await revocations.revoke({ site: 'site-a' });
    await revocations.revoke({ serial: bySerial.serial });
    await revocations.revoke({ spki: hashOf(byKey.privateKeyPem) });
    for (const it of [table, structuredClone(table)]) {
      expect(all.map((certificate) => isRevokedBy(it, certificate))).toEqual([
        true,
        true,
        true,
        false,
      ]);
    }
  });

  test.skipIf(!hasOpenssl)('treats a key whose type is not accepted as revoked', async () => {
    const { table } = await Revocations.open({ store: new MemoryStore() });
    const onCurve = (namedCurve: string) => {
      const { privateKey } = generateKeyPairSync('ec', { namedCurve });
      const key = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
      const conf = `[req]
distinguished_name=dn
x509_extensions=ext
[dn]
[ext]
basicConstraints=critical,CA:FALSE
subjectAltName=URI:spiffe://example.org/cloud
`;
      const args = ['req', '-x509', '-key', '@key', '-subj', '/CN=x', '-config', '@conf'];
      return new X509Certificate(openssl(args, { key, conf }));
    };
    expect(isRevokedBy(table, onCurve('P-256'))).toBe(false);
    expect(isRevokedBy(table, onCurve('P-384'))).toBe(true);
  });
});

describe('a revoked key', () => {
  test('revokes every unexpired certificate with it, of any site, and the CRL lists them', async () => {
    const { authority } = await scene();
    const { csrPem, privateKeyPem } = newRequest();
    const lost = [await authority.issue(csrPem, SITE_A), await authority.issue(csrPem, SITE_B)];
    const kept = await authority.issue(newRequest().csrPem, SITE_A);
    const spki = hashOf(privateKeyPem);
    const emitted: RevocationScope[] = [];
    authority.on('revoked', (scope) => emitted.push(scope));
    const report = await authority.revoke({ spki }, 'keyCompromise');
    expect(report.certificates.map((it) => it.serial).sort()).toEqual(
      lost.map((it) => it.serial).sort()
    );
    expect(report.certificates.map((it) => it.reason)).toEqual(['keyCompromise', 'keyCompromise']);
    expect([...report.sites].sort()).toEqual(['site-a', 'site-b']);
    expect(emitted[0]).toEqual({ spki });
    expect(authority.isSiteRevoked('site-a')).toBe(false);
    if (!hasOpenssl) return;
    const verdict = (it: { certificatePem: string }) =>
      verdictOf(it.certificatePem, authority.trustBundlePem, authority.crlPem());
    expect([...lost, kept].map(verdict)).toEqual([
      'certificate revoked',
      'certificate revoked',
      'OK',
    ]);
  });

  test('gets no further certificate: neither issued, nor renewed under another name, nor by a token', async () => {
    const { authority } = await scene();
    const { csrPem, privateKeyPem } = newRequest();
    const mine = certificateOf(await authority.issue(csrPem, SITE_A));
    const others = certificateOf(await authority.issue(newRequest().csrPem, SITE_B));
    const token = await authority.createToken({ site: 'site-b', endpoints: ENDPOINTS });
    await authority.revoke({ spki: hashOf(privateKeyPem) });
    const belongs = 'the key belongs to a revoked certificate';
    for (const identity of [SITE_A, SITE_B, CLOUD]) {
      await expect(authority.issue(csrPem, identity)).rejects.toThrow(belongs);
    }
    await expect(authority.renew(others, csrPem)).rejects.toThrow(belongs);
    await expect(authority.renew(mine, newRequest().csrPem)).rejects.toThrow('is revoked');
    await expect(authority.enrol(redemptionOf(token, csrPem))).rejects.toThrow(belongs);
    // The token stays valid, and so does the site with a new key.
    await authority.enrol(redemptionOf(token));
  });

  test('is refused by the store where memory does not have the revocation yet', async () => {
    const here = await scene();
    const { authority, store } = here;
    const { csrPem, privateKeyPem } = newRequest();
    const mine = certificateOf(await authority.issue(csrPem, SITE_A));
    const others = certificateOf(await authority.issue(newRequest().csrPem, SITE_B));
    const token = await authority.createToken({ site: 'site-b', endpoints: ENDPOINTS });
    const deaf = await deafTo(here);
    await authority.revoke({ spki: hashOf(privateKeyPem) });
    expect(deaf.isRevoked(mine)).toBe(false);
    const before = (await store.list('certificate/')).length;
    const belongs = 'the key belongs to a revoked certificate';
    await expect(deaf.issue(csrPem, SITE_B)).rejects.toThrow(belongs);
    await expect(deaf.issue(csrPem, CLOUD)).rejects.toThrow(belongs);
    await expect(deaf.renew(others, csrPem)).rejects.toThrow(belongs);
    await expect(deaf.enrol(redemptionOf(token, csrPem))).rejects.toThrow(belongs);
    for (const request of [csrPem, newRequest().csrPem]) {
      await expect(deaf.renew(mine, request)).rejects.toThrow(refused('CERTIFICATE'));
    }
    expect(await store.list('certificate/')).toHaveLength(before);
    await authority.enrol(redemptionOf(token));
  });

  test.each(['issue', 'revoke'])(
    'and a certificate with it never both succeed when they race, %s first',
    async (first) => {
      const { authority } = await scene();
      const { csrPem, privateKeyPem } = newRequest();
      const issue = () => authority.issue(csrPem, SITE_A).catch(() => undefined);
      const issuedFirst = first === 'issue' ? issue() : undefined;
      const revocation = authority.revoke({ spki: hashOf(privateKeyPem) });
      const issued = await (issuedFirst ?? issue());
      const revoked = (await revocation).certificates.map((it) => it.serial);
      expect(revoked).toEqual(issued === undefined ? [] : [issued.serial]);
    }
  );

  test('cannot renew with a certificate of which the store has no record', async () => {
    const here = await scene();
    const elsewhere = await reload({ ...here, store: new MemoryStore() });
    const { csrPem, privateKeyPem } = newRequest();
    const unrecorded = certificateOf(await elsewhere.issue(csrPem, SITE_A));
    const deaf = await deafTo(here);
    await here.authority.revoke({ spki: hashOf(privateKeyPem) });
    await expect(deaf.renew(unrecorded, newRequest().csrPem)).rejects.toThrow('is revoked');
  });

  test('stays revoked when its site is reinstated and when the store is pruned', async () => {
    const { authority, clock, store } = await scene();
    const { csrPem, privateKeyPem } = newRequest();
    await authority.issue(csrPem, SITE_A);
    const spki = hashOf(privateKeyPem);
    await authority.revoke({ spki });
    await authority.revoke({ site: 'site-a' });
    await authority.reinstate('site-a');
    clock.ms += 3000 * DAY_MS;
    await authority.prune();
    expect(await store.list('certificate/')).toEqual([]);
    expect((await store.list('revocation/spki/')).map(({ key }) => key)).toEqual([
      `revocation/spki/${spki}`,
    ]);
    expect(authority.revocations.hasKey(spki)).toBe(true);
    await expect(authority.issue(csrPem, SITE_A)).rejects.toThrow('the key belongs to');
  });

  test('causes one event, here and in another process', async () => {
    const here = await scene();
    const there = await reload(here);
    const emitted = [vi.fn(), vi.fn()] as const;
    here.authority.on('revoked', emitted[0]);
    there.on('revoked', emitted[1]);
    const spki = hashOf(newRequest().privateKeyPem);
    await here.authority.revoke({ spki });
    await here.authority.revoke({ spki });
    for (const { mock } of emitted) expect(mock.calls).toEqual([[{ spki }]]);
    expect(there.revocations.hasKey(spki)).toBe(true);
  });

  test('and a revoked site keep their first time and reason', async () => {
    const { authority, clock, store } = await scene();
    const spki = hashOf(newRequest().privateKeyPem);
    for (const scope of [{ spki }, { site: 'site-a' }]) await authority.revoke(scope, 'superseded');
    const before = await store.list('revocation/');
    expect(before.map(({ value }) => value)).toEqual([
      { revokedAtMs: clock.ms, reason: 'superseded' },
      { revokedAtMs: clock.ms, reason: 'superseded' },
    ]);
    clock.ms += HOUR_MS;
    for (const scope of [{ spki }, { site: 'site-a' }]) await authority.revoke(scope);
    expect(await store.list('revocation/')).toEqual(before);
  });
});

describe('a revoked serial number', () => {
  test('revokes the other certificates with its key too, in the store and on the CRL', async () => {
    const here = await scene();
    const { authority } = here;
    const { csrPem } = newRequest();
    const [first, second] = [
      await authority.issue(csrPem, SITE_A),
      await authority.issue(csrPem, SITE_B),
    ];
    const deaf = await deafTo(here);
    const { certificates, sites } = await authority.revoke({ serial: first.serial });
    expect(certificates.map((it) => it.serial)).toEqual([first.serial, second.serial]);
    expect(sites).toEqual(['site-a', 'site-b']);
    // A thief of the key cannot obtain a new one with the other certificate.
    const renewal = deaf.renew(certificateOf(second), newRequest().csrPem);
    await expect(renewal).rejects.toThrow('is revoked');
  });

  test('keeps its key revoked, also for a certificate with it that was not found', async () => {
    const here = await scene();
    const { authority, clock, store } = here;
    const { csrPem } = newRequest();
    const lost = await authority.issue(csrPem, SITE_A);
    clock.ms += 25 * DAY_MS;
    const deaf = await deafTo(here);
    await authority.revoke({ serial: lost.serial });
    const slipped = certificateOf(await deaf.issue(csrPem, SITE_A));
    clock.ms += 20 * DAY_MS;
    await authority.prune();
    expect(authority.isRevoked(slipped)).toBe(true);
    clock.ms += 20 * DAY_MS;
    await authority.prune();
    expect(await store.list('certificate/')).toEqual([]);
    expect(authority.isRevoked(slipped)).toBe(true);
  });
});

describe('the report', () => {
  test('counts the valid tokens, and the store keeps none of the site', async () => {
    const { authority, clock, store } = await scene();
    const token = (lifetimeMs = HOUR_MS) =>
      authority.createToken({ site: 'site-a', endpoints: ENDPOINTS, lifetimeMs });
    await authority.enrol(redemptionOf(await token()));
    await token(1000);
    clock.ms += 2000;
    await token();
    await token();
    await authority.createToken({ site: 'site-b', endpoints: ENDPOINTS });
    const report = await authority.revoke({ site: 'site-a' });
    expect(report.tokensVoided).toBe(2);
    expect(report.sites).toEqual(['site-a']);
    expect(report.certificates).toHaveLength(1);
    expect(await store.list('token/')).toHaveLength(1);
  });

  test('lists valid certificates of the same sites: a thief may have renewed with other keys', async () => {
    const { authority, clock } = await scene();
    const { csrPem, privateKeyPem } = newRequest();
    await authority.issue(newRequest().csrPem, SITE_A, { lifetimeMs: 1000 });
    clock.ms += 2000;
    const stolen = await authority.issue(csrPem, SITE_A);
    const renewed = await authority.renew(certificateOf(stolen), newRequest().csrPem);
    const revoked = await authority.issue(newRequest().csrPem, SITE_A);
    await authority.issue(newRequest().csrPem, SITE_B);
    await authority.revoke({ serial: revoked.serial });
    const spki = hashOf(privateKeyPem);
    for (const scope of [{ serial: stolen.serial }, { spki }]) {
      expect((await authority.revoke(scope)).unexpired).toEqual([renewed.serial]);
    }
    expect((await authority.revoke({ site: 'site-a' })).unexpired).toEqual([]);
    expect((await authority.revoke({ spki })).unexpired).toEqual([]);
  });

  test('names no site for a certificate of the cloud', async () => {
    const { authority } = await scene();
    const { serial } = await authority.issue(newRequest().csrPem, CLOUD);
    expect((await authority.revoke({ serial })).sites).toEqual([]);
  });
});

describe('reinstatement', () => {
  test('causes one event in every process when it is in effect, and none if the site was not revoked', async () => {
    const here = await scene();
    const there = await reload(here);
    const emitted: [string, string, boolean][] = [];
    for (const [name, { revocations }] of Object.entries({ here: here.authority, there })) {
      revocations.on('reinstated', ({ site }) => {
        emitted.push([name, site, revocations.isSiteRevoked(site)]);
      });
    }
    await here.authority.revoke({ site: 'site-a' });
    await here.authority.reinstate('site-a');
    await here.authority.reinstate('site-a');
    await here.authority.reinstate('site-b');
    expect(emitted.sort()).toEqual([
      ['here', 'site-a', false],
      ['there', 'site-a', false],
    ]);
    await expect(here.authority.reinstate('../x')).rejects.toThrow(refused('CERTIFICATE'));
  });
});

describe('the CRL', () => {
  test('lists what was issued before the store kept the issuer', async () => {
    const here = await scene();
    const { store } = here;
    const { serial } = await here.authority.issue(newRequest().csrPem, SITE_A);
    const entry = (await store.get(`certificate/${serial}`))!;
    const { issuer, ...older } = entry.value as Record<string, string>;
    expect(issuer).toBe(here.authority.spkiHash);
    await store.commit([{ key: entry.key, value: older }]);
    await here.authority.revoke({ serial });
    const authority = await reload(here);
    const crl = Buffer.from(authority.crlPem().replace(/-----.*-----/g, ''), 'base64').toString(
      'hex'
    );
    expect(crl).toContain(serial);
  });
});
