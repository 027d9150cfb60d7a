/**
 * The life of certificates, with the gateways as programs: CAs of every kind, renewal, expiry, revocation by serial
 * number and key, the CRL, the audit log.
 */
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { verifyAuditLog } from '../../src/audit/index.ts';
import {
  createSigningRequest,
  formatIdentity,
  generateCa,
  generateGatewayKey,
} from '../../src/pki/index.ts';
import { clockOf } from '../support/clock-of.ts';
import {
  admin,
  type Config,
  cloudConfig,
  edgeConfig,
  eventually,
  GatewayProcess,
  killGateways,
  startCloud,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { Relay } from '../support/relay.ts';

const workspace = new Workspace();
const relays: Relay[] = [];
afterEach(async () => {
  await killGateways();
  for (const relay of relays.splice(0)) relay.close();
});
afterAll(() => workspace.remove());

/** A cloud gateway, and what is needed to start edges for it. */
class Cloud {
  readonly home: string = workspace.newDirectory();
  process!: GatewayProcess;
  tunnelPort!: number;
  /** Where edges dial, also after a restart. */
  relay!: Relay;

  async start(more: Config = {}): Promise<void> {
    if (this.relay === undefined) {
      this.relay = await Relay.open();
      relays.push(this.relay);
    }
    const path = writeConfig(this.home, { ...cloudConfig(), ...more });
    ({ process: this.process, tunnelPort: this.tunnelPort } = await startCloud(path));
    this.relay.target = this.tunnelPort;
  }

  async callAdmin<T>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await admin(join(this.home, 'admin.sock'), method, path, body);
    if (answer.status !== 200) throw new Error(`${method} ${path}: ${answer.body.message}`);
    return answer.body as T;
  }

  pem(path: string): Promise<string> {
    const socketPath = join(this.home, 'admin.sock');
    return new Promise((resolve, reject) => {
      const outgoing = request({ socketPath, path }, (answer) => resolve(text(answer)));
      outgoing.on('error', reject).end();
    });
  }

  file(name: string): string {
    return join(this.home, 'state', name);
  }

  async token(site: string): Promise<string> {
    return (await this.callAdmin<{ token: string }>('POST', '/v1/tokens', { site })).token;
  }

  /** Returns the status of a site's certificate. */
  async certificate(site: string): Promise<{ serial: string; isCurrent: boolean } | undefined> {
    const { sites } = await this.callAdmin<{
      sites: { name: string; edge?: { certificate: { serial: string; isCurrent: boolean } } }[];
    }>('GET', '/v1/status');
    return sites.find(({ name }) => name === site)?.edge?.certificate;
  }
}

class Edge {
  readonly home: string = workspace.newDirectory();
  process!: GatewayProcess;

  prepare(cloud: Cloud, token: string): void {
    writeConfig(this.home, edgeConfig(cloud.relay.port));
    this.putToken(token);
  }

  putToken(token: string): void {
    writeFileSync(join(this.home, 'token'), token);
  }

  start(): void {
    this.process = new GatewayProcess('edge', [join(this.home, 'gateway.yaml')]);
  }

  get certificate(): X509Certificate {
    return new X509Certificate(readFileSync(join(this.home, 'state/certificate.pem')));
  }
}

async function edgeOf(cloud: Cloud, site: string): Promise<Edge> {
  const edge = new Edge();
  edge.prepare(cloud, await cloud.token(site));
  edge.start();
  await edge.process.logged(/: up to /);
  return edge;
}

function openssl(args: readonly string[], input = ''): string {
  return execFileSync('openssl', args, { input, encoding: 'utf8', stdio: 'pipe' });
}

describe('the CA', () => {
  test('is stored under its passphrase, below a root whose key may be removed, and survives a restart', async () => {
    const cloud = new Cloud();
    writeFileSync(join(cloud.home, 'passphrase'), 'correct horse\n', { mode: 0o600 });
    const trust = { keyType: 'ed25519', intermediate: true, passphraseFile: './passphrase' };
    await cloud.start({ trust });
    for (const name of ['ca-key.pem', 'root-key.pem']) {
      expect(statSync(cloud.file(name)).mode & 0o777).toBe(0o600);
      expect(readFileSync(cloud.file(name), 'utf8')).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY/);
      const pass = ['-passin', 'pass:correct horse'];
      const description = openssl([
        'pkey',
        '-in',
        cloud.file(name),
        ...pass,
        '-noout',
        '-text_pub',
      ]);
      expect(description).toMatch(/ED25519/i);
    }
    const edge = await edgeOf(cloud, 'site-a');
    writeFileSync(join(edge.home, 'root.pem'), await cloud.pem('/v1/ca'));
    const chain = join(edge.home, 'state/certificate.pem');
    const verified = openssl([
      ...['verify', '-x509_strict', '-CAfile', join(edge.home, 'root.pem')],
      ...['-untrusted', chain, chain],
    ]);
    expect(verified).toMatch(/OK/);

    execFileSync('rm', [cloud.file('root-key.pem')]);
    await cloud.process.kill('SIGTERM');
    const since = edge.process.output.length;
    await cloud.start({ trust });
    await edge.process.logged(/: up to /, since);
    await edgeOf(cloud, 'site-b');

    await cloud.process.kill('SIGTERM');
    writeFileSync(join(cloud.home, 'passphrase'), 'wrong');
    const path = join(cloud.home, 'gateway.yaml');
    const wrong = await new GatewayProcess('cloud', [path]).ended;
    expect(wrong.complaint).toMatch(
      /^virtual-presence: the CA certificates in .*private key[^\n]*$/
    );
    writeFileSync(join(cloud.home, 'passphrase'), '\n');
    const empty = await new GatewayProcess('cloud', [path]).ended;
    expect(empty.complaint).toMatch(/trust\.passphraseFile: the passphrase file .* is empty$/);
  });

  test('may be the operator’s own, made by openssl', async () => {
    const cloud = new Cloud();
    const state = join(cloud.home, 'state');
    execFileSync('mkdir', ['-m', '700', state]);
    openssl([
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-days', '2', '-subj', '/O=Example/CN=Example root'],
      ...['-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
      ...['-keyout', join(state, 'ca-key.pem'), '-out', join(state, 'ca.pem')],
    ]);
    await cloud.start();
    const edge = await edgeOf(cloud, 'site-a');
    expect(edge.certificate.issuer).toContain('Example root');
  });

  test.each(['its own', 'the operator’s'])(
    'may have expired: the cloud starts with a warning, and %s next CA replaces it',
    async (whose) => {
      const cloud = new Cloud();
      const state = join(cloud.home, 'state');
      execFileSync('mkdir', ['-m', '700', state]);
      const old = generateCa({
        trustDomain: 'openstack.test',
        rootLifetimeMs: 3_600_000,
        clock: clockOf(() => Date.now() - 2 * 3_600_000),
      });
      writeFileSync(join(state, 'ca.pem'), old.certificatePem);
      writeFileSync(join(state, 'ca-key.pem'), old.privateKeyPem);
      await cloud.start();
      interface Status {
        readonly ca: { readonly notAfter: string; readonly rollover: string; warning?: string };
      }
      const { ca } = await cloud.callAdmin<Status>('GET', '/v1/status');
      expect(Date.parse(ca.notAfter)).toBeLessThan(Date.now());
      expect(ca.warning).toMatch(/^the CA expired on .*: prepare and activate another one/);
      await cloud.process.logged(/the CA expired on /);

      const { rootPrivateKeyPem: _, ...next } = generateCa({ trustDomain: 'openstack.test' });
      const own = whose === 'its own';
      await cloud.callAdmin(
        'POST',
        '/v1/ca',
        own ? { step: 'prepare' } : { step: 'prepare', ca: next }
      );
      await cloud.callAdmin('POST', '/v1/ca', { step: 'activate' });
      const edge = await edgeOf(cloud, 'site-a');
      await cloud.callAdmin('POST', '/v1/ca', { step: 'retire' });
      const after = await cloud.callAdmin<Status>('GET', '/v1/status');
      expect(after.ca.rollover).toBe('none');
      expect(after.ca.warning).toBeUndefined();
      expect(edge.process.output).not.toMatch(/: down,/);
    }
  );

  test('may sign the certificate of an edge by openssl; an edge with its own files needs no token', async () => {
    const cloud = new Cloud();
    await cloud.start();
    const edge = new Edge();
    edge.prepare(cloud, 'none');
    const state = join(edge.home, 'state');
    execFileSync('mkdir', ['-m', '700', state]);
    const { privateKeyPem } = generateGatewayKey();
    writeFileSync(join(state, 'key.pem'), privateKeyPem);
    writeFileSync(join(edge.home, 'request.pem'), createSigningRequest(privateKeyPem));
    const identity = { trustDomain: 'openstack.test', role: 'site', site: 'site-a' } as const;
    writeFileSync(
      join(edge.home, 'extensions'),
      `subjectAltName=URI:${formatIdentity(identity)}\nextendedKeyUsage=clientAuth\nkeyUsage=critical,digitalSignature\n`
    );
    openssl([
      ...['x509', '-req', '-in', join(edge.home, 'request.pem'), '-days', '1'],
      ...['-CA', cloud.file('ca.pem'), '-CAkey', cloud.file('ca-key.pem')],
      ...['-extfile', join(edge.home, 'extensions'), '-out', join(state, 'certificate.pem')],
    ]);
    writeFileSync(join(state, 'ca.pem'), await cloud.pem('/v1/ca'));
    edge.start();
    await edge.process.logged(/: up to /);
  });
});

describe('a certificate', () => {
  test('is renewed by itself, with a new key, and the tunnel stays up', async () => {
    const cloud = new Cloud();
    await cloud.start({ trust: { certificateLifetimeSeconds: 9 } });
    const edge = await edgeOf(cloud, 'site-a');
    const first = edge.certificate;
    await edge.process.logged(/certificate renewed/);
    const second = edge.certificate;
    expect(second.serialNumber).not.toBe(first.serialNumber);
    expect(second.publicKey.equals(first.publicKey)).toBe(false);
    expect(second.subjectAltName).toBe(first.subjectAltName);
    await eventually('the cloud to see it', async () =>
      (await cloud.certificate('site-a'))?.serial === second.serialNumber.toLowerCase()
        ? true
        : undefined
    );
    expect(edge.process.output).not.toMatch(/: down,/);
    expect(readdirSync(join(edge.home, 'state')).sort()).toEqual(
      [
        'ca.pem',
        'certificate.pem',
        'cloud.json',
        'key.pem',
        'store.journal',
        ...readdirSync(join(edge.home, 'state')).filter((name) => name.endsWith('.lock')),
      ].sort()
    );
  });

  test('is reported if it expired while the edge was off; with a new token the site keeps its addresses', async () => {
    const cloud = new Cloud();
    await cloud.start({ trust: { certificateLifetimeSeconds: 8 } });
    const edge = await edgeOf(cloud, 'site-a');
    const presences = await cloud.callAdmin('GET', '/v1/presences');
    await edge.process.kill('SIGTERM');
    const { validTo } = edge.certificate;
    await eventually('the certificate to expire', () =>
      Date.now() > Date.parse(validTo) ? true : undefined
    );

    edge.start();
    const { complaint, code } = await edge.process.ended;
    expect(code).toBe(1);
    expect(complaint).toMatch(
      /certificate\.pem expired on .*: enrol with a new token \(.*used\); put a new token into .*token$/
    );

    edge.putToken(await cloud.token('site-b'));
    edge.start();
    expect((await edge.process.ended).complaint).toMatch(
      /the token is for "site-b", not for "site-a"/
    );

    edge.putToken(await cloud.token('site-a'));
    edge.start();
    await edge.process.logged(/: up to /);
    expect(await cloud.callAdmin('GET', '/v1/presences')).toEqual(presences);
  });

  test('is reported if it expires while the cloud is down; a running edge redeems a new token', async () => {
    const cloud = new Cloud();
    await cloud.start({ trust: { certificateLifetimeSeconds: 8 } });
    const edge = await edgeOf(cloud, 'site-a');
    await cloud.process.kill('SIGTERM');
    await edge.process.logged(/the certificate expired on .*: enrol with a new token/);
    await cloud.start();
    edge.putToken(await cloud.token('site-a'));
    await edge.process.logged(/enrolled again/);
    await eventually('the tunnel', () => cloud.certificate('site-a'));
  });

  test('is revoked by its serial number, or by its key, while the site stays', async () => {
    const cloud = new Cloud();
    await cloud.start();
    const a = await edgeOf(cloud, 'site-a');
    const b = await edgeOf(cloud, 'site-b');
    const serial = a.certificate.serialNumber;
    const first = readFileSync(join(a.home, 'state/certificate.pem'));
    // The site is not revoked: a running edge that is refused redeems the current token.
    a.putToken(await cloud.token('site-a'));
    const byA = a.process.output.length;
    expect(
      await cloud.callAdmin('POST', '/v1/revocations', { serial, reason: 'superseded' })
    ).toMatchObject({
      scope: { serial },
      sites: ['site-a'],
      serials: [serial.toLowerCase()],
      tunnelsClosed: 1,
      pathsRemoved: 0,
    });
    await a.process.logged(/refused, .*\(revoked\)/, byA);
    await a.process.logged(/enrolled again/, byA);
    await a.process.logged(/: up to /, byA);
    expect(a.certificate.serialNumber).not.toBe(serial);
    expect(b.process.output).not.toMatch(/: down,/);

    const spki = execFileSync(
      'sh',
      ['-c', 'openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64'],
      { input: b.certificate.publicKey.export({ type: 'spki', format: 'pem' }), encoding: 'utf8' }
    );
    const key = Buffer.from(spki, 'base64').toString('base64url');
    expect(await cloud.callAdmin('POST', '/v1/revocations', { spki: key })).toMatchObject({
      sites: ['site-b'],
      tunnelsClosed: 1,
    });
    await b.process.logged(/refused, .*\(revoked\)/);
    await expect(cloud.callAdmin('POST', '/v1/revocations', { serial: '4f01' })).rejects.toThrow(
      /4f01/
    );
    await expect(cloud.callAdmin('POST', '/v1/revocations', { serial, spki: key })).rejects.toThrow(
      /expected one of site, serial and spki/
    );

    // Other programs learn of it from the CRL.
    writeFileSync(join(cloud.home, 'crl.pem'), await cloud.pem('/v1/crl'));
    const list = openssl(['crl', '-in', join(cloud.home, 'crl.pem'), '-noout', '-text']);
    expect(list).toContain(serial.toUpperCase());
    expect(list).toContain(b.certificate.serialNumber.toUpperCase());
    expect(list).toContain('Superseded');
    writeFileSync(join(a.home, 'revoked.pem'), first);
    const verdict = execFileSync(
      'sh',
      [
        '-c',
        `openssl verify -crl_check -CAfile ${cloud.file('ca.pem')} -CRLfile ${join(cloud.home, 'crl.pem')} ${join(a.home, 'revoked.pem')} 2>&1 || true`,
      ],
      { encoding: 'utf8' }
    );
    expect(verdict).toMatch(/certificate revoked/);

    // The site itself is not revoked: a new token and a new key are accepted.
    execFileSync('rm', [join(a.home, 'state/certificate.pem')]);
    a.putToken(await cloud.token('site-a'));
    await a.process.kill('SIGTERM');
    a.start();
    await a.process.logged(/: up to /);
  });
});

describe('the audit log', () => {
  test('records enrolments, refusals and changes, and proves that it is complete', async () => {
    const cloud = new Cloud();
    await cloud.start();
    const edge = await edgeOf(cloud, 'site-a');
    await cloud.callAdmin('POST', '/v1/exposures', { site: 'site-a', service: 'keystone' });
    await cloud.callAdmin('DELETE', '/v1/exposures', { site: 'site-a', service: 'keystone' });
    await cloud.callAdmin('POST', '/v1/revocations', { site: 'site-a' });
    await edge.process.logged(/refused, .*\(revoked\)/);
    await cloud.callAdmin('DELETE', '/v1/revocations', { site: 'site-a' });
    await cloud.callAdmin('DELETE', '/v1/presences', { site: 'site-a' });
    const unauthenticated = execFileSync(
      'sh',
      ['-c', `openssl s_client -connect 127.0.0.1:${cloud.tunnelPort} </dev/null 2>&1 || true`],
      { encoding: 'utf8' }
    );
    expect(unauthenticated).toContain('CONNECTED');
    const { audit } = await eventually('the unauthenticated peer in the log', async () => {
      const { audit: head } = await cloud.callAdmin<{ audit: { seq: number; hash: string } }>(
        'GET',
        '/v1/status'
      );
      return readFileSync(cloud.file('audit.jsonl'), 'utf8').includes('no-certificate')
        ? { audit: head }
        : undefined;
    });
    await cloud.process.kill('SIGTERM');

    const path = cloud.file('audit.jsonl');
    expect(await verifyAuditLog(path, { head: audit })).toMatchObject({ ok: true });
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    const kinds = lines.map((line) => (JSON.parse(line) as { kind: string }).kind);
    expect(kinds.filter((kind) => !kind.startsWith('refused-'))).toEqual([
      'start',
      'expose',
      'token',
      'enrolment',
      'expose',
      'unexpose',
      'revocation',
      'revocation',
      'reinstatement',
      'release',
    ]);
    expect(JSON.parse(lines[kinds.indexOf('release')]!)).toMatchObject({
      site: 'site-a',
      detail: { released: 0 },
    });
    expect(kinds).toContain('refused-handshake');

    writeFileSync(path, `${lines.map((line) => line.replace('site-a', 'site-b')).join('\n')}\n`);
    expect(await verifyAuditLog(path)).toMatchObject({ ok: false, fault: 'changed' });
  });
});
