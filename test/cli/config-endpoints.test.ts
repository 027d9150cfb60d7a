/** `config check --system` at an edge: the way to the cloud, and certificates. */

import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { clockFindings } from '../../src/cli/checks/clock-checks.ts';
import type { Finding } from '../../src/cli/checks/finding.ts';
import { CloudGateway } from '../../src/gateway/index.ts';
import { runCommand } from './run-command.ts';

const root = mkdtempSync(join(tmpdir(), 'vp-endpoints-'));
const ANY = '127.0.0.1:0';
const site = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'openstack.test' };
const clouds: CloudGateway[] = [];
let count = 0;

async function startCloud(name: string): Promise<CloudGateway> {
  const cloud = await CloudGateway.start({
    trustDomain: 'openstack.test',
    stateDirectory: join(root, name),
    device: { type: 'sockets' },
    tunnel: ANY,
    enrolment: { listen: ANY },
    desired: {
      sites: [
        { name: 'cloud', ...site },
        { name: 'site-a', ...site },
      ],
    },
  });
  clouds.push(cloud);
  return cloud;
}

/** Checks the machine of an edge; `state` are files of its state directory, by what they are copies of. */
async function check(
  keys: object,
  files: Readonly<Record<string, string>> = {},
  token?: string
): Promise<readonly Finding[]> {
  const directory = join(root, `edge-${count++}`);
  mkdirSync(join(directory, 'state'), { recursive: true, mode: 0o700 });
  for (const [name, from] of Object.entries(files))
    copyFileSync(from, join(directory, 'state', name));
  if (token !== undefined) writeFileSync(join(directory, 'token'), token);
  const path = join(directory, 'edge.yaml');
  const edge = { stateDirectory: './state', tokenFile: './token', device: { type: 'sockets' } };
  writeFileSync(path, stringify({ ...edge, ...keys }));
  const { out } = await runCommand(['config', 'check', path, '--system', '--json']);
  return (JSON.parse(out) as { findings: Finding[] }).findings;
}

const of = (findings: readonly Finding[], kind: string) =>
  findings.filter((each) => each.check === kind);

describe('config check --system of an edge', () => {
  let cloud: CloudGateway;
  let tunnel: string;
  const ca = join(root, 'cloud', 'ca.pem');

  beforeAll(async () => {
    cloud = await startCloud('cloud');
    const [address] = cloud.addresses.tunnels;
    tunnel = `127.0.0.1:${address!.port}`;
  });
  afterAll(async () => {
    for (const each of clouds) await each.close();
    rmSync(root, { recursive: true, force: true });
  });

  test('reaches the enrolment with the CA of the token', async () => {
    const token = await cloud.createToken({ site: 'site-a' });
    const findings = await check({}, {}, token);
    expect(of(findings, 'endpoint')).toMatchObject([{ status: 'ok' }]);
    expect(of(findings, 'token')).toMatchObject([
      { status: 'warn', message: expect.stringMatching(/enrols as "site-a"/) },
    ]);
  });

  test('reaches the tunnel with the CA of its certificate', async () => {
    const findings = await check({ cloud: [tunnel] }, { 'ca.pem': ca });
    expect(of(findings, 'endpoint')).toMatchObject([
      { status: 'ok', message: expect.stringContaining(tunnel) },
    ]);
    expect(of(findings, 'certificate')).toMatchObject([{ status: 'ok' }]);
  });

  test('finds a cloud of another CA', async () => {
    await startCloud('other');
    const other = join(root, 'other', 'ca.pem');
    const findings = await check({ cloud: [tunnel] }, { 'ca.pem': other });
    expect(of(findings, 'endpoint')).toMatchObject([
      { status: 'fail', message: expect.stringMatching(/is reached, but .*certificate/) },
    ]);
    const token = await clouds[1]!.createToken({ site: 'site-a' });
    const [prefix, body] = token.split('.') as [string, string];
    const json = JSON.parse(Buffer.from(body, 'base64url').toString());
    json.endpoints = cloud.addresses.enrolment && [
      `https://127.0.0.1:${cloud.addresses.enrolment.port}`,
    ];
    const moved = `${prefix}.${Buffer.from(JSON.stringify(json)).toString('base64url')}`;
    expect(of(await check({}, {}, moved), 'endpoint')).toMatchObject([
      { status: 'fail', message: expect.stringMatching(/does not present the CA/) },
    ]);
  });

  test('finds an endpoint at which nobody listens, and one that speaks no TLS', async () => {
    const mute = createServer((socket) => {
      socket
        .on('error', () => {})
        .resume()
        .end('hello\n');
    }).listen(0, '127.0.0.1');
    await once(mute, 'listening');
    const { port } = mute.address() as AddressInfo;
    const wrong = await check({ cloud: [`127.0.0.1:${port}`] }, { 'ca.pem': ca });
    expect(of(wrong, 'endpoint')).toMatchObject([
      { status: 'fail', message: expect.stringMatching(/is reached, but/) },
    ]);
    await new Promise((resolve) => mute.close(resolve));
    const nobody = await check({ cloud: [`127.0.0.1:${port}`] }, { 'ca.pem': ca });
    expect(of(nobody, 'endpoint')).toMatchObject([
      {
        status: 'fail',
        message: expect.stringMatching(/is not reached: .*ECONNREFUSED/),
        remedy: expect.stringMatching(/start the cloud gateway/),
      },
    ]);
  });

  test('finds that there is no token, and one that is none', async () => {
    expect(of(await check({}), 'token')).toMatchObject([
      { status: 'fail', message: expect.stringMatching(/^the site is not enrolled/) },
    ]);
    expect(of(await check({}, {}, 'vp1.e30'), 'token')).toMatchObject([{ status: 'fail' }]);
  });

  test('says of the state directory of a gateway that runs that its ports are in use', async () => {
    const path = join(root, 'running.yaml');
    const keys = {
      trustDomain: 'openstack.test',
      stateDirectory: './cloud',
      adminSocket: './a.sock',
    };
    const desired = { sites: [{ name: 'cloud', ...site }] };
    writeFileSync(path, stringify({ ...keys, device: { type: 'sockets' }, tunnel, desired }));
    const { out } = await runCommand(['config', 'check', path, '--system', '--json']);
    const { findings } = JSON.parse(out) as { findings: Finding[] };
    expect(of(findings, 'port')).toMatchObject([
      { status: 'ok', message: expect.stringContaining(`process ${process.pid}`) },
    ]);
  });

  test('compares certificates with the clock', async () => {
    const certificate = { what: "the cloud's CA", path: ca, remedy: 'replace it' };
    const at = async (nowMs: number) =>
      of(await clockFindings([certificate], nowMs), 'certificate');
    expect(await at(0)).toMatchObject([
      { status: 'fail', remedy: expect.stringMatching(/^set the clock/) },
    ]);
    expect(await at(Date.now() + 100 * 365 * 86_400_000)).toMatchObject([
      { status: 'fail', message: expect.stringMatching(/has expired/), remedy: 'replace it' },
    ]);
  });
});
