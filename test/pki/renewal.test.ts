import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { ApiMisuseError } from '../../src/errors.ts';
import { type Issuer, randomSerial, signEndEntity, validityOf } from '../../src/pki/certificate.ts';
import {
  commonName,
  decode,
  encodePem,
  integer,
  sequence,
  tagged,
  time,
} from '../../src/pki/der.ts';
import { generateCa, type RenewedCertificate } from '../../src/pki/index.ts';
import { signatureAlgorithmOf, signed, spkiDigest, spkiOf } from '../../src/pki/keys.ts';
import { verifySigningRequest } from '../../src/pki/signing-request.ts';
import { DAY_MS, HOUR_MS, newRequest, SITE_A } from './fixtures.ts';
import {
  ahead,
  answerOf,
  authority,
  clock,
  dueIn,
  enrolled,
  heldTrial,
  LIFETIME_MS,
  MINUTE_MS,
  now,
  offline,
  other,
  pass,
  renewed,
  trial,
} from './renewal-trial.ts';

function issuerOf(privateKeyPem: string, name: string): Issuer {
  const privateKey = createPrivateKey(privateKeyPem);
  const keyId = spkiDigest(createPublicKey(privateKey));
  return { privateKey, name: commonName(name), keyId };
}

/** A certificate of the site, by any issuer. */
function signedBy(issuer: Issuer, csrPem: string): string {
  const validity = validityOf(now(), DAY_MS);
  return signEndEntity(issuer, verifySigningRequest(csrPem), SITE_A, randomSerial(), validity);
}

/** A certificate with the subject `middle` and without restrictions of its use. */
function withoutExtensions({ privateKey, name }: Issuer, publicKey: KeyObject): string {
  const tbs = sequence(
    tagged(0, integer(2n)),
    integer(1n),
    signatureAlgorithmOf(privateKey),
    name,
    sequence(time(now() - HOUR_MS), time(now() + DAY_MS)),
    commonName('middle'),
    decode(spkiOf(publicKey))
  );
  return encodePem('CERTIFICATE', signed(tbs, privateKey));
}

describe('CertificateRenewer', () => {
  test('renews at two thirds of the lifetime, with a new key, and then waits for the next time', async () => {
    const { renewer, credentials, log, applied } = await trial();
    await pass(dueIn(credentials) - 1);
    expect([log, renewer.state]).toEqual([[], 'valid']);
    await pass(1);
    expect(log).toEqual(['due', 'renew', 'apply', 'renewed']);
    expect(renewer.credentials).toEqual(applied[0]);
    expect(renewer.credentials.key).not.toBe(credentials.key);
    expect(renewer.notAfter.getTime()).toBe(now() + LIFETIME_MS);
    await pass(0);
    expect([log.pop(), renewer.state]).toEqual(['valid', 'valid']);
    await pass(dueIn(renewer.credentials));
    expect(log.slice(-4)).toEqual(['due', 'renew', 'apply', 'renewed']);
  });

  test('renews earlier by a random part of up to a tenth of the lifetime', async () => {
    const { credentials, log } = await trial({ random: () => 0.5 });
    const soonerMs = (LIFETIME_MS + 5 * MINUTE_MS) / 20;
    await pass(dueIn(credentials) - soonerMs - 1);
    expect(log).toEqual([]);
    await pass(1);
    expect(log.slice(0, 2)).toEqual(['due', 'renew']);
  });

  test('sets no timer that is longer than an hour', async () => {
    const before = clock.delays.length;
    await trial({}, 36_000 * DAY_MS);
    expect(clock.delays.slice(before)).toEqual([HOUR_MS]);
  });

  test('starts its waits at one second again after a success', async () => {
    let isDown = true;
    const { renewer } = await trial({
      renew: (csrPem) => (isDown ? offline() : renewed(renewer.credentials, csrPem)),
    });
    const waits: number[] = [];
    renewer.on('problem', ({ retryInMs }) => waits.push(retryInMs));
    await renewer.renewNow().catch(() => {});
    await renewer.renewNow().catch(() => {});
    isDown = false;
    await renewer.renewNow();
    isDown = true;
    await renewer.renewNow().catch(() => {});
    expect(waits).toEqual([1000, 2000, 1000]);
  });

  test('keeps the key if newKey is false', async () => {
    const { renewer, credentials } = await trial({ newKey: false });
    await renewer.renewNow();
    expect(renewer.credentials.key).toBe(credentials.key);
    expect(renewer.credentials.cert).not.toBe(credentials.cert);
  });

  test('waits twice as long after each failure, up to a twentieth of the remaining lifetime', async () => {
    const { renewer, credentials, log } = await trial({ renew: offline }, HOUR_MS);
    await pass(dueIn(credentials));
    const waits: number[] = [];
    renewer.on('problem', ({ retryInMs }) => waits.push(retryInMs));
    waits.push(Number(/in (\d+)$/.exec(log.at(-1)!)![1]));
    for (let turn = 0; turn < 7; turn++) await pass(waits.at(-1)!);
    const leftMs = renewer.notAfter.getTime() - now();
    expect(waits.slice(0, 6)).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000]);
    expect(waits.at(-1)).toBe(leftMs / 20);
    expect(waits.at(-1)).toBeLessThan(64_000);
  });

  test('shortens each wait at random by up to half', async () => {
    const { renewer, log } = await trial({ renew: offline, random: () => 0.5 });
    await expect(renewer.renewNow()).rejects.toThrow('no tunnel');
    expect(log).toEqual(['renew', 'failed: no tunnel, again in 750']);
  });

  test('tries a requested renewal again by itself, even if it is not due', async () => {
    let isDown = true;
    const { renewer, log } = await trial({
      renew: (csrPem) => (isDown ? offline() : renewed(renewer.credentials, csrPem)),
    });
    await expect(renewer.renewNow()).rejects.toThrow('no tunnel');
    isDown = false;
    await pass(999);
    expect(log).toEqual(['renew', 'failed: no tunnel, again in 1000']);
    await pass(1);
    expect(log.slice(2)).toEqual(['renew', 'apply', 'renewed']);
  });

  test('makes one renewal at a time and returns its promise to all callers', async () => {
    const { renewer, log } = await trial();
    const first = renewer.renewNow();
    expect(renewer.renewNow()).toBe(first);
    await first;
    await renewer.renewNow();
    expect(log.filter((it) => it === 'renew')).toHaveLength(2);
  });

  test('keeps its credentials when the new certificate cannot be applied, and applies another', async () => {
    let isFull = true;
    const { renewer, credentials, log } = await trial({
      apply: () => {
        if (isFull) throw new Error('disk full');
      },
    });
    await expect(renewer.renewNow()).rejects.toThrow('disk full');
    expect(renewer.credentials).toEqual(credentials);
    isFull = false;
    await pass(1000);
    expect(log.slice(-3)).toEqual(['renew', 'apply', 'renewed']);
    expect(renewer.credentials).not.toEqual(credentials);
  });

  test('stops waiting for an answer that does not come, and ignores a late one', async () => {
    const late: ((certificate: RenewedCertificate) => void)[] = [];
    const { renewer, credentials, log, applied } = await trial({
      renew: () => new Promise((resolve) => late.push(resolve)),
      timeoutMs: 5000,
    });
    const asked = renewer.renewNow().catch((error: Error) => error.message);
    await pass(4999);
    expect(log).toEqual(['renew']);
    await pass(1);
    expect(await asked).toBe('no certificate within 5000 ms');
    late[0]!(answerOf(credentials));
    await pass(0);
    expect(applied).toEqual([]);
  });

  test.each<[string, (csrPem: string) => Promise<RenewedCertificate>, string]>([
    ['for another key', async () => answerOf(await enrolled()), 'is for another key'],
    [
      'for another site',
      async (csrPem) => ({
        ...(await authority.issue(csrPem, { ...SITE_A, site: 'site-b' })),
        caPem: authority.certificatePem,
      }),
      'is spiffe://example.org/site/site-b, not',
    ],
    [
      'of another CA than its bundle has',
      async (csrPem) => ({
        ...(await other.issue(csrPem, SITE_A)),
        caPem: authority.certificatePem,
      }),
      'does not lead to one of the trust anchors',
    ],
    [
      'of a CA that has expired',
      async (csrPem) => {
        const before = ahead(() => -2 * HOUR_MS);
        const ca = generateCa({
          trustDomain: 'example.org',
          rootLifetimeMs: HOUR_MS,
          clock: before,
        });
        const issuer = issuerOf(ca.privateKeyPem, 'example.org gateways');
        return { certificatePem: signedBy(issuer, csrPem), caPem: ca.certificatePem };
      },
      'anchors beside it (certificate valid from',
    ],
    [
      'under one that may be used for anything, but is no CA',
      async (csrPem) => {
        const ca = generateCa({ trustDomain: 'example.org', clock });
        const { privateKeyPem } = newRequest();
        const middle = withoutExtensions(
          issuerOf(ca.privateKeyPem, 'example.org gateways'),
          createPublicKey(privateKeyPem)
        );
        const leaf = signedBy(issuerOf(privateKeyPem, 'middle'), csrPem);
        return { certificatePem: leaf + middle, caPem: ca.certificatePem };
      },
      'does not lead to one of the trust anchors',
    ],
    [
      'that is a CA',
      async () => ({ certificatePem: authority.certificatePem, caPem: authority.certificatePem }),
      'a CA certificate is not a gateway',
    ],
    [
      'with an empty bundle',
      async (csrPem) => ({ ...(await authority.issue(csrPem, SITE_A)), caPem: '' }),
      'found 0',
    ],
    [
      'with a bundle that is no CA',
      async (csrPem) => {
        const { certificatePem } = await authority.issue(csrPem, SITE_A);
        return { certificatePem, caPem: authority.certificatePem + certificatePem };
      },
      'one that is not a CA certificate',
    ],
    [
      'with 17 certificates',
      async (csrPem) => {
        const { certificatePem } = await authority.issue(csrPem, SITE_A);
        return { certificatePem: certificatePem.repeat(17), caPem: authority.certificatePem };
      },
      'found 17',
    ],
    [
      'that is damaged',
      async () => ({
        certificatePem: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----',
        caPem: authority.certificatePem,
      }),
      'cannot be read',
    ],
  ])('does not use a certificate %s', async (_, renew, reason) => {
    const { renewer, credentials, applied } = await trial({ renew });
    const error = await renewer.renewNow().catch((it) => it);
    expect(error.code).toBe('ERR_PRESENCE_PEER_PROTOCOL');
    expect(error.message).toContain(reason);
    expect([renewer.credentials, applied]).toEqual([credentials, []]);
  });

  test('names the clock when the new certificate is not valid at its time', async () => {
    let aheadMs = 0;
    const { renewer } = await trial({ clock: ahead(() => aheadMs) });
    aheadMs = -DAY_MS;
    await expect(renewer.renewNow()).rejects.toThrow('but the clock here says');
  });

  test('emits expired once, and continues to try at long intervals', async () => {
    const { renewer, log } = await trial({ renew: offline }, HOUR_MS);
    await pass(renewer.notAfter.getTime() - now());
    expect(renewer.state).toBe('due');
    await pass(1);
    expect(renewer.state).toBe('expired');
    expect(log.filter((it) => it.startsWith('expired'))).toEqual(['expired', 'expired true']);
    const seldomMs = (HOUR_MS + 5 * MINUTE_MS) / 20;
    const before = log.length;
    await pass(10 * MINUTE_MS);
    await pass(seldomMs);
    await pass(seldomMs);
    const failure = `failed: no tunnel, again in ${seldomMs}`;
    const later = log.slice(before);
    expect(later.slice(-4)).toEqual(['renew', failure, 'renew', failure]);
    expect(later.filter((it) => it.startsWith('expired'))).toEqual([]);
  });

  test('starts with an expired certificate, and recovers when it gets another', async () => {
    const credentials = await enrolled(HOUR_MS);
    await pass(2 * HOUR_MS);
    const { renewer, log } = await trial({
      credentials,
      renew: async (csrPem) => ({
        ...(await authority.issue(csrPem, SITE_A)),
        caPem: authority.certificatePem,
      }),
    });
    expect(renewer.state).toBe('expired');
    await pass(0);
    await pass(0);
    expect(log).toEqual(['expired', 'expired true', 'renew', 'apply', 'renewed', 'valid']);
  });

  test('emits expired for each certificate', async () => {
    const { renewer, log } = await trial({ renew: offline }, HOUR_MS);
    await pass(2 * HOUR_MS);
    renewer.replace(await enrolled(HOUR_MS));
    await pass(2 * HOUR_MS);
    expect(log.filter((it) => it.startsWith('expired '))).toHaveLength(2);
  });

  test('continues with the credentials of a new enrolment, and ignores the renewal in progress', async () => {
    const { renewer, log, applied, answers } = await heldTrial();
    const asked = renewer.renewNow();
    await pass(0);
    const replacement = await enrolled(HOUR_MS);
    renewer.replace(replacement);
    expect(renewer.credentials).toEqual(replacement);
    answers[0]!();
    await asked;
    expect([renewer.credentials, applied]).toEqual([replacement, []]);
    await pass(dueIn(replacement));
    expect(log).toEqual(['renew', 'due', 'renew']);
  });

  test('applies the replacement again if a renewal was being applied', async () => {
    const release: (() => void)[] = [];
    const { renewer, applied } = await trial({
      apply: () =>
        release.length > 0 ? undefined : new Promise<void>((resolve) => release.push(resolve)),
    });
    const asked = renewer.renewNow();
    await pass(0);
    const replacement = await enrolled();
    renewer.replace(replacement);
    release[0]!();
    await asked;
    expect(renewer.credentials).toEqual(replacement);
    expect(applied.at(-1)).toEqual(replacement);
  });

  test('refuses credentials that do not belong together, at first and as replacement', async () => {
    const { renewer, credentials } = await trial();
    const { privateKeyPem } = newRequest();
    const bad = { ...credentials, key: privateKeyPem };
    const code = expect.objectContaining({ code: 'ERR_PRESENCE_CERTIFICATE' });
    expect(() => renewer.replace(bad)).toThrow(code);
    await expect(trial({ credentials: bad })).rejects.toThrow(code);
    await expect(trial({ credentials: { ...credentials, ca: '' } })).rejects.toThrow(code);
    expect(renewer.credentials).toEqual(credentials);
  });

  test('does not ask again at once when the CA itself expires soon', async () => {
    const { renewer, log } = await trial({
      newKey: false,
      // The answer is the same certificate again.
      renew: async () => answerOf(credentials),
    });
    const { credentials } = renewer;
    await pass(dueIn(credentials));
    const leftMs = renewer.notAfter.getTime() - now();
    expect(log.filter((it) => it === 'renew')).toHaveLength(1);
    await pass(leftMs / 3 - 1);
    expect(log.filter((it) => it === 'renew')).toHaveLength(1);
    await pass(1);
    expect(log.filter((it) => it === 'renew')).toHaveLength(2);
  });

  test('follows the wall clock when it is set forward', async () => {
    let aheadMs = 0;
    const { log } = await trial({ clock: ahead(() => aheadMs) });
    aheadMs = 25 * DAY_MS;
    await pass(HOUR_MS);
    expect(log[0]).toBe('due');
  });

  test('does nothing after close', async () => {
    const before = clock.delays.length;
    const { renewer, log, applied } = await trial();
    const asked = renewer.renewNow();
    renewer.close();
    await asked;
    expect(clock.delays).toHaveLength(before);
    await pass(LIFETIME_MS);
    expect([log, applied]).toEqual([['renew'], []]);
    await expect(renewer.renewNow()).rejects.toThrow('closed');
    await expect(renewer.setTrust(authority.certificatePem)).rejects.toThrow('closed');
    renewer.close();
  });

  test.each([0, -1, Number.NaN, 2 ** 31])('refuses a timeout of %d ms', async (timeoutMs) => {
    await expect(trial({ timeoutMs })).rejects.toThrow('timeoutMs must be');
  });
});

describe('CertificateRenewer.renewIn', () => {
  test('starts a renewal after the delay, and after the shorter of two', async () => {
    const { renewer, log } = await trial();
    renewer.renewIn(50_000);
    renewer.renewIn(20_000);
    renewer.renewIn(40_000);
    await pass(19_999);
    expect(log).toEqual([]);
    await pass(1);
    expect(log).toEqual(['renew', 'apply', 'renewed']);
    await pass(60_000);
    expect(log).toHaveLength(3);
  });

  test('does not renew again if a renewal has started in the meantime', async () => {
    const { renewer, log } = await trial();
    renewer.renewIn(20_000);
    await pass(10_000);
    await renewer.renewNow();
    await pass(20_000);
    expect(log).toEqual(['renew', 'apply', 'renewed']);
  });

  test('does not count a renewal that was already in progress, and sets no timers while it waits', async () => {
    const { renewer, log, answers } = await heldTrial();
    const first = renewer.renewNow();
    await pass(0);
    renewer.renewIn(0);
    await pass(1000);
    expect(log).toEqual(['renew']);
    expect(clock.delays.every((ms) => ms > 0)).toBe(true);
    answers[0]!();
    await first;
    await pass(0);
    expect(log).toEqual(['renew', 'apply', 'renewed', 'renew']);
    answers[1]!();
    await pass(0);
    expect(log).toEqual(['renew', 'apply', 'renewed', 'renew', 'apply', 'renewed']);
  });

  test('does not delay a certificate that is due', async () => {
    const { renewer, log, credentials } = await trial();
    await pass(dueIn(credentials) - 1000);
    expect(renewer.state).toBe('valid');
    renewer.renewIn(3_600_000);
    await pass(1000);
    expect(log).toContain('renewed');
    await pass(3_600_000);
    expect(log.filter((line) => line === 'renew')).toHaveLength(1);
  });

  test('is dropped with the certificate that it was for, and is tried again when it fails', async () => {
    const { renewer, log } = await trial();
    renewer.renewIn(10_000);
    renewer.replace(await enrolled());
    await pass(20_000);
    expect(log).toEqual([]);

    const failing = await trial({ renew: offline });
    failing.renewer.renewIn(10_000);
    await pass(10_000);
    expect(failing.log).toEqual(['renew', 'failed: no tunnel, again in 1000']);
    await pass(1000);
    expect(failing.log).toHaveLength(4);
  });

  test.each([-1, Number.NaN, 3_600_001])('refuses the delay %s', async (delayMs) => {
    const { renewer } = await trial();
    expect(() => renewer.renewIn(delayMs)).toThrow(ApiMisuseError);
  });
});
