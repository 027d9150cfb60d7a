/**
 * The CA of a cloud gateway: on a disk that is full for a while, encrypted at rest, in the files of an earlier version,
 * and after it has expired.
 */
import { X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  ApiMisuseError,
  CertificateError,
  ConflictError,
  EnvironmentError,
} from '../../src/errors.ts';
import { AuthorityKeeper, type AuthorityKeeperOptions } from '../../src/gateway/index.ts';
import {
  createSigningRequest,
  EnrolmentServer,
  encryptPrivateKey,
  enrol,
  type GenerateCaOptions,
  generateCa,
  generateGatewayKey,
} from '../../src/pki/index.ts';
import { FileSecrets, MemorySecrets, MemoryStore, type Secrets } from '../../src/store/index.ts';
import { MtlsTunnel } from '../../src/tunnel/index.ts';
import { clockOf } from '../support/clock-of.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FaultySecrets } from './faulty-secrets.ts';
import { logTo } from './scene.ts';

const TRUST_DOMAIN = 'openstack.test';
const SITE = { trustDomain: TRUST_DOMAIN, role: 'site', site: 'site-a' } as const;
const PASSPHRASE = 'correct horse';
const DAY_MS = 24 * 3_600_000;

const home = mkdtempSync(join(tmpdir(), 'authority-'));
let directories = 0;
const newPath = (): string => join(home, String(directories++));
afterAll(() => rmSync(home, { recursive: true }));

function open(
  secrets: Secrets,
  options: Partial<AuthorityKeeperOptions> = {}
): Promise<AuthorityKeeper> {
  return AuthorityKeeper.open({
    trustDomain: TRUST_DOMAIN,
    secrets,
    store: new MemoryStore(),
    ...options,
  });
}

/** Returns the state of the CA rollover after a restart. */
async function afterRestart(path: string): Promise<string> {
  const keeper = await open(await FileSecrets.open(path));
  keeper.close();
  return keeper.authority.rollover;
}

async function textOf(secrets: Secrets, name: string): Promise<string> {
  return Buffer.from((await secrets.get(name))!).toString();
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe('a CA rollover on a disk that is full for a while', () => {
  const steps = ['prepare', 'activate', 'retire'] as const;
  const states = ['none', 'prepared', 'active', 'none'];

  test.each(steps.flatMap((step) => [false, true].map((isInPlace) => [step, isInPlace] as const)))(
    'can repeat "%s" after any of its commits has failed, whether or not it took effect: %s',
    async (step, isInPlace) => {
      const at = steps.indexOf(step);
      const before = states[at]!;
      const after = states[at + 1]!;
      for (let failAfter = 0; ; failAfter++) {
        const path = newPath();
        const secrets = new FaultySecrets(await FileSecrets.open(path));
        const keeper = await open(secrets);
        for (const each of steps.slice(0, at)) await keeper[each]();
        const bundle = keeper.authority.trustBundlePem;

        secrets.failAfter = failAfter;
        secrets.isInPlace = isInPlace;
        const failure = await keeper[step]().catch((error: Error) => error);
        const hasFailed = failure !== undefined;
        secrets.failAfter = undefined;
        if (hasFailed) {
          expect(failure.message).toBe('the disk is full');
          expect(keeper.authority.rollover).toBe(before);
          expect(keeper.authority.trustBundlePem).toBe(bundle);
          expect([before, after]).toContain(await afterRestart(path));
          await keeper[step]();
        }
        expect(keeper.authority.rollover).toBe(after);
        expect(await afterRestart(path)).toBe(after);
        for (const each of steps.slice(at + 1)) await keeper[each]();
        expect(await afterRestart(path)).toBe('none');
        const again = await open(await FileSecrets.open(path));
        expect(again.authority.spkiHash).toBe(keeper.authority.spkiHash);
        expect(again.retired).toHaveLength(1);
        // The key of a CA that no longer signs is removed.
        expect(readdirSync(path).filter((name) => name.endsWith('-key.pem'))).toEqual([
          'ca-2-key.pem',
        ]);
        again.close();
        keeper.close();
        if (!hasFailed) {
          expect(failAfter).toBeGreaterThan(0);
          return;
        }
      }
    }
  );

  test('writes nothing for a next CA that cannot be used', async () => {
    const secrets = await FileSecrets.open(newPath());
    const keeper = await open(secrets);
    const foreign = generateCa({ trustDomain: 'another.test' });
    await expect(keeper.prepare(foreign)).rejects.toThrow('is for URI:spiffe://another');
    expect(readdirSync(secrets.path).sort()).toEqual(['ca-key.pem', 'ca.pem']);
    expect(keeper.authority.rollover).toBe('none');
    await keeper.prepare();
    keeper.close();
  });

  test('stores the key of the root in one commit with the CA that the root has signed', async () => {
    const secrets = new FaultySecrets(new MemorySecrets());
    for (const isInPlace of [false, true]) {
      secrets.failAfter = 0;
      secrets.isInPlace = isInPlace;
      await expect(open(secrets, { intermediate: true })).rejects.toThrow('the disk is full');
      const names = ['ca.pem', 'ca-key.pem', 'root-key.pem'];
      const found = await Promise.all(names.map((name) => secrets.get(name)));
      expect(found.map((each) => each !== undefined)).toEqual(names.map(() => isInPlace));
    }
  });

  test('takes one step at a time', async () => {
    const keeper = await open(new MemorySecrets());
    const both = await Promise.allSettled([keeper.prepare(), keeper.prepare()]);
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(keeper.authority.rollover).toBe('prepared');
    await expect(keeper.prepare()).rejects.toThrow(ConflictError);
    keeper.close();
  });
});

describe('AuthorityKeeper with a passphrase', () => {
  test('encrypts keys that are in the clear, once, and leaves none in the clear', async () => {
    const secrets = await FileSecrets.open(newPath());
    const first = await open(secrets, { intermediate: true });
    await first.prepare();
    first.close();
    const keys = ['ca-key.pem', 'ca-2-key.pem', 'root-key.pem'];
    for (const name of keys) {
      expect(await textOf(secrets, name)).toMatch(/^-----BEGIN PRIVATE KEY/);
    }

    // From here on there is a passphrase.
    const log: string[] = [];
    const second = await open(secrets, { passphrase: PASSPHRASE, logger: logTo(log) });
    second.close();
    expect(log).toEqual(keys.map((name) => `${secrets.locate(name)}: encrypted again`));
    const kept = await Promise.all(keys.map((name) => textOf(secrets, name)));
    for (const text of kept) expect(text).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY/);
    expect(second.authority.spkiHash).toBe(first.authority.spkiHash);
    expect(second.authority.rollover).toBe('prepared');

    const third = await open(secrets, { passphrase: PASSPHRASE });
    third.close();
    expect(await Promise.all(keys.map((name) => textOf(secrets, name)))).toEqual(kept);

    await expect(open(secrets, { passphrase: '' })).rejects.toThrow(ApiMisuseError);
    await expect(open(secrets, { passphrase: 'wrong' })).rejects.toThrow(
      /the CA certificates in .*key/
    );
  });

  test('names the key of a root that is encrypted under another passphrase', async () => {
    const secrets = await FileSecrets.open(newPath());
    (await open(secrets, { passphrase: PASSPHRASE, intermediate: true })).close();
    const foreign = await encryptPrivateKey(generateGatewayKey().privateKeyPem, 'another');
    await secrets.commit({ 'root-key.pem': bytes(foreign) });
    const opening = open(secrets, { passphrase: PASSPHRASE });
    await expect(opening).rejects.toThrow(`${secrets.locate('root-key.pem')}: `);
    // The gateway does not need the key of the root.
    await secrets.commit({ 'root-key.pem': undefined });
    (await open(secrets, { passphrase: PASSPHRASE })).close();
  });

  test.each([undefined, PASSPHRASE])(
    'removes at the next start the key of a retired CA that a crash has left (passphrase: %s)',
    async (passphrase) => {
      const secrets = await FileSecrets.open(newPath());
      const keeper = await open(secrets, { passphrase });
      const key = (await secrets.get('ca-key.pem'))!;
      await keeper.prepare();
      await keeper.activate();
      await keeper.retire();
      keeper.close();
      await secrets.commit({ 'ca-key.pem': key });

      const again = await open(secrets, { passphrase });
      again.close();
      expect(readdirSync(secrets.path).sort()).toEqual([
        'ca-2-key.pem',
        'ca-2.pem',
        'ca.json',
        'ca.pem',
      ]);
      expect(again.retired).toHaveLength(1);
    }
  );
});

describe('files of an earlier version', () => {
  const [one, two, three] = [0, 1, 2].map(() => generateCa({ trustDomain: TRUST_DOMAIN })) as [
    ReturnType<typeof generateCa>,
    ReturnType<typeof generateCa>,
    ReturnType<typeof generateCa>,
  ];
  const names = { ca: one, 'ca-2': two, 'ca-3': three };

  /** Returns a directory with these certificates and keys by CA, `ca.json`, and files that a crash has left. */
  function directoryOf(
    cas: Partial<Record<keyof typeof names, 'both' | 'certificate' | 'key'>>,
    json?: string,
    more: Record<string, string> = {}
  ): string {
    const path = newPath();
    mkdirSync(path, { mode: 0o700 });
    const put = (name: string, text: string) =>
      writeFileSync(join(path, name), text, { mode: 0o600 });
    for (const [name, parts] of Object.entries(cas)) {
      const { certificatePem, privateKeyPem } = names[name as keyof typeof names];
      if (parts !== 'key') put(`${name}.pem`, certificatePem);
      if (parts !== 'certificate') put(`${name}-key.pem`, privateKeyPem);
    }
    if (json !== undefined) put('ca.json', json);
    for (const [name, text] of Object.entries(more)) put(name, text);
    return path;
  }

  test.each([
    ['a directory with its first CA', directoryOf({ ca: 'both' }), one, 'none', 0],
    [
      'a directory in which a CA is prepared',
      directoryOf({ ca: 'both', 'ca-2': 'both' }, '{"current":"ca","next":"ca-2"}\n'),
      one,
      'prepared',
      0,
    ],
    [
      'a directory in which a CA is active',
      directoryOf({ ca: 'both', 'ca-2': 'both' }, '{"current":"ca-2","previous":"ca"}\n'),
      two,
      'active',
      0,
    ],
    [
      'a directory with two retired CAs',
      directoryOf(
        { ca: 'certificate', 'ca-2': 'certificate', 'ca-3': 'both' },
        '{"current":"ca-3","retired":["ca","ca-2"]}\n'
      ),
      three,
      'none',
      2,
    ],
    [
      'a directory interrupted before a CA was named',
      directoryOf({ ca: 'both', 'ca-2': 'both' }, undefined, { 'ca.json.new': '{"curr' }),
      one,
      'none',
      0,
    ],
    [
      'a directory interrupted before the key of a retired CA was removed',
      directoryOf({ ca: 'both', 'ca-2': 'both' }, '{"current":"ca-2","retired":["ca"]}\n'),
      two,
      'none',
      1,
    ],
  ] as const)(
    '%s is loaded, and the rollover continues',
    async (_, path, ca, rollover, retired) => {
      const keeper = await open(await FileSecrets.open(path));
      const { authority } = keeper;
      expect(authority.certificatePem).toBe(ca.certificatePem);
      expect([authority.rollover, keeper.retired.length]).toEqual([rollover, retired]);
      if (rollover === 'none') await keeper.prepare();
      if (rollover !== 'active') await keeper.activate();
      await keeper.retire();
      keeper.close();
      expect(await afterRestart(path)).toBe('none');
      const keys = readdirSync(path).filter((name) => name.endsWith('-key.pem'));
      const { current } = JSON.parse(readFileSync(join(path, 'ca.json'), 'utf8'));
      expect(keys).toEqual([`${current}-key.pem`]);
      expect(readdirSync(path).filter((name) => name.endsWith('.new'))).toEqual([]);
    }
  );

  test('a directory whose first start was interrupted gets a CA', async () => {
    const path = directoryOf({ ca: 'key' });
    const keeper = await open(await FileSecrets.open(path));
    expect(readFileSync(join(path, 'ca.pem'), 'utf8')).toBe(keeper.authority.certificatePem);
    expect(keeper.authority.certificatePem).not.toBe(one.certificatePem);
    keeper.close();
  });

  test('a missing key, or a damaged ca.json, is refused with its path', async () => {
    const lacking = directoryOf({ ca: 'certificate' });
    await expect(open(await FileSecrets.open(lacking))).rejects.toThrow(
      new EnvironmentError(
        `the file ${join(lacking, 'ca-key.pem')} cannot be read: it does not exist`
      )
    );
    const damaged = directoryOf({ ca: 'both' }, '{"current":"../ca"}');
    await expect(open(await FileSecrets.open(damaged))).rejects.toThrow(
      `${join(damaged, 'ca.json')} is damaged`
    );
  });
});

describe('a CA that has expired', () => {
  const expired = (options: Partial<GenerateCaOptions> = {}) =>
    generateCa({
      trustDomain: TRUST_DOMAIN,
      clock: clockOf(() => Date.now() - 2 * DAY_MS),
      rootLifetimeMs: DAY_MS,
      intermediateLifetimeMs: DAY_MS,
      ...options,
    });

  async function secretsWith(ca: ReturnType<typeof generateCa>): Promise<Secrets> {
    const secrets = new MemorySecrets();
    await secrets.commit({
      'ca.pem': bytes(ca.certificatePem),
      'ca-key.pem': bytes(ca.privateKeyPem),
    });
    return secrets;
  }

  test.each([
    ['its own', false, undefined],
    ['its own, below a root', true, undefined],
    ['an operator’s', false, generateCa({ trustDomain: TRUST_DOMAIN, keyType: 'ed25519' })],
  ])(
    'is loaded with a warning; with %s as the next one a site enrols and its tunnel opens',
    async (_, intermediate, next) => {
      const old = expired({ intermediate });
      const log: string[] = [];
      const secrets = await secretsWith(old);
      const keeper = await open(secrets, { intermediate, logger: logTo(log) });
      const { authority } = keeper;
      expect(keeper.caNotAfter.getTime()).toBeLessThan(Date.now());
      expect(keeper.caWarning).toMatch(/^the CA expired on .*: prepare and activate another one/);
      expect(log).toContain(keeper.caWarning);
      const { csrPem } = newRequest();
      await expect(authority.issue(csrPem, SITE)).rejects.toThrow(CertificateError);

      // The ports open nevertheless.
      const server = new EnrolmentServer({ authority });
      const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
      const endpoints = [`https://127.0.0.1:${port}`];
      const listener = await MtlsTunnel.listen({
        host: '127.0.0.1',
        port: 0,
        ...keeper.credentials,
      });
      try {
        const early = await authority.createToken({ site: SITE.site, endpoints });
        await expect(enrol(early)).rejects.toThrow(/certificate has expired|clock here/);

        const renewed = new Promise<void>((resolve) => {
          keeper.on('credentials', (credentials) => {
            listener.updateCredentials(credentials);
            resolve();
          });
        });
        await keeper.prepare(next);
        await keeper.activate();
        await renewed;
        expect(keeper.caWarning).toBeUndefined();
        expect(authority.crlPem().match(/BEGIN X509 CRL/g)).toHaveLength(2);

        const token = await authority.createToken({ site: SITE.site, endpoints });
        const enrolment = await enrol(token);
        expect(authority.isCurrent(new X509Certificate(enrolment.cert))).toBe(true);
        const tunnel = MtlsTunnel.dial({
          endpoints: [{ host: '127.0.0.1', port: listener.port }],
          key: enrolment.key,
          cert: enrolment.cert,
          ca: enrolment.ca,
          expectedPeer: { trustDomain: TRUST_DOMAIN, role: 'cloud' },
        });
        try {
          await new Promise<void>((resolve, reject) => {
            tunnel.on('up', () => resolve());
            tunnel.on('refused', reject);
          });
        } finally {
          await tunnel.close();
        }
        await keeper.retire();
        const again = await open(secrets, { intermediate });
        expect(again.authority.spkiHash).toBe(authority.spkiHash);
        expect([again.caWarning, again.retired.length]).toEqual([undefined, 1]);
        again.close();
      } finally {
        await listener.close();
        await server.close();
        keeper.close();
      }
    }
  );

  test('is reported 60 days before its end, and again at its end, once each', async () => {
    const clock = new FakeClock({ wallMs: Math.floor(Date.now() / 1000) * 1000 });
    const secrets = await secretsWith(
      generateCa({ trustDomain: TRUST_DOMAIN, clock, rootLifetimeMs: 62 * DAY_MS })
    );
    const keeper = await open(secrets, { clock, random: () => 0 });
    const warnings: string[] = [];
    keeper.on('problem', ({ error }) => warnings.push(error.message));
    expect(keeper.caWarning).toBeUndefined();
    const pass = async (hours: number) => {
      for (let hour = 0; hour < hours; hour++) {
        clock.advance(3_600_000);
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    await pass(24);
    expect(warnings).toEqual([]);
    await pass(48);
    expect(warnings).toEqual([expect.stringMatching(/^the CA expires on .*: change it before$/)]);
    await pass(60 * 24);
    expect(warnings.slice(1)).toEqual([expect.stringMatching(/^the CA expired on /)]);

    await keeper.prepare();
    await keeper.activate();
    expect(keeper.caWarning).toBeUndefined();
    await keeper.close();
    expect(clock.delays).toEqual([]);
  });
});

function newRequest(): { csrPem: string } {
  return { csrPem: createSigningRequest(generateGatewayKey().privateKeyPem) };
}
