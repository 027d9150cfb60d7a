/**
 * The operations of an edge gateway, called over its socket by the client: before it has a certificate, while it is
 * online, and after it was revoked.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import {
  type AdminAnswer,
  type AdminCall,
  AdminClient,
  type CallOf,
  EDGE_OPERATIONS,
  type EdgeOperations,
} from '../../src/admin/index.ts';
import { parseSchema, type Schema } from '../../src/base/schema.ts';
import type { CloudGateway, EdgeGateway } from '../../src/gateway/index.ts';
import { desired, Gateways } from '../gateway/scene.ts';

const directory = mkdtempSync(join(tmpdir(), 'vp-admin-'));
const socketPath = join(directory, 'edge.sock');
const gateways = new Gateways();
const client = new AdminClient({ socketPath, operations: EDGE_OPERATIONS });
const called = new Set<string>();
let cloud: CloudGateway;
let edge: EdgeGateway;

beforeAll(async () => {
  cloud = await gateways.cloud({ desired: desired('site-a') });
  edge = await gateways.edge({ adminSocket: socketPath });
});
afterAll(async () => {
  await gateways.close();
  rmSync(directory, { recursive: true });
});

/** Calls an operation, and checks that the answer is what the table says. */
async function call<K extends keyof EdgeOperations>(
  name: K,
  parts: AdminCall<CallOf<EdgeOperations[K]>>
): Promise<AdminAnswer<CallOf<EdgeOperations[K]>>> {
  const answer = await client.call(name, parts);
  parseSchema(EDGE_OPERATIONS[name].result as Schema<unknown>, answer.result);
  called.add(name);
  return answer;
}

test('an edge without a certificate says what it needs', async () => {
  const { result } = await call('getStatus', {});
  expect(result).toMatchObject({
    state: 'rejected',
    names: 0,
    failure: { party: 'operator', remedy: 'token', code: expect.any(String) },
  });
  expect(result).not.toHaveProperty('site');
  await expect(call('enrol', { body: { token: 'x' } })).rejects.toMatchObject({
    problem: { status: 400 },
  });
});

test('it enrols with a token, and answers names', async () => {
  const token = await cloud.createToken({ site: 'site-a' });
  expect((await call('enrol', { body: { token } })).result).toMatchObject({ site: 'site-a' });
  await edge.ready({ signal: AbortSignal.timeout(60_000) });
  const { result } = await call('getStatus', {});
  expect(result).toMatchObject({
    state: 'online',
    names: 1,
    tunnel: { connections: 1, remoteAddress: '127.0.0.1' },
    warnings: [],
  });
  expect(Date.parse(result.validUntil!)).toBeGreaterThan(Date.now());
  const { hosts } = (await call('lookup', { query: { name: 'bus' } })).result;
  expect(hosts).toMatchObject([{ name: 'bus.example.test', ports: ['udp/7'] }]);
  expect((await call('lookup', { query: { name: 'nothing' } })).result).toEqual({ hosts: [] });
  const flow = { from: '10.0.0.9', to: 'bus' };
  expect((await call('explain', { body: flow })).result).toMatchObject({ passes: true });
  const other = { ...flow, from: '192.0.2.1' };
  expect((await call('explain', { body: other })).result).toMatchObject({
    passes: false,
    droppedAt: 'filter',
  });
  expect((await call('ping', { body: { count: 1 } })).result).toMatchObject({ received: 1 });
  expect((await call('getDocument', {})).result).toMatchObject({ openapi: '3.1.0' });
});

test('once it is revoked it says so', async () => {
  await cloud.revoke({ site: 'site-a' });
  await vi.waitFor(async () =>
    expect((await call('getStatus', {})).result).toMatchObject({
      state: 'rejected',
      failure: { kind: 'revoked' },
    })
  );
});

test('each operation of the table was called with success', () => {
  expect(Object.keys(EDGE_OPERATIONS).filter((name) => !called.has(name))).toEqual([]);
});
