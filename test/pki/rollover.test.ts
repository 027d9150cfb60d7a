import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  type CaMaterial,
  CertificateAuthority,
  type GatewayIdentity,
  generateCa,
  type KeyType,
} from '../../src/pki/index.ts';
import { CLOUD } from '../support/certificates.ts';
import { clockOf } from '../support/clock-of.ts';
import { hasOpenssl, openssl } from '../support/openssl.ts';
import {
  crlVerdictOf,
  DAY_MS,
  type End,
  HOUR_MS,
  handshake,
  materialOf,
  newRequest,
  operatorCa,
  pemTexts,
  redemptionOf,
  type Scene,
  SITE_A,
  scene,
  TRUST_DOMAIN,
  verdictOf,
} from './fixtures.ts';

const certificateOf = ({ certificatePem }: { certificatePem: string }) =>
  new X509Certificate(certificatePem);
const misuse = expect.objectContaining({ code: 'ERR_PRESENCE_API_MISUSE' });
const conflict = expect.objectContaining({ code: 'ERR_PRESENCE_CONFLICT' });
const unfit = expect.objectContaining({ code: 'ERR_PRESENCE_CERTIFICATE' });

interface Change extends Scene {
  readonly oldRoot: string;
  readonly newRoot: string;
  readonly old: CaMaterial;
  readonly next: CaMaterial;
}

/** A CA and the next one. */
async function change(
  from: KeyType = 'p256',
  to: KeyType = 'p256',
  intermediate = false
): Promise<Change> {
  const made = await scene({ keyType: from, intermediate });
  const next = materialOf(generateCa({ trustDomain: TRUST_DOMAIN, keyType: to, intermediate }));
  return {
    ...made,
    old: materialOf(made.authority),
    next,
    oldRoot: pemTexts(made.authority.certificatePem).at(-1)!,
    newRoot: pemTexts(next.certificatePem).at(-1)!,
  };
}

async function gateway(
  authority: CertificateAuthority,
  identity: GatewayIdentity
): Promise<Omit<End, 'ca'>> {
  const { privateKeyPem, csrPem } = newRequest();
  return { key: privateKeyPem, cert: (await authority.issue(csrPem, identity)).certificatePem };
}

describe('a rollover', () => {
  test('goes from none to prepared to active to none, and emits an event for each step', async () => {
    const { authority, next, oldRoot, newRoot } = await change();
    const emitted: string[] = [];
    authority.on('trust', () => emitted.push(authority.rollover));
    const spki = authority.spkiHash;
    expect([authority.rollover, authority.trustBundlePem]).toEqual(['none', oldRoot]);
    await authority.prepareCa(next);
    expect(authority.trustBundlePem).toBe(oldRoot + newRoot);
    expect([authority.certificatePem, authority.spkiHash]).toEqual([oldRoot, spki]);
    expect(authority.chainPem).toBe('');
    await authority.activateCa();
    expect(authority.trustBundlePem).toBe(newRoot + oldRoot);
    expect(authority.certificatePem).toBe(newRoot);
    expect(authority.spkiHash).not.toBe(spki);
    expect(pemTexts(authority.chainPem)).toHaveLength(1);
    await authority.retireCa();
    expect([authority.trustBundlePem, authority.chainPem]).toEqual([newRoot, '']);
    expect(emitted).toEqual(['prepared', 'active', 'none']);
  });

  test('refuses its steps in any other order', async () => {
    const { authority, next } = await change();
    await expect(authority.activateCa()).rejects.toThrow(conflict);
    await expect(authority.retireCa()).rejects.toThrow(conflict);
    await authority.prepareCa(next);
    await expect(authority.prepareCa(next)).rejects.toThrow(conflict);
    await expect(authority.retireCa()).rejects.toThrow(conflict);
    await authority.activateCa();
    await expect(authority.activateCa()).rejects.toThrow(conflict);
    await expect(authority.prepareCa(generateCa({ trustDomain: TRUST_DOMAIN }))).rejects.toThrow(
      conflict
    );
  });

  test('refuses a CA that is not usable, and does not change', async () => {
    const { authority, old, next } = await change();
    const other = generateCa({ trustDomain: 'example.net' });
    const past = generateCa({
      trustDomain: TRUST_DOMAIN,
      rootLifetimeMs: DAY_MS,
      clock: clockOf(() => Date.now() - 2 * DAY_MS),
    });
    const mixed = { ...next, privateKeyPem: old.privateKeyPem };
    for (const wrong of [old, other, past, mixed, { ...next, certificatePem: 'x' }]) {
      await expect(authority.prepareCa(wrong)).rejects.toThrow(unfit);
    }
    await expect(authority.prepareCa(past)).rejects.toThrow('the CA certificate expired at');
    expect(authority.rollover).toBe('none');
    await authority.prepareCa(next);
  });

  test('refuses to activate a CA that has expired since it was prepared', async () => {
    const { authority, clock } = await scene();
    await authority.prepareCa(generateCa({ trustDomain: TRUST_DOMAIN, rootLifetimeMs: DAY_MS }));
    clock.ms += DAY_MS;
    await expect(authority.activateCa()).rejects.toThrow('the CA certificate expired at');
    expect(authority.rollover).toBe('prepared');
  });

  test('replaces an expired CA', async () => {
    const { authority, clock, next, store, old } = await change();
    clock.ms += 3651 * DAY_MS;
    const wallClock = clockOf(() => clock.ms);
    const again = await CertificateAuthority.open({
      trustDomain: TRUST_DOMAIN,
      store,
      clock: wallClock,
      ...old,
    });
    const { csrPem } = newRequest();
    await expect(again.issue(csrPem, SITE_A)).rejects.toThrow('the CA certificate expired at');
    await expect(authority.prepareCa(next)).rejects.toThrow('the CA certificate expired at');
    await again.prepareCa(generateCa({ trustDomain: TRUST_DOMAIN, clock: wallClock }));
    await again.activateCa();
    const issued = certificateOf(await again.issue(csrPem, SITE_A));
    expect(again.isCurrent(issued)).toBe(true);
    expect(again.chainPem).toBe('');
  });

  test('lets the old CA sign until the new one is activated, and renews certificates of both', async () => {
    const { authority, next } = await change();
    const first = certificateOf(await authority.issue(newRequest().csrPem, SITE_A));
    await authority.prepareCa(next);
    const second = certificateOf(await authority.renew(first, newRequest().csrPem));
    expect(authority.isCurrent(second)).toBe(true);
    await authority.activateCa();
    expect(authority.isCurrent(second)).toBe(false);
    const third = certificateOf(await authority.renew(second, newRequest().csrPem));
    expect(authority.isCurrent(third)).toBe(true);
    const all = [first, second, third];
    expect(all.map((it) => authority.hasIssued(it))).toEqual([true, true, true]);
    await authority.retireCa();
    expect(all.map((it) => authority.hasIssued(it))).toEqual([false, false, true]);
    await authority.renew(third, newRequest().csrPem);
    await expect(authority.renew(second, newRequest().csrPem)).rejects.toThrow('not issued by');
  });

  test('accepts certificates of a CA that another process has already activated', async () => {
    const { authority, store, old, next } = await change();
    const load = (parts: object) =>
      CertificateAuthority.open({ trustDomain: TRUST_DOMAIN, store, ...old, ...parts });
    const there = await load({ next });
    await authority.prepareCa(next);
    await authority.activateCa();
    const early = certificateOf(await authority.issue(newRequest().csrPem, SITE_A));
    expect(there.isCurrent(early)).toBe(false);
    expect(there.isCurrent(certificateOf(await there.renew(early, newRequest().csrPem)))).toBe(
      true
    );
    await authority.revoke({ site: 'site-a' });
    expect(there.isRevoked(early)).toBe(true);
  });

  test('continues after a restart from the same state', async () => {
    const { authority, store, old, next, newRoot, oldRoot } = await change();
    const load = (material: object) =>
      CertificateAuthority.open({ trustDomain: TRUST_DOMAIN, store, ...old, ...material });
    await authority.prepareCa(next);
    const prepared = await load({ next });
    expect(prepared.rollover).toBe('prepared');
    expect(prepared.trustBundlePem).toBe(authority.trustBundlePem);
    await authority.activateCa();
    const active = await load({ ...next, previous: old });
    expect(active.rollover).toBe('active');
    expect(active.trustBundlePem).toBe(newRoot + oldRoot);
    const [again, before] = [
      new X509Certificate(active.chainPem),
      new X509Certificate(authority.chainPem),
    ];
    expect([again.validFrom, again.validTo]).toEqual([before.validFrom, before.validTo]);
    expect(again.publicKey.equals(before.publicKey)).toBe(true);
    await expect(load({ next, previous: old })).rejects.toThrow(misuse);
    await expect(load({ previous: old })).rejects.toThrow(unfit);
  });

  test('makes a cross certificate that ends with the old root', async () => {
    const { authority, clock } = await scene({ rootLifetimeMs: 100 * DAY_MS });
    const end = certificateOf(authority).validTo;
    await authority.prepareCa(generateCa({ trustDomain: TRUST_DOMAIN }));
    clock.ms += HOUR_MS;
    await authority.activateCa();
    expect(new X509Certificate(authority.chainPem).validTo).toBe(end);
  });
});

/** Another intermediate of an operator's root, made by openssl. */
function intermediateUnder({ certificatePem: root, privateKeyPem: key }: CaMaterial): CaMaterial {
  const { privateKeyPem, csrPem: csr } = newRequest();
  const ext = [
    'basicConstraints=critical,CA:TRUE',
    'keyUsage=critical,keyCertSign,cRLSign',
    'subjectKeyIdentifier=hash',
  ].join('\n');
  const args = ['x509', '-req', '-in', '@csr', '-CA', '@root', '-CAkey', '@key', '-days', '9'];
  const issued = openssl([...args, '-set_serial', '9', '-extfile', '@ext'], {
    csr,
    root,
    key,
    ext,
  });
  return { certificatePem: issued + root, privateKeyPem };
}

describe.skipIf(!hasOpenssl)(
  'openssl, in a rollover (skipped where the command is missing)',
  () => {
    test.each<[KeyType, KeyType]>([
      ['p256', 'ed25519'],
      ['ed25519', 'rsa'],
      ['rsa', 'p256'],
    ])(
      'accepts a certificate with the old root, the new one and both, from %s to %s',
      async (from, to) => {
        const { authority, next, oldRoot, newRoot } = await change(from, to);
        const old = await authority.issue(newRequest().csrPem, SITE_A);
        await authority.prepareCa(next);
        await authority.activateCa();
        const { certificatePem } = await authority.issue(newRequest().csrPem, SITE_A);
        for (const anchors of [oldRoot, newRoot, oldRoot + newRoot, newRoot + oldRoot]) {
          expect(verdictOf(certificatePem, anchors)).toBe('OK');
        }
        expect(verdictOf(old.certificatePem, authority.trustBundlePem)).toBe('OK');
        await authority.retireCa();
        expect(verdictOf(old.certificatePem, authority.trustBundlePem)).not.toBe('OK');
        expect(verdictOf(certificatePem, authority.trustBundlePem)).toBe('OK');
      }
    );

    test('verifies the CRL of each CA, and by them refuses the revoked certificate of each', async () => {
      const { authority, next, oldRoot, newRoot } = await change();
      const issue = () => authority.issue(newRequest().csrPem, SITE_A);
      const [oldLost, oldKept] = [await issue(), await issue()];
      await authority.prepareCa(next);
      expect(pemTexts(authority.crlPem())).toHaveLength(1);
      await authority.activateCa();
      const [newLost, newKept] = [await issue(), await issue()];
      for (const { serial } of [oldLost, newLost]) await authority.revoke({ serial });
      const crlPem = authority.crlPem();
      const crls = pemTexts(crlPem);
      expect(crls).toHaveLength(2);
      for (const [crl, root, foreign, listed, other] of [
        [crls[0]!, newRoot, oldRoot, newLost, oldLost],
        [crls[1]!, oldRoot, newRoot, oldLost, newLost],
      ] as const) {
        expect(crlVerdictOf(crl, root)).toBe('verify OK');
        expect(crlVerdictOf(crl, foreign)).toBe('verify failure');
        const text = openssl(['crl', '-in', '@crl', '-text', '-noout'], { crl });
        expect(text).toContain(listed.serial.toUpperCase());
        expect(text).not.toContain(other.serial.toUpperCase());
      }
      for (const anchors of [oldRoot, newRoot, newRoot + oldRoot]) {
        expect(verdictOf(newKept.certificatePem, anchors, crlPem)).toBe('OK');
        expect(verdictOf(newLost.certificatePem, anchors, crlPem)).toBe('certificate revoked');
      }
      expect(verdictOf(oldKept.certificatePem, oldRoot + newRoot, crlPem)).toBe('OK');
      expect(verdictOf(oldLost.certificatePem, oldRoot + newRoot, crlPem)).toBe(
        'certificate revoked'
      );
      await authority.retireCa();
      expect(pemTexts(authority.crlPem())).toHaveLength(1);
    });

    test('makes no cross certificate where generated intermediates forbid it', async () => {
      const { authority, next, oldRoot, newRoot } = await change('p256', 'p256', true);
      await authority.prepareCa(next);
      await authority.activateCa();
      const { certificatePem } = await authority.issue(newRequest().csrPem, SITE_A);
      expect(pemTexts(authority.chainPem)).toHaveLength(1);
      expect(verdictOf(certificatePem, newRoot)).toBe('OK');
      expect(verdictOf(certificatePem, oldRoot + newRoot)).toBe('OK');
      expect(verdictOf(certificatePem, oldRoot)).not.toBe('OK');
    });

    test.each([false, true])(
      'accepts a CA that follows one of an operator without path lengths, with an intermediate: %s',
      async (intermediate) => {
        const { store } = await scene();
        const { intermediatePem, rootPem, privateKeyPem } = operatorCa('p256', 'x');
        const certificatePem = intermediatePem + rootPem;
        const authority = await CertificateAuthority.open({
          ...{ trustDomain: TRUST_DOMAIN, store, certificatePem, privateKeyPem, passphrase: 'x' },
        });
        const next = generateCa({ trustDomain: TRUST_DOMAIN, intermediate });
        await authority.prepareCa(next);
        await authority.activateCa();
        const issued = await authority.issue(newRequest().csrPem, SITE_A);
        const newRoot = pemTexts(next.certificatePem).at(-1)!;
        for (const anchors of [rootPem, newRoot, rootPem + newRoot]) {
          expect(verdictOf(issued.certificatePem, anchors)).toBe('OK');
        }
      }
    );

    test('keeps the bundle when a new intermediate has the same root, and renews for it', async () => {
      const { store } = await scene();
      const { intermediatePem, rootPem, privateKeyPem, root } = operatorCa('p256', 'x');
      const certificatePem = intermediatePem + rootPem;
      const authority = await CertificateAuthority.open({
        ...{ trustDomain: TRUST_DOMAIN, store, certificatePem, privateKeyPem, passphrase: 'x' },
      });
      const old = certificateOf(await authority.issue(newRequest().csrPem, SITE_A));
      const next = intermediateUnder(root);
      await authority.prepareCa(next);
      expect(authority.trustBundlePem).toBe(rootPem);
      await authority.activateCa();
      expect(authority.trustBundlePem).toBe(rootPem);
      expect(authority.chainPem).toBe(pemTexts(next.certificatePem)[0]);
      expect(authority.isCurrent(old)).toBe(false);
      const renewed = await authority.renew(old, newRequest().csrPem);
      expect(verdictOf(renewed.certificatePem, rootPem)).toBe('OK');
      await authority.retireCa();
      expect(authority.trustBundlePem).toBe(rootPem);
      await expect(authority.renew(old, newRequest().csrPem)).rejects.toThrow('not issued by');
    });
  }
);

describe('handshakes in a rollover', () => {
  test('succeed for a peer with one of the two roots, until the old one is retired', async () => {
    const { authority, next, oldRoot, newRoot } = await change();
    const oldSite = await gateway(authority, SITE_A);
    const oldCloud = await gateway(authority, CLOUD);
    await authority.prepareCa(next);
    await authority.activateCa();
    const both = authority.trustBundlePem;
    const newSite = await gateway(authority, SITE_A);
    const newCloud = await gateway(authority, CLOUD);
    // An edge that knows nothing of the change at a cloud that has changed, and the other way round.
    expect(await handshake({ ...newCloud, ca: both }, { ...oldSite, ca: oldRoot })).toBe('OK');
    expect(await handshake({ ...oldCloud, ca: oldRoot }, { ...newSite, ca: both })).toBe('OK');
    expect(await handshake({ ...newCloud, ca: newRoot }, { ...newSite, ca: newRoot })).toBe('OK');
    expect(await handshake({ ...newCloud, ca: newRoot }, { ...oldSite, ca: both })).not.toBe('OK');
    await authority.retireCa();
    const bundle = authority.trustBundlePem;
    expect(await handshake({ ...newCloud, ca: bundle }, { ...newSite, ca: bundle })).toBe('OK');
    expect(await handshake({ ...newCloud, ca: bundle }, { ...oldSite, ca: bundle })).not.toBe('OK');
    expect(await handshake({ ...oldCloud, ca: bundle }, { ...newSite, ca: bundle })).not.toBe('OK');
  });

  test('succeed for a client that pins either root of a server that presents its chain and both roots', async () => {
    const { authority, next, oldRoot, newRoot } = await change();
    await authority.prepareCa(next);
    await authority.activateCa();
    const site = await gateway(authority, SITE_A);
    const { key, cert } = await gateway(authority, CLOUD);
    for (const presented of [authority.trustBundlePem, oldRoot + newRoot]) {
      const server = { key, cert: cert + presented, ca: authority.trustBundlePem };
      expect(await handshake(server, { ...site, ca: oldRoot })).toBe('OK');
      expect(await handshake(server, { ...site, ca: newRoot })).toBe('OK');
    }
  });

  test('refuse certificates on the CRL of either CA', async () => {
    const { authority, next } = await change();
    const issue = async () => {
      const { privateKeyPem: key, csrPem } = newRequest();
      const { certificatePem: cert, serial } = await authority.issue(csrPem, SITE_A);
      return { key, cert, serial };
    };
    const [oldLost, oldKept] = [await issue(), await issue()];
    await authority.prepareCa(next);
    await authority.activateCa();
    const [newLost, newKept] = [await issue(), await issue()];
    for (const { serial } of [oldLost, newLost]) await authority.revoke({ serial });
    const cloud = await gateway(authority, CLOUD);
    const ca = authority.trustBundlePem;
    const crl = pemTexts(authority.crlPem());
    const at = ({ key, cert }: Omit<End, 'ca'>) =>
      handshake({ ...cloud, ca, crl }, { key, cert, ca });
    expect([await at(oldKept), await at(newKept)]).toEqual(['OK', 'OK']);
    expect([await at(oldLost), await at(newLost)]).toEqual(['CERT_REVOKED', 'CERT_REVOKED']);
  });

  test('yield a certificate of the new CA for a token from before the change', async () => {
    const { authority, next } = await change();
    const token = await authority.createToken({ site: 'site-a', endpoints: ['https://a.example'] });
    await authority.prepareCa(next);
    await authority.activateCa();
    const issued = certificateOf(await authority.enrol(redemptionOf(token)));
    expect(authority.isCurrent(issued)).toBe(true);
  });
});
