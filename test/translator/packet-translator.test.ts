import { describe, expect, test } from 'vitest';
import { verifyChecksums } from '../oracle/verify.ts';
import {
  ACK,
  type Ends,
  echoPacket,
  FIN,
  icmpMessage,
  ipPacket,
  SYN,
  TCP,
  tcpPacket,
  UDP,
  udpPacket,
} from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { ADDRESSES, expectForwarded, FAMILIES, PAYLOAD, PLAN, pathOf, Scene } from './scene.ts';

describe('a packet that is permitted leaves with both addresses and all checksums translated', () => {
  const paths = FAMILIES.flatMap((family) => [
    { ...pathOf(family, 'site-a', 'cloud'), client: 49_500, port: 5672 },
    { ...pathOf(family, 'site-b', 'cloud'), client: 49_500, port: 5672 },
    { ...pathOf(family, 'cloud', 'site-a'), client: 33_000, port: 16_509 },
    { ...pathOf(family, 'cloud', 'site-b'), client: 33_000, port: 16_509 },
    { ...pathOf(family, 'site-b', 'site-a'), client: 50_000, port: 49_152 },
    { ...pathOf(family, 'cloud', 'site-a', 'reply'), client: 5672, port: 49_500 },
    { ...pathOf(family, 'cloud', 'site-b', 'reply'), client: 5672, port: 49_500 },
    { ...pathOf(family, 'site-a', 'cloud', 'reply'), client: 16_509, port: 33_000 },
    { ...pathOf(family, 'site-b', 'cloud', 'reply'), client: 16_509, port: 33_000 },
    { ...pathOf(family, 'site-a', 'site-b', 'reply'), client: 49_215, port: 50_000 },
  ]);

  test.each(paths)('TCP: $name', ({ ingress, egress, before, after, client, port }) => {
    const flags = [FIN | ACK, ACK, SYN | ACK];
    for (const flag of flags) {
      const segment = { sourcePort: client, destinationPort: port, flags: flag, payload: PAYLOAD };
      const sent = new Scene().send(ingress, tcpPacket(before, segment));
      expect(sent).toEqual({ verdict: 'Forward', egress, packet: tcpPacket(after, segment) });
    }
  });

  test.each(FAMILIES)('UDP over IPv%i: translates a query and its answer', (family) => {
    const scene = new Scene();
    const query = { sourcePort: 40_000, destinationPort: 53, payload: PAYLOAD };
    const answer = { sourcePort: 53, destinationPort: 40_000, payload: PAYLOAD.toReversed() };
    expectForwarded(scene, pathOf(family, 'site-a', 'cloud'), (ends) => udpPacket(ends, query));
    expectForwarded(scene, pathOf(family, 'cloud', 'site-a'), (ends) => udpPacket(ends, answer));
  });

  test.each(FAMILIES)('echo over IPv%i: translates a request and its reply', (family) => {
    const scene = new Scene();
    const echo = { id: 77, sequence: 3, payload: PAYLOAD };
    expectForwarded(scene, pathOf(family, 'site-b', 'cloud'), (ends) => echoPacket(ends, echo));
    expectForwarded(scene, pathOf(family, 'cloud', 'site-b'), (ends) =>
      echoPacket(ends, { ...echo, reply: true })
    );
  });

  test('IPv4 options without addresses, DSCP, identification and hop limit do not change', () => {
    const options = Uint8Array.of(0x94, 4, 0, 0, 1, 1, 1, 0);
    expectForwarded(new Scene(), pathOf(4, 'site-a', 'cloud'), (ends) =>
      udpPacket(ends, {
        sourcePort: 40_000,
        destinationPort: 53,
        options,
        trafficClass: 0xb9,
        identification: 0x1234,
        hopLimit: 1,
        fragment: 0x8000,
      })
    );
  });

  test.each([0, 1, 2, 3, 1371, 1372])('translates a payload of %i bytes', (length) => {
    for (const family of FAMILIES) {
      const payload = new Uint8Array(length).fill(0xff);
      expectForwarded(new Scene(), pathOf(family, 'site-a', 'cloud'), (ends) =>
        udpPacket(ends, { sourcePort: 40_000, destinationPort: 53, payload })
      );
    }
  });

  test.each([0, 1, 2, 7, 63])('translates a packet at offset %i in the buffer', (start) => {
    const { before, after } = pathOf(4, 'site-a', 'cloud');
    const packet = tcpPacket(before, { sourcePort: 49_500, destinationPort: 5672 });
    const { translator } = new Scene();
    const buffer = new Uint8Array(start + packet.length);
    buffer.set(packet, start);
    const realm = translator.realm('site-a');
    expect(translator.translate(realm, buffer, start, buffer.length)).toBe(0);
    expect(buffer.subarray(start)).toEqual(
      tcpPacket(after, { sourcePort: 49_500, destinationPort: 5672 })
    );
  });
});

describe('checksums', () => {
  test('UDP over IPv4 without a checksum stays without one (RFC 768)', () => {
    expectForwarded(new Scene(), pathOf(4, 'site-a', 'cloud'), (ends) =>
      udpPacket(ends, { sourcePort: 40_000, destinationPort: 53, checksum: 'none' })
    );
  });

  test.each(FAMILIES)('a UDP checksum that becomes 0 is sent as 0xffff, IPv%i', (family) => {
    const toCloud = pathOf(family, 'site-a', 'cloud');
    const { packet, checksum } = summingToZero(toCloud.after, UDP);
    expect(checksum(packet(toCloud.after))).toBe(0xffff);
    expect(checksum(packet(toCloud.before))).not.toBe(0xffff);
    expectForwarded(new Scene(), toCloud, packet);
  });

  test.each(FAMILIES)(
    'a UDP checksum that was 0 and sent as 0xffff is changed, IPv%i',
    (family) => {
      const toCloud = pathOf(family, 'site-a', 'cloud');
      const { packet, checksum } = summingToZero(toCloud.before, UDP);
      expect(checksum(packet(toCloud.before))).toBe(0xffff);
      expect(checksum(packet(toCloud.after))).not.toBe(0xffff);
      expectForwarded(new Scene(), toCloud, packet);
    }
  );

  test.each(FAMILIES)('a TCP checksum that becomes 0 is sent as 0, IPv%i', (family) => {
    const toCloud = pathOf(family, 'site-a', 'cloud');
    const { packet, checksum } = summingToZero(toCloud.after, TCP);
    expect(checksum(packet(toCloud.after))).toBe(0);
    expectForwarded(new Scene(), toCloud, packet);
  });

  test('a wrong transport checksum is forwarded and stays wrong', () => {
    const { before } = pathOf(4, 'site-a', 'cloud');
    const packet = tcpPacket(before, { sourcePort: 1, destinationPort: 5672, checksum: 0x1234 });
    expect(verifyChecksums(framed(new Scene().forward('site-a', packet)))).toEqual(['tcp']);
  });

  test('a wrong checksum does not change if the addresses do not', () => {
    const plan = {
      realms: ['x', 'y'].map((name) => ({ name, sources: ['10.0.0.0/8'] })),
      presences: [
        { realm: 'x', address: '10.0.0.2', of: { realm: 'y', address: '10.0.0.2' } },
        { realm: 'y', address: '10.0.0.1', of: { realm: 'x', address: '10.0.0.1' } },
      ],
      permits: [{ realm: 'x', service: { realm: 'y', address: '10.0.0.2' }, ports: ['tcp/1-9'] }],
    };
    const ends = { source: '10.0.0.1', destination: '10.0.0.2' };
    for (const checksum of [0x0000, 0xffff, 0x1234]) {
      const packet = tcpPacket(ends, { sourcePort: 1, destinationPort: 2, checksum });
      expect(new Scene({ plan }).forward('x', packet)).toEqual(packet);
    }
  });
});

describe('verdicts', () => {
  const { host, unknownHost, cloud, siteA, unbound, foreign, router } = ADDRESSES[4];
  const toCloud = { source: host, destination: cloud };
  const tcp = (ends: Ends, port: number, flags = SYN): Uint8Array =>
    tcpPacket(ends, { sourcePort: 49_500, destinationPort: port, flags });
  const udp = (ends: Ends, port: number): Uint8Array =>
    udpPacket(ends, { sourcePort: 40_000, destinationPort: port });

  test.each<[reason: string, verdict: string, ingress: string, packet: Uint8Array]>([
    ['a truncated packet', 'DropMalformed', 'site-a', tcp(toCloud, 5672).slice(0, 39)],
    ['nothing', 'DropMalformed', 'site-a', new Uint8Array(0)],
    [
      'UDP over IPv6 with checksum 0',
      'DropMalformed',
      'site-a',
      udpPacket(pathOf(6, 'site-a', 'cloud').before, {
        sourcePort: 40_000,
        destinationPort: 53,
        checksum: 'none',
      }),
    ],
    ['DCCP', 'DropUnsupported', 'site-a', ipPacket(toCloud, 33, PAYLOAD)],
    [
      'a protocol that is not exposed',
      'DropNotPermitted',
      'site-a',
      ipPacket(toCloud, 47, PAYLOAD),
    ],
    ['an ICMP redirect', 'DropUnsupported', 'site-a', icmpMessage(toCloud, { type: 5 })],
    [
      'a tiny fragment',
      'DropFragment',
      'site-a',
      ipPacket(toCloud, TCP, new Uint8Array(16), { fragment: 0x2000 }),
    ],
    [
      'a later fragment without a first one',
      'DropFragmentOrphan',
      'site-a',
      ipPacket(toCloud, UDP, new Uint8Array(16), { fragment: 0x2002 }),
    ],
    [
      'an unused address of a pool',
      'DropNoPresence',
      'site-a',
      tcp({ source: host, destination: unbound }, 5672),
    ],
    [
      'the real address of the service, which means a host of the site here',
      'DropNoPresence',
      'site-a',
      tcp({ source: host, destination: host }, 5672),
    ],
    [
      'an address that stands for somebody in another realm only',
      'DropNoPresence',
      'cloud',
      tcp({ source: host, destination: cloud }, 5672),
    ],
    [
      'a presence of the other IP version',
      'DropNoPresence',
      'site-a',
      tcp({ source: 'fd00::5', destination: `::ffff:6440:1` }, 5672),
    ],
    [
      'a source outside of the realm',
      'DropSpoofed',
      'site-a',
      tcp({ source: foreign, destination: cloud }, 5672),
    ],
    [
      'a source out of the pool',
      'DropSpoofed',
      'site-a',
      tcp({ source: unbound, destination: cloud }, 5672),
    ],
    [
      'a source that is the presence of another host',
      'DropSpoofed',
      'cloud',
      tcp({ source: siteA, destination: siteA }, 16_509),
    ],
    ['a port that is not exposed', 'DropNotPermitted', 'site-a', tcp(toCloud, 5671)],
    ['a port one too high', 'DropNotPermitted', 'site-a', tcp(toCloud, 5673)],
    ['the port of the other protocol', 'DropNotPermitted', 'site-a', udp(toCloud, 5672)],
    ['TCP to the UDP port', 'DropNotPermitted', 'site-a', tcp(toCloud, 53)],
    [
      'echo where only TCP is exposed',
      'DropNotPermitted',
      'cloud',
      echoPacket({ source: host, destination: siteA }, {}),
    ],
    [
      'an echo reply from a client, which answers nothing',
      'DropNotPermitted',
      'site-a',
      echoPacket(toCloud, { reply: true }),
    ],
    [
      'a session that the service opens to its client',
      'DropNotPermitted',
      'site-a',
      tcp(pathOf(4, 'site-a', 'site-b').before, 50_000),
    ],
    [
      'a session that the service opens from its own port',
      'DropNotPermitted',
      'cloud',
      tcpPacket(pathOf(4, 'cloud', 'site-a').before, {
        sourcePort: 5672,
        destinationPort: 49_500,
        flags: SYN,
      }),
    ],
    [
      'a host whose presence is there, but is not exposed to anybody',
      'DropNotPermitted',
      'cloud',
      tcp({ source: unknownHost, destination: siteA }, 22),
    ],
    [
      'a client without a presence yet',
      'NeedsPresence',
      'site-a',
      tcp({ source: unknownHost, destination: cloud }, 5672),
    ],
    [
      'a client that is a router, if it is permitted',
      'NeedsPresence',
      'site-a',
      tcp({ source: router, destination: cloud }, 5672),
    ],
  ])('%s: %s', (_reason, verdict, ingress, packet) => {
    const scene = new Scene();
    for (let i = 1; i <= 2; i++) {
      expect(scene.send(ingress, packet).verdict).toBe(verdict);
      expect(scene.counters(ingress)).toEqual({ [verdict]: i });
    }
    expect(scene.paths()).toEqual([]);
  });

  test('a reply without a request is DropNoSession', () => {
    const scene = new Scene();
    const answer = { sourcePort: 53, destinationPort: 40_000 };
    const packet = udpPacket(pathOf(4, 'cloud', 'site-a', 'reply').before, answer);
    expect(scene.send('cloud', packet).verdict).toBe('DropNoSession');
    expect(scene.counters('cloud')).toEqual({ DropNoSession: 1 });
  });

  test('the checks decide in their order: presence, then source, then permission', () => {
    const scene = new Scene();
    const verdict = (source: string, destination: string): string =>
      scene.send('site-a', tcp({ source, destination }, 1)).verdict;
    expect(verdict(foreign, unbound)).toBe('DropNoPresence');
    expect(verdict(foreign, cloud)).toBe('DropSpoofed');
    expect(verdict(unknownHost, cloud)).toBe('DropNotPermitted');
  });

  test.each([
    ['SYN', SYN, 'DropNotPermitted'],
    ['SYN and FIN', SYN | FIN, 'DropNotPermitted'],
    ['SYN with both congestion bits', SYN | 0xc0, 'DropNotPermitted'],
    ['SYN and ACK', SYN | ACK, 'Forward'],
    ['ACK', ACK, 'Forward'],
    ['RST', 0x04, 'Forward'],
    ['no flag', 0, 'Forward'],
  ])('a segment from the service with %s as a reply: %3$s', (_name, flags, verdict) => {
    const { before } = pathOf(4, 'cloud', 'site-a', 'reply');
    const packet = tcpPacket(before, { sourcePort: 5672, destinationPort: 49_500, flags });
    const scene = new Scene();
    expect(scene.send('cloud', packet).verdict).toBe(verdict);
    // The same once the path is known.
    scene.forward('cloud', tcpPacket(before, { sourcePort: 5672, destinationPort: 2, flags: ACK }));
    expect(scene.send('cloud', packet).verdict).toBe(verdict);
  });

  test('a range of ports contains its first and its last port, and not their neighbours', () => {
    const { before } = pathOf(4, 'site-b', 'site-a');
    const verdicts = [49_151, 49_152, 49_215, 49_216].map(
      (port) => new Scene().send('site-b', tcp(before, port)).verdict
    );
    expect(verdicts).toEqual(['DropNotPermitted', 'Forward', 'Forward', 'DropNotPermitted']);
  });

  test('a permit admits the clients that it names, and no others of the realm', () => {
    const permits = PLAN.permits.map((permit) => ({ ...permit, clients: ['10.0.0.6/31'] }));
    const scene = new Scene({ plan: { ...PLAN, permits } });
    const verdicts = ['10.0.0.5', '10.0.0.6', '10.0.0.7', '10.0.0.8'].map(
      (source) => scene.send('site-a', tcp({ source, destination: cloud }, 5672)).verdict
    );
    expect(verdicts).toEqual([
      'DropNotPermitted',
      'NeedsPresence',
      'NeedsPresence',
      'DropNotPermitted',
    ]);
  });

  test('a permit for a wider range of clients does not admit an address outside of the sources', () => {
    const permits = PLAN.permits.map((permit) => ({ ...permit, clients: ['0.0.0.0/0'] }));
    const scene = new Scene({ plan: { ...PLAN, permits } });
    const packet = tcp({ source: foreign, destination: cloud }, 5672);
    expect(scene.send('site-a', packet).verdict).toBe('DropSpoofed');
  });
});

/**
 * A packet whose checksum is a computed 0 when it goes between `ends`: its last word is the checksum
 * that it would have without that word.
 */
function summingToZero(
  ends: Ends,
  protocol: typeof TCP | typeof UDP
): { packet: (ends: Ends) => Uint8Array; checksum: (packet: Uint8Array) => number } {
  const build = (ends: Ends, payload: Uint8Array): Uint8Array =>
    protocol === TCP
      ? tcpPacket(ends, { sourcePort: 49_500, destinationPort: 5672, payload })
      : udpPacket(ends, { sourcePort: 40_000, destinationPort: 53, payload });
  const checksum = (packet: Uint8Array): number => {
    const at = (packet[0]! >>> 4 === 4 ? 20 : 40) + (protocol === TCP ? 16 : 6);
    return (packet[at]! << 8) | packet[at + 1]!;
  };
  const missing = checksum(build(ends, new Uint8Array(2)));
  const payload = Uint8Array.of(missing >>> 8, missing);
  return { packet: (ends) => build(ends, payload), checksum };
}
