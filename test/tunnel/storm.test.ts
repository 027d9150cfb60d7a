/**
 * Many peers at once: how long a dialling side waits after a loss, and how a listener takes its connections in turn.
 */
import { Socket } from 'node:net';
import { describe, expect, test, vi } from 'vitest';
import { DialWait } from '../../src/tunnel/dial-wait.ts';
import { Handshakes } from '../../src/tunnel/handshakes.ts';
import { type CloseCause, CloseCode, FrameType, failureOf } from '../../src/tunnel/index.ts';
import { readClose, readWelcome } from '../../src/tunnel/messages.ts';
import { resolveListenOptions } from '../../src/tunnel/options.ts';
import { StartQueue } from '../../src/tunnel/start-queue.ts';
import { site } from '../support/certificates.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { HELLO, RawPeer, WELCOME } from '../support/raw-peer.ts';
import {
  ca,
  cleanUp,
  cloud,
  dial,
  listen,
  next,
  serve,
  setUpTunnels,
  siteA,
  siteB,
} from './scene.ts';

setUpTunnels();

const LOST: CloseCause = { by: 'network', code: CloseCode.ConnectionLost, reason: '' };
const BUSY: CloseCause = { by: 'peer', code: CloseCode.Busy, reason: '', retryAfterMs: 2_000 };

function waits(random: number): DialWait {
  const backoff = { minMs: 200, maxMs: 30_000 };
  return new DialWait({ backoff, random: () => random });
}

describe('the wait before the next attempt', () => {
  test('after a loss is a random time below the spread', () => {
    for (const [random, delayMs] of [
      [0, 0],
      [0.25, 1_500],
      [0.999, 5_994],
    ] as const) {
      const wait = waits(random);
      wait.onUp(6_000);
      expect(wait.nextMs(LOST, true, false)).toBe(delayMs);
    }
  });

  test('is that of the backoff if the listening side gives no spread', () => {
    const wait = waits(0.5);
    wait.onUp(0);
    expect([0, 1, 2].map((i) => wait.nextMs(LOST, i === 0, false))).toEqual([100, 200, 400]);
  });

  test('is spread before the first attempt only', () => {
    const wait = waits(0.5);
    wait.onUp(6_000);
    expect([0, 1, 2].map((i) => wait.nextMs(LOST, i === 0, false))).toEqual([3_000, 200, 400]);
  });

  test.each([
    [0, 2_000],
    [0.5, 2_500],
    [0.999, 2_999],
  ])(
    'is what the peer says or up to half more, at random %d, and does not double',
    (random, ms) => {
      const wait = waits(random);
      for (let i = 0; i < 5; i++) expect(wait.nextMs(BUSY, false, false)).toBeCloseTo(ms);
      expect(wait.nextMs(LOST, false, false)).toBe(random * 200);
    }
  );

  test('is never longer than the longest one, whatever the peer says', () => {
    expect(waits(0.5).nextMs({ ...BUSY, retryAfterMs: 600_000 }, false, false)).toBe(30_000);
  });

  test('is the longest one after a refusal that will not pass', () => {
    expect(waits(0.5).nextMs({ ...BUSY, code: 'revoked' }, false, true)).toBe(30_000);
  });
});

describe('a dialled tunnel', () => {
  test('waits as WELCOME said when it is lost, and as `busy` says when it comes back', async () => {
    const clock = new FakeClock();
    const answers = [
      [FrameType.Welcome, { ...WELCOME, keepaliveMs: 600_000, reconnectSpreadMs: 8_000 }],
      [FrameType.Close, { code: 'busy', reason: 'later', retryAfterMs: 2_000 }],
      // A listening side of before gives neither.
      [FrameType.Welcome, { ...WELCOME, keepaliveMs: 600_000 }],
    ] as const;
    const peers: RawPeer[] = [];
    const port = await serve((peer) => {
      const [type, message] = answers[peers.length]!;
      peer.send(type, message);
      peers.push(peer);
    });
    const tunnel = dial(port, { clock });
    const refused = vi.fn();
    tunnel.on('refused', refused);
    await next(tunnel, 'up');
    const lost = next(tunnel, 'waiting');
    peers[0]!.socket.destroy();
    expect((await lost)[0].delayMs).toBe(4_000);
    const busy = next(tunnel, 'waiting');
    clock.advance(4_000);
    const [{ delayMs, cause }] = await busy;
    expect([delayMs, cause.code, failureOf(cause).remedy]).toEqual([2_500, 'busy', 'wait']);
    const up = next(tunnel, 'up');
    clock.advance(2_500);
    await up;
    const again = next(tunnel, 'waiting');
    peers[2]!.socket.destroy();
    // The tunnel was up for no time, so the backoff has doubled once; `busy` has not doubled it.
    expect((await again)[0].delayMs).toBe(200);
    expect(refused).not.toHaveBeenCalled();
  });

  test('is not delayed by the spread when it is renewed, or moved', async () => {
    const clock = new FakeClock();
    const listener = await listen({ clock, reconnectSpreadMs: 600_000 });
    const tunnel = dial(listener.port, { clock });
    await next(tunnel, 'up');
    await tunnel.updateCredentials(await ca.issue(site('site-a')));
    expect(listener.counters.renewed).toBe(1);
    const waiting = next(tunnel, 'waiting');
    const [accepted] = listener.tunnels;
    const endpoint = { host: '127.0.0.1', port: listener.port };
    void accepted!.close({ code: CloseCode.Moved, endpoint });
    expect((await waiting)[0].delayMs).toBe(0);
  });

  test.each([-1, 0.5, 600_001, '1'])('takes no wait of %j', (ms) => {
    expect(readWelcome({ ...WELCOME, reconnectSpreadMs: ms })).toBeUndefined();
    expect(readClose({ code: 'busy', reason: '', retryAfterMs: ms })).toBeUndefined();
  });
});

describe('a listener', () => {
  test.each<[Parameters<typeof listen>[0], number | undefined]>([
    [{}, undefined],
    [{ expectedTunnels: () => 150 }, undefined],
    [{ expectedTunnels: () => 2_000 }, 6_667],
    [{ expectedTunnels: () => 1e9 }, 600_000],
    [{ expectedTunnels: () => Number.NaN }, undefined],
    [{ expectedTunnels: () => 2_000, reconnectSpreadMs: 0 }, undefined],
    [{ reconnectSpreadMs: 1_234 }, 1_234],
  ])('with %j says a spread of %j', async (options, spreadMs) => {
    const peer = RawPeer.dial((await listen(options)).port, siteA);
    cleanUp.push(() => peer.socket.destroy());
    peer.send(FrameType.Hello, HELLO);
    const welcome = await peer.json(FrameType.Welcome);
    expect([welcome?.version, welcome?.reconnectSpreadMs]).toEqual([1, spreadMs]);
  });

  test('tells a peer that makes room while the host decides when to come again', async () => {
    const asked = new Set<string>();
    const listener = await listen({
      maxHandshakes: 1,
      authorize: ({ step, identity }) => {
        if (step === 'certificate' || identity.role !== 'site') return undefined;
        asked.add(identity.site);
        return new Promise(() => {});
      },
    });
    const first = dial(listener.port);
    const waiting = next(first, 'waiting');
    await vi.waitFor(() => expect(asked).toContain('site-a'));
    dial(listener.port, siteB);
    const [{ delayMs, cause }] = await waiting;
    expect(cause).toMatchObject({ by: 'peer', code: 'busy', retryAfterMs: 2_000 });
    expect(delayMs).toBe(2_500);
    expect(listener.counters.failed.get('evicted')).toBe(1);
  });

  test('resets the connections for which there is no place to wait, and counts them', async () => {
    const options = { host: '127.0.0.1', port: 0, ...cloud, clock: new FakeClock() };
    const handshakes = new Handshakes(resolveListenOptions({ ...options, maxHandshakes: 1 }));
    const sockets = Array.from({ length: 20 }, () => new Socket());
    // All in one turn of the event loop: TLS begins for one of them, and eight wait.
    for (const socket of sockets) handshakes.accept(socket);
    expect(sockets.map(({ destroyed }) => destroyed).lastIndexOf(false)).toBe(8);
    expect(handshakes.counters.failed.get('busy')).toBe(11);
    handshakes.close({ code: CloseCode.Shutdown, reason: '' });
    await vi.waitFor(() => expect(handshakes.size).toBe(0));
  });

  test('does no work for a connection that has waited for half of the time of a handshake', async () => {
    const clock = new FakeClock();
    const options = { port: 0, ...cloud, clock, handshakeTimeoutMs: 8_000 };
    const handshakes = new Handshakes(resolveListenOptions(options));
    const begun = vi.fn();
    handshakes.on('begin', begun);
    const sockets = Array.from({ length: 6 }, () => new Socket());
    for (const socket of sockets.slice(0, 4)) handshakes.accept(socket);
    clock.advance(1);
    for (const socket of sockets.slice(4)) handshakes.accept(socket);
    clock.advance(4_000);
    await vi.waitFor(() => expect(begun).toHaveBeenCalledTimes(4));
    expect(begun.mock.calls.flat()).toEqual([0, 1, 4, 5].map((i) => sockets[i]));
    expect([...handshakes.counters.failed]).toEqual([['busy', 2]]);
    handshakes.close({ code: CloseCode.Shutdown, reason: '' });
  });

  test('passes on what `authorize` says', async () => {
    const busy = { code: CloseCode.Busy, reason: 'later', retryAfterMs: 700 };
    const tunnel = dial((await listen({ authorize: () => busy })).port);
    expect((await next(tunnel, 'waiting'))[0]).toMatchObject({ delayMs: 875, cause: busy });
  });
});

describe('the queue of connections whose TLS is to begin', () => {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const item = (name: number, destroyed = false) => ({ name, socket: { destroyed } as Socket });

  test('begins with two in a turn of the event loop, in their order', async () => {
    const begun: number[] = [];
    const queue = new StartQueue(
      100,
      ({ name }: ReturnType<typeof item>) => begun.push(name),
      () => true
    );
    for (let i = 0; i < 50; i++) queue.add(item(i));
    expect(begun).toEqual([0, 1]);
    for (let i = 2; begun.length < 50; i++) {
      await turn();
      expect(begun.length).toBeLessThanOrEqual(2 * i);
    }
    expect(begun).toEqual(begun.map((_, i) => i));
  });

  test('is full when so many wait, and not when they have begun', async () => {
    const queue = new StartQueue(
      3,
      () => {},
      () => true
    );
    for (let i = 0; i < 5; i++) {
      expect(queue.isFull).toBe(false);
      queue.add(item(i));
    }
    expect(queue.isFull).toBe(true);
    await vi.waitFor(() => expect(queue.isFull).toBe(false));
  });

  test('waits for the end of a handshake, but not for ever', async () => {
    let room = 2;
    const begun: number[] = [];
    const queue = new StartQueue(
      100,
      ({ name }: ReturnType<typeof item>) => {
        begun.push(name);
        room--;
      },
      () => room > 0
    );
    for (let i = 0; i < 5; i++) queue.add(item(i));
    for (let i = 0; i < 20; i++) await turn();
    expect(begun).toEqual([0, 1]);
    room = 1;
    for (let i = 0; i < 2; i++) await turn();
    expect(begun).toEqual([0, 1, 2]);
    await vi.waitFor(() => expect(begun).toEqual([0, 1, 2, 3, 4]));
  });

  test('leaves out those that are gone, also if all are', async () => {
    const begun: number[] = [];
    const queue = new StartQueue(
      100,
      ({ name }: ReturnType<typeof item>) => begun.push(name),
      () => true
    );
    for (let i = 0; i < 3; i++) queue.add(item(i, true));
    for (let i = 3; i < 9; i++) queue.add(item(i, i % 2 === 0));
    await vi.waitFor(() => expect(begun).toEqual([3, 5, 7]));
  });
});
