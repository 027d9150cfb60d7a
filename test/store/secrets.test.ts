/** The tests that every implementation of `Secrets` must pass, and `FileSecrets` after a crash or on a failing disk. */
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest';
import { ApiMisuseError, EnvironmentError } from '../../src/errors.ts';
import {
  FileSecrets,
  MemorySecrets,
  MemoryStore,
  type SecretChanges,
  type Secrets,
  StoreSecrets,
} from '../../src/store/index.ts';
import { Crash, CrashingDisk } from './crashing-disk.ts';

type FileSystem = typeof import('node:fs/promises');

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
const original = await vi.importActual<FileSystem>('node:fs/promises');

const home = mkdtempSync(join(tmpdir(), 'secrets-'));
let directories = 0;
const newPath = (): string => join(home, String(directories++));
const newDirectory = (): string => {
  const path = newPath();
  mkdirSync(path, { mode: 0o700 });
  return path;
};
afterEach(() => {
  stand.fileSystem = undefined;
});
afterAll(() => rmSync(home, { recursive: true }));

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const modeOf = (path: string): number => statSync(path).mode & 0o777;
const NAMES = ['a.pem', 'b.pem', 'c.json', 'd'];

async function contentOf(secrets: Secrets): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const name of NAMES) {
    const each = await secrets.get(name);
    if (each !== undefined) found[name] = Buffer.from(each).toString();
  }
  return found;
}

describe.each<[string, () => Promise<Secrets>]>([
  ['MemorySecrets', async () => new MemorySecrets()],
  ['FileSecrets', () => FileSecrets.open(newPath())],
  ['FileSecrets with a passphrase', () => FileSecrets.open(newPath(), { passphrase: 'x' })],
  ['StoreSecrets', () => StoreSecrets.open(new MemoryStore(), { passphrase: 'x' })],
])('%s', (_, open) => {
  test('keeps bytes under names, changes several at once and removes them', async () => {
    const secrets = await open();
    expect(await contentOf(secrets)).toEqual({});
    await secrets.commit({ 'a.pem': bytes('1'), 'b.pem': bytes('1') });
    await secrets.commit({ 'a.pem': bytes('2'), 'b.pem': undefined, d: Uint8Array.of(0, 255) });
    expect(Uint8Array.from((await secrets.get('d'))!)).toEqual(Uint8Array.of(0, 255));
    await secrets.commit({ d: undefined, 'c.json': undefined });
    expect(await contentOf(secrets)).toEqual({ 'a.pem': '2' });
    await secrets.commit({});
    expect(await contentOf(secrets)).toEqual({ 'a.pem': '2' });
  });

  test('does the operations in the order in which they are called', async () => {
    const secrets = await open();
    const first = secrets.commit({ 'a.pem': bytes('1'), 'b.pem': bytes('1') });
    const between = contentOf(secrets);
    const second = secrets.commit({ 'a.pem': bytes('2') });
    expect((await between)['b.pem']).toBe('1');
    await Promise.all([first, second]);
    expect(await contentOf(secrets)).toEqual({ 'a.pem': '2', 'b.pem': '1' });
  });

  test('is not affected by later changes of the bytes by the caller', async () => {
    const secrets = await open();
    const given = bytes('1');
    const committed = secrets.commit({ d: given });
    given[0] = 0;
    await committed;
    (await secrets.get('d'))![0] = 0;
    expect(await contentOf(secrets)).toEqual({ d: '1' });
  });

  test.each([
    ...[
      '',
      '.',
      '..',
      'a/b',
      '../a',
      'a..b',
      '.hidden',
      'a\0b',
      'a b',
      'ä',
      'a\\b',
      'x'.repeat(101),
    ],
    ...['a.pem.uncommitted', 'commit-journal', '__proto__', 7, null, undefined],
  ])('refuses the name %j and changes nothing', async (name) => {
    const secrets = await open();
    await expect(secrets.get(name as string)).rejects.toThrow(ApiMisuseError);
    const changes = Object.fromEntries([
      ['d', bytes('1')],
      [name, bytes('1')],
    ]) as SecretChanges;
    if (typeof name === 'string') {
      await expect(secrets.commit(changes)).rejects.toThrow(ApiMisuseError);
      expect(await contentOf(secrets)).toEqual({});
    }
  });

  test.each([null, undefined, 'text', { d: 'text' }, { d: null }, { d: 1 }])(
    'refuses the changes %j',
    async (changes) => {
      const secrets = await open();
      await expect(secrets.commit(changes as unknown as SecretChanges)).rejects.toThrow(
        ApiMisuseError
      );
      expect(await contentOf(secrets)).toEqual({});
    }
  );
});

describe('the directory of FileSecrets', () => {
  test.skipIf(process.platform === 'win32')(
    'ignores the mode and the target of a file that an interrupted write has left',
    async () => {
      for (const end of ['.new', '.uncommitted']) {
        const secrets = await FileSecrets.open(newPath());
        const leftOver = `${secrets.locate('ca-key.pem')}${end}`;
        writeFileSync(leftOver, 'of before');
        chmodSync(leftOver, 0o644);
        await secrets.commit({ 'ca-key.pem': bytes('secret') });
        expect(modeOf(secrets.locate('ca-key.pem'))).toBe(0o600);

        const elsewhere = join(newDirectory(), 'elsewhere');
        writeFileSync(elsewhere, 'of another');
        symlinkSync(elsewhere, `${secrets.locate('ca-key.pem')}.uncommitted`);
        await secrets.commit({ 'ca-key.pem': bytes('secret again') });
        expect(readFileSync(elsewhere, 'utf8')).toBe('of another');
        expect(readFileSync(secrets.locate('ca-key.pem'), 'utf8')).toBe('secret again');
        expect(readdirSync(secrets.path)).toEqual(['ca-key.pem']);
      }
    }
  );

  test.skipIf(process.platform === 'win32')(
    'is refused if it is open to others, and the message says what to do',
    async () => {
      const path = newDirectory();
      for (const mode of [0o755, 0o750, 0o711, 0o701]) {
        chmodSync(path, mode);
        const octal = `0${mode.toString(8)}`;
        await expect(FileSecrets.open(path)).rejects.toThrow(
          `the state directory ${path} is open to others (mode ${octal}): chmod 700 ${path}`
        );
      }
      chmodSync(path, 0o700);
      expect((await FileSecrets.open(path)).path).toBe(path);
    }
  );

  test.skipIf(process.getuid === undefined)(
    'is refused if it belongs to another user, and the message says what to do',
    async () => {
      const path = newDirectory();
      const owner = statSync(path).uid;
      const other = owner + 1;
      const getuid = vi.spyOn(process as Required<typeof process>, 'getuid');
      try {
        getuid.mockReturnValue(other);
        await expect(FileSecrets.open(path)).rejects.toThrow(
          new EnvironmentError(
            `the state directory ${path} belongs to user ${owner}, and the gateway runs as user ${other}: run it as user ${owner}, or chown -R ${other} ${path}`
          )
        );
        getuid.mockReturnValue(owner);
        expect((await FileSecrets.open(path)).path).toBe(path);
      } finally {
        getuid.mockRestore();
      }
    }
  );

  test('is made with its parents, for its owner only', async () => {
    const path = join(newPath(), 'above', 'state');
    await FileSecrets.open(path);
    if (process.platform !== 'win32') expect(modeOf(path)).toBe(0o700);
    const file = join(newDirectory(), 'file');
    writeFileSync(file, '');
    await expect(FileSecrets.open(file)).rejects.toThrow(`${file} cannot be made: it is a file`);
    await expect(FileSecrets.open(join(file, 'x'))).rejects.toThrow(
      new EnvironmentError(
        `the state directory ${file}/x cannot be made: a part of the path is a file`
      )
    );
    await expect(FileSecrets.open('')).rejects.toThrow(ApiMisuseError);
  });

  test.skipIf(process.platform !== 'linux')(
    'is refused where no directory can be made',
    async () => {
      await expect(FileSecrets.open('/proc/x/y')).rejects.toThrow('/proc takes no directories');
    }
  );

  test('keeps nothing of a commit that failed', async () => {
    const secrets = await FileSecrets.open(newPath());
    mkdirSync(secrets.locate('b.pem'));
    for (const change of [bytes('1'), undefined]) {
      const fault = `${secrets.locate('b.pem')} cannot be ${change ? 'written' : 'removed'}: it is a directory`;
      const committed = secrets.commit({ 'a.pem': bytes('1'), 'b.pem': change });
      await expect(committed).rejects.toThrow(new EnvironmentError(fault));
      expect(readdirSync(secrets.path)).toEqual(['b.pem']);
    }
    await expect(secrets.get('b.pem')).rejects.toThrow('b.pem cannot be read: it is a directory');
  });

  test('does not change files of others, also those that end in .new', async () => {
    const secrets = await FileSecrets.open(newPath());
    writeFileSync(join(secrets.path, 'store.journal'), 'of the store');
    writeFileSync(join(secrets.path, 'store.journal.new'), 'of the store');
    await secrets.commit({ d: bytes('1') });
    const again = await FileSecrets.open(secrets.path);
    expect(await contentOf(again)).toEqual({ d: '1' });
    expect(readdirSync(secrets.path).sort()).toEqual(['d', 'store.journal', 'store.journal.new']);
  });

  test('is refused if its journal is damaged', async () => {
    for (const text of ['', '{', '{"put":["../x"],"remove":[]}', '{"put":7}', 'null']) {
      const path = newDirectory();
      writeFileSync(join(path, 'commit-journal'), text);
      writeFileSync(join(path, 'd'), 'kept');
      const secrets = await FileSecrets.open(path);
      await expect(secrets.get('d')).rejects.toThrow('commit-journal is damaged');
      await expect(secrets.commit({ d: bytes('1') })).rejects.toThrow(EnvironmentError);
      expect(readFileSync(join(path, 'd'), 'utf8')).toBe('kept');
    }
  });
});

// Each goes through hundreds of crashes, each in its own directory.
describe('a commit of FileSecrets', { timeout: 180_000 }, () => {
  const first = { 'a.pem': '1', 'b.pem': '1', 'c.json': '1' };
  const second = { 'a.pem': '22', 'b.pem': '22', d: '22' };
  const third = { 'b.pem': '333', d: '333' };
  const states = [{}, first, second, third];

  /** The commits that lead from one state to the next. */
  function changesTo(state: Readonly<Record<string, string>>): SecretChanges {
    return Object.fromEntries(
      NAMES.map((name) => [name, state[name] === undefined ? undefined : bytes(state[name])])
    );
  }

  /** Makes the commits on the disk until it crashes. Returns how many succeeded. */
  async function commitAll(disk: CrashingDisk): Promise<number> {
    stand.fileSystem = disk.fileSystem;
    let done = 0;
    try {
      const secrets = await FileSecrets.open(disk.directory);
      for (const state of states.slice(1)) {
        await secrets.commit(changesTo(state));
        done++;
      }
    } catch (error) {
      expect((error as Error).cause).toBeInstanceOf(Crash);
    } finally {
      stand.fileSystem = undefined;
    }
    return done;
  }

  test('is complete or absent after a crash at any point, and durable when it has resolved', async () => {
    let found = 0;
    for (let callsLeft = 0; ; callsLeft++) {
      const disk = new CrashingDisk(original, newDirectory());
      disk.callsLeft = callsLeft;
      const done = await commitAll(disk);
      for (const directory of disk.leave(newDirectory)) {
        const content = await contentOf(await FileSecrets.open(directory));
        const at = states.findIndex((state) => isSame(state, content));
        expect([done, done + 1], `${callsLeft} calls: ${JSON.stringify(content)}`).toContain(at);
        expect(readdirSync(directory).sort()).toEqual(Object.keys(content).sort());
        found++;
      }
      if (done === states.length - 1) break;
    }
    expect(found).toBeGreaterThan(200);
  });

  test('is finished or undone even if that is interrupted again', async () => {
    let rounds = 0;
    for (let callsLeft = 0; ; callsLeft++) {
      const disk = new CrashingDisk(original, newDirectory());
      disk.callsLeft = callsLeft;
      const done = await commitAll(disk);
      if (done === states.length - 1) break;
      // The first crash loses nothing; the second one is that of the model of the disk.
      const [left] = disk.leave(newDirectory);
      const whole = await contentOf(await FileSecrets.open(copyOf(left!)));
      for (let more = 0; ; more++) {
        const again = new CrashingDisk(original, copyOf(left!));
        again.adopt();
        again.callsLeft = more;
        stand.fileSystem = again.fileSystem;
        const reading = contentOf(await FileSecrets.open(again.directory));
        const hasCrashed = await reading.then(
          () => again.calls >= more,
          () => true
        );
        stand.fileSystem = undefined;
        for (const directory of again.leave(newDirectory)) {
          expect(await contentOf(await FileSecrets.open(directory))).toEqual(whole);
          rounds++;
        }
        if (!hasCrashed) break;
      }
    }
    expect(rounds).toBeGreaterThan(200);
  });

  test.each([['ENOSPC'], ['EIO']])(
    'is complete or absent after a failure of any call by %s, and can be repeated',
    async (code) => {
      const outcomes = { resolved: 0, rejected: 0 };
      for (let failing = 0; ; failing++) {
        for (const times of [1, 2, Number.POSITIVE_INFINITY]) {
          const disk = new CrashingDisk(original, newDirectory());
          stand.fileSystem = disk.fileSystem;
          const secrets = await FileSecrets.open(disk.directory);
          await secrets.commit(changesTo(first));
          const from = disk.calls + failing;
          let failures = 0;
          disk.onCall = () => {
            if (disk.calls <= from || failures >= times) return;
            failures++;
            throw Object.assign(new Error(code), { code });
          };
          const failure = await secrets.commit(changesTo(second)).catch((error: Error) => error);
          disk.onCall = () => {};
          const content = await contentOf(secrets);
          if (failure === undefined) {
            outcomes.resolved++;
            expect(content).toEqual(second);
          } else {
            outcomes.rejected++;
            expect(failure).toBeInstanceOf(EnvironmentError);
            if (code === 'ENOSPC') expect(failure.message).toContain('the disk is full');
            expect([first, second]).toContainEqual(content);
          }
          expect(readdirSync(disk.directory).sort()).toEqual(Object.keys(content).sort());
          for (const directory of disk.leave(newDirectory)) {
            expect(await contentOf(await FileSecrets.open(directory))).toEqual(content);
          }
          await secrets.commit(changesTo(second));
          expect(await contentOf(secrets)).toEqual(second);
          stand.fileSystem = undefined;
          if (failures === 0) {
            expect(outcomes.rejected).toBeGreaterThan(10);
            return;
          }
        }
      }
    }
  );
});

function isSame(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  return NAMES.every((name) => a[name] === b[name]);
}

/** Another directory with the same files. */
function copyOf(path: string): string {
  const copy = newDirectory();
  for (const name of readdirSync(path)) {
    writeFileSync(join(copy, name), readFileSync(join(path, name)), { mode: 0o600 });
  }
  return copy;
}
