/** Either all files in the clear become encrypted or none, whenever the machine crashes or the disk fails. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, test, vi } from 'vitest';
import { EnvironmentError } from '../../src/errors.ts';
import { FileSecrets } from '../../src/store/index.ts';
import { Crash, CrashingDisk } from './crashing-disk.ts';

type FileSystem = typeof import('node:fs/promises');
type Crypto = typeof import('node:crypto');

const stand = vi.hoisted(() => ({
  fileSystem: undefined as Pick<FileSystem, 'open' | 'rename' | 'rm'> | undefined,
}));
vi.mock('node:fs/promises', async (importOriginal) => {
  const original = await importOriginal<FileSystem>();
  const open: FileSystem['open'] = (...args) => (stand.fileSystem ?? original).open(...args);
  const rename: FileSystem['rename'] = (...args) => (stand.fileSystem ?? original).rename(...args);
  const rm: FileSystem['rm'] = (...args) => (stand.fileSystem ?? original).rm(...args);
  return { ...original, open, rename, rm };
});
// The key is derived hundreds of times here, so the derivation is made cheaper.
vi.mock('node:crypto', async (importOriginal) => {
  const original = await importOriginal<Crypto>();
  const scrypt = ((passphrase, salt, length, _options, callback) =>
    original.scrypt(passphrase, salt, length, { N: 2 }, callback)) as Crypto['scrypt'];
  return { ...original, scrypt };
});
const original = await vi.importActual<FileSystem>('node:fs/promises');

const home = mkdtempSync(join(tmpdir(), 'secrets-taken-up-'));
let directories = 0;
const newDirectory = (): string => {
  const path = join(home, String(directories++));
  mkdirSync(path, { mode: 0o700 });
  return path;
};
afterEach(() => {
  stand.fileSystem = undefined;
});
afterAll(() => rmSync(home, { recursive: true }));

const passphrase = 'correct horse';
const CLEAR = { 'ca.json': 'PLAIN 1', 'ca-key.pem': 'PLAIN 2', 'key.pem': 'PLAIN 3' };
const OTHERS = { 'store.journal': 'of the store' };
const NAMES = Object.keys(CLEAR);

/** A disk with files in the clear on it. */
function clearDisk(): CrashingDisk {
  const disk = new CrashingDisk(original, newDirectory());
  for (const [name, text] of Object.entries({ ...CLEAR, ...OTHERS })) {
    writeFileSync(join(disk.directory, name), text, { mode: 0o600 });
  }
  disk.adopt();
  return disk;
}

async function contentOf(secrets: FileSecrets): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const name of NAMES) found[name] = Buffer.from((await secrets.get(name))!).toString();
  return found;
}

/** The names of the secrets that are encrypted now. */
function encryptedOf(directory: string): string[] {
  return NAMES.filter((name) =>
    readFileSync(join(directory, name), 'latin1').startsWith('\0vpsecret')
  );
}

/** Expects the state of the directory after the secrets were encrypted. */
async function checkTakenUp(directory: string): Promise<void> {
  expect(await contentOf(await FileSecrets.open(directory, { passphrase }))).toEqual(CLEAR);
  expect(encryptedOf(directory)).toEqual(NAMES);
  expect(readdirSync(directory).sort()).toEqual([...NAMES, ...Object.keys(OTHERS)].sort());
  expect(readFileSync(join(directory, 'store.journal'), 'utf8')).toBe(OTHERS['store.journal']);
}

test('a crash at any point leaves all files in the clear or all encrypted, and the next open finishes', {
  timeout: 180_000,
}, async () => {
  const seen = { clear: 0, encrypted: 0, decided: 0 };
  for (let callsLeft = 0; ; callsLeft++) {
    const disk = clearDisk();
    disk.callsLeft = callsLeft;
    stand.fileSystem = disk.fileSystem;
    let hasCrashed = false;
    try {
      expect(await contentOf(await FileSecrets.open(disk.directory, { passphrase }))).toEqual(
        CLEAR
      );
    } catch (error) {
      expect((error as Error).cause).toBeInstanceOf(Crash);
      hasCrashed = true;
    } finally {
      stand.fileSystem = undefined;
    }
    for (const directory of disk.leave(newDirectory)) {
      const isDecided = readdirSync(directory).includes('commit-journal');
      if (isDecided) seen.decided++;
      else {
        const encrypted = encryptedOf(directory);
        expect([[], NAMES], `${callsLeft} calls`).toContainEqual(encrypted);
        seen[encrypted.length === 0 ? 'clear' : 'encrypted']++;
      }
      await checkTakenUp(directory);
    }
    if (!hasCrashed) break;
  }
  for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(0);
});

test('a second crash while that is finished does no harm', { timeout: 180_000 }, async () => {
  let rounds = 0;
  for (let callsLeft = 0; ; callsLeft++) {
    const disk = clearDisk();
    disk.callsLeft = callsLeft;
    stand.fileSystem = disk.fileSystem;
    const secrets = await FileSecrets.open(disk.directory, { passphrase });
    const hasCrashed = await secrets.get('key.pem').then(
      () => false,
      () => true
    );
    stand.fileSystem = undefined;
    if (!hasCrashed) break;
    const [left] = disk.leave(newDirectory);
    // Without a journal, the next start begins from the first step, as in the test above.
    if (!readdirSync(left!).includes('commit-journal')) continue;
    for (let more = 0; ; more++) {
      const again = new CrashingDisk(original, newDirectory());
      for (const name of readdirSync(left!)) {
        writeFileSync(join(again.directory, name), readFileSync(join(left!, name)), {
          mode: 0o600,
        });
      }
      again.adopt();
      again.callsLeft = more;
      stand.fileSystem = again.fileSystem;
      const reading = FileSecrets.open(again.directory, { passphrase }).then(contentOf);
      const isDone = await reading.then(
        () => again.calls < more,
        () => false
      );
      stand.fileSystem = undefined;
      for (const directory of again.leave(newDirectory)) {
        await checkTakenUp(directory);
        rounds++;
      }
      if (isDone) break;
    }
  }
  expect(rounds).toBeGreaterThan(50);
});

test('a disk failure leaves secrets that can be read and encrypted later', {
  timeout: 180_000,
}, async () => {
  let rejected = 0;
  for (let failing = 0; ; failing++) {
    const disk = clearDisk();
    stand.fileSystem = disk.fileSystem;
    const secrets = await FileSecrets.open(disk.directory, { passphrase });
    let failures = 0;
    disk.onCall = () => {
      if (disk.calls <= failing || failures > 0) return;
      failures++;
      throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
    };
    const failure = await secrets.get('key.pem').then(
      () => undefined,
      (error: Error) => error
    );
    if (failure !== undefined) {
      rejected++;
      expect(failure).toBeInstanceOf(EnvironmentError);
      expect(failure.message).toContain('the disk is full');
    }
    disk.onCall = () => {};
    expect(await contentOf(secrets)).toEqual(CLEAR);
    stand.fileSystem = undefined;
    await checkTakenUp(disk.directory);
    if (failures === 0) break;
  }
  expect(rejected).toBeGreaterThan(5);
});
