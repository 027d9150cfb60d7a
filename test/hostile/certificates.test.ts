/**
 * Certificates at the tunnel port that are invalid, expired, revoked, or not the holder's, and TLS sessions
 * from before a revocation.
 */
import { execFile } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Credentials, FrameType } from '../../src/tunnel/index.ts';
import {
  CLIENT_AUTH,
  credentialsOf,
  Forge,
  keyWithPublicHalfOf,
  type Leaf,
  nameOf,
  type Signer,
  subjectAltName,
  USES_OF_SITE,
} from '../support/openssl.ts';
import { HELLO } from '../support/raw-peer.ts';
import { answerOf, connect, ended, leave, openTunnel } from './attacker.ts';
import { FULL, Scene } from './scene.ts';

const forge = new Forge();
let scene: Scene;
let ca: Signer;

beforeAll(async () => {
  scene = await Scene.open();
  const file = (name: string) => readFileSync(join(scene.home, 'state', name), 'utf8');
  ca = { cert: file('ca.pem'), key: file('ca-key.pem') };
});

afterAll(async () => {
  forge.close();
  await scene?.close();
});

/** Returns a valid certificate of site-a, except for these changes. */
const forged = (but: readonly string[], leaf: Leaf = {}, signer = ca): Credentials =>
  credentialsOf(forge.leaf(signer, { extensions: [...USES_OF_SITE, ...but], ...leaf }), ca.cert);
const good = [CLIENT_AUTH, subjectAltName(nameOf('site-a'))];

/** Connects with the credentials, sends HELLO, and returns the reason of the refusal. */
async function turnedAway(credentials: Partial<Credentials>): Promise<string | undefined> {
  const peer = connect(scene.ports.tunnel, credentials);
  peer.send(FrameType.Hello, HELLO);
  const why = await ended(peer);
  return why ?? peer.error?.code;
}

describe('a certificate', () => {
  test('is accepted if it is valid, and otherwise like the refused ones', async () => {
    await leave(await openTunnel(scene.ports.tunnel, forged(good)));
  });

  const AGO = (days: number): Date => new Date(Date.now() - days * 86_400_000);
  const wrong: readonly [what: string, counter: string, make: () => Partial<Credentials>][] = [
    ['a missing certificate', 'failed.no-certificate', () => ({ ca: ca.cert })],
    [
      'one for servers only',
      'failed.INVALID_PURPOSE',
      () => forged(['extendedKeyUsage = serverAuth', good[1]!]),
    ],
    ['one without a purpose', 'refused.wrong-identity', () => forged([good[1]!])],
    [
      'one whose name is a DNS name',
      'refused.wrong-identity',
      () => forged([CLIENT_AUTH, subjectAltName('DNS:site-a.openstack.test')]),
    ],
    [
      'one of another trust domain',
      'refused.wrong-identity',
      () => forged([CLIENT_AUTH, subjectAltName(nameOf('site-a', 'example.org'))]),
    ],
    [
      'one of a cloud gateway',
      'refused.wrong-identity',
      () => forged([CLIENT_AUTH, subjectAltName('URI:spiffe://openstack.test/cloud')]),
    ],
    [
      'one with two names',
      'refused.wrong-identity',
      () => forged([CLIENT_AUTH, subjectAltName(nameOf('site-a'), nameOf('site-b'))]),
    ],
    [
      'one with a name that contains two',
      'refused.wrong-identity',
      () =>
        forged([
          CLIENT_AUTH,
          'subjectAltName = @names',
          '[names]',
          `URI.1 = "spiffe://openstack.test/site/site-a\\, URI:spiffe://openstack.test/site/site-b"`,
        ]),
    ],
    [
      'one with the name in its subject',
      'refused.wrong-identity',
      () => forged([CLIENT_AUTH], { subject: '/CN=site-a' }),
    ],
    [
      'one of a site that does not exist',
      'refused.unknown-site',
      () => forged([CLIENT_AUTH, subjectAltName(nameOf('site-x'))]),
    ],
    [
      'an expired one',
      'failed.CERT_HAS_EXPIRED',
      () => forged(good, { from: AGO(40), to: AGO(10) }),
    ],
    [
      'one that is not valid yet',
      'failed.CERT_NOT_YET_VALID',
      () => forged(good, { from: AGO(-1), to: AGO(-9) }),
    ],
    [
      'one of an unknown CA',
      'failed.UNABLE_TO_VERIFY_LEAF_SIGNATURE',
      () => forged(good, {}, forge.root('/CN=another CA')),
    ],
    [
      'one of its own chain, with the names of the real CAs',
      'failed.SELF_SIGNED_CERT_IN_CHAIN',
      () => {
        const root = forge.root(`/CN=${new X509Certificate(ca.cert).subject.replace(/^CN=/, '')}`);
        const leaf = forge.leaf(root, { extensions: [...USES_OF_SITE, ...good] });
        return credentialsOf(leaf, ca.cert, root);
      },
    ],
    [
      'a self-signed one',
      'failed.DEPTH_ZERO_SELF_SIGNED_CERT',
      () => credentialsOf(forge.root('/CN=site-a', ...good), ca.cert),
    ],
    [
      'one signed by a site’s certificate',
      'failed.(INVALID_CA|UNSPECIFIED)',
      () => {
        const { key, cert } = scene.siteA as { key: string; cert: string };
        const name = subjectAltName(nameOf('site-b'));
        const leaf = forge.leaf(
          { key, cert },
          { extensions: [...USES_OF_SITE, CLIENT_AUTH, name] }
        );
        return credentialsOf(leaf, ca.cert, { key, cert });
      },
    ],
    [
      'one whose key the peer does not have',
      'failed.ERR_SSL_(BAD_SIGNATURE|PROVIDER_SIGNATURE_FAILURE)',
      () => {
        const { key, cert } = forged([CLIENT_AUTH, subjectAltName(nameOf('site-b'))]);
        return { key: keyWithPublicHalfOf(forge.newKey(), key as string), cert, ca: ca.cert };
      },
    ],
  ];

  test.each(wrong)('is refused, and counted: %s as %s', async (what, counter, make) => {
    const credentials = make();
    const times = FULL ? 50 : 1;
    const outcome = await scene.attack(`a certificate ${what}`, async () => {
      for (let i = 0; i < times; i++) expect(await turnedAway(credentials)).not.toBe('still up');
    });
    expect(outcome.passed).toBe(0);
    const counted = outcome.countedAs(new RegExp(`^listener\\.${counter}$`));
    expect(counted, JSON.stringify(outcome.differences)).toBe(times);
    // These are the credentials of the legitimate edge after the attack.
    expect(outcome.counted('listener.accepted')).toBe(1);
  });
});

describe('a revocation', () => {
  const revoke = async (scope: object): Promise<void> => {
    const { status, body } = await scene.callAdmin('POST', '/v1/revocations', scope);
    expect(status, JSON.stringify(body)).toBe(201);
  };
  const refused = async (what: string, credentials: Credentials): Promise<void> => {
    const outcome = await scene.attack(what, async () => {
      expect(await turnedAway(credentials)).toBe('revoked');
    });
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({ 'listener.refused.revoked': 1 });
  };

  test('ends the tunnel of a serial number and refuses it, but not the site’s other certificate', async () => {
    const one = await scene.enrol('site-a');
    const peer = await openTunnel(scene.ports.tunnel, one);
    await revoke({ serial: new X509Certificate(one.cert).serialNumber.toLowerCase() });
    expect(await ended(peer)).toBe('revoked');
    await refused('revoked by serial number', one);
  });

  test('refuses every certificate of a key, also one that is issued later', async () => {
    const one = await scene.enrol('site-e');
    const peer = await openTunnel(scene.ports.tunnel, one);
    const { publicKey } = new X509Certificate(one.cert);
    await revoke({ spki: spkiHash(publicKey.export({ type: 'spki', format: 'der' })) });
    expect(await ended(peer)).toBe('revoked');
    await refused('revoked by key', one);
    for (const site of ['site-e', 'site-a']) {
      const again = forged([CLIENT_AUTH, subjectAltName(nameOf(site))], { key: one.key as string });
      await refused(`a revoked key as ${site}`, again);
    }
  });

  test('refuses every certificate of a site, also one that is issued later', async () => {
    const one = await scene.enrol('site-d');
    await revoke({ site: 'site-d' });
    await refused('revoked by site', one);
    await refused('a new one', forged([CLIENT_AUTH, subjectAltName(nameOf('site-d'))]));
  });
});

describe('a session from before the revocation', () => {
  test('is not resumed by node, neither before nor after it', async () => {
    const one = await scene.enrol('site-a');
    const sessions: Buffer[] = [];
    const first = connect(scene.ports.tunnel, one);
    first.socket.on('session', (session) => sessions.push(session));
    first.send(FrameType.Hello, HELLO);
    await first.json(FrameType.Welcome);
    const resume = async (): Promise<boolean> => {
      const session = sessions.at(-1) ?? first.socket.getSession();
      const peer = connect(scene.ports.tunnel, one, session === undefined ? {} : { session });
      peer.send(FrameType.Hello, HELLO);
      const answered = answerOf(peer);
      await once(peer.socket, 'secureConnect');
      const isReused = peer.socket.isSessionReused();
      await answered;
      await leave(peer);
      return isReused;
    };
    expect(await resume()).toBe(false);
    const serial = new X509Certificate(one.cert).serialNumber.toLowerCase();
    const outcome = await scene.attack('resumed by node', async () => {
      await scene.callAdmin('POST', '/v1/revocations', { serial });
      expect(await resume()).toBe(false);
    });
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({ 'listener.refused.revoked': 1 });
  });

  test('is not resumed by openssl, and its early data is not read', async () => {
    const one = await scene.enrol('site-a');
    const file = (name: string, text: string | Buffer): string => {
      const path = join(scene.home, name);
      writeFileSync(path, text);
      return path;
    };
    const session = join(scene.home, 'session.pem');
    const client = [
      ...['s_client', '-connect', `127.0.0.1:${scene.ports.tunnel}`, '-alpn', 'virtual-presence/1'],
      ...['-cert', file('one.pem', one.cert as string), '-key', file('one.key', one.key as string)],
      ...['-CAfile', file('trust.pem', one.ca as string), '-tls1_3'],
    ];
    await sClient([...client, '-sess_out', session]);
    // Without a ticket openssl writes no session, or one that cannot be resumed.
    const resume = existsSync(session) ? ['-sess_in', session] : [];
    const serial = new X509Certificate(one.cert).serialNumber.toLowerCase();
    const early = ['-early_data', file('early', 'x'.repeat(100))];
    const outcome = await scene.attack('resumed by openssl', async () => {
      await scene.callAdmin('POST', '/v1/revocations', { serial });
      for (const more of [[], early]) {
        const said = await sClient([...client, ...resume, ...more]);
        expect(said).not.toMatch(/Reused, /);
        expect(said).not.toMatch(/Early data was accepted/);
      }
    });
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({ 'listener.refused.revoked': 2 });
  });
});

/** Returns what openssl prints of the connection, which the server or the lack of `-ign_eof` ends. */
async function sClient(args: readonly string[]): Promise<string> {
  const child = promisify(execFile)('openssl', [...args], { timeout: S_CLIENT_MS });
  const { stdout, stderr } = await child.catch(
    (error) => error as { stdout: string; stderr: string }
  );
  return `${stdout}\n${stderr}`;
}

function spkiHash(der: Buffer): string {
  return createHash('sha256').update(der).digest('base64url');
}

const S_CLIENT_MS = 2_000;
