/** What a cloud gateway tells an operator about its CAs, its tokens, and the names at its sites. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { EdgeGateway } from '../../src/gateway/index.ts';
import { parseToken } from '../../src/pki/index.ts';
import { desired, Gateways } from './scene.ts';

let gateways: Gateways;
let folder: string;
beforeEach(() => {
  gateways = new Gateways();
  folder = mkdtempSync(join(tmpdir(), 'operator-'));
});
afterEach(async () => {
  await gateways.close();
  rmSync(folder, { recursive: true });
});
const PATIENCE = { signal: AbortSignal.timeout(600_000) };
const refused = (code: string) => expect.objectContaining({ code: `ERR_PRESENCE_${code}` });

test('the status of the CA names the sites that a rollover waits for', async () => {
  const cloud = await gateways.cloud({ desired: desired('site-a', 'site-b') });
  const edge = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
  await edge.ready(PATIENCE);
  const away = await gateways.edge({ token: await cloud.createToken({ site: 'site-b' }) });
  await away.ready(PATIENCE);
  await away.close();
  await vi.waitFor(async () => {
    const { sites } = await cloud.status();
    expect(sites.find(({ name }) => name === 'site-b')!.edge).toBeUndefined();
  });

  const none = { count: 0, names: [] };
  expect(cloud.caStatus()).toMatchObject({ rollover: 'none', blocking: none, outdated: none });
  expect(cloud.caStatus().warning).toBeUndefined();
  await cloud.rotateCa('prepare');
  expect(cloud.caStatus()).toMatchObject({ rollover: 'prepared', blocking: none, outdated: none });
  await cloud.rotateCa('activate');
  expect(cloud.caStatus().outdated.names).toContain('site-b');
  await vi.waitFor(() => {
    expect(cloud.caStatus()).toMatchObject({
      rollover: 'active',
      blocking: none,
      outdated: { count: 1, names: ['site-b'] },
    });
  });
  await cloud.rotateCa('retire');
  expect(cloud.caStatus()).toMatchObject({ rollover: 'none', blocking: none, outdated: none });
});

test('a deleted token enrols nobody, and the audit log has its deletion', async () => {
  const stateDirectory = join(folder, 'state');
  const cloud = await gateways.cloud({ stateDirectory, desired: desired('site-a') });
  const token = await cloud.createToken({ site: 'site-a' });
  const { id } = parseToken(token);
  expect(await cloud.deleteToken(id)).toMatchObject({ id, site: 'site-a', state: 'valid' });
  expect(cloud.authority.tokens({ limit: 1 })).toEqual([]);
  await expect(cloud.deleteToken(id)).rejects.toThrow(refused('NOT_FOUND'));
  const edge: EdgeGateway = await gateways.edge({ token });
  await expect(edge.ready(PATIENCE)).rejects.toThrow(/is not known/);
  await cloud.close();
  const lines = readFileSync(join(stateDirectory, 'audit.jsonl'), 'utf8').trim().split('\n');
  const detail = { id, deleted: true, used: false };
  expect(lines.map((line) => JSON.parse(line))).toContainEqual(
    expect.objectContaining({ kind: 'token', site: 'site-a', detail })
  );
  expect(lines.join()).not.toContain(parseToken(token).secret);
});

test('a name is looked up at a site as its edge answers it', async () => {
  const cloud = await gateways.cloud({ desired: desired('site-a', 'site-b') });
  const edge = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
  await edge.ready(PATIENCE);
  for (const name of ['bus', 'BUS.example.test.', 'nobody']) {
    expect(cloud.lookup(name, 'site-a')).toEqual(edge.lookup(name));
  }
  expect(cloud.lookup('bus', 'site-b')).toHaveLength(1);
  expect(cloud.lookup('bus')).toEqual([]);
  expect(() => cloud.lookup('bus', 'site-c')).toThrow(refused('NOT_FOUND'));
});
