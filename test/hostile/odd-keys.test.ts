/**
 * Public keys that OpenSSL reads although they are invalid: Node 20 and 22 abort when a program reads the type of such
 * a key, which `catch` does not prevent. An unauthenticated peer can send one in a signing request, and a man in the
 * middle in the chain of an enrolment server.
 */
import { spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { createServer } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { createSigningRequest, generateCa, generateGatewayKey } from '../../src/pki/index.ts';
import { formatToken, randomSecret, randomTokenId } from '../../src/pki/token.ts';
import { CLOUD, TestCa } from '../support/certificates.ts';
import { pemOf, replaced } from './fuzz-requests.ts';

/** id-ecPublicKey on P-256 (RFC 5480 section 2.1.1). */
const P256 = Buffer.from('301306072a8648ce3d020106082a8648ce3d030107', 'hex');

/** Returns a SubjectPublicKeyInfo with this point. */
function spkiOf(point: Buffer, unusedBits = 0): Buffer {
  const bits = Buffer.concat([Buffer.from([0x03, point.length + 1, unusedBits]), point]);
  return Buffer.concat([Buffer.from([0x30, P256.length + bits.length]), P256, bits]);
}

const ODD_KEYS: readonly (readonly [string, Buffer])[] = [
  ['the point at infinity', spkiOf(Buffer.from([0]))],
  ['the point at infinity, of two bits', spkiOf(Buffer.from([0]), 6)],
  ['no point', spkiOf(Buffer.alloc(0))],
  ['a point that is not on the curve', spkiOf(Buffer.from([4, ...Buffer.alloc(64, 1)]))],
  ['a point of half its length', spkiOf(Buffer.from([4, ...Buffer.alloc(32, 1)]))],
  ['a compressed point that does not exist', spkiOf(Buffer.from([2, ...Buffer.alloc(32, 0xff)]))],
];

/** Returns the output of the child, or the signal that has ended it. */
async function outcomeOf(...args: string[]): Promise<string> {
  const child = spawn(process.execPath, ['--import', 'tsx', CHILD, ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [said, [, signal]] = await Promise.all([text(child.stdout), once(child, 'close')]);
  return signal ?? said.trim();
}

function keyIn(pem: string): Buffer {
  return new X509Certificate(pem).publicKey.export({ type: 'spki', format: 'der' });
}

describe('a key that is', () => {
  test.concurrent.each(ODD_KEYS)('%s is refused in a signing request', async (_, spki) => {
    const { privateKeyPem, publicKeyPem } = generateGatewayKey();
    const own = derOf(publicKeyPem);
    const request = derOf(createSigningRequest(privateKeyPem));
    const pem = pemOf(replaced(request, own, spki));
    expect(await outcomeOf('request', pem)).toBe('ERR_PRESENCE_CERTIFICATE');
  });

  // OpenSSL cannot read the other keys at all, so no server can send them.
  test.concurrent.each(ODD_KEYS.slice(0, 2))(
    '%s is skipped in the chain of an enrolment server',
    async (_, spki) => {
      const ca = await TestCa.create();
      const { key, cert } = await ca.issue(CLOUD);
      const root = generateCa({ trustDomain: 'example.org' }).certificatePem;
      const odd = replaced(new X509Certificate(root).raw, keyIn(root), spki);
      const chain = `${cert}\n${pemOf(odd, 'CERTIFICATE')}`;
      const server = createServer({ key: String(key), cert: chain, minVersion: 'TLSv1.3' });
      server.on('tlsClientError', () => {});
      await once(server.listen(0, '127.0.0.1'), 'listening');
      try {
        const { port } = server.address() as AddressInfo;
        const token = formatToken({
          endpoints: [`https://127.0.0.1:${port}`],
          caSpkiHash: ca.authority.spkiHash,
          trustDomain: 'example.org',
          site: 'site-a',
          id: randomTokenId(),
          secret: randomSecret(),
        });
        expect(await outcomeOf('enrol', token)).toBe('ERR_PRESENCE_ENROLMENT_WRONG_CA');
      } finally {
        server.close();
      }
    }
  );
});

function derOf(pem: string): Buffer {
  return Buffer.from(pem.split(/-----[^-]+-----/)[1]!, 'base64');
}

const CHILD = fileURLToPath(new URL('./odd-key-child.ts', import.meta.url));
