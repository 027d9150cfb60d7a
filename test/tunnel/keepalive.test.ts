/**
 * When the peer of a connection counts as dead, by an injected clock.
 */
import { describe, expect, test, vi } from 'vitest';
import { FrameType } from '../../src/tunnel/index.ts';
import { Keepalive } from '../../src/tunnel/keepalive.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { WELCOME } from '../support/raw-peer.ts';
import { BUSY_LENGTH, sendRound } from './packets.ts';
import { dial, next, pair, serve, setUpTunnels } from './scene.ts';

setUpTunnels();

/** A keepalive whose PINGs a test answers or not. */
function keepaliveOf({ keepaliveMs = 10_000 } = {}) {
  const clock = new FakeClock();
  const startMs = clock.monotonicMs();
  const pings: Buffer[] = [];
  const at: number[] = [];
  /** `pingBytes` is what the system takes of a PING at once. */
  const state = { isPending: false, done: 0, end: 0, pingBytes: 0 };
  const onDead = vi.fn<(reason: string) => void>(() => keepalive.stop());
  const onSilent = vi.fn();
  const keepalive = new Keepalive({
    clock,
    send: (frame) => {
      pings.push(frame);
      at.push(clock.monotonicMs() - startMs);
      state.end += state.pingBytes;
    },
    isBlocked: () => false,
    isPending: () => state.isPending,
    progress: () => ({ ...state }),
    onSilent,
    onDead,
    onTick: () => {},
  });
  keepalive.start(keepaliveMs);
  // The first PING is that of the slow keepalive.
  pings.length = at.length = 0;
  const answer = (): void => {
    keepalive.heard();
    keepalive.pong(pings.at(-1)!, 4);
  };
  return { clock, keepalive, at, state, onDead, onSilent, answer };
}

describe('a connection that is used', () => {
  test('has a dead peer when three PINGs, one every 300 ms, were not answered', () => {
    const { clock, keepalive, at, onDead, onSilent } = keepaliveOf();
    keepalive.used();
    clock.advance(1_199);
    expect([at, onDead.mock.calls, onSilent.mock.calls.length]).toEqual([[300, 600, 900], [], 1]);
    clock.advance(1);
    expect(onDead.mock.calls).toEqual([['the peer has not answered 3 PINGs in a row']]);
    expect(clock.delays).toEqual([]);
  });

  test('is watched as fast after it was idle for long', () => {
    const { clock, keepalive, onDead, answer } = keepaliveOf();
    for (let i = 0; i < 5; i++) {
      clock.advance(10_000);
      answer();
    }
    keepalive.used();
    clock.advance(1_200);
    expect(onDead).toHaveBeenCalledTimes(1);
  });

  test('sends no PING while anything comes from the peer', () => {
    const { clock, keepalive, at, onDead } = keepaliveOf();
    for (let ms = 0; ms < 9_000; ms += 100) {
      keepalive.used();
      keepalive.heard();
      clock.advance(100);
    }
    expect([at, onDead.mock.calls]).toEqual([[], []]);
  });

  test('counts the silence from what came last', () => {
    const { clock, keepalive, at } = keepaliveOf();
    keepalive.used();
    clock.advance(140);
    keepalive.heard();
    keepalive.used();
    clock.advance(1_160);
    expect(at).toEqual([450, 750, 1_050]);
  });

  test('sends one PING when the traffic ends, and none after its answer', () => {
    const { clock, keepalive, at, answer } = keepaliveOf();
    keepalive.used();
    clock.advance(300);
    answer();
    clock.advance(9_000);
    expect(at).toEqual([300]);
  });

  test('gives a slow network twice its round-trip time, at most a second', () => {
    for (const [rttMs, times] of [
      [100, [300, 600, 900]],
      [250, [500, 1_000, 1_500]],
      [5_000, [1_000, 2_000, 3_000]],
    ] as const) {
      const { clock, keepalive, at, answer } = keepaliveOf();
      clock.advance(10_000);
      at.length = 0;
      clock.advance(rttMs);
      answer();
      expect(keepalive.rttMs).toBe(rttMs);
      keepalive.used();
      clock.advance(3_100);
      expect(at.map((ms) => ms - 10_000 - rttMs).slice(0, 3)).toEqual(times);
    }
  });

  test('checks no more rarely than the keepalive', () => {
    const { clock, keepalive, onDead } = keepaliveOf({ keepaliveMs: 100 });
    keepalive.used();
    clock.advance(400);
    expect(onDead).toHaveBeenCalledTimes(1);
  });
});

describe('a peer is not dead', () => {
  test('because this process was held up: what has come meanwhile is read first', () => {
    const { clock, keepalive, onDead, at, answer } = keepaliveOf();
    keepalive.used();
    clock.advance(900);
    expect(at).toEqual([300, 600, 900]);
    clock.stall(5_000);
    expect(onDead).not.toHaveBeenCalled();
    // The event loop reads what has come before it calls the next timer.
    answer();
    clock.advance(20);
    expect(onDead).not.toHaveBeenCalled();
  });

  test('but is so if nothing has come meanwhile', () => {
    const { clock, keepalive, onDead } = keepaliveOf();
    keepalive.used();
    clock.advance(900);
    clock.stall(5_000);
    clock.advance(20);
    expect(onDead).toHaveBeenCalledTimes(1);
  });

  test('while its PING waits on this side, and what is before it goes out', () => {
    const { clock, keepalive, state, onDead } = keepaliveOf();
    state.isPending = true;
    keepalive.used();
    for (let bytes = 1; bytes < 30; bytes++) {
      state.done = state.end = bytes;
      clock.advance(300);
    }
    expect(onDead).not.toHaveBeenCalled();
    // Now nothing moves any more.
    clock.advance(900);
    expect(onDead).toHaveBeenCalledTimes(1);
  });

  test('while its PING is behind bytes that its system acknowledges one after the other', () => {
    const { clock, keepalive, state, onDead } = keepaliveOf();
    Object.assign(state, { pingBytes: 42, end: 10_000 });
    keepalive.used();
    clock.advance(300);
    for (let i = 0; i < 10; i++) {
      state.done += 1_000;
      clock.advance(300);
      expect(onDead).not.toHaveBeenCalled();
    }
    // Now the PING is acknowledged. More is, but the peer does not answer.
    for (let i = 0; i < 3; i++) {
      state.end += 1_000;
      state.done += 1_000;
      clock.advance(300);
    }
    expect(onDead).toHaveBeenCalledTimes(1);
  });

  test('and is so by the slow keepalive in the end, whatever is acknowledged', () => {
    const { clock, keepalive, state, onDead } = keepaliveOf({ keepaliveMs: 1_000 });
    state.isPending = true;
    keepalive.used();
    for (let i = 1; i <= 10; i++) {
      state.done = state.end = i;
      clock.advance(300);
    }
    expect(onDead.mock.calls).toEqual([['nothing came from the peer for 3000 ms']]);
  });
});

describe('the question whether a peer is there', () => {
  test('is answered by anything that comes', async () => {
    const { clock, keepalive, at, onSilent } = keepaliveOf();
    const [first, second] = [keepalive.isAlive(), keepalive.isAlive()];
    clock.advance(250);
    keepalive.heard();
    expect([await first, await second, at]).toEqual([true, true, [0]]);
    expect(onSilent).not.toHaveBeenCalled();
  });

  test('is answered with false when three PINGs were not', async () => {
    const { clock, keepalive, at, onDead } = keepaliveOf();
    const answer = keepalive.isAlive();
    clock.advance(900);
    expect([await answer, at]).toEqual([false, [0, 300, 600]]);
    expect(onDead).toHaveBeenCalledTimes(1);
    expect(await keepalive.isAlive()).toBe(false);
  });

  test('is answered by either side of a tunnel', async () => {
    const [dialled, accepted] = await pair();
    expect([await dialled.isAlive(), await accepted.isAlive()]).toEqual([true, true]);
    await dialled.close();
    expect(await dialled.isAlive()).toBe(false);
  });
});

describe('a tunnel', () => {
  test('that is used is lost 1.2 s after its peer has gone, and one that is not used is not', async () => {
    const clock = new FakeClock();
    const port = await serve((peer) => {
      peer.send(FrameType.Welcome, { ...WELCOME, keepaliveMs: 10_000 });
    });
    const tunnel = dial(port, { clock });
    await next(tunnel, 'up');
    const down = vi.fn();
    tunnel.on('down', down);
    clock.advance(9_000);
    tunnel.sendPacket(Buffer.alloc(100), 0, 100);
    tunnel.flush();
    clock.advance(1_199);
    expect(down).not.toHaveBeenCalled();
    clock.advance(1);
    expect(down).toHaveBeenCalledWith(expect.objectContaining({ code: 'keepalive-timeout' }));
  });

  test('whose further connection is silent asks on the primary one too', async () => {
    const clock = new FakeClock();
    const port = await serve((peer) => {
      peer.send(FrameType.Welcome, { ...WELCOME, keepaliveMs: 10_000, lanes: 2 });
    });
    const tunnel = dial(port, { clock });
    await next(tunnel, 'up');
    const two = next(tunnel, 'connections');
    // Two busy flows make it open another connection.
    sendRound(tunnel, 2, 0, BUSY_LENGTH);
    clock.advance(250);
    await two;
    const down = vi.fn();
    tunnel.on('down', down);
    clock.advance(1_250);
    expect(down).toHaveBeenCalledTimes(1);
  });
});
