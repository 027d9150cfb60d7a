import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { ApiMisuseError, CertificateError, EnvironmentError } from '../../src/errors.ts';
import {
  CloseCode,
  type Credentials,
  FrameType,
  type ListenOptions,
  MtlsTunnel,
  type TunnelListener,
} from '../../src/tunnel/index.ts';
import { CLOUD, site, TestCa } from '../support/certificates.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { hasOpenssl } from '../support/openssl.ts';
import { HELLO, RawPeer } from '../support/raw-peer.ts';

let ca: TestCa;
let cloud: Credentials;
let siteA: Credentials;
const open: TunnelListener[] = [];

beforeAll(async () => {
  ca = await TestCa.create();
  cloud = await ca.issue(CLOUD);
  siteA = await ca.issue(site('site-a'));
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((listener) => listener.close()));
});

async function listen(options: Partial<ListenOptions> = {}): Promise<TunnelListener> {
  const listener = await MtlsTunnel.listen({ host: '127.0.0.1', port: 0, ...cloud, ...options });
  open.push(listener);
  return listener;
}

/** Dials, says HELLO, and waits for the tunnel on the listening side. */
async function accepted(
  listener: TunnelListener,
  credentials = siteA
): Promise<[peer: RawPeer, tunnel: MtlsTunnel]> {
  const up = new Promise<MtlsTunnel>((resolve) => listener.once('tunnel', resolve));
  const peer = RawPeer.dial(listener.port, credentials);
  peer.send(FrameType.Hello, HELLO);
  return [peer, await up];
}

describe('a listener', () => {
  test('acknowledges a verified peer and names it by its certificate', async () => {
    const listener = await listen({ keepaliveMs: 1234, software: 'test/1' });
    const [peer, tunnel] = await accepted(listener);
    expect(await peer.json(FrameType.Welcome)).toEqual({
      version: 1,
      software: 'test/1',
      peer: 'spiffe://example.org/site/site-a',
      keepaliveMs: 1234,
      lanes: 8,
    });
    expect(tunnel.peer).toEqual(site('site-a'));
    expect(tunnel.info?.peer).toBe(tunnel.peer);
    expect(tunnel.state).toBe('up');
    expect(tunnel.software).toBe('raw');
    expect(tunnel.info?.certificate.toString().trim()).toBe(String(siteA.cert).trim());
    expect(tunnel.info?.remoteAddress).toBe('127.0.0.1');
    expect(tunnel.info?.cipher).toMatch(/^TLS_/);
    expect([...listener.tunnels]).toEqual([tunnel]);
    expect(listener.counters.accepted).toBe(1);
    expect(listener.handshakes).toBe(0);
    expect(peer.socket.getProtocol()).toBe('TLSv1.3');
  });

  test('makes no tunnel before the HELLO', async () => {
    const listener = await listen();
    const onTunnel = vi.fn();
    listener.on('tunnel', onTunnel);
    const peer = RawPeer.dial(listener.port, siteA);
    await once(peer.socket, 'secureConnect');
    await vi.waitFor(() => expect(listener.handshakes).toBe(1));
    expect(onTunnel).not.toHaveBeenCalled();
    peer.send(FrameType.Hello, HELLO);
    expect(await peer.json(FrameType.Welcome)).toBeDefined();
    expect(onTunnel).toHaveBeenCalledTimes(1);
  });

  const unwanted: [situation: string, failure: string, dial: (port: number) => Promise<RawPeer>][] =
    [
      [
        'without a certificate',
        'no-certificate',
        async (port) => RawPeer.dial(port, { ca: siteA.ca }),
      ],
      [
        'of another CA with the same names',
        'SELF_SIGNED_CERT_IN_CHAIN',
        async (port) => {
          const other = await TestCa.create();
          const { key, cert } = await other.issue(site('site-a'));
          const chain = `${cert}\n${other.authority.certificatePem}`;
          return RawPeer.dial(port, { key, cert: chain, ca: siteA.ca });
        },
      ],
      [
        'whose certificate has expired',
        'CERT_HAS_EXPIRED',
        async (port) => RawPeer.dial(port, await ca.issueExpired(site('site-a'))),
      ],
      [
        'with TLS 1.2',
        'ERR_SSL_UNSUPPORTED_PROTOCOL',
        async (port) => RawPeer.dial(port, siteA, { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' }),
      ],
      [
        'that names no protocol',
        'no-alpn',
        async (port) => RawPeer.dial(port, siteA, { ALPNProtocols: [] }),
      ],
      [
        'that names other protocols',
        'ERR_SSL_NO_APPLICATION_PROTOCOL',
        async (port) => RawPeer.dial(port, siteA, { ALPNProtocols: ['virtual-presence/2', 'h2'] }),
      ],
    ];
  if (hasOpenssl) {
    const name = 'subjectAltName=URI:spiffe://example.org/site/site-a\n';
    unwanted.push([
      'whose certificate is for servers only',
      'INVALID_PURPOSE',
      async (port) => RawPeer.dial(port, ca.forge(`${name}extendedKeyUsage=serverAuth\n`)),
    ]);
  }

  test.each(unwanted)('refuses a peer %s, and counts %s', async (_, failure, dial) => {
    const listener = await listen();
    const onTunnel = vi.fn();
    listener.on('tunnel', onTunnel);
    const peer = await dial(listener.port);
    peer.send(FrameType.Hello, HELLO);
    expect(await peer.frame(FrameType.Welcome)).toBeUndefined();
    await peer.closed;
    await vi.waitFor(() => expect([...listener.counters.failed]).toEqual([[failure, 1]]));
    expect(onTunnel).not.toHaveBeenCalled();
    await vi.waitFor(() => expect(listener.handshakes).toBe(0));
    await accepted(listener);
  });

  test('says to a peer why it does not trust it, and does not wait for it for long', async () => {
    const clock = new FakeClock();
    const listener = await listen({ clock });
    const peer = RawPeer.dial(listener.port, await ca.issueExpired(site('site-a')), {
      allowHalfOpen: true,
    } as object);
    peer.send(FrameType.Hello, HELLO);
    expect(await peer.json(FrameType.Close)).toEqual({
      code: CloseCode.Untrusted,
      reason: 'the certificate is not trusted here: CERT_HAS_EXPIRED',
    });
    peer.send(FrameType.Control, { type: 'ack', revision: 1 });
    expect(listener.handshakes).toBe(1);
    clock.advance(1_000);
    await vi.waitFor(() => expect(listener.handshakes).toBe(0));
    peer.socket.destroy();
    expect(listener.counters).toMatchObject({ accepted: 0, protocolErrors: 0 });
  });

  test.each([
    ['of another role', { peerRole: 'cloud' as const }],
    ['of another trust domain', {}],
  ])('refuses a verified peer %s with wrong-identity', async (situation, options) => {
    const isForeign = situation === 'of another trust domain';
    const foreign = isForeign ? await TestCa.create(Date.now, 'example.net') : ca;
    const own = isForeign ? { ca: foreign.authority.certificatePem } : {};
    const listener = await listen({ ...options, ...own });
    const credentials = await foreign.issue(
      site('site-a', isForeign ? 'example.net' : 'example.org')
    );
    const peer = RawPeer.dial(listener.port, { ...credentials, ca: siteA.ca });
    expect(await peer.json(FrameType.Close)).toMatchObject({ code: 'wrong-identity' });
    await peer.closed;
    await vi.waitFor(() => expect([...listener.counters.refused]).toEqual([['wrong-identity', 1]]));
  });

  test.skipIf(!hasOpenssl)(
    'refuses a verified peer whose certificate names a host (needs openssl)',
    async () => {
      const listener = await listen();
      const peer = RawPeer.dial(
        listener.port,
        ca.forge('subjectAltName=DNS:site-a.example.org\nextendedKeyUsage=clientAuth\n')
      );
      expect(await peer.json(FrameType.Close)).toMatchObject({ code: 'wrong-identity' });
    }
  );

  test('says to a peer that the host refuses why, before the peer has sent anything', async () => {
    const authorize = vi.fn(() => ({ code: 'revoked', reason: 'stolen on 2026-11-01' }));
    const listener = await listen({ authorize });
    const peer = RawPeer.dial(listener.port, siteA);
    expect(await peer.json(FrameType.Close)).toEqual({
      code: 'revoked',
      reason: 'stolen on 2026-11-01',
    });
    await peer.closed;
    expect(authorize).toHaveBeenCalledWith({
      identity: site('site-a'),
      certificate: expect.objectContaining({ serialNumber: expect.any(String) }),
      remoteAddress: '127.0.0.1',
      step: 'certificate',
    });
    await vi.waitFor(() => expect([...listener.counters.refused]).toEqual([['revoked', 1]]));
    await vi.waitFor(() => expect([...listener.counters.failed]).toEqual([['revoked', 1]]));
    expect(listener.tunnels.size).toBe(0);
  });

  test('refuses a peer that was accepted at TLS and is revoked before its HELLO', async () => {
    let refusal: { code: string; reason: string } | undefined;
    const authorize = vi.fn(() => refusal);
    const listener = await listen({ authorize });
    const onTunnel = vi.fn();
    listener.on('tunnel', onTunnel);
    const peer = RawPeer.dial(listener.port, siteA);
    await vi.waitFor(() => expect(authorize).toHaveBeenCalledTimes(1));

    refusal = { code: 'revoked', reason: 'stolen a moment ago' };
    peer.send(FrameType.Hello, HELLO);
    peer.send(FrameType.Packet, Buffer.alloc(60));
    expect(await peer.json(FrameType.Close)).toEqual(refusal);
    await peer.closed;
    await vi.waitFor(() => expect(listener.handshakes).toBe(0));
    expect(authorize).toHaveBeenCalledTimes(2);
    const [[atTls], [atHello]] = authorize.mock.calls as unknown as [[object], [object]];
    expect(atTls).toMatchObject({ step: 'certificate' });
    expect(atHello).toEqual({ ...atTls, step: 'hello' });
    expect(onTunnel).not.toHaveBeenCalled();
    expect(listener.tunnels.size).toBe(0);
    expect([...listener.counters.refused]).toEqual([['revoked', 1]]);
    expect([...listener.counters.failed]).toEqual([['revoked', 1]]);
    expect(listener.counters.accepted).toBe(0);
  });

  test('resumes no session: every connection shows its certificate, also after new credentials', async () => {
    const seen: string[] = [];
    const listener = await listen({
      authorize: ({ certificate }) => {
        seen.push(certificate.serialNumber);
        return undefined;
      },
    });
    const sessions: Buffer[] = [];
    const connect = async (session?: Buffer): Promise<boolean> => {
      const peer = RawPeer.dial(listener.port, siteA, session === undefined ? {} : { session });
      peer.socket.on('session', (ticket) => sessions.push(ticket));
      peer.send(FrameType.Hello, HELLO);
      // Tickets come before all that the server says itself.
      expect(await peer.frame(FrameType.Welcome)).toBeDefined();
      const isReused = peer.socket.isSessionReused();
      sessions.push(peer.socket.getSession()!);
      peer.socket.destroy();
      return isReused;
    };
    expect(await connect()).toBe(false);
    // OpenSSL sends tickets also with SSL_OP_NO_TICKET, but then they name no session.
    expect(sessions.length).toBeGreaterThan(1);
    const before = sessions.splice(0);
    for (const session of before) expect(await connect(session)).toBe(false);
    listener.updateCredentials(await ca.issue(CLOUD));
    for (const session of before) expect(await connect(session)).toBe(false);
    // The host decides at TLS and at HELLO, for each connection.
    expect(seen).toHaveLength(2 * (1 + 2 * before.length));
  });

  test('delivers two tunnels of the same site, and the host decides which one counts', async () => {
    const listener = await listen();
    const [, first] = await accepted(listener);
    const [, second] = await accepted(listener);
    expect([...listener.tunnels]).toEqual([first, second]);
  });

  test('uses new credentials for the next connection and keeps the tunnels there are', async () => {
    const listener = await listen();
    const [peer, tunnel] = await accepted(listener);
    const renewed = await ca.issue(CLOUD);
    listener.updateCredentials(renewed);
    const [next] = await accepted(listener);
    const serial = (p: RawPeer) => p.socket.getPeerX509Certificate()?.toString().trim();
    expect(serial(peer)).toBe(String(cloud.cert).trim());
    expect(serial(next)).toBe(String(renewed.cert).trim());
    expect(tunnel.state).toBe('up');
    expect(() => listener.updateCredentials({ ...renewed, key: siteA.key })).toThrow(
      CertificateError
    );
    const foreign = await TestCa.create();
    listener.updateCredentials({ ...renewed, ca: foreign.authority.certificatePem });
    expect(await RawPeer.dial(listener.port, siteA).frame(FrameType.Welcome)).toBeUndefined();
  });

  test('ends a peer that does not finish in time, in TLS and before HELLO', async () => {
    const clock = new FakeClock();
    const listener = await listen({ clock, handshakeTimeoutMs: 5_000 });
    const mute = connectTcp(listener.port, '127.0.0.1');
    const muteClosed = once(mute, 'close');
    mute.on('error', () => {});
    const silent = RawPeer.dial(listener.port, siteA);
    await once(silent.socket, 'secureConnect');
    await vi.waitFor(() => expect(listener.handshakes).toBe(2));
    clock.advance(4_999);
    expect(listener.handshakes).toBe(2);
    // The server learns a moment after the client that the TLS handshake is done.
    await new Promise(setImmediate);
    clock.advance(1);
    await Promise.all([muteClosed, silent.closed]);
    await vi.waitFor(() => expect(listener.handshakes).toBe(0));
    await vi.waitFor(() => {
      expect([...listener.counters.failed]).toEqual([['handshake-timeout', 2]]);
    });
  });

  test('survives a thousand connections of garbage, and holds nothing of them', async () => {
    const listener = await listen({ maxHandshakes: 50, maxConnectionRate: 1_000 });
    let seed = 1;
    const garbage = (): Buffer => {
      const bytes = Buffer.alloc(300);
      for (let i = 0; i < bytes.length; i++) {
        seed = (Math.imul(seed, 1_103_515_245) + 12_345) | 0;
        bytes[i] = seed >>> 16;
      }
      if (seed & 1) bytes.set([0x16, 0x03, 0x01, 0x01, 0x00, 0x01]); // looks like a ClientHello
      return bytes;
    };
    for (let round = 0; round < 20; round++) {
      await Promise.all(
        Array.from({ length: 50 }, async () => {
          const socket = connectTcp(listener.port, '127.0.0.1');
          socket.on('error', () => {});
          socket.resume();
          socket.end(garbage());
          await once(socket, 'close');
        })
      );
    }
    await vi.waitFor(() => expect(listener.handshakes).toBe(0));
    const { failed } = listener.counters;
    await vi.waitFor(() => {
      expect([...failed.values()].reduce((sum, n) => sum + n, 0)).toBe(1000);
    });
    expect(failed.size).toBeLessThan(20);
    await accepted(listener);
  });

  test.each<[string, number, Buffer]>([
    ['a packet of no byte', FrameType.Packet, Buffer.alloc(0)],
    ['an unknown frame', 0x20, Buffer.alloc(5)],
    ['a second HELLO', FrameType.Hello, Buffer.from(JSON.stringify(HELLO))],
    ['a control message that is not JSON', FrameType.Control, Buffer.from('{"a":')],
    ['a control message that is not UTF-8', FrameType.Control, Buffer.from([0x22, 0xff, 0x22])],
    ['a CLOSE without a code', FrameType.Close, Buffer.from('{"reason":"x"}')],
    ['a CLOSE with a code of many lines', FrameType.Close, Buffer.from('{"code":"a\\nb"}')],
  ])('closes a tunnel on which %s comes, with protocol-error', async (_, type, payload) => {
    const listener = await listen();
    const [peer, tunnel] = await accepted(listener);
    const onPacket = vi.fn();
    tunnel.onPacket = onPacket;
    const down = vi.fn();
    tunnel.on('down', down);
    peer.send(type, payload);
    peer.send(FrameType.Packet, Buffer.alloc(60));
    expect(await peer.json(FrameType.Close)).toMatchObject({ code: 'protocol-error' });
    await peer.closed;
    expect(down).toHaveBeenCalledWith(
      expect.objectContaining({ by: 'us', code: 'protocol-error' })
    );
    expect(onPacket).not.toHaveBeenCalled();
    expect(listener.counters.protocolErrors).toBe(1);
    expect(listener.tunnels.size).toBe(0);
  });

  test.each<[string, object]>([
    ['no version', { software: 'x' }],
    ['version 0', { version: 0, software: 'x' }],
    ['software of 300 characters', { version: 1, software: 'x'.repeat(300) }],
  ])('refuses a HELLO with %s', async (_, hello) => {
    const listener = await listen();
    const peer = RawPeer.dial(listener.port, siteA);
    peer.send(FrameType.Hello, hello);
    expect(await peer.json(FrameType.Close)).toMatchObject({ code: 'protocol-error' });
    await vi.waitFor(() => expect([...listener.counters.failed]).toEqual([['protocol-error', 1]]));
  });

  test('accepts a HELLO of a later version with unknown keys', async () => {
    const listener = await listen();
    const peer = RawPeer.dial(listener.port, siteA);
    peer.send(FrameType.Hello, { version: 9, software: 'later\n', colour: 'blue' });
    expect(await peer.json(FrameType.Welcome)).toMatchObject({ version: 1 });
    expect([...listener.tunnels][0]?.software).toBe('later?');
  });

  test('closes a tunnel that sends more control messages than maxControlRate', async () => {
    const listener = await listen({ clock: new FakeClock(), maxControlRate: 2 });
    const [peer, tunnel] = await accepted(listener);
    let messages = 0;
    tunnel.on('control', () => messages++);
    for (let i = 0; i < 30; i++) peer.send(FrameType.Control, {});
    expect(await peer.json(FrameType.Close)).toMatchObject({
      code: 'control-rate',
      reason: 'more than 2 control messages a second',
    });
    expect(messages).toBe(20);
    expect(listener.counters).toMatchObject({ controlFloods: 1, protocolErrors: 0 });
  });

  test('answers PING with its own bytes, and skips extensions', async () => {
    const listener = await listen();
    const [peer] = await accepted(listener);
    peer.send(0x80, Buffer.alloc(100));
    peer.send(FrameType.Ping, Buffer.from('12345678'));
    expect(String(await peer.frame(FrameType.Pong))).toBe('12345678');
  });

  test('takes a silent peer for dead after three intervals, and not while it answers', async () => {
    const clock = new FakeClock();
    const listener = await listen({ clock, keepaliveMs: 1_000 });
    const [peer, tunnel] = await accepted(listener);
    const down = vi.fn();
    tunnel.on('down', down);
    for (let i = 0; i < 5; i++) {
      const ping = (await peer.frame(FrameType.Ping))!;
      clock.advance(7 + i);
      peer.send(FrameType.Pong, ping);
      await vi.waitFor(() => expect(tunnel.rttMs).toBe(7 + i));
      clock.advance(1_000 - 7 - i);
    }
    clock.advance(2_000);
    expect(down).not.toHaveBeenCalled();
    clock.advance(1_000);
    expect(down).toHaveBeenCalledWith({
      by: 'network',
      code: 'keepalive-timeout',
      reason: 'nothing came from the peer for 3000 ms',
    });
    await peer.closed;
    expect(listener.tunnels.size).toBe(0);
  });

  test('close ends tunnels with shutdown, ends handshakes, and frees the port', async () => {
    const listener = await MtlsTunnel.listen({ host: '127.0.0.1', port: 0, ...cloud });
    const { port } = listener;
    const [peer, tunnel] = await accepted(listener);
    const mute = connectTcp(port, '127.0.0.1').on('error', () => {});
    const muteClosed = once(mute, 'close');
    await vi.waitFor(() => expect(listener.handshakes).toBe(1));
    tunnel.sendPacket(Buffer.alloc(60, 7), 0, 60);
    const closed = listener.close();
    expect(tunnel.state).toBe('closed');
    expect((await peer.frame(FrameType.Packet))?.equals(Buffer.alloc(60, 7))).toBe(true);
    expect(await peer.json(FrameType.Close)).toEqual({ code: 'shutdown', reason: '' });
    await Promise.all([closed, muteClosed]);
    expect(listeningPorts()).toBe(0);
  });

  test('abort drops what waits, delivers nothing more, and says why', async () => {
    const listener = await listen();
    const [peer, tunnel] = await accepted(listener);
    const onPacket = vi.fn();
    tunnel.onPacket = onPacket;
    peer.send(FrameType.Packet, Buffer.alloc(60));
    tunnel.sendPacket(Buffer.alloc(60), 0, 60);
    const gone = tunnel.abort({ code: 'revoked', reason: 'stolen' });
    expect(tunnel.state).toBe('closed');
    expect(tunnel.reserve()).toBe(-1);
    expect(tunnel.sendPacket(Buffer.alloc(60), 0, 60)).toBe(false);
    expect(tunnel.sendControl({})).toBe(false);
    expect(await peer.json(FrameType.Close)).toEqual({ code: 'revoked', reason: 'stolen' });
    await gone;
    expect(onPacket).not.toHaveBeenCalled();
  });

  test('destroy ends the connection and sends the peer nothing', async () => {
    const listener = await listen();
    const [peer, tunnel] = await accepted(listener);
    tunnel.destroy();
    expect(await peer.frame(FrameType.Close)).toBeUndefined();
    await peer.closed;
    expect(listener.tunnels.size).toBe(0);
  });

  test('says which port is in use', async () => {
    const { port } = await listen();
    await expect(listen({ port })).rejects.toThrow(
      new EnvironmentError(`cannot listen on port ${port} of 127.0.0.1: it is in use`)
    );
  });

  test.each<[string, () => Partial<ListenOptions>, new (message: string) => Error]>([
    ['a key of another certificate', () => ({ key: siteA.key }), CertificateError],
    ['a certificate that is no PEM', () => ({ cert: 'no PEM' }), CertificateError],
    ['slabs that are too small', () => ({ slabBytes: 1000 }), ApiMisuseError],
    ['a limit of nothing', () => ({ maxSlabs: 0 }), ApiMisuseError],
    ['control messages over 16 MiB', () => ({ maxControlBytes: 2 ** 24 }), ApiMisuseError],
  ])('refuses to begin with %s', async (_, options, error) => {
    await expect(listen(options())).rejects.toThrow(error);
  });
});

/** How many TCP ports this process listens at. */
function listeningPorts(): number {
  return process.getActiveResourcesInfo().filter((each) => each === 'TCPServerWrap').length;
}
