import { X509Certificate } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import { CertificateError, EnvironmentError, PeerRefusedError } from '../../src/errors.ts';
import { CONNECTION_CHECK_MS } from '../../src/tunnel/connection-scaler.ts';
import {
  CloseCode,
  type Credentials,
  type DialOptions,
  FrameType,
  type ListenOptions,
  type MtlsTunnel,
  type TunnelCandidate,
} from '../../src/tunnel/index.ts';
import { CLOUD, site, TestCa } from '../support/certificates.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type RawPeer, WELCOME } from '../support/raw-peer.ts';
import { numberOf, packetOf, record, sendRound } from './packets.ts';
import { ca, cloud, dial, listen, next, pair, serve, setUpTunnels, siteA } from './scene.ts';
import { whileTrafficFlows } from './traffic.ts';

setUpTunnels();

const WIDE = { maxTunnelBurst: 1_000, maxConnectionRate: 1_000 };

function textOf({ cert }: Credentials): string {
  return String(cert).trim();
}

function seenBy(accepted: MtlsTunnel): string[] {
  return accepted.certificates.map((certificate) => certificate.toString().trim());
}

/** The far end learns a moment later that the connections of before are gone. */
function hasSeen(accepted: MtlsTunnel, credentials: readonly Credentials[]): Promise<void> {
  return vi.waitFor(() => expect(seenBy(accepted)).toEqual(credentials.map(textOf)));
}

/** A tunnel with so many connections that are up at both ends, by a clock that stands still. */
async function wide(
  connections: number,
  listenOptions: Partial<ListenOptions> = {},
  dialOptions: Partial<DialOptions> = {}
): Promise<[MtlsTunnel, MtlsTunnel, FakeClock]> {
  const clock = new FakeClock();
  const [dialled, accepted] = await pair(
    { clock, ...WIDE, ...listenOptions },
    { clock, ...dialOptions }
  );
  for (let number = 0; number < 3; number++) sendRound(dialled, connections, number, 50_000);
  clock.advance(CONNECTION_CHECK_MS);
  await vi.waitFor(() =>
    expect([dialled.connections, accepted.connections]).toEqual([connections, connections])
  );
  await vi.waitFor(() => expect(accepted.counters.receivedPackets).toBe(3 * connections));
  return [dialled, accepted, clock];
}

describe('updateCredentials', () => {
  test('changes the certificate while packets and messages flow both ways, and loses none', async () => {
    // No time passes, in which a tunnel with so much traffic would open more connections.
    const clock = new FakeClock();
    const [dialled, accepted, listener] = await pair({ clock, ...WIDE }, { clock });
    const changes = vi.fn();
    for (const tunnel of [dialled, accepted]) {
      for (const event of ['up', 'down'] as const) tunnel.on(event, () => changes(event));
    }
    const before = dialled.info;
    const renewed = [next(dialled, 'renewed'), next(accepted, 'renewed')];
    const credentials = await ca.issue(site('site-a'));
    await whileTrafficFlows([dialled, accepted], 4, async () => {
      await dialled.updateCredentials(credentials);
      expect(dialled.connections).toBe(1);
    });
    const [own, far] = (await Promise.all(renewed)).map((args) => args![0]);
    expect(dialled.info).toBe(own);
    expect(accepted.info).toBe(far);
    expect(own).not.toBe(before);
    expect(accepted.info.certificate.toString().trim()).toBe(textOf(credentials));
    await hasSeen(accepted, [credentials]);
    expect(changes).not.toHaveBeenCalled();
    expect([...listener.tunnels]).toEqual([accepted]);
    expect(listener.counters).toMatchObject({ accepted: 1, renewed: 1 });
    expect(dialled.counters.drainTimeouts + accepted.counters.drainTimeouts).toBe(0);
  });

  test('changes all connections of a tunnel that has several, and loses nothing', async () => {
    const [dialled, accepted] = await wide(5);
    const credentials = await ca.issue(site('site-a'));
    await whileTrafficFlows([dialled, accepted], 12, () => dialled.updateCredentials(credentials));
    expect(dialled.connections).toBe(5);
    await hasSeen(accepted, Array(5).fill(credentials));
  });

  test('changes all connections several times in a row', async () => {
    const [dialled, accepted] = await wide(3, { connections: 3 });
    const all = await Promise.all([1, 2, 3, 4].map(() => ca.issue(site('site-a'))));
    await whileTrafficFlows([dialled, accepted], 6, async () => {
      for (const credentials of all) {
        await dialled.updateCredentials(credentials);
        await hasSeen(accepted, Array(3).fill(credentials));
      }
    });
  });

  test('does one renewal after the other when it is called twice at once', async () => {
    const [dialled, accepted, listener] = await pair(WIDE);
    const [first, second] = await Promise.all([1, 2].map(() => ca.issue(site('site-a'))));
    await Promise.all([dialled.updateCredentials(first!), dialled.updateCredentials(second!)]);
    await hasSeen(accepted, [second!]);
    expect(listener.counters.renewed).toBe(2);
  });

  test('a certificate that the peer refuses changes nothing, and the next call tries again', async () => {
    const bad = await ca.issue(site('site-a'));
    const good = await ca.issue(site('site-a'));
    const authorize = ({ certificate }: TunnelCandidate) =>
      certificate.toString().trim() === textOf(bad)
        ? { code: CloseCode.Revoked, reason: 'issued by mistake' }
        : undefined;
    const [dialled, accepted] = await wide(2, { authorize });
    await whileTrafficFlows([dialled, accepted], 4, async () => {
      await expect(dialled.updateCredentials(bad)).rejects.toThrow(
        new PeerRefusedError(
          'spiffe://example.org/cloud refuses a connection to renew the tunnel (revoked): issued by mistake'
        )
      );
      expect(seenBy(accepted)).toEqual([textOf(siteA), textOf(siteA)]);
      await dialled.updateCredentials(good);
    });
    await hasSeen(accepted, [good, good]);
  });

  test('after a refusal the next connection uses the credentials there were', async () => {
    const bad = await ca.issue(site('site-b'));
    const [dialled, accepted, listener] = await pair(WIDE, { random: () => 0 });
    // The certificate is of another site, which has no tunnel that the connection could join.
    await expect(dialled.updateCredentials(bad)).rejects.toThrow(/no-tunnel/);
    const again = new Promise<MtlsTunnel>((resolve) => listener.once('tunnel', resolve));
    accepted.destroy();
    expect(seenBy(await again)).toEqual([textOf(siteA)]);
  });

  test('credentials that are unusable change nothing', async () => {
    const [dialled, accepted] = await pair();
    await expect(dialled.updateCredentials({ ...siteA, cert: cloud.cert })).rejects.toThrow(
      CertificateError
    );
    expect([dialled.state, seenBy(accepted)]).toEqual(['up', [textOf(siteA)]]);
  });

  test('a peer that is not there any more for new connections changes nothing', async () => {
    const peers: RawPeer[] = [];
    const port = await serve((peer) => {
      peers.push(peer);
      if (peers.length === 1) peer.send(FrameType.Welcome, WELCOME);
      else peer.socket.destroy();
    });
    const tunnel = dial(port);
    await next(tunnel, 'up');
    await expect(tunnel.updateCredentials(await ca.issue(site('site-a')))).rejects.toThrow(
      EnvironmentError
    );
    expect([tunnel.state, tunnel.connections]).toEqual(['up', 1]);
  });

  test.each(['waiting', 'connecting'] as const)(
    'resolves at once while the tunnel is %s, and the next connection uses them',
    async (state) => {
      const clock = new FakeClock();
      let isReady = false;
      const credentials = await ca.issue(site('site-a'));
      const seen: (string | undefined)[] = [];
      const port = await serve((peer) => {
        if (state === 'waiting' && !isReady) peer.socket.destroy();
        if (!isReady) return;
        seen.push(peer.socket.getPeerX509Certificate()?.toString().trim());
        peer.send(FrameType.Welcome, WELCOME);
      });
      const tunnel = dial(port, { clock });
      if (state === 'waiting') await next(tunnel, 'waiting');
      expect(tunnel.state).toBe(state);
      isReady = true;
      await tunnel.updateCredentials(credentials);
      const up = next(tunnel, 'up');
      clock.advance(1_000);
      await up;
      expect(seen).toEqual([textOf(credentials)]);
    }
  );

  test('when the tunnel goes down in the middle, it comes back with the new credentials', async () => {
    const [dialled, accepted, listener] = await pair(WIDE, { random: () => 0 });
    const credentials = await ca.issue(site('site-a'));
    const again = new Promise<MtlsTunnel>((resolve) => listener.once('tunnel', resolve));
    const renewing = dialled.updateCredentials(credentials);
    const down = next(dialled, 'down');
    accepted.destroy();
    await down;
    await renewing;
    expect(seenBy(await again)).toEqual([textOf(credentials)]);
  });

  test('when the tunnel is closed in the middle, it does not hang', async () => {
    const [dialled] = await wide(3);
    const renewing = dialled.updateCredentials(await ca.issue(site('site-a')));
    // The new primary connection has come.
    await next(dialled, 'connections');
    await dialled.close();
    await renewing;
    expect(dialled.state).toBe('closed');
    await dialled.updateCredentials(siteA);
  });

  test('when a listener of down throws in the middle, it does not hang', async () => {
    const peers: RawPeer[] = [];
    const port = await serve((peer) => {
      peers.push(peer);
      // The renewal waits for WELCOME.
      if (peers.length === 1) peer.send(FrameType.Welcome, WELCOME);
    });
    const tunnel = dial(port);
    await next(tunnel, 'up');
    const renewing = tunnel.updateCredentials(siteA);
    await vi.waitFor(() => expect(peers).toHaveLength(2));
    tunnel.on('down', () => {
      throw new Error('the host failed');
    });
    await expect(tunnel.close()).rejects.toThrow('the host failed');
    await renewing;
    await tunnel.updateCredentials(siteA);
  });

  test('a gateway with two anchors takes certificates of both, and one of them on its own', async () => {
    const other = await TestCa.create();
    const both = `${ca.authority.certificatePem}\n${other.authority.certificatePem}`;
    const [dialled, accepted, listener] = await pair({ ...cloud, ca: both, ...WIDE });
    const credentials = { ...(await other.issue(site('site-a'))), ca: both };
    await dialled.updateCredentials(credentials);
    await hasSeen(accepted, [credentials]);
    // The cloud changes next, and then nobody needs the old authority.
    const { authority } = other;
    listener.updateCredentials({ ...(await other.issue(CLOUD)), ca: authority.certificatePem });
    await dialled.updateCredentials({
      ...(await other.issue(site('site-a'))),
      ca: authority.certificatePem,
    });
    expect(dialled.state).toBe('up');
    await expect(dialled.updateCredentials(siteA)).rejects.toThrow();
    expect(dialled.state).toBe('up');
  });
});

/** A tunnel to a raw peer, of which every connection is welcome. */
async function rawPair(
  clock: FakeClock,
  keepaliveMs = 600_000
): Promise<{ tunnel: MtlsTunnel; peers: RawPeer[]; peer: (index: number) => Promise<RawPeer> }> {
  const peers: RawPeer[] = [];
  const port = await serve((peer) => {
    peers.push(peer);
    peer.send(FrameType.Welcome, { ...WELCOME, keepaliveMs, lanes: 8 });
  });
  const tunnel = dial(port, { clock });
  await next(tunnel, 'up');
  const peer = async (index: number): Promise<RawPeer> => {
    await vi.waitFor(() => expect(peers.length).toBeGreaterThan(index));
    return peers[index]!;
  };
  return { tunnel, peers, peer };
}

describe('a renewal on the wire', () => {
  test('is a primary connection of the same tunnel, then DRAIN, its answer, and CLOSE', async () => {
    const { tunnel, peer } = await rawPair(new FakeClock());
    const old = await peer(0);
    const { tunnel: id } = (await old.json(FrameType.Hello))!;
    tunnel.sendControl({ when: 'before' });
    const renewed = next(tunnel, 'renewed');
    const renewing = tunnel.updateCredentials(siteA);
    const young = await peer(1);
    expect(await young.json(FrameType.Hello)).toMatchObject({ tunnel: id, lane: 0, renews: true });
    expect(await old.json(FrameType.Control)).toEqual({ when: 'before' });
    expect(await old.frame(FrameType.Drain)).toHaveLength(0);
    await renewed;

    // Nothing of the control layer goes over the new connection before the old one is empty on both sides.
    tunnel.sendControl({ when: 'after' });
    tunnel.sendPacket(packetOf(1, 77, 100), 0, 100);
    tunnel.flush();
    expect(numberOf((await young.frame(FrameType.Packet))!)).toBe(77);
    const control = next(tunnel, 'control');
    old.send(FrameType.Control, { when: 'late' });
    old.send(FrameType.Drain, Buffer.alloc(0));
    expect(await control).toEqual([{ when: 'late' }]);
    expect(await young.json(FrameType.Control)).toEqual({ when: 'after' });
    expect(await old.json(FrameType.Close)).toMatchObject({ code: CloseCode.Renewed });
    await renewing;
    expect(tunnel.state).toBe('up');
  });

  test('gives up a peer that does not answer DRAIN within drainTimeoutMs, and dials again', async () => {
    const clock = new FakeClock();
    const { tunnel, peer } = await rawPair(clock);
    const renewing = tunnel.updateCredentials(siteA);
    const old = await peer(0);
    await old.frame(FrameType.Drain);
    const down = next(tunnel, 'down');
    clock.advance(9_999);
    expect(tunnel.state).toBe('up');
    clock.advance(1);
    // Messages of the peer may be lost, and its control layer cannot know that, so the tunnel begins again.
    expect((await down)[0]).toMatchObject({ by: 'us', code: CloseCode.Renewed });
    await renewing;
    expect(tunnel.counters.drainTimeouts).toBe(1);
    expect(tunnel.state).toBe('waiting');
  });

  test('measures and watches the new primary connection as the one before', async () => {
    const clock = new FakeClock();
    const { tunnel, peer } = await rawPair(clock, 1_000);
    const renewing = tunnel.updateCredentials(siteA);
    const old = await peer(0);
    await old.frame(FrameType.Drain);
    old.send(FrameType.Drain, Buffer.alloc(0));
    await renewing;
    const young = await peer(1);
    const ping = (await young.frame(FrameType.Ping))!;
    clock.advance(7);
    young.send(FrameType.Pong, ping);
    await vi.waitFor(() => expect(tunnel.rttMs).toBe(7));
    const down = next(tunnel, 'down');
    // The PONG counts for the first interval.
    clock.advance(3_993);
    expect((await down)[0]).toMatchObject({ code: CloseCode.KeepaliveTimeout });
  });

  test('ends the tunnel if the old primary connection breaks before it is drained, and not after', async () => {
    const { tunnel, peers, peer } = await rawPair(new FakeClock());
    const renewing = tunnel.updateCredentials(siteA);
    const old = await peer(0);
    await old.frame(FrameType.Drain);
    old.send(FrameType.Drain, Buffer.alloc(0));
    await old.frame(FrameType.Close);
    old.socket.destroy();
    await renewing;
    expect([tunnel.state, tunnel.connections]).toEqual(['up', 1]);

    const again = tunnel.updateCredentials(siteA);
    await peer(2);
    await peers[1]!.frame(FrameType.Drain);
    const down = next(tunnel, 'down');
    peers[1]!.socket.destroy();
    expect((await down)[0]).toMatchObject({ by: 'network' });
    await again;
  });

  test('changes nothing if the new primary connection breaks before it takes over', async () => {
    const clock = new FakeClock();
    const peers: RawPeer[] = [];
    const port = await serve((peer) => {
      peers.push(peer);
      // The last one, a further connection of the renewal, waits for an answer.
      if (peers.length < 4) peer.send(FrameType.Welcome, { ...WELCOME, lanes: 2 });
    });
    const tunnel = dial(port, { clock });
    await next(tunnel, 'up');
    for (let number = 0; number < 3; number++) sendRound(tunnel, 2, number, 50_000);
    clock.advance(CONNECTION_CHECK_MS);
    await vi.waitFor(() => expect(tunnel.connections).toBe(2));
    const renewing = tunnel.updateCredentials(siteA);
    await vi.waitFor(() => expect(peers).toHaveLength(4));
    peers[2]!.socket.destroy();
    await vi.waitFor(() => expect(tunnel.connections).toBe(2));
    peers[3]!.socket.destroy();
    await expect(renewing).rejects.toThrow(
      'the new primary connection was lost before it could take over'
    );
    expect([tunnel.state, tunnel.connections]).toEqual(['up', 2]);
    const received = record(tunnel);
    peers[0]!.send(FrameType.Packet, packetOf(1, 5, 100));
    await vi.waitFor(() => expect(received.get(1)).toEqual([5]));
  });

  test('does not cancel connections that are being opened', async () => {
    const clock = new FakeClock();
    const peers: RawPeer[] = [];
    const port = await serve((peer) => {
      peers.push(peer);
      if (peers.length !== 2) peer.send(FrameType.Welcome, { ...WELCOME, lanes: 2 });
    });
    const tunnel = dial(port, { clock });
    await next(tunnel, 'up');
    for (let number = 0; number < 3; number++) sendRound(tunnel, 2, number, 50_000);
    clock.advance(CONNECTION_CHECK_MS);
    await vi.waitFor(() => expect(peers).toHaveLength(2));
    const renewing = tunnel.updateCredentials(siteA);
    await peers[1]!.frame(FrameType.Hello);
    expect([peers.length, peers[1]!.socket.destroyed]).toEqual([2, false]);
    peers[1]!.send(FrameType.Welcome, { ...WELCOME, lanes: 2 });
    for (const old of [peers[0]!, peers[1]!]) {
      await old.frame(FrameType.Drain);
      old.send(FrameType.Drain, Buffer.alloc(0));
    }
    await renewing;
    expect([peers.length, tunnel.connections]).toEqual([4, 2]);
  });
});

test('the listening side delivers messages in order when its peer renews', async () => {
  const [dialled, accepted] = await pair(WIDE);
  const messages: unknown[] = [];
  dialled.on('control', (message) => messages.push(message));
  accepted.sendControl(1);
  accepted.once('renewed', () => accepted.sendControl(2));
  await dialled.updateCredentials(siteA);
  accepted.sendControl(3);
  await vi.waitFor(() => expect(messages).toEqual([1, 2, 3]));
});

test('ten renewals of one tunnel leave nothing behind', async () => {
  const listener = await listen(WIDE);
  const tunnel = dial(listener.port);
  await next(tunnel, 'up');
  for (let i = 0; i < 10; i++)
    await tunnel.updateCredentials(i % 2 === 0 ? siteA : await ca.issue(site('site-a')));
  expect(listener.tunnels.size).toBe(1);
  expect(listener.counters).toMatchObject({ accepted: 1, renewed: 10 });
  expect(listener.handshakes).toBe(0);
});

test('a tunnel that waits after a refusal tries other credentials at once', async () => {
  const other = await ca.issue(site('site-a'));
  const { serialNumber } = new X509Certificate(other.cert);
  const listener = await listen({
    authorize: ({ certificate }) =>
      certificate.serialNumber === serialNumber
        ? undefined
        : { code: CloseCode.Revoked, reason: 'stolen' },
  });
  const tunnel = dial(listener.port, { clock: new FakeClock() });
  await next(tunnel, 'refused');
  expect(tunnel.state).toBe('waiting');
  const up = next(tunnel, 'up');
  await tunnel.updateCredentials(other);
  await up;
});
