/** Every class of these modules that owns resources closes once, also when `close` is called twice. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { AuditLog, AuditTrail } from '../../src/audit/index.ts';
import {
  CertificateAuthority,
  CertificateRenewer,
  type Credentials,
  EnrolmentServer,
  generateCa,
  Revocations,
} from '../../src/pki/index.ts';
import { Registry } from '../../src/registry/index.ts';
import { FileStore, MemoryStore } from '../../src/store/index.ts';
import { Revoker, type TerminationReport } from '../../src/trust/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { HOST } from './enrolment-servers.ts';
import { newRequest, SITE_A, scene, TRUST_DOMAIN } from './fixtures.ts';

const home = mkdtempSync(join(tmpdir(), 'closing-'));
let files = 0;
const newPath = (): string => join(home, String(files++));
afterAll(() => rmSync(home, { recursive: true }));

async function newCredentials(): Promise<Credentials> {
  const { authority } = await scene();
  const { privateKeyPem, csrPem } = newRequest();
  const { certificatePem } = await authority.issue(csrPem, SITE_A);
  return { key: privateKeyPem, cert: certificatePem, ca: authority.trustBundlePem };
}

type Closable = AsyncDisposable & { close(): Promise<void> };

test.each<[string, () => Promise<Closable>]>([
  ['EnrolmentServer', async () => new EnrolmentServer({ authority: (await scene()).authority })],
  [
    'EnrolmentServer that listens',
    async () => {
      const server = new EnrolmentServer({ authority: (await scene()).authority });
      await server.listen({ host: HOST, port: 0 });
      return server;
    },
  ],
  [
    'CertificateAuthority',
    () =>
      CertificateAuthority.open({
        ...generateCa({ trustDomain: TRUST_DOMAIN }),
        ...{ trustDomain: TRUST_DOMAIN, store: new MemoryStore() },
      }),
  ],
  ['Revocations', () => Revocations.open({ store: new MemoryStore() })],
  [
    'CertificateRenewer',
    async () =>
      new CertificateRenewer({
        credentials: await newCredentials(),
        renew: () => new Promise(() => {}),
        apply: () => {},
      }),
  ],
  [
    'Revoker',
    async () =>
      new Revoker({
        revocations: await Revocations.open({ store: new MemoryStore() }),
        controller: { suspend: () => {} },
        terminateRevoked: async () => ({ tunnelsClosed: 0, pathsRemoved: 0 }),
      }),
  ],
  ['AuditLog', () => AuditLog.open({ path: newPath() })],
  ['AuditTrail', () => AuditTrail.open({ path: newPath() })],
  ['FileStore', () => FileStore.open({ path: newPath() })],
  ['MemoryStore', async () => new MemoryStore()],
])(
  '%s returns the same promise when it is closed twice, and closes with await using',
  async (_, open) => {
    const it = await open();
    const closing = it.close();
    expect(it.close()).toBe(closing);
    await closing;
    await it[Symbol.asyncDispose]();
    const another = await open();
    await another[Symbol.asyncDispose]();
    await another.close();
  }
);

describe('close', () => {
  test('stops the timer of a renewer, and waits for the credentials that are being applied', async () => {
    const { authority } = await scene();
    const { privateKeyPem, csrPem } = newRequest();
    const first = await authority.issue(csrPem, SITE_A);
    const ca = authority.trustBundlePem;
    const clock = new FakeClock({ wallMs: Date.now() });
    let finish = (): void => {};
    const renewer = new CertificateRenewer({
      credentials: { key: privateKeyPem, cert: first.certificatePem, ca },
      renew: async (request) => {
        const { certificatePem } = await authority.issue(request, SITE_A);
        return { certificatePem, caPem: ca };
      },
      apply: () => new Promise<void>((resolve) => (finish = resolve)),
      clock,
    });
    const before = finish;
    const renewing = renewer.renewNow();
    while (finish === before) await new Promise((resolve) => setImmediate(resolve));
    let isClosed = false;
    const closing = renewer.close().then(() => (isClosed = true));
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(isClosed).toBe(false);
    finish();
    await closing;
    await renewing;
    expect(clock.delays).toEqual([]);
  });

  test('waits for the tunnels that a revoker is terminating', async () => {
    const revocations = await Revocations.open({ store: new MemoryStore() });
    const ends: ((report: TerminationReport) => void)[] = [];
    const revoker = new Revoker({
      revocations,
      controller: { suspend: () => {} },
      terminateRevoked: () => new Promise((resolve) => ends.push(resolve)),
    });
    const revoking = revoker.revoke({ site: 'site-a' });
    while (ends.length === 0) await new Promise((resolve) => setImmediate(resolve));
    let isClosed = false;
    const closing = revoker.close().then(() => (isClosed = true));
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(isClosed).toBe(false);
    ends[0]!({ tunnelsClosed: 1, pathsRemoved: 0 });
    await closing;
    expect((await revoking).tunnelsClosed).toBe(1);
  });

  test('stops an audit trail following the registry, and reports a failed line before it resolves', async () => {
    const registry = await Registry.open(new MemoryStore());
    const trail = await AuditTrail.open({ path: newPath() });
    const problems: Error[] = [];
    trail.on('problem', ({ error }) => problems.push(error));
    trail.follow(registry);
    trail.follow(registry);
    expect(registry.listenerCount('change')).toBe(1);
    await trail.close();
    expect(registry.listenerCount('change')).toBe(0);
    expect(problems).toEqual([]);
    trail.token('site-a');
    await new Promise((resolve) => setImmediate(resolve));
    expect(problems.map(({ message }) => message)).toEqual(['the audit log is closed']);
    await registry.close();
  });
});
