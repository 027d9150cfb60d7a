import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { readCertificates } from '../../src/pki/credentials-check.ts';
import { generateCa } from '../../src/pki/index.ts';
import { authority, enrolled, now, other, pass, renewed, trial } from './renewal-trial.ts';

describe('CertificateRenewer.setTrust', () => {
  test('applies a new bundle to the same certificate, and nothing when it is the same', async () => {
    const { renewer, credentials, applied } = await trial();
    const caPem = authority.certificatePem + other.certificatePem;
    await renewer.setTrust(caPem);
    await renewer.setTrust(`# the same\n${caPem}`);
    expect(applied).toEqual([{ ...credentials, caPem }]);
    expect(renewer.credentials).toEqual({ ...credentials, caPem });
  });

  test('refuses a bundle that is empty or has a certificate of no CA', async () => {
    const { renewer, credentials, applied } = await trial();
    for (const caPem of [
      '',
      'x',
      credentials.certificatePem,
      credentials.caPem + credentials.certificatePem,
    ]) {
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

  test('is not undone by a renewal that was asked for before', async () => {
    const answers: (() => void)[] = [];
    const { renewer } = await trial({
      renew: async (csrPem) => {
        const answer = await renewed(renewer.credentials, csrPem);
        await new Promise<void>((resolve) => answers.push(resolve));
        return answer;
      },
    });
    const asked = renewer.renewNow();
    await pass(0);
    const caPem = authority.certificatePem + other.certificatePem;
    await renewer.setTrust(caPem);
    answers[0]!();
    await asked;
    expect(renewer.credentials.caPem).toBe(caPem);
  });

  test('gives way to other credentials that come while it is being applied', async () => {
    const release: (() => void)[] = [];
    const { renewer, applied } = await trial({
      apply: () =>
        release.length > 0 ? undefined : new Promise<void>((resolve) => release.push(resolve)),
    });
    const trusted = renewer.setTrust(authority.certificatePem + other.certificatePem);
    await pass(0);
    const anew = await enrolled();
    renewer.replace(anew);
    release[0]!();
    await trusted;
    expect([renewer.credentials, applied.at(-1)]).toEqual([anew, anew]);
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
    expect(applied.map((it) => it.caPem)).toEqual([authority.certificatePem, caPem]);
    expect(renewer.credentials).toEqual(applied[1]);
  });

  test('follows the cloud from one CA to the next', async () => {
    const { renewer } = await trial({
      renew: async (csrPem) => {
        const current = new X509Certificate(renewer.credentials.certificatePem);
        const { certificatePem } = await authority.renew(current, csrPem);
        return { certificatePem, caPem: authority.trustBundlePem };
      },
    });
    const isCurrent = () =>
      authority.isCurrent(new X509Certificate(renewer.credentials.certificatePem));
    authority.prepareCa(generateCa({ trustDomain: authority.trustDomain, now }));
    await renewer.setTrust(authority.trustBundlePem);
    authority.activateCa();
    expect(isCurrent()).toBe(false);
    await renewer.renewNow();
    expect(isCurrent()).toBe(true);
    authority.retireCa();
    await renewer.setTrust(authority.trustBundlePem);
    await renewer.renewNow();
    expect(renewer.credentials.caPem).toBe(authority.trustBundlePem);
    expect(readCertificates(renewer.credentials.caPem)).toHaveLength(1);
  });
});
