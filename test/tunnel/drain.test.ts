import { describe, expect, test, vi } from 'vitest';
import { CONNECTION_CHECK_MS } from '../../src/tunnel/connection-scaler.ts';
import {
  CloseCode,
  FrameType,
  type ListenOptions,
  type MtlsTunnel,
  type TunnelListener,
} from '../../src/tunnel/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { decodeNaively } from '../support/naive-decoder.ts';
import { HELLO, RawPeer, WELCOME } from '../support/raw-peer.ts';
import { packetOf, record, sendRound } from './packets.ts';
import { dial, listen, next, pair, serve, setUpTunnels, siteA } from './scene.ts';
import { whileTrafficFlows } from './traffic.ts';
import { twoConnections } from './two-connections.ts';

setUpTunnels();

const TUNNEL = '0123456789abcdef0123456789abcdef';
const EMPTY = Buffer.alloc(0);

/** So many connections that are up at both ends. */
async function wide(connections: number): Promise<[MtlsTunnel, MtlsTunnel, FakeClock]> {
  const clock = new FakeClock();
  const [dialled, accepted] = await pair({ clock }, { clock });
  for (let number = 0; number < 3; number++) sendRound(dialled, connections, number, 50_000);
  clock.advance(CONNECTION_CHECK_MS);
  await vi.waitFor(() =>
    expect([dialled.connections, accepted.connections]).toEqual([connections, connections])
  );
  await vi.waitFor(() => expect(accepted.counters.receivedPackets).toBe(3 * connections));
  return [dialled, accepted, clock];
}

/** A raw peer says HELLO for each of these connections, and has WELCOME. */
async function rawConnections(
  hellos: readonly object[],
  options: Partial<ListenOptions> = {}
): Promise<{ peers: RawPeer[]; tunnel: MtlsTunnel; listener: TunnelListener }> {
  const listener = await listen(options);
  const up = new Promise<MtlsTunnel>((resolve) => listener.once('tunnel', resolve));
  const peers: RawPeer[] = [];
  for (const hello of hellos) {
    const peer = RawPeer.dial(listener.port, siteA);
    peer.send(FrameType.Hello, { ...HELLO, tunnel: TUNNEL, ...hello });
    expect(await peer.json(FrameType.Welcome)).toBeDefined();
    peers.push(peer);
  }
  return { peers, tunnel: await up, listener };
}

describe('connections that are not needed', () => {
  test('are drained, and nothing is lost that either side had sent on them', async () => {
    const [dialled, accepted, clock] = await wide(4);
    await whileTrafficFlows([dialled, accepted], 12, async () => {
      // Little moves by this clock, of which half a minute passes.
      for (let i = 0; i < 125 && dialled.connections > 1; i++) {
        await new Promise(setImmediate);
        clock.advance(CONNECTION_CHECK_MS);
      }
      expect(dialled.connections).toBe(1);
      await vi.waitFor(() => expect(accepted.connections).toBe(1));
    });
    expect([dialled.state, accepted.state]).toEqual(['up', 'up']);
    expect(accepted.certificates).toHaveLength(1);
    expect(dialled.counters.drainTimeouts + accepted.counters.drainTimeouts).toBe(0);
  });

  test('are closed with idle when the peer has answered DRAIN, and after a time when it has not', async () => {
    const peers: RawPeer[] = [];
    const port = await serve((peer) => {
      peers.push(peer);
      peer.send(FrameType.Welcome, { ...WELCOME, keepaliveMs: 600_000, lanes: 3 });
    });
    const clock = new FakeClock();
    const tunnel = dial(port, { clock, drainTimeoutMs: 3_000 });
    await next(tunnel, 'up');
    for (let number = 0; number < 3; number++) sendRound(tunnel, 3, number, 50_000);
    clock.advance(CONNECTION_CHECK_MS);
    await vi.waitFor(() => expect(tunnel.connections).toBe(3));
    clock.stall(30_000);
    expect(tunnel.connections).toBe(1);
    const [, answers, mute] = peers as [RawPeer, RawPeer, RawPeer];
    const received = record(tunnel);
    await answers.frame(FrameType.Drain);
    answers.send(FrameType.Packet, packetOf(3, 9, 100));
    answers.send(FrameType.Drain, EMPTY);
    expect(await answers.json(FrameType.Close)).toMatchObject({ code: CloseCode.Idle });
    expect(received.get(3)).toEqual([9]);

    await mute.frame(FrameType.Drain);
    clock.stall(2_999);
    expect(tunnel.counters.drainTimeouts).toBe(0);
    clock.advance(1);
    expect(await mute.json(FrameType.Close)).toMatchObject({ code: CloseCode.Idle });
    expect(tunnel.counters.drainTimeouts).toBe(1);
    expect([tunnel.state, tunnel.connections]).toEqual(['up', 1]);
  });

  test('send what waits before DRAIN, however much that is', async () => {
    const peers: RawPeer[] = [];
    const port = await serve((peer) => {
      peers.push(peer);
      peer.send(FrameType.Welcome, { ...WELCOME, keepaliveMs: 600_000, lanes: 2 });
    });
    const clock = new FakeClock();
    const tunnel = dial(port, { clock, drainTimeoutMs: 60_000 });
    await next(tunnel, 'up');
    for (let number = 0; number < 3; number++) sendRound(tunnel, 2, number, 50_000);
    clock.advance(CONNECTION_CHECK_MS);
    await vi.waitFor(() => expect(tunnel.connections).toBe(2));
    const slow = peers[1]!;
    slow.socket.pause();
    const pieces: Buffer[] = [];
    slow.socket.on('data', (piece) => pieces.push(piece));
    slow.socket.pause();
    // More than the system takes: the rest waits in the connection.
    while (tunnel.reserve() >= 0) sendRound(tunnel, 2, 3, 60_000);
    clock.stall(31_000);
    expect(tunnel.connections).toBe(1);
    slow.socket.resume();
    expect(await slow.frame(FrameType.Drain)).toBeDefined();
    const types = decodeNaively(Buffer.concat(pieces), 1_000).frames.map(([type]) => type);
    expect(types.filter((type) => type === FrameType.Packet).length).toBeGreaterThan(10);
    expect(types.lastIndexOf(FrameType.Packet)).toBeLessThan(types.indexOf(FrameType.Drain));
    let received = types.filter((type) => type === FrameType.Packet).length;
    for (; received < tunnel.counters.sentPackets; received++) {
      expect(await peers[0]!.frame(FrameType.Packet)).toBeDefined();
    }
  });
});

describe('a connection that the peer drains', () => {
  test('takes what comes before DRAIN, is answered, and gets nothing after it', async () => {
    const { peers, tunnel } = await rawConnections([{ lane: 0 }, { lane: 1 }]);
    const [first, further] = peers as [RawPeer, RawPeer];
    const received = record(tunnel);
    further.send(FrameType.Packet, packetOf(1, 5, 100));
    further.send(FrameType.Drain, EMPTY);
    expect(await further.frame(FrameType.Drain)).toHaveLength(0);
    expect(received.get(1)).toEqual([5]);
    expect(tunnel.connections).toBe(1);
    for (let flow = 0; flow < 20; flow++) tunnel.sendPacket(packetOf(flow, 1, 100), 0, 100);
    tunnel.flush();
    for (let flow = 0; flow < 20; flow++) await first.frame(FrameType.Packet);
    further.send(FrameType.Close, { code: CloseCode.Idle, reason: '' });
    expect(await further.frame(FrameType.Packet)).toBeUndefined();
    expect(tunnel.state).toBe('up');
  });

  test('is closed when the peer does not end it', async () => {
    const clock = new FakeClock();
    const { peers, tunnel } = await rawConnections([{ lane: 0 }, { lane: 1 }], {
      clock,
      drainTimeoutMs: 500,
    });
    const further = peers[1]!;
    further.send(FrameType.Drain, EMPTY);
    await further.frame(FrameType.Drain);
    clock.advance(500);
    expect(await further.frame(FrameType.Close)).toBeDefined();
    await further.closed;
    expect(tunnel.counters.drainTimeouts).toBe(1);
    expect(tunnel.state).toBe('up');
  });

  test.each<[string, number, Buffer]>([
    ['a packet', FrameType.Packet, packetOf(1, 1, 100)],
    ['a second DRAIN', FrameType.Drain, EMPTY],
  ])(
    'fails with a protocol error for %s behind DRAIN, and the tunnel stays',
    async (_, type, payload) => {
      const { peers, tunnel, listener } = await rawConnections([{ lane: 0 }, { lane: 1 }]);
      const received = record(tunnel);
      peers[1]!.send(FrameType.Drain, EMPTY);
      peers[1]!.send(type, payload);
      expect(await peers[1]!.json(FrameType.Close)).toMatchObject({ code: 'protocol-error' });
      expect(received.size).toBe(0);
      expect([tunnel.state, tunnel.connections]).toEqual(['up', 1]);
      expect(listener.counters.protocolErrors).toBe(1);
    }
  );

  test('may be the primary one only if another is there to follow it', async () => {
    const { peers, tunnel, listener } = await rawConnections([{ lane: 0 }, { lane: 1 }]);
    const down = next(tunnel, 'down');
    peers[0]!.send(FrameType.Drain, EMPTY);
    expect(await peers[0]!.json(FrameType.Close)).toMatchObject({ code: 'protocol-error' });
    await down;
    expect(listener.counters.protocolErrors).toBe(1);
    expect(listener.tunnels.size).toBe(0);
  });
});

describe('a connection that becomes the primary one', () => {
  test('carries packets at once, and messages when the peer has ended the old one', async () => {
    const { peers, tunnel, listener } = await rawConnections([
      { lane: 0 },
      { lane: 0, renews: true },
    ]);
    const [old, young] = peers as [RawPeer, RawPeer];
    expect(tunnel.connections).toBe(2);
    tunnel.sendControl({ number: 1 });
    expect(await old.json(FrameType.Control)).toEqual({ number: 1 });
    const renewed = next(tunnel, 'renewed');
    old.send(FrameType.Control, { from: 'old' });
    old.send(FrameType.Drain, EMPTY);
    await renewed;
    tunnel.sendControl({ number: 2 });
    tunnel.sendPacket(packetOf(1, 1, 100), 0, 100);
    tunnel.flush();
    await young.frame(FrameType.Packet);
    old.send(FrameType.Close, { code: CloseCode.Renewed, reason: '' });
    expect(await young.json(FrameType.Control)).toEqual({ number: 2 });
    expect(listener.counters).toMatchObject({ accepted: 1, renewed: 1 });
    expect(listener.tunnels.size).toBe(1);
  });

  test('bounds the messages that wait for the old one', async () => {
    const { peers, tunnel } = await rawConnections([{ lane: 0 }, { lane: 0 }], {
      maxControlQueueBytes: 1_000,
    });
    const renewed = next(tunnel, 'renewed');
    peers[0]!.send(FrameType.Drain, EMPTY);
    await renewed;
    let sent = 0;
    while (tunnel.sendControl('x'.repeat(100))) sent++;
    expect(sent).toBeLessThan(10);
    peers[0]!.send(FrameType.Close, { code: CloseCode.Renewed, reason: '' });
    for (let i = 0; i < sent; i++) await peers[1]!.json(FrameType.Control);
    await vi.waitFor(() => expect(tunnel.sendControl('x')).toBe(true));
  });

  test.each<[string, number]>([
    ['breaks', 1],
    ['is drained', 2],
  ])('ends, and the old one stays, if it %s before it is the primary one', async (_, which) => {
    const { peers, tunnel } = await rawConnections([{ lane: 0 }, { lane: 0 }]);
    if (which === 1) peers[1]!.socket.destroy();
    else peers[1]!.send(FrameType.Drain, EMPTY);
    await vi.waitFor(() => expect(tunnel.connections).toBe(1));
    expect(tunnel.certificates).toHaveLength(1);
    tunnel.sendControl({ still: 'there' });
    expect(await peers[0]!.json(FrameType.Control)).toEqual({ still: 'there' });
  });

  test('ends the tunnel if the old one breaks while messages may be under way', async () => {
    const { peers, tunnel } = await rawConnections([{ lane: 0 }, { lane: 0 }]);
    peers[0]!.send(FrameType.Drain, EMPTY);
    await peers[0]!.frame(FrameType.Drain);
    const down = next(tunnel, 'down');
    peers[0]!.socket.destroy();
    expect((await down)[0]).toMatchObject({ by: 'network', code: CloseCode.ConnectionLost });
    await peers[1]!.closed;
  });

  test.each<[string, object]>([
    ['while one is under way already', { tunnel: TUNNEL, lane: 0 }],
    ['of a tunnel that is not there', { tunnel: 'f'.repeat(32), lane: 0, renews: true }],
    ['of no tunnel', { lane: 0, renews: true }],
  ])('is refused %s', async (_, hello) => {
    const { tunnel, listener } = await rawConnections([{ lane: 0 }, { lane: 0 }]);
    const peer = RawPeer.dial(listener.port, siteA);
    peer.send(FrameType.Hello, { ...HELLO, ...hello });
    expect(await peer.json(FrameType.Close)).toMatchObject({ code: CloseCode.NoTunnel });
    expect([tunnel.connections, listener.tunnels.size]).toEqual([2, 1]);
  });

  test('may be joined by as many further ones as there may be, and no more', async () => {
    const { tunnel, listener } = await rawConnections(
      [{ lane: 0 }, { lane: 1 }, { lane: 0 }, { lane: 1 }],
      { connections: 2 }
    );
    expect(tunnel.connections).toBe(4);
    const peer = RawPeer.dial(listener.port, siteA);
    peer.send(FrameType.Hello, { ...HELLO, tunnel: TUNNEL, lane: 1 });
    expect(await peer.json(FrameType.Close)).toMatchObject({ code: CloseCode.NoTunnel });
  });

  test('a control message on a further connection is a protocol error', async () => {
    const { peers, tunnel, listener } = await rawConnections([{ lane: 0 }, { lane: 1 }]);
    const control = vi.fn();
    tunnel.on('control', control);
    peers[1]!.send(FrameType.Control, {});
    expect(await peers[1]!.json(FrameType.Close)).toMatchObject({ code: 'protocol-error' });
    expect(control).not.toHaveBeenCalled();
    expect(listener.counters.protocolErrors).toBe(1);
  });
});

test('a tunnel of several connections that is closed loses nothing of what it had sent on any', async () => {
  for (let round = 0; round < 5; round++) {
    const [dialled, accepted] = await wide(5);
    const received = record(accepted);
    const down = next(accepted, 'down');
    let sent = 0;
    for (let number = 0; number < 20; number++) sent += sendRound(dialled, 15, number, 20_000);
    await dialled.close();
    expect((await down)[0]).toMatchObject({ by: 'peer', code: CloseCode.Shutdown });
    expect([...received.values()].reduce((sum, { length }) => sum + length, 0)).toBe(sent);
  }
});

test('a further connection that is stalled delays the close of a tunnel for a second at most', async () => {
  const { tunnel, peers, clock } = await twoConnections();
  peers[1]!.socket.pause();
  const closed = tunnel.close();
  expect(tunnel.state).toBe('closed');
  clock.advance(1_000);
  expect(await peers[0]!.json(FrameType.Close)).toMatchObject({ code: CloseCode.Shutdown });
  clock.advance(1_000);
  await closed;
});
