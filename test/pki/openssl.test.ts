/**
 * OpenSSL, as an independent implementation, reads and accepts what this module encodes: with its own command and in
 * handshakes of node:tls.
 * @module
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import tls, { type TLSSocket } from 'node:tls';
import { describe, expect, test } from 'vitest';
import { CertificateAuthority, identityOfCertificate, type KeyType } from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { CLOUD } from '../support/certificates.ts';
import { hasOpenssl, openssl } from '../support/openssl.ts';
import { DAY_MS, newRequest, SITE_A, scene } from './fixtures.ts';

const KEY_TYPES: readonly KeyType[] = ['p256', 'ed25519', 'rsa'];
const VERIFY = [
  'verify',
  '-x509_strict',
  '-crl_check',
  '-CAfile',
  '@ca.pem',
  '-CRLfile',
  '@crl.pem',
];

describe.skipIf(!hasOpenssl)('openssl (skipped where the openssl command is missing)', () => {
  test.each(KEY_TYPES)('verifies a signing request of a %s key', (type) => {
    const { csrPem } = newRequest(type);
    expect(() =>
      openssl(['req', '-verify', '-noout', '-in', '@csr.pem'], { 'csr.pem': csrPem })
    ).not.toThrow();
  });

  test.each(KEY_TYPES)(
    'accepts the chain and the CRL of a %s CA in strict mode',
    async (keyType) => {
      const { authority } = await scene({ keyType });
      const site = await authority.issue(newRequest('p256').csrPem, SITE_A);
      const cloud = await authority.issue(newRequest(keyType).csrPem, CLOUD);
      const files = {
        'ca.pem': authority.certificatePem,
        'crl.pem': authority.crlPem(),
        'site.pem': site.certificatePem,
        'cloud.pem': cloud.certificatePem,
      };
      expect(openssl([...VERIFY, '-purpose', 'sslclient', '@site.pem'], files)).toContain('OK');
      expect(openssl([...VERIFY, '-purpose', 'sslserver', '@cloud.pem'], files)).toContain('OK');
    }
  );

  test('refuses a revoked certificate with our CRL, and still accepts the others', async () => {
    const { authority } = await scene();
    const lost = await authority.issue(newRequest().csrPem, SITE_A);
    const kept = await authority.issue(newRequest().csrPem, SITE_A);
    await authority.revoke({ serial: lost.serial }, 'keyCompromise');
    const files = {
      'ca.pem': authority.certificatePem,
      'crl.pem': authority.crlPem(),
      'lost.pem': lost.certificatePem,
      'kept.pem': kept.certificatePem,
    };
    expect(() => openssl([...VERIFY, '@lost.pem'], files)).toThrow('certificate revoked');
    expect(openssl([...VERIFY, '@kept.pem'], files)).toContain('OK');
  });

  test('reads the CRL: version 2, number, reason, serial, seven days', async () => {
    const { authority } = await scene();
    const { serial } = await authority.issue(newRequest().csrPem, SITE_A);
    await authority.revoke({ serial }, 'superseded');
    const files = { 'crl.pem': authority.crlPem(), 'ca.pem': authority.certificatePem };
    const text = openssl(
      ['crl', '-text', '-noout', '-in', '@crl.pem', '-CAfile', '@ca.pem'],
      files
    );
    expect(text).toContain('Version 2');
    expect(text).toContain(`Serial Number: ${serial.toUpperCase()}`);
    expect(text).toContain('Superseded');
    expect(text).toContain('X509v3 Authority Key Identifier');
    const number = (pem: string) =>
      BigInt(
        openssl(['crl', '-crlnumber', '-noout', '-in', '@crl.pem'], { 'crl.pem': pem })
          .trim()
          .replace('crlNumber=', '')
      );
    expect(number(authority.crlPem())).toBeGreaterThan(number(files['crl.pem']));
  });

  test('prints the extensions that RFC 5280 requires of an end entity, critical where required', async () => {
    const { authority } = await scene();
    const { certificatePem } = await authority.issue(newRequest().csrPem, SITE_A);
    const text = openssl(['x509', '-text', '-noout', '-in', '@c.pem'], { 'c.pem': certificatePem });
    expect(text).toContain('Version: 3');
    expect(text).toMatch(/Basic Constraints: critical\s+CA:FALSE/);
    expect(text).toMatch(/Key Usage: critical\s+Digital Signature\n/);
    expect(text).toContain('TLS Web Server Authentication, TLS Web Client Authentication');
    expect(text).toMatch(
      /Subject Alternative Name: \n\s+URI:spiffe:\/\/example.org\/site\/site-a\n/
    );
    const root = openssl(['x509', '-text', '-noout', '-in', '@c.pem'], {
      'c.pem': authority.certificatePem,
    });
    expect(root).toMatch(/Basic Constraints: critical\s+CA:TRUE, pathlen:0/);
    expect(root).toMatch(/Key Usage: critical\s+Certificate Sign, CRL Sign\n/);
  });

  test('accepts a root that is valid after 2049, when times have another type', async () => {
    const { authority } = await scene({ rootLifetimeMs: 40 * 366 * DAY_MS });
    const { certificatePem, notAfter } = await authority.issue(newRequest().csrPem, SITE_A, {
      lifetimeMs: 30 * 366 * DAY_MS,
    });
    const files = {
      'ca.pem': authority.certificatePem,
      'crl.pem': authority.crlPem(),
      'c.pem': certificatePem,
    };
    expect(notAfter.getUTCFullYear()).toBeGreaterThan(2050);
    expect(openssl([...VERIFY, '@c.pem'], files)).toContain('OK');
  });

  test('accepts certificates of a CA that openssl made, with its own name and key identifier', async () => {
    const folder = openssl([
      ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '30', '-keyout', '-'],
      ...[
        '-subj',
        '/C=XX/O=Ex\u00e4mple/CN=Root',
        '-utf8',
        '-addext',
        'keyUsage=keyCertSign,cRLSign',
      ],
    ]);
    const authority = await CertificateAuthority.open({
      certificatePem: folder.slice(folder.indexOf('-----BEGIN CERTIFICATE')),
      privateKeyPem: folder.slice(0, folder.indexOf('-----BEGIN CERTIFICATE')),
      trustDomain: 'example.org',
      store: new MemoryStore(),
    });
    const files = {
      'ca.pem': authority.certificatePem,
      'crl.pem': authority.crlPem(),
      'c.pem': (await authority.issue(newRequest().csrPem, SITE_A)).certificatePem,
    };
    expect(openssl([...VERIFY, '@c.pem'], files)).toContain('OK');
  });
});

describe('node:tls', () => {
  test.each(KEY_TYPES)('completes a handshake with %s certificates on both sides', async (type) => {
    const { authority } = await scene();
    const ends = [];
    for (const identity of [CLOUD, SITE_A]) {
      const { privateKeyPem: key, csrPem } = newRequest(type);
      const { certificatePem: cert } = await authority.issue(csrPem, identity);
      ends.push({
        key,
        cert,
        ca: authority.certificatePem,
        crl: authority.crlPem(),
        minVersion: 'TLSv1.3' as const,
      });
    }
    const server = tls.createServer({ ...ends[0], requestCert: true, rejectUnauthorized: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const accepted = once(server, 'secureConnection') as Promise<[TLSSocket]>;
    const client = tls.connect({
      ...ends[1],
      host: '127.0.0.1',
      port: (server.address() as AddressInfo).port,
      checkServerIdentity: () => undefined,
    });
    const connected = once(client, 'secureConnect');
    const [peer] = await accepted;
    expect(peer.authorized).toBe(true);
    expect(identityOfCertificate(peer.getPeerX509Certificate()!)).toEqual(SITE_A);
    await connected;
    expect(client.authorized).toBe(true);
    expect(identityOfCertificate(client.getPeerX509Certificate()!)).toEqual(CLOUD);
    client.destroy();
    peer.destroy();
    server.close();
  });
});
