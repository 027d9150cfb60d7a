/**
 * A CA on a memory store with a clock that stands still, and openssl as second opinion.
 * @module
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CertificateAuthority,
  type CreateAuthorityOptions,
  createSigningRequest,
  type GatewayIdentity,
  generateGatewayKey,
  type KeyType,
  parseToken,
  type Redemption,
} from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';

export const TRUST_DOMAIN = 'example.org';
export const SITE_A: GatewayIdentity & { role: 'site' } = {
  trustDomain: TRUST_DOMAIN,
  role: 'site',
  site: 'site-a',
};
export const CLOUD: GatewayIdentity = { trustDomain: TRUST_DOMAIN, role: 'cloud' };
export const HOUR_MS = 3_600_000;
export const DAY_MS: number = 24 * HOUR_MS;

export interface Scene {
  readonly store: MemoryStore;
  readonly authority: CertificateAuthority;
  /** In ms since 1970; starts at the real time, for OpenSSL has no other. */
  readonly clock: { ms: number };
}

export async function scene(options: Partial<CreateAuthorityOptions> = {}): Promise<Scene> {
  const store = new MemoryStore();
  const clock = { ms: Date.now() };
  const now = () => clock.ms;
  const authority = await CertificateAuthority.create({
    trustDomain: TRUST_DOMAIN,
    store,
    now,
    ...options,
  });
  return { store, authority, clock };
}

/** The same CA again, as after a restart of the process. */
export function reload({ authority, store, clock }: Scene): Promise<CertificateAuthority> {
  const { certificatePem, privateKeyPem, trustDomain } = authority;
  const now = () => clock.ms;
  return CertificateAuthority.load({ certificatePem, privateKeyPem, trustDomain, store, now });
}

export function newRequest(type?: KeyType): { privateKeyPem: string; csrPem: string } {
  const { privateKeyPem } = generateGatewayKey(type);
  return { privateKeyPem, csrPem: createSigningRequest(privateKeyPem) };
}

/** What a site sends that holds this token and a new key. */
export function redemptionOf(tokenText: string, csrPem: string = newRequest().csrPem): Redemption {
  const { id, secret } = parseToken(tokenText);
  return { tokenId: id, secret, csrPem };
}

export const hasOpenssl: boolean = spawnSync('openssl', ['version']).status === 0;

/** Runs openssl with `@name` arguments replaced by files of that content; returns its output. */
export function openssl(args: readonly string[], files: Record<string, string> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'pki-'));
  try {
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    const paths = args.map((arg) => (arg.startsWith('@') ? join(folder, arg.slice(1)) : arg));
    return execFileSync('openssl', paths, { encoding: 'utf8', stdio: 'pipe' });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
