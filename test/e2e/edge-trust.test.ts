/**
 * The edge's key and certificate on a disk that is full for a while.
 */
import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CertificateKeeper } from '../../examples/edge-gateway/certificate-keeper.ts';
import { EdgeTrust } from '../../examples/edge-gateway/trust.ts';
import { StateDirectory } from '../../examples/program/files.ts';
import {
  CertificateAuthority,
  type ControlClient,
  createSigningRequest,
  type DialledTunnel,
  EnrolmentServer,
  type GatewayCredentials,
  generateGatewayKey,
  identityOfCredentials,
  MemoryStore,
  type TunnelCredentials,
} from '../../src/index.ts';
import { Workspace } from './gateway-process.ts';

const SITE = { trustDomain: 'openstack.test', role: 'site', site: 'site-a' } as const;

const workspace = new Workspace();
let authority: CertificateAuthority;
let server: EnrolmentServer;
let port: number;

beforeAll(async () => {
  const { trustDomain } = SITE;
  authority = await CertificateAuthority.create({ trustDomain, store: new MemoryStore() });
  server = new EnrolmentServer({ authority });
  ({ port } = await server.listen({ host: '127.0.0.1', port: 0 }));
});

afterAll(async () => {
  await server?.close();
  authority?.close();
  workspace.remove();
});

/** A directory in which some operations fail on demand. */
class FaultyDirectory extends StateDirectory {
  /** How many operations succeed before all others fail. */
  budget: number = Number.POSITIVE_INFINITY;

  override write(name: string, text: string): void {
    this.#spend();
    super.write(name, text);
  }

  override rename(name: string, newName: string): void {
    this.#spend();
    super.rename(name, newName);
  }

  #spend(): void {
    if (this.budget-- <= 0) throw new Error('the disk is full');
  }
}

async function newToken(): Promise<string> {
  const endpoints = [`https://127.0.0.1:${port}`];
  return authority.createToken({ site: SITE.site, endpoints });
}

async function newCredentials(): Promise<GatewayCredentials> {
  const { privateKeyPem } = generateGatewayKey();
  const csrPem = createSigningRequest(privateKeyPem);
  const { certificatePem } = await authority.issue(csrPem, SITE);
  return { privateKeyPem, certificatePem, caPem: authority.trustBundlePem };
}

const serialOf = ({ certificatePem }: GatewayCredentials): string =>
  new X509Certificate(certificatePem).serialNumber;

async function scene(): Promise<{
  home: string;
  state: FaultyDirectory;
  tokenFile: string;
  trust: EdgeTrust;
}> {
  const home = workspace.newDirectory();
  const tokenFile = join(home, 'token');
  writeFileSync(tokenFile, await newToken());
  const state = new FaultyDirectory(join(home, 'state'));
  return { home, state, tokenFile, trust: await EdgeTrust.open(state, tokenFile) };
}

describe('EdgeTrust', () => {
  test('asks for a place to keep the certificate before it spends the token', async () => {
    const home = workspace.newDirectory();
    const tokenFile = join(home, 'token');
    writeFileSync(tokenFile, await newToken());
    const state = new FaultyDirectory(join(home, 'state'));
    state.budget = 0;
    await expect(EdgeTrust.open(state, tokenFile)).rejects.toThrow('the disk is full');
    state.budget = Number.POSITIVE_INFINITY;
    expect((await EdgeTrust.open(state, tokenFile)).identity).toEqual(SITE);
  });

  test('keeps what a token has brought until it can be stored', async () => {
    for (let budget = 0; budget < 6; budget++) {
      const { state, tokenFile, trust } = await scene();
      writeFileSync(tokenFile, await newToken());
      state.budget = budget;
      const failure = await trust.enrolAnew().catch((error: Error) => error);
      state.budget = Number.POSITIVE_INFINITY;
      if (!(failure instanceof Error)) {
        expect(budget).toBeGreaterThan(3);
        return;
      }
      expect(failure.message).toBe('the disk is full');
      const credentials = await trust.enrolAnew();
      const reopened = await EdgeTrust.open(new StateDirectory(state.path), tokenFile);
      expect(serialOf(reopened.credentials)).toBe(serialOf(credentials));
    }
    throw new Error('it never succeeded');
  });

  test('finds a key that fits after any two renewals of which the first was interrupted anywhere', async () => {
    let rounds = 0;
    for (let first = 0; first <= 4; first++) {
      for (let second = 0; second <= 4; second++) {
        const { state, tokenFile, trust } = await scene();
        for (const budget of [first, second]) {
          state.budget = budget;
          const credentials = await newCredentials();
          try {
            trust.save(credentials);
          } catch (error) {
            expect((error as Error).message).toBe('the disk is full');
          }
        }
        // The token is spent, so what does not fit cannot be mended by it.
        const reopened = await EdgeTrust.open(new StateDirectory(state.path), tokenFile);
        expect(identityOfCredentials(reopened.credentials)).toEqual(SITE);
        rounds++;
      }
    }
    expect(rounds).toBe(25);
  });
});

describe('CertificateKeeper', () => {
  test('has the tunnel take what a token has brought, also when it could not at first', async () => {
    const { tokenFile, trust } = await scene();
    writeFileSync(tokenFile, await newToken());
    const shown: TunnelCredentials[] = [];
    let isBroken = true;
    const tunnel = Object.assign(new EventEmitter(), {
      renew: async (credentials: TunnelCredentials) => {
        if (isBroken) throw new Error('the connection broke');
        shown.push(credentials);
      },
    });
    const log: string[] = [];
    const keeper = new CertificateKeeper({
      trust,
      control: new EventEmitter() as unknown as ControlClient,
      tunnel: tunnel as unknown as DialledTunnel,
      log: (line) => log.push(line),
    });
    expect(await keeper.enrolAnew()).toBe(false);
    expect(log.at(-1)).toMatch(/the connection broke/);
    isBroken = false;
    expect(await keeper.enrolAnew()).toBe(true);
    const stored = await EdgeTrust.open(new StateDirectory(join(tokenFile, '../state')), tokenFile);
    expect(shown.map(({ cert }) => cert)).toEqual([stored.credentials.certificatePem]);
    // Once it is taken, the next enrolment needs a token.
    expect(await keeper.enrolAnew()).toBe(false);
    expect(shown).toHaveLength(1);
    keeper.close();
  });
});
