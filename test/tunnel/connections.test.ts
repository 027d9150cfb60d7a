import { describe, expect, test, vi } from 'vitest';
import { CONNECTION_CHECK_MS } from '../../src/tunnel/connection-scaler.ts';
import { CloseCode, FrameType, type MtlsTunnel } from '../../src/tunnel/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { HELLO, RawPeer, WELCOME } from '../support/raw-peer.ts';
import { BUSY_LENGTH, flowOf, numberOf, record, sendRound } from './packets.ts';
import { dial, next, pair, serve, setUpTunnels, siteA, siteB } from './scene.ts';
import { twoConnections } from './two-connections.ts';

setUpTunnels();

const TUNNEL = '0123456789abcdef0123456789abcdef';
const LENGTH = 50_000;

/** A tunnel with so many connections that are up at both ends. */
async function wide(flows: number, clock: FakeClock): Promise<[MtlsTunnel, MtlsTunnel]> {
  const [dialled, accepted] = await pair({ clock }, { clock });
  const received = record(accepted);
  sendRound(dialled, flows, 0, BUSY_LENGTH);
  clock.advance(CONNECTION_CHECK_MS);
  await vi.waitFor(() => {
    expect([dialled.connections, accepted.connections]).toEqual([flows, flows]);
    expect(received.size).toBe(flows);
  });
  return [dialled, accepted];
}

function latest(flows: ReadonlyMap<number, readonly number[]>): number {
  return Math.max(...[...flows.values()].map((numbers) => numbers.at(-1)!));
}

describe('connections', () => {
  test('a tunnel has one while there is little traffic', async () => {
    const clock = new FakeClock();
    const [dialled, accepted] = await pair({ clock }, { clock });
    for (let i = 0; i < 20; i++) {
      sendRound(dialled, 8, i, 200);
      // What is not read meanwhile would be silence of the peer.
      clock.stall(CONNECTION_CHECK_MS);
      await new Promise(setImmediate);
    }
    expect([dialled.connections, accepted.connections]).toEqual([1, 1]);
  });

  test('carry each flow in order, both ways', async () => {
    const clock = new FakeClock();
    const [dialled, accepted] = await wide(6, clock);
    for (const [from, to] of [
      [dialled, accepted],
      [accepted, dialled],
    ] as const) {
      const received = record(to);
      let sent = 0;
      for (let number = 0; number < 40; number++) {
        sent += sendRound(from, 6, number, LENGTH);
        await new Promise(setImmediate);
      }
      await vi.waitFor(() => {
        expect([...received.values()].reduce((sum, { length }) => sum + length, 0)).toBe(sent);
      });
      expect(received.size).toBe(6);
      for (const numbers of received.values()) {
        expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
      }
    }
    expect(dialled.counters.receivedBytes).toBe(accepted.counters.sentBytes);
  });

  test('end when they have not been needed for ten seconds', async () => {
    const clock = new FakeClock();
    const [dialled, accepted] = await wide(4, clock);
    clock.stall(9_000);
    expect(dialled.connections).toBe(4);
    clock.stall(2_000);
    expect(dialled.connections).toBe(1);
    await vi.waitFor(() => expect(accepted.connections).toBe(1));
    expect([dialled.state, accepted.state]).toEqual(['up', 'up']);
  });

  test('a listener that closes the tunnel when one of them is drained ends all', async () => {
    const clock = new FakeClock();
    const [dialled] = await wide(3, clock);
    let closing: Promise<void> | undefined;
    dialled.on('connections', () => {
      closing ??= dialled.close();
    });
    clock.stall(31_000);
    await closing;
    expect([dialled.state, dialled.connections]).toEqual(['closed', 0]);
  });

  test('a connection that is stalled holds up its own flows only', async () => {
    const { tunnel, peers } = await twoConnections();
    const hello = await peers[1]!.json(FrameType.Hello);
    expect(hello).toMatchObject({ lane: 1, tunnel: expect.stringMatching(/^[0-9a-f]{32}$/) });

    peers[1]!.socket.pause();
    const flows = new Map<number, number[]>();
    const reading = (async () => {
      for (;;) {
        const payload = await peers[0]!.frame(FrameType.Packet);
        if (payload === undefined) return;
        const flow = flowOf(payload);
        const number = numberOf(payload);
        flows.set(flow, [...(flows.get(flow) ?? []), number]);
      }
    })();
    let number = 3;
    // Until the stalled connection takes no more: then one of the two is dropped each time.
    for (let isFull = false; !isFull; ) {
      const dropped = tunnel.counters.droppedFull;
      for (let i = 0; i < 20; i++) {
        sendRound(tunnel, 2, number++, LENGTH);
        await vi.waitFor(() => expect(latest(flows)).toBe(number - 1), { interval: 1 });
      }
      isFull = tunnel.counters.droppedFull === dropped + 20;
    }
    tunnel.destroy();
    await reading;
    // One flow has come whole, and nothing of the other since it has a connection of its own.
    const [whole, other] = [...flows.values()].sort((a, b) => b.length - a.length);
    expect(whole).toEqual(Array.from({ length: number }, (_, i) => i));
    expect(other).toEqual([0, 1, 2]);
  });

  test('a connection that breaks is dialled again, and the tunnel stays up', async () => {
    const { tunnel, peers, clock } = await twoConnections();
    const down = vi.fn();
    tunnel.on('down', down);
    peers[1]!.socket.destroy();
    await vi.waitFor(() => expect(tunnel.connections).toBe(1));
    sendRound(tunnel, 2, 3, LENGTH);
    clock.advance(CONNECTION_CHECK_MS);
    await vi.waitFor(() => expect(tunnel.connections).toBe(2));
    expect(peers).toHaveLength(3);
    expect(down).not.toHaveBeenCalled();
  });

  test('all end when the primary connection does', async () => {
    const clock = new FakeClock();
    const [dialled, accepted] = await wide(3, clock);
    const downs = Promise.all([next(dialled, 'down'), next(accepted, 'down')]);
    await accepted.abort({ code: CloseCode.Revoked, reason: 'test' });
    const [[atDialler], [atListener]] = await downs;
    expect(atDialler).toMatchObject({ by: 'peer', code: CloseCode.Revoked });
    expect(atListener).toMatchObject({ by: 'us', code: CloseCode.Revoked });
    expect([dialled.connections, accepted.connections]).toEqual([0, 0]);
    expect(accepted.reserve()).toBe(-1);
  });

  test('are not opened to a peer that knows of one only', async () => {
    const peers: RawPeer[] = [];
    const port = await serve((peer) => {
      peers.push(peer);
      peer.send(FrameType.Welcome, WELCOME);
    });
    const clock = new FakeClock();
    const tunnel = dial(port, { clock });
    await next(tunnel, 'up');
    for (let i = 0; i < 4; i++) {
      sendRound(tunnel, 5, i, LENGTH);
      clock.advance(CONNECTION_CHECK_MS);
    }
    expect(tunnel.connections).toBe(1);
    expect(peers).toHaveLength(1);
  });

  test.each<[string, () => typeof siteA, object]>([
    ['a tunnel that is not there', () => siteA, { tunnel: 'f'.repeat(32), lane: 1 }],
    ['a tunnel of another site', () => siteB, { tunnel: TUNNEL, lane: 1 }],
    ['no tunnel', () => siteA, { lane: 1 }],
  ])('a connection for %s is refused', async (_, credentials, hello) => {
    const [dialled, , listener] = await pair();
    const first = RawPeer.dial(listener.port, siteA);
    const up = new Promise<MtlsTunnel>((resolve) => listener.once('tunnel', resolve));
    first.send(FrameType.Hello, { ...HELLO, tunnel: TUNNEL, lane: 0 });
    const tunnel = await up;
    const other = RawPeer.dial(listener.port, credentials());
    other.send(FrameType.Hello, { ...HELLO, ...hello });
    expect(await other.json(FrameType.Close)).toMatchObject({ code: CloseCode.NoTunnel });
    await other.closed;
    expect(listener.counters.refused.get(CloseCode.NoTunnel)).toBe(1);
    expect([tunnel.connections, dialled.connections]).toEqual([1, 1]);
  });

  test('one more connection than there may be is refused', async () => {
    const [, , listener] = await pair({ connections: 2 });
    const peers: RawPeer[] = [];
    for (let connection = 0; connection < 3; connection++) {
      const peer = RawPeer.dial(listener.port, siteA);
      peers.push(peer);
      peer.send(FrameType.Hello, { ...HELLO, tunnel: TUNNEL, lane: connection });
      if (connection < 2) expect(await peer.json(FrameType.Welcome)).toMatchObject({ lanes: 2 });
    }
    expect(await peers[2]!.json(FrameType.Close)).toMatchObject({ code: CloseCode.NoTunnel });
  });

  test('a further connection is authorized by its certificate as the primary one was', async () => {
    let isRevoked = false;
    const [, , listener] = await pair({
      authorize: () => (isRevoked ? { code: CloseCode.Revoked, reason: 'test' } : undefined),
    });
    const first = RawPeer.dial(listener.port, siteA);
    first.send(FrameType.Hello, { ...HELLO, tunnel: TUNNEL, lane: 0 });
    await first.json(FrameType.Welcome);
    isRevoked = true;
    const further = RawPeer.dial(listener.port, siteA);
    further.send(FrameType.Hello, { ...HELLO, tunnel: TUNNEL, lane: 1 });
    expect(await further.json(FrameType.Close)).toMatchObject({ code: CloseCode.Revoked });
  });
});
