/**
 * Many peers at once: how long a dialling side waits after a loss, and how a listener takes its connections in turn.
 */
import { once } from 'node:events';
import { connect as connectTcp, Socket } from 'node:net';
import { describe, expect, test, vi } from 'vitest';
import { DialWait } from '../../src/tunnel/dial-wait.ts';
import { HandshakeRate } from '../../src/tunnel/handshake-rate.ts';
import { Handshakes } from '../../src/tunnel/handshakes.ts';
import {
  type CloseCause,
  CloseCode,
  FrameType,
  failureOf,
  type ListenOptions,
} from '../../src/tunnel/index.ts';
import { readClose, readWelcome } from '../../src/tunnel/messages.ts';
import { resolveListenOptions } from '../../src/tunnel/options.ts';
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

function waits(random: number, clock = new FakeClock()): DialWait {
  const backoff = { minMs: 200, maxMs: 30_000 };
  return new DialWait({ backoff, random: () => random, clock });
}

describe('the wait before the next attempt', () => {
  test('after a loss is short, and when a gateway then takes nobody, a random time below the spread', () => {
    for (const [random, firstMs, nextMs] of [
      [0, 0, 0],
      [0.25, 50, 1_500],
      [0.999, 199.8, 5_994],
    ] as const) {
      const wait = waits(random);
      wait.onUp(6_000);
      expect(wait.nextMs(LOST, true, false)).toBe(firstMs);
      expect(wait.nextMs(LOST, false, false)).toBe(nextMs);
    }
  });

  test('is not spread while no gateway is reached, for that says nothing about others', () => {
    const wait = waits(0.5);
    wait.onUp(6_000);
    const unreached = { ...LOST, errorCode: 'ETIMEDOUT' };
    expect([
      wait.nextMs(unreached, true, false),
      wait.nextMs(unreached, false, false),
      wait.nextMs({ ...LOST, errorCode: 'EHOSTUNREACH' }, false, false),
      wait.nextMs({ ...LOST, errorCode: 'ECONNRESET' }, false, false),
      wait.nextMs({ ...LOST, errorCode: 'ECONNRESET' }, false, false),
    ]).toEqual([100, 125, 125, 3_000, 400]);
  });

  test('stays short while no gateway is reached, and grows only as the outage does', () => {
    const clock = new FakeClock();
    const wait = waits(0.5, clock);
    const [unreached, refused] = ['ENETUNREACH', 'ECONNREFUSED'].map((errorCode) => ({
      ...LOST,
      errorCode,
    }));
    const seen: number[][] = [];
    for (const laterMs of [0, 8_000, 56_000, 192_000, 3_600_000]) {
      clock.advance(laterMs);
      seen.push([
        wait.nextMs(unreached!, false, false),
        wait.nextMs(refused!, false, false),
        wait.againMs,
      ]);
    }
    expect(seen).toEqual([
      [125, 500, 250],
      [125, 500, 250],
      [250, 1_000, 625],
      [1_000, 4_000, 1_250],
      [15_000, 15_000, 1_250],
    ]);
    // None of these attempts counts when a gateway answers again.
    expect(wait.nextMs(LOST, false, false)).toBe(100);
    wait.onUp(0);
    expect([wait.againMs, wait.nextMs(unreached!, false, false)]).toEqual([250, 125]);
  });

  test('is not spread after a tunnel that came up again', () => {
    const wait = waits(0.5);
    wait.onUp(6_000);
    wait.nextMs(LOST, true, false);
    wait.onUp(6_000);
    wait.onStable();
    expect(wait.nextMs(LOST, true, false)).toBe(100);
  });

  test('is that of the backoff if the listening side gives no spread', () => {
    const wait = waits(0.5);
    wait.onUp(0);
    expect([0, 1, 2].map((i) => wait.nextMs(LOST, i === 0, false))).toEqual([100, 200, 400]);
  });

  test('is spread once only', () => {
    const wait = waits(0.5);
    wait.onUp(6_000);
    expect([0, 1, 2].map((i) => wait.nextMs(LOST, i === 0, false))).toEqual([100, 3_000, 400]);
  });

  test('is short again when the tunnel is lost soon after an outage in which many attempts failed', () => {
    const wait = waits(0.5);
    wait.onUp(0);
    const outage = (): number[] =>
      Array.from({ length: 7 }, (_, i) => wait.nextMs(LOST, i === 0, false));
    expect(outage()).toEqual([100, 200, 400, 800, 1_600, 3_200, 6_400]);
    wait.onUp(0);
    expect(outage()).toEqual([200, 400, 800, 1_600, 3_200, 6_400, 12_800]);
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

  test('is not shorter than the first one because the peer says 0', () => {
    expect(waits(0).nextMs({ ...BUSY, retryAfterMs: 0 }, false, false)).toBe(200);
  });

  test('is never longer than the longest one, whatever the peer says', () => {
    expect(waits(0.5).nextMs({ ...BUSY, retryAfterMs: 600_000 }, false, false)).toBe(30_000);
  });

  test('is the longest one after a refusal that will not pass', () => {
    expect(waits(0.5).nextMs({ ...BUSY, code: 'revoked' }, false, true)).toBe(30_000);
  });
});

describe('a dialled tunnel', () => {
  test('waits for a moment when it is lost, and as `busy` says when it comes back', async () => {
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
    expect((await lost)[0].delayMs).toBe(100);
    const busy = next(tunnel, 'waiting');
    clock.advance(100);
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

  test('dials seldom, and keeps nothing, when it comes and goes every second for an hour', async () => {
    const clock = new FakeClock();
    const peers: RawPeer[] = [];
    const port = await serve((peer) => {
      peers.push(peer);
      peer.send(FrameType.Welcome, { ...WELCOME, keepaliveMs: 600_000 });
    });
    const tunnel = dial(port, { clock });
    const startMs = clock.monotonicMs();
    const timers: number[] = [];
    while (clock.monotonicMs() - startMs < 3_600_000) {
      await next(tunnel, 'up');
      clock.advance(1_000);
      const waiting = next(tunnel, 'waiting');
      peers.at(-1)!.socket.destroy();
      clock.advance((await waiting)[0].delayMs);
      timers.push(clock.delays.length);
    }
    // Each wait is 15 s in the end, half of the longest one; the first ones are shorter.
    expect(peers.length).toBeGreaterThan(225);
    expect(peers.length).toBeLessThan(240);
    expect(Math.max(...timers.slice(-100))).toBe(timers[10]);
  });

  test('is not delayed by the spread when it is renewed, or moved', async () => {
    const clock = new FakeClock();
    const listener = await listen({ clock, expectedTunnels: () => 1e9 });
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

  test.each([-1, 0.5, 120_001, 1e300, '1', null])('takes no wait of %j', (ms) => {
    expect(readWelcome({ ...WELCOME, reconnectSpreadMs: ms })).toBeUndefined();
    expect(readClose({ code: 'busy', reason: '', retryAfterMs: ms })).toBeUndefined();
  });
});

describe('a listener', () => {
  test.each<[number, number | undefined]>([
    [600, undefined],
    [2_000, 6_667],
    [1e9, 120_000],
    [-1, undefined],
    [Number.NaN, undefined],
  ])('that expects %d tunnels says a spread of %s', async (tunnels, spreadMs) => {
    const peer = RawPeer.dial((await listen({ expectedTunnels: () => tunnels })).port, siteA);
    cleanUp.push(() => peer.socket.destroy());
    peer.send(FrameType.Hello, HELLO);
    const welcome = await peer.json(FrameType.Welcome);
    expect([welcome?.version, welcome?.reconnectSpreadMs]).toEqual([1, spreadMs]);
  });

  test('tells a peer that makes room while the host decides when to come again', async () => {
    const asked = new Set<string>();
    const clock = new FakeClock();
    const listener = await listen({
      clock,
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
    clock.advance(1_000);
    dial(listener.port, siteB);
    await vi.waitFor(() => expect(listener.handshakes).toBe(2));
    // Both have one address, so the first one has its time.
    clock.advance(3_999);
    expect(listener.counters.evicted).toBe(0);
    clock.advance(101);
    const [{ delayMs, cause }] = await waiting;
    expect(cause).toMatchObject({ by: 'peer', code: 'busy', retryAfterMs: 2_000 });
    expect(delayMs).toBe(2_500);
    expect(listener.counters.failed.get('evicted')).toBe(1);
  });

  test('ends no handshake of a storm, however few may be under way', async () => {
    const clock = new FakeClock();
    const listener = await listen({ clock, maxHandshakes: 2, maxTunnelBurst: 100 });
    await next(dial(listener.port), 'up');
    const tunnels = Array.from({ length: 20 }, () => dial(listener.port));
    await Promise.all(tunnels.map((tunnel) => next(tunnel, 'up')));
    expect(listener.counters).toMatchObject({ accepted: 21, evicted: 0, failed: new Map() });
  });

  test('lets an edge in while connections of another address keep it busy', async () => {
    const clock = new FakeClock();
    const listener = await listen({ clock, maxHandshakes: 4 });
    // It has just accepted a connection, so those that are silent have their time too.
    await next(dial(listener.port, siteB), 'up');
    for (let i = 0; i < 20; i++) {
      const socket = connectTcp({ port: listener.port, localAddress: '127.0.0.9' });
      cleanUp.push(() => socket.destroy());
      socket.on('error', () => {});
      await once(socket, 'connect');
      socket.write(Buffer.alloc(200, 0));
    }
    await next(dial(listener.port), 'up');
    expect(listener.counters.accepted).toBe(2);
  });

  test('resets the connections for which there is no place to wait, and counts them', () => {
    const { handshakes, begun } = handshakesOf({ maxHandshakes: 1 });
    const sockets = Array.from({ length: 20 }, () => new Socket());
    // All in one turn of the event loop: the second takes the place of the first, which is silent, and eight wait.
    for (const socket of sockets) handshakes.accept(socket);
    expect(begun).toEqual(sockets.slice(0, 2));
    expect(sockets.map(({ destroyed }) => destroyed)).toEqual(
      sockets.map((_, i) => i === 0 || i >= 10)
    );
    expect([...handshakes.counters.failed]).toEqual([
      ['evicted', 1],
      ['busy', 10],
    ]);
  });

  test('begins with no connection that has waited for half of the time of a handshake', async () => {
    const { handshakes, begun, clock } = handshakesOf({ maxHandshakes: 1 });
    const sockets = Array.from({ length: 6 }, () =>
      Object.defineProperty(new Socket(), 'bytesRead', { value: 500 })
    );
    handshakes.accept(sockets[0]!);
    clock.advance(950);
    for (const socket of sockets.slice(1)) handshakes.accept(socket);
    // The first one has had its half, and the second one takes its place.
    clock.advance(4_100);
    await new Promise(setImmediate);
    expect(begun).toEqual(sockets.slice(0, 2));
    clock.advance(899);
    expect(handshakes.counters.failed.get('busy')).toBe(undefined);
    clock.advance(1);
    await new Promise(setImmediate);
    expect(begun).toEqual(sockets.slice(0, 2));
    expect(sockets.map(({ destroyed }) => destroyed)).toEqual(sockets.map((_, i) => i !== 1));
    expect([...handshakes.counters.failed]).toEqual([
      ['evicted', 1],
      ['busy', 4],
    ]);
  });

  test('begins with no connection that is gone', async () => {
    const { handshakes, begun } = handshakesOf({ maxHandshakes: 8 });
    const sockets = Array.from({ length: 4 }, () => new Socket());
    sockets[0]!.destroy();
    for (const socket of sockets) handshakes.accept(socket);
    await new Promise(setImmediate);
    expect(begun).toEqual(sockets.slice(1));
  });

  test('counts a connection that ends while it waits', async () => {
    const { handshakes } = handshakesOf({ maxHandshakes: 8 });
    const sockets = Array.from({ length: 3 }, () => new Socket());
    for (const socket of sockets) handshakes.accept(socket);
    sockets[2]!.destroy();
    await new Promise(setImmediate);
    expect([...handshakes.counters.failed]).toEqual([['connection-lost', 1]]);
  });

  test('passes on what `authorize` says', async () => {
    const busy = { code: CloseCode.Busy, reason: 'later', retryAfterMs: 700 };
    const tunnel = dial((await listen({ authorize: () => busy })).port);
    expect((await next(tunnel, 'waiting'))[0]).toMatchObject({ delayMs: 875, cause: busy });
  });
});

/** Handshakes without a listener, and the sockets whose TLS was to begin. */
function handshakesOf(options: Partial<ListenOptions>) {
  const clock = new FakeClock();
  const handshakes = new Handshakes(resolveListenOptions({ port: 0, ...cloud, clock, ...options }));
  const begun: Socket[] = [];
  handshakes.on('begin', (socket) => begun.push(socket));
  cleanUp.push(() => handshakes.close({ code: CloseCode.Shutdown, reason: '' }));
  return { handshakes, begun, clock };
}

describe('the rate of handshakes', () => {
  function rateOf() {
    const clock = new FakeClock();
    let busyMs = 0;
    const rate = new HandshakeRate(clock, () => busyMs);
    const run = (handshakes: number, eachMs: number, eachBusyMs: number): number => {
      for (let i = 0; i < handshakes; i++) {
        clock.advance(eachMs);
        busyMs += eachBusyMs;
        rate.onDone();
      }
      return Math.round(rate.perSecond);
    };
    return { rate, run };
  }

  test('is 300 a second until as many have been done as tell it', () => {
    const { run } = rateOf();
    expect([run(63, 4, 4), run(1, 4, 4)]).toEqual([300, 275]);
  });

  test('comes from the time for which the loop is busy, also if it is idle in between', () => {
    const { run } = rateOf();
    expect([run(64 * 8, 5, 2), run(64 * 8, 6, 5)]).toEqual([499, 201]);
  });

  test('is not measured while few come, whatever the loop does then', () => {
    const { run } = rateOf();
    expect(run(6_400, 21, 21)).toBe(300);
  });

  test('stays between bounds', () => {
    const { run } = rateOf();
    expect(run(6_400, 0, 0)).toBe(3_000);
    expect(run(6_400, 19, 19)).toBe(100);
  });

  test('gives the time over which peers come back, if not all may come at once', () => {
    const { rate, run } = rateOf();
    expect([0, 600, 601, 3_000].map((count) => rate.spreadMs(count))).toEqual([
      0, 0, 2_004, 10_000,
    ]);
    run(6_400, 10, 10);
    expect([600, 3_000, 1e6].map((count) => rate.spreadMs(count))).toEqual([
      6_000, 30_000, 120_000,
    ]);
    expect([Number.NaN, -1].map((count) => rate.spreadMs(count))).toEqual([0, 0]);
  });
});
