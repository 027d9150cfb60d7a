/**
 * Connections over the sockets of an edge gateway while something stands in their way for a while: a cloud gateway that
 * is killed and started again, a tunnel that is cut, and a program that blocks its event loop. The other ends are plain
 * Linux programs in two sites with a TUN.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';

import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { EdgeGateway } from '../../src/gateway/index.ts';
import type { PresenceSocket } from '../../src/sockets/index.ts';
import type { Host, Program } from '../support/network.ts';
import type { Attempts } from './sockets-blocked-child.ts';
import {
  CLOUD_ENDPOINT,
  counter,
  DEADLINE_MS,
  LIFETIME_SECONDS,
  SocketsScene,
  whatTheSceneMisses,
  ZONE,
} from './sockets-scene.ts';
import { testData } from './test-data.ts';

const skipReason = whatTheSceneMisses({
  getent: 'libc-bin',
  pkill: 'procps',
  setpriv: 'util-linux',
});
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';
const MIB = 1 << 20;
const DATA = testData();

describe.skipIf(isSkipped)(`interrupted sockets of an edge gateway${reason}`, () => {
  let scene: SocketsScene;
  let agent: EdgeGateway;

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    scene = await SocketsScene.start();
    await scene.addSiteB();
    agent = await scene.agent('site-a', { tunnelWaitMs: 600_000 });
    await vi.waitFor(() => expect(agent.lookup('far')).toHaveLength(1));
  });
  afterAll(() => scene?.close());

  test('a cloud gateway that is killed and started again loses no byte and no connection', async () => {
    const failed = counter(agent, 'sockets.tcp.failed');
    const silent = await connected(agent, 'web');
    const talker = await startTalker();
    const echoes = [];
    for (const host of ['web', 'far']) echoes.push(new Echo(await connected(agent, host)));
    talker.write(`send ${16 * MIB}\n`);
    for (const echo of echoes) await echo.reached(4 * MIB);
    await talker.printed(/received/, DEADLINE_MS);

    const before = echoes.map(({ received }) => received);
    await scene.kill();
    await vi.waitFor(() => expect(agent.state).toBe('connecting'));
    await scene.restart();
    await agent.ready({ signal: AbortSignal.timeout(DEADLINE_MS) });
    talker.write(`send ${16 * MIB}\n`);
    for (const [i, echo] of echoes.entries()) {
      await echo.reached(Math.max(32 * MIB, before[i]! + 8 * MIB));
      // It was in the middle: what goes on came through both gateways.
      expect(await echo.end()).toBe(true);
    }
    await talker.printed(new RegExp(`received ${32 * MIB}\n`), DEADLINE_MS);
    expect(talker.text).not.toMatch(/wrong|error|closed/);
    silent.write('!');
    expect(String(await once(silent, 'data'))).toBe('!');
    silent.destroy();
    expect(counter(agent, 'sockets.tcp.failed')).toBe(failed);
  });

  /** Starts a Linux program that is connected to a server of the agent, which returns what it receives. */
  async function startTalker(): Promise<Program> {
    const server = agent.sockets.createServer((socket) => {
      // It ends with the gateway.
      socket.on('error', () => {});
      socket.pipe(socket);
    });
    server.listen(6080);
    await once(server, 'listening');
    const name = ['getent', 'ahostsv4', `agent.${ZONE}`];
    const address = (await scene.service.get(name)).split(' ')[0]!;
    const program = ['--import', 'tsx', 'test/e2e/talker.ts', 'connect', address, '6080'];
    const talker = scene.service.start(
      [process.execPath, ...program, '10.0.0.5'],
      LIFETIME_SECONDS
    );
    await talker.printed(/connected/, DEADLINE_MS);
    return talker;
  }

  test('a cut tunnel delays connections: new ones wait, and fail when the wait is over', async () => {
    const hasty = await scene.agent('site-c', { tunnelWaitMs: 200 });
    const socket = await connected(agent, 'web');
    const echoed = hashOf(socket);
    await scene.cut();
    await vi.waitFor(() => {
      expect([agent.state, hasty.state]).toEqual(['connecting', 'connecting']);
    });
    socket.end(DATA);
    const next = agent.sockets.connect({ host: 'web', port: 7001 });
    let hasWaited = false;
    setTimeout(() => {
      hasWaited = true;
    }, 100);
    const failed = await failureOf(hasty.sockets.connect({ host: 'web', port: 7001 }));
    expect(failed).toMatchObject({ code: 'ENETDOWN', syscall: 'connect' });
    expect(failed.cause).toBe(hasty.failure!.error);
    expect(hasWaited).toBe(true);
    await scene.mend();
    await once(next, 'connect');
    next.destroy();
    expect(await echoed).toBe(createHash('sha256').update(DATA).digest('hex'));
  });

  test('a program that blocks its event loop causes no retransmission, and needs no capabilities', async () => {
    const host: Host = await scene.addHost('program', 3);
    // The exposure is that of the agent, whose place this program takes.
    await agent.close();
    const token = await scene.token('site-a');
    const program = ['--import', 'tsx', 'test/e2e/sockets-blocked-child.ts', CLOUD_ENDPOINT, token];
    const output = await host.get([...UNPRIVILEGED, process.execPath, ...program]);
    const attempts = JSON.parse(output) as Attempts;
    for (const kind of ['up', 'down', 'bursts'] as const) {
      expect(attempts[kind].at(-1), output).toMatchObject({ retransmitted: 0, timeouts: 0 });
    }
    expect(attempts.bursts.at(-1), output).toMatchObject({ tailProbes: 0 });
  });
});

/** Sends endless data to an echo service, and checks what comes back. */
class Echo {
  received = 0;
  readonly #socket: PresenceSocket;
  readonly #sent = createHash('sha256');
  readonly #hash: Promise<string>;
  #isEnding = false;

  constructor(socket: PresenceSocket) {
    this.#socket = socket;
    socket.on('data', ({ length }: Buffer) => {
      this.received += length;
    });
    this.#hash = hashOf(socket);
    void this.#send();
  }

  async reached(bytes: number): Promise<void> {
    await vi.waitFor(() => expect(this.received).toBeGreaterThanOrEqual(bytes), {
      timeout: DEADLINE_MS,
    });
  }

  /** Ends the connection; resolves to whether all came back. */
  async end(): Promise<boolean> {
    this.#isEnding = true;
    const hash = await this.#hash;
    return hash === this.#sent.digest('hex');
  }

  async #send(): Promise<void> {
    for (let i = 0; !this.#isEnding; i++) {
      const at = (i * 10_007) % MIB;
      const chunk = DATA.subarray(at, at + 65_536);
      this.#sent.update(chunk);
      if (!this.#socket.write(chunk)) await once(this.#socket, 'drain');
      else await nextTurn();
    }
    this.#socket.end();
  }
}

/** Connects to the echo service of a host, and waits until it has answered. */
async function connected(edge: EdgeGateway, host: string): Promise<PresenceSocket> {
  const socket = edge.sockets.connect({ host, port: 7001, allowHalfOpen: true });
  socket.write('?');
  await once(socket, 'data');
  return socket;
}

/** The hash of all that comes. */
async function hashOf(socket: PresenceSocket): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of socket) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

function failureOf(socket: PresenceSocket): Promise<NodeJS.ErrnoException> {
  return new Promise((resolve) => socket.once('error', resolve));
}

/** The words before a command that take all capabilities from it. */
const UNPRIVILEGED = ['setpriv', '--inh-caps=-all', '--bounding-set=-all'];
