import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  type CaMaterial,
  CertificateAuthority,
  generateCa,
  type KeyType,
} from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { CLOUD } from '../support/certificates.ts';
import { clockOf } from '../support/clock-of.ts';
import { hasOpenssl, openssl } from '../support/openssl.ts';
import {
  crlVerdictOf,
  DAY_MS,
  HOUR_MS,
  handshake,
  newRequest,
  operatorCa,
  pemTexts,
  SITE_A,
  TRUST_DOMAIN,
  verdictOf,
} from './fixtures.ts';

const KEY_TYPES: readonly KeyType[] = ['p256', 'ed25519', 'rsa'];
const unfit = expect.objectContaining({ code: 'ERR_PRESENCE_CERTIFICATE' });

function load(material: CaMaterial, now: () => number = Date.now): Promise<CertificateAuthority> {
  return CertificateAuthority.open({
    ...{ trustDomain: TRUST_DOMAIN, store: new MemoryStore(), clock: clockOf(now) },
    ...material,
  });
}

describe('generateCa', () => {
  test('makes a root of ten years, backdated by five minutes, whose key is the one that signs', () => {
    const nowMs = Date.now();
    const ca = generateCa({ trustDomain: TRUST_DOMAIN, clock: clockOf(() => nowMs) });
    expect(pemTexts(ca.certificatePem)).toHaveLength(1);
    expect(ca.rootPrivateKeyPem).toBe(ca.privateKeyPem);
    const root = new X509Certificate(ca.certificatePem);
    const wholeSeconds = (ms: number) => Math.floor(ms / 1000) * 1000;
    expect(Date.parse(root.validFrom)).toBe(wholeSeconds(nowMs - 300_000));
    expect(Date.parse(root.validTo)).toBe(wholeSeconds(nowMs + 3650 * DAY_MS));
  });

  test('makes an intermediate of three years below a root, with its own key', () => {
    const nowMs = Date.now();
    const ca = generateCa({
      trustDomain: TRUST_DOMAIN,
      intermediate: true,
      clock: clockOf(() => nowMs),
    });
    const [signing, root] = pemTexts(ca.certificatePem).map((it) => new X509Certificate(it));
    expect(ca.rootPrivateKeyPem).not.toBe(ca.privateKeyPem);
    expect(signing!.checkIssued(root!) && signing!.verify(root!.publicKey)).toBe(true);
    expect(signing!.subject).not.toBe(root!.subject);
    const days = (Date.parse(signing!.validTo) - nowMs) / DAY_MS;
    expect(Math.round(days)).toBe(1095);
  });

  test('never lets an intermediate outlive its root', () => {
    const ca = generateCa({
      ...{ trustDomain: TRUST_DOMAIN, intermediate: true },
      rootLifetimeMs: 10 * DAY_MS,
    });
    const [signing, root] = pemTexts(ca.certificatePem).map((it) => new X509Certificate(it));
    expect(signing!.validTo).toBe(root!.validTo);
  });

  test('refuses an invalid trust domain and invalid lifetimes', () => {
    expect(() => generateCa({ trustDomain: 'A b' })).toThrow(unfit);
    for (const wrong of [{ rootLifetimeMs: 0 }, { intermediateLifetimeMs: Number.NaN }]) {
      expect(() => generateCa({ trustDomain: TRUST_DOMAIN, ...wrong })).toThrow(
        expect.objectContaining({ code: 'ERR_PRESENCE_API_MISUSE' })
      );
    }
  });
});

describe('CertificateAuthority.open with a CA of generateCa', () => {
  test('puts an intermediate after every certificate, and pins and trusts the root', async () => {
    const store = new MemoryStore();
    const authority = await CertificateAuthority.open({
      ...generateCa({ trustDomain: TRUST_DOMAIN, intermediate: true }),
      ...{ trustDomain: TRUST_DOMAIN, store },
    });
    const [signing, root] = pemTexts(authority.certificatePem);
    expect(authority.chainPem).toBe(signing);
    expect(authority.trustBundlePem).toBe(root);
    const { certificatePem } = await authority.issue(newRequest().csrPem, SITE_A);
    expect(pemTexts(certificatePem)[1]).toBe(signing);
    const rootAlone = await load({
      certificatePem: root!,
      privateKeyPem: authority.privateKeyPem,
    }).catch((it) => it);
    expect(rootAlone).toEqual(unfit);
    const { certificatePem: chain, privateKeyPem } = authority;
    const again = await load({ certificatePem: chain, privateKeyPem });
    expect(again.spkiHash).toBe(authority.spkiHash);
    expect(again.isCurrent(new X509Certificate(certificatePem))).toBe(true);
  });
});

describe('certificates', () => {
  test.each([1000, 4000, 60_000, HOUR_MS])(
    'with a lifetime of %s ms begin at most half of it, and at most five minutes, before now',
    async (lifetimeMs) => {
      const nowMs = Math.floor(Date.now() / 1000) * 1000;
      const authority = await load(generateCa({ trustDomain: TRUST_DOMAIN }), () => nowMs);
      const issued = await authority.issue(newRequest().csrPem, SITE_A, { lifetimeMs });
      const before = nowMs - issued.notBefore.getTime();
      expect(before).toBe(Math.min(300_000, Math.ceil(lifetimeMs / 2000) * 1000));
      expect(issued.notAfter.getTime()).toBe(nowMs + lifetimeMs);
    }
  );

  test('expire with the first certificate of the chain, and keep their form', async () => {
    const nowMs = Math.floor(Date.now() / 1000) * 1000;
    const ca = generateCa({
      ...{ trustDomain: TRUST_DOMAIN, intermediate: true, clock: clockOf(() => nowMs) },
      intermediateLifetimeMs: 60_000,
    });
    const authority = await load(ca, () => nowMs);
    const { notBefore, notAfter } = await authority.issue(newRequest().csrPem, SITE_A);
    expect([notBefore.getTime() - nowMs, notAfter.getTime() - nowMs]).toEqual([-30_000, 60_000]);
    const late = await load(ca, () => nowMs + 60_000);
    await expect(late.issue(newRequest().csrPem, SITE_A)).rejects.toThrow(
      'the CA certificate expired at'
    );
  });
});

describe.skipIf(!hasOpenssl)('openssl (skipped where the openssl command is missing)', () => {
  test.each(KEY_TYPES)(
    'accepts certificates below a generated %s intermediate',
    async (keyType) => {
      const ca = generateCa({ trustDomain: TRUST_DOMAIN, keyType, intermediate: true });
      const authority = await load(ca);
      const issue = () => authority.issue(newRequest('p256').csrPem, SITE_A);
      const [lost, kept] = [await issue(), await issue()];
      await authority.revoke({ serial: lost.serial });
      const [signing, root] = pemTexts(ca.certificatePem);
      const crlPem = authority.crlPem();
      expect(crlVerdictOf(crlPem, signing!)).toBe('verify OK');
      expect(verdictOf(kept.certificatePem, root!)).toBe('OK');
      // The root has a CRL too, where its key is.
      const rootCrl = (
        await load({ certificatePem: root!, privateKeyPem: ca.rootPrivateKeyPem })
      ).crlPem();
      expect(verdictOf(kept.certificatePem, root!, crlPem + rootCrl)).toBe('OK');
      expect(verdictOf(lost.certificatePem, root!, crlPem + rootCrl)).toBe('certificate revoked');
      expect(verdictOf(lost.certificatePem, root!, crlPem, false)).toBe('certificate revoked');
      expect(verdictOf(kept.certificatePem, root!, crlPem, false)).toBe('OK');
      // Only the root is an anchor, and the chain is needed.
      expect(verdictOf(pemTexts(kept.certificatePem)[0]!, root!)).not.toBe('OK');
    }
  );

  test.each([
    [false, ['pathlen:0']],
    [true, ['pathlen:0', 'pathlen:1']],
  ])(
    'prints path lengths and key identifiers; with an intermediate: %s',
    (intermediate, lengths) => {
      const { certificatePem } = generateCa({ trustDomain: TRUST_DOMAIN, intermediate });
      const print = (pem: string) => openssl(['x509', '-text', '-noout', '-in', '@c'], { c: pem });
      const texts = pemTexts(certificatePem).map(print);
      expect(texts.map((text) => /CA:TRUE, (\S+)/.exec(text)?.[1])).toEqual(lengths);
      for (const text of texts) {
        expect(text).toMatch(/Basic Constraints: critical/);
        expect(text).toMatch(/Key Usage: critical\s+Certificate Sign, CRL Sign\n/);
        expect(text).toContain('X509v3 Subject Key Identifier');
        expect(text).toContain('X509v3 Authority Key Identifier');
        expect(text).toContain('URI:spiffe://example.org\n');
      }
    }
  );

  test.each(KEY_TYPES)(
    "and node:tls accept certificates of an operator's %s root and intermediate",
    async (type) => {
      const passphrase = 'correct horse';
      const { intermediatePem, rootPem, privateKeyPem } = operatorCa(type, passphrase);
      const certificatePem = intermediatePem + rootPem;
      const authority = await load({ certificatePem, privateKeyPem, passphrase });
      await expect(load({ certificatePem, privateKeyPem })).rejects.toThrow(unfit);
      expect(authority.trustBundlePem).toBe(rootPem);
      const [site, cloud] = [newRequest(), newRequest()];
      const ofSite = await authority.issue(site.csrPem, SITE_A);
      const ofCloud = await authority.issue(cloud.csrPem, CLOUD);
      expect(verdictOf(ofSite.certificatePem, rootPem)).toBe('OK');
      expect(verdictOf(ofSite.certificatePem, rootPem, authority.crlPem(), false)).toBe('OK');
      const outcome = await handshake(
        { key: cloud.privateKeyPem, cert: ofCloud.certificatePem, ca: rootPem },
        { key: site.privateKeyPem, cert: ofSite.certificatePem, ca: rootPem }
      );
      expect(outcome).toBe('OK');
      await authority.revoke({ serial: ofSite.serial });
      const crl = authority.crlPem();
      expect(verdictOf(ofSite.certificatePem, rootPem, crl, false)).toBe('certificate revoked');
    }
  );
});

describe.skipIf(!hasOpenssl)('CertificateAuthority.open (skipped where openssl is missing)', () => {
  let made: ReturnType<typeof operatorCa> | undefined;
  const operator = () => {
    made ??= operatorCa('p256', 'x');
    return made;
  };
  const other = () => generateCa({ trustDomain: TRUST_DOMAIN }).certificatePem;

  test.each<[string, (root: string, intermediate: string) => string, string]>([
    ['a chain without its root', (_, below) => below, 'does not end in a self-signed root'],
    ['a chain in the wrong order', (root, below) => root + below, 'private key is not that'],
    ['a foreign root', (_, below) => below + other(), 'certificate 2 of the CA'],
    [
      'a foreign certificate after the root',
      (root, below) => below + root + other(),
      'certificate 3 of',
    ],
    ['too many certificates', (root, below) => below + root.repeat(20), 'expected 1 to'],
    ['a damaged root', (root, below) => below + root.replace(/MII./, 'AAAA'), 'cannot be read'],
  ])('refuses %s', async (_name, certificatePem, message) => {
    const { rootPem, intermediatePem, privateKeyPem } = operator();
    const error = await load({
      certificatePem: certificatePem(rootPem, intermediatePem),
      ...{ privateKeyPem, passphrase: 'x' },
    }).catch((it) => it);
    expect(error).toEqual(unfit);
    expect(error.message).toContain(message);
  });

  test('refuses an intermediate below a root whose path length forbids it', async () => {
    const { certificatePem: above, privateKeyPem: rootKey } = generateCa({
      trustDomain: TRUST_DOMAIN,
    });
    const { csrPem, privateKeyPem: key } = newRequest();
    const ext = 'basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n';
    const args = [
      'x509',
      '-req',
      '-in',
      '@csr',
      '-CA',
      '@ca',
      '-CAkey',
      '@key',
      '-extfile',
      '@ext',
    ];
    const below = openssl([...args, '-set_serial', '3'], {
      csr: csrPem,
      ca: above,
      key: rootKey,
      ext,
    });
    await expect(load({ certificatePem: below + above, privateKeyPem: key })).rejects.toThrow(
      'a path length of the CA'
    );
  });

  test('refuses a CA that may sign certificates but not CRLs', async () => {
    const { intermediatePem, rootPem, privateKeyPem } = operatorCa('p256', 'x', 'keyCertSign');
    const material = { certificatePem: intermediatePem + rootPem, privateKeyPem, passphrase: 'x' };
    await expect(load(material)).rejects.toThrow('may not sign both certificates and CRLs');
  });

  test('accepts a root that signs for the gateways itself', async () => {
    const { root, rootPem } = operator();
    const authority = await load(root);
    expect([authority.certificatePem, authority.chainPem]).toEqual([rootPem, '']);
  });
});
