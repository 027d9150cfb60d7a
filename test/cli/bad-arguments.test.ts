/**
 * Bad input to the commands that talk to a gateway: one sentence and an exit code, and the gateway as before.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { Command } from 'commander';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createProgram } from '../../src/cli/index.ts';
import type { CloudGateway } from '../../src/gateway/index.ts';
import { desired, Gateways } from '../gateway/scene.ts';
import { runCommand, TestIo } from './run-command.ts';

const directory = mkdtempSync(join(tmpdir(), 'vp-cli-'));
const cloudSocket = join(directory, 'cloud.sock');
const edgeSocket = join(directory, 'edge.sock');
const stale = join(directory, 'nobody.sock');
const gateways = new Gateways();
let cloud: CloudGateway;

beforeAll(async () => {
  cloud = await gateways.cloud({ adminSocket: cloudSocket, desired: desired('site-a', 'site-b') });
  await gateways.edge({ adminSocket: edgeSocket });
});
afterAll(async () => {
  await gateways.close();
  rmSync(directory, { recursive: true });
});

const LONG = 'x'.repeat(100_000);
const USAGE = 2;
const REFUSED = 3;
const NOT_READY = 4;

interface Case {
  readonly line: string;
  readonly code?: number;
  readonly says: string | RegExp;
  readonly input?: string;
}

/** Runs a command that fails, and returns its only line on standard error. */
async function fail({ line, code = USAGE, input = '' }: Case, socket = cloudSocket) {
  const io = new TestIo({ input, env: { VIRTUAL_PRESENCE_SOCKET: socket } });
  const outcome = await runCommand(
    line.split(' ').map((word) => word.replace('EMPTY', '').replace('LONG', LONG)),
    io
  );
  expect(outcome, outcome.err).toMatchObject({ code, out: '' });
  expect(outcome.err).toMatch(/^virtual-presence: [^\n]*\n$/);
  expect(outcome.err.length).toBeLessThan(600);
  return outcome.err;
}

const SITE = '--sources 10.0.0.0/24 --pools 10.0.0.128/25 --zone c.test';

describe('an argument', () => {
  const cases: readonly Case[] = [
    { line: 'status site-x', code: REFUSED, says: 'there is no site "site-x"' },
    { line: 'site list --site site-a', says: "unknown option '--site'" },
    { line: 'site show nothing', code: REFUSED, says: 'there is no site "nothing"' },
    { line: 'site show UPPER', says: 'site: expected a name of lower-case letters' },
    { line: 'site show LONG', says: 'site: expected a name' },
    { line: 'site set site-c', says: 'sources: is missing' },
    { line: `site set site-c ${SITE} --mtu 3`, says: 'mtu: expected a whole number from 576' },
    { line: `site set site-c ${SITE} --mtu 1e3`, says: "'--mtu <bytes>' argument '1e3'" },
    { line: `site set site-c ${SITE} --sources 10.0.0.1/8`, says: 'sources[0]: ' },
    { line: `site set site-c ${SITE} --sources 10.0.0.0/8,,`, says: 'one of them is empty' },
    { line: `site set site-c ${SITE} --labels tier`, says: 'Expected labels such as' },
    { line: `site set site-c ${SITE} --labels a=b,a=c`, says: 'is there twice' },
    { line: `site set site-c ${SITE} --labels A=b`, says: 'labels.A: ' },
    { line: `site set site-c ${SITE} --reject no`, says: 'reject: expected' },
    { line: `site set site-c ${SITE} --unset nothing`, says: '--unset: "nothing" is no key' },
    { line: `site set site-c ${SITE} --unset zone`, says: '--unset zone and --zone exclude' },
    { line: 'site set site-c --unset LONG', says: 'is no key' },
    { line: 'site set site-c --file', says: "'--file <file>' argument missing" },
    { line: 'site set site-c --file /nothing', says: 'it does not exist' },
    { line: 'site set site-c --file -', input: '{"zone": ', says: 'standard input:1: ' },
    { line: 'site set site-c --file -', input: '- a', says: 'expected a mapping' },
    { line: 'site set site-c --file -', input: 'zone: x', says: 'standard input: sources' },
    {
      line: 'site set site-c --file -',
      input: 'name: site-d\nsources: []\npools: []\nzone: d.test',
      code: REFUSED,
      says: 'name: is "site-d", and the path has "site-c"',
    },
    { line: 'site set site-a --mtu 1400', code: REFUSED, says: 'is kept by the file' },
    { line: 'site set site-c a b', says: 'too many arguments' },
    { line: 'site delete', says: "missing required argument 'name'" },
    { line: 'site delete nothing', code: REFUSED, says: 'nothing' },
    { line: 'site delete site-a', code: REFUSED, says: 'is kept by the file' },
    { line: 'service list --site UPPER', says: 'site: expected' },
    { line: 'service show nothing', code: REFUSED, says: 'there is no service "nothing"' },
    { line: 'service set x --site site-b --address 10.0.0.9', says: 'ports: is missing' },
    { line: 'service set x --ports tcp', says: 'site: is missing' },
    { line: 'service set x --site site-b --address 10.0.0.9 --ports tcp/0', says: 'ports[0]: ' },
    { line: 'service set x --site site-b --address 10.0.0 --ports icmp', says: 'address: ' },
    {
      line: 'service set x --site site-x --address 10.0.0.9 --ports icmp',
      code: REFUSED,
      says: 'site-x',
    },
    { line: 'service delete nothing', code: REFUSED, says: 'nothing' },
    { line: 'expose bus', says: 'which exposure? Give a service and a site, or --name' },
    { line: 'expose bus site-a --name all', says: 'exclude each other' },
    { line: 'expose bus site-a --selector a=b', says: '--selector needs --name' },
    { line: 'expose bus --name all', says: 'siteSelector: is missing' },
    { line: 'expose bus --name all --selector a=b --wait', says: '--wait needs a site' },
    { line: 'expose nothing site-b', code: REFUSED, says: 'nothing' },
    { line: 'expose bus site-b --clients 10.0.0.0/33', says: 'clients[0]: ' },
    { line: 'expose bus site-b --not-after tomorrow', says: 'notAfter: expected a time' },
    { line: 'expose bus site-b --add-clients x', says: '"x" is not an IP prefix' },
    { line: 'expose bus site-b --remove-clients 10.0.0.0/24', says: 'all clients are permitted' },
    { line: 'expose bus site-b --timeout 0', says: 'Expected a duration' },
    { line: 'expose bus site-b', code: REFUSED, says: 'kept by the file', input: '' },
    { line: 'unexpose', says: 'which exposure?' },
    { line: 'unexpose bus', says: 'the site is missing' },
    { line: 'unexpose bus --name all', says: 'exclude each other' },
    { line: 'unexpose bus site-x', code: REFUSED, says: 'site-x' },
    { line: 'unexpose --name nothing', code: REFUSED, says: 'nothing' },
    { line: 'exposure list --service UPPER', says: 'service: expected' },
    { line: 'token create', says: "missing required argument 'site'" },
    { line: 'token create cloud', code: REFUSED, says: 'has no edge gateway' },
    { line: 'token create site-x', code: REFUSED, says: '"site-x" is not a site' },
    { line: 'token create site-b --lifetime 31d', says: 'lifetimeSeconds: expected' },
    { line: 'token create site-b --lifetime soon', says: 'Expected a duration such as' },
    { line: `token create site-b --out ${directory}`, says: 'it exists already' },
    {
      line: 'token create site-b --out /nothing/token',
      says: 'cannot be written into /nothing/token',
    },
    { line: 'token list --site UPPER', says: 'site: expected' },
    { line: 'token delete nothing', code: REFUSED, says: 'token' },
    { line: 'token delete LONG', says: 'token: expected at most 64' },
    { line: 'revoke', says: 'give one of a site, --serial and --key' },
    { line: 'revoke site-b --serial 00', says: 'give one of a site' },
    { line: 'revoke site-b --reason boredom', says: 'reason: expected' },
    { line: 'revoke sight-b', code: REFUSED, says: 'there is no site "sight-b", and nothing is' },
    { line: 'revoke --serial xyz', code: REFUSED, says: /serial/ },
    { line: 'revoke --key LONG', says: 'spki: expected at most 64' },
    { line: 'reinstate UPPER', says: 'site: expected' },
    { line: 'revocation list --site UPPER', says: 'site: expected' },
    { line: 'whois site-a', says: "missing required argument 'address'" },
    { line: 'whois site-a 10.0.0', says: 'address: ' },
    { line: 'whois site-a 10.0.0.250', code: REFUSED, says: 'is not a presence' },
    { line: 'lookup EMPTY', says: 'name: ' },
    { line: 'lookup LONG', says: 'name: expected at most 253' },
    { line: 'lookup bus --site site-x', code: REFUSED, says: '"site-x" is not a site' },
    { line: 'explain', says: 'give FROM and TO, such as' },
    { line: 'explain site-a/10.0.0.5', says: 'give FROM and TO' },
    { line: 'explain bus site-a/10.0.0.5', says: 'to: "site-a/10.0.0.5" is not a service, name' },
    { line: 'explain EMPTY bus', says: 'from: "" is not a site' },
    { line: 'explain site-a/10.0.0.5 LONG', says: 'to: expected at most 253' },
    { line: 'explain LONG bus', says: 'from.site: expected a name' },
    { line: 'explain site-a/LONG bus', says: 'from.service: expected a name' },
    { line: 'explain site-a/10.0.0.5 bus:0/udp', says: 'to: "bus:0/udp": port: expected' },
    { line: 'explain site-a/10.0.0.5 bus:7/xyz', says: '"xyz" is none of tcp, udp' },
    { line: 'explain site-a bus --source-port 0', says: 'Expected a port from 1 to' },
    { line: 'explain site-a bus --source-port 65536', says: 'Expected a port' },
    { line: 'explain site-a bus --site site-a', says: '--site needs --packet' },
    { line: 'explain site-a bus --packet 00', says: 'FROM and TO exclude --packet' },
    { line: 'explain --packet 00 --source-port 1', says: '--source-port excludes --packet' },
    { line: 'explain --packet xyz --site site-a', says: 'packet: expected' },
    { line: 'explain --packet LONG --site site-a', says: 'packet: expected' },
    { line: 'explain --packet 00', says: '--packet needs --site' },
    { line: 'explain 10.0.0.5 bus', says: 'a cloud gateway needs the site of the sender' },
    { line: 'explain site-x/10.0.0.5 bus', code: REFUSED, says: '"site-x" is not a site' },
    { line: 'explain site-a/bus bus', code: REFUSED, says: '"bus" is neither an address nor' },
    { line: 'ping', says: 'name the site, as in "ping site-a"' },
    { line: 'ping UPPER', says: 'site: expected a name' },
    { line: 'ping cloud', code: REFUSED, says: 'has no edge gateway' },
    { line: 'ping site-x', code: REFUSED, says: 'there is no site "site-x"' },
    { line: 'ping site-b', code: NOT_READY, says: 'site-b has no tunnel' },
    { line: 'ping site-b --count 0', says: 'count: expected' },
    { line: 'ping site-b --interval soon', says: 'Expected a duration such as 200ms' },
    { line: 'ping site-b --interval 11s', says: 'intervalMs: expected' },
    { line: 'capture', says: "required option '-w, --write <file>' not specified" },
    { line: 'capture -w EMPTY', says: 'the name of the file is empty' },
    { line: 'capture -w /nothing/x', says: 'cannot write /nothing/x' },
    { line: `capture -w ${directory}`, says: 'cannot write' },
    { line: 'capture -w - --from UPPER', says: 'site: expected a name' },
    { line: 'capture -w - --to x', code: REFUSED, says: '"x" is not a service' },
    { line: 'capture -w - --to site-x/10.0.0.5', code: REFUSED, says: '"site-x" is not a site' },
    { line: 'capture -w - --to site-a/bus', says: 'to.hosts[0]: ' },
    { line: 'capture -w - --to LONG', says: 'site: expected a name' },
    { line: 'capture -w - --duration 61s', says: 'durationMs: expected' },
    { line: 'capture -w - --max-bytes 1', says: 'maxBytes: expected' },
    { line: 'capture -w - --snap-length 257', says: 'snapLength: expected' },
    { line: 'service set x --add-ports tcp/1', says: 'site: is missing' },
    { line: 'site set site-a --add-pools 10.0.0', says: 'pools[1]: ' },
    { line: 'site set site-a --add-sources ,', says: 'one of them is empty' },
    { line: 'presence list --site UPPER', says: 'site: expected' },
    { line: 'path list --site UPPER', says: 'site: expected' },
    { line: 'release cloud', code: REFUSED, says: 'has no edge gateway' },
    { line: 'release site-x', code: REFUSED, says: 'site-x' },
    { line: 'move site-a -1', says: "'-1' is invalid for argument 'worker'" },
    { line: 'move site-a x', says: 'Expected a whole number' },
    { line: 'move site-a 64', says: 'worker: expected' },
    { line: 'move site-a 5', code: REFUSED, says: 'worker: there are 1' },
    { line: 'move site-a', says: 'give one of a worker and --machine' },
    { line: 'move site-a 0 --machine two', says: 'give one of a worker and --machine' },
    { line: 'move site-a --machine UPPER', says: 'machine: expected a name' },
    { line: 'move site-a --machine two', code: REFUSED, says: 'the only one of its cloud' },
    { line: 'machine list', code: REFUSED, says: 'the only one of its cloud' },
    { line: 'machine drain', says: "missing required argument 'machine'" },
    { line: 'machine drain LONG', says: 'machine: expected a name' },
    { line: 'machine resume two', code: REFUSED, says: 'the only one of its cloud' },
    { line: 'machine remove UPPER', says: 'machine: expected a name' },
    { line: 'reload now', says: 'too many arguments' },
    { line: 'ca status now', says: 'too many arguments' },
    { line: 'ca prepare --key /nothing', says: 'give both --certificate and --key' },
    { line: 'ca prepare --certificate /nothing --key -', says: 'it does not exist' },
    { line: 'ca activate', code: REFUSED, says: 'prepare' },
    { line: 'ca retire', code: REFUSED, says: 'there is no previous CA' },
    { line: 'ca crl x', says: 'too many arguments' },
    { line: 'ca bundle --json', says: "unknown option '--json'" },
    { line: 'desired apply', says: "missing required argument 'file'" },
    { line: 'desired apply -', says: 'expected a mapping' },
    { line: 'desired apply -', input: 'a: &a [*a]', says: 'is not a known key' },
    { line: 'desired apply -', input: 'services:\n  - nam: x', says: 'standard input:2: ' },
    {
      line: 'desired apply -',
      input: 'sites: [{name: site-a, sources: [], pools: [], zone: x.test}]',
      code: REFUSED,
      says: 'site-a',
    },
    { line: 'desired show it', says: 'too many arguments' },
    { line: 'audit verify /nothing', code: 1, says: 'cannot read /nothing' },
    { line: 'audit verify x --head 1:2', says: 'Expected a number, a colon' },
    { line: 'enrol', says: "required option '--token-file <file>' not specified" },
    { line: 'enrol --token-file /nothing', says: 'it does not exist' },
    { line: 'enrol --token-file -', says: 'the token is missing: standard input is empty' },
    { line: 'enrol --token-file -', input: LONG, says: 'token: expected at most 8192' },
  ];

  test.each(cases.map((each) => [each.line, each] as const))('%s', async (_, each) => {
    const says = await fail(each);
    if (each.says instanceof RegExp) expect(says).toMatch(each.says);
    else expect(says).toContain(each.says);
  });

  test('changes nothing', async () => {
    const io = new TestIo({ env: { VIRTUAL_PRESENCE_SOCKET: cloudSocket } });
    expect(await runCommand(['status'], io)).toMatchObject({ code: 0 });
    const { sites, services, exposures, selectors } = cloud.registry.state;
    const counts = [sites, services, exposures, selectors].map(({ length }) => length);
    expect(counts).toEqual([3, 1, 2, 0]);
  });
});

describe('a gateway', () => {
  test('of the other kind says so', async () => {
    const other = { line: 'site list', code: REFUSED, says: '' };
    expect(await fail(other, edgeSocket)).toContain('name the socket of a cloud gateway');
    const enrol = { line: 'enrol --token-file -', code: REFUSED, says: '', input: 'x' };
    expect(await fail(enrol)).toContain('name the socket of an edge gateway');
    const ping = { line: 'ping site-a', says: '' };
    expect(await fail(ping, edgeSocket)).toContain('leave the site out');
    for (const line of ['explain site-a bus', 'explain --packet 00 --site site-a']) {
      expect(await fail({ line, says: '' }, edgeSocket)).toContain('explains for its own site');
    }
    const status = { line: 'status site-a', code: REFUSED, says: '' };
    expect(await fail(status, edgeSocket)).toContain('knows nothing of "site-a"');
  });

  test('that refuses a token says why', async () => {
    const token = { line: 'enrol --token-file -', code: REFUSED, says: '', input: 'x' };
    expect(await fail(token, edgeSocket)).toContain('token');
  });

  test('that does not run ends each command with 4', async () => {
    const leaves = (command: Command, names: readonly string[]): (readonly string[])[] =>
      command.commands.flatMap((each) => {
        const path = [...names, each.name()];
        if (each.commands.length > 0) return leaves(each, path);
        if (!each.options.some(({ long }) => long === '--socket')) return [];
        const needed = each.registeredArguments.filter(({ required }) => required);
        const words = needed.map((argument) => WORDS[argument.name()] ?? 'x');
        return [[...path, ...words, ...(OPTIONS[path.join(' ')] ?? [])]];
      });
    for (const args of leaves(createProgram(new TestIo()), [])) {
      const line = args.join(' ');
      const each = { line, code: NOT_READY, says: '', input: '{}' };
      expect(await fail(each, stale), line).toContain('is the gateway running?');
    }
  });

  const WORDS: Readonly<Record<string, string>> = {
    address: '10.0.0.1',
    file: '-',
    site: 'site-a',
  };
  const OPTIONS: Readonly<Record<string, readonly string[]>> = {
    capture: ['-w', '-'],
    enrol: ['--token-file', '-'],
    explain: ['site-a/10.0.0.5', 'bus'],
    expose: ['site-a'],
    move: ['0'],
    revoke: ['site-a'],
    unexpose: ['bus', 'site-a'],
  };

  test('that is found nowhere ends a command with 4 and what to do', async () => {
    const usual = [
      '/run/virtual-presence-cloud/admin.sock',
      '/run/virtual-presence-edge/admin.sock',
      'admin.sock',
    ];
    if (usual.some((path) => existsSync(path))) return;
    const outcome = await runCommand(['status'], new TestIo());
    expect(outcome).toMatchObject({ code: NOT_READY, out: '' });
    expect(outcome.err).toContain('start a gateway, name its socket by --socket');
  });

  test('whose configuration is wrong is not asked', async () => {
    const config = join(directory, 'cloud.yaml');
    const status = { line: `status --config ${config}`, says: '' };
    expect(await fail(status)).toContain('it does not exist');
    writeFileSync(config, 'state: x\n');
    expect(await fail(status)).toContain(`${config}: adminSocket: is missing`);
    expect(await fail({ line: 'status --socket EMPTY', says: '' })).toContain('is empty');
    expect(await fail({ line: 'status --socket LONG', says: '' })).toContain('more than 107 bytes');
    expect(await fail({ line: 'status --config LONG', says: '' })).toContain('cannot be read');
    expect(await fail({ line: 'status --LONG', says: '' })).toContain("unknown option '--xxx");
  });

  test('that is none is told apart', async () => {
    const socket = join(directory, 'other.sock');
    const server = createServer((connection) => {
      // The command ends without reading everything.
      connection.on('error', () => {});
      connection.end('HELLO\n');
    }).listen(socket);
    await new Promise((resolve) => server.once('listening', resolve));
    try {
      const status = { line: 'status', code: 1, says: '' };
      expect(await fail(status, socket)).toContain(`cannot ask the gateway at ${socket}`);
    } finally {
      server.close();
    }
  });

  test('does not make the file of a token that it refuses', async () => {
    const out = join(directory, 'token');
    await fail({ line: `token create site-x --out ${out}`, code: REFUSED, says: '' });
    expect(existsSync(out)).toBe(false);
  });
});

test('a change of a record that another change overtakes is refused', async () => {
  const env = { VIRTUAL_PRESENCE_SOCKET: cloudSocket };
  const run = async (line: string): Promise<void> => {
    expect(await runCommand(line.split(' '), new TestIo({ env }))).toMatchObject({ code: 0 });
  };
  await run(`site set site-c ${SITE}`);
  // Standard input is read between the record and its change.
  async function* input() {
    await run('site set site-c --mtu 1400');
    yield Buffer.from('{"sources":[],"pools":[],"zone":"c.test"}');
  }
  const io = Object.assign(new TestIo({ env }), { stdin: Readable.from(input()) });
  const outcome = await runCommand(['site', 'set', 'site-c', '--file', '-'], io);
  expect(outcome).toMatchObject({ code: REFUSED, out: '' });
  expect(outcome.err).toContain('somebody else has changed the site "site-c"');
  expect(cloud.registry.site('site-c')).toMatchObject({ mtu: 1400 });
  await run('site delete site-c');
});
