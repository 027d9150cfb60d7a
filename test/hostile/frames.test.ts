/**
 * Packets and frames that a legitimate edge would never send, in a tunnel of site-a.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Credentials, FrameType } from '../../src/tunnel/index.ts';
import { echoPacket, ipPacket, tcpPacket, udpPacket } from '../support/packets.ts';
import { Random } from '../support/random.ts';
import { frameBytes, HELLO } from '../support/raw-peer.ts';
import { framed, VNET, type VnetHeader } from '../support/vnet.ts';
import { connect, ended, leave, openTunnel, packetFrame, settled } from './attacker.ts';
import { BUS, CAMERA, CLIENT, VAULT } from './plan.ts';
import { FULL, type Outcome, Scene } from './scene.ts';

let scene: Scene;
/** The address of the service in site-a. */
let bus: string;
const TIMES = FULL ? 2_000 : 100;

beforeAll(async () => {
  scene = await Scene.open();
  bus = await scene.presenceOf(BUS.address, 'site-a');
});

afterAll(() => scene?.close());

/** Sends each packet many times in a tunnel of site-a, which stays up. */
function send(what: string, packets: readonly Uint8Array[]): Promise<Outcome> {
  return scene.attack(what, async () => {
    const peer = await openTunnel(scene.ports.tunnel, scene.siteA);
    for (let i = 0; i < TIMES; i++) {
      for (const packet of packets) peer.socket.write(packetFrame(packet));
      if (i % 16 === 0) await settled(peer);
    }
    await settled(peer);
    expect(peer.socket.destroyed, 'the tunnel is still up').toBe(false);
    await leave(peer);
  });
}

const datagram = (source: string, destination: string, port: number = BUS.port): Uint8Array =>
  framed(
    udpPacket({ source, destination }, { sourcePort: 4000, destinationPort: port, payload: TEXT })
  );
const TEXT = Buffer.from('from the attacker');

describe('packets', () => {
  test('are dropped if their source is outside the site', async () => {
    const others = await scene.presenceOf(CLIENT, 'cloud', 'site-b');
    const sources = ['10.0.9.9', bus, others, '127.0.0.1', '0.0.0.0', '224.0.0.1', '192.0.2.1'];
    const outcome = await send(
      'spoofed sources',
      sources.map((source) => datagram(source, bus))
    );
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({
      'sites.site-a.verdicts.DropSpoofed': sources.length * TIMES,
    });
  });

  test('are dropped if their destination is not a presence in the site', async () => {
    const destinations = [
      await scene.presenceOf(CAMERA.address, 'cloud', CAMERA.site),
      await scene.presenceOf(VAULT.address, 'site-b'),
      await scene.presenceOf(BUS.address, 'site-b'),
      BUS.address,
      VAULT.address,
      '10.2.0.60',
      '127.0.0.1',
      '255.255.255.255',
      '169.254.169.254',
    ];
    const outcome = await send(
      'no presence',
      destinations.map((destination) => datagram(CLIENT, destination))
    );
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({
      'sites.site-a.verdicts.DropNoPresence': destinations.length * TIMES,
    });
  });

  test('are dropped on ports and protocols that are not exposed', async () => {
    const ends = { source: CLIENT, destination: bus };
    const tcp = tcpPacket(ends, { sourcePort: 4000, destinationPort: BUS.port, flags: 2 });
    const outcome = await send('not exposed', [
      datagram(CLIENT, bus, VAULT.port),
      datagram(CLIENT, bus, 0),
      framed(tcp),
      framed(echoPacket(ends, {})),
      framed(ipPacket(ends, 47, Buffer.alloc(16))),
    ]);
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({
      'sites.site-a.verdicts.DropNotPermitted': 5 * TIMES,
    });
  });

  test('are dropped if they are random bytes, truncated or contradictory', async () => {
    const random = new Random(1);
    const noise = Array.from({ length: 20 }, (_, i) => {
      const bytes = Uint8Array.from({ length: VNET + 1 + i * 70 }, () => random.below(256));
      bytes.fill(0, 0, VNET);
      return bytes;
    });
    const good = datagram(CLIENT, bus);
    const truncated = [1, 19, 20, 27].map((length) => good.subarray(0, VNET + length));
    const outcome = await send('garbage', [...noise, ...truncated]);
    expect(outcome.passed).toBe(0);
    const dropped = outcome.countedAs(/^sites\.site-a\.verdicts\.Drop/);
    expect(dropped, JSON.stringify(outcome.differences)).toBe(24 * TIMES);
  });

  test('are dropped if their virtio-net header is wrong', async () => {
    const ends = { source: CLIENT, destination: bus };
    const datagramOf = (header: VnetHeader, payload = 1200): Uint8Array =>
      framed(
        udpPacket(ends, {
          sourcePort: 4000,
          destinationPort: BUS.port,
          payload: new Uint8Array(payload),
          checksum: 'partial',
        }),
        header
      );
    const checksum = { flags: 1, checksumStart: 20, checksumOffset: 6 };
    const outcome = await send('virtio-net headers', [
      datagramOf({ flags: 1, checksumStart: 65_000, checksumOffset: 6 }),
      datagramOf({ flags: 1, checksumStart: 20, checksumOffset: 60_000 }),
      datagramOf({ flags: 1, checksumStart: 0, checksumOffset: 10 }),
      datagramOf({ ...checksum, gsoType: 1, gsoSize: 100 }),
      datagramOf({ ...checksum, gsoType: 5, gsoSize: 0 }),
      datagramOf({ ...checksum, gsoType: 77, gsoSize: 100 }),
      datagramOf({ gsoType: 5, gsoSize: 100 }),
      // One datagram that would become thousands.
      datagramOf({ ...checksum, gsoType: 5, gsoSize: 1, headerLength: 65_535 }, 60_000),
    ]);
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({
      'sites.site-a.verdicts.DropMalformed': 7 * TIMES,
      'sites.site-a.verdicts.DropTooManySegments': TIMES,
    });
  });
});

describe('frames', () => {
  let siteF: Credentials;
  let siteG: Credentials;
  beforeAll(async () => {
    siteF = await scene.enrol('site-f');
    siteG = await scene.enrol('site-g');
  });

  /** Sends this in a tunnel that is up. */
  const up = async (bytes: Buffer): Promise<string | undefined> => {
    const peer = await openTunnel(scene.ports.tunnel, siteF);
    peer.socket.write(bytes);
    return ended(peer);
  };
  /** Sends this first. */
  const first = async (bytes: Buffer): Promise<string | undefined> => {
    const peer = connect(scene.ports.tunnel, siteG);
    peer.socket.write(bytes);
    return ended(peer);
  };
  const header = (type: number, length: number): Buffer => {
    const bytes = frameBytes(type, Buffer.alloc(0));
    bytes.writeUIntBE(length, 1, 3);
    return bytes;
  };

  test('end the tunnel if they are too long, empty, or of an unknown type', async () => {
    const outcome = await scene.attack('bad frames', async () => {
      for (const bytes of [
        header(FrameType.Packet, 0xffffff),
        header(FrameType.Control, 0xffffff),
        header(0x80, 0xffffff),
        header(FrameType.Packet, 0),
        header(FrameType.Packet, VNET),
        header(FrameType.Control, 0),
        header(FrameType.Ping, 7),
        header(0x00, 1),
        header(0x7f, 1),
        frameBytes(FrameType.Hello, HELLO),
        frameBytes(FrameType.Welcome, HELLO),
        frameBytes(FrameType.Control, Buffer.from('{"type":')),
        frameBytes(FrameType.Control, Buffer.from([0x22, 0xff, 0xfe, 0x22])),
        frameBytes(FrameType.Close, Buffer.from('[]')),
        header(FrameType.Drain, 1),
        // No earlier connection exists that this one could follow.
        frameBytes(FrameType.Drain, Buffer.alloc(0)),
      ]) {
        expect(await up(bytes), bytes.toString('hex')).toBe('protocol-error');
      }
    });
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({ 'listener.protocolErrors': 16 });
  });

  test('end the connection before HELLO, and as an invalid HELLO', async () => {
    const outcome = await scene.attack('before HELLO', async () => {
      for (const bytes of [
        packetFrame(datagram(CLIENT, bus)),
        frameBytes(FrameType.Control, { type: 'status', counters: {} }),
        frameBytes(FrameType.Ping, Buffer.alloc(8)),
        header(FrameType.Hello, 4097),
        frameBytes(FrameType.Hello, { version: 0, software: 'x' }),
        frameBytes(FrameType.Hello, { ...HELLO, lane: 64 }),
      ]) {
        expect(await first(bytes), bytes.toString('hex')).toBe('protocol-error');
      }
    });
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({ 'listener.failed.protocol-error': 6 });
  });

  test('end a further connection on which they are not allowed', async () => {
    const tunnel = 'f'.repeat(32);
    const drain = frameBytes(FrameType.Drain, Buffer.alloc(0));
    const outcome = await scene.attack('further connections', async () => {
      const main = await openTunnel(scene.ports.tunnel, siteG, { ...HELLO, tunnel, lane: 0 });
      for (const bytes of [
        frameBytes(FrameType.Control, { type: 'status', counters: {} }),
        Buffer.concat([drain, packetFrame(datagram(CLIENT, bus))]),
        Buffer.concat([drain, drain]),
      ]) {
        const connection = await openTunnel(scene.ports.tunnel, siteG, {
          ...HELLO,
          tunnel,
          lane: 1,
        });
        connection.socket.write(bytes);
        expect(await ended(connection), bytes.toString('hex')).toBe('protocol-error');
      }
      await leave(main);
    });
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({ 'listener.protocolErrors': 3 });
  });

  test('create no counters as a CLOSE with unknown codes before HELLO', async () => {
    const outcome = await scene.attack('CLOSE of its own', async () => {
      for (let i = 0; i < 5; i++) {
        await first(frameBytes(FrameType.Close, { code: `a-name-of-mine-${i}`, reason: '' }));
      }
    });
    expect(outcome.countedAs(/of-mine/)).toBe(0);
    expect(outcome.countedAs(/^listener\.failed\./)).toBe(5);
  });

  test('are ignored, and cost nothing, if they are incomplete', async () => {
    const outcome = await scene.attack('incomplete frames', async () => {
      for (const length of [1, 3, 4, 1000]) {
        const peer = await openTunnel(scene.ports.tunnel, scene.siteA);
        const frame = packetFrame(framed(datagram(CLIENT, bus), {}));
        const bytes = Buffer.concat([frame.subarray(0, 4), Buffer.alloc(40_000)]);
        bytes.writeUIntBE(50_000, 1, 3);
        peer.socket.write(bytes.subarray(0, length));
        peer.socket.end();
        await ended(peer);
      }
    });
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({ 'listener.accepted': 5 });
    expect(outcome.counted('sites.site-a.verdicts.Forward')).toBe(1);
  });
});
