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

/** `realm` is `site` by default. */
interface Row {
  readonly packet: Uint8Array;
  readonly verdict: string;
  readonly step: string;
  readonly reason: string;
  readonly realm?: string;
  readonly egress?: string;
  readonly scene?: () => Scene;
}

const SERVICE = '(10.0.0.9 of "cloud")';
const NO_SIIT =
  'the packet cannot be translated between IPv4 and IPv6 (RFC 7915): it has an authentication header, ' +
  'is a fragment of ICMP or of UDP without a checksum, or is an ICMP error without a counterpart';

const ROWS: Record<string, Row> = {
  'a permitted TCP segment is forwarded': {
    packet: tcp(request.before),
    verdict: 'Forward',
    step: 'rewrite',
    reason: `TCP from 10.0.0.5:40000 to 100.64.0.1:5672 ${SERVICE} is forwarded to "cloud"`,
    egress: 'cloud',
  },
  'a permitted echo request is forwarded': {
    packet: echoPacket(request.before, {}),
    verdict: 'Forward',
    step: 'rewrite',
    reason: `an echo request from 10.0.0.5 to 100.64.0.1 ${SERVICE} is forwarded to "cloud"`,
    egress: 'cloud',
  },
  'a permitted protocol by number is forwarded': {
    packet: ipPacket(request.before, 47, new Uint8Array(4)),
    verdict: 'Forward',
    step: 'rewrite',
    reason: `IP protocol 47 from 10.0.0.5 to 100.64.0.1 ${SERVICE} is forwarded to "cloud"`,
    egress: 'cloud',
  },
  'an IPv6 packet leaves as IPv4': {
    packet: tcp(mixedPath(6, 4).request.before),
    verdict: 'Forward',
    step: 'rewrite',
    reason: `TCP from [fd00::5]:40000 to [fd64::4]:5672 ${SERVICE} is forwarded to "cloud"`,
    egress: 'cloud',
  },
  'a truncated packet is malformed': {
    packet: tcp(request.before).slice(0, 39),
    verdict: 'DropMalformed',
    step: 'headers',
    reason:
      'the 39 bytes are not a valid packet: a length, a checksum or an offload field is wrong',
  },
  'DCCP is not supported': {
    packet: ipPacket(request.before, 33, new Uint8Array(4)),
    verdict: 'DropUnsupported',
    step: 'headers',
    reason:
      'the packet has a protocol, ICMP type, option or extension header that is not supported',
  },
  'a tiny fragment is dropped': {
    packet: ipPacket(request.before, 6, new Uint8Array(8), { fragment: 0x2000 }),
    verdict: 'DropFragment',
    step: 'headers',
    reason:
      'the fragment is too small, overlaps another one of its datagram, or cannot be translated',
  },
  'a later fragment without a first one is an orphan': {
    packet: ipPacket(request.before, 17, new Uint8Array(8), { fragment: 9 }),
    verdict: 'DropFragmentOrphan',
    step: 'headers',
    reason: 'the first fragment of this datagram was not forwarded, or its record has expired',
  },
  'the destination is not a presence': {
    packet: tcp({ ...request.before, destination: UNBOUND[4] }),
    verdict: 'DropNoPresence',
    step: 'destination',
    reason:
      'no presence in "site" has the address 100.64.0.200: expose the service to this realm, or correct the address',
  },
  'the source is not an address of the realm': {
    packet: tcp({ ...request.before, source: '192.0.2.9' }),
    verdict: 'DropSpoofed',
    step: 'source',
    reason:
      'packets from "site" may not have the source 192.0.2.9: ' +
      "it is outside of the realm's sources, or in its pools",
  },
  'the port is not exposed': {
    packet: tcp(request.before, { destinationPort: 22 }),
    verdict: 'DropNotPermitted',
    step: 'permission',
    reason:
      `no permit allows TCP from 10.0.0.5:40000 of "site" to 100.64.0.1:22 ${SERVICE}: ` +
      'expose the service on this port to this client if it should pass',
  },
  'a reply has no request': {
    packet: udpPacket(reply.before, { sourcePort: 53, destinationPort: 40_000 }),
    realm: 'cloud',
    verdict: 'DropNoSession',
    step: 'session',
    reason:
      'UDP from 10.0.0.9:53 to 100.64.0.11:40000 (10.0.0.5 of "site") is a reply, ' +
      'and no recent request of the client is known',
  },
  'the source has no presence': {
    packet: tcp({ ...request.before, source: '10.0.0.6' }),
    verdict: 'NeedsPresence',
    step: 'presence',
    reason: '10.0.0.6 of "site" has no presence in "cloud" yet: bind one and try again',
    egress: 'cloud',
  },
  'an ICMP error about a packet to a host without a presence names that host': {
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
    reason: '10.0.0.6 of "site" has no presence in "cloud" yet: bind one and try again',
    egress: 'cloud',
  },
  'an ICMP error about a packet to an address of no host names that address': {
    packet: icmpError(
      { source: '10.0.0.1', destination: request.before.destination },
      { type: 11, quoted: udp({ source: request.before.destination, destination: '192.0.2.9' }) }
    ),
    verdict: 'DropSpoofed',
    step: 'source',
    reason:
      'packets from "site" may not have the source 192.0.2.9: ' +
      "it is outside of the realm's sources, or in its pools",
  },
  'the table of paths is full': {
    scene: () => {
      const scene = mixedScene({ maxPaths: 1 });
      scene.forward('site', tcp(request.before));
      return scene;
    },
    packet: tcp(mixedPath(4, 6).request.before),
    verdict: 'DropTableFull',
    step: 'room',
    reason:
      'the table of paths, or the share of the client realm in it, is full and has no idle path: ' +
      'raise maxPaths or maxPathsOfRealm',
  },
  'an authentication header cannot be translated between IP versions': {
    packet: ipPacket(mixedPath(4, 6).request.before, 51, new Uint8Array(24)),
    verdict: 'DropUnsupported',
    step: 'room',
    reason: NO_SIIT,
  },
  'a fragment of an echo cannot be translated between IP versions': {
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
    reason: NO_SIIT,
  },
  'the packet is too big': {
    scene: () => mixedScene({ cloud: { mtu: 1280 } }),
    packet: udp(request.before, { payload: new Uint8Array(1400) }),
    verdict: 'DropTooBig',
    step: 'size',
    reason:
      `the packet to 100.64.0.1:53 ${SERVICE} is larger than the mtu of that realm and must not be fragmented: ` +
      'its sender has to send smaller packets',
  },
};

test.each(Object.entries(ROWS))('%s', (_name, row) => {
  const { packet, verdict, step, reason, egress, realm = 'site' } = row;
  const scene = row.scene?.() ?? mixedScene();
  const before = packet.slice();
  const { packet: result, ...explanation } = scene.translator.explain(packet, realm);
  expect(explanation).toMatchObject({ verdict, step });
  expect(explanation.reason).toBe(reason);
  expect(explanation.egress).toBe(egress);
  expect(packet).toEqual(before);
  // `translate` then does what `explain` said.
  const sent = scene.send(realm, packet);
  expect(sent.verdict).toBe(verdict);
  expect(result).toEqual(verdict === 'Forward' ? sent.packet : undefined);
});

test('says the size that a packet has to be fragmented to', () => {
  const { translator } = mixedScene({ cloud: { mtu: 1280 } });
  const explain = (length: number): unknown =>
    translator.explain(
      udp(request.before, { payload: new Uint8Array(length), fragment: 0 }),
      'site'
    );
  expect(explain(1400)).toMatchObject({ verdict: 'Forward', segmentTo: 1280 });
  expect(explain(100)).not.toHaveProperty('segmentTo');
});

test('takes a partial checksum from the virtio-net header', () => {
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

test('throws for a realm that no plan has', () => {
  expect(() => mixedScene().translator.explain(tcp(request.before), 'moon')).toThrow(
    'there is no realm "moon"'
  );
});

describe('explain has no effect on', () => {
  test('the counters', () => {
    const scene = mixedScene();
    scene.forward('site', tcp(request.before));
    const before = [scene.counters('site'), scene.counters('cloud'), scene.paths()];
    for (const { packet, realm = 'site' } of Object.values(ROWS)) {
      scene.translator.explain(packet, realm);
    }
    expect([scene.counters('site'), scene.counters('cloud')]).toEqual(before.slice(0, 2));
  });

  test('the paths: it opens none', () => {
    const scene = mixedScene({ maxPaths: 1 });
    scene.translator.explain(tcp(mixedPath(4, 6).request.before), 'site');
    expect(scene.paths()).toEqual([]);
    // So the table still has room.
    expect(scene.send('site', tcp(request.before)).verdict).toBe('Forward');
  });

  test('sessions: it opens and refreshes none', () => {
    const scene = mixedScene();
    const answer = udpPacket(reply.before, { sourcePort: 53, destinationPort: 40_000 });
    expect(scene.translator.explain(udp(request.before), 'site').verdict).toBe('Forward');
    expect(scene.send('cloud', answer).verdict).toBe('DropNoSession');
    scene.forward('site', udp(request.before));
    scene.translator.advance(300_000);
    scene.translator.explain(udp(request.before), 'site');
    scene.translator.advance(300_001);
    expect(scene.send('cloud', answer).verdict).toBe('DropNoSession');
  });

  test('fragments: it records none, and marks no datagram as refused', () => {
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

  test('the identification of packets that become IPv4', () => {
    const toIpv4 = mixedPath(6, 4);
    const scene = mixedScene();
    for (let i = 0; i < 3; i++) scene.translator.explain(udp(toIpv4.request.before), 'site');
    const explained = scene.translator.explain(udp(toIpv4.request.before), 'site').packet;
    expect(scene.forward('site', udp(toIpv4.request.before))).toEqual(explained);
  });

  test('the rate of replies', () => {
    const scene = mixedScene({ site: { reject: 'reset' }, maxRepliesPerSecond: 1 });
    const refused = udp(request.before, { destinationPort: 9 });
    for (let i = 0; i < 3; i++) scene.translator.explain(refused, 'site');
    scene.send('site', refused);
    expect(scene.reply).toBeDefined();
  });

  test('the capture, which gets no packet', () => {
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

  test('the result of the packet before it', () => {
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

  test('the presences: a missing one is still missing', () => {
    const scene = mixedScene();
    const packet = tcp({ ...request.before, source: '10.0.0.6' });
    scene.translator.explain(packet, 'site');
    expect(scene.send('site', packet).verdict).toBe('NeedsPresence');
  });
});
