/**
 * The two programs of `examples/` that embed a gateway: as they are, on loopback, they give a program a port that leads
 * to a service of the cloud.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { afterAll, expect, test } from 'vitest';
import { Workspace } from '../support/gateway-process.ts';

const CLOUD = 'examples/cloud-gateway/main.ts';
const EDGE = 'examples/edge-gateway/main.ts';
const workspace = new Workspace();
const children: ChildProcess[] = [];
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  workspace.remove();
});

/** Starts a program and waits for the first line that it prints. */
async function start(
  program: string,
  port: number,
  env: NodeJS.ProcessEnv = {}
): Promise<{ readonly child: ChildProcess; readonly line: string }> {
  const args = ['--import', 'tsx', program, join(workspace.newDirectory(), 'state'), String(port)];
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  const log = text(child.stderr!);
  const ended = once(child, 'close').then(async ([code]) => {
    throw new Error(`${program} has ended with ${code}: ${await log}`);
  });
  ended.catch(() => {});
  const line = once(createInterface({ input: child.stdout! }), 'line') as Promise<[string]>;
  return { child, line: (await Promise.race([line, ended]))[0] };
}

async function end(child: ChildProcess): Promise<number | null> {
  const closed = once(child, 'close');
  child.kill('SIGTERM');
  return (await closed)[0] as number | null;
}

test('the programs of examples give a program a port that leads to a service of the cloud', async () => {
  const bus = createServer();
  bus.listen(0, '127.0.0.1');
  await once(bus, 'listening');
  const served = once(bus, 'connection').then(async ([socket]) => {
    (socket as Socket).resume().end('the bus of the cloud');
    await once(socket, 'close');
  });
  const { port } = bus.address() as AddressInfo;
  const cloud = await start(CLOUD, port);
  const edge = await start(EDGE, port, { VP_TOKEN: cloud.line });
  const local = JSON.parse(edge.line) as AddressInfo;
  expect(local.port).not.toBe(port);
  expect(await text(connect(local.port, local.address))).toBe('the bus of the cloud');
  // A gateway that stops resets the connections that it still carries, so this one ends first.
  await served;
  expect(await Promise.all([end(edge.child), end(cloud.child)])).toEqual([0, 0]);
  bus.close();
});

test.each([CLOUD, EDGE])('%s has at most 60 lines', (path) => {
  expect(readFileSync(path, 'utf8').trim().split('\n').length).toBeLessThanOrEqual(60);
});
