/**
 * Packets that do not fit the realm they go into: fragmented, refused with the size that would fit, or, in TCP,
 * never sent because the MSS says so.
 * @module
 */

import { counting } from '../../support/bytes.ts';
import {
  ACK,
  DONT_FRAGMENT,
  fragment,
  type IpOptions,
  isIpv6,
  packet,
  RST,
  SYN,
  type Transport,
} from '../../support/packets.ts';
import {
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  NEEDS_CSUM,
  type VnetHeader,
} from '../../support/vnet.ts';
import type { Case, Step, Subject } from '../corpus.ts';
import { tcp, udp } from '../packets.ts';
import {
  drop,
  forward,
  ipAfter,
  PATHS,
  type PacketPath,
  type PathName,
  pass,
  planOf,
  refusal,
  reply,
  request,
  test,
} from '../scene.ts';

export function mtuMss(): Subject {
  return {
    subject: 'mtu-mss',
    about: 'The size of packets and of TCP segments, by the mtu of the realms.',
    plans: {
      base: planOf(),
      'cloud 600': planOf({ cloud: { mtu: 600 } }),
      'cloud 1000': planOf({ cloud: { mtu: 1000 } }),
      'cloud 1400': planOf({ cloud: { mtu: 1400 } }),
      'cloud 1500': planOf({ cloud: { mtu: 1500 } }),
      'site 600': planOf({ site: { mtu: 600 } }),
      'site 1300, cloud 1400': planOf({ site: { mtu: 1300 }, cloud: { mtu: 1400 } }),
      'site 1400, cloud 1300': planOf({ site: { mtu: 1400 }, cloud: { mtu: 1300 } }),
    },
    cases: [
      ...sizes4(),
      ...sizes6(),
      ...sizes46(),
      ...sizes64(),
      ...supers(),
      ...PATHS.flatMap(mss),
    ],
  };
}

const PMTU = 'RFC 1191 section 4';
const TOO_BIG = 'RFC 4443 section 3.2';

/** A UDP datagram in a packet of `size` bytes, as it enters. */
function sized(path: PacketPath, size: number): Transport {
  return udp({ payload: counting(size - (isIpv6(path.before) ? 48 : 28)) });
}

function fits(path: PacketPath, size: number, ip: IpOptions = {}, after: IpOptions = {}): Step {
  return pass(path, sized(path, size), ip, after);
}

function fragmented(path: PacketPath, size: number, segmentTo: number, ip: IpOptions = {}): Step {
  return pass(path, sized(path, size), ip, {}, { segmentTo });
}

function tooBig(path: PacketPath, size: number, mtu: number, ip: IpOptions = {}): Step {
  const data = packet(path.before, sized(path, size), ip);
  const [type, code] = isIpv6(path.before) ? [2, 0] : [3, 4];
  return drop(path.from, data, 'DropTooBig', {
    reply: refusal(path.before, data, type!, code!, mtu),
  });
}

function sizes4(): Case[] {
  const path = request('4 to 4');
  const cites = [PMTU, 'RFC 1812 section 4.2.2.7'];
  const plan = 'cloud 1400';
  return [
    test('4 to 4: a packet of the mtu fits', cites, fits(path, 1400), { plan }),
    test('4 to 4: a packet of the mtu without DF fits', cites, fits(path, 1400, { fragment: 0 }), {
      plan,
    }),
    test(
      '4 to 4: a larger packet with DF is refused, and its sender learns the mtu',
      cites,
      tooBig(path, 1401, 1400),
      { plan }
    ),
    test(
      '4 to 4: a larger packet without DF is to be fragmented to the mtu',
      ['RFC 791 section 3.2', 'RFC 1812 section 4.2.2.7'],
      fragmented(path, 1401, 1400, { fragment: 0 }),
      { plan }
    ),
    test('4 to 4: a packet of the smallest mtu', cites, [fits(path, 600), tooBig(path, 601, 600)], {
      plan: 'cloud 600',
    }),
    test(
      '4 to 4: the mtu of the realm that a packet comes from does not count',
      cites,
      fits(path, 1500),
      { plan: 'site 600' }
    ),
    test(
      '4 to 4: a larger reply is refused by the mtu of the client’s realm',
      cites,
      tooBigReply(),
      { plan: 'site 600' }
    ),
    test(
      '4 to 4: without an mtu any packet fits',
      ['RFC 791 section 3.1'],
      fits(path, 9000, { fragment: 0 })
    ),
    test(
      '4 to 4: a larger fragment is to be fragmented, too',
      ['RFC 791 section 3.2'],
      largeFragments(path),
      { plan }
    ),
    test(
      '4 to 4: a packet that is not permitted gets no answer about its size',
      ['RFC 1812 section 4.3.2.7'],
      drop(
        'site',
        packet(path.before, udp({ destinationPort: 54, payload: counting(1400) })),
        'DropNotPermitted'
      ),
      { plan }
    ),
  ];
}

function tooBigReply(): Step {
  const { before } = reply('4 to 4');
  const data = packet(
    before,
    tcp({ sourcePort: 5672, destinationPort: 40_000, payload: counting(561) })
  );
  return drop('cloud', data, 'DropTooBig', { reply: refusal(before, data, 3, 4, 600) });
}

function largeFragments(path: PacketPath): Step[] {
  const datagram = udp({ payload: counting(2880) });
  return (
    [
      [0, 1480],
      [1480, 2888],
    ] as const
  ).map((range) =>
    forward(path, fragment(path.before, datagram, range), fragment(path.after, datagram, range), {
      segmentTo: 1400,
    })
  );
}

function sizes6(): Case[] {
  const path = request('6 to 6');
  const cites = [TOO_BIG, 'RFC 8201 section 4'];
  const datagram = udp({ payload: counting(2880) });
  const first = fragment(path.before, datagram, [0, 1440]);
  const later = fragment(path.before, datagram, [1440, 2888]);
  return [
    test('6 to 6: a packet of the mtu fits', cites, fits(path, 1400), { plan: 'cloud 1400' }),
    test(
      '6 to 6: a larger packet is refused, and its sender learns the mtu',
      cites,
      tooBig(path, 1401, 1400),
      { plan: 'cloud 1400' }
    ),
    test(
      '6 to 6: an mtu under 1280 counts as 1280',
      ['RFC 8200 section 5', ...cites],
      [fits(path, 1280), tooBig(path, 1281, 1280)],
      { plan: 'cloud 600' }
    ),
    test(
      '6 to 6: a larger first fragment is refused, and its sender learns the mtu',
      cites,
      drop('site', first, 'DropTooBig', { reply: refusal(path.before, first, 2, 0, 1400) }),
      { plan: 'cloud 1400' }
    ),
    test(
      '6 to 6: a larger later fragment is refused, and its sender gets no answer',
      cites,
      [
        forward(
          path,
          fragment(path.before, datagram, [0, 1344]),
          fragment(path.after, datagram, [0, 1344])
        ),
        drop('site', later, 'DropTooBig'),
      ],
      { plan: 'cloud 1400' }
    ),
  ];
}

function sizes46(): Case[] {
  const path = request('4 to 6');
  const cites = ['RFC 7915 section 4', PMTU];
  return [
    test(
      '4 to 6: it is the size as IPv6 that has to fit',
      cites,
      [fits(path, 1380), tooBig(path, 1381, 1380)],
      { plan: 'cloud 1400' }
    ),
    test(
      '4 to 6: a larger packet without DF is to be fragmented to the mtu',
      ['RFC 7915 section 4'],
      fragmented(path, 1381, 1400, { fragment: 0 }),
      { plan: 'cloud 1400' }
    ),
    test(
      '4 to 6: an mtu under 1280 counts as 1280, of which 1260 are reported',
      ['RFC 8200 section 5', ...cites],
      [fits(path, 1260), tooBig(path, 1261, 1260)],
      { plan: 'cloud 600' }
    ),
    test(
      '4 to 6: a packet without DF is fragmented to 1280 where the mtu is smaller',
      ['RFC 8200 section 5', 'RFC 7915 section 4'],
      fragmented(path, 1261, 1280, { fragment: 0 }),
      { plan: 'cloud 600' }
    ),
    test(
      '4 to 6: options that are left out do not count',
      cites,
      [
        pass(path, udp({ payload: counting(1352) }), { options: new Uint8Array(8).fill(1) }),
        optionsTooBig(path),
      ],
      { plan: 'cloud 1400' }
    ),
  ];
}

function optionsTooBig(path: PacketPath): Step {
  const data = packet(path.before, udp({ payload: counting(1353) }), {
    options: new Uint8Array(8).fill(1),
  });
  return drop('site', data, 'DropTooBig', { reply: refusal(path.before, data, 3, 4, 1380) });
}

function sizes64(): Case[] {
  const path = request('6 to 4');
  const large: IpOptions = { fragment: DONT_FRAGMENT, identification: 0 };
  const cites = ['RFC 7915 section 5.1', TOO_BIG];
  const datagram = udp({ payload: counting(2880) });
  return [
    test(
      '6 to 4: it is the size as IPv4 that has to fit',
      cites,
      [fits(path, 1420, {}, large), tooBig(path, 1421, 1420)],
      { plan: 'cloud 1400' }
    ),
    test(
      '6 to 4: a packet that has no DF is to be fragmented to the mtu',
      ['RFC 7915 section 5.1', 'RFC 791 section 3.2'],
      [
        fits(path, 1020),
        pass(path, sized(path, 1021), {}, { identification: 1 }, { segmentTo: 1000 }),
      ],
      { plan: 'cloud 1000' }
    ),
    test(
      '6 to 4: a packet of 1280 bytes always passes, whatever the mtu',
      ['RFC 8200 section 5', 'RFC 7915 section 5.1'],
      fragmented(path, 1280, 600),
      { plan: 'cloud 600' }
    ),
    test(
      '6 to 4: a larger packet is refused, and its sender never learns less than 1280',
      ['RFC 8200 section 5', ...cites],
      tooBig(path, 1281, 1280),
      { plan: 'cloud 600' }
    ),
    test(
      '6 to 4: a larger fragment is to be fragmented',
      ['RFC 7915 section 5.1.1', 'RFC 791 section 3.2'],
      forward(
        path,
        fragment(path.before, datagram, [0, 1440]),
        fragment(path.after, datagram, [0, 1440]),
        { segmentTo: 1400 }
      ),
      { plan: 'cloud 1400' }
    ),
  ];
}

function supers(): Case[] {
  const segment = (payload: number): Transport =>
    tcp({ payload: counting(payload), checksum: 'partial' });
  const vnetOf = (path: PacketPath, gsoSize: number, kind: 'tcp' | 'udp'): VnetHeader => {
    const start = isIpv6(path.before) ? 40 : 20;
    const tcpType = isIpv6(path.before) ? GSO_TCPV6 : GSO_TCPV4;
    return {
      flags: NEEDS_CSUM,
      gsoType: kind === 'tcp' ? tcpType : GSO_UDP_L4,
      headerLength: start + (kind === 'tcp' ? 20 : 8),
      gsoSize,
      checksumStart: start,
      checksumOffset: kind === 'tcp' ? 16 : 6,
    };
  };
  const moved = (path: PacketPath, vnet: VnetHeader): VnetHeader => {
    const by = (isIpv6(path.after) ? 40 : 20) - (isIpv6(path.before) ? 40 : 20);
    const types: Record<number, number> = by > 0 ? { 1: 4 } : by < 0 ? { 4: 1 } : {};
    return {
      ...vnet,
      gsoType: types[vnet.gsoType!] ?? vnet.gsoType!,
      headerLength: vnet.headerLength! + by,
      checksumStart: vnet.checksumStart! + by,
    };
  };
  const cites = ['virtio 1.2 5.1.6.2', PMTU];
  const plan = 'cloud 1500';
  const mtu: Readonly<Record<PathName, number>> = {
    '4 to 4': 1500,
    '6 to 6': 1500,
    '4 to 6': 1480,
    '6 to 4': 1520,
  };
  return PATHS.flatMap((name) => {
    const path = request(name);
    const gsoSize = 1500 - (isIpv6(path.after) ? 60 : 40);
    const vnet = vnetOf(path, gsoSize, 'tcp');
    const larger = packet(path.before, segment(1600));
    const [type, code] = isIpv6(path.before) ? [2, 0] : [3, 4];
    const usoSize = 1500 - (isIpv6(path.after) ? 48 : 28);
    const uso = udp({ payload: counting(1600), checksum: 'partial' });
    const usoVnet = vnetOf(path, usoSize, 'udp');
    const after: IpOptions =
      name === '6 to 4' ? { fragment: DONT_FRAGMENT, identification: 0 } : {};
    return [
      test(
        `${name}: a TCP super-packet fits if its segments do`,
        cites,
        pass(path, segment(1600), {}, after, { vnet, vnetAfter: moved(path, vnet) }),
        { plan }
      ),
      test(
        `${name}: a TCP super-packet whose segments are too big is refused`,
        cites,
        drop('site', larger, 'DropTooBig', {
          vnet: { ...vnet, gsoSize: gsoSize + 1 },
          reply: refusal(path.before, larger, type!, code!, mtu[name]),
        }),
        { plan }
      ),
      test(
        `${name}: a UDP super-packet fits if its datagrams do`,
        cites,
        pass(path, uso, {}, after, { vnet: usoVnet, vnetAfter: moved(path, usoVnet) }),
        { plan }
      ),
    ];
  });
}

/** What a SYN says where the path of this name is taken. */
const CLAMPED: Readonly<Record<PathName, readonly [number, number, number]>> = {
  '4 to 4': [1360, 1260, 1260],
  '6 to 6': [1340, 1240, 1240],
  '4 to 6': [1340, 1260, 1240],
  '6 to 4': [1360, 1240, 1260],
};

function mss(name: PathName): Case[] {
  const path = request(name);
  const cites = ['RFC 9293 section 3.7.1', 'RFC 6691 section 2'];
  const [one, narrowSite, narrowCloud] = CLAMPED[name];
  const plan = 'cloud 1400';
  const syn = (options: readonly number[], flags = SYN): Transport =>
    tcp({ flags, tcpOptions: Uint8Array.from(options) });
  const says = (size: number): readonly number[] => [2, 4, size >> 8, size & 255];
  const becomes = (before: Transport, after: Transport, on = path): Step =>
    forward(on, packet(on.before, before), packet(on.after, after, ipAfter(on, {})));
  const lowered = (from: number, to: number, on = path, ends = {}, flags = SYN): Step =>
    becomes(
      tcp({ flags, tcpOptions: Uint8Array.from(says(from)), ...ends }),
      tcp({ flags, tcpOptions: Uint8Array.from(says(to)), ...ends }),
      on
    );
  const kept = (what: string, transport: Transport, extras: Parameters<typeof pass>[4] = {}) =>
    test(`${name}: ${what}`, cites, pass(path, transport, {}, {}, extras), { plan });
  const answer = { sourcePort: 5672, destinationPort: 40_000 };
  const start = isIpv6(path.before) ? 40 : 20;
  const startAfter = isIpv6(path.after) ? 40 : 20;
  const around = (front: readonly number[]): Case =>
    test(
      `${name}: an MSS behind ${front.length} bytes of other options is lowered`,
      cites,
      becomes(syn([...front, ...says(1460)]), syn([...front, ...says(one)])),
      { plan }
    );
  return [
    test(`${name}: the MSS of a SYN is lowered to what the mtu allows`, cites, lowered(1460, one), {
      plan,
    }),
    test(
      `${name}: the narrower realm decides, be it the client’s`,
      cites,
      lowered(0xffff, narrowSite),
      { plan: 'site 1300, cloud 1400' }
    ),
    test(
      `${name}: the narrower realm decides, be it the service’s`,
      cites,
      lowered(0xffff, narrowCloud),
      { plan: 'site 1400, cloud 1300' }
    ),
    test(
      `${name}: the MSS of a SYN-ACK is lowered, too`,
      cites,
      lowered(1460, onPathBack(name), reply(name), answer, SYN | ACK),
      { plan }
    ),
    kept('an MSS that fits is not changed', syn(says(one))),
    kept('a smaller MSS is not raised', syn(says(536))),
    kept('an MSS of 0 is not raised', syn(says(0))),
    kept('a SYN without an MSS gets none', syn([3, 3, 7, 0])),
    kept('a SYN without options gets none', tcp({ flags: SYN })),
    kept('an MSS without SYN is not changed', syn(says(1460), ACK)),
    kept('an MSS of a RST is not changed', syn(says(1460), RST)),
    around([1]),
    around([1, 1]),
    around([3, 3, 7]),
    around([8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1]),
    kept('an MSS option of 3 bytes is left alone', syn([2, 3, 0xff, 1])),
    kept('an MSS option of 6 bytes is left alone', syn([2, 6, 0xff, 0xff, 0xff, 0xff])),
    kept('an MSS option that runs over the end is left alone', syn([1, 1, 2, 4])),
    kept('an MSS behind an option of length 0 is left alone', syn([30, 0, ...says(0xffff)])),
    kept('an MSS behind an option of length 1 is left alone', syn([30, 1, ...says(0xffff)])),
    kept('an MSS behind the end of the options is left alone', syn([0, ...says(0xffff)])),
    kept('an MSS inside of another option is left alone', syn([30, 6, ...says(0xffff)])),
    test(
      `${name}: the MSS of a SYN with a partial checksum is lowered`,
      [...cites, 'virtio 1.2 5.1.6.2'],
      forward(
        path,
        packet(
          path.before,
          tcp({ flags: SYN, tcpOptions: Uint8Array.from(says(1460)), checksum: 'partial' })
        ),
        packet(
          path.after,
          tcp({ flags: SYN, tcpOptions: Uint8Array.from(says(one)), checksum: 'partial' }),
          ipAfter(path, {})
        ),
        {
          vnet: { flags: NEEDS_CSUM, checksumStart: start, checksumOffset: 16 },
          vnetAfter: { flags: NEEDS_CSUM, checksumStart: startAfter, checksumOffset: 16 },
        }
      ),
      { plan }
    ),
    test(
      `${name}: a wrong checksum of a SYN stays wrong by the same amount`,
      [...cites, 'RFC 1624 section 3'],
      lowered(1460, one, path, { checksum: { receiver: 0x1234 } }),
      { plan }
    ),
    test(`${name}: without an mtu no MSS is lowered`, cites, pass(path, syn(says(0xffff)))),
    test(
      `${name}: data behind a lowered MSS is not changed`,
      [...cites, 'RFC 7413 section 2'],
      becomes(
        tcp({ flags: SYN, tcpOptions: Uint8Array.from(says(1460)), payload: counting(7) }),
        tcp({ flags: SYN, tcpOptions: Uint8Array.from(says(one)), payload: counting(7) })
      ),
      { plan }
    ),
  ];
}

/** The cloud’s version on the path of replies of this name is that in which they enter. */
function onPathBack(name: PathName): number {
  return isIpv6(reply(name).before) ? 1340 : 1360;
}
