import { once } from 'node:events';
import { connect } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import { describe, expect, test, vi } from 'vitest';
import {
  CloseCode,
  FrameType,
  failureOf,
  type ListenOptions,
  type MtlsTunnel,
  type TunnelCandidate,
  type TunnelListener,
  type TunnelRefusal,
} from '../../src/tunnel/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { HELLO, RawPeer } from '../support/raw-peer.ts';
import { cleanUp, dial, listen, next, setUpTunnels, siteA } from './scene.ts';

setUpTunnels();

type Step = TunnelCandidate['step'];
const STEPS: readonly Step[] = ['certificate', 'hello'];
const NO: TunnelRefusal = { code: 'not-today', reason: 'the site is closed on Sundays' };

/** A listener whose host answers by a promise at one step, when the test says so, and at once at the other. */
class SlowHost {
  readonly asked: TunnelCandidate[] = [];
  readonly refused: string[] = [];
  readonly problems: (readonly [string, string | undefined])[] = [];
  readonly tunnels: MtlsTunnel[] = [];
  listener!: TunnelListener;
  answer: (refusal?: TunnelRefusal) => void = () => {};
  fail: (error: unknown) => void = () => {};

  static async start(step: Step, options: Partial<ListenOptions> = {}): Promise<SlowHost> {
    const host = new SlowHost();
    host.listener = await listen({
      ...options,
      authorize: (candidate) => {
        host.asked.push(candidate);
        if (candidate.step !== step) return undefined;
        return new Promise((resolve, reject) => {
          host.answer = resolve;
          host.fail = reject;
        });
      },
      onRefused: ({ code, reason }) => host.refused.push(`${code}: ${reason}`),
    });
    host.listener.on('tunnel', (tunnel) => host.tunnels.push(tunnel));
    host.listener.on('problem', ({ error, site }) => host.problems.push([error.message, site]));
    return host;
  }

  /** Resolves when the host is asked at the step at which it does not answer at once. */
  async isAsked(step: Step): Promise<void> {
    await vi.waitFor(() => expect(this.asked.at(-1)?.step).toBe(step));
  }
}

/** An edge of another implementation, which says HELLO as soon as it may. */
function raw(port: number, options: ConnectionOptions = {}): RawPeer {
  const peer = RawPeer.dial(port, siteA, options);
  cleanUp.push(() => peer.socket.destroy());
  peer.send(FrameType.Hello, HELLO);
  return peer;
}

describe.each(STEPS)('a host that answers by a promise at the step "%s"', (step) => {
  test('is waited for, and then packets and messages flow', async () => {
    const host = await SlowHost.start(step);
    const dialled = dial(host.listener.port);
    await host.isAsked(step);
    expect([dialled.state, host.listener.handshakes, host.tunnels.length]).toEqual([
      'connecting',
      1,
      0,
    ]);
    host.answer();
    await next(dialled, 'up');
    await vi.waitFor(() => expect(host.tunnels.length).toBe(1));
    const message = next(host.tunnels[0] as never, 'control');
    dialled.sendControl({ type: 'hello' });
    expect(await message).toEqual([{ type: 'hello' }]);
    expect(host.asked.map((candidate) => candidate.step)).toEqual(['certificate', 'hello']);
    expect(host.listener.handshakes).toBe(0);
    expect(host.problems).toEqual([]);
  });

  test('may refuse the peer, which learns why', async () => {
    const host = await SlowHost.start(step);
    const dialled = dial(host.listener.port);
    await host.isAsked(step);
    host.answer(NO);
    expect((await next(dialled, 'waiting'))[0].cause).toMatchObject({ by: 'peer', ...NO });
    expect(host.refused).toEqual([`${NO.code}: ${NO.reason}`]);
    expect(host.listener.counters.refused).toEqual(new Map([[NO.code, 1]]));
    expect(host.tunnels).toEqual([]);
  });

  test('lets nobody in when it fails, and reports the problem', async () => {
    const host = await SlowHost.start(step);
    const dialled = dial(host.listener.port);
    await host.isAsked(step);
    host.fail(new Error('the identity provider is down'));
    const [{ cause }] = await next(dialled, 'waiting');
    expect(cause).toMatchObject({ by: 'peer', code: CloseCode.NotAuthorized });
    expect(failureOf(cause).kind).toBe('refused');
    expect(host.problems).toEqual([['the identity provider is down', 'site-a']]);
    expect(host.tunnels).toEqual([]);
  });

  test('keeps a peer no longer than a handshake may take if it never answers', async () => {
    const clock = new FakeClock();
    const host = await SlowHost.start(step, { clock, handshakeTimeoutMs: 5_000 });
    const peer = raw(host.listener.port);
    await host.isAsked(step);
    clock.advance(4_999);
    expect(host.listener.handshakes).toBe(1);
    clock.advance(1);
    expect(host.refused).toEqual(['handshake-timeout: no decision about it within 5000 ms']);
    await peer.closed;
    await vi.waitFor(() => expect(host.listener.handshakes).toBe(0));
    host.answer();
    await new Promise(setImmediate);
    expect([host.tunnels, host.refused.length, clock.delays]).toEqual([[], 1, []]);
  });

  test('is ignored when the peer has been terminated meanwhile', async () => {
    const host = await SlowHost.start(step);
    const peer = raw(host.listener.port);
    await host.isAsked(step);
    host.listener.terminate(() => true, {
      code: CloseCode.Revoked,
      reason: 'the certificate is revoked',
    });
    host.answer();
    await peer.closed;
    expect(host.refused).toEqual(['revoked: the certificate is revoked']);
    expect(host.tunnels).toEqual([]);
  });

  test('is ignored when the listener has been closed meanwhile', async () => {
    const host = await SlowHost.start(step);
    const peer = raw(host.listener.port);
    await host.isAsked(step);
    await host.listener.close();
    host.answer();
    await peer.closed;
    await new Promise(setImmediate);
    expect(host.refused).toEqual(['shutdown: the listener is closed']);
    expect(host.tunnels).toEqual([]);
  });

  test('makes no tunnel of a peer that has disconnected meanwhile', async () => {
    const host = await SlowHost.start(step);
    const connection = connect(host.listener.port, '127.0.0.1');
    raw(host.listener.port, { socket: connection });
    await host.isAsked(step);
    connection.resetAndDestroy();
    await vi.waitFor(() => expect(host.refused.length).toBe(1));
    host.answer();
    await new Promise(setImmediate);
    expect(host.refused[0]).toMatch(/^connection-lost: /);
    expect([host.tunnels, host.listener.handshakes]).toEqual([[], 0]);
  });

  test('counts as a handshake under way, whose end the next one of its address waits for', async () => {
    const host = await SlowHost.start(step, { maxHandshakes: 1 });
    const asked = () => host.asked.filter((candidate) => candidate.step === step).length;
    raw(host.listener.port);
    await host.isAsked(step);
    const connection = connect(host.listener.port, '127.0.0.1');
    raw(host.listener.port, { socket: connection });
    await once(connection, 'connect');
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    expect([asked(), host.listener.handshakes]).toEqual([1, 2]);
    host.answer();
    await vi.waitFor(() => expect([asked(), host.tunnels.length]).toEqual([2, 1]));
    expect(host.refused).toEqual([]);
  });

  test.each([
    ['throws', () => Promise.reject('a word'), 'authorize has thrown a word'],
    ['answers "yes"', () => Promise.resolve('yes'), /^authorize must answer .*, not yes$/],
    ['answers null at once', () => null, /, not null$/],
    ['answers false at once', () => false, /, not false$/],
    ['answers with a code that cannot be sent', () => ({ code: 'No!', reason: '' }), /"No!"/],
    [
      'throws at once',
      () => {
        throw new Error('no such table');
      },
      'no such table',
    ],
  ])('lets nobody in when it %s', async (_, answer, problem) => {
    const problems: string[] = [];
    const listener = await listen({
      authorize: (candidate) => (candidate.step === step ? (answer() as never) : undefined),
    });
    listener.on('problem', ({ error }) => problems.push(error.message));
    listener.on('tunnel', () => problems.push('a tunnel is up'));
    const [{ cause }] = await next(dial(listener.port), 'waiting');
    expect(cause).toMatchObject({ by: 'peer', code: CloseCode.NotAuthorized });
    expect(problems).toEqual([
      typeof problem === 'string' ? problem : expect.stringMatching(problem),
    ]);
  });
});

describe('while the host decides about a HELLO', () => {
  test.each<[string, number, object | Buffer]>([
    ['another HELLO', FrameType.Hello, HELLO],
    ['a control message', FrameType.Control, { type: 'x' }],
    ['a PING', FrameType.Ping, Buffer.alloc(8)],
    ['a packet', FrameType.Packet, Buffer.alloc(40)],
  ])('%s is not taken', async (_, type, payload) => {
    const host = await SlowHost.start('hello');
    const peer = raw(host.listener.port);
    await host.isAsked('hello');
    peer.send(type, payload);
    expect(await peer.json(FrameType.Close)).toMatchObject({ code: CloseCode.ProtocolError });
    host.answer();
    await peer.closed;
    expect(host.tunnels).toEqual([]);
  });

  test('a peer may close the connection', async () => {
    const host = await SlowHost.start('hello');
    const peer = raw(host.listener.port);
    await host.isAsked('hello');
    peer.send(FrameType.Close, { code: 'shutdown', reason: 'the edge ends' });
    await vi.waitFor(() => expect(host.refused).toEqual(['peer-closed: shutdown: the edge ends']));
    host.answer();
    await peer.closed;
    expect(host.tunnels).toEqual([]);
  });

  test('a further connection is checked for a tunnel after the decision', async () => {
    const host = await SlowHost.start('hello');
    const tunnel = '0123456789abcdef'.repeat(2);
    const first = RawPeer.dial(host.listener.port, siteA);
    cleanUp.push(() => first.socket.destroy());
    first.send(FrameType.Hello, { ...HELLO, tunnel, lane: 0 });
    await host.isAsked('hello');
    host.answer();
    await first.json(FrameType.Welcome);
    host.asked.length = 0;
    const further = RawPeer.dial(host.listener.port, siteA);
    cleanUp.push(() => further.socket.destroy());
    further.send(FrameType.Hello, { ...HELLO, tunnel, lane: 1 });
    await host.isAsked('hello');
    // The tunnel that it belongs to goes while the host decides.
    host.tunnels[0]!.destroy();
    host.answer();
    expect(await further.json(FrameType.Close)).toMatchObject({ code: CloseCode.NoTunnel });
  });
});

test('an answer at once makes the tunnel in the turn in which the HELLO came', async () => {
  const order: string[] = [];
  const listener = await listen({
    authorize: ({ step }) => {
      if (step === 'hello') {
        order.push('asked');
        queueMicrotask(() => order.push('later'));
      }
      return undefined;
    },
  });
  listener.on('tunnel', () => order.push('up'));
  await next(dial(listener.port), 'up');
  expect(order).toEqual(['asked', 'up', 'later']);
});
