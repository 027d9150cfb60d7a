/** SIGHUP, and which changes of a file need a restart. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { afterAll, describe, expect, test } from 'vitest';
import { ConfigFile } from '../../src/cli/config-file.ts';
import { ExitCode } from '../../src/cli/index.ts';
import { changedKeys } from '../../src/cli/restart-keys.ts';
import { MemoryStore, Registry } from '../../src/index.ts';
import { formatToken } from '../../src/pki/token.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';
import { runCommand, TestIo } from './run-command.ts';

const root = mkdtempSync(join(tmpdir(), 'vp-reload-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('changedKeys', () => {
  const before = { keys: { a: 1, b: 'x' }, options: { a: 1, b: 'x', c: 30 } };

  test('names a key whose option has changed, and one that is gone', () => {
    const after = { keys: { a: 2 }, options: { a: 2, b: undefined, c: 30 } };
    expect(changedKeys(before, after)).toEqual(['a', 'b']);
  });

  test('does not name a key that is now given with its default', () => {
    expect(changedKeys(before, { ...before, keys: { ...before.keys, c: 30 } })).toEqual([]);
  });
});

test('a record of the file that the admin interface keeps is named with its line', async () => {
  const path = join(root, 'cloud.yaml');
  const site = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'a.test' };
  const lines = ['cloud', 'site-a'].map((name) => `    - ${JSON.stringify({ name, ...site })}`);
  writeFileSync(path, ['desired:', '  sites:', ...lines, ''].join('\n'));
  const file = new ConfigFile(path);
  await using registry = await Registry.open(new MemoryStore());
  await registry.putSite({ name: 'site-a', ...site }, 'admin');
  const { desired } = file.plain(v.unknown()) as { readonly desired: unknown };
  const reloading = file.locate(() => registry.apply(desired, 'file'), { within: 'desired' });
  await expect(reloading).rejects.toThrow(
    `${path}:4: desired.sites[1]: the site "site-a" is kept by the admin already`
  );
});

test('an edge gateway says on SIGHUP which changes of its file need a restart, or what is wrong with it', async () => {
  const nobody = await refusingTcpPort();
  const path = join(root, 'edge.yaml');
  const write = (change: object): void => {
    const device = { type: 'sockets' };
    const keys = { stateDirectory: './state', tokenFile: './token', device, ...change };
    writeFileSync(path, JSON.stringify(keys));
  };
  write({});
  writeFileSync(
    join(root, 'token'),
    formatToken({
      endpoints: [`https://127.0.0.1:${nobody.port}`],
      caSpkiHash: Buffer.alloc(32, 1).toString('base64url'),
      trustDomain: 'presence.internal',
      site: 'site-a',
      id: Buffer.alloc(16, 2).toString('base64url'),
      secret: Buffer.alloc(32, 3).toString('base64url'),
    })
  );
  const io = new TestIo();
  const ended = runCommand(['edge', path], io);
  await io.logged(/ not enrolled: /);
  // A value that is the default changes nothing.
  write({ snapshotValidSeconds: 604_800, tokenFile: './other', cloud: ['192.0.2.1:7443'] });
  io.signals.emit('SIGHUP');
  await io.logged(/ info reloaded$/);
  expect(io.err).toMatch(/ warn changed, and needs a restart: tokenFile, cloud\n/);
  write({ dsn: {} });
  io.signals.emit('SIGHUP');
  expect(await io.logged(/not reloaded/)).toMatch(/edge\.yaml:1: dsn: is not a known key$/);
  io.signals.emit('SIGTERM');
  expect((await ended).code).toBe(ExitCode.Done);
  nobody.close();
});
