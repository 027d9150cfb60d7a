import { describe, expect, test } from 'vitest';
import {
  type Ends,
  echoPacket,
  icmpError,
  ipPacket,
  tcpPacket,
  udpPacket,
} from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { mixedPath, mixedScene, UNBOUND } from './mixed.ts';
import type { Scene } from './scene.ts';

const { request, reply } = mixedPath(4, 4);
const OPEN = { sourcePort: 40_000, destinationPort: 5672 };
const tcp = (ends: Ends, more: object = {}): Uint8Array => tcpPacket(ends, { ...OPEN, ...more });
const udp = (ends: Ends, more: object = {}): Uint8Array =>
  udpPacket(ends, { sourcePort: 40_000, destinationPort: 53, ...more });

/** `realm` is `site` unless told otherwise. */
interface Row {
  readonly packet: Uint8Array;
  readonly verdict: string;
  readonly step: string;
  readonly reason: string;
  readonly realm?: string;
  readonly egress?: string;
  readonly scene?: () => Scene;
}

const TO_SERVICE = '10.0.0.5 to 100.64.0.1, which stands for 10.0.0.9 of "cloud"';

const ROWS: Record<string, Row> = {
  'TCP that passes': {
    packet: tcp(request.before),
    verdict: 'Forward',
    step: 'rewrite',
    reason: `TCP 40000 to 5672 from ${TO_SERVICE} goes to "cloud"`,
    egress: 'cloud',
  },
  'an echo request that passes': {
    packet: echoPacket(request.before, {}),
    verdict: 'Forward',
    step: 'rewrite',
    reason: `an echo request from ${TO_SERVICE} goes to "cloud"`,
    egress: 'cloud',
  },
  'a protocol by number that passes': {
    packet: ipPacket(request.before, 47, new Uint8Array(4)),
    verdict: 'Forward',
    step: 'rewrite',
    reason: `IP protocol 47 from ${TO_SERVICE} goes to "cloud"`,
    egress: 'cloud',
  },
  'IPv6 that leaves as IPv4': {
    packet: tcp(mixedPath(6, 4).request.before),
    verdict: 'Forward',
    step: 'rewrite',
    reason:
      'TCP 40000 to 5672 from fd00::5 to fd64::4, which stands for 10.0.0.9 of "cloud" goes to "cloud"',
    egress: 'cloud',
  },
  'a packet that is cut': {
    packet: tcp(request.before).slice(0, 39),
    verdict: 'DropMalformed',
    step: 'headers',
    reason: 'the 39 bytes are no packet whose lengths and checksums agree',
  },
  DCCP: {
    packet: ipPacket(request.before, 33, new Uint8Array(4)),
    verdict: 'DropUnsupported',
    step: 'headers',
    reason: 'the packet has a protocol, ICMP type, option or extension header that is not handled',
  },
  'a tiny fragment': {
    packet: ipPacket(request.before, 6, new Uint8Array(8), { fragment: 0x2000 }),
    verdict: 'DropFragment',
    step: 'headers',
    reason: 'the fragment is tiny, overlaps another, or cannot be translated',
  },
  'a later fragment without a first one': {
    packet: ipPacket(request.before, 17, new Uint8Array(8), { fragment: 9 }),
    verdict: 'DropFragmentOrphan',
    step: 'headers',
    reason: 'no first fragment of this datagram was forwarded lately',
  },
  'to nobody': {
    packet: tcp({ ...request.before, destination: UNBOUND[4] }),
    verdict: 'DropNoPresence',
    step: 'destination',
    reason: '100.64.0.200 stands for nothing in "site"',
  },
  'from nowhere': {
    packet: tcp({ ...request.before, source: '192.0.2.9' }),
    verdict: 'DropSpoofed',
    step: 'source',
    reason: '192.0.2.9 is not an address that packets of "site" may come from',
  },
  'to a port that is not exposed': {
    packet: tcp(request.before, { destinationPort: 22 }),
    verdict: 'DropNotPermitted',
    step: 'permission',
    reason:
      'nothing lets 10.0.0.5 of "site" send TCP 40000 to 22 to 100.64.0.1, which stands for 10.0.0.9 of "cloud"',
  },
  'a reply to no request': {
    packet: udpPacket(reply.before, { sourcePort: 53, destinationPort: 40_000 }),
    realm: 'cloud',
    verdict: 'DropNoSession',
    step: 'session',
    reason:
      'UDP 53 to 40000 from 10.0.0.9 to 100.64.0.11, which stands for 10.0.0.5 of "site" answers no recent request',
  },
  'a host without a presence': {
    packet: tcp({ ...request.before, source: '10.0.0.6' }),
    verdict: 'NeedsPresence',
    step: 'presence',
    reason: '10.0.0.6 of "site" has no presence in "cloud" yet',
    egress: 'cloud',
  },
  'an ICMP error about a packet to a host without a presence: that host is named': {
    packet: icmpError(
      { source: '192.0.2.1', destination: request.before.destination },
      {
        type: 11,
        quoted: tcp(
          { source: request.before.destination, destination: '10.0.0.6' },
          { sourcePort: 5672, destinationPort: 40_000 }
        ),
      }
    ),
    verdict: 'NeedsPresence',
    step: 'presence',
    reason: '10.0.0.6 of "site" has no presence in "cloud" yet',
    egress: 'cloud',
  },
  'an ICMP error about a packet to an address of no host: that address is named': {
    packet: icmpError(
      { source: '10.0.0.1', destination: request.before.destination },
      { type: 11, quoted: udp({ source: request.before.destination, destination: '192.0.2.9' }) }
    ),
    verdict: 'DropSpoofed',
    step: 'source',
    reason: '192.0.2.9 is not an address that packets of "site" may come from',
  },
  'more paths than the table has': {
    scene: () => {
      const scene = mixedScene({ maxPaths: 1 });
      scene.forward('site', tcp(request.before));
      return scene;
    },
    packet: tcp(mixedPath(4, 6).request.before),
    verdict: 'DropTableFull',
    step: 'room',
    reason: 'the table of paths is full',
  },
  'an authentication header between IP versions': {
    packet: ipPacket(mixedPath(4, 6).request.before, 51, new Uint8Array(24)),
    verdict: 'DropUnsupported',
    step: 'room',
    reason: 'the packet cannot change its IP version',
  },
  'a fragment of an echo between IP versions': {
    packet: ipPacket(
      mixedPath(4, 6).request.before,
      1,
      echoPacket(request.before, {}).subarray(20),
      {
        fragment: 0x2000,
      }
    ),
    verdict: 'DropFragment',
    step: 'room',
    reason: 'the packet cannot change its IP version',
  },
  'a packet that is too big': {
    scene: () => mixedScene({ cloud: { mtu: 1280 } }),
    packet: udp(request.before, { payload: new Uint8Array(1400) }),
    verdict: 'DropTooBig',
    step: 'size',
    reason:
      'the packet to 100.64.0.1, which stands for 10.0.0.9 of "cloud" is larger than the realm there takes',
  },
};

test.each(Object.entries(ROWS))('%s', (_name, row) => {
  const { packet, verdict, step, reason, egress, realm = 'site' } = row;
  const scene = row.scene?.() ?? mixedScene();
  const before = packet.slice();
  const { packet: result, ...explanation } = scene.translator.explain(packet, realm);
  expect(explanation).toMatchObject({ verdict, step });
  // Which words say that a version cannot be changed is free; those of the others are promised.
  if (!reason.startsWith('the packet cannot change')) expect(explanation.reason).toBe(reason);
  expect(explanation.egress).toBe(egress);
  expect(packet).toEqual(before);
  // What it says is what becomes of the packet.
  const sent = scene.send(realm, packet);
  expect(sent.verdict).toBe(verdict);
  expect(result).toEqual(verdict === 'Forward' ? sent.packet : undefined);
});

test('the size that a packet is to be cut to', () => {
  const { translator } = mixedScene({ cloud: { mtu: 1280 } });
  const explain = (length: number): unknown =>
    translator.explain(
      udp(request.before, { payload: new Uint8Array(length), fragment: 0 }),
      'site'
    );
  expect(explain(1400)).toMatchObject({ verdict: 'Forward', segmentTo: 1280 });
  expect(explain(100)).not.toHaveProperty('segmentTo');
});

test('a virtio-net header tells of a partial checksum', () => {
  const { translator } = mixedScene();
  const packet = tcp(request.before, { checksum: 'partial' });
  const vnet = framed(packet, { flags: 1, checksumStart: 20, checksumOffset: 16 }).slice(0, 10);
  expect(translator.explain(packet, 'site', vnet).packet).toEqual(
    tcp(request.after, { checksum: 'partial' })
  );
  vnet[6] = 21;
  expect(translator.explain(packet, 'site', vnet)).toMatchObject({
    verdict: 'DropMalformed',
    step: 'headers',
  });
});

test('a realm that no plan has is a mistake of the caller', () => {
  expect(() => mixedScene().translator.explain(tcp(request.before), 'moon')).toThrow(
    'there is no realm "moon"'
  );
});

describe('explaining has no effect', () => {
  test('on the counters', () => {
    const scene = mixedScene();
    scene.forward('site', tcp(request.before));
    const before = [scene.counters('site'), scene.counters('cloud'), scene.paths()];
    for (const { packet, realm = 'site' } of Object.values(ROWS)) {
      scene.translator.explain(packet, realm);
    }
    expect([scene.counters('site'), scene.counters('cloud')]).toEqual(before.slice(0, 2));
  });

  test('on the paths: none is opened', () => {
    const scene = mixedScene({ maxPaths: 1 });
    scene.translator.explain(tcp(mixedPath(4, 6).request.before), 'site');
    expect(scene.paths()).toEqual([]);
    // So the table has room still.
    expect(scene.send('site', tcp(request.before)).verdict).toBe('Forward');
  });

  test('on sessions', () => {
    const scene = mixedScene();
    const answer = udpPacket(reply.before, { sourcePort: 53, destinationPort: 40_000 });
    expect(scene.translator.explain(udp(request.before), 'site').verdict).toBe('Forward');
    expect(scene.send('cloud', answer).verdict).toBe('DropNoSession');
    // Nor is one refreshed.
    scene.forward('site', udp(request.before));
    scene.translator.advance(300_000);
    scene.translator.explain(udp(request.before), 'site');
    scene.translator.advance(300_001);
    expect(scene.send('cloud', answer).verdict).toBe('DropNoSession');
  });

  test('on fragments: none is noted, and none spoils its datagram', () => {
    const scene = mixedScene();
    const bytes = udp(request.before, { payload: new Uint8Array(64) }).subarray(20);
    const piece = (from: number, to: number): Uint8Array =>
      ipPacket(request.before, 17, bytes.subarray(from, to), { fragment: 0x2000 | (from / 8) });
    expect(scene.translator.explain(piece(0, 32), 'site').verdict).toBe('Forward');
    expect(scene.send('site', piece(32, 40)).verdict).toBe('DropFragmentOrphan');
    scene.forward('site', piece(0, 32));
    expect(scene.translator.explain(piece(32, 40), 'site').verdict).toBe('Forward');
    expect(scene.translator.explain(piece(24, 40), 'site').verdict).toBe('DropFragment');
    expect(scene.send('site', piece(32, 40)).verdict).toBe('Forward');
  });

  test('on the identification of packets that become IPv4', () => {
    const way = mixedPath(6, 4);
    const scene = mixedScene();
    for (let i = 0; i < 3; i++) scene.translator.explain(udp(way.request.before), 'site');
    const explained = scene.translator.explain(udp(way.request.before), 'site').packet;
    expect(scene.forward('site', udp(way.request.before))).toEqual(explained);
  });

  test('on the replies, which are not made', () => {
    const scene = mixedScene({ site: { reject: 'reset' }, maxRepliesPerSecond: 1 });
    const refused = udp(request.before, { destinationPort: 9 });
    for (let i = 0; i < 3; i++) scene.translator.explain(refused, 'site');
    scene.send('site', refused);
    expect(scene.reply).toBeDefined();
  });

  test('on the tap, which is shown nothing', () => {
    const scene = mixedScene();
    const shown: string[] = [];
    scene.translator.capture({
      wants: () => true,
      packet: (direction) => shown.push(direction),
    });
    scene.translator.explain(tcp(request.before), 'site');
    scene.translator.explain(
      icmpError(reply.before, { type: 3, code: 3, quoted: tcp(request.after) }),
      'cloud'
    );
    expect(shown).toEqual([]);
  });

  test('on what is said of the packet before', () => {
    const scene = mixedScene();
    const { translator } = scene;
    scene.send('site', tcp({ ...request.before, source: '10.0.0.6' }));
    translator.explain(tcp({ ...reply.before, source: '10.0.0.7' }), 'cloud');
    translator.explain(tcp({ ...mixedPath(6, 6).request.before, source: 'fd00::7' }), 'site');
    expect(translator.realmName(translator.egress)).toBe('cloud');
    expect([translator.lackingPresence().toString(), translator.lackingFamily]).toEqual([
      '10.0.0.6',
      4,
    ]);
    const forwarded = scene.send('site', tcp(request.before));
    const { start, end, egress } = translator;
    translator.explain(tcp(mixedPath(6, 4).request.before), 'site');
    expect([translator.start, translator.end, translator.egress]).toEqual([start, end, egress]);
    expect(forwarded.verdict).toBe('Forward');
  });

  test('on what stands behind an address: the presence it lacks stays lacking', () => {
    const scene = mixedScene();
    const packet = tcp({ ...request.before, source: '10.0.0.6' });
    scene.translator.explain(packet, 'site');
    expect(scene.send('site', packet).verdict).toBe('NeedsPresence');
  });
});
