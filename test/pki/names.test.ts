import type { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  formatIdentity,
  type GatewayIdentity,
  identityOfCertificate,
  parseIdentity,
} from '../../src/pki/index.ts';
import { newRequest, SITE_A, scene } from './fixtures.ts';

const IDENTITIES: readonly [string, GatewayIdentity][] = [
  ['spiffe://example.org/cloud', { trustDomain: 'example.org', role: 'cloud' }],
  ['spiffe://example.org/site/a', { trustDomain: 'example.org', role: 'site', site: 'a' }],
  ['spiffe://x/site/edge-07', { trustDomain: 'x', role: 'site', site: 'edge-07' }],
];

const NOT_IDENTITIES: readonly string[] = [
  '',
  'spiffe://example.org',
  'spiffe://example.org/',
  'spiffe://example.org/cloud/',
  'spiffe://example.org/cloud?x',
  'spiffe://example.org/cloud\n',
  'spiffe://example.org/site/',
  'spiffe://example.org/site/a/b',
  'spiffe://example.org/site/-a',
  'spiffe://example.org/site/a-',
  'spiffe://example.org/site/A',
  'spiffe://example.org/site/a%2fb',
  `spiffe://example.org/site/${'a'.repeat(64)}`,
  'spiffe://Example.org/cloud',
  'spiffe://example..org/cloud',
  'spiffe://user@example.org/cloud',
  'spiffe://example.org:1/cloud',
  'SPIFFE://example.org/cloud',
  'https://example.org/cloud',
  `spiffe://${'a.'.repeat(150)}a/cloud`,
  `spiffe://example.org/${'x'.repeat(100_000)}`,
];

describe('identity', () => {
  test.each(IDENTITIES)('writes %s and reads it back', (uri, identity) => {
    expect(formatIdentity(identity)).toBe(uri);
    expect(parseIdentity(uri)).toEqual(identity);
  });

  test.each(NOT_IDENTITIES.map((uri) => [uri.slice(0, 60), uri]))('refuses %j', (_, uri) => {
    expect(() => parseIdentity(uri)).toThrow(
      expect.objectContaining({ code: 'ERR_PRESENCE_CERTIFICATE' })
    );
  });

  test('refuses to write a site id with characters that are special in a URI', () => {
    expect(() => formatIdentity({ ...SITE_A, site: 'a, URI:spiffe://example.org/cloud' })).toThrow(
      'is not a site id'
    );
  });
});

describe('identityOfCertificate', () => {
  const withNames = (subjectAltName: string | undefined, ca = false) =>
    identityOfCertificate({ subjectAltName, ca } as X509Certificate);

  test('reads the only URI of a certificate', async () => {
    const { authority } = await scene();
    const { X509Certificate } = await import('node:crypto');
    const { certificatePem } = await authority.issue(newRequest().csrPem, SITE_A);
    expect(identityOfCertificate(new X509Certificate(certificatePem))).toEqual(SITE_A);
    expect(() => identityOfCertificate(new X509Certificate(authority.certificatePem))).toThrow(
      'a CA certificate is not a gateway'
    );
  });

  test.each([
    undefined,
    '',
    'DNS:example.org',
    'URI:spiffe://example.org/cloud, URI:spiffe://example.org/site/a',
    'URI:spiffe://example.org/cloud, DNS:example.org',
    'DNS:example.org, URI:spiffe://example.org/cloud',
    // One URI with a comma, as old and new versions of Node print it.
    'URI:spiffe://evil.example/, URI:spiffe://example.org/cloud',
    'URI:"spiffe://evil.example/, URI:spiffe://example.org/cloud"',
    'URI:"spiffe://example.org/cloud"',
    'URI:spiffe://example.org/cloud\u0000.evil.example',
    'IP Address:192.0.2.1',
  ])('refuses the subject alternative name %j', (names) => {
    expect(() => withNames(names)).toThrow(
      expect.objectContaining({ code: 'ERR_PRESENCE_CERTIFICATE' })
    );
  });
});
