/**
 * The door at which new sites enrol, which is open to every unauthenticated peer.
 */
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  createSigningRequest,
  enrol,
  generateGatewayKey,
  parseToken,
} from '../../src/pki/index.ts';
import { halfOpen } from './attacker.ts';
import { FULL, Scene } from './scene.ts';

let scene: Scene;
const csrPem = createSigningRequest(generateGatewayKey().privateKeyPem);

beforeAll(async () => {
  scene = await Scene.open();
});

afterAll(() => scene?.close());

interface Answer {
  /** 0 if the connection was cut. */
  readonly status: number;
  readonly body: string;
}

/** A request as an unauthenticated peer would make it. */
function post(body: string | Buffer, localAddress = '127.0.0.66'): Promise<Answer> {
  return new Promise((resolve) => {
    const outgoing = request({
      host: '127.0.0.1',
      port: scene.ports.enrolment,
      path: '/v1/enrol',
      method: 'POST',
      localAddress,
      agent: false,
      rejectUnauthorized: false,
      headers: { 'content-length': Buffer.byteLength(body) },
    });
    outgoing.on('error', () => resolve({ status: 0, body: '' }));
    outgoing.on('response', (response) => {
      text(response).then(
        (answer) => resolve({ status: response.statusCode ?? 0, body: answer }),
        () => resolve({ status: 0, body: '' })
      );
    });
    outgoing.end(body);
  });
}

describe('a token', () => {
  test('that was used is good for nothing', async () => {
    const token = await scene.token('site-c');
    await enrol(token);
    const outcome = await scene.attack('a used token', async () => {
      const { id, secret } = parseToken(token);
      const { status, body } = await post(JSON.stringify({ tokenId: id, secret, csrPem }));
      expect(status).toBe(403);
      expect(JSON.parse(body)).toMatchObject({ code: 'ERR_PRESENCE_ENROLMENT_USED' });
    });
    expect(outcome.differences).toMatchObject({ 'enrolment.refused': 1 });
    expect(outcome.counted('enrolment.enrolled')).toBe(0);
  });

  test('that is too old is good for nothing', async () => {
    const asked = { site: 'site-c', lifetimeSeconds: 1 };
    const { body } = await scene.ask('POST', '/v1/tokens', asked);
    const { id, secret } = parseToken(body.token!);
    const outcome = await scene.attack('an old token', async () => {
      await delay(1_100);
      const answer = await post(JSON.stringify({ tokenId: id, secret, csrPem }));
      expect(answer.status).toBe(403);
      expect(JSON.parse(answer.body)).toMatchObject({ code: 'ERR_PRESENCE_ENROLMENT_EXPIRED' });
    });
    expect(outcome.differences).toMatchObject({ 'enrolment.refused': 1 });
    expect(outcome.counted('enrolment.enrolled')).toBe(0);
  });

  test('that many use at once is good for one', async () => {
    const { id, secret } = parseToken(await scene.token('site-c'));
    const answers: Answer[] = [];
    const outcome = await scene.attack('a token that many have', async () => {
      const body = JSON.stringify({ tokenId: id, secret, csrPem });
      answers.push(...(await Promise.all(Array.from({ length: 30 }, () => post(body)))));
    });
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(outcome.counted('enrolment.enrolled')).toBe(1);
  });

  test('is not used up by a signing request that is none', async () => {
    const token = await scene.token('site-c');
    const { id, secret } = parseToken(token);
    const outcome = await scene.attack('a signing request that is none', async () => {
      for (const none of ['x', csrPem.replace('A', 'B'), csrPem.slice(0, -40)]) {
        const body = JSON.stringify({ tokenId: id, secret, csrPem: none });
        expect((await post(body)).status).toBe(400);
      }
      await enrol(token);
    });
    expect(outcome.differences).toMatchObject({
      'enrolment.refused': 3,
      'enrolment.enrolled': 1,
    });
  });

  test('of one site makes nobody another one, whatever is asked for', async () => {
    const { id, secret } = parseToken(await scene.token('site-c'));
    const asked = requestFor('/CN=site-b', 'URI:spiffe://openstack.test/site/site-b');
    const outcome = await scene.attack('a request for another site', async () => {
      const { status, body } = await post(JSON.stringify({ tokenId: id, secret, csrPem: asked }));
      expect(status, body).toBe(200);
      const leaf = new X509Certificate(JSON.parse(body).certificatePem);
      expect(leaf.subjectAltName).toBe('URI:spiffe://openstack.test/site/site-c');
      expect(leaf.subject).not.toMatch(/site-b/);
    });
    expect(outcome.differences).toMatchObject({ 'enrolment.enrolled': 1 });
  });

  test('is not guessed, and guesses over the rate are not heard', async () => {
    const token = await scene.token('site-c');
    const { id } = parseToken(token);
    const count = FULL ? 10_000 : 600;
    const statuses = new Map<number, number>();
    const started = performance.now();
    const outcome = await scene.attack('guesses of a secret', async () => {
      let left = count;
      const guess = async (): Promise<void> => {
        while (left-- > 0) {
          const secret = Buffer.from(crypto.getRandomValues(new Uint8Array(32)));
          const body = { tokenId: id, secret: secret.toString('base64url'), csrPem };
          const { status } = await post(JSON.stringify(body));
          statuses.set(status, (statuses.get(status) ?? 0) + 1);
        }
      };
      await Promise.all(Array.from({ length: 20 }, guess));
    });
    const heard = statuses.get(403) ?? 0;
    const seconds = (performance.now() - started) / 1000;
    expect([...statuses.keys()].filter((status) => status !== 0)).toEqual([403]);
    expect(heard).toBeLessThanOrEqual(200 + 50 * seconds);
    expect(outcome.differences).toMatchObject({ 'enrolment.refused': heard });
    expect(outcome.counted('enrolment.rateLimited')).toBe(count - heard);
    // The one who has it enrols.
    expect(await enrol(token)).toMatchObject({ identity: { site: 'site-c' } });
  });
});

describe('a request', () => {
  test.each([
    ['too long', Buffer.alloc(32_769, ' '), 413],
    ['far too long', Buffer.alloc(50_000_000, ' '), 413],
    ['no JSON', '{', 400],
    [
      'of other members',
      JSON.stringify({ tokenId: 'a', secret: 'b', csrPem: 'c', site: 'd' }),
      400,
    ],
    ['deep', '['.repeat(30_000), 400],
    ['of no token', JSON.stringify({ tokenId: 'a', secret: 'b', csrPem: 'c' }), 403],
  ])('that is %s is refused and counted', async (what, body, expected) => {
    const outcome = await scene.attack(`a request ${what}`, async () => {
      for (let i = 0; i < (FULL ? 20 : 3); i++) {
        const { status } = await post(body, '127.0.0.88');
        // Of one that is cut off while it sends, a client may not see the answer.
        if (status !== 0) expect(status).toBe(expected);
      }
    });
    expect(outcome.differences).toMatchObject({ 'enrolment.refused': FULL ? 20 : 3 });
  });

  test.each([
    ['with headers without end', 'POST /v1/enrol HTTP/1.1\r\n', `x: ${'y'.repeat(1_000)}\r\n`],
    ['that is no HTTP', '\0\0\0\0', '\0'],
  ])('%s is cut off and counted', async (what, first, then) => {
    const outcome = await scene.attack(`a request ${what}`, async () => {
      const port = scene.ports.enrolment;
      const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false });
      socket.on('error', () => {});
      socket.write(first);
      const timer = setInterval(() => socket.write(then), 1);
      await new Promise((resolve) => socket.resume().once('close', resolve));
      clearInterval(timer);
    });
    expect(outcome.differences).toMatchObject({ 'enrolment.refused': 1 });
    // It was not heard until its time was up.
    expect(outcome.counted('enrolment.timeouts')).toBe(0);
  });
});

test.each([
  ['one address', () => '127.0.0.99'],
  ['many addresses', (i: number) => `127.0.${1 + Math.floor(i / 200)}.${1 + (i % 200)}`],
])(
  '500 half-open connections from %s do not keep a site from enrolling',
  async (what, addressOf) => {
    const outcome = await scene.attack(`half-open enrolments from ${what}`, async () => {
      const sockets = halfOpen(scene.ports.enrolment, 500, addressOf);
      await Promise.all(sockets.map((socket) => once(socket, 'connect').catch(() => {})));
      await scene.enrol('site-d');
      for (const socket of sockets) socket.destroy();
    });
    const cut = outcome.countedAs(/^enrolment\.(evicted|rateLimited)$/);
    expect(cut).toBeGreaterThanOrEqual(500 - 64);
    expect(outcome.differences).toMatchObject({ 'enrolment.enrolled': 1 });
  }
);

/** Made by openssl, which puts into it what it is told. */
function requestFor(subject: string, name: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'vp-request-'));
  try {
    const args = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    const key = ['-keyout', join(directory, 'key')];
    const names = ['-subj', subject, '-addext', `subjectAltName=${name}`];
    return execFileSync('openssl', ['req', '-new', ...args, ...key, ...names], {
      stdio: 'pipe',
    }).toString();
  } finally {
    rmSync(directory, { recursive: true });
  }
}
