/** `init`: the files that it makes are valid, and nothing that exists is lost. */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { cloudOptions, readCloudKeys } from '../../src/cli/cloud-file.ts';
import { ConfigFile } from '../../src/cli/config-file.ts';
import { edgeOptions, readEdgeKeys } from '../../src/cli/edge-file.ts';
import { createProgram, ExitCode } from '../../src/cli/index.ts';
import type { Machine } from '../../src/cli/machine.ts';
import { firstEdgeCommands, firstSiteCommands } from '../../src/cli/next-steps.ts';
import { cloudStarter, edgeStarter } from '../../src/cli/starter.ts';
import { resolveEdgeOptions } from '../../src/gateway/edge-options.ts';
import { resolveCloudOptions } from '../../src/gateway/index.ts';
import { MemoryStore, Registry } from '../../src/index.ts';
import { formatToken } from '../../src/pki/token.ts';
import { faultOfCommand } from '../support/command-line.ts';
import { runCommand, TestIo } from './run-command.ts';

const root = mkdtempSync(join(tmpdir(), 'vp-init-'));
let count = 0;
const newPath = (): string => join(root, String(count++));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const TOKEN = formatToken({
  endpoints: ['https://192.0.2.1:7440'],
  caSpkiHash: Buffer.alloc(32, 1).toString('base64url'),
  trustDomain: 'presence.internal',
  site: 'site-a',
  id: Buffer.alloc(16, 2).toString('base64url'),
  secret: Buffer.alloc(32, 3).toString('base64url'),
});

const modeOf = (path: string): number => statSync(path).mode & 0o777;

describe('init cloud', () => {
  test('makes a configuration and the state directory, and says how to start the gateway', async () => {
    const directory = join(newPath(), 'below');
    const { code, out, err } = await runCommand(['init', 'cloud', directory]);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(modeOf(join(directory, 'state'))).toBe(0o700);
    expect(out).toContain(`virtual-presence cloud ${directory}/cloud.yaml\n`);
    expect(out).toMatch(/^The gateway uses (a TUN device|sockets of its own process), because /m);
    const [first] = readFileSync(join(directory, 'cloud.yaml'), 'utf8').split('\n');
    expect(first).toMatch(/^# yaml-language-server: \$schema=\S+\/schemas\/cloud\.json$/);
  });

  test('names the program as npx does, if it was called by npx', async () => {
    const io = new TestIo({ env: { npm_command: 'exec' } });
    const { out } = await runCommand(['init', 'cloud', newPath()], io);
    expect(out).toMatch(/^ {2}npx virtual-presence cloud /m);
  });

  test('--systemd gives it the directories of the unit, and says how to install that', async () => {
    const directory = newPath();
    const { code, out } = await runCommand(['init', 'cloud', directory, '--systemd']);
    expect(code).toBe(0);
    expect(existsSync(join(directory, 'state'))).toBe(false);
    expect(out).toMatch(
      /^ {2}cp \S+\/systemd\/virtual-presence-cloud\.service \/etc\/systemd\/system\/$/m
    );
    const text = readFileSync(join(directory, 'cloud.yaml'), 'utf8');
    const unit = readFileSync('systemd/virtual-presence-cloud.service', 'utf8');
    const said = [...unit.matchAll(/^# The file has: (?:trust\.)?(.*)$/gm)].map(
      ([, line]) => line!
    );
    expect(said).toHaveLength(3);
    for (const line of said) expect(text).toContain(line);
  });

  test('replaces no file without --force', async () => {
    const directory = newPath();
    await runCommand(['init', 'cloud', directory]);
    const path = join(directory, 'cloud.yaml');
    writeFileSync(path, 'mine');
    expect(await runCommand(['init', 'cloud', directory])).toEqual({
      code: ExitCode.Usage,
      out: '',
      err: `virtual-presence: ${path} exists already: give another directory, or --force to replace it\n`,
    });
    expect(readFileSync(path, 'utf8')).toBe('mine');
    expect((await runCommand(['init', 'cloud', directory, '--force'])).code).toBe(0);
    expect(readFileSync(path, 'utf8')).not.toBe('mine');
  });

  test('--dry-run prints the file, and makes nothing', async () => {
    const directory = newPath();
    const { code, out } = await runCommand(['init', 'cloud', directory, '--dry-run']);
    expect({ code, isMade: existsSync(directory) }).toEqual({ code: 0, isMade: false });
    expect(out).toMatch(/^# yaml-language-server: .*\ntrustDomain: /ms);
  });

  test.each([
    ['nowhere', /^virtual-presence: --tunnel: [^\n]*"nowhere"[^\n]*\n$/],
    ['127.0.0.1:65536', /^virtual-presence: --tunnel: expected a port from 0 to 65535[^\n]*\n$/],
    ['0.0.0.0:7443', /^virtual-presence: --tunnel: [^\n]*edges cannot connect to 0\.0\.0\.0/],
    ['127.0.0.1:1\ndns: {}', /^virtual-presence: --tunnel: [^\n]*\n$/],
  ])('makes nothing with --tunnel %j', async (tunnel, says) => {
    const directory = newPath();
    const outcome = await runCommand(['init', 'cloud', directory, '--tunnel', tunnel]);
    expect(outcome).toEqual({ code: ExitCode.Usage, out: '', err: expect.stringMatching(says) });
    expect(existsSync(directory)).toBe(false);
  });

  test('--lan names the interface of the hosts, and one without an address is refused', async () => {
    const directory = newPath();
    const { out } = await runCommand(['init', 'cloud', directory, '--lan', 'lo', '--dry-run']);
    expect(out).toContain('sources: [127.0.0.0/8]');
    expect(await runCommand(['init', 'edge', directory, '--lan', 'nowhere0'])).toEqual({
      code: ExitCode.Usage,
      out: '',
      err: expect.stringMatching(
        /^virtual-presence: --lan: no interface nowhere0 with an IPv4 address is up; there are lo/
      ),
    });
    expect(existsSync(directory)).toBe(false);
  });

  test('says which route the hosts of the LAN need, if there is a TUN', async () => {
    const init = async (...args: string[]) =>
      (await runCommand(['init', ...args, newPath(), '--device', 'tun'])).out;
    expect(await init('cloud')).toMatch(
      /^Hosts of its LAN need a route: ip route add \S+\/20 via /m
    );
    expect(await init('edge')).toContain('ip route add POOL_OF_THE_SITE via ');
    const sockets = ['init', 'cloud', newPath(), '--device', 'sockets'];
    expect((await runCommand(sockets)).out).not.toContain('route');
  });

  test('a directory that is a file is named', async () => {
    const path = newPath();
    writeFileSync(path, '');
    expect(await runCommand(['init', 'cloud', path])).toEqual({
      code: ExitCode.Failed,
      out: '',
      err: `virtual-presence: the directory ${path} cannot be made: there is a file already\n`,
    });
  });
});

describe('init edge', () => {
  test.each(['a file', 'standard input'])('stores the token of %s for its owner', async (from) => {
    const directory = newPath();
    const given = newPath();
    writeFileSync(given, `  ${TOKEN}\n`);
    const io = new TestIo({ input: `${TOKEN}\n` });
    const source = from === 'a file' ? given : '-';
    const { code, out, err } = await runCommand(
      ['init', 'edge', directory, '--token-file', source],
      io
    );
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(readFileSync(join(directory, 'token'), 'utf8')).toBe(`${TOKEN}\n`);
    expect(modeOf(join(directory, 'token'))).toBe(0o600);
    expect(out).not.toContain(TOKEN);
    expect(out).toContain(`virtual-presence edge ${directory}/edge.yaml\n`);
  });

  test('without a token says where to put it', async () => {
    const directory = newPath();
    const { out } = await runCommand(['init', 'edge', directory]);
    expect(out).toContain(`put the token of the cloud's operator into ${directory}/token`);
    expect(existsSync(join(directory, 'token'))).toBe(false);
  });

  test.each([
    ['malformed', 'not an enrolment token'],
    ['vp1.e30', 'the enrolment token is damaged'],
    ['x'.repeat(100_000), 'not an enrolment token'],
  ])('makes nothing with the token "%.10s"', async (input, says) => {
    const directory = newPath();
    const io = new TestIo({ input });
    expect(await runCommand(['init', 'edge', directory, '--token-file', '-'], io)).toEqual({
      code: ExitCode.Usage,
      out: '',
      err: `virtual-presence: ${says}\n`,
    });
    expect(existsSync(directory)).toBe(false);
  });

  test('does not take a token on the command line, where others see it', async () => {
    const { code } = await runCommand(['init', 'edge', newPath(), '--token', TOKEN]);
    expect(code).toBe(ExitCode.Usage);
  });
});

describe('an edge gateway of the systemd unit', () => {
  test('has the directories and the token of the unit', async () => {
    const directory = newPath();
    expect((await runCommand(['init', 'edge', directory, '--systemd'])).code).toBe(0);
    const path = join(directory, 'edge.yaml');
    const unit = readFileSync('systemd/virtual-presence-edge.service', 'utf8');
    const said = [...unit.matchAll(/^# The file has: (.*)$/gm)].map(([, line]) => line!);
    expect(said).toHaveLength(3);
    for (const line of said) expect(readFileSync(path, 'utf8')).toContain(line);
  });

  test('says that there is no token, if the file is empty as that of a unit without one', async () => {
    const directory = newPath();
    await runCommand(['init', 'edge', directory, '--device', 'sockets']);
    writeFileSync(join(directory, 'token'), '\n');
    const path = join(directory, 'edge.yaml');
    const file = new ConfigFile(path);
    const { token } = edgeOptions(file, await readEdgeKeys(file), {});
    expect(token).toThrow(/^the token file \S+ is empty: put a token of the cloud into it/);
    const { out } = await runCommand(['config', 'check', '--system', path]);
    expect(out).toMatch(/^fail +token +the site is not enrolled, and there is no token in /m);
  });
});

describe('a first configuration', () => {
  const bare: Machine = {
    noTun: undefined,
    address: '127.0.0.1',
    lan: undefined,
    pool: '100.64.0.0/24',
    hasDnsPort: false,
  };
  const usual: Machine = {
    ...bare,
    address: '192.0.2.10',
    lan: { device: 'eth0', address: '192.0.2.10', network: '192.0.2.0/24' },
    hasDnsPort: true,
  };
  const cases = [bare, usual].flatMap((machine) =>
    (['tun', 'sockets'] as const).map(
      (device) => [`${device} at ${machine.address}`, machine, device] as const
    )
  );

  test.each(cases)('of a cloud is valid: %s', async (_, machine, device) => {
    const path = newPath();
    const tunnel = `${machine.address}:7443`;
    writeFileSync(path, cloudStarter(machine, { device, schema: 'x.json', tunnel }));
    const file = new ConfigFile(path);
    const keys = await readCloudKeys(file);
    const options = resolveCloudOptions(cloudOptions(file, keys, {}));
    expect(options).toMatchObject({ device: { type: device }, adminSocket: `${root}/admin.sock` });
    expect(options.dns !== undefined).toBe(device === 'tun' && machine.hasDnsPort);
    await using registry = await Registry.open(new MemoryStore());
    await registry.apply(keys.desired as never, 'file');
    expect(registry.state.sites.map(({ name }) => name)).toEqual(['cloud']);
  });

  test.each(cases)('of an edge is valid: %s', async (_, machine, device) => {
    const path = newPath();
    writeFileSync(path, edgeStarter(machine, { device, schema: 'x.json' }));
    const file = new ConfigFile(path);
    const options = resolveEdgeOptions(edgeOptions(file, await readEdgeKeys(file), {}));
    expect(options.device).toMatchObject({ type: device });
    expect(options.dns !== undefined).toBe(device === 'tun' && machine.hasDnsPort);
  });
});

describe('the commands that are proposed', () => {
  const words = (line: string): string[] => line.split(' ').slice(1);
  const proposed = [
    ...firstSiteCommands('virtual-presence', '/run/admin.sock'),
    ...firstEdgeCommands('virtual-presence'),
  ].map(words);
  const names = createProgram(new TestIo()).commands.map((command) => command.name());

  test.each(
    proposed.filter(([name]) => names.includes(name!)).map((each) => [each.join(' '), each])
  )('exist: %s', (_, each) => {
    expect(faultOfCommand(each as string[])).toBeUndefined();
  });
});
