/**
 * Which of several endpoints a dialling side tries, and when it dials the next one beside the one before.
 */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, expect, test, vi } from 'vitest';
import type { HostPort } from '../../src/base/host-port.ts';
import { ConfigError } from '../../src/errors.ts';
import { EndpointList } from '../../src/tunnel/endpoint-list.ts';
import { CloseCode, FrameType, type MtlsTunnel } from '../../src/tunnel/index.ts';
import { readClose, readWelcome } from '../../src/tunnel/messages.ts';
import { TcpRace } from '../../src/tunnel/tcp-race.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { frameBytes, type RawPeer, WELCOME } from '../support/raw-peer.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';
import { cleanUp, dial, listen, next, serve, setUpTunnels } from './scene.ts';

setUpTunnels();

const at = (port: number): HostPort => ({ host: '127.0.0.1', port });
const HOSTS: readonly HostPort[] = ['a', 'b', 'c', 'd'].map((host) => ({ host, port: 7443 }));

function listOf(identity: string, priorities: readonly number[] = [0, 0, 0, 0]): EndpointList {
  return new EndpointList(
    identity,
    priorities.map((priority, i) => ({ ...HOSTS[i]!, priority }))
  );
}

const names = (endpoints: readonly HostPort[]): string =>
  endpoints.map(({ host }) => host).join('');

describe('the order of endpoints', () => {
  test('spreads the sites over them, and those of a lost one over the others', () => {
    const first = new Map<string, number>();
    const second = new Map<string, number>();
    for (let site = 0; site < 400; site++) {
      const [one, two] = names(listOf(`spiffe://example.org/site/s${site}`).order(0));
      first.set(one!, (first.get(one!) ?? 0) + 1);
      if (one === 'a') second.set(two!, (second.get(two!) ?? 0) + 1);
    }
    expect([...first.keys()].sort()).toEqual(['a', 'b', 'c', 'd']);
    expect([...second.keys()].sort()).toEqual(['b', 'c', 'd']);
    expect(Math.min(...first.values())).toBeGreaterThan(60);
    expect(Math.min(...second.values())).toBeGreaterThan(15);
  });

  test('is that of their priorities first', () => {
    for (let site = 0; site < 20; site++) {
      expect(names(listOf(`s${site}`, [30, 10, 20]).order(0))).toBe('bca');
    }
  });

  test('has those that have failed lately last, the first of them in front', () => {
    const list = listOf('s', [1, 2, 3, 4]);
    list.failed(HOSTS[1]!, 1_000);
    list.failed(HOSTS[0]!, 2_000);
    list.failed({ host: 'unknown', port: 1 }, 2_000);
    expect(names(list.order(30_999))).toBe('cdba');
    expect(names(list.order(31_000))).toBe('bcda');
    expect(names(list.order(32_000))).toBe('abcd');
  });

  test('has learned ones behind those of a better priority, each endpoint once', () => {
    const list = listOf('s', [0, 5]);
    list.failed(HOSTS[0]!, 0);
    list.learn([HOSTS[0]!, HOSTS[2]!, HOSTS[2]!]);
    expect(names(list.order(0)).at(-1)).toBe('a');
    expect([...names(list.order(0))].sort().join('')).toBe('abc');
    // What was learned before is forgotten, and what was known of the rest is not.
    list.learn([HOSTS[3]!]);
    expect([...names(list.order(0))].sort().join('')).toBe('abd');
    expect(names(list.order(0)).at(-1)).toBe('a');
  });
});

/** A server that takes connections and says nothing: as an HTTP proxy it never answers. */
async function silentServer(): Promise<{ readonly url: string; readonly sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {}).resume();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUp.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets };
}

describe('a race of endpoints', () => {
  /** Endpoints below port 10 never answer, because of their proxy. */
  async function race(ports: readonly number[]) {
    const clock = new FakeClock();
    const silent = await silentServer();
    const dialled: number[] = [];
    const failed: number[] = [];
    const outcome = await new Promise<{ open?: Socket; last?: Error; race: TcpRace }>((resolve) => {
      const own = new TcpRace({
        endpoints: ports.map(at),
        clock,
        proxy: (_, port) => {
          dialled.push(port);
          // The next one is due when this one was dialled.
          setImmediate(() => clock.advance(250));
          return port < 10 ? silent.url : undefined;
        },
        onOpen: (open) => resolve({ open, race: own }),
        onFailed: (error, { port }, isLast) => {
          failed.push(port);
          if (isLast) resolve({ last: error, race: own });
        },
      });
      cleanUp.push(() => own.cancel());
    });
    outcome.open?.destroy();
    return { ...outcome, clock, silent, dialled, failed };
  }

  test('dials the next one beside one that does not answer in 250 ms, and closes that', async () => {
    const listener = await listen();
    const { open, dialled, failed, silent, clock } = await race([1, 2, listener.port, 3]);
    expect([open !== undefined, dialled, failed]).toEqual([true, [1, 2, listener.port], [1, 2]]);
    expect(clock.delays).toEqual([]);
    await vi.waitFor(() => expect(silent.sockets.every((socket) => socket.closed)).toBe(true));
  });

  test('dials the next one at once when one refuses, and fails when the last one has', async () => {
    const nobody = await refusingTcpPort();
    cleanUp.push(() => nobody.close());
    const { last, failed } = await race([nobody.port, nobody.port]);
    expect([(last as NodeJS.ErrnoException).code, failed.length]).toEqual(['ECONNREFUSED', 2]);
  });

  test('dials an endpoint anew that does not answer, and reports nothing of it', async () => {
    const listener = await listen();
    const clock = new FakeClock();
    let dialled = 0;
    const onFailed = vi.fn();
    const open = new Promise<Socket>((resolve) => {
      const own = new TcpRace({
        endpoints: [at(listener.port)],
        againMs: 300,
        clock,
        proxy: () => {
          dialled++;
          return undefined;
        },
        onOpen: resolve,
        onFailed,
      });
      // No answer comes before the event loop has run.
      clock.advance(6 * 300 + 299);
      expect([dialled, own.pending]).toEqual([7, [at(listener.port)]]);
    });
    (await open).destroy();
    expect([clock.delays, onFailed.mock.calls]).toEqual([[], []]);
  });

  test('has four connections under way at most, and goes on all the same', async () => {
    const listener = await listen();
    const { open, failed } = await race([1, 2, 3, 4, 5, 6, listener.port]);
    expect([open !== undefined, failed]).toEqual([true, [1, 2, 3, 4, 5, 6]]);
  });
});

describe('a dialled tunnel with several endpoints', () => {
  test('takes one that answers when the first one does not, with no wait', async () => {
    const nobody = await refusingTcpPort();
    cleanUp.push(() => nobody.close());
    const listener = await listen();
    const endpoints = [
      { ...at(nobody.port), priority: 0 },
      { ...at(listener.port), priority: 1 },
    ];
    const tunnel = dial(0, { clock: new FakeClock(), endpoints });
    await next(tunnel, 'up');
    expect(tunnel.info?.remotePort).toBe(listener.port);
  });

  test('turns to another one when it loses its tunnel, after a short wait whatever the spread', async () => {
    const clock = new FakeClock();
    const peers: RawPeer[] = [];
    const welcome = { ...WELCOME, keepaliveMs: 600_000, reconnectSpreadMs: 100_000 };
    const ports = await Promise.all(
      [0, 1].map(() =>
        serve((peer) => {
          peers.push(peer);
          peer.send(FrameType.Welcome, welcome);
        })
      )
    );
    const tunnel = dial(0, { clock, endpoints: ports.map(at) });
    await next(tunnel, 'up');
    const before = tunnel.info!.remotePort;
    const waiting = next(tunnel, 'waiting');
    peers[0]!.socket.destroy();
    expect((await waiting)[0].delayMs).toBe(100);
    const up = next(tunnel, 'up');
    clock.advance(100);
    await up;
    expect(tunnel.info?.remotePort).toBe(ports.find((port) => port !== before));
  });

  test('dials an endpoint that it has learned when its own is gone', async () => {
    const there = await listen();
    const clock = new FakeClock();
    const peers: RawPeer[] = [];
    let count = 0;
    const port = await serve((peer) => {
      // Nobody is let in any more after the first time.
      if (count++ > 0) {
        peer.socket.destroy();
        return;
      }
      peers.push(peer);
      peer.send(FrameType.Welcome, {
        ...WELCOME,
        keepaliveMs: 600_000,
        endpoints: [at(there.port)],
      });
    });
    const tunnel = dial(port, { clock });
    await next(tunnel, 'up');
    const waiting = next(tunnel, 'waiting');
    peers[0]!.socket.destroy();
    await waiting;
    clock.advance(100);
    await next(tunnel, 'up');
    expect(tunnel.info?.remotePort).toBe(there.port);
  });

  test.each([
    [{ host: '127.0.0.1', port: 1, priority: -1 }],
    [{ host: '127.0.0.1', port: 1, priority: 65_536 }],
    [{ host: '127.0.0.1', port: 1, priority: 'x' as never }],
  ])('takes no endpoint such as %j', (endpoint) => {
    expect(() => dial(0, { endpoints: [endpoint] })).toThrow(ConfigError);
  });
});

describe('a peer that is sent elsewhere', () => {
  test('by the host of the listener dials the endpoints that it names, in that order', async () => {
    const nobody = await refusingTcpPort();
    cleanUp.push(() => nobody.close());
    const there = await listen();
    const here = await listen({
      authorize: ({ step }) =>
        step === 'hello' ? { moved: [at(nobody.port), at(there.port)] } : undefined,
    });
    const clock = new FakeClock();
    const tunnel = dial(here.port, { clock });
    const [{ delayMs, cause }] = await next(tunnel, 'waiting');
    expect([delayMs, cause]).toMatchObject([
      0,
      { code: 'moved', endpoint: at(nobody.port), endpoints: [at(nobody.port), at(there.port)] },
    ]);
    clock.advance(0);
    await next(tunnel, 'up');
    expect(tunnel.info?.remotePort).toBe(there.port);
    expect(here.counters.refused.get(CloseCode.Moved)).toBe(1);
  });

  test('while its tunnel is up follows too', async () => {
    const [here, there] = [await listen(), await listen()];
    const tunnel = dial(here.port);
    await next(tunnel, 'up');
    const [accepted] = here.tunnels as ReadonlySet<MtlsTunnel>;
    void accepted!.close({ code: CloseCode.Moved, reason: '', endpoints: [at(there.port)] });
    await next(tunnel, 'down');
    await next(tunnel, 'up');
    expect(tunnel.info?.remotePort).toBe(there.port);
  });

  const many = Array.from({ length: 17 }, (_, i) => at(i + 1));
  test.each<[string, unknown]>([
    ['too many endpoints', many],
    ['an endpoint without a host', [{ port: 1 }]],
    ['a host of more than a name', [{ host: 'a b', port: 1 }]],
    ['a port that is none', [at(0)]],
    [
      'endpoints that are too long',
      many.slice(0, 16).map((it) => ({ ...it, host: 'h'.repeat(253) })),
    ],
    ['an endpoint that is a text', ['127.0.0.1:1']],
    ['no list', { 0: at(1) }],
  ])('takes no message with %s', (_, endpoints) => {
    expect(readWelcome({ ...WELCOME, endpoints } as never)).toBeUndefined();
    const close = { code: 'moved', reason: '', endpoints };
    expect(readClose(close as never)).toBeUndefined();
    expect(frameBytes(FrameType.Close, close).length).toBeGreaterThan(0);
  });
});
