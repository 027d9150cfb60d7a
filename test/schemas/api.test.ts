/**
 * The OpenAPI documents of the admin interfaces: a validator accepts them, they say what the schemas say, and a client
 * that others generate from them compiles and works.
 */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { Validator } from '@seriousme/openapi-schema-validator';
import openapiTypeScript, { astToString } from 'openapi-typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cloudApi, edgeApi } from '../../schemas/api.ts';
import { CLOUD_OPERATIONS, EDGE_OPERATIONS, type Operations } from '../../src/admin/index.ts';
import { desired, Gateways } from '../gateway/scene.ts';
import { spawnNode } from '../support/child.ts';

const DOCUMENTS = [
  ['cloud-api', cloudApi(), CLOUD_OPERATIONS as unknown as Operations],
  ['edge-api', edgeApi(), EDGE_OPERATIONS as unknown as Operations],
] as const;

describe.each(DOCUMENTS)('%s', (name, { document, losses }, operations) => {
  test('is accepted as OpenAPI 3.1', async () => {
    const result = await new Validator().validate(structuredClone(document));
    expect(result.errors).toBeUndefined();
    expect(result.valid).toBe(true);
  });

  test('has each operation of the table', () => {
    const paths = document.paths as Record<string, Record<string, { operationId: string }>>;
    const ids = Object.values(paths).flatMap((path) =>
      Object.values(path).map(({ operationId }) => operationId)
    );
    expect(ids.sort()).toEqual(Object.keys(operations).sort());
  });

  test('leaves out only what a JSON Schema cannot say', () => {
    const unexpected = losses.filter(({ action, path }) => {
      // A text such as an address has its pattern, and is parsed besides.
      if (action === 'raw_transform') return false;
      // A number in a query is a text that is read as a number; the document has its bounds.
      if (path === 'limit') return false;
      // The white space of a packet does not count.
      return !(path === 'packet' && action === 'max_length');
    });
    expect(unexpected).toEqual([]);
  });

  test('is the one that the package ships; `npm run schemas` writes it', () => {
    const shipped = JSON.parse(readFileSync(`schemas/${name}.json`, 'utf8'));
    expect(shipped).toEqual(JSON.parse(JSON.stringify(document)));
  });
});

describe('a client that openapi-typescript generates', () => {
  const gateways = new Gateways();
  let directory: string;

  beforeAll(() => {
    // Within the repository, so that the programs find its packages.
    mkdirSync('node_modules/.cache', { recursive: true });
    directory = mkdtempSync('node_modules/.cache/vp-api-');
  });
  afterAll(async () => {
    await gateways.close();
    rmSync(directory, { recursive: true });
  });

  test('compiles, and makes the calls of an operator', { timeout: 120_000 }, async () => {
    const adminSocket = join(directory, 'admin.sock');
    await gateways.cloud({ adminSocket, desired: desired('site-a') });
    const types = astToString(
      await openapiTypeScript(new URL('../../schemas/cloud-api.json', import.meta.url))
    );
    writeFileSync(join(directory, 'cloud-api.ts'), types);
    writeFileSync(join(directory, 'client.ts'), CLIENT);
    const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
    const flags = ['--strict', '--skipLibCheck', '--target', 'es2022', '--module', 'nodenext'];
    const compiled = spawnSync(
      process.execPath,
      [tsc, ...flags, '--outDir', join(directory, 'out'), join(directory, 'client.ts')],
      { encoding: 'utf8' }
    );
    expect(compiled.stdout).toBe('');
    writeFileSync(join(directory, 'out/package.json'), '{"type":"module"}');
    const program = spawnNode([join(directory, 'out/client.js'), adminSocket]);
    const [said, [code]] = await Promise.all([text(program.stdout!), once(program, 'exit')]);
    expect([code, said.trim().split('\n')]).toEqual([
      0,
      [
        'token: vp1',
        'exposed: camera to site-a',
        'explained: false tunnel',
        'revoked: 0 tunnels closed',
        'refused: 409 ERR_PRESENCE_CERTIFICATE',
        'reinstated: 204',
        'sites: cloud, site-a',
      ],
    ]);
  });
});

const CLIENT = `
import createClient from 'openapi-fetch';
import { Agent, fetch } from 'undici';
import type { paths } from './cloud-api.js';

const dispatcher = new Agent({ connect: { socketPath: process.argv[2]! } });
const client = createClient<paths>({
  baseUrl: 'http://localhost',
  fetch: async ({ url, method, headers, body }) => {
    const sent = body === null ? {} : { body: await new Response(body).text() };
    const all = Object.fromEntries(headers);
    return (await fetch(url, { method, headers: all, dispatcher, ...sent })) as unknown as Response;
  },
});
const site = 'site-a';
const service = 'camera';

const token = await client.POST('/v1/tokens', { body: { site } });
console.log('token: ' + token.data!.token.split('.')[0]);
await client.PUT('/v1/services/{service}', {
  params: { path: { service } },
  body: { site: 'cloud', address: '10.0.0.7', ports: ['tcp/554'] },
});
const exposed = await client.PUT('/v1/exposures/{site}/{service}', {
  params: { path: { site, service } },
  body: {},
});
console.log('exposed: ' + exposed.data!.service + ' to ' + exposed.data!.site);
const explained = await client.POST('/v1/explain', { body: { from: { site }, to: service }  });
console.log('explained: ' + explained.data!.passes + ' ' + explained.data!.droppedAt);
const receipt = await client.POST('/v1/revocations', { body: { site, reason: 'keyCompromise' } });
console.log('revoked: ' + receipt.data!.tunnelsClosed + ' tunnels closed');
const refused = await client.POST('/v1/tokens', { body: { site } });
console.log('refused: ' + refused.error!.status + ' ' + refused.error!.code);
const reinstated = await client.DELETE('/v1/revocations/{site}', { params: { path: { site } } });
console.log('reinstated: ' + reinstated.response.status);
const sites = await client.GET('/v1/sites', { params: { query: { limit: 10 } } });
console.log('sites: ' + sites.data!.items.map(({ name }) => name).join(', '));
// @ts-expect-error A parameter of the path is missing.
if (process.argv.length > 9) await client.GET('/v1/sites/{site}', { params: { path: {} } });
await dispatcher.close();
`;
