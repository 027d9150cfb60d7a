import { expect, test, vi } from 'vitest';
import { LinuxTun } from '../../src/device/index.ts';
import { EnvironmentError } from '../../src/errors.ts';

vi.mock('koffi', () => {
  throw new Error('Cannot find package');
});

test.skipIf(process.platform !== 'linux')(
  'LinuxTun.open without koffi says how to get it (Linux only)',
  async () => {
    const opening = LinuxTun.open({ name: 'vp0' });
    await expect(opening).rejects.toThrow(EnvironmentError);
    await expect(opening).rejects.toThrow(
      /^a Linux TUN needs the package koffi, which could not be loaded \(npm install koffi\): /
    );
  }
);
