/**
 * Requests that no operation of a cloud gateway takes, over its socket: wrong, missing, further and oversized values for
 * each operation of the table, wrong methods and paths, and very many at once. Each gets a problem document with the
 * status that it deserves, and the gateway goes on.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AdminClient, CLOUD_OPERATIONS, type Operations } from '../../src/admin/index.ts';
import { desired, Gateways } from '../gateway/scene.ts';

const TABLE = Object.entries(CLOUD_OPERATIONS as unknown as Operations);
const directory = mkdtempSync(join(tmpdir(), 'vp-admin-'));
const socketPath = join(directory, 'admin.sock');
const gateways = new Gateways();

beforeAll(async () => {
  await gateways.cloud({ adminSocket: socketPath, desired: desired('site-a') });
});
afterAll(async () => {
  await gateways.close();
  rmSync(directory, { recursive: true });
});

interface Answer {
  readonly status: number;
  readonly type: string | undefined;
  readonly allow: string | undefined;
  readonly body: string;
}

function send(method: string, path: string, body = '', headers: object = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = { 'content-length': Buffer.byteLength(body), ...headers };
    const outgoing = request({ socketPath, method, path, headers: sent }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => {
        const { 'content-type': type, allow } = response.headers;
        resolve({
          status: response.statusCode!,
          type,
          allow,
          body: Buffer.concat(chunks).toString(),
        });
      });
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

/** Checks that the answer is a problem document of this status. */
function expectRefused(answer: Answer, ...statuses: number[]): void {
  expect(statuses, answer.body).toContain(answer.status);
  expect(answer.type).toBe('application/problem+json');
  const problem = JSON.parse(answer.body) as Record<string, unknown>;
  expect(problem).toMatchObject({ status: answer.status, code: expect.stringMatching(/^ERR_/) });
  expect(problem.detail).toMatch(/^\S.{3,}/);
  expect(answer.body.length).toBeLessThan(4_096);
}

/** Returns the path with a value for each parameter. */
function filled(path: string, value = 'site-a'): string {
  return path.replace(/\{\w+\}/g, value);
}

describe.each(TABLE)('%s', (_, { method, path, params, query, body, versioned }) => {
  const url = filled(path);
  const needed = body === undefined ? '' : '{}';

  test('refuses a key that its query does not have', async () => {
    expectRefused(await send(method, `${url}?colour=red`, needed), 400);
  });

  test('refuses values of its query that are wrong', async () => {
    if (query === undefined) return;
    for (const wrong of ['limit=0', 'limit=-1', 'limit=many', 'limit=1001', 'site=Not_a_name']) {
      expectRefused(await send(method, `${url}?${wrong}`), 400);
    }
    expectRefused(await send(method, `${url}?cursor=${'x'.repeat(600)}`), 400);
    expectRefused(await send(method, `${url}?site=site-a&site=site-a`), 400);
  });

  test('refuses names in its path that are wrong', async () => {
    if (params === undefined) return;
    for (const name of ['..', '%2e%2e', '%2F', 'a'.repeat(200), '%00', '*', '%f0%9f%92%a9']) {
      expectRefused(await send(method, filled(path, name), needed), 400, 404);
    }
    expectRefused(await send(method, filled(path, '%zz'), needed), 400);
  });

  test('refuses bodies that are wrong, and any if it takes none', async () => {
    if (body === undefined) return expectRefused(await send(method, url, '{}'), 400);
    const wrong = ['', '{', 'null', '5', '"x"', '[]', '[[', '{"colour":"red"}', 'x'.repeat(10_000)];
    for (const each of wrong) expectRefused(await send(method, url, each), 400);
    const deep = '['.repeat(100_000) + ']'.repeat(100_000);
    expectRefused(await send(method, url, deep), 400);
    await send(method, url, '{"__proto__":{"polluted":"1"},"constructor":{"polluted":"1"}}');
    expect(({} as { polluted?: string }).polluted).toBeUndefined();
  });

  test('refuses conditions that it does not understand', async () => {
    if (method === 'GET') return;
    for (const match of ['x', '"short"', '"AAAAAAAAAAAAAAAA", "BBBBBBBBBBBBBBBB"', 'W/"x"']) {
      expectRefused(await send(method, url, needed, { 'if-match': match }), 400);
    }
    const condition = { 'if-match': '"AAAAAAAAAAAAAAAA"' };
    if (versioned !== true) expectRefused(await send(method, url, needed, condition), 400);
  });

  test('refuses methods that its path does not have', async () => {
    const methods = new Set(
      TABLE.filter(([, other]) => other.path === path).map(([, o]) => o.method)
    );
    for (const other of ['PATCH', 'OPTIONS', 'GET', 'PUT', 'POST', 'DELETE'] as const) {
      if (methods.has(other as never)) continue;
      const answer = await send(other, url);
      expectRefused(answer, 405);
      expect(answer.allow!.split(', ').sort()).toEqual([...methods].sort());
    }
  });
});

test.each([
  ['/', 404],
  ['/v1', 404],
  ['/v1/', 404],
  ['/v2/sites', 404],
  ['/v1/sites/', 404],
  ['/v1/sites/site-a/', 404],
  ['/v1/sites/../status', 404],
  ['/v1/sites/%2e%2e/status', 404],
  ['//v1/status', 404],
  [`/v1/${'x'.repeat(5_000)}`, 404],
  ['/v1/%', 400],
])('GET %s is refused', async (path, status) => {
  const answer = await send('GET', path);
  expect(answer.status).toBe(status);
  expect(answer.type).toBe('application/problem+json');
});

test.each([
  ['a text in place of the CA', 'SECRET'],
  ['a list in place of the key', { certificatePem: 'x', privateKeyPem: ['SECRET'] }],
  ['a key that is too long', { certificatePem: 'x', privateKeyPem: 'SECRET'.repeat(20_000) }],
  ['a further key', { certificatePem: 'x', privateKeyPem: 'SECRET', passphrase: 'SECRET' }],
])('%s is not shown in the answer', async (_, ca) => {
  const body = JSON.stringify({ step: 'prepare', ca });
  const answer = await send('POST', '/v1/ca/rollover', body);
  expectRefused(answer, 400);
  expect(answer.body).not.toContain('SECRET');
});

test('a thousand requests at once are all answered, and the gateway goes on', async () => {
  const good = Array.from({ length: 500 }, () => send('GET', '/v1/status'));
  const bad = Array.from({ length: 250 }, () => send('PUT', '/v1/sites/x', '{"zone":5}'));
  const changes = Array.from({ length: 250 }, (_, i) =>
    send(
      'PUT',
      `/v1/services/s${i % 10}`,
      '{"site":"cloud","address":"10.0.0.7","ports":["tcp/1"]}'
    )
  );
  for (const answer of await Promise.all(good)) expect(answer.status).toBe(200);
  for (const answer of await Promise.all(bad)) expectRefused(answer, 400);
  for (const answer of await Promise.all(changes)) expect(answer.status, answer.body).toBe(200);
  const { result } = await new AdminClient({ socketPath }).call('listServices', {});
  expect(result.items).toHaveLength(11);
});
