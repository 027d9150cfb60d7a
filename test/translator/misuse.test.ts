import { describe, expect, test } from 'vitest';
import { ApiMisuseError } from '../../src/errors.ts';
import {
  PACKET_TRANSLATOR_DEFAULTS,
  PacketTranslator,
  type PacketTranslatorOptions,
  PcapngCapture,
  type PcapngCaptureOptions,
  Verdict,
} from '../../src/translator/index.ts';
import { verifyChecksums } from '../oracle/verify.ts';
import { tcpPacket } from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { PLAN, pathOf, Scene } from './scene.ts';

describe('translate refuses', () => {
  const packet = tcpPacket(pathOf(4, 'site-a', 'cloud').before, {
    sourcePort: 49_500,
    destinationPort: 5672,
  });
  const countersOf = ({ translator }: Scene): unknown =>
    [0, 1, 2].map((realm) => translator.counters(realm));

  test.each([3, 99, -1, 0.5, 1.5, Number.NaN, 2 ** 32, 2 ** 32 + 1, Number.POSITIVE_INFINITY])(
    'from index %d, which no realm has: dropped, and counted nowhere',
    (realm) => {
      // The first realm is site A's, so that an index that became 0 would find its path.
      const plan = { ...PLAN, realms: [PLAN.realms[1]!, PLAN.realms[0]!, PLAN.realms[2]!] };
      const scene = new Scene({ plan });
      scene.forward('site-a', packet);
      const before = countersOf(scene);
      const buffer = packet.slice();
      const verdict = scene.translator.translate(realm, buffer, 0, buffer.length);
      expect(verdict).toBe(Verdict.DropNoPresence);
      expect(buffer).toEqual(packet);
      expect(countersOf(scene)).toEqual(before);
    }
  );

  test.each([
    ['end behind the buffer', 0, 41],
    ['start before the buffer', -4, 36],
    ['start behind the buffer', 100, 140],
    ['end before start', 40, 0],
    ['no numbers', Number.NaN, Number.NaN],
  ])('a range with %s is malformed', (_name, start, end) => {
    const { translator } = new Scene();
    const buffer = packet.slice();
    const longer = packet.slice();
    // Its length field agrees with a range of 41 bytes.
    longer[3] = 41;
    longer[11]! -= 1;
    for (const bytes of [buffer, longer]) {
      expect(translator.translate(1, bytes, start, end)).toBe(Verdict.DropMalformed);
    }
    expect(buffer).toEqual(packet);
  });

  test.each([
    ['behind the buffer', 50],
    ['over the packet', 1],
    ['behind the packet', 60],
  ])('a virtio-net header %s is malformed', (_name, vnet) => {
    const { translator } = new Scene();
    const buffer = new Uint8Array(80);
    buffer.set(packet, 10);
    const before = buffer.slice();
    expect(translator.translate(1, buffer, 10, 50, vnet)).toBe(Verdict.DropMalformed);
    expect(buffer).toEqual(before);
  });

  test('without a virtio-net header the checksums are complete, whatever bytes are in front', () => {
    const { translator } = new Scene();
    const buffer = new Uint8Array(10 + packet.length).fill(0xff);
    buffer.set(packet, 10);
    expect(translator.translate(1, buffer, 10, buffer.length, -1)).toBe(Verdict.Forward);
    expect(verifyChecksums(framed(buffer.subarray(10)))).toEqual([]);
  });
});

describe('options', () => {
  test.each<[options: unknown, message: string]>([
    [5, 'options must be an object, not 5'],
    [null, 'options must be an object, not null'],
    [{ maxPaths: '5' }, 'maxPaths must be a whole number from 1 to 16777216, not "5"'],
    [{ maxPathsOfRealm: 0 }, 'maxPathsOfRealm must be a whole number from 1 to 33554432, not 0'],
    [{ pathIdleMs: 1.5 }, 'pathIdleMs must be a whole number from 1000 to 86400000, not 1.5'],
    [{ replyGraceMs: -1 }, 'replyGraceMs must be a whole number from 0 to 86400000, not -1'],
    [
      { maxSessions: {} },
      'maxSessions must be a whole number from 1 to 16777216, not an object of another kind',
    ],
    [{ udpTimeoutMs: 0 }, 'udpTimeoutMs must be a whole number from 1 to '],
    [{ icmpTimeoutMs: Number.NaN }, 'icmpTimeoutMs must be a whole number from 1 to '],
    [{ maxFragments: 0 }, 'maxFragments must be a whole number from 1 to 1048576, not 0'],
    [
      { fragmentTimeoutMs: 120_001 },
      'fragmentTimeoutMs must be a whole number from 1 to 120000, not 120001',
    ],
    [
      { maxRepliesPerSecond: [] },
      'maxRepliesPerSecond must be a whole number from 0 to 1073741824, not a list',
    ],
  ])('of a translator, %j, are refused', (options, message) => {
    const make = () => new PacketTranslator(options as PacketTranslatorOptions);
    expect(make).toThrow(ApiMisuseError);
    expect(make).toThrow(message);
  });

  test.each<[options: unknown, message: string]>([
    [undefined, 'options must be an object, not undefined'],
    [{}, 'write must be a function, not undefined'],
    [{ write() {}, wants: true }, 'wants must be a function, not true'],
    [{ write() {}, snapLength: 0 }, 'snapLength must be a whole number from 1 to 65535, not 0'],
    [
      { write() {}, clock: 5 },
      'clock must be an object with the methods wallMs, monotonicMs, after, not 5',
    ],
  ])('of a capture, %j, are refused', (options, message) => {
    const make = () => new PcapngCapture(options as PcapngCaptureOptions);
    expect(make).toThrow(ApiMisuseError);
    expect(make).toThrow(message);
  });

  test('have the documented defaults', () => {
    expect(PACKET_TRANSLATOR_DEFAULTS).toEqual({
      maxPaths: 1_000_000,
      maxPathsOfRealm: 131_072,
      pathIdleMs: 300_000,
      replyGraceMs: 120_000,
      maxSessions: 65_536,
      udpTimeoutMs: 300_000,
      icmpTimeoutMs: 60_000,
      maxFragments: 1024,
      fragmentTimeoutMs: 15_000,
      maxRepliesPerSecond: 1000,
    });
    expect(Object.isFrozen(PACKET_TRANSLATOR_DEFAULTS)).toBe(true);
  });
});
