import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { StoreError } from '../../src/errors.ts';
import { FileLock } from '../../src/store/lock.ts';

/** Called before each call of the lock to the file system. */
const steps = vi.hoisted(() => ({ before: async (_name: string): Promise<void> => {} }));
vi.mock('node:fs/promises', async (importOriginal) => {
  const original = await importOriginal<Record<string, unknown>>();
  const names = ['chmod', 'mkdir', 'readdir', 'rename', 'rm', 'rmdir', 'unlink'];
  const wrapped = names.map((name) => {
    const call = original[name] as (...values: unknown[]) => Promise<unknown>;
    return [
      name,
      async (...values: unknown[]): Promise<unknown> => {
        await steps.before(name);
        return call(...values);
      },
    ];
  });
  return { ...original, ...Object.fromEntries(wrapped) };
});

let directory: string;
let files = 0;
const newPath = (): string => join(directory, `lock-${files++}`);

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'lock-'));
});
const children = new Set<Child>();
afterEach(() => {
  for (const child of children) child.end();
  children.clear();
});
afterAll(() => rm(directory, { recursive: true }));

/** A process that runs lock-child.ts. */
class Child {
  readonly process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #exited: Promise<unknown>;

  private constructor(process: ChildProcess) {
    this.process = process;
    this.#lines = createInterface(process.stdout!)[Symbol.asyncIterator]();
    this.#exited = new Promise((resolve) => process.once('exit', resolve));
    children.add(this);
  }

  /** @param prefix a command that starts it, for example `unshare` with options */
  static async start(prefix: readonly string[] = []): Promise<Child> {
    const script = join(import.meta.dirname, 'lock-child.ts');
    const [program, ...args] = [...prefix, process.execPath, '--import', 'tsx', script];
    const child = new Child(spawn(program!, args, { stdio: ['pipe', 'pipe', 'inherit'] }));
    expect(await child.#answer()).toBe('ready');
    return child;
  }

  /** Returns `done`, or the message of the error. */
  ask(command: 'open' | 'lock' | 'close', path = ''): Promise<string> {
    this.process.stdin!.write(`${command} ${path}\n`);
    return this.#answer();
  }

  /** Resolves when the process has ended and its locks are released. */
  async kill(pid = this.process.pid!): Promise<void> {
    process.kill(pid, 'SIGKILL');
    await this.#exited;
  }

  end(): void {
    this.process.stdin!.end();
  }

  async #answer(): Promise<string> {
    const { value } = await this.#lines.next();
    return value;
  }
}

/** Returns the files of a lock at `path` and of attempts to take it. */
function namesBeside(path: string): string[] {
  const name = basename(path);
  return readdirSync(directory).filter((each) => each === name || each.startsWith(`${name}.`));
}

/** Leaves a lock at `path` like a process that was killed while it held it. */
async function makeStale(path: string): Promise<void> {
  const server = createServer();
  const made = `${path}.made`;
  await mkdir(made);
  await new Promise<void>((resolve) => server.listen(join(made, 's'), resolve));
  await rename(join(made, 's'), join(made, `4194999.stale${String(files++).padStart(7, '0')}`));
  // Node would remove the socket by its original name.
  await new Promise((resolve) => server.close(resolve));
  await rename(made, path);
}

describe('FileLock', () => {
  test('leaves nothing behind when it is released', async () => {
    const path = newPath();
    for (let i = 0; i < 20; i++) await (await FileLock.acquire(path)).release();
    expect(namesBeside(path)).toEqual([]);
  });

  test('can be used by its owner only', async () => {
    const path = newPath();
    const lock = await FileLock.acquire(path);
    expect(statSync(path).mode & 0o777).toBe(0o700);
    const names = readdirSync(path);
    expect(names).toHaveLength(1);
    const { mode } = statSync(join(path, names[0]!));
    expect([mode & 0o777, mode & 0o170000]).toEqual([0o600, 0o140000]);
    await lock.release();
  });

  test('works at a path that is too long for the address of a socket', async () => {
    const deep = join(directory, 'd'.repeat(100), 'e'.repeat(100));
    await mkdir(deep, { recursive: true });
    const path = join(deep, 'f'.repeat(100));
    const lock = await FileLock.acquire(path);
    await expect(FileLock.acquire(path)).rejects.toThrow(`${path} is held by process`);
    await lock.release();
    await makeStaleByKill(path);
    await (await FileLock.acquire(path)).release();
    expect(await readdir(deep)).toEqual([]);
  });

  test('is free when the process that held it was killed', async () => {
    const path = newPath();
    await makeStaleByKill(path);
    expect(readdirSync(path)).toHaveLength(1);
    const lock = await FileLock.acquire(path);
    await expect(FileLock.acquire(path)).rejects.toThrow(
      new StoreError(
        `${path} is held by process ${process.pid}, by the numbers of its container: stop it first`
      )
    );
    await lock.release();
  });

  test('reports what is in its place, and leaves it there', async () => {
    const path = newPath();
    await mkdir(path);
    await writeFile(join(path, 'hello'), 'world');
    await expect(FileLock.acquire(path)).rejects.toThrow(
      new StoreError(`${path} holds hello, which is not part of a lock: move it away`)
    );
    expect(readFileSync(join(path, 'hello'), 'utf8')).toBe('world');
    await rm(path, { recursive: true });
  });

  test.skipIf(process.platform === 'win32')(
    'refuses a symbolic link at once, and changes neither it nor its target',
    async () => {
      const target = newPath();
      await mkdir(`${target}.directory`);
      await writeFile(`${target}.file`, 'of another');
      for (const suffix of ['.directory', '.file', '.nothing']) {
        const path = newPath();
        await symlink(target + suffix, path);
        await expect(FileLock.acquire(path)).rejects.toThrow(
          new StoreError(`${path} is a symbolic link, and no lock: remove it`)
        );
        expect(namesBeside(path)).toEqual([basename(path)]);
      }
      expect(readFileSync(`${target}.file`, 'utf8')).toBe('of another');
    }
  );

  test.skipIf(process.platform === 'win32').each([
    ['a directory whose names may not be read', 'readdir', 'EACCES'],
    ['a directory from which nothing may be removed', 'unlink', 'EACCES'],
    ['a directory below one with the sticky bit', 'rename', 'EPERM'],
  ])('names the owner of a stale lock that it may not remove: %s', async (_, step, code) => {
    const path = newPath();
    await makeStale(path);
    steps.before = async (name) => {
      if (name === step) throw Object.assign(new Error(`${code}: not permitted`), { code });
    };
    const [outcome] = await Promise.allSettled([FileLock.acquire(path)]);
    steps.before = async () => {};
    const { uid } = statSync(path);
    const advice = `make sure that no process of user ${uid} has it open, then remove ${path}`;
    expect(outcome).toEqual({
      status: 'rejected',
      reason: new StoreError(
        `the lock ${path} belongs to user ${uid}, and user ${process.getuid!()} may not take it over (${code}): ${advice}`
      ),
    });
    expect(namesBeside(path)).toEqual([basename(path)]);
    expect(readdirSync(path)).toHaveLength(1);
    await (await FileLock.acquire(path)).release();
  });

  test('is still held while the process that holds it is stopped', async () => {
    const path = newPath();
    const child = await Child.start();
    expect(await child.ask('lock', path)).toBe('done');
    child.process.kill('SIGSTOP');
    await expect(FileLock.acquire(path)).rejects.toThrow(`is held by process ${child.process.pid}`);
    child.process.kill('SIGCONT');
    expect(await child.ask('close')).toBe('done');
    await (await FileLock.acquire(path)).release();
  });

  test('reports that a file system does not support sockets, and leaves nothing there', async () => {
    const path = newPath();
    const listen = vi.spyOn(Server.prototype, 'listen').mockImplementation(function (this: Server) {
      const error = Object.assign(new Error('listen EPERM'), { code: 'EPERM' });
      process.nextTick(() => this.emit('error', error));
      return this;
    });
    const acquired = FileLock.acquire(path);
    await expect(acquired).rejects.toThrow(
      `the file system of ${directory} takes no unix sockets (EPERM)`
    );
    await expect(acquired).rejects.toBeInstanceOf(StoreError);
    listen.mockRestore();
    expect(namesBeside(path)).toEqual([]);
  });

  async function makeStaleByKill(path: string): Promise<void> {
    const child = await Child.start();
    expect(await child.ask('lock', path)).toBe('done');
    await child.kill();
  }
});

const UNSHARE: readonly string[] = [
  'unshare',
  ...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']),
  '--pid',
  '--net',
  '--fork',
  // As in a container, /proc has only the processes of the namespace.
  '--mount-proc',
];
const canUnshare = ((): boolean => {
  try {
    execFileSync(UNSHARE[0]!, [...UNSHARE.slice(1), 'true'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

describe.skipIf(!canUnshare)('FileLock between containers (needs unshare)', () => {
  test('lets a process of other PID and network namespaces open a store only when it is free', async () => {
    const path = newPath();
    const [inside, outside] = await Promise.all([Child.start(UNSHARE), Child.start()]);
    expect(await inside.ask('open', path)).toBe('done');
    expect(await outside.ask('open', path)).toMatch('is held by process 1');
    expect(await inside.ask('close')).toBe('done');
    expect(await outside.ask('open', path)).toBe('done');
    expect(await inside.ask('open', path)).toMatch(`is held by process ${outside.process.pid},`);
    await outside.kill();
    expect(await inside.ask('open', path)).toBe('done');
    // The first process of a PID namespace accepts this signal only from outside.
    const { pid } = inside.process;
    await inside.kill(Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')));
    await (await FileLock.acquire(`${path}.lock`)).release();
  });
});

describe('a stale FileLock that several processes find', () => {
  test('is taken by exactly one of two processes that start at once, in 200 rounds', async () => {
    const path = newPath();
    const both = await Promise.all([Child.start(), Child.start()]);
    const wins = [0, 0];
    for (let round = 0; round < 200; round++) {
      await makeStale(path);
      const answers = await Promise.all(both.map((child) => child.ask('lock', path)));
      const winner = answers.indexOf('done');
      wins[winner]!++;
      expect(answers[1 - winner], `round ${round}`).toMatch(
        `is held by process ${both[winner]!.process.pid},`
      );
      expect(await both[winner]!.ask('close')).toBe('done');
    }
    expect(wins[0]! + wins[1]!).toBe(200);
    expect(namesBeside(path)).toEqual([]);
  });

  afterEach(() => {
    steps.before = async () => {};
  });

  /** Takes a stale lock, and calls `third` just before step number `at` of it. */
  async function acquireWith(at: number, path: string, third: () => Promise<void>) {
    await makeStale(path);
    const seen: string[] = [];
    steps.before = async (name) => {
      if (seen.push(name) !== at) return;
      steps.before = async () => {};
      await third();
    };
    const [outcome] = await Promise.allSettled([FileLock.acquire(path)]);
    steps.before = async () => {};
    return { outcome, isOver: seen.length < at };
  }

  test('is taken by a third process alone that arrives between any two steps of a first', async () => {
    for (let at = 1; ; at++) {
      const path = newPath();
      let third: FileLock | undefined;
      const { outcome, isOver } = await acquireWith(at, path, async () => {
        third = await FileLock.acquire(path);
      });
      if (isOver) {
        expect(at).toBeGreaterThan(6);
        return;
      }
      expect(outcome.status, `step ${at}`).toBe('rejected');
      await expect(FileLock.acquire(path)).rejects.toThrow(StoreError);
      await third!.release();
      await expect(readdir(path)).rejects.toThrow('ENOENT');
    }
  });

  test('is taken by the first when a third has come and gone between any two steps', async () => {
    for (let at = 1; ; at++) {
      const path = newPath();
      const { outcome, isOver } = await acquireWith(at, path, async () => {
        await (await FileLock.acquire(path)).release();
        // The third may also have been killed.
        if (at % 2 === 0) await makeStale(path);
      });
      if (isOver) return;
      if (outcome.status === 'rejected') throw outcome.reason;
      await expect(FileLock.acquire(path)).rejects.toThrow(StoreError);
      await outcome.value.release();
    }
  });
});

describe('FileLock over the lock file of an earlier version', () => {
  /** A claim of a running process, as the earlier version wrote it. */
  function claimOf(pid: number): string {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const start = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    return JSON.stringify({ id: `of ${pid}`, pid, startedAt: `${boot}/${start}` });
  }

  test.skipIf(process.platform !== 'linux')(
    'is refused while its process runs, and replaces the file when that has ended',
    async () => {
      const path = newPath();
      const child = await Child.start();
      await writeFile(path, `\n${claimOf(child.process.pid!)}\n`);
      await expect(FileLock.acquire(path)).rejects.toThrow(
        `${path} is held by process ${child.process.pid}, which runs an earlier version`
      );
      await child.kill();
      const lock = await FileLock.acquire(path);
      expect(statSync(path).isDirectory()).toBe(true);
      await lock.release();
    }
  );

  test('ignores claims that were released, are torn, or whose process id was used again', async () => {
    const path = newPath();
    const claims = [
      '{"id":"x","pid":4194999,"startedAt":"long ago"}',
      `{"id":"y","pid":${process.pid},"startedAt":"an earlier process with our number"}`,
      claimOf(process.pid),
      `{"released":"of ${process.pid}"}`,
      '{"id":"z","pi',
    ];
    await writeFile(path, claims.join('\n'));
    const lock = await FileLock.acquire(path);
    await expect(FileLock.acquire(path)).rejects.toThrow('is held by process');
    await lock.release();
  });

  test('is taken by one of many that find the same stale file', async () => {
    for (let round = 0; round < 20; round++) {
      const path = newPath();
      await writeFile(path, '{"id":"x","pid":4194999,"startedAt":"long ago"}\n');
      const outcomes = await Promise.allSettled(
        Array.from({ length: 10 }, () => FileLock.acquire(path))
      );
      const locks = outcomes.flatMap((o) => (o.status === 'fulfilled' ? [o.value] : []));
      expect(locks).toHaveLength(1);
      await locks[0]!.release();
    }
  });
});
