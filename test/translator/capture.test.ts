import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type PacketCapture, type PathStatus, PcapngCapture } from '../../src/translator/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type Ends, icmpError, ipPacket, tcpPacket, udpPacket } from '../support/packets.ts';
import { MIXED_PATHS, mixedPath, mixedPlan, mixedScene } from './mixed.ts';
import type { Scene } from './scene.ts';

const { request, reply } = mixedPath(4, 4);
const tcp = (ends: Ends, more: object = {}): Uint8Array =>
  tcpPacket(ends, { sourcePort: 40_000, destinationPort: 5672, ...more });

type Shown = [direction: string, realm: string, packet: Uint8Array];

/** A clock that advances by a millisecond with each reading. */
class TickingClock extends FakeClock {
  override wallMs(): number {
    const nowMs = super.wallMs();
    this.setWall(nowMs + 1);
    return nowMs;
  }
}

/** Records the packets that it gets, and the paths for which `wants` was called. */
class NotingCapture implements PacketCapture {
  readonly shown: Shown[] = [];
  readonly asked: PathStatus[] = [];
  readonly #wants: (path: PathStatus) => boolean;

  constructor(wants: (path: PathStatus) => boolean = () => true) {
    this.#wants = wants;
  }

  wants(path: PathStatus): boolean {
    this.asked.push(path);
    return this.#wants(path);
  }

  packet(direction: string, realm: string, bytes: Uint8Array, start: number, end: number): void {
    this.shown.push([direction, realm, bytes.slice(start, end)]);
  }
}

function tapped(capture: PacketCapture): Scene {
  const scene = mixedScene();
  scene.translator.capture(capture);
  return scene;
}

describe('a packet capture', () => {
  test.each(MIXED_PATHS)('shows a packet $name before and after translation', (path) => {
    const capture = new NotingCapture();
    const scene = tapped(capture);
    const before = tcp(path.request.before);
    const after = scene.forward('site', before);
    expect(capture.shown).toEqual([
      ['inbound', 'site', before],
      ['outbound', 'cloud', after],
    ]);
  });

  test.each(MIXED_PATHS)('shows an ICMP error back to the client $name', (path) => {
    const capture = new NotingCapture();
    const scene = tapped(capture);
    const kind = path.to === 4 ? { type: 3, code: 3 } : { type: 1, code: 4 };
    const before = icmpError(path.reply.before, { ...kind, quoted: tcp(path.request.after) });
    const after = scene.forward('cloud', before);
    expect(capture.shown).toEqual([
      ['inbound', 'cloud', before],
      ['outbound', 'site', after],
    ]);
  });

  test('shows later fragments', () => {
    const capture = new NotingCapture();
    const scene = tapped(capture);
    const first = ipPacket(request.before, 47, new Uint8Array(8), { fragment: 0x2000 });
    const later = ipPacket(request.before, 47, new Uint8Array(8), { fragment: 1 });
    scene.forward('site', first);
    scene.forward('site', later);
    expect(capture.shown.map(([direction, , packet]) => [direction, packet[7]])).toEqual([
      ['inbound', 0],
      ['outbound', 0],
      ['inbound', 1],
      ['outbound', 1],
    ]);
  });

  test('shows a SYN before and after its MSS is lowered', () => {
    const capture = new NotingCapture();
    const scene = mixedScene({ cloud: { mtu: 1400 } });
    scene.translator.capture(capture);
    const syn = tcp(request.before, { flags: 2, tcpOptions: Uint8Array.of(2, 4, 5, 180) });
    scene.forward('site', syn);
    expect(capture.shown.map(([, , packet]) => (packet[42]! << 8) | packet[43]!)).toEqual([
      1460, 1360,
    ]);
  });

  test('shows no packet that is not forwarded', () => {
    const capture = new NotingCapture();
    const scene = tapped(capture);
    scene.forward('site', tcp(request.before));
    capture.shown.length = 0;
    const packets = [
      tcp(request.before, { destinationPort: 22 }),
      tcp(request.before).slice(0, 30),
      tcp({ ...request.before, source: '192.0.2.9' }),
      tcp({ ...request.before, source: '10.0.0.6' }),
    ];
    for (const packet of packets) scene.send('site', packet);
    scene.send('site', tcp(mixedPath(4, 6).request.before), {}, 0);
    expect(capture.shown).toEqual([]);
  });

  test('asks `wants` once for each path, and shows only the wanted ones', () => {
    const capture = new NotingCapture(({ ingress }) => ingress === 'cloud');
    const scene = tapped(capture);
    for (let i = 0; i < 3; i++) {
      scene.forward('site', tcp(request.before));
      scene.forward('cloud', tcp(reply.before, { sourcePort: 5672, destinationPort: 40_000 }));
      scene.forward('site', tcp(mixedPath(6, 6).request.before));
    }
    expect(capture.asked.map(({ ingress, source }) => [ingress, source])).toEqual([
      ['site', '10.0.0.5'],
      ['cloud', '10.0.0.9'],
      ['site', 'fd00::5'],
    ]);
    expect(capture.asked[0]).toEqual({
      ingress: 'site',
      source: '10.0.0.5',
      destination: '100.64.0.1',
      egress: 'cloud',
      newSource: '100.64.0.11',
      newDestination: '10.0.0.9',
      packets: 0,
      bytes: 0,
    });
    expect(capture.shown.map(([direction, realm]) => [direction, realm])).toEqual(
      Array(3)
        .fill([
          ['inbound', 'cloud'],
          ['outbound', 'site'],
        ])
        .flat()
    );
  });

  test('asks `wants` again after a new plan', () => {
    const capture = new NotingCapture(() => false);
    const scene = tapped(capture);
    scene.forward('site', tcp(request.before));
    scene.translator.load(mixedPlan());
    scene.forward('site', tcp(request.before));
    expect(capture.asked.map(({ packets }) => packets)).toEqual([0, 1]);
  });

  test('replaces an earlier capture, and ends with undefined', () => {
    const [a, b] = [new NotingCapture(), new NotingCapture()];
    const scene = tapped(a);
    const send = (): void => void scene.forward('site', tcp(request.before));
    send();
    scene.translator.capture(b);
    send();
    scene.translator.capture(undefined);
    send();
    expect([a, b].map(({ shown }) => shown.length)).toEqual([2, 2]);
    expect(scene.counters('site')).toEqual({ Forward: 3 });
  });

  test('shows a packet in a buffer that does not begin at 0', () => {
    const capture = new NotingCapture();
    const scene = tapped(capture);
    const whole = new Uint8Array(200);
    const buffer = whole.subarray(50);
    const packet = tcp(request.before);
    buffer.set(packet, 7);
    scene.translator.translate(scene.translator.realm('site'), buffer, 7, 7 + packet.length);
    expect(capture.shown[0]).toEqual(['inbound', 'site', packet]);
    expect(capture.shown[1]).toEqual(['outbound', 'cloud', tcp(request.after)]);
  });
});

const hasTshark = spawnSync('tshark', ['-v']).status === 0;

describe.skipIf(!hasTshark && !process.env.CI)(
  'tshark opens what PcapngCapture writes (skipped where the Debian package tshark is missing)',
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'capture-'));
    afterAll(() => rmSync(folder, { recursive: true }));

    const FIELDS = [
      'frame.time_epoch',
      'frame.interface_name',
      'frame.packet_flags_direction',
      'frame.len',
      'frame.cap_len',
      'ip.src',
      'ip.dst',
      'ipv6.src',
      'ipv6.dst',
      'udp.dstport',
    ];

    function read(pieces: readonly Uint8Array[]): string[] {
      const file = join(folder, 'capture.pcapng');
      writeFileSync(file, Buffer.concat(pieces));
      const columns = FIELDS.flatMap((field) => ['-e', field]);
      const { status, stdout, stderr } = spawnSync(
        'tshark',
        ['-r', file, '-n', '-T', 'fields', '-E', 'separator=|', '-E', 'occurrence=f', ...columns],
        { encoding: 'utf8' }
      );
      expect([status, stderr.replace(/^Running as user "root".*\n/, '')]).toEqual([0, '']);
      return stdout.trimEnd().split('\n');
    }

    test('writes only chosen paths, each packet before and after translation', () => {
      const pieces: Uint8Array[] = [];
      const scene = tapped(
        new PcapngCapture({
          write: (bytes) => pieces.push(bytes),
          wants: ({ newDestination }) => newDestination === 'fd00::9',
          clock: new TickingClock({ wallMs: 1_767_322_800_000 }),
          snapLength: 100,
        })
      );
      const datagram = (ends: Ends): Uint8Array =>
        udpPacket(ends, {
          sourcePort: 40_000,
          destinationPort: 53,
          payload: new Uint8Array(100),
        });
      for (const { request } of MIXED_PATHS) scene.forward('site', datagram(request.before));
      expect(read(pieces)).toEqual([
        '1767322800.000000000|site|0x00000001|128|100|10.0.0.5|100.64.0.6|||53',
        '1767322800.001000000|cloud|0x00000002|148|100|||fd64::46|fd00::9|53',
        '1767322800.002000000|site|0x00000001|148|100|||fd00::5|fd64::1|53',
        '1767322800.003000000|cloud|0x00000002|148|100|||fd64::11|fd00::9|53',
      ]);
    });

    test('writes all paths, complete packets and the current time by default', () => {
      const pieces: Uint8Array[] = [];
      const from = Date.now() / 1000;
      const scene = tapped(new PcapngCapture({ write: (bytes) => pieces.push(bytes) }));
      for (const { request } of MIXED_PATHS) {
        scene.forward('site', tcp(request.before, { payload: new Uint8Array(1000) }));
      }
      const rows = read(pieces).map((row) => row.split('|'));
      expect(rows).toHaveLength(8);
      for (const [time, , , length, captured] of rows) {
        expect(captured).toBe(length);
        expect(Number(time)).toBeGreaterThan(from - 1);
        expect(Number(time)).toBeLessThan(from + 60);
      }
    });
  }
);
