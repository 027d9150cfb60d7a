/** The CA of several machines, which is in the store that they share. */
import { X509Certificate } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { CertificateError, ConflictError } from '../../src/errors.ts';
import { AuthorityKeeper } from '../../src/gateway/index.ts';
import { createSigningRequest, generateGatewayKey } from '../../src/pki/index.ts';
import { MemoryStore, StoreSecrets, type Write } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { logTo } from './scene.ts';

const TRUST_DOMAIN = 'openstack.test';
const SITE = { trustDomain: TRUST_DOMAIN, role: 'site', site: 'site-a' } as const;
const HOUR_MS = 3_600_000;

const opened: AuthorityKeeper[] = [];
afterEach(async () => {
  for (const keeper of opened.splice(0)) await keeper.close();
});

/** A store that can be away. */
class SharedStore extends MemoryStore {
  /** Called before each commit. */
  beforeCommit: (writes: readonly Write[]) => Promise<void> = async () => {};

  override async commit(writes: readonly Write[]): Promise<void> {
    await this.beforeCommit(writes);
    await super.commit(writes);
  }
}

const clock = new FakeClock({ wallMs: Date.now() });
const lines: string[] = [];

async function machine(store: MemoryStore, trustDomain = TRUST_DOMAIN): Promise<AuthorityKeeper> {
  const secrets = await StoreSecrets.open(store, { passphrase: 'correct horse' });
  const logger = logTo(lines);
  const keeper = await AuthorityKeeper.open({ trustDomain, secrets, store, clock, logger });
  opened.push(keeper);
  return keeper;
}

/** Resolves when a keeper has new trust. */
function trustOf({ authority }: AuthorityKeeper): Promise<void> {
  return new Promise((resolve) => {
    authority.once('trust', resolve);
  });
}

function certificateOf({ credentials }: AuthorityKeeper): X509Certificate {
  return new X509Certificate(credentials.cert);
}

describe('machines that share a CA', () => {
  test('generate one, also if they start at the same time', async () => {
    const store = new MemoryStore();
    const [a, b] = await Promise.all([machine(store), machine(store)]);
    expect(a.authority.spkiHash).toBe(b.authority.spkiHash);
    const names = (await store.list('ca/')).map(({ key }) => key);
    expect(names).toEqual(['ca/ca-key.pem', 'ca/ca.pem']);
  });

  test('have a certificate each, of which one can be revoked alone', async () => {
    const store = new MemoryStore();
    const a = await machine(store);
    const b = await machine(store);
    const [ofA, ofB] = [certificateOf(a), certificateOf(b)];
    expect(ofA.publicKey.equals(ofB.publicKey)).toBe(false);
    expect(a.authority.hasIssued(ofB)).toBe(true);
    expect(await store.list('certificate/')).toHaveLength(2);
    await a.authority.revoke({ serial: ofB.serialNumber });
    expect(b.authority.isRevoked(ofB)).toBe(true);
    expect(b.authority.isRevoked(ofA)).toBe(false);
  });

  test('take each step that one of them takes', async () => {
    const store = new MemoryStore();
    const a = await machine(store);
    const b = await machine(store);
    const states: string[] = [];
    for (const step of ['prepare', 'activate', 'retire'] as const) {
      const taken = trustOf(b);
      await a[step]();
      await taken;
      states.push(b.authority.rollover);
      expect(b.authority.trustBundlePem).toBe(a.authority.trustBundlePem);
      expect(b.authority.spkiHash).toBe(a.authority.spkiHash);
    }
    expect(states).toEqual(['prepared', 'active', 'none']);
    expect(b.retired.map(({ serialNumber }) => serialNumber)).toEqual(
      a.retired.map(({ serialNumber }) => serialNumber)
    );
    expect(lines).toEqual([]);
    // What the new CA issues on one machine is renewed on the other.
    const csrPem = createSigningRequest(generateGatewayKey().privateKeyPem);
    const { certificatePem } = await a.authority.issue(csrPem, SITE);
    const renewed = await b.authority.renew(new X509Certificate(certificatePem), csrPem);
    expect(a.authority.isCurrent(new X509Certificate(renewed.certificatePem))).toBe(true);
  });

  test('go on with a change of CA that another one has begun', async () => {
    const store = new MemoryStore();
    const a = await machine(store);
    const b = await machine(store);
    await a.prepare();
    await b.activate();
    await a.retire();
    const c = await machine(store);
    expect([a, b, c].map(({ authority }) => authority.spkiHash)).toEqual(
      Array.from({ length: 3 }, () => a.authority.spkiHash)
    );
    expect(c.retired).toHaveLength(1);
  });

  test('do not both begin a change of CA', async () => {
    const store = new SharedStore();
    const a = await machine(store);
    const b = await machine(store);
    const results = await Promise.allSettled([a.prepare(), b.prepare()]);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const refused = results.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    expect(refused.reason).toBeInstanceOf(ConflictError);
    expect(await store.get('ca/ca-2.pem')).toMatchObject({ version: expect.any(Number) });
    await a.activate();
    await b.retire();
    expect(a.authority.spkiHash).toBe(b.authority.spkiHash);
  });

  test('follow later if the CAs could not be read', async () => {
    const store = new SharedStore();
    const a = await machine(store);
    const b = await machine(store);
    const problem = new Promise<Error>((resolve) => {
      b.once('problem', ({ error }) => resolve(error));
    });
    const { value } = (await store.get('ca/ca-key.pem'))!;
    await store.commit([{ key: 'ca/ca-key.pem', value: 'garbage' }]);
    expect((await problem).message).toContain('is not an encrypted secret');
    expect(lines.splice(0).join()).toContain('are not in force here');
    await store.commit([{ key: 'ca/ca-key.pem', value: value as string }]);
    const taken = trustOf(b);
    await a.prepare();
    await taken;
    clock.advance(HOUR_MS);
    expect(b.authority.rollover).toBe('prepared');
  });
});

test('the CA of another cloud in the store is refused', async () => {
  const store = new MemoryStore();
  await machine(store);
  const other = machine(store, 'another.test');
  await expect(other).rejects.toThrow(CertificateError);
  await expect(other).rejects.toThrow('ca/ca.pem in the store');
});
