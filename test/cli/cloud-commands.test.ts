/**
 * The commands that talk to a gateway, run against a cloud gateway and an edge gateway. The last test fails if one of
 * them was never run with success here.
 */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { CLOUD_OPERATIONS, EDGE_OPERATIONS, type Operations } from '../../src/admin/index.ts';
import { parseSchema } from '../../src/base/schema.ts';
import { createProgram } from '../../src/cli/index.ts';
import type { CloudGateway, EdgeGateway } from '../../src/gateway/index.ts';
import { generateCa } from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { desired, Gateways, Hosts } from '../gateway/scene.ts';
import { runCommand, TestIo } from './run-command.ts';

const directory = mkdtempSync(join(tmpdir(), 'vp-cli-'));
const cloudSocket = join(directory, 'cloud.sock');
const edgeSocket = join(directory, 'edge.sock');
const gateways = new Gateways();
const hosts = new Hosts();
const done = new Set<string>();
let cloud: CloudGateway;
let edge: EdgeGateway;

beforeAll(async () => {
  cloud = await gateways.cloud({
    adminSocket: cloudSocket,
    stateDirectory: join(directory, 'state'),
    desired: desired('site-a', 'site-b'),
    reload: async () => ({ needRestart: ['dns'] }),
  });
  edge = await gateways.edge({
    adminSocket: edgeSocket,
    device: hosts.device,
    token: await cloud.createToken({ site: 'site-a' }),
  });
  await edge.ready({ signal: AbortSignal.timeout(60_000) });
});
afterAll(async () => {
  await gateways.close();
  rmSync(directory, { recursive: true });
});

/** Runs a command with success, and returns what it printed. Arguments have no spaces. */
async function run(line: string, input = '', socket = cloudSocket): Promise<string> {
  const args = line.split(' ');
  const io = new TestIo({ input, env: { VIRTUAL_PRESENCE_SOCKET: socket } });
  expect(await runCommand(args, io)).toMatchObject({ code: 0, err: '' });
  done.add(leafOf(args));
  return io.out;
}

/** Runs a command that reads, and returns its document after `schemaVersion`. */
async function read(line: string, socket = cloudSocket): Promise<Record<string, unknown>> {
  const { schemaVersion, ...rest } = JSON.parse(await run(`${line} --json`, '', socket));
  expect(schemaVersion).toBe(1);
  return rest;
}

/** Runs a command that lists, and checks each entry by the table of operations. */
async function list(line: string, key: string, operation: string): Promise<unknown[]> {
  const { [key]: items } = await read(line);
  parseSchema((CLOUD_OPERATIONS as unknown as Operations)[operation]!.result!, { items });
  return items as unknown[];
}

/** Returns the name of the command of some arguments, such as `site list`. */
function leafOf(args: readonly string[]): string {
  let command: Command = createProgram(new TestIo());
  const names: string[] = [];
  for (const word of args) {
    const next = command.commands.find((each) => each.name() === word);
    if (next === undefined) break;
    names.push(word);
    command = next;
  }
  return names.join(' ');
}

describe('status', () => {
  test('of a cloud shows sites, and ends with what is wrong and what to do', async () => {
    const text = await run('status');
    expect(text).toMatch(/^cloud gateway, process \d+$/m);
    expect(text).toMatch(/^SITE +EDGE +REVISION +CERTIFICATE EXPIRES/m);
    expect(text).toMatch(/^site-a +connected +\d+ +in (29|30) days +1 of 126/m);
    expect(text).toMatch(/^site-b +not connected +- +-/m);
    expect(text).toMatch(/^what is wrong:$/m);
    expect(text).toContain('- "site-b" is not connected: run "status" at its edge gateway');
    const { gateway, problems, ...status } = await read('status');
    parseSchema(CLOUD_OPERATIONS.getStatus.result, status);
    expect(gateway).toBe('cloud');
    expect(problems).toContainEqual(expect.stringContaining('"site-b" is not connected'));
  });

  test('of one site shows all that is known of it, and of others nothing', async () => {
    const text = await run('status site-a');
    expect(text).toMatch(/^certificate +[0-9a-f]+, until /m);
    expect(text).toContain('IPv4: 1 of 126 addresses in use');
    expect(text).not.toContain('site-b');
    expect(await read('status site-a')).toMatchObject({ sites: [{ name: 'site-a' }] });
  });

  test('of an edge shows its tunnel and its names', async () => {
    for (const line of ['status', 'status site-a']) {
      const text = await run(line, '', edgeSocket);
      expect(text).toMatch(/^edge gateway of "site-a": online$/m);
      expect(text).toMatch(/^tunnel +to 127\.0\.0\.1, 1 connection/m);
      expect(text).toMatch(/\n\nnothing is wrong\n$/);
    }
    const { gateway, problems, ...status } = await read('status', edgeSocket);
    parseSchema(EDGE_OPERATIONS.getStatus.result, status);
    expect({ gateway, problems }).toEqual({ gateway: 'edge', problems: [] });
  });
});

describe('which gateway', () => {
  const config = join(directory, 'gateway.yaml');

  test('is said by --socket, --config and the environment', async () => {
    writeFileSync(config, 'adminSocket: ./edge.sock\ndevice: {}\n');
    const io = () => new TestIo({ env: { VIRTUAL_PRESENCE_SOCKET: cloudSocket } });
    const first = async (...args: string[]) =>
      (await runCommand(['status', ...args], io())).out.split(' ')[0];
    expect(await first()).toBe('cloud');
    expect(await first('--socket', edgeSocket)).toBe('edge');
    expect(await first('--config', config)).toBe('edge');
    expect(await first('--socket', cloudSocket)).toBe('cloud');
  });

  test('has to be one of both', async () => {
    const args = ['status', '--config', config, '--socket', edgeSocket];
    expect(await runCommand(args)).toMatchObject({ code: 2 });
  });
});

describe('site', () => {
  test('is added, changed, shown, listed and deleted', async () => {
    const flags = '--sources 10.0.0.0/24 --pools 10.0.0.128/25 --zone c.test --labels tier=edge';
    expect(await run(`site set site-c ${flags} --mtu 1400`)).toBe('the site "site-c" is added\n');
    expect(await run('site set site-c --max-clients 7')).toBe('the site "site-c" is changed\n');
    expect(await run('site set site-c --max-clients 7')).toBe('the site "site-c" is so already\n');
    await run('site set site-c --unset mtu');
    const shown = await run('site show site-c');
    expect(parse(shown)).toEqual({
      name: 'site-c',
      sources: ['10.0.0.0/24'],
      pools: ['10.0.0.128/25'],
      reserved: [],
      zone: 'c.test',
      maxClients: 7,
      maxNames: 4096,
      labels: { tier: 'edge' },
    });
    await run('site set site-c --add-sources 10.0.0.0/24,10.0.1.7/32 --add-pools 10.0.2.0/24');
    expect(await read('site show site-c')).toMatchObject({
      sources: ['10.0.0.0/24', '10.0.1.7/32'],
      pools: ['10.0.0.128/25', '10.0.2.0/24'],
    });
    await run('site set site-c --sources 10.0.0.0/24 --pools 10.0.0.128/25');
    parseSchema(CLOUD_OPERATIONS.getSite.result, await read('site show site-c'));
    expect(await run('site list')).toMatch(
      /^site-c +10\.0\.0\.0\/24 +10\.0\.0\.128\/25 +c\.test +admin$/m
    );
    expect(await list('site list', 'sites', 'listSites')).toHaveLength(4);
    // What is shown is what --file takes.
    expect(await run('site set site-c --file -', shown)).toContain('is so already');
    expect(await run('site delete site-c')).toBe('the site "site-c" is deleted\n');
  });

  test('is added from a file, with an option that goes before it', async () => {
    const file = join(directory, 'site.json');
    const site = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'd.test', mtu: 1400 };
    writeFileSync(file, JSON.stringify(site));
    await run(`site set site-d --file ${file} --zone e.test`);
    expect(await read('site show site-d')).toMatchObject({ zone: 'e.test', mtu: 1400 });
    await run('site delete site-d');
  });
});

test('lists go on to the end', async () => {
  const names = Array.from({ length: 1_100 }, (_, i) => `s${i}`);
  const at = { site: 'site-b', address: '10.0.0.9', ports: ['icmp'] };
  const services = names.map((name) => ({ name, ...at }));
  expect(await run('desired apply -', JSON.stringify({ services }))).toBe(
    '0 sites, 1100 services, 0 exposures are kept by admin now (1100 records written, 0 removed)\n'
  );
  expect(await list('service list', 'services', 'listServices')).toHaveLength(1_101);
  await run('desired apply -', 'services: []');
});

describe('service and exposure', () => {
  const camera = 'service set camera --site site-b --address 10.0.0.7 --ports tcp/554,icmp';

  test('are added, listed and deleted', async () => {
    await run(camera);
    expect(parse(await run('service show camera'))).toMatchObject({ ports: ['tcp/554', 'icmp'] });
    await run('service set camera --add-ports udp/554,icmp');
    expect(await read('service show camera')).toMatchObject({
      ports: ['tcp/554', 'icmp', 'udp/554'],
    });
    await run(camera);
    expect(await run('service list --site site-b')).toMatch(
      /^camera +site-b +10\.0\.0\.7 +tcp\/554, icmp +admin$/m
    );
    expect(await run('expose camera site-a --wait --clients 10.0.0.0/28')).toMatch(
      /^the exposure of "camera" to "site-a" is added\n"camera" is 10\.0\.0\.\d+ at "site-a", and its edge has acknowledged it\n$/
    );
    expect(edge.lookup('camera')).toHaveLength(1);
    await run('expose camera site-a --add-clients 10.0.0.32,10.0.0.0/28 --dns-name eye');
    await run('expose camera site-a --remove-clients 10.0.0.0/28');
    const [exposure] = await list(
      'exposure list --site site-a --service camera',
      'exposures',
      'listExposures'
    );
    expect(exposure).toMatchObject({ clients: ['10.0.0.32'], dnsName: 'eye' });
    await run('expose camera site-a --unset clients,dns-name --not-after 2099-01-01T00:00:00Z');
    expect(await run('exposure list')).toMatch(
      /^camera +site-a +all +camera +until 2099-01-01T00:00:00\.000Z +admin$/m
    );
    expect(await run('expose camera site-a --add-clients 10.0.0.1')).toContain('is so already');
    expect(await run('unexpose camera site-a')).toContain('not exposed to "site-a" any more');
    await run('service delete camera');
  });

  test('with a selector', async () => {
    await run('site set site-c --sources 10.0.0.0/24 --pools 10.0.0.128/25 --zone c.test');
    await run('site set site-c --labels tier=edge,region=north');
    await run('expose bus --name all --selector tier=edge --aliases rabbit,queue --wildcard');
    expect((await read('exposure list')).selectors).toEqual([
      {
        name: 'all',
        service: 'bus',
        siteSelector: { tier: 'edge' },
        aliases: ['rabbit', 'queue'],
        wildcard: true,
        owner: 'admin',
      },
    ]);
    expect(await run('exposure list')).toMatch(/^bus +all: tier=edge +all +bus +always +admin$/m);
    await run('expose bus --name all --address 10.0.0.200');
    await expect
      .poll(() => run('lookup queue --site site-c'), { timeout: 60_000 })
      .toMatch(/^bus\.c\.test +10\.0\.0\.200 +udp\/7$/m);
    expect(await run('unexpose --name all')).toBe('the exposure "all" is ended\n');
    await run('site delete site-c');
  });

  test('whose edge is not connected, or whose time has not come, is not waited for', async () => {
    await run(camera);
    await run('site set site-c --sources 10.0.0.0/24 --pools 10.0.0.128/25 --zone c.test');
    expect(await run('expose camera site-c --wait')).toContain('its edge is not connected');
    expect(await run('expose camera cloud --wait')).toMatch(
      /"camera" is 10\.0\.0\.\d+ at "cloud"$/m
    );
    const later = 'expose camera site-a --wait --not-before 2099-01-01T00:00:00Z';
    expect(await run(later)).toMatch(/^it holds from 2099-01-01T00:00:00\.000Z on, in \d+ years$/m);
    await run('desired apply -', '{}');
  });
});

test('desired show prints what apply takes', async () => {
  const { sites, services, exposures } = parse(await run('desired show --all'));
  expect(sites).toHaveLength(3);
  const document = await read('desired show --all');
  parseSchema(CLOUD_OPERATIONS.getDesired.result, document);
  expect(document).toEqual({ sites, services, exposures });
  const lamp = { name: 'lamp', site: 'site-b', address: '10.0.0.9', ports: ['icmp'] };
  const file = join(directory, 'desired.yaml');
  writeFileSync(file, JSON.stringify({ services: [lamp] }));
  await run(`desired apply ${file}`);
  const shown = await run('desired show');
  expect(shown).toMatch(/^# kept by: admin; --all shows the others\n/);
  expect(parse(shown)).toEqual({ sites: [], services: [lamp], exposures: [] });
  const kept = '0 sites, 1 service, 0 exposures are kept by admin now';
  expect(await run('desired apply -', shown)).toBe(`${kept} (0 records written, 0 removed)\n`);
  await run('desired apply -', 'exposures: []');
});

describe('tokens', () => {
  test('are made, listed without their secrets, and deleted', async () => {
    const token = (await run('token create site-b --lifetime 2d')).trim();
    expect(token).toMatch(/^vp1\.[\w-]+$/);
    const text = await run('token list --site site-b');
    expect(text).toMatch(/^[\w-]+ +site-b +valid +in (1 day|2 days) +-$/m);
    expect(text).not.toContain(token);
    const [entry] = await list('token list --site site-b', 'tokens', 'listTokens');
    const { id } = entry as { id: string };
    expect(await run(`token delete ${id}`)).toBe(`the token ${id} of "site-b" is deleted\n`);
  });

  test('are written into a file that only its owner may read', async () => {
    const file = join(directory, 'token');
    expect(await run(`token create site-b --out ${file}`)).not.toContain('vp1.');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readFileSync(file, 'utf8')).toMatch(/^vp1\.[\w-]+\n$/);
  });

  test('are redeemed by an edge that runs', async () => {
    const socket = join(directory, 'second.sock');
    await gateways.edge({ adminSocket: socket });
    expect(await run('status', '', socket)).toMatch(/make a token by "token create" at the cloud/);
    const token = await run('token create site-b');
    expect(await run('enrol --token-file -', token, socket)).toMatch(
      /^the edge gateway of "site-b" has its certificate; it is \w+\n$/
    );
  });
});

describe('revocations', () => {
  test('of a site print the receipt, are listed, and end by reinstate', async () => {
    const receipt = await run('revoke site-b --reason keyCompromise');
    expect(receipt).toMatch(/^the site "site-b" is revoked$/m);
    expect(receipt).toMatch(/^packets stopped +[0-9.]+ ms after the request$/m);
    expect(await run('status')).toContain(
      '"site-b" is revoked: "reinstate site-b" lets it enrol again'
    );
    expect(await run('revocation list')).toMatch(/^the site "site-b" +site-b +keyCompromise +2/m);
    const revoked = await list('revocation list --site site-b', 'revocations', 'listRevocations');
    expect(revoked).toContainEqual(expect.objectContaining({ scope: { site: 'site-b' } }));
    expect(await run('reinstate site-b')).toContain('token create site-b');
    expect(await run('revocation list --site site-b')).not.toContain('the site "site-b"');
  });

  test('of a name that no site has need a word', async () => {
    expect(await run('revoke sight-b --unknown')).toMatch(/^the site "sight-b" is revoked$/m);
    await run('reinstate sight-b');
  });

  test('of a certificate and of a key', async () => {
    const key = 'A'.repeat(43);
    expect(await run(`revoke --key ${key}`)).toContain(`the key ${key} is revoked`);
    const { sites } = (await read('status site-a')) as {
      sites: { edge: { certificate: { serial: string } } }[];
    };
    const { serial } = sites[0]!.edge.certificate;
    const receipt = await read(`revoke --serial ${serial}`);
    parseSchema(CLOUD_OPERATIONS.revoke.result, receipt);
    expect(receipt).toMatchObject({ sites: ['site-a'], tunnelsClosed: 1 });
    // The edge enrols again, with a token.
    await run('enrol --token-file -', await run('token create site-a'), edgeSocket);
    await edge.ready({ signal: AbortSignal.timeout(60_000) });
  });
});

describe('what is in force', () => {
  test('is read', async () => {
    hosts.serve(() => undefined);
    expect(await run('presence list')).toMatch(/^site-a +10\.0\.0\.\d+ +10\.0\.0\.5 +cloud$/m);
    const presences = await list('presence list --site site-a', 'presences', 'listPresences');
    const { address } = presences[0] as { address: string };
    expect(await run(`whois site-a ${address}`)).toBe(
      `${address} at "site-a" is 10.0.0.5 of "cloud", offers bus\n`
    );
    parseSchema(CLOUD_OPERATIONS.whois.result, await read(`whois site-a ${address}`));
    parseSchema(CLOUD_OPERATIONS.lookup.result, await read('lookup bus --site site-a'));
    const here = await run('lookup bus', '', edgeSocket);
    expect(here).toMatch(new RegExp(`^bus\\.example\\.test +${address} +udp/7$`, 'm'));
    expect(await run('lookup nothing')).toBe('"nothing" is not known there\n');
  });

  test('paths are listed, and addresses of clients released', async () => {
    expect(await run('path list')).toBe('no path has carried packets\n');
    const { hosts: found } = (await read('lookup bus --site site-a')) as {
      hosts: { addresses: string[] }[];
    };
    const destination = found[0]!.addresses[0]!;
    // Nobody answers, so the packet is sent until it has made a path.
    await expect
      .poll(
        async () => {
          const ports = { sourcePort: 4_000, destinationPort: 7 };
          hosts.send({ source: '10.0.0.20', destination, ...ports, payload: Buffer.from('x') });
          return run('path list --site site-a');
        },
        { timeout: 60_000, interval: 50 }
      )
      .toMatch(/^site-a +10\.0\.0\.20 > \S+ +cloud +\S+ > 10\.0\.0\.5 +\d+ +\d+$/m);
    expect(await run('status site-a')).toMatch(/^site-a .* [1-9]\d* +0\n(.*\n)+ {2}Forward [1-9]/m);
    expect(await list('path list', 'paths', 'listPaths')).not.toEqual([]);
    expect(await run('release site-a')).toBe('1 address of the clients of "site-a" is released\n');
  });

  test('is explained, measured and captured', async () => {
    expect(await run('explain site-a/10.0.0.5 bus')).toMatch(/^passes to cloud\n {2}ok {3}dest/);
    expect(await run('ping site-a --count 1')).toMatch(/^site-a: 1 of 1 answered, /m);
    const file = join(directory, 'capture.pcapng');
    expect(await run(`capture --duration 1ms -w ${file}`)).toContain(`${file} has 28 bytes with 0`);
  });

  test('sites are moved, and the file is read again', async () => {
    expect(await run('move site-a 0')).toBe('"site-a" is at the worker 0\n');
    expect(await run('reload')).toMatch(
      /^the desired state .* in force; .* after a restart: dns$/m
    );
  });
});

test('machines are listed, drained, resumed and removed, and their sites moved', async () => {
  const shared = new MemoryStore();
  const socketOf = (name: string): string => join(directory, `${name}.sock`);
  const start = (name: string) =>
    gateways.machine(shared, name, {
      adminSocket: socketOf(name),
      stateDirectory: join(directory, name),
    });
  const { cloud: one } = await start('one');
  const { cloud: two } = await start('two');
  await one.apply(desired('site-a'));
  const moving = await gateways.edge({ token: await one.createToken({ site: 'site-a' }) });
  await moving.ready({ signal: AbortSignal.timeout(60_000) });
  const at = (name: string, line: string): Promise<string> => run(line, '', socketOf(name));

  const text = await at('one', 'machine list');
  expect(text).toMatch(/^one +live +1 +yes +127\.0\.0\.1:\d+\ntwo +live +0 +- +127\.0\.0\.1:/m);
  expect(text).toMatch(/^this machine: one, attached, allocates addresses$/m);
  const listed = await read('machine list', socketOf('two'));
  parseSchema(CLOUD_OPERATIONS.listMachines.result, listed);
  expect(listed).toMatchObject({ machine: { name: 'two' }, machines: [{}, {}] });
  const connectedAt = (name: string) =>
    expect
      .poll(() => at(name, 'status site-a'), { timeout: 60_000 })
      .toMatch(/^site-a +connected/m);
  expect(await at('one', 'move site-a --machine two')).toBe('"site-a" is at the machine "two"\n');
  await connectedAt('two');
  const status = await at('one', 'status site-a');
  expect(status).toMatch(/^machine +one, attached, allocates addresses$/m);
  expect(status).toMatch(/^site-a +at two/m);
  expect(status).toMatch(/^machine +two, epoch \d+$/m);
  expect(status).not.toMatch(/^worker|is not connected/m);

  const done = 'takes no sites any more; 1 site handed over\n';
  expect(await at('two', 'machine drain two')).toBe(`the machine "two" ${done}`);
  expect(await at('two', 'status')).toContain(
    '- the machine "two" takes no sites: "machine resume'
  );
  // There is no machine that takes the site.
  await connectedAt('one');
  const io = new TestIo({ env: { VIRTUAL_PRESENCE_SOCKET: socketOf('one') } });
  const kept = await runCommand(['machine', 'drain', 'one'], io);
  expect(kept).toMatchObject({ code: 4, out: expect.stringMatching(/^still there: site-a;/m) });
  for (const name of ['one', 'two']) {
    expect(await at(name, `machine resume ${name}`)).toBe(
      `the machine "${name}" takes sites again\n`
    );
  }
  await two.close();
  const revoking = new TestIo({ env: { VIRTUAL_PRESENCE_SOCKET: socketOf('one') } });
  expect(await runCommand(['revoke', 'site-z', '--unknown'], revoking)).toMatchObject({
    code: 4,
    out: expect.stringMatching(
      /^the machine "two" has not confirmed it: it ends its tunnels by 2/m
    ),
  });
  expect(await at('one', 'machine list')).toMatch(/^two +gone, its tunnels end by 2/m);
  expect(await at('one', 'machine remove two')).toBe('the machine "two" is removed\n');
  await one.close();
  const audited = readFileSync(join(directory, 'one/audit.jsonl'), 'utf8').trim().split('\n');
  const acts = audited.map((each) => JSON.parse(each)).filter(({ kind }) => kind === 'machine');
  expect(acts).toMatchObject([
    { site: 'site-a', detail: { act: 'move', machine: 'two' } },
    { detail: { act: 'drain', machine: 'one' } },
    { detail: { act: 'resume', machine: 'one' } },
    { detail: { act: 'remove', machine: 'two' } },
  ]);
});

test('the CA is replaced step by step', async () => {
  expect(await run('ca status')).toMatch(/^the CA is not being replaced; "ca prepare" begins it$/m);
  expect(await run('ca prepare')).toMatch(/^prepared +CN=.* until .* \(in \d+ years\), key /m);
  expect(await run('ca bundle')).toContain('BEGIN CERTIFICATE');
  expect(await run('ca crl')).toContain('BEGIN X509 CRL');
  expect(await run('ca activate')).toMatch(/"ca retire"$/m);
  parseSchema(CLOUD_OPERATIONS.getCa.result, await read('ca status'));
  expect(await run('ca retire --force')).toContain('the CA is not being replaced');
});

test('the CA may be one of the operator', async () => {
  const own = generateCa({ trustDomain: 'example.test' });
  const certificate = join(directory, 'ca.pem');
  const key = join(directory, 'ca.key');
  writeFileSync(certificate, own.certificatePem);
  writeFileSync(key, own.privateKeyPem);
  await run(`ca prepare --certificate ${certificate} --key ${key}`);
  const { current, next } = (await read('ca status')) as Record<string, { spki: string }>;
  expect(next!.spki).not.toBe(current!.spki);
  expect(await run('ca bundle')).toContain(own.certificatePem.trim());
});

test('an audit log is verified', async () => {
  const log = join(directory, 'state/audit.jsonl');
  const [, head] = /head (\d+:[0-9a-f]{64})\n$/.exec(await run(`audit verify ${log}`))!;
  expect(await read(`audit verify ${log} --head ${head}`)).toMatchObject({ ok: true });
  const lines = readFileSync(log, 'utf8').split('\n');
  const copy = join(directory, 'copy.jsonl');
  writeFileSync(copy, [...lines.slice(0, 2), ...lines.slice(3)].join('\n'));
  const broken = await runCommand(['audit', 'verify', copy]);
  expect(broken).toMatchObject({ code: 1, out: '' });
  expect(broken.err).toMatch(new RegExp(`^virtual-presence: ${copy}:3: .*\\n$`));
  const json = await runCommand(['audit', 'verify', copy, '--json']);
  expect(json).toMatchObject({ code: 1, err: broken.err });
  expect(JSON.parse(json.out)).toMatchObject({ schemaVersion: 1, ok: false, line: 3 });
});

test('each command that talks to a gateway was run with success', () => {
  const leaves = (command: Command, names: readonly string[]): string[] =>
    command.commands.flatMap((each) => {
      const path = [...names, each.name()];
      if (each.commands.length > 0) return leaves(each, path);
      return each.options.some(({ long }) => long === '--socket') ? [path.join(' ')] : [];
    });
  const all = leaves(createProgram(new TestIo()), []);
  expect(all.length).toBeGreaterThan(30);
  expect(all.filter((name) => !done.has(name))).toEqual([]);
});
