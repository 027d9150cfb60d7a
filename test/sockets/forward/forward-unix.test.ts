/**
 * Forwards at unix sockets: who may connect, and what happens to a file that is there before.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { listenAtPath } from '../../../src/sockets/host/unix-listen.ts';
import { StackNetwork } from '../stack-network.ts';
import { catchUncaught } from '../uncaught.ts';

catchUncaught();

const TARGET = { host: 'server.test', port: 80 };
const network = new StackNetwork();
const near = network.stack('10.1.0.1');
network
  .stack('10.2.0.1')
  .createServer((socket) => void socket.on('error', () => {}).end('hello'))
  .listen(80);

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await fs.mkdtemp(join(tmpdir(), 'vp-forward-'));
  // Others may pass, so that the mode of the socket alone decides.
  await fs.chmod(directory, 0o755);
  path = join(directory, 'rabbitmq.sock');
});
afterEach(() => fs.rm(directory, { recursive: true, force: true }));

const modeOf = async (file: string): Promise<number> => (await fs.lstat(file)).mode & 0o7777;

async function said(to: string): Promise<string> {
  let text = '';
  for await (const chunk of net.connect(to).setEncoding('utf8')) text += chunk;
  return text;
}

/** A process that has bound a unix socket, as a program that crashed may have. */
async function listener(at: string): Promise<ChildProcess> {
  const code = `require('net').createServer().listen(${JSON.stringify(at)}, () => console.log('up'))`;
  const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout!, 'data');
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

test('a client of a unix socket talks to the presence; only the owner may connect', async () => {
  const made = await near.forward({ path }, TARGET);
  expect(made.address).toBe(path);
  expect(await modeOf(path)).toBe(0o600);
  expect(await said(path)).toBe('hello');
  // The directory in which the socket was bound is gone.
  expect(await fs.readdir(directory)).toEqual(['rabbitmq.sock']);
  await made.close();
  expect(await fs.readdir(directory)).toEqual([]);
});

test('the mode is the one that was asked for, whatever the umask is', async () => {
  await using _ = await near.forward({ path, mode: 0o666 }, TARGET);
  expect(await modeOf(path)).toBe(0o666);
});

test('the socket is bound where nobody else can reach it, and appears with its mode', async () => {
  const before = process.umask(0);
  const server = net.createServer();
  const remove = await listenAtPath(server, path, 0o600, async (own) => {
    expect(await modeOf(dirname(own))).toBe(0o700);
    expect(dirname(dirname(own))).toBe(directory);
    server.listen(own);
    await once(server, 'listening');
    expect(await modeOf(own)).not.toBe(0o600);
    await expect(fs.lstat(path)).rejects.toMatchObject({ code: 'ENOENT' });
  });
  process.umask(before);
  expect(await modeOf(path)).toBe(0o600);
  await remove();
  server.close();
});

test('another user is let in by the mode alone', async (context) => {
  context.skip(process.getuid?.() !== 0, 'needs root, to run a process as another user');
  // The other user may not be able to read the program of Node, so the process becomes that user when it runs.
  const code = (at: string): string => `
    process.setgroups([]), process.setgid(65534), process.setuid(65534);
    const socket = require('net').connect(${JSON.stringify(at)}, () => console.log('connected'));
    socket.on('error', (error) => console.log(error.code));
    socket.on('data', () => {});`;
  const asNobody = async (): Promise<string> => {
    const child = spawn(process.execPath, ['-e', code(path)], {
      cwd: '/',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    for await (const chunk of child.stdout!) text += chunk;
    return text.trim();
  };
  const closed = await near.forward({ path }, TARGET);
  expect(await asNobody()).toBe('EACCES');
  await closed.close();
  await using _ = await near.forward({ path, mode: 0o666 }, TARGET);
  expect(await asNobody()).toBe('connected');
});

test('the socket of a dead process is replaced', async () => {
  await kill(await listener(path));
  expect((await fs.lstat(path)).isSocket()).toBe(true);
  await using _ = await near.forward({ path }, TARGET);
  expect(await modeOf(path)).toBe(0o600);
  expect(await said(path)).toBe('hello');
});

test('of many that find the socket of a dead process, one gets its path', async () => {
  await kill(await listener(path));
  const all = await Promise.allSettled(
    Array.from({ length: 8 }, () => near.forward({ path }, TARGET))
  );
  const made = all.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  const codes = all.flatMap((each) => (each.status === 'rejected' ? [each.reason.code] : []));
  expect(made).toHaveLength(1);
  expect(codes).toEqual(Array(7).fill('EADDRINUSE'));
  expect(await said(path)).toBe('hello');
  expect(await fs.readdir(directory)).toEqual(['rabbitmq.sock']);
  await made[0]!.close();
});

test('the socket of a running process gives EADDRINUSE, and stays', async () => {
  const child = await listener(path);
  const { ino } = await fs.lstat(path);
  await expect(near.forward({ path }, TARGET)).rejects.toMatchObject({
    code: 'EADDRINUSE',
    syscall: 'listen',
    address: path,
  });
  expect((await fs.lstat(path)).ino).toBe(ino);
  expect(await fs.readdir(directory)).toEqual(['rabbitmq.sock']);
  await kill(child);
});

test.each([
  ['a file', (at: string) => fs.writeFile(at, 'kept')],
  ['a directory', (at: string) => fs.mkdir(at)],
  ['a symbolic link', (at: string) => fs.symlink('/nowhere', at)],
])('%s at the path gives EADDRINUSE, and stays', async (_, make) => {
  await make(path);
  const { ino } = await fs.lstat(path);
  await expect(near.forward({ path }, TARGET)).rejects.toMatchObject({ code: 'EADDRINUSE' });
  expect((await fs.lstat(path)).ino).toBe(ino);
  expect(await fs.readdir(directory)).toEqual(['rabbitmq.sock']);
});

test('a directory that everybody may write to needs the sticky bit', async () => {
  await fs.chmod(directory, 0o777);
  const refused = near.forward({ path }, TARGET);
  await expect(refused).rejects.toMatchObject({
    code: 'EPERM',
    syscall: 'listen',
    address: path,
    cause: { message: expect.stringContaining('sticky bit') },
  });
  expect(await fs.readdir(directory)).toEqual([]);
  await fs.chmod(directory, 0o1777);
  await using _ = await near.forward({ path }, TARGET);
  expect(await said(path)).toBe('hello');
});

test('a file that somebody links in place of the socket keeps its mode', async () => {
  const victim = join(directory, 'victim');
  await fs.writeFile(victim, '', { mode: 0o600 });
  const server = net.createServer();
  const listening = listenAtPath(server, path, 0o666, async (own) => {
    await new Promise<void>((resolve) => server.listen(own, resolve));
    // Whoever may write to the directory can do this.
    await fs.rename(dirname(own), join(directory, 'moved'));
    await fs.mkdir(dirname(own));
    await fs.symlink(victim, own);
  });
  await expect(listening).rejects.toMatchObject({ code: 'EPERM', syscall: 'listen' });
  expect(await modeOf(victim)).toBe(0o600);
  await expect(fs.lstat(path)).rejects.toMatchObject({ code: 'ENOENT' });
  expect(server.listening).toBe(false);
});

test.each([
  ['ENOENT', (at: string) => join(at, 'missing', 'socket')],
  ['ENAMETOOLONG', (at: string) => join(at, 'x'.repeat(108))],
])('a path that cannot be gives %s', async (code, pathIn) => {
  const wrong = pathIn(directory);
  const made = near.forward({ path: wrong }, TARGET);
  await expect(made).rejects.toMatchObject({ code, syscall: 'listen', address: wrong });
  expect(await fs.readdir(directory)).toEqual([]);
});

test('close leaves the file of somebody else', async () => {
  const made = await near.forward({ path }, TARGET);
  await fs.unlink(path);
  await fs.writeFile(path, 'kept');
  await made.close();
  expect(await fs.readFile(path, 'utf8')).toBe('kept');
});
