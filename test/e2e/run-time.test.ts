/**
 * Changes while the gateways run: exposures, the file, revocations, and restarts of the gateways.
 */
import { Resolver } from 'node:dns/promises';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type AdminAnswer,
  admin,
  type Config,
  cloudConfig,
  edgeConfig,
  eventually,
  GatewayProcess,
  killGateways,
  startCloud as startCloudProgram,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { Relay } from '../support/relay.ts';

const workspace = new Workspace();
let cloudHome: string;
/** Where the edge dials, also after a restart of the cloud. */
let relay: Relay;
let config: Config;
let cloud: GatewayProcess;
let edgeHome: string;
let edge: GatewayProcess;

const callAdmin = (method: string, path: string, body?: unknown): Promise<AdminAnswer> =>
  admin(join(cloudHome, 'admin.sock'), method, path, body);

async function startCloud(): Promise<void> {
  const started = await startCloudProgram(join(cloudHome, 'gateway.yaml'));
  cloud = started.process;
  relay.target = started.tunnelPort;
}

function startEdge(): void {
  edge = new GatewayProcess('edge', [join(edgeHome, 'gateway.yaml')]);
}

async function writeToken(): Promise<void> {
  const { body } = await callAdmin('POST', '/v1/tokens', { site: 'site-a' });
  writeFileSync(join(edgeHome, 'token'), body.token!);
}

/** Returns the addresses of a name at the site, or the code of a DNS answer without addresses. */
async function lookUp(name: string): Promise<string> {
  const { dns } = await edge.listening();
  const resolver = new Resolver({ timeout: 10_000, tries: 2 });
  resolver.setServers([`127.0.0.1:${dns.port}`]);
  return resolver.resolve4(`${name}.openstack.test`).then(
    (addresses) => addresses.join(),
    (error: NodeJS.ErrnoException) => error.code ?? ''
  );
}

/** Resolves the name repeatedly, until the edge has the change. */
function found(name: string, answer: RegExp): Promise<string> {
  return eventually(`${name} to be ${answer}`, async () => {
    const addresses = await lookUp(name);
    return answer.test(addresses) ? addresses : undefined;
  });
}

const AN_ADDRESS = /^10\.0\.0\.1[2-9]\d$/;

beforeAll(async () => {
  cloudHome = workspace.newDirectory();
  edgeHome = workspace.newDirectory();
  relay = await Relay.open();
  config = cloudConfig();
  writeConfig(cloudHome, config);
  await startCloud();
  writeConfig(edgeHome, edgeConfig(relay.port));
  await writeToken();
  startEdge();
  await edge.logged(/revision/);
});

afterAll(async () => {
  await killGateways();
  relay.close();
  workspace.remove();
});

describe('exposures', () => {
  test('an exposure by the admin interface appears at the edge, and disappears again', async () => {
    expect(await lookUp('keystone')).toBe('ENOTFOUND');
    const exposure = { service: 'keystone', site: 'site-a' };
    expect(await callAdmin('POST', '/v1/exposures', exposure)).toMatchObject({ status: 200 });
    const address = await found('keystone', AN_ADDRESS);
    expect(await lookUp('rabbitmq')).not.toBe(address);

    expect((await callAdmin('GET', `/v1/whois?site=site-a&address=${address}`)).body).toMatchObject(
      {
        site: 'cloud',
        address: '10.0.0.6',
        services: ['keystone'],
      }
    );
    expect(await callAdmin('DELETE', '/v1/exposures', exposure)).toMatchObject({ status: 200 });
    await found('keystone', /^ENOTFOUND$/);
  });

  test.each([
    [{ service: 'nothing', site: 'site-a' }, /"nothing" is not a service/],
    [{ service: 'keystone', site: 'nowhere' }, /"nowhere" is not a site/],
    [{ service: 'keystone' }, /^site: is missing/],
    [{ service: 'keystone', site: 'site-a', dnsName: 'a..b' }, /^dnsName: .*"a\.\.b"/],
    [{ service: 'keystone', site: 'site-a', colour: 'red' }, /^colour: is not a known key/],
    [undefined, /mapping/],
  ])('an impossible exposure, %j, is answered with 400 and a sentence', async (body, says) => {
    const answer = await callAdmin('POST', '/v1/exposures', body);
    expect(answer.status, JSON.stringify(answer.body)).toBe(400);
    expect(answer.body.message).toMatch(says);
  });

  test('an exposure of the file cannot be ended by the admin interface', async () => {
    const answer = await callAdmin('DELETE', '/v1/exposures', {
      service: 'rabbitmq',
      site: 'site-a',
    });
    expect(answer.status).toBe(400);
    expect(answer.body.message).toMatch(/file/);
    expect(await lookUp('rabbitmq')).toMatch(AN_ADDRESS);
  });
});

describe('reload', () => {
  const withExposures = (...exposures: Config[]): Config => ({
    ...config,
    desired: { ...(config.desired as Config), exposures },
  });
  const rabbitmq = { service: 'rabbitmq', site: 'site-a' };
  const keystone = { service: 'keystone', site: 'site-a' };
  const unknown = { service: 'nothing', site: 'site-a' };

  test('brings the file’s exposures to the edge on SIGHUP, or logs what is wrong', async () => {
    writeConfig(cloudHome, withExposures(rabbitmq, keystone));
    let since = cloud.output.length;
    cloud.child.kill('SIGHUP');
    await cloud.logged(/Z info reloaded$/, since);
    await found('keystone', AN_ADDRESS);

    const path = writeConfig(cloudHome, withExposures(rabbitmq, unknown));
    const text = readFileSync(path, 'utf8').split('\n');
    const line = text.findIndex((each) => each.includes('nothing')) + 1;
    since = cloud.output.length;
    cloud.child.kill('SIGHUP');
    expect(await cloud.logged(/not reloaded/, since)).toMatch(
      new RegExp(
        `Z error not reloaded: ${path}:${line}: desired\\.exposures\\[1\\]\\.service: "nothing"`
      )
    );
    expect(await lookUp('keystone')).toMatch(AN_ADDRESS);
  });

  test('answers 200 at the admin interface, or 400 with file, line and key', async () => {
    const path = writeConfig(cloudHome, withExposures(rabbitmq));
    expect(await callAdmin('POST', '/v1/reload')).toMatchObject({ status: 200 });
    await found('keystone', /^ENOTFOUND$/);

    writeConfig(cloudHome, { ...config, colour: 'red' });
    const unknownKey = await callAdmin('POST', '/v1/reload');
    expect(unknownKey.status).toBe(400);
    expect(unknownKey.body.message).toMatch(/gateway\.yaml:\d+: colour: is not a known key$/);
    expect(unknownKey.body.message).not.toMatch(/gateway\.yaml.*gateway\.yaml/);

    rmSync(path);
    const missing = await callAdmin('POST', '/v1/reload');
    expect(missing.status).toBe(400);
    expect(missing.body.message).toMatch(/cannot be read: it does not exist$/);

    writeConfig(cloudHome, config);
    expect(await callAdmin('POST', '/v1/reload')).toMatchObject({ status: 200 });
    expect(await lookUp('rabbitmq')).toMatch(AN_ADDRESS);
  });

  test('names the changed keys that need a restart', async () => {
    const dns = {
      ...(config.dns as Config),
      forward: [{ suffix: '.', upstreams: ['192.0.2.53'] }],
    };
    writeConfig(cloudHome, { ...config, dns, ttlSeconds: 7 });
    expect(await callAdmin('POST', '/v1/reload')).toEqual({
      status: 200,
      body: { needRestart: ['dns', 'ttlSeconds'] },
    });
    const since = cloud.output.length;
    cloud.child.kill('SIGHUP');
    await cloud.logged(/Z warn changed, and needs a restart: dns, ttlSeconds$/, since);

    // A key with its default value has not changed.
    writeConfig(cloudHome, { ...config, ttlSeconds: 30 });
    expect(await callAdmin('POST', '/v1/reload')).toEqual({
      status: 200,
      body: { needRestart: [] },
    });
    writeConfig(cloudHome, config);
  });

  test('keeps the exposures of the admin interface', async () => {
    expect(await callAdmin('POST', '/v1/exposures', keystone)).toMatchObject({ status: 200 });
    expect(await callAdmin('POST', '/v1/reload')).toMatchObject({ status: 200 });
    await found('keystone', AN_ADDRESS);
    expect(await callAdmin('DELETE', '/v1/exposures', keystone)).toMatchObject({ status: 200 });
    await found('keystone', /^ENOTFOUND$/);
  });
});

describe('restart', () => {
  test('the edge answers names while the cloud restarts, and reconnects by itself', async () => {
    const address = await lookUp('rabbitmq');
    const since = edge.output.length;
    expect(await cloud.kill('SIGTERM')).toMatchObject({ code: 0, complaint: '' });
    await edge.logged(/: down, /, since);
    expect(await lookUp('rabbitmq')).toBe(address);
    expect(await lookUp('keystone')).toBe('ENOTFOUND');
    await startCloud();
    await edge.logged(/: up to /, since);
    await edge.logged(/: revision /, since);
    expect(await lookUp('rabbitmq')).toBe(address);
  });

  test('an edge that restarts while the cloud is down answers from its stored snapshot', async () => {
    const address = await lookUp('rabbitmq');
    await cloud.kill('SIGKILL');
    expect(await edge.kill('SIGTERM')).toMatchObject({ code: 0, complaint: '' });
    startEdge();
    await edge.logged(/trying again/);
    expect(await lookUp('rabbitmq')).toBe(address);
    await startCloud();
    await edge.logged(/: up to /);
    expect(await lookUp('rabbitmq')).toBe(address);
  });
});

describe('revocation', () => {
  test('closes the tunnel and refuses the edge; a reinstated site enrols again', async () => {
    const since = edge.output.length;
    const receipt = await callAdmin('POST', '/v1/revocations', { site: 'site-a' });
    expect(receipt).toMatchObject({
      status: 200,
      body: {
        scope: { site: 'site-a' },
        sites: ['site-a'],
        serials: [expect.stringMatching(/^[0-9a-f]{32}$/)],
        tunnelsClosed: 1,
        pathsRemoved: expect.any(Number),
        elapsedMs: expect.any(Number),
      },
    });
    await edge.logged(/refused, .*\(revoked\)/, since);
    const { sites } = (await callAdmin('GET', '/v1/status')).body as {
      sites?: { name: string; revoked: boolean; edge?: object }[];
    };
    const siteA = sites?.find(({ name }) => name === 'site-a');
    expect(siteA).toMatchObject({ revoked: true });
    expect(siteA).not.toHaveProperty('edge');

    const token = await callAdmin('POST', '/v1/tokens', { site: 'site-a' });
    expect(token).toMatchObject({
      status: 400,
      body: { message: 'site "site-a" is revoked; reinstate it first' },
    });

    expect((await edge.kill('SIGTERM')).code).toBe(0);
    startEdge();
    const refused = await edge.ended;
    expect(refused.code).toBe(3);
    expect(refused.complaint).toMatch(/^virtual-presence: .*\(revoked\).*site-a[^\n]*$/);

    expect(await callAdmin('DELETE', '/v1/revocations', { site: 'site-a' })).toMatchObject({
      status: 200,
    });
    startEdge();
    expect((await edge.ended).complaint).toMatch(/\(revoked\)/);

    // A new token is enough.
    await writeToken();
    startEdge();
    await edge.logged(/: up to /);
    await found('rabbitmq', AN_ADDRESS);
  });
});

describe('admin interface', () => {
  test('reports unknown paths and unreadable input, and continues', async () => {
    expect(await callAdmin('GET', '/v1/nothing')).toMatchObject({
      status: 404,
      body: { message: 'there is no GET /v1/nothing' },
    });
    expect(await callAdmin('POST', '/v1/tokens', 'x'.repeat(300_000))).toMatchObject({
      status: 400,
    });
    expect(await callAdmin('GET', '/v1/whois?site=site-a&address=malformed')).toMatchObject({
      status: 400,
      body: { message: '"malformed" is not an IP address' },
    });
    for (const path of ['/v1/presences', '/v1/paths', '/v1/desired', '/v1/status']) {
      expect((await callAdmin('GET', path)).status).toBe(200);
    }
  });
});
