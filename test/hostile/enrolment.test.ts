/**
 * The enrolment port, which every unauthenticated peer can reach.
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
  /** The status; 0 if the connection was terminated. */
  readonly status: number;
  readonly body: string;
}

/** Sends a request as an unauthenticated peer. */
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
  test('is refused after it was used', async () => {
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

  test('is refused after it has expired', async () => {
    const options = { site: 'site-c', lifetimeSeconds: 1 };
    const { body } = await scene.callAdmin('POST', '/v1/tokens', options);
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

  test('is accepted once if many use it at the same time', async () => {
    const { id, secret } = parseToken(await scene.token('site-c'));
    const answers: Answer[] = [];
    const outcome = await scene.attack('a token that many have', async () => {
      const body = JSON.stringify({ tokenId: id, secret, csrPem });
      answers.push(...(await Promise.all(Array.from({ length: 30 }, () => post(body)))));
    });
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(outcome.counted('enrolment.enrolled')).toBe(1);
  });

  test('is not used up by an invalid signing request', async () => {
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

  test('gives no certificate of another site, whatever the request contains', async () => {
    const { id, secret } = parseToken(await scene.token('site-c'));
    const requested = requestFor('/CN=site-b', 'URI:spiffe://openstack.test/site/site-b');
    const outcome = await scene.attack('a request for another site', async () => {
      const { status, body } = await post(
        JSON.stringify({ tokenId: id, secret, csrPem: requested })
      );
      expect(status, body).toBe(200);
      const leaf = new X509Certificate(JSON.parse(body).certificatePem);
      expect(leaf.subjectAltName).toBe('URI:spiffe://openstack.test/site/site-c');
      expect(leaf.subject).not.toMatch(/site-b/);
    });
    expect(outcome.differences).toMatchObject({ 'enrolment.enrolled': 1 });
  });

  test('is not guessed, and guesses above the rate are not checked', async () => {
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
    const checked = statuses.get(403) ?? 0;
    const seconds = (performance.now() - started) / 1000;
    expect([...statuses.keys()].filter((status) => status !== 0)).toEqual([403]);
    expect(checked).toBeLessThanOrEqual(200 + 50 * seconds);
    expect(outcome.differences).toMatchObject({ 'enrolment.refused': checked });
    expect(outcome.counted('enrolment.rateLimited')).toBe(count - checked);
    // The holder of the token can still enrol.
    expect(await enrol(token)).toMatchObject({ identity: { site: 'site-c' } });
  });
});

describe('a request', () => {
  test.each([
    ['too long', Buffer.alloc(32_769, ' '), 413],
    ['far too long', Buffer.alloc(50_000_000, ' '), 413],
    ['not JSON', '{', 400],
    [
      'an object with other members',
      JSON.stringify({ tokenId: 'a', secret: 'b', csrPem: 'c', site: 'd' }),
      400,
    ],
    ['deeply nested', '['.repeat(30_000), 400],
    ['without a known token', JSON.stringify({ tokenId: 'a', secret: 'b', csrPem: 'c' }), 403],
  ])('is refused and counted if it is %s', async (what, body, expected) => {
    const outcome = await scene.attack(`a request ${what}`, async () => {
      for (let i = 0; i < (FULL ? 20 : 3); i++) {
        const { status } = await post(body, '127.0.0.88');
        // A client whose connection is terminated while it sends may not see the answer.
        if (status !== 0) expect(status).toBe(expected);
      }
    });
    expect(outcome.differences).toMatchObject({ 'enrolment.refused': FULL ? 20 : 3 });
  });

  test.each([
    ['endless headers', 'POST /v1/enrol HTTP/1.1\r\n', `x: ${'y'.repeat(1_000)}\r\n`],
    ['data that is not HTTP', '\0\0\0\0', '\0'],
  ])('is terminated and counted: %s', async (what, first, then) => {
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
    // The gateway waited until the request timed out.
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
    const refused = outcome.countedAs(/^enrolment\.(evicted|rateLimited)$/);
    expect(refused).toBeGreaterThanOrEqual(500 - 64);
    expect(outcome.differences).toMatchObject({ 'enrolment.enrolled': 1 });
  }
);

/** Returns a signing request made by openssl with these names. */
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
