/**
 * Public keys of unauthenticated peers. Some of them make Node end the process, so a failure here aborts the test run.
 */
import crypto, { X509Certificate } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CertificateError } from '../../src/errors.ts';
import { bitString, decode, encode, sequence } from '../../src/pki/der.ts';
import { generateGatewayKey, isRevokedBy } from '../../src/pki/index.ts';
import {
  readPrivateKey,
  readPublicKey,
  signed,
  spkiHashOf,
  spkiHashOfCertificate,
} from '../../src/pki/keys.ts';
import { children } from '../../src/pki/strict-der.ts';
import { newRequest, SITE_A, scene } from './fixtures.ts';

const spki = (type: 'p256' | 'ed25519' | 'rsa'): Buffer =>
  crypto
    .createPublicKey(generateGatewayKey(type).publicKeyPem)
    .export({ type: 'spki', format: 'der' });
const P256 = spki('p256');
const [P256_ALGORITHM] = children(P256) as [Buffer];
const withBits = (bits: Uint8Array, unused = 0): Buffer =>
  encode(sequence(decode(P256_ALGORITHM), bitString(bits, unused)));

/** The same certificate with another key, signed by a key that nobody trusts. */
function withKey(certificate: X509Certificate, key: Buffer): X509Certificate {
  const [tbs] = children(certificate.raw) as [Buffer];
  const fields = children(tbs);
  fields[6] = key;
  const { privateKeyPem } = generateGatewayKey();
  const forged = sequence(...fields.map((field) => decode(field)));
  return new X509Certificate(signed(forged, readPrivateKey(privateKeyPem)));
}

describe('readPublicKey', () => {
  test.each([
    ['at infinity', Buffer.of(0)],
    ['of no bytes', Buffer.alloc(0)],
    ['half of one', Buffer.concat([Buffer.of(4), Buffer.alloc(32, 1)])],
    ['off the curve', Buffer.concat([Buffer.of(4), Buffer.alloc(64, 1)])],
    ['beyond the field', Buffer.concat([Buffer.of(4), Buffer.alloc(64, 0xff)])],
    ['in hybrid form', Buffer.concat([Buffer.of(6), Buffer.alloc(64, 1)])],
  ])('refuses a point %s', (_, point) => {
    for (const unused of [0, 1, 7]) {
      expect(() => readPublicKey(withBits(point, unused))).toThrow(CertificateError);
    }
  });

  test('refuses a curve that is given by its parameters, even if it is P-256', () => {
    const { privateKey } = crypto.generateKeyPairSync('ec', {
      namedCurve: 'P-256',
      paramEncoding: 'explicit',
    });
    const der = crypto.createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
    expect(() => readPublicKey(der)).toThrow(/not accepted, only P-256 by its name/);
  });

  test('returns a key or throws a CertificateError, whatever the bytes', () => {
    const real = [P256, spki('ed25519'), spki('rsa')];
    fc.assert(
      fc.property(
        fc.constantFrom(...real),
        fc.array(fc.tuple(fc.nat(600), fc.nat(255)), { maxLength: 4 }),
        fc.nat(20),
        (key, changes, cut) => {
          const bytes = Buffer.from(key.subarray(0, key.length - (cut > 10 ? cut - 10 : 0)));
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
          try {
            expect(spkiHashOf(readPublicKey(bytes))).toHaveLength(43);
          } catch (error) {
            expect(error).toBeInstanceOf(CertificateError);
          }
        }
      ),
      { numRuns: 5000 }
    );
  });
});

describe('spkiHashOfCertificate', () => {
  test('returns the hash of the key, whatever form it has in the certificate', async () => {
    const { authority } = await scene();
    const { certificatePem } = await authority.issue(newRequest().csrPem, SITE_A);
    const certificate = new X509Certificate(certificatePem);
    expect(spkiHashOfCertificate(certificate)).toBe(spkiHashOf(certificate.publicKey));
    const { x, y } = certificate.publicKey.export({ format: 'jwk' });
    const isOdd = (Buffer.from(y!, 'base64url').at(-1)! & 1) === 1;
    const compressed = Buffer.concat([Buffer.of(isOdd ? 3 : 2), Buffer.from(x!, 'base64url')]);
    expect(spkiHashOfCertificate(withKey(certificate, withBits(compressed)))).toBe(
      spkiHashOfCertificate(certificate)
    );
  });

  test('refuses a key that Node cannot describe, and the certificate counts as revoked', async () => {
    const { authority } = await scene();
    const { certificatePem } = await authority.issue(newRequest().csrPem, SITE_A);
    const certificate = new X509Certificate(certificatePem);
    const infinite = withKey(certificate, withBits(Buffer.of(0)));
    expect(() => spkiHashOfCertificate(infinite)).toThrow(CertificateError);
    const table = {
      sites: new Set<string>(),
      serials: new Set<string>(),
      spkis: new Set<string>(),
    };
    expect(isRevokedBy(table, infinite)).toBe(true);
    expect(isRevokedBy(table, certificate)).toBe(false);
  });
});
