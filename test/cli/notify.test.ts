/** What systemd is told of a gateway that the command runs, on a NOTIFY_SOCKET of the test's. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { ExitCode } from '../../src/cli/index.ts';
import { runCommand, TestIo } from './run-command.ts';

const root = mkdtempSync(join(tmpdir(), 'vp-notify-'));
const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Receives datagrams as systemd does, and prints each as a line. */
const LISTENER = `
import json, socket, sys, time
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind(sys.argv[1])
print("listening", flush=True)
while True:
    text = listener.recv(4096).decode()
    print(json.dumps([text, time.monotonic()]), flush=True)`;

/** A NOTIFY_SOCKET and the messages that came, each as its assignments. */
class NotifySocket {
  readonly path: string;
  /** When the last message came, in milliseconds of this machine's monotonic clock. */
  atMs = 0;
  /** The variables of all messages so far. */
  readonly seen = new Set<string>();
  readonly #lines: AsyncIterator<string>;

  private constructor(path: string, lines: AsyncIterator<string>) {
    this.path = path;
    this.#lines = lines;
  }

  static async open(): Promise<NotifySocket> {
    const path = join(mkdtempSync(join(root, 'x')), 'notify');
    const child = spawn('python3', ['-c', LISTENER, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe('listening');
    return new NotifySocket(path, lines);
  }

  /** Returns the next message that has this variable. */
  async next(variable: string): Promise<Record<string, string>> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error(`the listener ended before ${variable}`);
      const [text, at] = JSON.parse(value) as [string, number];
      this.atMs = at * 1000;
      const pairs = text.split('\n').map((line) => line.split(/=(.*)/s).slice(0, 2));
      const message = Object.fromEntries(pairs) as Record<string, string>;
      for (const name of Object.keys(message)) this.seen.add(name);
      if (variable in message) return message;
    }
  }
}

function configuration(change: object = {}): string {
  const path = join(mkdtempSync(join(root, 'x')), 'cloud.yaml');
  const realm = { sources: ['10.0.0.0/24'], pools: ['100.64.0.0/24'], zone: 'presence.internal' };
  const config = {
    trustDomain: 'presence.internal',
    stateDirectory: './state',
    adminSocket: './admin.sock',
    device: { type: 'sockets' },
    tunnel: '127.0.0.1:0',
    desired: { sites: [{ name: 'cloud', ...realm }] },
    ...change,
  };
  // JSON is YAML.
  writeFileSync(path, JSON.stringify(config));
  return path;
}

const has = (program: string, ...args: string[]): boolean => spawnSync(program, args).status === 0;
const isThere = has('systemd-notify', '--version') && has('python3', '-c', '');
const title = isThere
  ? ''
  : ' (skipped: needs systemd-notify of the Debian package systemd, and python3)';

describe.skipIf(!isThere && process.env.CI === undefined)(`NOTIFY_SOCKET${title}`, () => {
  test('gets READY, then RELOADING with its time and READY again on SIGHUP, and STOPPING at the end', async () => {
    const socket = await NotifySocket.open();
    const io = new TestIo({ env: { ...process.env, NOTIFY_SOCKET: socket.path } });
    const path = configuration();
    const ended = runCommand(['cloud', path], io);
    expect(await socket.next('READY')).toEqual({ READY: '1', STATUS: 'ready' });

    const before = process.hrtime.bigint() / 1000n;
    io.signals.emit('SIGHUP');
    const reloading = await socket.next('RELOADING');
    expect(reloading).toMatchObject({ RELOADING: '1', STATUS: 'reloading' });
    const time = BigInt(reloading.MONOTONIC_USEC!);
    expect(time >= before && time <= process.hrtime.bigint() / 1000n).toBe(true);
    expect(await socket.next('READY')).toMatchObject({ READY: '1' });
    expect(io.err).toMatch(/ info reloaded\n$/);

    // A file that is wrong stops nothing: the gateway goes on, and is ready.
    writeFileSync(path, 'nothing: 1');
    io.signals.emit('SIGHUP');
    await socket.next('RELOADING');
    expect(await socket.next('READY')).toMatchObject({ READY: '1' });
    expect(io.err).toMatch(/ error not reloaded: [^\n]*\n$/);

    io.signals.emit('SIGTERM');
    expect(await socket.next('STOPPING')).toEqual({ STOPPING: '1', STATUS: 'stopping' });
    expect((await ended).code).toBe(ExitCode.Done);
    expect(io.signals.eventNames()).toEqual([]);
  });

  test('gets WATCHDOG twice in its time while the event loop turns, and none while it does not', async () => {
    const socket = await NotifySocket.open();
    const watchdog = { WATCHDOG_USEC: '200000', WATCHDOG_PID: `${process.pid}` };
    const io = new TestIo({ env: { ...process.env, NOTIFY_SOCKET: socket.path, ...watchdog } });
    const ended = runCommand(['cloud', configuration()], io);
    await socket.next('READY');
    await socket.next('WATCHDOG');

    const nobody = new Int32Array(new SharedArrayBuffer(4));
    const beginMs = Number(process.hrtime.bigint()) / 1e6;
    Atomics.wait(nobody, 0, 0, 1_000);
    const blockedMs = Number(process.hrtime.bigint()) / 1e6 - beginMs;
    let lastMs = socket.atMs;
    let longestMs = 0;
    // The listener is another process, so it has the times of all messages.
    while (lastMs < beginMs + blockedMs) {
      expect(await socket.next('WATCHDOG')).toEqual({ WATCHDOG: '1' });
      longestMs = Math.max(longestMs, socket.atMs - lastMs);
      lastMs = socket.atMs;
    }
    // A message may have been on its way when the event loop stopped.
    expect(longestMs).toBeGreaterThan(blockedMs / 2);
    io.signals.emit('SIGTERM');
    await socket.next('STOPPING');
    expect((await ended).code).toBe(ExitCode.Done);
  });

  test('gets no WATCHDOG from a process that systemd does not mean', async () => {
    const socket = await NotifySocket.open();
    const watchdog = { WATCHDOG_USEC: '2000', WATCHDOG_PID: '1' };
    const io = new TestIo({ env: { ...process.env, NOTIFY_SOCKET: socket.path, ...watchdog } });
    const ended = runCommand(['cloud', configuration()], io);
    await socket.next('READY');
    io.signals.emit('SIGTERM');
    await socket.next('STOPPING');
    expect(socket.seen).not.toContain('WATCHDOG');
    expect((await ended).code).toBe(ExitCode.Done);
  });

  test('gets a message also when the process that sends it was killed', async () => {
    const socket = await NotifySocket.open();
    const bin = mkdtempSync(join(root, 'x'));
    const real = execFileSync('which', ['systemd-notify'], { encoding: 'utf8' }).trim();
    const script = `#!/bin/sh\nmkdir ${bin}/once 2>/dev/null && kill -9 $PPID\nexec ${real} "$@"\n`;
    writeFileSync(join(bin, 'systemd-notify'), script, { mode: 0o755 });
    const env = { NOTIFY_SOCKET: socket.path, PATH: `${bin}:${process.env.PATH}` };
    const io = new TestIo({ env: { ...process.env, ...env } });
    const ended = runCommand(['cloud', configuration()], io);
    await socket.next('READY');
    io.signals.emit('SIGTERM');
    await socket.next('STOPPING');
    expect((await ended).code).toBe(ExitCode.Done);
    expect(io.err).not.toMatch(/systemd-notify fails/);
  });

  test('gets the sentence of a start that fails', async () => {
    const socket = await NotifySocket.open();
    const io = new TestIo({ env: { ...process.env, NOTIFY_SOCKET: socket.path } });
    const ended = runCommand(['cloud', configuration({ tunnel: 'nowhere' })], io);
    expect((await socket.next('STATUS')).STATUS).toMatch(/cloud\.yaml:1: tunnel: expected /);
    expect((await ended).code).toBe(ExitCode.Usage);
  });
});

test('a program systemd-notify that fails is logged once, and the gateway runs', async () => {
  const io = new TestIo({ env: { PATH: '/nonexistent', NOTIFY_SOCKET: join(root, 'nobody') } });
  const ended = runCommand(['cloud', configuration()], io);
  await io.logged(/systemd-notify fails/);
  await io.logged(/virtual-presence edge /);
  io.signals.emit('SIGHUP');
  await io.logged(/ info reloaded$/);
  io.signals.emit('SIGINT');
  expect((await ended).code).toBe(ExitCode.Done);
  expect(io.err.match(/systemd-notify fails/g)).toHaveLength(1);
});
