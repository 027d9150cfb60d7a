import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { readCertificates } from '../../src/pki/credentials-check.ts';
import { generateCa } from '../../src/pki/index.ts';
import {
  authority,
  clock,
  enrolled,
  heldTrial,
  offline,
  other,
  pass,
  trial,
} from './renewal-trial.ts';

describe('CertificateRenewer.setTrust', () => {
  test('applies a new bundle with the same certificate, and does nothing for the same bundle', async () => {
    const { renewer, credentials, applied } = await trial();
    const caPem = authority.certificatePem + other.certificatePem;
    await renewer.setTrust(caPem);
    await renewer.setTrust(`# the same\n${caPem}`);
    expect(applied).toEqual([{ ...credentials, ca: caPem }]);
    expect(renewer.credentials).toEqual({ ...credentials, ca: caPem });
  });

  test("refuses a bundle that is empty or has a certificate that is not a CA's", async () => {
    const { renewer, credentials, applied } = await trial();
    for (const caPem of ['', 'x', credentials.cert, credentials.ca + credentials.cert]) {
      await expect(renewer.setTrust(caPem)).rejects.toThrow(
        expect.objectContaining({ code: 'ERR_PRESENCE_CERTIFICATE' })
      );
    }
    expect([renewer.credentials, applied]).toEqual([credentials, []]);
  });

  test('keeps the old bundle when the new one cannot be applied', async () => {
    const { renewer, credentials } = await trial({
      apply: () => Promise.reject(new Error('disk full')),
    });
    await expect(renewer.setTrust(other.certificatePem)).rejects.toThrow('disk full');
    expect(renewer.credentials).toEqual(credentials);
  });

  test('is not undone by a renewal that was requested before', async () => {
    const { renewer, answers } = await heldTrial();
    const asked = renewer.renewNow();
    await pass(0);
    const caPem = authority.certificatePem + other.certificatePem;
    await renewer.setTrust(caPem);
    answers[0]!();
    await asked;
    expect(renewer.credentials.ca).toBe(caPem);
  });

  test('yields to other credentials that arrive while it is being applied', async () => {
    const release: (() => void)[] = [];
    const { renewer, applied } = await trial({
      apply: () =>
        release.length > 0 ? undefined : new Promise<void>((resolve) => release.push(resolve)),
    });
    const trusted = renewer.setTrust(authority.certificatePem + other.certificatePem);
    await pass(0);
    const replacement = await enrolled();
    renewer.replace(replacement);
    release[0]!();
    await trusted;
    expect([renewer.credentials, applied.at(-1)]).toEqual([replacement, replacement]);
  });

  test('waits for a renewal that is being applied', async () => {
    const release: (() => void)[] = [];
    const { renewer, applied } = await trial({
      apply: () =>
        release.length > 0 ? undefined : new Promise<void>((resolve) => release.push(resolve)),
    });
    const asked = renewer.renewNow();
    await pass(0);
    const caPem = authority.certificatePem + other.certificatePem;
    const trusted = renewer.setTrust(caPem);
    await pass(0);
    expect(applied).toEqual([]);
    release[0]!();
    await Promise.all([asked, trusted]);
    expect(applied.map((it) => it.ca)).toEqual([authority.certificatePem, caPem]);
    expect(renewer.credentials).toEqual(applied[1]);
  });

  test('tries a bundle again that cannot be applied, with the waits of a renewal, until it succeeds', async () => {
    let isFull = true;
    const { renewer, credentials, log } = await trial({
      apply: () => {
        if (isFull) throw new Error('disk full');
      },
    });
    await expect(renewer.setTrust(other.certificatePem)).rejects.toThrow('disk full');
    await pass(999);
    await pass(1);
    expect(log).toEqual([
      ...['apply', 'failed: disk full, again in 1000'],
      ...['apply', 'failed: disk full, again in 2000'],
    ]);
    isFull = false;
    await pass(1999);
    expect(renewer.credentials).toEqual(credentials);
    await pass(1);
    expect(renewer.credentials).toEqual({ ...credentials, ca: other.certificatePem });
    await pass(10_000);
    expect(log.slice(4)).toEqual(['apply']);
  });

  test('replaces a bundle that cannot be applied by the next one, even by the one in use', async () => {
    let isFull = true;
    const { renewer, credentials, log, applied } = await trial({
      apply: () => {
        if (isFull) throw new Error('disk full');
      },
    });
    await expect(renewer.setTrust(other.certificatePem)).rejects.toThrow('disk full');
    isFull = false;
    // Applied again, because the store may have the one that failed.
    await renewer.setTrust(credentials.ca);
    await pass(10_000);
    expect([applied, renewer.credentials]).toEqual([[credentials], credentials]);
    expect(log).toHaveLength(3);
  });

  test('is settled by a renewal that was requested later, with its bundle', async () => {
    let isFull = true;
    const { renewer, log } = await trial({
      apply: () => {
        if (isFull) throw new Error('disk full');
      },
    });
    await expect(renewer.setTrust(other.certificatePem)).rejects.toThrow('disk full');
    isFull = false;
    await renewer.renewNow();
    await pass(10_000);
    expect(renewer.credentials.ca).toBe(authority.certificatePem);
    expect(log.slice(2)).toEqual(['renew', 'apply', 'renewed']);
  });

  test('is applied with a renewal that was requested before, even if it could not be applied itself', async () => {
    let isFull = true;
    const { renewer, log, answers } = await heldTrial({
      apply: () => {
        if (isFull) throw new Error('disk full');
      },
    });
    const asked = renewer.renewNow();
    await pass(0);
    const caPem = authority.certificatePem + other.certificatePem;
    await expect(renewer.setTrust(caPem)).rejects.toThrow('disk full');
    isFull = false;
    answers[0]!();
    await asked;
    expect(renewer.credentials.ca).toBe(caPem);
    await pass(10_000);
    expect(log.slice(3)).toEqual(['apply', 'renewed']);
  });

  test('counts its failures separately from those of renewals', async () => {
    const { renewer, log } = await trial({
      renew: offline,
      apply: () => Promise.reject(new Error('disk full')),
    });
    await expect(renewer.renewNow()).rejects.toThrow('no tunnel');
    await expect(renewer.setTrust(other.certificatePem)).rejects.toThrow('disk full');
    expect(log.filter((it) => it.startsWith('failed'))).toEqual([
      'failed: no tunnel, again in 1000',
      'failed: disk full, again in 1000',
    ]);
  });

  test('is not tried again after a replacement or close', async () => {
    for (const end of ['replace', 'close']) {
      const { renewer, log } = await trial({
        apply: () => Promise.reject(new Error('disk full')),
      });
      await expect(renewer.setTrust(other.certificatePem)).rejects.toThrow('disk full');
      if (end === 'close') renewer.close();
      else renewer.replace(await enrolled());
      await pass(10_000);
      expect(log).toHaveLength(2);
    }
  });

  test('is not applied if the renewer is closed while it waits', async () => {
    const release: (() => void)[] = [];
    const { renewer, applied } = await trial({
      apply: () => new Promise<void>((resolve) => release.push(resolve)),
    });
    const asked = renewer.renewNow();
    await pass(0);
    const trusted = renewer.setTrust(other.certificatePem);
    renewer.close();
    release[0]!();
    await asked;
    await pass(0);
    expect([applied.length, release.length]).toEqual([1, 1]);
    await trusted;
  });

  test('follows the cloud from one CA to the next', async () => {
    const { renewer } = await trial({
      renew: async (csrPem) => {
        const current = new X509Certificate(renewer.credentials.cert);
        const { certificatePem } = await authority.renew(current, csrPem);
        return { certificatePem, caPem: authority.trustBundlePem };
      },
    });
    const isCurrent = () => authority.isCurrent(new X509Certificate(renewer.credentials.cert));
    await authority.prepareCa(generateCa({ trustDomain: authority.trustDomain, clock }));
    await renewer.setTrust(authority.trustBundlePem);
    await authority.activateCa();
    expect(isCurrent()).toBe(false);
    await renewer.renewNow();
    expect(isCurrent()).toBe(true);
    await authority.retireCa();
    await renewer.setTrust(authority.trustBundlePem);
    await renewer.renewNow();
    expect(renewer.credentials.ca).toBe(authority.trustBundlePem);
    expect(readCertificates(renewer.credentials.ca)).toHaveLength(1);
  });
});
