/**
 * The credentials of an edge gateway: from a token, on a disk that is full for a while, in the files of an earlier
 * version, and through a rollover of the cloud's CA.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import {
  type ControlClient,
  ControlServer,
  type PresenceController,
} from '../../src/control/index.ts';
import { CertificateError, EnrolmentError, EnvironmentError } from '../../src/errors.ts';
import {
  CredentialKeeper,
  SiteCredentials,
  type SiteCredentialsOptions,
} from '../../src/gateway/index.ts';
import {
  CertificateAuthority,
  type Credentials,
  createSigningRequest,
  EnrolmentServer,
  generateCa,
  generateGatewayKey,
  identityOfCredentials,
} from '../../src/pki/index.ts';
import {
  FileSecrets,
  type Json,
  MemorySecrets,
  MemoryStore,
  type Secrets,
} from '../../src/store/index.ts';
import type { MtlsTunnel } from '../../src/tunnel/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FaultySecrets } from './faulty-secrets.ts';
import { logTo } from './scene.ts';

const SITE = { trustDomain: 'openstack.test', role: 'site', site: 'site-a' } as const;

const home = mkdtempSync(join(tmpdir(), 'credentials-'));
let directories = 0;
let authority: CertificateAuthority;
let server: EnrolmentServer;
let port: number;

beforeAll(async () => {
  const { trustDomain } = SITE;
  authority = await CertificateAuthority.open({
    ...generateCa({ trustDomain }),
    trustDomain,
    store: new MemoryStore(),
  });
  server = new EnrolmentServer({ authority });
  ({ port } = await server.listen({ host: '127.0.0.1', port: 0 }));
});

afterAll(async () => {
  await server?.close();
  authority?.close();
  rmSync(home, { recursive: true });
});

async function newToken(site: string = SITE.site): Promise<string> {
  return authority.createToken({ site, endpoints: [`https://127.0.0.1:${port}`] });
}

async function newCredentials(lifetimeMs?: number): Promise<Credentials> {
  const { privateKeyPem } = generateGatewayKey();
  const csrPem = createSigningRequest(privateKeyPem);
  const { certificatePem } = await authority.issue(csrPem, SITE, {
    ...(lifetimeMs === undefined ? {} : { lifetimeMs }),
  });
  return { key: privateKeyPem, cert: certificatePem, ca: authority.trustBundlePem };
}

const serialOf = ({ cert }: Credentials): string => new X509Certificate(cert).serialNumber;

const noToken = (): never => {
  throw new EnvironmentError('there is no token');
};

const reopen = (secrets: Secrets, options: Partial<SiteCredentialsOptions> = {}) =>
  SiteCredentials.open({ secrets, token: noToken, ...options });

interface Scene {
  readonly secrets: FaultySecrets;
  readonly site: SiteCredentials;
  /** The current token. */
  token: string;
}

async function scene(): Promise<Scene> {
  const secrets = new FaultySecrets(new MemorySecrets());
  const holder = { token: await newToken() };
  const site = await SiteCredentials.open({ secrets, token: () => holder.token });
  return Object.assign(holder, { secrets, site });
}

/** Secrets that hold these credentials. */
async function secretsWith(credentials: Credentials): Promise<Secrets> {
  const secrets = new MemorySecrets();
  await secrets.commit({
    'key.pem': Buffer.from(credentials.key),
    'certificate.pem': Buffer.from(credentials.cert),
    'ca.pem': Buffer.from(credentials.ca),
  });
  return secrets;
}

describe('SiteCredentials', () => {
  test('tests that it can store the certificate before it uses up the token', async () => {
    const secrets = new FaultySecrets(new MemorySecrets());
    const token = await newToken();
    secrets.failAfter = 0;
    const opening = () => SiteCredentials.open({ secrets, token: () => token });
    await expect(opening()).rejects.toThrow('the disk is full');
    secrets.failAfter = undefined;
    expect((await opening()).identity).toEqual(SITE);
    expect((await reopen(secrets)).identity).toEqual(SITE);
  });

  test('keeps the certificate of a token until it can be stored', async () => {
    for (let failAfter = 0; failAfter < 6; failAfter++) {
      const now = await scene();
      const { secrets, site } = now;
      now.token = await newToken();
      secrets.failAfter = failAfter;
      secrets.isBroken = true;
      const failure = await site.enrolAnew().catch((error: Error) => error);
      secrets.failAfter = undefined;
      secrets.isBroken = false;
      if (!(failure instanceof Error)) {
        expect(failAfter).toBe(3);
        return;
      }
      expect(failure.message).toBe('the disk is full');
      const credentials = await site.enrolAnew();
      expect(serialOf((await reopen(secrets)).credentials)).toBe(serialOf(credentials));
      expect(serialOf(site.credentials)).toBe(serialOf(credentials));
    }
    throw new Error('it never succeeded');
  });

  test('tries a refused token only once, and refuses a token of another site', async () => {
    const now = await scene();
    const { site } = now;
    const used = now.token;
    await expect(site.enrolAnew()).rejects.toThrow(/used/);
    await expect(site.enrolAnew()).rejects.toThrow('there is no new token');
    await expect(site.enrolAnew(await newToken('site-b'))).rejects.toThrow(
      'the token is for "site-b", not for "site-a"'
    );
    const before = serialOf(site.credentials);
    await site.enrolAnew(await newToken());
    expect(serialOf(site.credentials)).not.toBe(before);
    await expect(site.enrolAnew(used)).rejects.toThrow(EnrolmentError);
  });

  test('replaces an expired or unfitting certificate with a token; without one it says what to do', async () => {
    const credentials = await newCredentials(60_000);
    const other = await newCredentials();
    const later = new FakeClock({ wallMs: Date.now() + 3_600_000 });
    const unfit = { ...credentials, key: other.key };
    for (const [found, clock, fault] of [
      [credentials, later, /^certificate\.pem expired on .*: bring a token \(there is no token\)$/],
      [
        unfit,
        systemClock,
        /^key\.pem, certificate\.pem and ca\.pem do not fit together: .*another key.*token/,
      ],
    ] as const) {
      const secrets = await secretsWith(found);
      const opening = reopen(secrets, { clock, remedy: 'bring a token' });
      await expect(opening).rejects.toThrow(CertificateError);
      await expect(opening).rejects.toThrow(fault);
      const token = await newToken();
      const site = await reopen(secrets, { clock, token: () => token });
      expect(serialOf(site.credentials)).not.toBe(serialOf(found));
      expect(serialOf((await reopen(secrets)).credentials)).toBe(serialOf(site.credentials));
    }
  });

  test('refuses a certificate that is damaged, or is not a site’s, and names the file', async () => {
    const credentials = await newCredentials();
    const { certificatePem } = await authority.issue(createSigningRequest(credentials.key), {
      trustDomain: SITE.trustDomain,
      role: 'cloud',
    });
    for (const [text, fault] of [
      ['damaged', 'certificate.pem is damaged'],
      [certificatePem, 'certificate.pem is not the certificate of a site'],
    ] as const) {
      const secrets = await secretsWith({ ...credentials, cert: text });
      await expect(reopen(secrets)).rejects.toThrow(fault);
    }
    const secrets = await secretsWith(credentials);
    await secrets.commit({ 'key.pem': undefined });
    await expect(reopen(secrets)).rejects.toThrow('key.pem cannot be read: it does not exist');
  });

  test('loads the files of an earlier version that was interrupted at any step of any two renewals', async () => {
    let rounds = 0;
    for (let first = 0; first <= 4; first++) {
      for (let second = 0; second <= 4; second++) {
        const path = join(home, String(directories++));
        mkdirSync(path, { mode: 0o700 });
        const old = new EarlierVersion(path);
        old.save(await newCredentials());
        const [one, two] = [await newCredentials(), await newCredentials()];
        old.save(one, first);
        old.save(two, second);
        const site = await reopen(await FileSecrets.open(path));
        expect(identityOfCredentials(site.credentials)).toEqual(SITE);
        if (second >= 3) expect(serialOf(site.credentials)).toBe(serialOf(two));
        if (second < 3 && first >= 3) expect(serialOf(site.credentials)).toBe(serialOf(one));
        expect(readdirSync(path).sort()).toEqual(['ca.pem', 'certificate.pem', 'key.pem']);
        // From here on this version stores the credentials.
        await site.save(two);
        expect(serialOf((await reopen(await FileSecrets.open(path))).credentials)).toBe(
          serialOf(two)
        );
        rounds++;
      }
    }
    expect(rounds).toBe(25);
  });
});

/** Stores credentials as earlier versions did: one file after the other, in this order. */
class EarlierVersion {
  readonly #path: string;
  #files: Map<string, string> = new Map();

  constructor(path: string) {
    this.#path = path;
  }

  /** @param steps how many steps are done before the interruption */
  save(credentials: Credentials, steps = 4): void {
    this.#finishChange();
    const write = (name: string, text: string) => this.#files.set(name, text);
    const all = [
      () => write('next-key.pem', credentials.key),
      () => write('ca.pem', credentials.ca),
      () => write('certificate.pem', credentials.cert),
      () => this.#renameKey(),
    ];
    for (const step of all.slice(0, steps)) step();
    rmSync(this.#path, { recursive: true });
    mkdirSync(this.#path, { mode: 0o700 });
    for (const [name, text] of this.#files) {
      writeFileSync(join(this.#path, name), text, { mode: 0o600 });
    }
  }

  #finishChange(): void {
    const next = this.#files.get('next-key.pem');
    if (next === undefined) return;
    const certificate = new X509Certificate(this.#files.get('certificate.pem')!);
    const key = this.#files.get('key.pem')!;
    const isDone = !certificate.checkPrivateKey(createPrivateKey(key));
    if (isDone) this.#renameKey();
    else this.#files.delete('next-key.pem');
  }

  #renameKey(): void {
    this.#files.set('key.pem', this.#files.get('next-key.pem')!);
    this.#files.delete('next-key.pem');
  }
}

describe('CredentialKeeper', () => {
  test('applies the certificate of a token to the tunnel, also when the first attempt fails', async () => {
    const now = await scene();
    now.token = await newToken();
    const applied: Credentials[] = [];
    let isBroken = true;
    const tunnel = Object.assign(new EventEmitter(), {
      updateCredentials: async (credentials: Credentials) => {
        if (isBroken) throw new Error('the connection broke');
        applied.push(credentials);
      },
    });
    const log: string[] = [];
    const keeper = new CredentialKeeper({
      credentials: now.site,
      control: new EventEmitter() as unknown as ControlClient,
      tunnel: tunnel as unknown as MtlsTunnel,
      logger: logTo(log),
    });
    expect(await keeper.enrolAnew()).toBe(false);
    expect(log.at(-1)).toMatch(/^site-a: not enrolled again: the connection broke/);
    isBroken = false;
    expect(await keeper.enrolAnew()).toBe(true);
    const stored = await reopen(now.secrets);
    expect(applied.map(({ cert }) => cert)).toEqual([stored.credentials.cert]);
    // After it was applied, the next enrolment needs a token.
    expect(await keeper.enrolAnew()).toBe(false);
    expect(applied).toHaveLength(1);
    await keeper.enrol(await newToken());
    expect(applied).toHaveLength(2);
    await keeper.close();
  });

  test('redeems a new token when the tunnel is refused because of its certificate, and for no other reason', async () => {
    const now = await scene();
    const edge = new Edge(now.site, new FakeClock({ wallMs: Date.now() }));
    now.token = await newToken();
    edge.tunnel.emit('refused', { error: new Error('refused'), code: 'unknown-site' });
    await settle();
    expect(edge.applied).toEqual([]);
    const enrolled = new Promise((resolve) => edge.onApplied.push(resolve));
    edge.tunnel.emit('refused', { error: new Error('refused'), code: 'revoked' });
    await enrolled;
    expect(edge.applied).toHaveLength(1);
    edge.keeper.close();
  });

  test('renews a thousand edges one after the other when the CA changes, 20 per second', {
    timeout: 120_000,
  }, async () => {
    const clock = new FakeClock({ wallMs: Date.now() });
    const credentials = await newCredentials();
    const certificate = new X509Certificate(credentials.cert);
    let renew = false;
    const controller = Object.assign(new EventEmitter(), { snapshot: () => undefined });
    const server = new ControlServer(controller as unknown as PresenceController, {
      trust: {
        trust: () => ({ caPem: credentials.ca, renew }),
        renew: () => Promise.reject(new Error('it is called elsewhere')),
      },
    });
    const secrets = await secretsWith(credentials);
    const edges: Edge[] = [];
    for (let i = 0; i < 1000; i++) {
      const edge = new Edge(await reopen(secrets), clock);
      edges.push(edge);
      server.attach(`site-${i}`, edge.channel(certificate), () => {});
    }
    await settle();
    expect(edges.every(({ requests }) => requests === 0)).toBe(true);

    renew = true;
    server.announceTrust();
    await settle();
    const renewed = () => edges.filter(({ requests }) => requests > 0).length;
    let before = 0;
    for (let second = 1; second <= 50; second++) {
      for (let step = 0; step < 4; step++) {
        clock.advance(250);
        await settle();
      }
      const count = renewed();
      expect(count - before).toBeLessThanOrEqual(21);
      before = count;
    }
    expect(before).toBe(1000);

    // An edge that connects in the meantime does not wait.
    const late = new Edge(await reopen(secrets), clock);
    server.attach('site-late', late.channel(certificate), () => {});
    await settle();
    clock.advance(0);
    await settle();
    expect(late.requests).toBe(1);
    for (const { keeper } of [...edges, late]) keeper.close();
    server.close();
  });
});

/** An edge's keeper between a control channel and a tunnel that only record calls. */
class Edge {
  readonly keeper: CredentialKeeper;
  readonly control = new EventEmitter();
  readonly tunnel = new EventEmitter();
  readonly applied: Credentials[] = [];
  readonly onApplied: ((value: unknown) => void)[] = [];
  requests = 0;

  constructor(credentials: SiteCredentials, clock: FakeClock) {
    this.keeper = new CredentialKeeper({
      credentials,
      control: Object.assign(this.control, {
        renew: () => {
          this.requests++;
          return new Promise<never>(() => {});
        },
      }) as unknown as ControlClient,
      tunnel: Object.assign(this.tunnel, {
        updateCredentials: async (applied: Credentials) => {
          this.applied.push(applied);
          for (const each of this.onApplied.splice(0)) each(undefined);
        },
      }) as unknown as MtlsTunnel,
      random: () => 0,
      clock,
    });
  }

  /** The cloud's end of the control channel. */
  channel(certificate: X509Certificate) {
    return {
      certificate,
      sendControl: (message: Json) => this.control.emit('trust', message),
      on: () => {},
      off: () => {},
    };
  }
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
}
