/**
 * Encrypted private keys: how many iterations a guess costs, and which programs can read the file.
 */
import crypto from 'node:crypto';
import forge from 'node-forge';
import { describe, expect, test } from 'vitest';
import { ApiMisuseError, CertificateError } from '../../src/errors.ts';
import {
  CertificateAuthority,
  encryptPrivateKey,
  generateGatewayKey,
  type KeyType,
} from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { hasOpenssl, openssl } from '../support/openssl.ts';
import { scene, TRUST_DOMAIN } from './fixtures.ts';

const PASSPHRASE = 'correct horse, größer';

/** Encrypts a key as Node itself does: PBKDF2 with 2,048 iterations. */
function encryptedByNode(privateKeyPem: string, passphrase: string = PASSPHRASE): string {
  const options = { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase } as const;
  return crypto.createPrivateKey(privateKeyPem).export(options) as string;
}

const publicKeyOf = (pem: string, passphrase: string = PASSPHRASE): unknown =>
  crypto.createPublicKey({ key: pem, passphrase } as never).export({ type: 'spki', format: 'pem' });

describe('encryptPrivateKey', () => {
  test.runIf(hasOpenssl).each<KeyType>(['p256', 'ed25519', 'rsa'])(
    'encrypts a %s key with 600,000 iterations of HMAC-SHA-256, and openssl reads it',
    async (type) => {
      const { privateKeyPem, publicKeyPem } = generateGatewayKey(type);
      const encrypted = await encryptPrivateKey(privateKeyPem, PASSPHRASE);
      const structure = openssl(['asn1parse', '-in', '@key'], { key: encrypted });
      expect(structure).toMatch(/:PBES2\n/);
      expect(structure).toMatch(/:PBKDF2\n/);
      // 600,000 in hexadecimal.
      expect(structure).toMatch(/INTEGER +:0927C0\n/);
      expect(structure).toMatch(/:hmacWithSHA256\n/);
      expect(structure).toMatch(/:aes-256-cbc\n/);
      const pass = ['-passin', `pass:${PASSPHRASE}`];
      const files = { key: encrypted };
      expect(openssl(['pkey', '-in', '@key', ...pass, '-pubout'], files)).toBe(publicKeyPem);
      const plain = openssl(['pkcs8', '-in', '@key', ...pass], files);
      expect(plain).toBe(privateKeyPem);
      expect(publicKeyOf(encrypted)).toBe(publicKeyPem);
    }
  );

  test('leaves the event loop free while it works', async () => {
    const { privateKeyPem } = generateGatewayKey();
    let hasTurned = false;
    setImmediate(() => {
      hasTurned = true;
    });
    await encryptPrivateKey(privateKeyPem, PASSPHRASE);
    expect(hasTurned).toBe(true);
  });

  test('encrypts a key with fewer iterations again, and returns one with enough unchanged', async () => {
    const { privateKeyPem, publicKeyPem } = generateGatewayKey();
    const old = encryptedByNode(privateKeyPem);
    const once = await encryptPrivateKey(old, PASSPHRASE);
    expect(once).not.toBe(old);
    expect(publicKeyOf(once)).toBe(publicKeyPem);
    expect(await encryptPrivateKey(once, PASSPHRASE)).toBe(once);
  });

  test.runIf(hasOpenssl)('accepts keys that openssl has encrypted in other ways', async () => {
    const { privateKeyPem, publicKeyPem } = generateGatewayKey();
    const pass = ['-passout', `pass:${PASSPHRASE}`];
    for (const how of [
      ['pkcs8', '-topk8', '-v2', 'aes-128-cbc', '-v2prf', 'hmacWithSHA512'],
      ['pkcs8', '-topk8', '-scrypt'],
      ['ec', '-aes256'],
    ]) {
      const theirs = openssl([...how, '-in', '@key', ...pass], { key: privateKeyPem });
      const ours = await encryptPrivateKey(theirs, PASSPHRASE);
      expect(ours, how.join(' ')).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
      expect(publicKeyOf(ours)).toBe(publicKeyPem);
    }
  });

  test('accepts a key that node-forge has encrypted, whose parameters include the key length', async () => {
    const { privateKeyPem, publicKeyPem } = generateGatewayKey();
    const der = crypto.createPrivateKey(privateKeyPem).export({ type: 'pkcs8', format: 'der' });
    const info = forge.pki.encryptPrivateKeyInfo(
      forge.asn1.fromDer(der.toString('latin1')),
      Buffer.from(PASSPHRASE).toString('latin1'),
      { algorithm: 'aes256', count: 1000, prfAlgorithm: 'sha256' }
    );
    const theirs = forge.pki.encryptedPrivateKeyToPem(info);
    const ours = await encryptPrivateKey(theirs, PASSPHRASE);
    expect(ours).not.toBe(theirs);
    expect(publicKeyOf(ours)).toBe(publicKeyPem);
  });

  test('draws a new salt and initialization vector each time', async () => {
    const { privateKeyPem } = generateGatewayKey();
    const twice = await Promise.all([1, 2].map(() => encryptPrivateKey(privateKeyPem, PASSPHRASE)));
    expect(twice[0]).not.toBe(twice[1]);
  });

  test('refuses a wrong passphrase, a damaged text, and a text that is not a key', async () => {
    const { privateKeyPem } = generateGatewayKey();
    const encrypted = await encryptPrivateKey(privateKeyPem, PASSPHRASE);
    const lines = encrypted.split('\n');
    const damaged = [lines[0], lines[2], ...lines.slice(3)].join('\n');
    for (const [pem, passphrase] of [
      [encrypted, 'wrong'],
      [encryptedByNode(privateKeyPem), 'wrong'],
      [damaged, PASSPHRASE],
      ['no key', PASSPHRASE],
    ] as const) {
      await expect(encryptPrivateKey(pem, passphrase)).rejects.toThrow(CertificateError);
    }
  });

  test('refuses an empty passphrase, and one that is too long for OpenSSL', async () => {
    const { privateKeyPem, publicKeyPem } = generateGatewayKey();
    for (const passphrase of ['', 'x'.repeat(1024), 'ß'.repeat(512)]) {
      await expect(encryptPrivateKey(privateKeyPem, passphrase)).rejects.toThrow(ApiMisuseError);
    }
    const longest = `x${'ß'.repeat(511)}`;
    const encrypted = await encryptPrivateKey(privateKeyPem, longest);
    expect(publicKeyOf(encrypted, longest)).toEqual(publicKeyOf(privateKeyPem, ''));
    if (!hasOpenssl) return;
    const printed = openssl(['pkey', '-in', '@key', '-passin', 'file:@passphrase', '-pubout'], {
      key: encrypted,
      passphrase: longest,
    });
    expect(printed).toBe(publicKeyPem);
  });
});

describe('CertificateAuthority', () => {
  test('opens a key of this version and of an earlier one, but not with a wrong passphrase', async () => {
    const { authority } = await scene();
    const { certificatePem, privateKeyPem } = authority;
    const common = { certificatePem, trustDomain: TRUST_DOMAIN, store: new MemoryStore() };
    for (const key of [
      await authority.encryptedPrivateKeyPem(PASSPHRASE),
      encryptedByNode(privateKeyPem),
    ]) {
      const options = { ...common, privateKeyPem: key };
      const again = await CertificateAuthority.open({ ...options, passphrase: PASSPHRASE });
      expect(again.spkiHash).toBe(authority.spkiHash);
      for (const wrong of [{}, { passphrase: 'wrong' }]) {
        const loading = CertificateAuthority.open({ ...options, ...wrong });
        await expect(loading).rejects.toThrow(CertificateError);
      }
    }
  });
});
