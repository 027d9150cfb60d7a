/**
 * Keys and certificates of gateways: good ones by the `CertificateAuthority`, others by openssl.
 * @module
 */
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
import { credentialsOf, Forge } from './openssl.ts';

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

  /** A certificate that the authority would not issue, with these lines of extensions; made by openssl. */
  forge(extensions: string): Credentials {
    const { certificatePem: cert, privateKeyPem: key } = this.authority;
    const forge = new Forge();
    try {
      return credentialsOf(forge.leaf({ cert, key }, { extensions: [extensions] }), cert);
    } finally {
      forge.close();
    }
  }
}
