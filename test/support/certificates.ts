/**
 * Keys and certificates for the tests: good ones from the CertificateAuthority, bad ones from
 * openssl.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CertificateAuthority,
  createSigningRequest,
  type GatewayIdentity,
  generateCa,
  generateGatewayKey,
} from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import type { Credentials } from '../../src/tunnel/index.ts';
import { clockOf } from './clock-of.ts';

export const CLOUD: GatewayIdentity = { trustDomain: 'example.org', role: 'cloud' };

export function site(name: string, trustDomain = 'example.org'): GatewayIdentity {
  return { trustDomain, role: 'site', site: name };
}

/** One trust domain. */
export class TestCa {
  readonly authority: CertificateAuthority;

  private constructor(authority: CertificateAuthority) {
    this.authority = authority;
  }

  static async create(now: () => number = Date.now, trustDomain = 'example.org'): Promise<TestCa> {
    const store = new MemoryStore();
    const clock = clockOf(now);
    const ca = generateCa({ trustDomain, clock });
    return new TestCa(await CertificateAuthority.open({ ...ca, trustDomain, store, clock }));
  }

  async issue(identity: GatewayIdentity, lifetimeMs?: number): Promise<Credentials> {
    const { privateKeyPem } = generateGatewayKey();
    const issued = await this.authority.issue(
      createSigningRequest(privateKeyPem),
      identity,
      lifetimeMs === undefined ? {} : { lifetimeMs }
    );
    return {
      key: privateKeyPem,
      cert: issued.certificatePem,
      ca: this.authority.certificatePem,
    };
  }

  /** A certificate of the same CA key, issued 40 days ago for 30. */
  async issueExpired(identity: GatewayIdentity): Promise<Credentials> {
    const authority = await CertificateAuthority.open({
      trustDomain: this.authority.trustDomain,
      store: new MemoryStore(),
      certificatePem: this.authority.certificatePem,
      privateKeyPem: this.authority.privateKeyPem,
      clock: clockOf(() => Date.now() - 40 * 86_400_000),
    });
    return new TestCa(authority).issue(identity);
  }

  /** A certificate that the authority would not issue, with the extensions given to openssl. */
  forge(extensions: string): Credentials {
    const directory = mkdtempSync(join(tmpdir(), 'forge-'));
    const file = (name: string): string => join(directory, name);
    try {
      const { privateKeyPem } = generateGatewayKey();
      writeFileSync(file('leaf.key'), privateKeyPem);
      writeFileSync(file('ca.key'), this.authority.privateKeyPem);
      writeFileSync(file('ca.pem'), this.authority.certificatePem);
      writeFileSync(file('extensions'), extensions);
      const run = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
      run('req', '-new', '-key', file('leaf.key'), '-subj', '/CN=x', '-out', file('leaf.csr'));
      run(
        ...['x509', '-req', '-in', file('leaf.csr'), '-days', '2', '-out', file('leaf.pem')],
        ...['-CA', file('ca.pem'), '-CAkey', file('ca.key')],
        ...['-set_serial', '4242', '-extfile', file('extensions')]
      );
      const cert = readFileSync(file('leaf.pem'), 'utf8');
      return { key: privateKeyPem, cert, ca: this.authority.certificatePem };
    } finally {
      rmSync(directory, { recursive: true });
    }
  }
}

export function hasOpenssl(): boolean {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
