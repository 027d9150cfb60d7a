/** `explain`, `ping` and `capture`, run against gateways with a tunnel on loopback. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CLOUD_OPERATIONS, EDGE_OPERATIONS } from '../../src/admin/index.ts';
import { parseSchema } from '../../src/base/schema.ts';
import { runProgram } from '../../src/cli/index.ts';
import type { Signal } from '../../src/cli/io.ts';
import type { CloudGateway, EdgeGateway } from '../../src/gateway/index.ts';
import { desired, Gateways, Hosts } from '../gateway/scene.ts';
import { type Outcome, runCommand, TestIo } from './run-command.ts';

const directory = mkdtempSync(join(tmpdir(), 'vp-diagcli-'));
const cloudSocket = join(directory, 'cloud.sock');
const edgeSocket = join(directory, 'edge.sock');
const gateways = new Gateways();
const [cloudHosts, edgeHosts] = [new Hosts(), new Hosts()];
let cloud: CloudGateway;
let edge: EdgeGateway;
let presence: string;

beforeAll(async () => {
  cloud = await gateways.cloud({
    adminSocket: cloudSocket,
    device: cloudHosts.device,
    desired: desired('site-a'),
  });
  cloudHosts.serve(({ payload }) => `re: ${Buffer.from(payload)}`);
  const token = await cloud.createToken({ site: 'site-a' });
  edge = await gateways.edge({ adminSocket: edgeSocket, token, device: edgeHosts.device });
  await edge.ready({ signal: AbortSignal.timeout(60_000) });
  presence = `${edge.lookup('bus')[0]!.addresses[0]}`;
});
afterAll(async () => {
  await gateways.close();
  rmSync(directory, { recursive: true });
});

const hasTshark = spawnSync('tshark', ['-v']).status === 0;

function ioAt(socket: string): TestIo {
  return new TestIo({ env: { VIRTUAL_PRESENCE_SOCKET: socket } });
}

/** Runs a command. Arguments have no spaces. */
function run(line: string, socket = cloudSocket): Promise<Outcome> {
  return runCommand(line.split(' '), ioAt(socket));
}

/** Runs a command with success, and returns what it printed. */
async function done(line: string, socket = cloudSocket, input = ''): Promise<string> {
  const io = new TestIo({ input, env: { VIRTUAL_PRESENCE_SOCKET: socket } });
  const outcome = await runCommand(line.split(' '), io);
  expect(outcome, outcome.err).toMatchObject({ code: 0, err: '' });
  return outcome.out;
}

/** Returns the document that a command prints, after `schemaVersion`. */
function documentOf({ out }: Outcome): Record<string, unknown> {
  const { schemaVersion, ...rest } = JSON.parse(out);
  expect(schemaVersion).toBe(1);
  return rest;
}

describe('explain', () => {
  test('prints a line for each stage of a flow that passes', async () => {
    const text = await done('explain site-a/10.0.0.5 bus:7/udp');
    expect(text.split('\n').slice(0, 4)).toEqual([
      'passes to cloud',
      `  ok   destination   bus is ${presence} at site-a, cloud 10.0.0.5`,
      '  ok   source        10.0.0.5 is a host of site-a',
      '  ok   permission    bus is exposed to site-a, with udp/7',
    ]);
    expect(text).toMatch(/^ {2}ok {3}tunnel {8}the tunnel of site-a is up by 1 connection/m);
    expect(text).not.toContain('fix:');
    for (const line of ['site-a bus', 'site-a/10.0.0.5 bus.example.test:7/udp --source-port 9']) {
      expect(await done(`explain ${line}`)).toMatch(/^passes to cloud\n/);
    }
  });

  test('prints what stops a flow and what would mend it, and ends with 1', async () => {
    const outcome = await run('explain site-a/10.0.0.5 bus:8/udp');
    expect(outcome).toMatchObject({ code: 1, err: '' });
    expect(outcome.out).toMatch(/^dropped at permission \(DropNotPermitted\)\n {2}ok /);
    expect(outcome.out).toMatch(/^ {2}no {3}permission {4}bus has udp\/7, and not udp\/8$/m);
    expect(outcome.out).toMatch(/^ {2}-- {3}reply /m);
    expect(outcome.out).toMatch(/^fix: add the port udp\/8 to the service bus.*file.*\n$/m);
  });

  test('prints one document with --json, whether it passes or not', async () => {
    for (const [line, code] of [
      ['site-a/10.0.0.5 bus', 0],
      ['site-a/10.9.0.1 bus', 1],
    ] as const) {
      const outcome = await run(`explain ${line} --json`);
      expect(outcome).toMatchObject({ code, err: '' });
      const document = parseSchema(CLOUD_OPERATIONS.explain.result, documentOf(outcome));
      expect(document).toMatchObject({ passes: code === 0, from: 'site-a', to: 'cloud' });
    }
  });

  test('takes the bytes of a packet', async () => {
    const { packet } = documentOf(await run('explain site-a/10.0.0.5 bus --json'));
    expect(await done(`explain --packet ${packet} --site site-a`)).toMatch(/^passes to cloud\n/);
    expect(await done(`explain --packet ${packet}`, edgeSocket)).toMatch(/^passes to the cloud/);
  });

  test('at an edge takes an address of the site', async () => {
    const text = await done('explain 10.0.0.5 bus:7/udp', edgeSocket);
    expect(text).toMatch(/^passes to the cloud, which decides the rest\n {2}ok {3}snapshot /);
    expect(text).toContain(`  ok   destination  ${presence} is bus.example.test, with udp/7\n`);
    const outcome = await run('explain 10.9.0.1 bus:7/udp --json', edgeSocket);
    const document = parseSchema(EDGE_OPERATIONS.explain.result, documentOf(outcome));
    expect([outcome.code, document.droppedAt, outcome.err]).toEqual([1, 'filter', '']);
  });
});

describe('ping', () => {
  const TIMES = String.raw`3 of 3 answered, [\d.]+ ms to [\d.]+ ms, [\d.]+ ms on average`;

  test('prints a line for each connection and one for all, at both gateways', async () => {
    const lines = new RegExp(`^connection 1: ${TIMES}\nsite-a: ${TIMES}\n$`);
    expect(await done('ping site-a --count 3 --interval 0')).toMatch(lines);
    expect(await done('ping --count 3 --interval 1ms', edgeSocket)).toMatch(lines);
  });

  test('prints one document with --json', async () => {
    const outcome = await run('ping site-a --count 1 --json');
    const document = parseSchema(CLOUD_OPERATIONS.ping.result, documentOf(outcome));
    expect(document).toMatchObject({ site: 'site-a', sent: 1, received: 1 });
  });

  test('ends with 4 if there is no tunnel', async () => {
    const socket = join(directory, 'alone.sock');
    const alone = await gateways.cloud({ adminSocket: socket, desired: desired('site-a') });
    const outcome = await run('ping site-a', socket);
    const err = 'virtual-presence: site-a has no tunnel\n';
    expect(outcome).toEqual({ code: 4, out: '', err });
    await alone.close();
  });

  test('ends with 1 if nothing is answered', async () => {
    const socket = join(directory, 'silent.sock');
    const times = { sent: 5, received: 0 };
    const body = JSON.stringify({ site: 'site-a', ...times, connections: [times] });
    const server = createServer((_, response) => {
      response.setHeader('content-type', 'application/json').end(body);
    }).listen(socket);
    await once(server, 'listening');
    try {
      const out = 'connection 1: 0 of 5 answered\nsite-a: 0 of 5 answered\n';
      expect(await run('ping site-a', socket)).toEqual({ code: 1, out, err: '' });
    } finally {
      server.close();
    }
  });
});

describe('capture', () => {
  const file = join(directory, 'capture.pcapng');

  /** Runs `capture` until the packets of some requests are in the file, then sends a signal. */
  async function captureUntil(signal: Signal, line: string): Promise<Outcome> {
    rmSync(file, { force: true });
    await edgeHosts.request(presence, 'before');
    const io = ioAt(cloudSocket);
    const ending = runCommand(`capture -w ${file} ${line}`.trim().split(' '), io);
    await expect
      .poll(
        async () => {
          await edgeHosts.request(presence, 'captured');
          return sizeOf(file) > 300;
        },
        { timeout: 60_000, interval: 20 }
      )
      .toBe(true);
    io.signals.emit(signal);
    const outcome = await ending;
    expect(io.signals.eventNames()).toEqual([]);
    return outcome;
  }

  test.each(['SIGINT', 'SIGTERM'] as const)('%s ends it with a whole file', async (signal) => {
    const outcome = await captureUntil(signal, '--from site-a/10.0.0.5 --to bus');
    const bytes = readFileSync(file);
    const blocks = blocksOf(bytes);
    const packets = blocks.filter((type) => type === ENHANCED_PACKET).length;
    expect(packets).toBeGreaterThan(1);
    expect(outcome).toEqual({
      code: 0,
      out: `${file} has ${bytes.length} bytes with ${packets} packets, each before and after its translation\n`,
      err: '',
    });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    // The statistics say how many packets were lost.
    expect(blocks.slice(-1)).toEqual([INTERFACE_STATISTICS]);
  });

  test.skipIf(!hasTshark && !process.env.CI)(
    'tshark reads the file (skipped where the Debian package tshark is missing)',
    async () => {
      await captureUntil('SIGINT', '--from bus --to site-a --one-way --snap-length 40');
      const fields = ['frame.interface_name', 'ip.src', 'frame.cap_len'];
      const args = ['-r', file, '-T', 'fields', ...fields.flatMap((field) => ['-e', field])];
      const { status, stdout } = spawnSync('tshark', args, { encoding: 'utf8' });
      expect(status).toBe(0);
      const lines = new Set(stdout.trimEnd().split('\n'));
      const answer = 28 + Buffer.byteLength('re: captured');
      expect(lines).toEqual(
        new Set([`cloud\t10.0.0.5\t${answer}`, `site-a\t${presence}\t${answer}`])
      );
    }
  );

  test('goes to standard output', async () => {
    const io = ioAt(cloudSocket);
    const chunks: Buffer[] = [];
    const stdout = new Writable({
      // Every write has to wait for the one before.
      highWaterMark: 1,
      write: (chunk, _, next) => {
        chunks.push(Buffer.from(chunk as Buffer));
        setImmediate(next);
      },
    });
    const args = ['capture', '-w', '-', '--duration', '1ms'];
    expect(await runProgram(args, { ...io, signals: io.signals, stdout, stderr: io.stderr })).toBe(
      0
    );
    expect(blocksOf(Buffer.concat(chunks))[0]).toBe(SECTION_HEADER);
    expect(io.err).toBe('standard output has 28 bytes with 0 packets\n');
  });

  test('is refused at a terminal', async () => {
    const io = ioAt(cloudSocket);
    Object.assign(io.stdout, { isTTY: true });
    const outcome = await runCommand(['capture', '-w', '-'], io);
    expect(outcome).toMatchObject({ code: 2, out: '' });
    expect(outcome.err).toContain('a capture is no text for a terminal');
  });

  test('of a gateway that closes is whole', async () => {
    const socket = join(directory, 'closing.sock');
    const closing = await gateways.cloud({ adminSocket: socket, desired: desired('site-a') });
    rmSync(file, { force: true });
    const ending = run(`capture -w ${file}`, socket);
    await expect.poll(() => sizeOf(file), { timeout: 60_000 }).toBe(28);
    await closing.close();
    expect(await ending).toMatchObject({ code: 0, err: '' });
  });

  test('of a gateway that dies ends with a whole block, and with 1', async () => {
    const socket = join(directory, 'dying.sock');
    const block = Buffer.alloc(28);
    block.writeUInt32LE(SECTION_HEADER, 0);
    block.writeUInt32LE(block.length, 4);
    let dying: ServerResponse | undefined;
    const server = createServer((_, response) => {
      response.setHeader('content-type', 'application/x-pcapng');
      response.write(Buffer.concat([block, block.subarray(0, 9)]));
      dying = response;
    }).listen(socket);
    await once(server, 'listening');
    try {
      rmSync(file, { force: true });
      const ending = run(`capture -w ${file}`, socket);
      await expect.poll(() => sizeOf(file), { timeout: 60_000 }).toBe(28);
      dying!.destroy();
      const outcome = await ending;
      expect(outcome).toMatchObject({ code: 1, out: '' });
      expect(outcome.err).toMatch(
        /^virtual-presence: the capture has ended early, and \S+ has 28 bytes with 0 packets: cannot ask .*\n$/
      );
      expect(readFileSync(file)).toEqual(block);
    } finally {
      server.close();
    }
  });

  function sizeOf(path: string): number {
    return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  }

  const SECTION_HEADER = 0x0a0d0d0a;
  const INTERFACE_STATISTICS = 5;
  const ENHANCED_PACKET = 6;

  /** Returns the types of the blocks of a whole pcapng file. */
  function blocksOf(bytes: Buffer): number[] {
    const types: number[] = [];
    for (let at = 0; at < bytes.length; ) {
      const length = bytes.readUInt32LE(at + 4);
      expect(bytes.readUInt32LE(at + length - 4)).toBe(length);
      types.push(bytes.readUInt32LE(at));
      at += length;
    }
    return types;
  }
});
