/** A peer with a good certificate can neither hold up the others nor stay after it was terminated. */
import { describe, expect, test, vi } from 'vitest';
import { ApiMisuseError } from '../../src/errors.ts';
import { CloseCode, FrameType } from '../../src/tunnel/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { hasOpenssl } from '../support/openssl.ts';
import { HELLO, RawPeer } from '../support/raw-peer.ts';
import { packetOf, record } from './packets.ts';
import { ca, cleanUp, dial, listen, next, pair, serve, setUpTunnels, siteA } from './scene.ts';

setUpTunnels();

describe('control messages', () => {
  test('are at most 128 KiB long from a peer, and longer to it', async () => {
    const [dialled, accepted, listener] = await pair();
    const heard = next(dialled, 'control');
    expect(accepted.sendControl('x'.repeat(4_000_000))).toBe(true);
    expect((await heard)[0]).toHaveLength(4_000_000);
    const taken = next(accepted, 'control');
    dialled.sendControl('x'.repeat(128 * 1024 - 2));
    await taken;
    const down = next(dialled, 'down');
    dialled.sendControl('x'.repeat(128 * 1024 - 1));
    expect((await down)[0]).toMatchObject({ by: 'peer', code: CloseCode.ProtocolError });
    expect(listener.counters.protocolErrors).toBe(1);
  });

  test('are limited in bytes a second from a peer, over ten seconds', async () => {
    const clock = new FakeClock();
    const [dialled, accepted, listener] = await pair({ maxControlByteRate: 1_000, clock });
    const sizes: number[] = [];
    accepted.on('control', (message) => sizes.push((message as string).length));
    for (let i = 0; i < 10; i++) dialled.sendControl('x'.repeat(998));
    await vi.waitFor(() => expect(sizes).toHaveLength(10));
    clock.stall(10_000);
    const down = next(dialled, 'down');
    for (let i = 0; i < 11; i++) dialled.sendControl('x'.repeat(998));
    expect((await down)[0]).toMatchObject({
      code: CloseCode.ControlRate,
      reason: expect.stringMatching(/bytes/),
    });
    expect(sizes).toHaveLength(20);
    expect(listener.counters.controlFloods).toBe(1);
  });

  test.each([
    { maxReceivedControlBytes: 0 },
    { maxReceivedControlBytes: 2 ** 24 },
    { maxControlByteRate: 0.5 },
  ])('cannot have a limit of %o', async (options) => {
    await expect(listen(options)).rejects.toThrow(ApiMisuseError);
  });
});

describe.runIf(hasOpenssl)('a certificate that names no purpose', () => {
  const uri = (who: string) => `subjectAltName=URI:spiffe://example.org/${who}`;

  test('lets no edge in', async () => {
    const listener = await listen();
    for (const use of ['', '\nextendedKeyUsage=codeSigning,clientAuth']) {
      const peer = RawPeer.dial(listener.port, ca.forge(uri('site/site-a') + use));
      if (use !== '') {
        peer.send(FrameType.Hello, HELLO);
        expect(await peer.json(FrameType.Welcome)).toMatchObject({
          peer: expect.stringMatching(/site-a/),
        });
        peer.socket.destroy();
      } else {
        expect(await peer.json(FrameType.Close)).toMatchObject({
          code: CloseCode.WrongIdentity,
          reason: 'the certificate is not for clients',
        });
      }
    }
    expect(listener.counters.refused.get(CloseCode.WrongIdentity)).toBe(1);
  });

  test('makes no cloud', async () => {
    const port = await serve(() => {}, ca.forge(uri('cloud')));
    const [{ cause }] = await next(dial(port), 'waiting');
    expect(cause.reason).toMatch(/not for servers/);
  });
});

describe('a renewal that is begun and dropped', () => {
  const TUNNEL = 'a'.repeat(32);

  /** A tunnel of a peer that may come as often as it likes, by a clock that stands still. */
  async function begin() {
    const clock = new FakeClock();
    const listener = await listen({ clock, maxTunnelBurst: 1_000, keepaliveMs: 600_000 });
    const connection = async (number: number, renews?: boolean): Promise<RawPeer | undefined> => {
      const peer = RawPeer.dial(listener.port, siteA);
      cleanUp.push(() => peer.socket.destroy());
      peer.send(FrameType.Hello, { ...HELLO, tunnel: TUNNEL, lane: number, renews });
      return (await peer.json(FrameType.Welcome)) && peer;
    };
    const first = (await connection(0))!;
    const [tunnel] = listener.tunnels;
    return { clock, listener, lane: connection, first, tunnel: tunnel! };
  }

  test('gives a tunnel no more connections than it may have in a renewal, however often it is repeated', async () => {
    const { clock, lane: connection, tunnel } = await begin();
    const seen: number[] = [];
    for (let round = 0; round < 5; round++) {
      const nextPeer = (await connection(0, true))!;
      for (let number = 1; number < 8; number++) await connection(number);
      seen.push(tunnel.certificates.length);
      nextPeer.socket.destroy();
      await vi.waitFor(() => expect(tunnel.connections).toBe(1));
    }
    expect(Math.max(...seen)).toBe(16);
    // It has answered no DRAIN.
    clock.advance(10_000);
    expect([tunnel.state, tunnel.certificates.length]).toEqual(['up', 1]);
  });

  test('ends its further connections without a loss, and the next renewal is accepted', async () => {
    const { lane: connection, first, tunnel, listener } = await begin();
    const received = record(tunnel);
    const nextPeer = (await connection(0, true))!;
    const further = (await connection(1))!;
    nextPeer.socket.destroy();
    expect(await further.frame(FrameType.Drain)).toHaveLength(0);
    further.send(FrameType.Packet, packetOf(1, 5, 100));
    further.send(FrameType.Drain, Buffer.alloc(0));
    expect(await further.json(FrameType.Close)).toMatchObject({ code: CloseCode.Idle });
    first.send(FrameType.Packet, packetOf(2, 6, 100));
    await vi.waitFor(() => expect([received.get(1), received.get(2)]).toEqual([[5], [6]]));

    const again = (await connection(0, true))!;
    const renewed = next(tunnel, 'renewed');
    first.send(FrameType.Drain, Buffer.alloc(0));
    await renewed;
    await first.frame(FrameType.Drain);
    first.send(FrameType.Close, { code: CloseCode.Renewed, reason: '' });
    await first.closed;
    again.send(FrameType.Packet, packetOf(1, 7, 100));
    await vi.waitFor(() => expect(received.get(1)).toEqual([5, 7]));
    expect([tunnel.state, listener.counters.renewed]).toEqual(['up', 1]);
  });
});

test('a peer that is refused for its rate dials more slowly, and is admitted later', async () => {
  const clock = new FakeClock();
  const listener = await listen({ clock, maxTunnelBurst: 1 });
  const first = dial(listener.port);
  await next(first, 'up');
  const second = dial(listener.port, { backoff: { minMs: 10, maxMs: 60_000 } });
  const refused = vi.fn();
  second.on('refused', refused);
  const [{ delayMs, cause }] = await next(second, 'waiting');
  expect(cause).toMatchObject({ by: 'peer', code: CloseCode.TooMany });
  expect(delayMs).toBeLessThan(100);
  expect(refused).not.toHaveBeenCalled();
  const up = next(second, 'up');
  clock.advance(1_000);
  await up;
});

test('a tunnel that is closing sends nothing more when its peer is terminated', async () => {
  const listener = await listen();
  const up = new Promise<Parameters<Parameters<typeof listener.once<'tunnel'>>[1]>[0]>((resolve) =>
    listener.once('tunnel', resolve)
  );
  const peer = RawPeer.dial(listener.port, siteA);
  cleanUp.push(() => peer.socket.destroy());
  peer.send(FrameType.Hello, HELLO);
  await peer.json(FrameType.Welcome);
  const tunnel = await up;
  peer.socket.pause();
  const packet = Buffer.alloc(60_000);
  while (tunnel.sendPacket(packet, 0, packet.length)) tunnel.flush();
  const closed = tunnel.close({ code: CloseCode.Replaced });
  expect(listener.tunnels.size).toBe(0);
  expect(listener.terminate(() => true, { code: CloseCode.Revoked, reason: 'stolen' })).toBe(0);
  // It ends at once, not when what waits is sent or the time for that is over.
  await closed;
  peer.socket.resume();
  await peer.closed;
  expect(await peer.json(FrameType.Close)).toBeUndefined();
});
