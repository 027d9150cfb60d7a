/**
 * A CA on a memory store with a stopped clock, and openssl as an independent check.
 * @module
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import {
  type CaMaterial,
  CertificateAuthority,
  type CertificateAuthorityOptions,
  createSigningRequest,
  type GatewayIdentity,
  type GenerateCaOptions,
  generateCa,
  generateGatewayKey,
  type KeyType,
  parseToken,
  type Redemption,
} from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { clockOf } from '../support/clock-of.ts';
import { openssl } from '../support/openssl.ts';

export const TRUST_DOMAIN = 'example.org';
export const SITE_A: GatewayIdentity & { role: 'site' } = {
  trustDomain: TRUST_DOMAIN,
  role: 'site',
  site: 'site-a',
};
export const HOUR_MS = 3_600_000;
export const DAY_MS: number = 24 * HOUR_MS;

export interface Scene {
  readonly store: MemoryStore;
  readonly authority: CertificateAuthority;
  /** In ms since 1970. It starts at the real time, because OpenSSL uses that. The monotonic clock advances with it. */
  readonly clock: { ms: number };
}

export async function scene(
  options: Partial<CertificateAuthorityOptions & GenerateCaOptions> = {}
): Promise<Scene> {
  const store = new MemoryStore();
  const clock = { ms: Date.now() };
  const now = () => clock.ms;
  const given = { trustDomain: TRUST_DOMAIN, store, clock: clockOf(now, now), ...options };
  const authority = await CertificateAuthority.open({ ...generateCa(given), ...given });
  return { store, authority, clock };
}

export function materialOf({ certificatePem, privateKeyPem }: CaMaterial): CaMaterial {
  return { certificatePem, privateKeyPem };
}

/** Opens the same CA again, as after a restart of the process. */
export function reload({ authority, store, clock }: Scene): Promise<CertificateAuthority> {
  const { certificatePem, privateKeyPem, trustDomain } = authority;
  const now = () => clock.ms;
  const material = { certificatePem, privateKeyPem, trustDomain };
  return CertificateAuthority.open({ ...material, store, clock: clockOf(now, now) });
}

export function newRequest(type?: KeyType): { privateKeyPem: string; csrPem: string } {
  const { privateKeyPem } = generateGatewayKey(type);
  return { privateKeyPem, csrPem: createSigningRequest(privateKeyPem) };
}

/** The request of a site with this token and a new key. */
export function redemptionOf(tokenText: string, csrPem: string = newRequest().csrPem): Redemption {
  const { id, secret } = parseToken(tokenText);
  return { tokenId: id, secret, csrPem };
}

const ALGORITHMS: Readonly<Record<KeyType, readonly string[]>> = {
  p256: ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  ed25519: ['ed25519'],
  rsa: ['rsa:2048'],
};

/**
 * A root and an intermediate that an operator makes with openssl: with other names and key identifiers than ours,
 * no path lengths and no SPIFFE ID; the intermediate's key is encrypted.
 */
export function operatorCa(
  type: KeyType,
  passphrase: string,
  usage = 'keyCertSign,cRLSign'
): { intermediatePem: string; rootPem: string; privateKeyPem: string; root: CaMaterial } {
  const folder = mkdtempSync(join(tmpdir(), 'pki-'));
  const file = (name: string) => join(folder, name);
  const read = (name: string) => readFileSync(file(name), 'utf8');
  const run = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
  const newKey = ['-newkey', ...ALGORITHMS[type]];
  const extensions = [
    'basicConstraints=critical,CA:TRUE',
    `keyUsage=critical,${usage}`,
    'subjectKeyIdentifier=hash',
    'authorityKeyIdentifier=keyid:always',
  ].join('\n');
  try {
    writeFileSync(
      file('conf'),
      `[req]\ndistinguished_name=dn\nx509_extensions=ca\nutf8=yes\n[dn]\n[ca]\n${extensions}\n`
    );
    writeFileSync(file('ext'), extensions);
    run(
      ...['req', '-x509', ...newKey, '-nodes', '-keyout', file('r.key'), '-out', file('r.pem')],
      ...['-days', '30', '-subj', '/O=Ex\u00e4mple/CN=Root', '-config', file('conf')]
    );
    run(
      ...['req', '-new', ...newKey, '-passout', `pass:${passphrase}`, '-keyout', file('i.key')],
      ...['-out', file('i.csr'), '-subj', '/O=Ex\u00e4mple/CN=Issuing', '-config', file('conf')]
    );
    run(
      ...['x509', '-req', '-in', file('i.csr'), '-days', '20', '-extfile', file('ext')],
      ...['-CA', file('r.pem'), '-CAkey', file('r.key'), '-set_serial', '7', '-out', file('i.pem')]
    );
    const rootPem = read('r.pem');
    return {
      intermediatePem: read('i.pem'),
      rootPem,
      privateKeyPem: read('i.key'),
      root: { certificatePem: rootPem, privateKeyPem: read('r.key') },
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * Runs `openssl verify -x509_strict` on a gateway's certificate with its chain and these anchors; it checks CRLs if
 * there are any. Returns its output.
 */
export function verdictOf(
  certificatePem: string,
  anchorsPem: string,
  crlPem = '',
  all = true
): string {
  const args = ['verify', '-x509_strict', '-CAfile', '@anchors', '-untrusted', '@chain'];
  if (crlPem !== '') args.push('-CRLfile', '@crl', all ? '-crl_check_all' : '-crl_check');
  try {
    openssl([...args, '@chain'], { anchors: anchorsPem, chain: certificatePem, crl: crlPem });
    return 'OK';
  } catch (error) {
    return /error \d+ at .*: (.*)/.exec((error as { stderr: string }).stderr)?.[1] ?? String(error);
  }
}

/** Returns the output of `openssl crl -verify`, which exits with 0 even if it fails. */
export function crlVerdictOf(crlPem: string, caPem: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'pki-'));
  try {
    const [crl, ca] = [join(folder, 'crl'), join(folder, 'ca')];
    writeFileSync(crl, crlPem);
    writeFileSync(ca, caPem);
    const args = ['crl', '-in', crl, '-CAfile', ca, '-verify', '-noout'];
    return spawnSync('openssl', args, { encoding: 'utf8' }).stderr.trim();
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Returns the PEM blocks in a text. */
export function pemTexts(pem: string): string[] {
  return pem.split(/(?<=-----END [^-]+-----\n)/);
}

/** One end of a handshake: its key, its certificate with chain, and its trust anchors. */
export interface End {
  readonly key: string;
  readonly cert: string;
  readonly ca: string;
  readonly crl?: string[];
}

/** Makes a real handshake in which both sides verify. @returns `OK`, or the code of OpenSSL's error. */
export async function handshake(serverEnd: End, clientEnd: End): Promise<string> {
  const server = tls.createServer({
    ...serverEnd,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = tls.connect({
    ...clientEnd,
    host: '127.0.0.1',
    port,
    checkServerIdentity: () => undefined,
  });
  try {
    return await new Promise<string>((resolve) => {
      // The client knows that it is accepted only when the server sends something.
      server.on('secureConnection', (socket) => {
        socket.on('error', () => {});
        socket.write('OK');
      });
      client.on('data', (data) => resolve(data.toString()));
      client.on('error', (error: NodeJS.ErrnoException) => {
        if (client.authorizationError) resolve(String(client.authorizationError));
        else if (error.code?.startsWith('ERR_SSL') !== true) resolve(String(error.code));
      });
      server.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
        if (socket.authorizationError) resolve(String(socket.authorizationError));
        else if (!/ALERT/i.test(error.message)) resolve(String(error.code));
      });
    });
  } finally {
    client.destroy();
    server.close();
  }
}
