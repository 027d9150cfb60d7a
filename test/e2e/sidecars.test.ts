/**
 * The key `sockets` of `cloud.yaml` and `edge.yaml`: programs of this machine reach the services of other realms through
 * the reference programs, and a mistake is one sentence with file and line.
 */

import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connectBySocks } from '../../examples/two-sites/hosts/socks5.ts';
import {
  admin,
  type Config,
  cloudConfig,
  edgeConfig,
  eventually,
  GatewayProcess,
  killGateways,
  outcome,
  REALM,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';

const ZONE = 'openstack.test';
const SERVICE = '10.0.0.5';
const DEVICE = { type: 'sockets', backend: { hosts: { [SERVICE]: '127.0.0.1' } } };

interface Place {
  readonly host: string;
  readonly port: number;
}

interface Listening {
  readonly proxy: Place;
  readonly forward: readonly (Place | string | null)[];
}

const workspace = new Workspace();
let service: Server;
let port: number;
let cloud: GatewayProcess;
let edge: GatewayProcess;
const cloudHome = workspace.newDirectory();
const edgeHome = workspace.newDirectory();

/** Sends a request to the admin interface of the cloud. */
const ask = (method: string, path: string, body: object) =>
  admin(join(cloudHome, 'admin.sock'), method, path, body);

async function startEdge(): Promise<Listening> {
  edge = new GatewayProcess('edge', [join(edgeHome, 'gateway.yaml')]);
  const listening = await edge.listening<Listening>();
  await edge.logged(/published: bus/);
  return listening;
}

/** Returns what the service says to a new connection. */
async function greeting(place: Place | string): Promise<string> {
  const socket = typeof place === 'string' ? connect(place) : connect(place.port, place.host);
  return String(await buffer(socket));
}

beforeAll(async () => {
  service = createServer((socket) => {
    // A gateway that ends resets its connections.
    socket.on('error', () => {});
    socket.end('hello');
  });
  service.listen(0, '127.0.0.1');
  await once(service, 'listening');
  ({ port } = service.address() as AddressInfo);
  const bus = { name: 'bus', site: 'cloud', address: SERVICE, ports: [`tcp/${port}`] };
  const desired = {
    sites: ['cloud', 'site-a'].map((name) => ({ name, ...REALM })),
    services: [bus, { ...bus, name: 'late' }],
    exposures: [{ service: 'bus', site: 'site-a' }],
  };
  writeConfig(cloudHome, { ...cloudConfig(), device: DEVICE, desired });
  cloud = new GatewayProcess('cloud', [join(cloudHome, 'gateway.yaml')]);
  await cloud.listening();
  const { body } = await ask('POST', '/v1/tokens', { site: 'site-a' });
  writeFileSync(join(edgeHome, 'token'), body.token!);
  writeConfig(edgeHome, {
    stateDirectory: './state',
    tokenFile: './token',
    device: { type: 'sockets' },
    sockets: {
      // No other copy of this test has the port, since the service has it at 127.0.0.1.
      publish: { loopback: '127.70.64.0/24', hostsFile: './hosts' },
      forward: [
        { listen: 0, host: `bus.${ZONE}`, port },
        { listen: { path: './late.sock' }, host: `late.${ZONE}`, port },
      ],
      proxy: { listen: 0, passwordFile: './password' },
    },
  });
});
afterAll(async () => {
  service?.close();
  await killGateways();
  workspace.remove();
});

describe('the key sockets', () => {
  test('makes ports, addresses and a proxy for the programs of the machine', async () => {
    const { proxy, forward } = await startEdge();
    expect(await greeting(forward[0] as Place)).toBe('hello');
    const hosts = readFileSync(join(edgeHome, 'hosts'), 'utf8').split('\n');
    const [address] = hosts.find((line) => line.endsWith(`\tbus.${ZONE}`))!.split('\t');
    expect(await greeting({ host: address!, port })).toBe('hello');

    const passwordFile = join(edgeHome, 'password');
    expect(statSync(passwordFile).mode & 0o777).toBe(0o600);
    const password = readFileSync(passwordFile, 'utf8').trim();
    const url = (secret: string) => `socks5h://presence:${secret}@${proxy.host}:${proxy.port}`;
    const socket = await connectBySocks(url(password), `bus.${ZONE}`, port);
    expect(String(await buffer(socket))).toBe('hello');
    const wrong = connectBySocks(url('not-the-password'), `bus.${ZONE}`, port);
    await expect(wrong).rejects.toMatchObject({ code: 'EACCES' });
    expect(edge.output).not.toContain(password);
  });

  test('listens for a name that the cloud exposes later, and keeps the password, after a restart', async () => {
    const password = readFileSync(join(edgeHome, 'password'), 'utf8');
    await edge.kill('SIGTERM');
    expect(existsSync(join(edgeHome, 'late.sock'))).toBe(false);
    // Now the names of the site are known from the start.
    const { forward } = await startEdge();
    expect(forward[1]).toBeNull();
    expect(edge.output).toMatch(/sockets\.forward\[1\]: does not listen yet, .* ENOTFOUND late\./);
    await ask('PUT', '/v1/exposures/site-a/late', {});
    await edge.logged(/forward: .*late\.sock" leads to late\./);
    const path = join(edgeHome, 'late.sock');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await greeting(path)).toBe('hello');
    await eventually('the name in the hosts file', () =>
      readFileSync(join(edgeHome, 'hosts'), 'utf8').includes(`late.${ZONE}`) ? true : undefined
    );
    expect(readFileSync(join(edgeHome, 'password'), 'utf8')).toBe(password);
  });

  test('is named when it has changed and the cloud is told to read its file again', async () => {
    const path = join(cloudHome, 'gateway.yaml');
    writeFileSync(path, `${readFileSync(path, 'utf8')}sockets:\n  publish: {}\n`);
    cloud.child.kill('SIGHUP');
    await cloud.logged(/needs a restart: sockets$/);
  });
});

describe('a mistake in the key sockets', () => {
  const mistakes: [mistake: string, change: (config: Config) => void, says: RegExp][] = [
    [
      'another device',
      (config) => {
        config.device = edgeConfig(1).device;
        config.sockets = { publish: {} };
      },
      /:\d+: sockets: needs a device of the type sockets$/,
    ],
    [
      'an unknown key',
      (config) => Object.assign(config, { sockets: { publish: { color: 1 } } }),
      /:\d+: sockets\.publish\.color: is not a known key$/,
    ],
    [
      'a prefix that is not of loopback',
      (config) => Object.assign(config, { sockets: { publish: { loopback: '10.0.0.0/24' } } }),
      /:\d+: sockets\.publish\.loopback: expected a prefix .* within 127\.0\.0\.0\/8/,
    ],
    [
      'a port that is none',
      (config) =>
        Object.assign(config, { sockets: { forward: [{ listen: 0, host: 'x', port: 70_000 }] } }),
      /:\d+: sockets\.forward\[0\]\.port: expected a whole number from 1 to 65535, got 70000$/,
    ],
    [
      'a port that is taken',
      (config) =>
        Object.assign(config, { sockets: { proxy: { listen: port, passwordFile: './new' } } }),
      /:\d+: sockets\.proxy\.listen: listen EADDRINUSE: address already in use 127\.0\.0\.1:\d+$/,
    ],
    [
      'a proxy without a password',
      (config) => Object.assign(config, { sockets: { proxy: { listen: 0 } } }),
      /:\d+: sockets\.proxy: expected passwordFile, or auth: false$/,
    ],
    [
      'a password that is too short',
      (config) =>
        Object.assign(config, { sockets: { proxy: { listen: 0, passwordFile: './short' } } }),
      /:\d+: sockets\.proxy\.passwordFile: must have 12 to 255 bytes/,
    ],
    [
      'a password that others may read',
      (config) =>
        Object.assign(config, { sockets: { proxy: { listen: 0, passwordFile: './open' } } }),
      /:\d+: sockets\.proxy\.passwordFile: other users may use .*open: give it the mode 0600$/,
    ],
    [
      'a hosts file that has other lines',
      (config) => Object.assign(config, { sockets: { publish: { hostsFile: './token' } } }),
      /:\d+: sockets\.publish\.hostsFile: .*token has other lines: give the path of a file of its own$/,
    ],
  ];
  test.each(mistakes)('is one sentence with file and line: %s', async (_, change, says) => {
    const directory = workspace.newDirectory();
    writeFileSync(join(directory, 'token'), 'x');
    for (const [name, mode] of [
      ['short', 0o600],
      ['open', 0o644],
    ] as const) {
      writeFileSync(join(directory, name), 'too-short\n');
      chmodSync(join(directory, name), mode);
    }
    const config: Config = { ...edgeConfig(1), device: { type: 'sockets' } };
    change(config);
    const { code, complaint } = await outcome('edge', [writeConfig(directory, config)]);
    expect(complaint).toMatch(/^virtual-presence: [^\n]*$/);
    expect(complaint).toMatch(says);
    expect(complaint).not.toContain('too-short');
    expect(code).toBe(2);
    expect(existsSync(join(directory, 'new'))).toBe(false);
  });
});
