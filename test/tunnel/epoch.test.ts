/**
 * Epochs: which gateway of several has taken a site last.
 */
import { describe, expect, test, vi } from 'vitest';
import { FrameType, failureOf, type TunnelCandidate } from '../../src/tunnel/index.ts';
import { readHello, readWelcome } from '../../src/tunnel/messages.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { HELLO, RawPeer, WELCOME } from '../support/raw-peer.ts';
import { cleanUp, dial, listen, next, serve, setUpTunnels, siteA } from './scene.ts';

setUpTunnels();

const epoch = (number: number, cluster = 'c1') => ({ cluster, number });

/** A server whose n-th connection is sent the n-th epoch, and the HELLOs that came. */
async function gateways(epochs: readonly (object | undefined)[]) {
  const hellos: Record<string, unknown>[] = [];
  const peers: RawPeer[] = [];
  const port = await serve(async (peer) => {
    const number = peers.push(peer) - 1;
    hellos.push((await peer.json(FrameType.Hello))!);
    peer.send(FrameType.Welcome, { ...WELCOME, keepaliveMs: 600_000, epoch: epochs[number] });
  });
  return { port, peers, hellos };
}

describe('a dialled tunnel', () => {
  test('names the epoch of the last gateway, and takes none of a lower one', async () => {
    const clock = new FakeClock();
    const { port, peers, hellos } = await gateways([
      epoch(7),
      epoch(6),
      epoch(7),
      undefined,
      epoch(3, 'c2'),
    ]);
    const tunnel = dial(port, { clock });
    await next(tunnel, 'up');
    let waiting = next(tunnel, 'waiting');
    peers[0]!.socket.destroy();
    const [{ delayMs }] = await waiting;

    waiting = next(tunnel, 'waiting');
    clock.advance(delayMs);
    const [{ cause, delayMs: again }] = await waiting;
    expect(cause).toEqual({
      by: 'us',
      code: 'stale-epoch',
      reason: 'the gateway took the site at epoch 6, and another one at 7',
    });
    expect(failureOf(cause)).toMatchObject({ kind: 'unreachable', remedy: 'wait' });
    expect(await peers[1]!.json(FrameType.Close)).toMatchObject({ code: 'stale-epoch' });

    let up = next(tunnel, 'up');
    clock.advance(again);
    await up;
    // A gateway that knows no epochs is taken, and one of another cluster.
    for (const number of [2, 3]) {
      waiting = next(tunnel, 'waiting');
      peers[number]!.socket.destroy();
      const [wait] = await waiting;
      up = next(tunnel, 'up');
      clock.advance(wait.delayMs);
      await up;
    }
    expect(hellos.map((hello) => hello.epoch)).toEqual([
      undefined,
      epoch(7),
      epoch(7),
      epoch(7),
      epoch(7),
    ]);
  });

  test('dials another endpoint when one has a lower epoch', async () => {
    const clock = new FakeClock();
    const stale = await gateways([epoch(9), epoch(8)]);
    const fresh = await gateways([epoch(10)]);
    const endpoints = [stale, fresh].map(({ port }, priority) => ({
      host: '127.0.0.1',
      port,
      priority,
    }));
    // The second one is down at first.
    const tunnel = dial(0, { clock, endpoints });
    await next(tunnel, 'up');
    const waiting = next(tunnel, 'waiting');
    stale.peers[0]!.socket.destroy();
    clock.advance((await waiting)[0].delayMs);
    await next(tunnel, 'up');
    expect(tunnel.info?.remotePort).toBe(fresh.port);
    expect(fresh.hellos[0]!.epoch).toEqual(epoch(9));
  });
});

describe('a listener', () => {
  test('tells its host the last epoch at HELLO, and the peer what the host answers', async () => {
    const asked: TunnelCandidate[] = [];
    const endpoints = [{ host: 'b.example.org', port: 7443 }];
    const listener = await listen({
      authorize: (candidate) => {
        asked.push(candidate);
        return Promise.resolve({ epoch: epoch(12), endpoints });
      },
    });
    const peer = RawPeer.dial(listener.port, siteA);
    cleanUp.push(() => peer.socket.destroy());
    peer.send(FrameType.Hello, { ...HELLO, epoch: epoch(11) });
    expect(await peer.json(FrameType.Welcome)).toMatchObject({ epoch: epoch(12), endpoints });
    expect(asked.map(({ step, lastEpoch }) => [step, lastEpoch])).toEqual([
      ['certificate', undefined],
      ['hello', epoch(11)],
    ]);
  });

  test('says nothing of epochs and endpoints by itself', async () => {
    const peer = RawPeer.dial((await listen()).port, siteA);
    cleanUp.push(() => peer.socket.destroy());
    peer.send(FrameType.Hello, HELLO);
    const welcome = (await peer.json(FrameType.Welcome))!;
    expect(['epoch' in welcome, 'endpoints' in welcome]).toEqual([false, false]);
  });

  test.each<[string, unknown]>([
    ['an epoch that is a number', { epoch: 3 }],
    ['a negative epoch', { epoch: epoch(-1) }],
    ['no endpoints to move to', { moved: [] }],
    ['endpoints without an epoch', { endpoints: [] }],
    ['more than is known', { epoch: epoch(1), other: 1 }],
    ['too many endpoints', { epoch: epoch(1), endpoints: Array(17).fill({ host: 'a', port: 1 }) }],
  ])('refuses a peer if its host answers %s', async (_, answer) => {
    const listener = await listen({ authorize: () => answer as never });
    const problem = vi.fn();
    listener.on('problem', problem);
    const peer = RawPeer.dial(listener.port, siteA);
    expect(await peer.json(FrameType.Close)).toMatchObject({ code: 'not-authorized' });
    expect(problem.mock.calls[0]![0].error.message).toMatch(/^authorize must answer/);
  });

  const hostile: readonly (readonly [string, unknown])[] = [
    ['a number', 3],
    ['null', null],
    ['a negative number', epoch(-1)],
    ['a fraction', epoch(0.5)],
    ['a number beyond 2^53', epoch(2 ** 53)],
    ['a number in text', { cluster: 'c1', number: '1' }],
    ['no cluster', { number: 1 }],
    ['a long cluster', epoch(1, 'c'.repeat(65))],
    ['a cluster with a space', epoch(1, 'c 1')],
    ['a list', [epoch(1)]],
  ];

  test.each(hostile)('takes no message with an epoch of %s', (_, value) => {
    expect(readHello({ ...HELLO, epoch: value } as never)).toBeUndefined();
    expect(readWelcome({ ...WELCOME, epoch: value } as never)).toBeUndefined();
  });

  test('ends and counts a connection with such a HELLO', async () => {
    const listener = await listen();
    const peer = RawPeer.dial(listener.port, siteA);
    peer.send(FrameType.Hello, { ...HELLO, epoch: epoch(-1) });
    expect(await peer.json(FrameType.Close)).toMatchObject({ code: 'protocol-error' });
    expect(listener.counters.failed.get('protocol-error')).toBe(1);
  });
});
