/**
 * A cloud gateway that connects to its services by sockets is killed and started again. Its connections end with it, and
 * their other ends learn of that: the service from the kernel, and the agent by a reset from the new process.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { EdgeGateway } from '../../src/gateway/index.ts';
import type { PresenceSocket } from '../../src/sockets/index.ts';
import { MemorySecrets, MemoryStore } from '../../src/store/index.ts';
import { spawnNode } from '../support/child.ts';
import { Relay } from '../support/relay.ts';

const PATIENCE = { signal: AbortSignal.timeout(600_000) };
const WAIT = { timeout: 60_000 };

test('an agent learns by a reset that the cloud gateway was killed, and connects again', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'vp-backend-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const accepted = new Set<Socket>();
  const server = createServer((socket) => {
    accepted.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => accepted.delete(socket));
    socket.pipe(socket);
  }).listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  const relay = await Relay.open();
  onTestFinished(() => relay.close());
  const first = await startCloud(directory, port);
  relay.target = first.port;
  const agent = await EdgeGateway.start({
    token: first.token,
    cloud: [`127.0.0.1:${relay.port}`],
    device: { type: 'sockets', tunnelWaitMs: 600_000 },
    store: new MemoryStore(),
    secrets: new MemorySecrets(),
  });
  onTestFinished(() => agent.close());
  await agent.ready(PATIENCE);
  const talking = await connected(agent, port);
  const failure = new Promise<Error>((resolve) => talking.once('error', resolve));
  expect(accepted.size).toBe(1);

  relay.target = undefined;
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  await vi.waitFor(() => expect(accepted.size).toBe(0), WAIT);
  await vi.waitFor(() => expect(agent.state).toBe('connecting'), WAIT);
  talking.write('are you there?');
  const waiting = connected(agent, port);

  const second = await startCloud(directory, port);
  relay.target = second.port;
  await agent.ready(PATIENCE);
  expect(await failure).toMatchObject({ code: 'ECONNRESET', syscall: 'read' });
  (await waiting).destroy();
  (await connected(agent, port)).destroy();
});

async function startCloud(
  directory: string,
  port: number
): Promise<{ readonly child: ChildProcess; readonly port: number; readonly token: string }> {
  const child = spawnNode(['test/e2e/sockets-cloud-child.ts', directory, String(port)]);
  const [line] = await once(child.stdout!.setEncoding('utf8'), 'data');
  return { child, ...JSON.parse(line) };
}

/** Connects to the service, and waits until it has answered. */
async function connected(agent: EdgeGateway, port: number): Promise<PresenceSocket> {
  const socket = agent.sockets.connect({ host: 'bus', port });
  socket.write('?');
  await once(socket, 'data');
  return socket;
}
