/**
 * A host refuses workers of another version of the library. The programs are real processes.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { ConfigError, EnvironmentError } from '../../src/errors.ts';
import { VERSION } from '../../src/index.ts';
import { WorkerPool } from '../../src/worker/index.ts';

vi.mock('../../src/device/index.ts', async (original) => ({
  ...(await original<typeof import('../../src/device/index.ts')>()),
  forgetRoutes: async () => {},
}));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'worker-version-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Opens a pool whose workers run `onCall`, the source of a program, for each call; returns the error. */
async function openWith(onCall: string): Promise<unknown> {
  const workerMain = join(folder, `${Buffer.from(onCall).toString('hex').slice(0, 40)}.cjs`);
  const source = [
    `process.on('message', ({ name, id }) => { ${onCall} });`,
    "process.on('disconnect', () => process.exit(0));",
  ];
  await writeFile(workerMain, source.join('\n'));
  const pool = new WorkerPool({
    workers: 2,
    device: { name: 'vp0' },
    tunnel: '127.0.0.1:0',
    credentials: () => ({ key: '', cert: '', ca: '' }),
    access: () => ({
      sites: [],
      revocations: { sites: new Set(), serials: new Set(), spkis: new Set() },
      retired: [],
    }),
    admit: async () => {},
    workerMain,
  });
  return pool.open().catch((error: unknown) => error);
}

test('refuses a program of another version', async () => {
  const fault = await openWith("process.send({ id, value: '9.9.9' });");
  expect(fault).toBeInstanceOf(ConfigError);
  expect((fault as Error).message).toMatch(
    `is of another version of the library: 9.9.9, not ${VERSION}`
  );
});

test('refuses a program from before the version check', async () => {
  const error = "{ message: 'not known here', fields: { code: 'ERR_PRESENCE_API_MISUSE' } }";
  const fault = await openWith(`process.send({ id, error: ${error} });`);
  expect(fault).toBeInstanceOf(ConfigError);
  expect((fault as Error).message).toMatch(/^workerMain: .*: an older one, not /);
});

test('refuses a program that ends without an answer', async () => {
  const fault = await openWith('process.exit(3);');
  expect(fault).toBeInstanceOf(EnvironmentError);
  expect((fault as Error).message).toMatch(/^process [01] has ended \(3\)$/);
});
