import { once } from 'node:events';
import { createServer as createTcpServer } from 'node:net';
import { describe, expect, test, vi } from 'vitest';
import { backoffDelayMs } from '../../src/base/backoff.ts';
import { ApiMisuseError, CertificateError, PeerRefusedError } from '../../src/errors.ts';
import {
  type CloseCause,
  type DialOptions,
  FrameType,
  MtlsTunnel,
} from '../../src/tunnel/index.ts';
import { CLOUD, TestCa } from '../support/certificates.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { frameBytes, type RawPeer, WELCOME } from '../support/raw-peer.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';
import { Relay } from '../support/relay.ts';
import {
  ca,
  cleanUp,
  cloud,
  dial,
  listen,
  next,
  pair,
  serve,
  setUpTunnels,
  siteA,
} from './scene.ts';

setUpTunnels();

describe('backoffDelayMs', () => {
  test.each([
    [0, 0.5, 100],
    [1, 0.5, 200],
    [3, 1, 1600],
    [10, 0.5, 15_000],
    [5_000, 1, 30_000],
    [7, 0, 0],
  ])('attempt %i at random %d waits %d ms of 200 to 30,000', (attempt, random, delay) => {
    expect(backoffDelayMs(attempt, {}, () => random)).toBe(delay);
  });

  test('uses the limits it is given', () => {
    expect(backoffDelayMs(2, { minMs: 10, maxMs: 35 }, () => 1)).toBe(35);
  });
});

describe('a dialled tunnel', () => {
  test('is up only after WELCOME, and knows its peer and its ciphers then', async () => {
    let peer: RawPeer | undefined;
    const port = await serve((accepted) => {
      peer = accepted;
    });
    const tunnel = dial(port, { software: 'edge/2' });
    const up = vi.fn();
    tunnel.on('up', up);
    expect(tunnel.state).toBe('connecting');
    await vi.waitFor(() => expect(peer).toBeDefined());
    expect(await peer!.json(FrameType.Hello)).toEqual({
      version: 1,
      software: 'edge/2',
      tunnel: expect.stringMatching(/^[0-9a-f]{32}$/),
      lane: 0,
      keyExchange: expect.stringMatching(/^X25519/),
    });
    expect(tunnel.state).toBe('connecting');
    expect(tunnel.reserve()).toBe(-1);
    expect(tunnel.sendControl({})).toBe(false);
    expect(up).not.toHaveBeenCalled();

    peer!.send(FrameType.Welcome, WELCOME);
    await next(tunnel, 'up');
    expect(tunnel.state).toBe('up');
    expect(tunnel.info).toMatchObject({ remoteAddress: '127.0.0.1', remotePort: port });
    expect(tunnel.info?.cipher).toMatch(/^TLS_/);
    expect(tunnel.info?.certificate.subjectAltName).toBe('URI:spiffe://example.org/cloud');
  });

  test('knows its peer by the certificate and not by what was expected, also when it is down', async () => {
    const listener = await listen();
    const tunnel = dial(listener.port);
    expect(tunnel.peer).toBeUndefined();
    const [info] = await next(tunnel, 'up');
    expect(info.peer).toEqual(CLOUD);
    expect(tunnel.peer).toBe(info.peer);
    const down = next(tunnel, 'down');
    await listener.close();
    await down;
    expect(tunnel.peer).toBe(info.peer);
  });

  test('delivers packets that come in one piece with WELCOME', async () => {
    const port = await serve((peer) => {
      peer.socket.write(
        Buffer.concat([
          frameBytes(FrameType.Welcome, WELCOME),
          frameBytes(FrameType.Packet, Buffer.alloc(50, 9)),
        ])
      );
    });
    const tunnel = dial(port);
    const packet = await new Promise<string>((resolve) => {
      tunnel.onPacket = (buffer, start, end) => resolve(buffer.toString('hex', start, end));
    });
    expect(packet).toBe(Buffer.alloc(50, 9).toString('hex'));
  });

  test.each<[string, string, () => Promise<number>]>([
    [
      'another site',
      'the server is spiffe://example.org/site/site-a, not spiffe://example.org/cloud',
      async () => serve(() => {}, siteA),
    ],
    [
      'the cloud of another trust domain',
      'self-signed certificate',
      async () => {
        const foreign = await TestCa.create();
        const { key, cert } = await foreign.issue(CLOUD);
        return serve(() => {}, {
          key,
          cert: `${cert}\n${foreign.authority.certificatePem}`,
          ca: siteA.ca,
        });
      },
    ],
    [
      'a cloud whose certificate has expired',
      'certificate has expired',
      async () => serve(() => {}, await ca.issueExpired(CLOUD)),
    ],
    [
      'a server that speaks no ALPN',
      'the server does not speak virtual-presence/1',
      async () => serve(() => {}, cloud, { ALPNProtocols: undefined as never }),
    ],
    [
      'a server that answers with packets',
      'a frame has a type that is not allowed here',
      async () => serve((peer) => peer.send(FrameType.Packet, Buffer.alloc(60))),
    ],
    [
      'a server whose WELCOME is malformed',
      'the WELCOME is malformed',
      async () => serve((peer) => peer.send(FrameType.Welcome, { ...WELCOME, keepaliveMs: 1 })),
    ],
    [
      'a port where nobody listens',
      'ECONNREFUSED',
      async () => {
        const nobody = await refusingTcpPort();
        cleanUp.push(() => nobody.close());
        return nobody.port;
      },
    ],
  ])('does not come up at %s', async (_, reason, server) => {
    const tunnel = dial(await server());
    const up = vi.fn();
    tunnel.on('up', up);
    const [{ delayMs, cause }] = await next(tunnel, 'waiting');
    expect(cause.reason).toContain(reason);
    // Where no gateway has answered, the bound is another one.
    expect(delayMs).toBe(reason === 'ECONNREFUSED' ? 500 : 100);
    expect(tunnel.state).toBe('waiting');
    expect(up).not.toHaveBeenCalled();
  });

  test('gives up an attempt that is not acknowledged in time', async () => {
    const clock = new FakeClock();
    const tunnel = dial(await serve(() => {}), { clock, handshakeTimeoutMs: 3_000 });
    const waiting = next(tunnel, 'waiting');
    clock.advance(3_000);
    expect((await waiting)[0].cause).toMatchObject({ code: 'handshake-timeout' });
  });

  test('reports a refusal with its reason, and tries again after the longest wait', async () => {
    const clock = new FakeClock();
    let verdict: { code: string; reason: string } | undefined = {
      code: 'revoked',
      reason: 'stolen\nyesterday',
    };
    const listener = await listen({ authorize: () => verdict });
    const tunnel = dial(listener.port, { clock, backoff: { maxMs: 7_000 } });
    const waiting = next(tunnel, 'waiting');
    const [{ error, code }] = await next(tunnel, 'refused');
    expect(error).toBeInstanceOf(PeerRefusedError);
    expect(error.message).toBe(
      'spiffe://example.org/cloud refuses the tunnel (revoked): stolen?yesterday'
    );
    expect(code).toBe('revoked');
    expect((await waiting)[0].delayMs).toBe(7_000);
    verdict = undefined;
    clock.advance(7_000);
    await next(tunnel, 'up');
  });

  test('can be closed by the application when it is refused', async () => {
    const listener = await listen({ authorize: () => ({ code: 'revoked', reason: '' }) });
    const clock = new FakeClock();
    const tunnel = dial(listener.port, { clock });
    const waiting = vi.fn();
    tunnel.on('waiting', waiting);
    await new Promise<void>((resolve) => {
      tunnel.on('refused', () => {
        void tunnel.close();
        resolve();
      });
    });
    expect(tunnel.state).toBe('closed');
    expect(waiting).not.toHaveBeenCalled();
  });

  test('backs off from attempt to attempt, goes through its endpoints, and connects', async () => {
    const clock = new FakeClock();
    const ports: number[] = [];
    for (let i = 0; i < 2; i++) {
      const dead = createTcpServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
      await once(dead, 'listening');
      cleanUp.push(() => dead.close());
      ports.push((dead.address() as { port: number }).port);
    }
    const listener = await listen();
    ports.push(listener.port);
    const endpoints = ports.map((port, priority) => ({ host: '127.0.0.1', port, priority }));
    const tunnel = dial(0, { clock, endpoints });
    expect((await next(tunnel, 'waiting'))[0].delayMs).toBe(100);
    clock.advance(100);
    expect((await next(tunnel, 'waiting'))[0].delayMs).toBe(200);
    clock.advance(200);
    await next(tunnel, 'up');
    expect(tunnel.info?.remotePort).toBe(listener.port);
  });

  test('starts again with the shortest wait only after it was up for long', async () => {
    const clock = new FakeClock();
    const peers: RawPeer[] = [];
    const port = await serve((peer) => {
      peers.push(peer);
      peer.send(FrameType.Welcome, { ...WELCOME, keepaliveMs: 600_000 });
    });
    const tunnel = dial(port, { clock, stableAfterMs: 10_000 });
    const delays: number[] = [];
    for (const upMs of [9_999, 9_999, 10_000, 0]) {
      await next(tunnel, 'up');
      clock.advance(upMs);
      const waiting = next(tunnel, 'waiting');
      peers.at(-1)!.socket.destroy();
      const [{ delayMs }] = await waiting;
      delays.push(delayMs);
      clock.advance(delayMs);
    }
    expect(delays).toEqual([100, 200, 100, 200]);
  });

  test('comes back when the listener restarts, and carries packets again', async () => {
    const listener = await MtlsTunnel.listen({ host: '127.0.0.1', port: 0, ...cloud });
    const relay = await Relay.open(listener.port);
    cleanUp.push(() => relay.close());
    const tunnel = dial(relay.port, { random: () => 0.01 });
    const events: string[] = [];
    tunnel.on('up', () => events.push('up'));
    tunnel.on('down', (cause) => events.push(`down ${cause.by} ${cause.code}`));
    await next(tunnel, 'up');
    await listener.close();
    const again = await listen();
    relay.target = again.port;
    const received = new Promise<number>((resolve) => {
      again.once('tunnel', (accepted) => {
        accepted.onPacket = (_, start, end) => resolve(end - start);
      });
    });
    await next(tunnel, 'up');
    expect(tunnel.sendPacket(Buffer.alloc(100), 0, 100)).toBe(true);
    tunnel.flush();
    expect(await received).toBe(100);
    expect(events).toEqual(['up', 'down peer shutdown', 'up']);
  });

  test('takes a silent peer for dead after three intervals of the listener', async () => {
    const clock = new FakeClock();
    const port = await serve((peer) => peer.send(FrameType.Welcome, WELCOME));
    const tunnel = dial(port, { clock });
    await next(tunnel, 'up');
    const down = vi.fn<(cause: CloseCause) => void>();
    tunnel.on('down', down);
    // The chunk with WELCOME counts for the first interval.
    clock.advance(3_999);
    expect(down).not.toHaveBeenCalled();
    clock.advance(1);
    expect(down).toHaveBeenCalledWith(expect.objectContaining({ code: 'keepalive-timeout' }));
    expect(tunnel.state).toBe('waiting');
  });

  test('sends the peer shutdown when it is closed, and does not come back', async () => {
    const [dialled, accepted] = await pair();
    const down = next(accepted, 'down');
    const own = next(dialled, 'down');
    const closed = dialled.close();
    expect(dialled.state).toBe('closed');
    expect((await down)[0]).toEqual({ by: 'peer', code: 'shutdown', reason: '' });
    expect((await own)[0]).toEqual({ by: 'us', code: 'shutdown', reason: '' });
    await closed;
    await dialled.close();
  });

  test.each(['connecting', 'waiting'] as const)('can be closed while %s', async (state) => {
    const clock = new FakeClock();
    const port = await serve((peer) => {
      if (state === 'waiting') peer.socket.destroy();
    });
    const tunnel = dial(port, { clock });
    if (state === 'waiting') await next(tunnel, 'waiting');
    expect(tunnel.state).toBe(state);
    await tunnel.close();
    expect(tunnel.state).toBe('closed');
    await vi.waitFor(() => expect(clock.delays).toEqual([]));
  });

  test.each<[string, () => Partial<DialOptions>, new (message: string) => Error]>([
    ['a key of another certificate', () => ({ key: cloud.key }), CertificateError],
    ['no endpoint', () => ({ endpoints: [] }), ApiMisuseError],
    ['a limit that is not a number', () => ({ maxSlabs: Number.NaN }), ApiMisuseError],
  ])('refuses to begin with %s', (_, options, error) => {
    expect(() => dial(1, options())).toThrow(error);
  });
});

describe('a tunnel that is up', () => {
  test('carries packets of all sizes both ways, byte for byte, with space in front', async () => {
    const [dialled, accepted] = await pair();
    const sizes = [11, 12, 64, 1_410, 9_000, 16_384, 65_544, 65_545, 20, 65_545, 11];
    const packets = sizes.map((size, i) =>
      Buffer.from(Array.from({ length: size }, (_, at) => (at * 7 + i * 13 + (at >> 8)) & 0xff))
    );
    for (const [from, to] of [
      [dialled, accepted],
      [accepted, dialled],
    ] as const) {
      const received: Buffer[] = [];
      let batches = 0;
      const done = new Promise<void>((resolve) => {
        to.onPacket = (buffer, start, end) => {
          received.push(Buffer.from(buffer.subarray(start, end)));
          buffer.fill(0xee, start - 4, end);
          if (received.length === packets.length) resolve();
        };
        to.onBatchEnd = () => batches++;
      });
      for (const [i, packet] of packets.entries()) {
        if (i % 2 === 0) {
          expect(from.sendPacket(packet, 0, packet.length)).toBe(true);
        } else {
          const offset = from.reserve();
          packet.copy(from.buffer, offset);
          from.commit(FrameType.Packet, packet.length);
        }
      }
      from.flush();
      await done;
      expect(received.map((packet, i) => packet.equals(packets[i]!))).toEqual(
        sizes.map(() => true)
      );
      const bytes = sizes.reduce((sum, size) => sum + size, 0);
      expect(from.counters).toMatchObject({ sentPackets: sizes.length, sentBytes: bytes });
      expect(to.counters).toMatchObject({ receivedPackets: sizes.length, receivedBytes: bytes });
      expect(batches).toBeGreaterThan(0);
    }
  });

  test('carries control messages both ways, up to their limit', async () => {
    const [dialled, accepted] = await pair({ maxControlBytes: 1_000 }, { maxControlBytes: 1_000 });
    const message = { text: 'ü€😀', list: [1, null, { deep: true }] };
    const received = next(accepted, 'control');
    expect(dialled.sendControl(message)).toBe(true);
    expect(await received).toEqual([message]);
    const back = next(dialled, 'control');
    expect(accepted.sendControl('x'.repeat(998))).toBe(true);
    expect(await back).toEqual(['x'.repeat(998)]);
    expect(() => accepted.sendControl('x'.repeat(999))).toThrow(ApiMisuseError);
  });

  test('refuses control messages when too many wait', async () => {
    const [dialled, accepted] = await pair({}, { maxControlQueueBytes: 1_000 });
    let sent = 0;
    const received = new Promise<void>((resolve) => {
      let count = 0;
      accepted.on('control', () => {
        count++;
        if (count === sent) resolve();
      });
    });
    while (dialled.sendControl('x'.repeat(100))) sent++;
    expect(sent).toBeGreaterThan(8);
    expect(sent).toBeLessThan(12);
    expect(dialled.counters.refusedControl).toBe(1);
    await received;
  });

  test('refuses packets while its peer does not read, loses none, and drains', async () => {
    let peer: RawPeer | undefined;
    const port = await serve((raw) => {
      peer = raw;
      raw.send(FrameType.Welcome, WELCOME);
    });
    // Time stands still, so that nothing has waited for long.
    const tunnel = dial(port, { maxSlabs: 6, clock: new FakeClock() });
    await next(tunnel, 'up');
    peer!.socket.pause();
    const packet = Buffer.alloc(60_000);
    let sent = 0;
    let refusals = 0;
    const fill = (): void => {
      for (;;) {
        packet.writeUInt32BE(sent);
        if (tunnel.reserve() < 0) break;
        expect(tunnel.sendPacket(packet, 0, packet.length)).toBe(true);
        sent++;
      }
      refusals++;
      tunnel.flush();
    };
    tunnel.onDrain = fill;
    fill();
    // The kernel's buffers take some; then nothing moves until the peer reads.
    let before = -1;
    while (before !== sent) {
      before = sent;
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    }
    expect(tunnel.reserve()).toBe(-1);
    expect(tunnel.sendControl({ still: 'accepted' })).toBe(true);
    const refusedAt = refusals;

    tunnel.onDrain = () => {
      refusals++;
    };
    peer!.socket.resume();
    for (let i = 0; i < sent; i++) {
      const payload = (await peer!.frame(FrameType.Packet))!;
      expect([payload.length, payload.readUInt32BE(0)]).toEqual([60_000, i]);
    }
    await vi.waitFor(() => expect(refusals).toBeGreaterThan(refusedAt));
    expect(tunnel.reserve()).toBeGreaterThan(0);
  });

  test('sends a control message before the packets that wait', async () => {
    const order: string[] = [];
    const [dialled, accepted] = await pair();
    const done = new Promise<void>((resolve) => {
      let packets = 0;
      accepted.onPacket = () => {
        packets++;
        order.push('packet');
        if (packets === sent) resolve();
      };
      accepted.on('control', () => order.push('control'));
    });
    let sent = 0;
    while (dialled.sendPacket(Buffer.alloc(60_000), 0, 60_000)) sent++;
    dialled.sendControl({});
    await done;
    expect(order.indexOf('control')).toBeLessThan(sent / 2);
  });

  test('delivers nothing of a chunk after the receiver has ended the tunnel', async () => {
    const [dialled, accepted] = await pair();
    let packets = 0;
    accepted.onPacket = () => {
      packets++;
      if (packets === 2) accepted.destroy();
    };
    for (let i = 0; i < 10; i++) dialled.sendPacket(Buffer.alloc(60), 0, 60);
    dialled.flush();
    await next(dialled, 'down');
    expect(packets).toBe(2);
  });

  test('does not grow with the packets it carries', async () => {
    const [dialled, accepted] = await pair();
    const packet = Buffer.alloc(65_545);
    let received = 0;
    let wake = (): void => {};
    accepted.onPacket = () => {
      received++;
      wake();
    };
    const carry = async (count: number): Promise<void> => {
      const target = received + count;
      for (let sent = 0; sent < count; ) {
        if (dialled.reserve() >= 0 && dialled.sendPacket(packet, 0, packet.length)) {
          sent++;
          continue;
        }
        dialled.flush();
        await new Promise<void>((resolve) => {
          dialled.onDrain = resolve;
          setImmediate(resolve);
        });
      }
      dialled.flush();
      while (received < target) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    };
    await carry(500);
    const before = process.memoryUsage().rss;
    await carry(5_000);
    // 328 MB have passed.
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024);
  });
});
