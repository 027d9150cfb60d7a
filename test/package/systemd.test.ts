/**
 * The units of systemd that the package has: `systemd-analyze verify` finds nothing, and what they name is what the
 * gateways need.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import manifest from '../../package.json' with { type: 'json' };
import { titled } from '../support/titled.ts';

const UNITS = ['virtual-presence-cloud.service', 'virtual-presence-edge.service'];

const skipReason = ((): string | undefined => {
  try {
    execFileSync('systemd-analyze', ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'systemd-analyze is not installed (Debian package systemd)';
  }
})();

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vp-units-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Checks a unit, with a program in the place of the command, which need not be installed here. */
function verify(unit: string, text: string): { status: number | null; said: string } {
  const program = join(folder, 'virtual-presence');
  writeFileSync(program, '#!/bin/sh\n');
  chmodSync(program, 0o755);
  writeFileSync(
    join(folder, unit),
    text.replace(/^ExecStart=virtual-presence /m, `ExecStart=${program} `)
  );
  const args = ['verify', '--man=no', join(folder, unit)];
  const { status, stdout, stderr } = spawnSync('systemd-analyze', args, { encoding: 'utf8' });
  return { status, said: stdout + stderr };
}

/** Returns the values of a key, in their order. */
function valuesOf(text: string, key: string): string[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith(`${key}=`))
    .map((line) => line.slice(key.length + 1));
}

test('the package has these units alone', () => {
  expect(readdirSync('systemd').sort()).toEqual(UNITS);
  expect(manifest.files).toContain('systemd');
});

describe.each(UNITS)('%s', (unit) => {
  const text = readFileSync(join('systemd', unit), 'utf8');
  const name = unit.replace('.service', '');
  const gateway = name.replace('virtual-presence-', '');

  test.skipIf(skipReason !== undefined)(titled('passes systemd-analyze verify', skipReason), () => {
    expect(verify(unit, text)).toEqual({ status: 0, said: '' });
    // A mistake is a warning, with which the command succeeds.
    expect(verify(unit, text.replace('Restart=', 'Restrat=')).said).toMatch(/Restrat/);
  });

  test('runs the command with the file of its gateway, and does not repeat what cannot succeed', () => {
    const file = `/etc/virtual-presence/${gateway}.yaml`;
    expect(valuesOf(text, 'ExecStart')).toEqual([`virtual-presence ${gateway} ${file}`]);
    expect(valuesOf(text, 'Type')).toEqual(['notify']);
    expect(valuesOf(text, 'NotifyAccess')).toEqual(['all']);
    expect(valuesOf(text, 'RestartPreventExitStatus')).toEqual(['2']);
    // A gateway that hangs is killed, and started again.
    expect(valuesOf(text, 'WatchdogSec')).toEqual(['15']);
    expect(valuesOf(text, 'WatchdogSignal')).toEqual(['SIGKILL']);
    expect(valuesOf(text, 'Restart')).toEqual(['on-failure']);
  });

  test('names the directories and the secret that its comments tell the operator to use', () => {
    for (const [key, path] of [
      ['StateDirectory', '/var/lib'],
      ['RuntimeDirectory', '/run'],
    ] as const) {
      expect(valuesOf(text, key)).toEqual([name]);
      expect(text).toContain(`${path}/${name}`);
    }
    const [secret, source] = valuesOf(text, 'LoadCredential')[0]!.split(':');
    expect(source).toBe(`/etc/virtual-presence/${secret}`);
    expect(text).toContain(`/run/credentials/${unit}/${secret}\n`);
  });

  test('leaves out what V8 and the TUN do not stand', () => {
    for (const key of ['MemoryDenyWriteExecute', 'ProtectKernelTunables', 'PrivateDevices']) {
      expect(valuesOf(text, key)).toEqual([]);
    }
    const capabilities = ['CAP_NET_ADMIN CAP_NET_BIND_SERVICE'];
    expect(valuesOf(text, 'AmbientCapabilities')).toEqual(capabilities);
    expect(valuesOf(text, 'CapabilityBoundingSet')).toEqual(capabilities);
  });
});
