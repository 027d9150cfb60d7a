/**
 * Packets and frames that an honest edge would never send, in a tunnel of site-a.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Credentials, FrameType } from '../../src/tunnel/index.ts';
import { echoPacket, ipPacket, tcpPacket, udpPacket } from '../support/packets.ts';
import { Random } from '../support/random.ts';
import { frameBytes, HELLO } from '../support/raw-peer.ts';
import { framed, VNET, type VnetHeader } from '../support/vnet.ts';
import { ended, intrude, knock, leave, packetFrame, settled } from './attacker.ts';
import { BUS, CAMERA, CLIENT, VAULT } from './plan.ts';
import { FULL, type Outcome, Scene } from './scene.ts';

let scene: Scene;
/** Where site-a has the service. */
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
    const peer = await intrude(scene.ports.tunnel, scene.siteA);
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
  test('with a source that is not of the site reach nobody', async () => {
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

  test('to addresses that stand for nobody in the site reach nobody', async () => {
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

  test('on ports and protocols that are not exposed reach nobody', async () => {
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

  test('that are garbage, or cut, or contradict themselves reach nobody', async () => {
    const random = new Random(1);
    const noise = Array.from({ length: 20 }, (_, i) => {
      const bytes = Uint8Array.from({ length: VNET + 1 + i * 70 }, () => random.below(256));
      bytes.fill(0, 0, VNET);
      return bytes;
    });
    const good = datagram(CLIENT, bus);
    const cut = [1, 19, 20, 27].map((length) => good.subarray(0, VNET + length));
    const outcome = await send('garbage', [...noise, ...cut]);
    expect(outcome.passed).toBe(0);
    const dropped = outcome.countedAs(/^sites\.site-a\.verdicts\.Drop/);
    expect(dropped, JSON.stringify(outcome.differences)).toBe(24 * TIMES);
  });

  test('with a virtio-net header that lies reach nobody', async () => {
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
      // One datagram that would be thousands.
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

  /** A tunnel that is up, and then sends this. */
  const up = async (bytes: Buffer): Promise<string | undefined> => {
    const peer = await intrude(scene.ports.tunnel, siteF);
    peer.socket.write(bytes);
    return ended(peer);
  };
  /** The first that is sent. */
  const first = async (bytes: Buffer): Promise<string | undefined> => {
    const peer = knock(scene.ports.tunnel, siteG);
    peer.socket.write(bytes);
    return ended(peer);
  };
  const header = (type: number, length: number): Buffer => {
    const bytes = frameBytes(type, Buffer.alloc(0));
    bytes.writeUIntBE(length, 1, 3);
    return bytes;
  };

  test('that are too long, empty, or of a type that is not known end the tunnel', async () => {
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
        // There is no connection to follow the first one.
        frameBytes(FrameType.Drain, Buffer.alloc(0)),
      ]) {
        expect(await up(bytes), bytes.toString('hex')).toBe('protocol-error');
      }
    });
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({ 'listener.protocolErrors': 16 });
  });

  test('before HELLO, and a HELLO that is none, end the connection', async () => {
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

  test('that do not belong on a further connection end it', async () => {
    const tunnel = 'f'.repeat(32);
    const drain = frameBytes(FrameType.Drain, Buffer.alloc(0));
    const outcome = await scene.attack('further connections', async () => {
      const main = await intrude(scene.ports.tunnel, siteG, { ...HELLO, tunnel, lane: 0 });
      for (const bytes of [
        frameBytes(FrameType.Control, { type: 'status', counters: {} }),
        Buffer.concat([drain, packetFrame(datagram(CLIENT, bus))]),
        Buffer.concat([drain, drain]),
      ]) {
        const connection = await intrude(scene.ports.tunnel, siteG, { ...HELLO, tunnel, lane: 1 });
        connection.socket.write(bytes);
        expect(await ended(connection), bytes.toString('hex')).toBe('protocol-error');
      }
      await leave(main);
    });
    expect(outcome.passed).toBe(0);
    expect(outcome.differences).toMatchObject({ 'listener.protocolErrors': 3 });
  });

  test('that say CLOSE before HELLO, with codes of their own, do not name counters', async () => {
    const outcome = await scene.attack('CLOSE of its own', async () => {
      for (let i = 0; i < 5; i++) {
        await first(frameBytes(FrameType.Close, { code: `a-name-of-mine-${i}`, reason: '' }));
      }
    });
    expect(outcome.countedAs(/of-mine/)).toBe(0);
    expect(outcome.countedAs(/^listener\.failed\./)).toBe(5);
  });

  test('cut in the middle are nothing, and cost nothing', async () => {
    const outcome = await scene.attack('cut frames', async () => {
      for (const length of [1, 3, 4, 1000]) {
        const peer = await intrude(scene.ports.tunnel, scene.siteA);
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
