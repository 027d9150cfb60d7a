import { X509Certificate } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import { StoreError } from '../../src/errors.ts';
import {
  CertificateAuthority,
  createSigningRequest,
  generateCa,
  generateGatewayKey,
  type RevocationScope,
} from '../../src/pki/index.ts';
import { MemoryStore, type Store } from '../../src/store/index.ts';
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
const refused = (code: string) => expect.objectContaining({ code: `ERR_PRESENCE_${code}` });
const certificateOf = ({ certificatePem }: { certificatePem: string }) =>
  new X509Certificate(certificatePem);

describe('CertificateAuthority.issue', () => {
  test('issues for thirty days, backdated by five minutes, in whole seconds', async () => {
    const { authority, clock } = await scene();
    const { notBefore, notAfter, serial, ...issued } = await authority.issue(
      newRequest().csrPem,
      SITE_A
    );
    const second = clock.ms - (clock.ms % 1000);
    expect(notBefore.getTime()).toBe(second - 5 * 60_000);
    expect(notAfter.getTime()).toBe(second + 30 * DAY_MS);
    const certificate = certificateOf(issued);
    expect(Date.parse(certificate.validFrom)).toBe(notBefore.getTime());
    expect(Date.parse(certificate.validTo)).toBe(notAfter.getTime());
    expect(certificate.serialNumber.toLowerCase()).toBe(serial);
    expect(serial).toMatch(/^[4-7][0-9a-f]{31}$/);
  });

  test('never issues a certificate that outlives the CA', async () => {
    const { authority, clock } = await scene({ rootLifetimeMs: DAY_MS });
    const { notAfter } = await authority.issue(newRequest().csrPem, SITE_A);
    expect(notAfter.getTime()).toBe(Date.parse(certificateOf(authority).validTo));
    clock.ms += DAY_MS;
    await expect(authority.issue(newRequest().csrPem, SITE_A)).rejects.toThrow(
      'the CA certificate expired'
    );
  });

  test('refuses an identity of another trust domain, and an invalid one', async () => {
    const { authority } = await scene();
    const { csrPem } = newRequest();
    const wrong = [
      { ...SITE_A, trustDomain: 'example.net' },
      { ...SITE_A, site: 'A/b' },
    ];
    for (const identity of wrong) {
      await expect(authority.issue(csrPem, identity)).rejects.toThrow(refused('CERTIFICATE'));
    }
  });

  test.each([0, -1, 999, Number.NaN, Number.POSITIVE_INFINITY])(
    'refuses a lifetime of %s ms',
    async (lifetimeMs) => {
      const { authority } = await scene();
      await expect(authority.issue(newRequest().csrPem, SITE_A, { lifetimeMs })).rejects.toThrow(
        refused('API_MISUSE')
      );
    }
  );

  test('returns no certificate that the store has not recorded', async () => {
    const { authority, store } = await scene();
    vi.spyOn(store, 'commit').mockRejectedValueOnce(new StoreError('disk full'));
    await expect(authority.issue(newRequest().csrPem, SITE_A)).rejects.toThrow('disk full');
    expect(await store.list('certificate/')).toEqual([]);
  });
});

describe('CertificateAuthority.open', () => {
  test('opens an encrypted key, and refuses a wrong passphrase', async () => {
    const { authority, store } = await scene();
    const options = {
      certificatePem: authority.certificatePem,
      privateKeyPem: await authority.encryptedPrivateKeyPem('correct horse'),
      trustDomain: TRUST_DOMAIN,
      store,
    };
    const again = await CertificateAuthority.open({ ...options, passphrase: 'correct horse' });
    expect(again.spkiHash).toBe(authority.spkiHash);
    for (const wrong of [{}, { passphrase: 'x' }]) {
      await expect(CertificateAuthority.open({ ...options, ...wrong })).rejects.toThrow(
        refused('CERTIFICATE')
      );
    }
  });

  test('refuses a foreign key, a gateway certificate, another trust domain, and malformed texts', async () => {
    const { authority, store } = await scene();
    const { certificatePem, privateKeyPem } = authority;
    const own = { certificatePem, privateKeyPem, trustDomain: TRUST_DOMAIN, store };
    const gateway = newRequest();
    const issued = await authority.issue(gateway.csrPem, CLOUD);
    const wrong = [
      { privateKeyPem: gateway.privateKeyPem },
      { privateKeyPem: gateway.privateKeyPem, certificatePem: issued.certificatePem },
      { trustDomain: 'example.net' },
      { certificatePem: 'x' },
    ];
    for (const part of wrong) {
      await expect(CertificateAuthority.open({ ...own, ...part })).rejects.toThrow(
        refused('CERTIFICATE')
      );
    }
  });
});

describe('enrolment', () => {
  test('issues a certificate for the site of the token, whatever the request says', async () => {
    const { authority } = await scene();
    const token = await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    const issued = await authority.enrol(redemptionOf(token));
    expect(issued.identity).toEqual(SITE_A);
    expect(certificateOf(issued).subjectAltName).toBe('URI:spiffe://example.org/site/site-a');
  });

  test('refuses a used token, also after a restart', async () => {
    const now = await scene();
    const token = await now.authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    await now.authority.enrol(redemptionOf(token));
    const used = refused('ENROLMENT_USED');
    await expect(now.authority.enrol(redemptionOf(token))).rejects.toThrow(used);
    await expect((await reload(now)).enrol(redemptionOf(token))).rejects.toThrow(used);
  });

  test('accepts a token in its last millisecond and refuses it from then on', async () => {
    const { authority, clock } = await scene();
    const options = { site: 'site-a', endpoints: ENDPOINTS };
    const [first, second] = [
      await authority.createToken(options),
      await authority.createToken(options),
    ];
    clock.ms += HOUR_MS - 1;
    await authority.enrol(redemptionOf(first));
    clock.ms += 1;
    await expect(authority.enrol(redemptionOf(second))).rejects.toThrow(
      refused('ENROLMENT_EXPIRED')
    );
  });

  test('issues exactly one certificate to twenty clients that redeem a token at once, at two CAs', async () => {
    const here = await scene();
    const there = await reload(here);
    const token = await here.authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    const outcomes = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) =>
        (i % 2 ? here.authority : there).enrol(redemptionOf(token))
      )
    );
    const losers = outcomes.filter((it) => it.status === 'rejected');
    expect(losers).toHaveLength(19);
    for (const { reason } of losers) expect(reason).toEqual(refused('ENROLMENT_USED'));
    expect(await here.store.list('certificate/')).toHaveLength(1);
  });

  test('answers a wrong secret, a wrong id and an id that is a path in the same way', async () => {
    const { authority } = await scene();
    const token = await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    const good = redemptionOf(token);
    const messages = new Set<string>();
    for (const wrong of [
      { secret: 'A'.repeat(43) },
      { secret: '' },
      { secret: `${good.secret}A` },
      { tokenId: 'A'.repeat(22) },
      { tokenId: '' },
      { tokenId: '../certificate' },
    ]) {
      const error = await authority.enrol({ ...good, ...wrong }).catch((it) => it);
      expect(error).toEqual(refused('ENROLMENT_UNKNOWN'));
      messages.add(error.message);
    }
    expect(messages.size).toBe(1);
    await authority.enrol(good);
  });

  test('keeps the token valid when the signing request is refused', async () => {
    const { authority } = await scene();
    const token = await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    await expect(authority.enrol(redemptionOf(token, 'x'))).rejects.toThrow(refused('CERTIFICATE'));
    await authority.enrol(redemptionOf(token));
  });

  test('keeps no secret in the store', async () => {
    const { authority, store } = await scene();
    const token = await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    expect(JSON.stringify(await store.list(''))).not.toContain(redemptionOf(token).secret);
  });
});

describe('renewal', () => {
  test('keeps the identity, for a new key and for the same key', async () => {
    const { authority, clock } = await scene();
    const { csrPem } = newRequest();
    const current = certificateOf(await authority.issue(csrPem, SITE_A));
    clock.ms += 20 * DAY_MS;
    for (const request of [csrPem, newRequest().csrPem]) {
      const renewed = await authority.renew(current, request);
      expect(renewed.identity).toEqual(SITE_A);
      expect(renewed.notAfter.getTime()).toBeGreaterThan(Date.parse(current.validTo));
    }
  });

  test('refuses a revoked, an expired and a foreign certificate', async () => {
    const { authority, clock } = await scene();
    const { csrPem } = newRequest();
    const foreign = certificateOf(await (await scene()).authority.issue(csrPem, SITE_A));
    await expect(authority.renew(foreign, csrPem)).rejects.toThrow('not issued by this CA');
    const lost = await authority.issue(newRequest().csrPem, SITE_A);
    await authority.revoke({ serial: lost.serial });
    await expect(authority.renew(certificateOf(lost), csrPem)).rejects.toThrow('is revoked');
    const old = await authority.issue(csrPem, SITE_A);
    clock.ms += 31 * DAY_MS;
    await expect(authority.renew(certificateOf(old), csrPem)).rejects.toThrow('expired');
  });

  test('is refused by the store while memory does not have the revocation yet', async () => {
    const here = await scene();
    const deaf = await reload(here);
    const issued = await here.authority.issue(newRequest().csrPem, SITE_A);
    deaf.close();
    await here.authority.revoke({ serial: issued.serial });
    expect(deaf.isRevoked(certificateOf(issued))).toBe(false);
    await expect(deaf.renew(certificateOf(issued), newRequest().csrPem)).rejects.toThrow(
      'is revoked'
    );
  });
});

describe('revocation', () => {
  test('leaves the other certificates of the site valid if it is by serial number', async () => {
    const { authority, clock } = await scene();
    const [lost, kept] = [
      await authority.issue(newRequest().csrPem, SITE_A),
      await authority.issue(newRequest().csrPem, SITE_A),
    ];
    const report = await authority.revoke({ serial: lost.serial.toUpperCase() }, 'keyCompromise');
    expect(report.certificates).toEqual([
      expect.objectContaining({
        serial: lost.serial,
        reason: 'keyCompromise',
        revokedAtMs: clock.ms,
        identity: 'spiffe://example.org/site/site-a',
      }),
    ]);
    expect(authority.isRevoked(certificateOf(lost))).toBe(true);
    expect(authority.isRevoked(certificateOf(kept))).toBe(false);
    expect(authority.isSiteRevoked('site-a')).toBe(false);
  });

  test('ends all certificates and tokens of a site, and nothing of other sites', async () => {
    const { authority } = await scene();
    const token = await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    const otherToken = await authority.createToken({ site: 'site-b', endpoints: ENDPOINTS });
    const lost = [];
    for (let i = 0; i < 3; i++) lost.push(await authority.issue(newRequest().csrPem, SITE_A));
    const other = await authority.issue(newRequest().csrPem, SITE_B);
    const cloud = await authority.issue(newRequest().csrPem, CLOUD);
    const report = await authority.revoke({ site: 'site-a' });
    expect(report.certificates.map((it) => it.serial).sort()).toEqual(
      lost.map((it) => it.serial).sort()
    );
    expect(lost.map((it) => authority.isRevoked(certificateOf(it)))).toEqual([true, true, true]);
    for (const it of [other, cloud]) expect(authority.isRevoked(certificateOf(it))).toBe(false);
    await expect(authority.enrol(redemptionOf(token))).rejects.toThrow(
      refused('ENROLMENT_UNKNOWN')
    );
    await authority.enrol(redemptionOf(otherToken));
  });

  test('excludes a site until it is reinstated, and then requires a new key', async () => {
    const { authority } = await scene();
    const { csrPem } = newRequest();
    const lost = await authority.issue(csrPem, SITE_A);
    const voided = await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    await authority.revoke({ site: 'site-a' });
    const options = { site: 'site-a', endpoints: ENDPOINTS };
    const revoked = 'site "site-a" is revoked; reinstate it first';
    await expect(authority.createToken(options)).rejects.toThrow(revoked);
    await expect(authority.issue(newRequest().csrPem, SITE_A)).rejects.toThrow(revoked);
    await authority.reinstate('site-a');
    await expect(authority.enrol(redemptionOf(voided))).rejects.toThrow(
      refused('ENROLMENT_UNKNOWN')
    );
    const token = await authority.createToken(options);
    await expect(authority.enrol(redemptionOf(token, csrPem))).rejects.toThrow(
      'revoked certificate'
    );
    const fresh = await authority.enrol(redemptionOf(token));
    expect(authority.isRevoked(certificateOf(fresh))).toBe(false);
    expect(authority.isRevoked(certificateOf(lost))).toBe(true);
  });

  test('includes every certificate with the same key, whatever its serial number', async () => {
    const { authority } = await scene();
    const { csrPem } = newRequest();
    const [first, second] = [
      await authority.issue(csrPem, SITE_A),
      await authority.issue(csrPem, SITE_A),
    ];
    await authority.revoke({ serial: first.serial });
    expect(authority.isRevoked(certificateOf(second))).toBe(true);
  });

  test('includes a certificate that a commit in progress recorded just before the revocation', async () => {
    const { authority } = await scene();
    const [issued, { certificates }] = await Promise.all([
      authority.issue(newRequest().csrPem, SITE_A).catch(() => undefined),
      authority.revoke({ site: 'site-a' }),
    ]);
    await authority.reinstate('site-a');
    expect(certificates).toHaveLength(issued === undefined ? 0 : 1);
    if (issued !== undefined) expect(authority.isRevoked(certificateOf(issued))).toBe(true);
  });

  test('survives a restart', async () => {
    const before = await scene();
    const issued = await before.authority.issue(newRequest().csrPem, SITE_A);
    const other = await before.authority.issue(newRequest().csrPem, SITE_B);
    await before.authority.revoke({ site: 'site-a' }, 'cessationOfOperation');
    await before.authority.revoke({ serial: other.serial });
    before.authority.close();
    const after = await reload(before);
    expect(after.isRevoked(certificateOf(issued))).toBe(true);
    expect(after.isRevoked(certificateOf(other))).toBe(true);
    expect(after.isSiteRevoked('site-a')).toBe(true);
    await expect(after.issue(newRequest().csrPem, SITE_A)).rejects.toThrow('is revoked');
  });

  test('emits one event here and at another CA on the same store, when isRevoked is already true', async () => {
    const here = await scene();
    const there = await reload(here);
    const issued = await here.authority.issue(newRequest().csrPem, SITE_A);
    const emitted: [string, RevocationScope, boolean][] = [];
    for (const [name, authority] of [
      ['here', here.authority],
      ['there', there],
    ] as const) {
      authority.on('revoked', (scope) => {
        emitted.push([name, scope, authority.isRevoked(certificateOf(issued))]);
      });
    }
    await here.authority.revoke({ site: 'site-a' });
    await here.authority.revoke({ site: 'site-a' });
    for (const name of ['here', 'there']) {
      expect(emitted.filter((it) => it[0] === name)).toEqual([
        [name, { site: 'site-a' }, true],
        [name, { serial: issued.serial }, true],
      ]);
    }
  });

  test('is in memory when revoke resolves, even if the watch of the store is late', async () => {
    const store: Store = Object.assign(new MemoryStore(), { watch: () => () => {} });
    const authority = await CertificateAuthority.open({
      ...generateCa({ trustDomain: TRUST_DOMAIN }),
      ...{ trustDomain: TRUST_DOMAIN, store },
    });
    const issued = await authority.issue(newRequest().csrPem, SITE_A);
    await authority.revoke({ site: 'site-a' });
    expect(authority.isRevoked(certificateOf(issued))).toBe(true);
  });

  test('includes what is revoked while the store is read for the first time', async () => {
    const here = await scene();
    const { authority, store } = here;
    const issued = await authority.issue(newRequest().csrPem, SITE_A);
    await authority.revoke({ serial: issued.serial });
    await authority.revoke({ site: 'site-b' });
    const list = store.list.bind(store);
    vi.spyOn(store, 'list').mockImplementationOnce(async (prefix) => {
      const entries = await list(prefix);
      await authority.reinstate('site-b');
      await authority.revoke({ site: 'site-a' });
      return entries;
    });
    const late = await reload(here);
    expect(late.isSiteRevoked('site-b')).toBe(false);
    expect(late.isSiteRevoked('site-a')).toBe(true);
    expect(late.isRevoked(certificateOf(issued))).toBe(true);
  });

  test('keeps its first time and reason when it is repeated', async () => {
    const { authority, clock } = await scene();
    const { serial } = await authority.issue(newRequest().csrPem, SITE_A);
    const { certificates } = await authority.revoke({ serial }, 'superseded');
    clock.ms += HOUR_MS;
    const again = [{ serial }, { spki: certificates[0]!.spkiHash }, { site: 'site-a' }];
    for (const scope of again) {
      expect((await authority.revoke(scope, 'keyCompromise')).certificates).toEqual(certificates);
    }
  });

  test('writes at most 100 entries in a commit for a site with 250 certificates', async () => {
    const { authority, store } = await scene();
    const { csrPem } = newRequest();
    for (let i = 0; i < 250; i++) await authority.issue(csrPem, SITE_A);
    const commit = vi.spyOn(store, 'commit');
    const { certificates } = await authority.revoke({ site: 'site-a' });
    expect(certificates).toHaveLength(250);
    const sizes = commit.mock.calls.map(([writes]) => writes.length);
    expect(Math.max(...sizes)).toBe(100);
  });

  test.each(['', 'x', '00', '../token/x', 'f'.repeat(41)])(
    'refuses the unknown serial number %j',
    async (serial) => {
      const { authority } = await scene();
      await expect(authority.revoke({ serial })).rejects.toThrow(refused('NOT_FOUND'));
    }
  );

  test('includes a certificate that names no gateway', async () => {
    const { authority } = await scene();
    expect(authority.isRevoked(certificateOf(authority))).toBe(true);
  });
});

describe('prune', () => {
  test('removes expired tokens, certificates a day after their expiry, and no revocation', async () => {
    const { authority, store, clock } = await scene();
    await authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    const { serial } = await authority.issue(newRequest().csrPem, SITE_A);
    await authority.revoke({ serial });
    // The marks say how far the indexes have to follow; they stay.
    const keys = async () =>
      (await store.list('')).map((it) => it.key).filter((key) => !key.endsWith('-mark'));
    const running = 'clock/running';
    expect(await authority.prune()).toBe(0);
    clock.ms += HOUR_MS;
    expect(await authority.prune()).toBe(1);
    expect(await keys()).toEqual([`certificate/${serial}`, running, `revocation/serial/${serial}`]);
    clock.ms += 30 * DAY_MS;
    expect(await authority.prune()).toBe(0);
    clock.ms += DAY_MS;
    expect(await authority.prune()).toBe(1);
    expect(await keys()).toEqual([running, `revocation/serial/${serial}`]);
    clock.ms += 3000 * DAY_MS;
    expect(await authority.prune()).toBe(0);
    expect(await keys()).toEqual([running, `revocation/serial/${serial}`]);
  });

  test('keeps a key revoked while one of its two revoked certificates is left', async () => {
    const { authority, clock } = await scene();
    const { privateKeyPem } = generateGatewayKey();
    const csrPem = createSigningRequest(privateKeyPem);
    const brief = await authority.issue(csrPem, SITE_A, { lifetimeMs: HOUR_MS });
    const long = await authority.issue(csrPem, SITE_A);
    const third = await authority.issue(csrPem, SITE_A);
    await authority.revoke({ serial: brief.serial });
    await authority.revoke({ serial: long.serial });
    clock.ms += 8 * DAY_MS;
    await authority.prune();
    expect(authority.isRevoked(certificateOf(third))).toBe(true);
  });
});
