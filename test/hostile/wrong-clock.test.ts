/**
 * The clock of the cloud gateway is wrong for a day, which a thief waits for: the gateway starts with a fast clock,
 * prunes its store by it, and is restarted with a correct clock. Everything that was revoked or used before must
 * still be so.
 */
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  CertificateAuthority,
  createSigningRequest,
  EnrolmentServer,
  enrol,
  generateCa,
  generateGatewayKey,
  parseToken,
} from '../../src/pki/index.ts';
import { formatToken } from '../../src/pki/token.ts';
import { FileStore } from '../../src/store/index.ts';
import type { Credentials } from '../../src/tunnel/index.ts';
import { clockOf } from '../support/clock-of.ts';
import { Workspace } from '../support/gateway-process.ts';
import { dial } from './numbered-traffic.ts';
import { Cloud, desired, siteName, TRUST_DOMAIN } from './revocation-scene.ts';

const DAY_MS = 86_400_000;
const [THIEF, OTHER] = [siteName(0), siteName(1)];

/** Returns `up`, or the code with which the cloud refuses these credentials. */
async function comesUp(cloud: Cloud, credentials: Credentials): Promise<string> {
  const tunnel = dial(cloud, credentials);
  try {
    return await new Promise((resolve) => {
      tunnel.once('refused', ({ code }) => resolve(code));
      tunnel.once('up', () => resolve('up'));
    });
  } finally {
    tunnel.destroy();
  }
}

/** Opens an enrolment server, which is closed with everything else. @returns its endpoint */
async function openEnrolment({ authority }: Cloud, opened: (() => unknown)[]): Promise<string> {
  const server = new EnrolmentServer({ authority });
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 });
  opened.push(() => server.close());
  return `https://127.0.0.1:${port}`;
}

/** Returns the same token for another endpoint. */
function movedTo(endpoint: string, token: string): string {
  return formatToken({ ...parseToken(token), endpoints: [endpoint] });
}

describe.each([
  ['38 days', 38 * DAY_MS],
  ['30 years, past the end of the CA', 30 * 365 * DAY_MS],
])('a clock that was fast by %s', (_, aheadMs) => {
  const workspace = new Workspace();
  const ca = generateCa({ trustDomain: TRUST_DOMAIN });
  const opened: (() => unknown)[] = [];
  let stolen: Credentials;
  let ofKey: Credentials;
  let valid: Credentials;
  let usedToken: string;
  let unusedToken: string;
  let cloud: Cloud;

  beforeAll(async () => {
    const directory = workspace.newDirectory();
    const path = join(directory, 'store.journal');
    const life = async (now: () => number): Promise<Cloud> => {
      const store = await FileStore.open({ path });
      opened.push(() => store.close());
      const trustDomain = TRUST_DOMAIN;
      const authority = await CertificateAuthority.open({
        ...{ trustDomain, store, clock: clockOf(now) },
        ...ca,
      });
      await authority.prune();
      authority.close();
      const gateway = await Cloud.start(store, ca, desired(2), now);
      opened.push(() => gateway.close());
      return gateway;
    };
    const end = async (): Promise<void> => {
      for (const each of opened.splice(0).reverse()) await each();
    };

    const before = await life(Date.now);
    [stolen, ofKey, valid] = [
      await before.enrol(THIEF),
      await before.enrol(THIEF),
      await before.enrol(OTHER),
    ];
    const endpoint = await openEnrolment(before, opened);
    usedToken = await before.authority.createToken({ site: THIEF, endpoints: [endpoint] });
    await enrol(usedToken);
    unusedToken = await before.authority.createToken({ site: THIEF, endpoints: [endpoint] });
    for (const { cert } of [stolen, ofKey]) {
      const { serialNumber: serial } = new X509Certificate(String(cert));
      await before.revoker.revoke({ serial });
    }
    await end();

    const wrong = await life(() => Date.now() + aheadMs).catch((error: Error) => error);
    // A gateway does not start after the end of its CA, but it has pruned its store.
    if (wrong instanceof Error) expect(wrong.message).toMatch(/the CA certificate expired/);
    await end();

    cloud = await life(Date.now);
  });

  afterAll(async () => {
    for (const each of opened.splice(0).reverse()) await each();
    workspace.remove();
  });

  test('opens no tunnel for a certificate that was revoked, and renews none', async () => {
    for (const { cert, ...rest } of [stolen, ofKey]) {
      expect(await comesUp(cloud, { cert, ...rest })).toBe('revoked');
      const csrPem = createSigningRequest(generateGatewayKey().privateKeyPem);
      const renewal = cloud.authority.renew(new X509Certificate(String(cert)), csrPem);
      await expect(renewal).rejects.toThrow('is revoked');
    }
  });

  test('refuses a token that was used, or that was removed as expired', async () => {
    const endpoint = await openEnrolment(cloud, opened);
    for (const token of [usedToken, unusedToken]) {
      await expect(enrol(movedTo(endpoint, token))).rejects.toThrow(
        /token is not known|has been used/
      );
    }
  });

  test('still knows valid certificates: they are revoked with their site, and stay so', async () => {
    expect(await comesUp(cloud, valid)).toBe('up');
    await cloud.revoker.revoke({ site: OTHER });
    await cloud.revoker.reinstate(OTHER);
    expect(await comesUp(cloud, valid)).toBe('revoked');
    expect(await comesUp(cloud, await cloud.enrol(OTHER))).toBe('up');
  });
});
