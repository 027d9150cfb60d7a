import crypto from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PresenceError } from '../../src/errors.ts';
import { createSigningRequest, generateGatewayKey, type KeyType } from '../../src/pki/index.ts';
import { verifySigningRequest } from '../../src/pki/signing-request.ts';
import { hasOpenssl, openssl } from '../support/openssl.ts';
import { newRequest } from './fixtures.ts';

const { csrPem } = newRequest();
const der = decode(csrPem);

function decode(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----.*-----|\n/g, ''), 'base64');
}

function encode(bytes: Uint8Array): string {
  const body = Buffer.from(bytes).toString('base64');
  return `-----BEGIN CERTIFICATE REQUEST-----\n${body}\n-----END CERTIFICATE REQUEST-----\n`;
}

function flipped(at: number): Buffer {
  const bytes = Buffer.from(der);
  bytes[at]! ^= 1;
  return bytes;
}

/** Runs `openssl req` for a new key. */
function opensslRequest(...args: readonly string[]): string {
  const made = openssl([
    ...['req', '-new', '-nodes', '-subj', '/CN=spiffe:', '-keyout', '/dev/null'],
    ...args,
  ]);
  return made.slice(made.indexOf('-----BEGIN CERTIFICATE REQUEST'));
}

const refusal = expect.objectContaining({ code: 'ERR_PRESENCE_CERTIFICATE' });

describe('verifySigningRequest', () => {
  test.each<KeyType>(['p256', 'ed25519', 'rsa'])(
    'returns the public key of a %s request',
    (type) => {
      const { privateKeyPem, publicKeyPem } = generateGatewayKey(type);
      const key = verifySigningRequest(createSigningRequest(privateKeyPem));
      expect(key.export({ type: 'spki', format: 'pem' })).toBe(publicKeyPem);
    }
  );

  test('accepts CRLF line ends', () => {
    expect(() => verifySigningRequest(csrPem.replaceAll('\n', '\r\n'))).not.toThrow();
  });

  test('refuses a request that is truncated, at every length', () => {
    for (let length = 0; length < der.length; length++) {
      expect(() => verifySigningRequest(encode(der.subarray(0, length)))).toThrow(refusal);
    }
  });

  test('refuses a request with any one bit flipped', () => {
    for (let at = 0; at < der.length; at++) {
      expect(() => verifySigningRequest(encode(flipped(at))), `byte ${at}`).toThrow(refusal);
    }
  });

  test.each<[string, string, string]>([
    ['bytes after the DER', encode(Buffer.concat([der, Buffer.of(0)])), 'trailing bytes'],
    ['text after the PEM', `${csrPem}x`, 'not PEM'],
    ['two requests', csrPem + csrPem, 'not PEM'],
    ['text before the PEM', `x${csrPem}`, 'not PEM'],
    ['nothing', '', 'not PEM'],
    ['another armour', csrPem.replaceAll('CERTIFICATE REQUEST', 'CERTIFICATE'), 'not PEM'],
    [
      'base64 with padding inside',
      csrPem.replace('REQUEST-----\n', 'REQUEST-----\nAA=='),
      'not PEM',
    ],
    ['17 KiB', encode(Buffer.alloc(13_000)), 'more than 16384'],
    ['16 MiB', encode(Buffer.alloc(12_000_000)), 'more than 16384'],
    ['an indefinite length', encode(Buffer.from('308000000000', 'hex')), 'indefinite'],
    ['a length of four bytes', encode(Buffer.from('308400000001', 'hex')), 'too long'],
    ['a length not in shortest form', encode(Buffer.from('30810100', 'hex')), 'shortest form'],
    ['a length with a leading zero', encode(Buffer.from('30820001ff', 'hex')), 'shortest form'],
    ['a high tag', encode(Buffer.from('3f010100', 'hex')), 'tag too high'],
    ['a primitive at the root', encode(Buffer.from('0400', 'hex')), 'unexpected tag'],
    ['an empty sequence', encode(Buffer.from('3000', 'hex')), 'malformed'],
    ['4,000 nested sequences', encode(nested(4000)), 'malformed'],
  ])('refuses %s', (_, pem, message) => {
    expect(() => verifySigningRequest(pem)).toThrow(refusal);
    expect(() => verifySigningRequest(pem)).toThrow(message);
  });

  test('refuses a public key that another key has signed for', () => {
    const other = decode(newRequest().csrPem);
    // Both have the same length up to the signature, so the key can be swapped in place.
    const spliced = Buffer.from(der);
    const point = der.indexOf(Buffer.from('034200', 'hex'));
    other.copy(spliced, point, other.indexOf(Buffer.from('034200', 'hex')), point + 68);
    expect(() => verifySigningRequest(encode(spliced))).toThrow('not signed by its own key');
  });

  test('throws only typed errors for 2,000 mutations of the bytes', () => {
    const mutation = fc.array(
      fc.record({
        at: fc.nat(der.length - 1),
        remove: fc.nat(4),
        insert: fc.uint8Array({ maxLength: 4 }),
      }),
      { minLength: 1, maxLength: 6 }
    );
    fc.assert(
      fc.property(mutation, (edits) => {
        let bytes: Buffer = der;
        for (const { at, remove, insert } of edits) {
          bytes = Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at + remove)]);
        }
        try {
          verifySigningRequest(encode(bytes));
          return bytes.equals(der);
        } catch (error) {
          return error instanceof PresenceError;
        }
      }),
      { numRuns: 2000, seed: 7 }
    );
  });
});

describe.skipIf(!hasOpenssl)('verifySigningRequest of openssl requests (needs openssl)', () => {
  const p256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];

  test.each([
    ['P-256', p256],
    ['Ed25519', ['-newkey', 'ed25519']],
    ['RSA 2048', ['-newkey', 'rsa:2048']],
    ['names and extensions', [...p256, '-addext', 'subjectAltName=URI:spiffe://example.org/cloud']],
  ])('accepts %s', (_, args) => {
    expect(() => verifySigningRequest(opensslRequest(...args))).not.toThrow();
  });

  test.each([
    ['P-384', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'], 'not accepted'],
    ['secp256k1', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:secp256k1'], 'not accepted'],
    ['Ed448', ['-newkey', 'ed448'], 'not accepted'],
    ['RSA 1024', ['-newkey', 'rsa:1024'], '1024 bits'],
    ['RSA 4224', ['-newkey', 'rsa:4224'], '4224 bits'],
    ['RSA-PSS', ['-newkey', 'rsa-pss'], 'not accepted'],
    [
      'RSA with exponent 3',
      ['-newkey', 'rsa:2048', '-pkeyopt', 'rsa_keygen_pubexp:3'],
      'exponent 3',
    ],
    ['a SHA-1 signature by P-256', [...p256, '-sha1'], 'not signed'],
    ['a SHA-1 signature by RSA', ['-newkey', 'rsa:2048', '-sha1'], 'not signed'],
  ])('refuses %s', (_, args, message) => {
    const pem = opensslRequest(...args);
    expect(() => verifySigningRequest(pem)).toThrow(refusal);
    expect(() => verifySigningRequest(pem)).toThrow(message);
  });

  test('returns the same key for a compressed point as for an uncompressed one', () => {
    const key = openssl(['ecparam', '-genkey', '-noout', '-name', 'prime256v1']);
    const compressed = openssl(['ec', '-in', '@key.pem', '-conv_form', 'compressed'], {
      'key.pem': key,
    });
    const request = openssl(['req', '-new', '-subj', '/CN=x', '-key', '@key.pem'], {
      'key.pem': compressed,
    });
    const plain = crypto.createPublicKey(key).export({ format: 'jwk' });
    const found = verifySigningRequest(request);
    expect(found.export({ type: 'spki', format: 'der' })).toEqual(
      crypto.createPublicKey({ key: plain, format: 'jwk' }).export({ type: 'spki', format: 'der' })
    );
  });
});

describe('createSigningRequest', () => {
  test.each([
    ['no key', 'x', 'cannot be read'],
    ['a P-384 key', pkcs8('P-384'), 'only P-256'],
  ])('refuses %s', (_, pem, message) => {
    expect(() => createSigningRequest(pem)).toThrow(refusal);
    expect(() => createSigningRequest(pem)).toThrow(message);
  });
});

function pkcs8(namedCurve: string): string {
  const { privateKey } = crypto.generateKeyPairSync('ec', { namedCurve });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
}

function nested(depth: number): Buffer {
  let bytes: Buffer = Buffer.from('3000', 'hex');
  while (bytes.length < 2 * depth) {
    const length = bytes.length;
    const header = length < 128 ? [0x30, length] : [0x30, 0x82, length >> 8, length & 255];
    if (length >= 128 && length < 256) header.splice(1, 3, 0x81, length);
    bytes = Buffer.concat([Buffer.from(header), bytes]);
  }
  return bytes;
}
