/**
 * The reference case of docs/openstack.md: its commands make the desired state that it shows, and its names resolve as
 * it says.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import type { CloudGateway } from '../../src/gateway/index.ts';
import type { DesiredInput } from '../../src/registry/index.ts';
import { runCommand, TestIo } from '../cli/run-command.ts';
import { Gateways } from '../gateway/scene.ts';
import { blocksOf } from './snippets.ts';

const blocks = blocksOf('docs/openstack.md');
const { desired } = parse(blocks.find(({ language }) => language === 'yaml')!.text) as {
  desired: DesiredInput;
};
const [commands] = blocks.filter(({ language }) => language === 'sh').map(({ text }) => text);

const directory = mkdtempSync(join(tmpdir(), 'vp-openstack-'));
const adminSocket = join(directory, 'admin.sock');
const referenceSocket = join(directory, 'reference.sock');
const gateways = new Gateways();
let cloud: CloudGateway;

/** Runs the lines of a block as commands, and returns what they print. None of them has a quoted argument. */
async function run(lines: string, socket = adminSocket): Promise<string> {
  let printed = '';
  for (const line of lines.split('\n').filter((each) => each !== '')) {
    const [program, ...args] = line.split(' ');
    expect(program).toBe('virtual-presence');
    const io = new TestIo({ env: { VIRTUAL_PRESENCE_SOCKET: socket } });
    const { code, out, err } = await runCommand(args, io);
    expect({ line, code, err }).toEqual({ line, code: 0, err: '' });
    printed += out;
  }
  return printed;
}

beforeAll(async () => {
  const sites = desired.sites.filter(({ name }) => name === 'cloud');
  cloud = await gateways.cloud({ adminSocket, desired: { sites } });
  await run(commands!);
});
afterAll(async () => {
  await gateways.close();
  rmSync(directory, { recursive: true });
});

test('the commands make the desired state that is shown', async () => {
  await gateways.cloud({ adminSocket: referenceSocket, desired });
  const show = async (socket: string) => {
    const shown = JSON.parse(await run('virtual-presence desired show --all --json', socket));
    return ['sites', 'services', 'exposures'].map((kind) =>
      shown[kind].map((each: object) => JSON.stringify(Object.entries(each).sort())).sort()
    );
  };
  const reference = await show(referenceSocket);
  expect(reference.map(({ length }) => length)).toEqual([3, 8, 8]);
  expect(await show(adminSocket)).toEqual(reference);
});

test('each site has the control plane by name, and two addresses for it', () => {
  const ports = { rabbitmq: 5672, keystone: 5000, placement: 8778, neutron: 9696, glance: 9292 };
  for (const site of ['site-a', 'site-b']) {
    const addresses = Object.entries({ ...ports, metadata: 8775 }).map(([name, port]) => {
      const [host] = cloud.lookup(`${name}.openstack.test`, site);
      expect(host, `${name} at ${site}`).toMatchObject({ ports: [`tcp/${port}`] });
      return host!.addresses[0]!;
    });
    expect(new Set(addresses.slice(1)).size).toBe(1);
    expect(new Set(addresses).size).toBe(2);
  }
});

test('the cloud has both compute nodes by name, at different addresses', () => {
  const addresses = ['site-a', 'site-b'].map((site) => {
    const [host] = cloud.lookup(`compute1.${site}.sites.test`);
    expect(host).toMatchObject({ ports: ['tcp/5900-5999'] });
    expect(cloud.whois('cloud', host!.addresses[0]!)).toMatchObject({ site, address: '10.0.0.5' });
    return host!.addresses[0]!;
  });
  expect(new Set(addresses).size).toBe(2);
});

test('a service can have the same presence at every site', async () => {
  await run(
    'virtual-presence service set broker --site cloud --address 10.0.0.20 --ports tcp/9094'
  );
  await run(blocks.filter(({ language }) => language === 'sh').at(-1)!.text);
  for (const site of ['site-a', 'site-b']) {
    expect(cloud.lookup('broker', site)).toMatchObject([{ addresses: ['10.0.0.200'] }]);
  }
});
