/** Unauthenticated peers, and peers with a good certificate, can take only so much of a listener. */
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { describe, expect, test, vi } from 'vitest';
import { ApiMisuseError } from '../../src/errors.ts';
import {
  CloseCode,
  FrameType,
  type ListenOptions,
  type MtlsTunnel,
  type RefusedConnection,
  type TunnelListener,
} from '../../src/tunnel/index.ts';
import { site } from '../support/certificates.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { HELLO, RawPeer } from '../support/raw-peer.ts';
import { ca, cleanUp, dial, listen, next, setUpTunnels, siteA, siteB } from './scene.ts';

setUpTunnels();

const TUNNEL = '0123456789abcdef0123456789abcdef';

/** Connects from one of the loopback addresses and says nothing. */
function openHalf(listener: TunnelListener, localAddress: string): Socket {
  const socket = connectTcp({ port: listener.port, host: '127.0.0.1', localAddress });
  socket.on('error', () => {});
  cleanUp.push(() => socket.destroy());
  return socket;
}

function accepted(listener: TunnelListener): Promise<MtlsTunnel> {
  return new Promise((resolve) => listener.once('tunnel', resolve));
}

describe('unauthenticated peers', () => {
  test('cannot keep an edge of another address out by a thousand half-open connections', async () => {
    const refusals: RefusedConnection[] = [];
    const onRefused = (refused: RefusedConnection) => refusals.push(refused);
    const clock = new FakeClock();
    const listener = await listen({ onRefused, maxConnectionRate: 400, clock });
    const halfOpen: Socket[] = [];
    // The system itself keeps no more than 511 that nobody has accepted.
    for (let round = 0; round < 10; round++) {
      const some = Array.from({ length: 100 }, () => openHalf(listener, '127.0.0.9'));
      await Promise.all(some.map((socket) => once(socket, 'connect')));
      halfOpen.push(...some);
    }
    await vi.waitFor(() => expect(listener.counters.evicted).toBe(872), PATIENCE);
    expect(listener.handshakes).toBe(128);
    const up = accepted(listener);
    const tunnel = dial(listener.port);
    await next(tunnel, 'up');
    expect((await up).info?.remoteAddress).toBe('127.0.0.1');
    // The edge was not evicted, and one more unauthenticated peer was.
    expect(listener.counters.evicted).toBe(873);
    expect(refusals).toHaveLength(873);
    expect(new Set(refusals.map(({ remoteAddress, code }) => `${code} ${remoteAddress}`))).toEqual(
      new Set(['evicted 127.0.0.9'])
    );
    expect(listener.counters.failed.get('evicted')).toBe(873);
    for (const peer of halfOpen) peer.destroy();
    await vi.waitFor(() => expect(listener.handshakes).toBe(0));
  });

  test('cannot keep an edge of their own address out for longer than they go on', async () => {
    const clock = new FakeClock();
    const listener = await listen({ clock, maxHandshakes: 5, maxConnectionRate: 10 });
    for (let i = 0; i < 100; i++) openHalf(listener, '127.0.0.1');
    await vi.waitFor(() => expect(listener.counters.rateLimited).toBe(60));
    expect(listener.counters.failed.get('rate-limited')).toBe(60);
    expect([listener.counters.evicted, listener.handshakes]).toEqual([35, 5]);
    const tunnel = dial(listener.port, { clock });
    await next(tunnel, 'waiting');
    expect(listener.counters.rateLimited).toBe(61);
    const up = next(tunnel, 'up');
    clock.advance(200);
    await up;
  });

  test('are reported once if they are evicted in the middle of TLS', async () => {
    const refusals: string[] = [];
    const listener = await listen({
      maxHandshakes: 1,
      onRefused: ({ code }) => refusals.push(code),
    });
    const half = openHalf(listener, '127.0.0.1');
    half.write(Buffer.from([0x16, 3, 1, 2, 0, 1]));
    await vi.waitFor(() => expect(listener.handshakes).toBe(1));
    const tunnel = dial(listener.port);
    await next(tunnel, 'up');
    await new Promise(setImmediate);
    expect(refusals).toEqual(['evicted']);
    expect([...listener.counters.failed]).toEqual([['evicted', 1]]);
  });

  test('are reported with their address and the reason', async () => {
    const refusals: RefusedConnection[] = [];
    const listener = await listen({ onRefused: (refused) => refusals.push(refused) });
    const refusalOf = async (peer: RawPeer | Socket): Promise<RefusedConnection> => {
      if (peer instanceof RawPeer) peer.send(FrameType.Hello, HELLO);
      await vi.waitFor(() => expect(refusals).toHaveLength(1));
      return refusals.splice(0)[0]!;
    };
    const remoteAddress = '127.0.0.1';
    const expired = RawPeer.dial(listener.port, await ca.issueExpired(site('site-a')));
    expect(await refusalOf(expired)).toEqual({
      remoteAddress,
      code: 'CERT_HAS_EXPIRED',
      reason: expect.any(String),
    });
    expect(await refusalOf(RawPeer.dial(listener.port, { ca: siteA.ca }))).toMatchObject({
      remoteAddress,
      code: 'no-certificate',
    });
    const away = openHalf(listener, '127.0.0.7');
    away.end();
    expect(await refusalOf(away)).toMatchObject({ remoteAddress: '127.0.0.7', code: 'ECONNRESET' });
    const reset = openHalf(listener, '127.0.0.8');
    await vi.waitFor(() => expect(listener.handshakes).toBe(1));
    reset.resetAndDestroy();
    expect(await refusalOf(reset)).toMatchObject({
      remoteAddress: '127.0.0.8',
      code: 'ECONNRESET',
    });
    const silent = RawPeer.dial(listener.port, siteA, { ALPNProtocols: [] });
    expect(await refusalOf(silent)).toMatchObject({ code: 'no-alpn', serial: expect.any(String) });
  });

  test('a verified peer that is refused is reported with name and serial number', async () => {
    const refusals: RefusedConnection[] = [];
    const listener = await listen({
      authorize: () => ({ code: 'revoked', reason: 'stolen' }),
      onRefused: (refused) => refusals.push(refused),
    });
    const peer = RawPeer.dial(listener.port, siteA);
    await peer.json(FrameType.Close);
    await peer.closed;
    await vi.waitFor(() => expect(listener.handshakes).toBe(0));
    expect(refusals).toEqual([
      {
        remoteAddress: '127.0.0.1',
        code: 'revoked',
        reason: 'stolen',
        identity: site('site-a'),
        serial: expect.stringMatching(/^[0-9A-F]+$/),
      },
    ]);
  });

  test.each<Partial<ListenOptions>>([
    { maxHandshakes: 0 },
    { maxConnectionRate: 0 },
    { handshakeTimeoutMs: Number.NaN },
    { maxTunnelRate: -1 },
    { maxTunnelBurst: 1.5 },
    { maxControlRate: 0 },
    { maxControlQueueBytes: 0 },
    { drainTimeoutMs: 0 },
    { connections: 65 },
  ])('a limit of %o is refused', async (options) => {
    await expect(listen(options)).rejects.toThrow(ApiMisuseError);
  });
});

describe('a peer with a good certificate', () => {
  test('is refused with too-many if it connects in a loop, and others are not', async () => {
    const clock = new FakeClock();
    const refusals: RefusedConnection[] = [];
    const listener = await listen({
      clock,
      maxTunnelRate: 1,
      maxTunnelBurst: 3,
      onRefused: (refused) => refusals.push(refused),
    });
    const outcomes: string[] = [];
    for (let i = 0; i < 5; i++) outcomes.push(await outcome(listener, siteA, idOf(i)));
    expect(outcomes).toEqual(['up', 'up', 'up', 'too-many', 'too-many']);
    expect(listener.counters.refused.get('too-many')).toBe(2);
    expect(refusals.map(({ code, identity }) => [code, identity])).toEqual([
      ['too-many', site('site-a')],
      ['too-many', site('site-a')],
    ]);
    expect(await outcome(listener, siteB, idOf(5))).toBe('up');
    clock.advance(999);
    expect(await outcome(listener, siteA, idOf(6))).toBe('too-many');
    clock.advance(1);
    expect(await outcome(listener, siteA, idOf(7))).toBe('up');
  });

  test('adds one counter only if it makes up a reason of its own each time', async () => {
    const reasons: string[] = [];
    const listener = await listen({ onRefused: ({ reason }) => reasons.push(reason) });
    for (let i = 0; i < 5; i++) {
      const peer = RawPeer.dial(listener.port, siteA);
      peer.send(FrameType.Close, { code: `reason-${i}`, reason: 'x' });
      await peer.closed;
    }
    await vi.waitFor(() => expect([...listener.counters.failed]).toEqual([['peer-closed', 5]]));
    expect(reasons[4]).toBe('reason-4: x');
  });

  test('is limited by the same rate if it opens further connections in a loop', async () => {
    const listener = await listen({ clock: new FakeClock(), maxTunnelBurst: 4 });
    const outcomes: string[] = [];
    for (let connection = 0; connection < 6; connection++)
      outcomes.push(await outcome(listener, siteA, TUNNEL, connection));
    expect(outcomes).toEqual(['up', 'up', 'up', 'up', 'too-many', 'too-many']);
  });

  test('cannot flood with messages over all its connections faster than over one', async () => {
    const listener = await listen({ clock: new FakeClock(), maxControlRate: 2 });
    const up = accepted(listener);
    const peers: RawPeer[] = [];
    for (const hello of [{ lane: 0 }, { lane: 0, renews: true }]) {
      const peer = RawPeer.dial(listener.port, siteA);
      peer.send(FrameType.Hello, { ...HELLO, tunnel: TUNNEL, ...hello });
      await peer.json(FrameType.Welcome);
      peers.push(peer);
    }
    const tunnel = await up;
    let messages = 0;
    tunnel.on('control', () => messages++);
    for (let i = 0; i < 15; i++) for (const peer of peers) peer.send(FrameType.Control, {});
    await next(tunnel, 'down');
    expect(messages).toBe(20);
    expect(listener.counters.controlFloods).toBe(1);
  });
});

function idOf(number: number): string {
  return String(number).repeat(32);
}

/** A raw peer whose tunnel is up. */
async function rawPair(
  options: Partial<ListenOptions>
): Promise<[RawPeer, MtlsTunnel, TunnelListener]> {
  const listener = await listen(options);
  const up = accepted(listener);
  const peer = RawPeer.dial(listener.port, siteA);
  peer.send(FrameType.Hello, HELLO);
  return [peer, await up, listener];
}

/** Returns the answer to a HELLO. The connection stays open if it is up. */
async function outcome(
  listener: TunnelListener,
  credentials: typeof siteA,
  tunnelId: string,
  connection = 0
): Promise<string> {
  const peer = RawPeer.dial(listener.port, credentials);
  cleanUp.push(() => peer.socket.destroy());
  peer.send(FrameType.Hello, { ...HELLO, tunnel: tunnelId, lane: connection });
  const [bytes]: Buffer[] = await once(peer.socket, 'data');
  if (bytes![0] === FrameType.Welcome) return 'up';
  return JSON.parse(bytes!.toString('utf8', 4)).code;
}

describe('a hostile peer whose tunnel is up', () => {
  test('holds a bounded number of packets if it reads nothing, and the rest is dropped', async () => {
    const clock = new FakeClock();
    const options = { clock, maxSlabs: 8, maxControlQueueBytes: 10_000, keepaliveMs: 600_000 };
    const [peer, tunnel] = await rawPair(options);
    peer.socket.pause();
    const packet = Buffer.alloc(60_000);
    // The system takes some of them, at first. After 1.2 s the peer would count as dead.
    let before = -1;
    for (let round = 0; before < tunnel.counters.sentPackets || round < 20; round++) {
      before = tunnel.counters.sentPackets;
      for (let i = 0; i < 100; i++) tunnel.sendPacket(packet, 0, packet.length);
      tunnel.flush();
      for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
      clock.advance(40);
    }
    const { sentPackets, droppedFull, droppedLate } = tunnel.counters;
    expect(droppedFull + droppedLate).toBeGreaterThan(500);
    let messages = 0;
    while (tunnel.sendControl('x'.repeat(1_000))) messages++;
    expect(messages).toBeLessThan(10);
    expect(tunnel.counters.refusedControl).toBe(1);
    peer.socket.resume();
    let packets = 0;
    const closed = tunnel.close();
    for (;;) {
      const payload = await peer.frame(FrameType.Packet);
      if (payload === undefined) break;
      packets++;
    }
    await closed;
    expect(packets).toBe(sentPackets);
  });

  test.each([
    ['a message one byte too long', FrameType.Control, 1_001],
    ['a packet one byte too long', FrameType.Packet, 65_546],
    ['an extension one byte too long', 0x80, 1_001],
  ])('is ended when it sends %s, before the bytes are there', async (_, type, length) => {
    const [peer, , listener] = await rawPair({ maxControlBytes: 1_000 });
    peer.send(FrameType.Control, Buffer.from(JSON.stringify('x'.repeat(998))));
    const header = Buffer.alloc(4);
    header.writeUInt8(type, 0);
    header.writeUIntBE(length, 1, 3);
    peer.socket.write(header);
    expect(await peer.json(FrameType.Close)).toMatchObject({
      code: CloseCode.ProtocolError,
      reason: 'a frame has a length that is not allowed here',
    });
    expect(listener.counters.protocolErrors).toBe(1);
  });
});

describe('terminate', () => {
  const STOLEN = { code: CloseCode.Revoked, reason: 'stolen' };
  const REVOKED = { code: CloseCode.Revoked, reason: '' };
  const isSiteA = ({ subjectAltName }: { subjectAltName: string | undefined }) =>
    subjectAltName === 'URI:spiffe://example.org/site/site-a';

  test('ends the tunnels with such a certificate, and nothing of them passes any more', async () => {
    const listener = await listen();
    const [a, b] = [accepted(listener), dial(listener.port)];
    const tunnelA = await a;
    await next(b, 'up');
    const other = accepted(listener);
    const second = dial(listener.port, siteB);
    await next(second, 'up');
    const tunnelB = await other;
    const onPacket = vi.fn();
    tunnelA.onPacket = onPacket;
    const received = new Promise<void>((resolve) => {
      tunnelB.onPacket = () => resolve();
    });
    for (const tunnel of [b, second]) tunnel.sendPacket(Buffer.alloc(60), 0, 60);
    const refused = next(b, 'refused');
    expect(listener.terminate(isSiteA, STOLEN)).toBe(1);
    for (const tunnel of [b, second]) tunnel.flush();
    expect([tunnelA.state, tunnelB.state]).toEqual(['closed', 'up']);
    expect(tunnelA.reserve()).toBe(-1);
    expect((await refused)[0].code).toBe(CloseCode.Revoked);
    await received;
    expect(onPacket).not.toHaveBeenCalled();
    expect([...listener.tunnels]).toEqual([tunnelB]);
  });

  test('finds a certificate of one connection only, the old one or the new one', async () => {
    for (const which of [0, 1]) {
      const listener = await listen();
      const renewed = await ca.issue(site('site-a'));
      const up = accepted(listener);
      for (const credentials of [siteA, renewed]) {
        const peer = RawPeer.dial(listener.port, credentials);
        cleanUp.push(() => peer.socket.destroy());
        peer.send(FrameType.Hello, { ...HELLO, tunnel: TUNNEL, lane: 0 });
        await peer.json(FrameType.Welcome);
      }
      const tunnel = await up;
      const serial = tunnel.certificates[which]!.serialNumber;
      expect(listener.terminate(({ serialNumber }) => serialNumber === serial, REVOKED)).toBe(1);
      expect(tunnel.certificates).toEqual([]);
      expect(listener.tunnels.size).toBe(0);
      expect(listener.terminate(() => true, REVOKED)).toBe(0);
    }
  });

  test('may be called by the host while it is asked about that very connection', async () => {
    let asked = 0;
    const listener: TunnelListener = await listen({
      authorize: () => {
        asked++;
        if (asked === 2) listener.terminate(isSiteA, STOLEN);
        return undefined;
      },
    });
    const onTunnel = vi.fn();
    listener.on('tunnel', onTunnel);
    const peer = RawPeer.dial(listener.port, siteA);
    peer.send(FrameType.Hello, HELLO);
    await peer.closed;
    expect(asked).toBe(2);
    expect(onTunnel).not.toHaveBeenCalled();
    expect([...listener.counters.failed]).toEqual([['revoked', 1]]);
  });

  test('destroys connections whose handshake is under way with one', async () => {
    const refusals: RefusedConnection[] = [];
    const authorize = vi.fn(() => undefined);
    const listener = await listen({ authorize, onRefused: (refused) => refusals.push(refused) });
    const onTunnel = vi.fn();
    listener.on('tunnel', onTunnel);
    const peer = RawPeer.dial(listener.port, siteA);
    const other = RawPeer.dial(listener.port, siteB);
    await vi.waitFor(() => expect(authorize).toHaveBeenCalledTimes(2));
    peer.send(FrameType.Hello, HELLO);
    expect(listener.terminate(isSiteA, STOLEN)).toBe(0);
    await peer.closed;
    expect(onTunnel).not.toHaveBeenCalled();
    expect(refusals).toMatchObject([
      { code: 'revoked', reason: 'stolen', identity: site('site-a') },
    ]);
    other.send(FrameType.Hello, HELLO);
    expect(await other.json(FrameType.Welcome)).toBeDefined();
  });
});

/** The system accepts connections when it gets to it: on a busy machine that is later. */
const PATIENCE = { timeout: 20_000 };
