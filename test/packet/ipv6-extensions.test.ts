import { describe, expect, test } from 'vitest';
import { FragmentPart } from '../../src/packet/fields.ts';
import { PacketHeader, PacketKind, Parse } from '../../src/packet/index.ts';
import { type Extension, ipPacket, TCP, tcpPacket, UDP, udpPacket } from '../support/packets.ts';
import { GuardedView } from '../translator/guarded-view.ts';

const ENDS = { source: 'fd00::5', destination: 'fd64::1' };
const PORTS = { sourcePort: 40_000, destinationPort: 53 };
/** The packet stands here in its buffer. */
const START = 5;

/** Next header numbers. */
const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const AUTHENTICATION = 51;
const DESTINATION = 60;

/** An extension header from its second byte on; the first, the next header, is filled in. */
function extension(type: number, bytes: string): Extension {
  return { type, bytes: Uint8Array.from(Buffer.from(`00${bytes.replaceAll(' ', '')}`, 'hex')) };
}

const hopByHop = extension(HOP_BY_HOP, '00 01 04 00 00 00 00'); // PadN of 4 bytes
const routing = extension(ROUTING, '00 04 00 00 00 00 00'); // segment routing, none left
const destination = extension(DESTINATION, '00 01 04 00 00 00 00');
const authentication = extension(AUTHENTICATION, `04 00 00${' 00'.repeat(20)}`);
/** Its third and fourth byte are the offset and "more fragments". */
const fragment = (offsetAndMore: string): Extension =>
  extension(FRAGMENT, `00 ${offsetAndMore} 89 ab cd ef`);
const WHOLE = '00 00';
const FIRST = '00 01';
const LATER = '00 09';

/** A datagram behind these extension headers. */
function behind(...extensions: Extension[]): Uint8Array {
  return udpPacket(ENDS, { ...PORTS, payload: new Uint8Array(8), extensions });
}

function parse(packet: Uint8Array): { readonly outcome: string; readonly header: PacketHeader } {
  const buffer = new Uint8Array(START + packet.length + 40).fill(0xff);
  buffer.set(packet, START);
  const header = new PacketHeader();
  const end = START + packet.length;
  return { outcome: nameOf(header.parse(new GuardedView(buffer, START, end), START, end)), header };
}

function nameOf(outcome: Parse): string {
  return Object.keys(Parse).find((name) => Parse[name as keyof typeof Parse] === outcome)!;
}

describe('supported extension headers', () => {
  test.each<[name: string, extensions: Extension[]]>([
    ['hop-by-hop options', [hopByHop]],
    ['routing header without segments left', [routing]],
    ['destination options', [destination]],
    ['authentication header', [authentication]],
    ['fragment header of a whole packet (RFC 6946)', [fragment(WHOLE)]],
    ['all of them', [hopByHop, destination, routing, fragment(WHOLE), authentication, destination]],
    ['destination options three times', [destination, destination, destination]],
    ['eight of them', [hopByHop, ...Array(7).fill(destination)]],
  ])('%s', (_name, extensions) => {
    const packet = behind(...extensions);
    const { outcome, header } = parse(packet);
    expect(outcome).toBe('Ok');
    const length = extensions.reduce((sum, { bytes }) => sum + bytes.length, 40);
    expect(header).toMatchObject({
      family: 6,
      kind: PacketKind.Udp,
      part: FragmentPart.Whole,
      protocol: UDP,
      start: START,
      source: START + 8,
      transport: START + length,
      checksum: START + length + 6,
      destinationPort: 53,
      end: START + packet.length,
      payloadLength: packet.length - 40,
      isAuthenticated: extensions.includes(authentication),
    });
  });

  test('finds the fragment header of an unfragmented packet', () => {
    const { header } = parse(behind(hopByHop, fragment(WHOLE)));
    expect(header).toMatchObject({ fragmentHeader: START + 48, identification: 0x89abcdef | 0 });
  });

  test('forgets the extension headers of the packet before', () => {
    const header = new PacketHeader();
    for (const packet of [behind(authentication, fragment(FIRST)), behind()]) {
      header.parse(new DataView(packet.buffer), 0, packet.length);
    }
    expect(header).toMatchObject({
      part: FragmentPart.Whole,
      fragmentHeader: -1,
      isAuthenticated: false,
    });
  });
});

describe('refused extension headers', () => {
  test.each<[fault: string, packet: Uint8Array, outcome: keyof typeof Parse]>([
    ['nine of them', behind(hopByHop, ...Array(8).fill(destination)), 'Unsupported'],
    ['a segment left', behind(extension(ROUTING, '00 04 01 00 00 00 00')), 'Unsupported'],
    ['255 segments left', behind(extension(ROUTING, '00 00 ff 00 00 00 00')), 'Unsupported'],
    ['mobility', ipPacket(ENDS, 135, new Uint8Array(8)), 'Unsupported'],
    ['host identity', ipPacket(ENDS, 139, new Uint8Array(8)), 'Unsupported'],
    ['shim6', ipPacket(ENDS, 140, new Uint8Array(8)), 'Unsupported'],
    ['an experiment', ipPacket(ENDS, 253, new Uint8Array(8)), 'Unsupported'],
    ['another experiment', ipPacket(ENDS, 254, new Uint8Array(8)), 'Unsupported'],
    [
      'mobility behind options',
      behind(destination, extension(135, '00 00 00 00 00 00 00')),
      'Unsupported',
    ],

    ['hop-by-hop options in the second place', behind(destination, hopByHop), 'Malformed'],
    ['hop-by-hop options twice', behind(hopByHop, hopByHop), 'Malformed'],
    ['two fragment headers', behind(fragment(WHOLE), fragment(WHOLE)), 'Malformed'],
    [
      'two fragment headers of a first fragment',
      behind(fragment(FIRST), fragment(FIRST)),
      'Malformed',
    ],
    ['nothing behind the header', ipPacket(ENDS, HOP_BY_HOP, new Uint8Array(0)), 'Malformed'],
    ['seven bytes of a header', ipPacket(ENDS, ROUTING, new Uint8Array(7)), 'Malformed'],
    [
      'a length of one unit too much',
      ipPacket(ENDS, DESTINATION, hex('11 01 01 04 00 00 00 00')),
      'Malformed',
    ],
    ['a length of 255', ipPacket(ENDS, DESTINATION, hex('11 ff 01 04 00 00 00 00')), 'Malformed'],
    [
      'an authentication header beyond the packet',
      ipPacket(ENDS, AUTHENTICATION, hex('11 04 00 00 00 00 00 00')),
      'Malformed',
    ],
    [
      'a truncated fragment header',
      ipPacket(ENDS, FRAGMENT, hex('11 00 00 00 00 00 00')),
      'Malformed',
    ],
    [
      'a last extension header and no transport',
      ipPacket(ENDS, DESTINATION, hex('11 00 01 04 00 00 00 00')),
      'Malformed',
    ],

    [
      'the home address option (RFC 6275)',
      behind(extension(DESTINATION, `02 c9 10${' 00'.repeat(16)}${' 00'.repeat(4)}`)),
      'Unsupported',
    ],
    [
      'an option one byte beyond its header',
      behind(extension(DESTINATION, '00 01 05 00 00 00 00')),
      'Malformed',
    ],
    ['an option of 255 bytes', behind(extension(HOP_BY_HOP, '00 1e ff 00 00 00 00')), 'Malformed'],
    [
      'an option without a length',
      behind(extension(HOP_BY_HOP, '00 01 03 00 00 00 1e')),
      'Malformed',
    ],
    [
      'the home address option, and another beyond the end',
      behind(extension(DESTINATION, '00 c9 00 1e 05 00 00')),
      'Malformed',
    ],
    ['only Pad1', behind(extension(HOP_BY_HOP, '00 00 00 00 00 00 00')), 'Ok'],
    ['an unknown option', behind(extension(HOP_BY_HOP, '00 fe 04 01 02 03 04')), 'Ok'],
    ['router alert', behind(extension(HOP_BY_HOP, '00 05 02 00 00 00 00')), 'Ok'],
    [
      'a jumbo payload of a small packet',
      behind(extension(HOP_BY_HOP, '00 c2 04 00 01 00 00')),
      'Ok',
    ],
    [
      'a ninth one whose options run over its end: malformed before unsupported',
      behind(
        hopByHop,
        ...Array(7).fill(destination),
        extension(DESTINATION, '00 01 05 00 00 00 00')
      ),
      'Malformed',
    ],
    [
      'a segment left in front of hop-by-hop options: the outer one decides',
      behind(extension(ROUTING, '00 04 01 00 00 00 00'), hopByHop),
      'Unsupported',
    ],
  ])('%s', (_fault, packet, outcome) => {
    expect(parse(packet).outcome).toBe(outcome);
  });

  test('a packet truncated anywhere in them is malformed, although its length agrees', () => {
    const packet = behind(hopByHop, routing, fragment(WHOLE), authentication, destination);
    for (let length = 40; length < packet.length - 16; length++) {
      const cut = packet.slice(0, length);
      cut[5] = length - 40;
      expect([length, parse(cut).outcome]).toEqual([length, 'Malformed']);
    }
  });
});

describe('IPv6 fragments', () => {
  const piece = (protocol: number, bits: string, bytes: Uint8Array, ...before: Extension[]) =>
    ipPacket(ENDS, protocol, bytes, { extensions: [...before, fragment(bits)] });
  const datagram = udpPacket(ENDS, { ...PORTS, payload: new Uint8Array(64) }).slice(40);
  const segment = tcpPacket(ENDS, { ...PORTS, tcpOptions: new Uint8Array(8) }).slice(40);

  test.each<[name: string, packet: Uint8Array, outcome: keyof typeof Parse]>([
    ['first one', piece(UDP, FIRST, datagram.subarray(0, 24)), 'Ok'],
    [
      'first one behind hop-by-hop options',
      piece(UDP, FIRST, datagram.subarray(0, 24), hopByHop),
      'Ok',
    ],
    ['later one', piece(UDP, LATER, datagram.subarray(8, 24)), 'Ok'],
    [
      'later one that begins like a fragment header',
      piece(FRAGMENT, LATER, new Uint8Array(8)),
      'Ok',
    ],
    ['last one of 1 byte', piece(UDP, '00 18', datagram.subarray(0, 1)), 'Ok'],
    ['one that ends at byte 65535', piece(UDP, 'ff f8', new Uint8Array(7)), 'Ok'],
    ['one that ends behind it', piece(UDP, 'ff f8', new Uint8Array(8)), 'Malformed'],
    [
      'first one of a length that is no multiple of 8',
      piece(UDP, FIRST, datagram.subarray(0, 23)),
      'Malformed',
    ],
    ['empty first one', piece(UDP, FIRST, new Uint8Array(0)), 'Malformed'],
    ['empty last one', piece(UDP, '00 18', new Uint8Array(0)), 'Malformed'],
    ['tiny first one of TCP', piece(TCP, FIRST, segment.subarray(0, 16)), 'BadFragment'],
    [
      'first one of TCP without all options (RFC 7112)',
      piece(TCP, FIRST, segment.subarray(0, 24)),
      'BadFragment',
    ],
    [
      'later one of TCP at offset 8 (RFC 3128)',
      piece(TCP, LATER, segment.subarray(8, 24)),
      'BadFragment',
    ],
    [
      'first one of an ICMPv6 error',
      piece(58, FIRST, hex('01 00 00 00 00 00 00 00')),
      'BadFragment',
    ],
    [
      'first one with options behind the fragment header',
      ipPacket(ENDS, UDP, datagram.subarray(0, 16), { extensions: [fragment(FIRST), destination] }),
      'Ok',
    ],
    [
      'first one whose length is no multiple of 8, and then the home address: the outer one decides',
      ipPacket(ENDS, UDP, datagram.subarray(0, 9), {
        extensions: [fragment(FIRST), extension(DESTINATION, `02 c9 10${' 00'.repeat(20)}`)],
      }),
      'Malformed',
    ],
  ])('%s', (_name, packet, outcome) => {
    expect(parse(packet).outcome).toBe(outcome);
  });

  test('have their offset in the datagram', () => {
    expect(parse(piece(UDP, FIRST, datagram.subarray(0, 24), hopByHop)).header).toMatchObject({
      part: FragmentPart.First,
      kind: PacketKind.Udp,
      destinationPort: 53,
      fragmentHeader: START + 48,
      identification: 0x89abcdef | 0,
      fragmentOffset: 0,
      fragmentPayload: START + 56,
      transport: START + 56,
      moreFragments: true,
    });
    expect(parse(piece(UDP, '12 38', datagram.subarray(0, 9))).header).toMatchObject({
      part: FragmentPart.Later,
      kind: PacketKind.None,
      fragmentOffset: 0x1238,
      fragmentPayload: START + 48,
      moreFragments: false,
    });
  });

  test('ignores the reserved bits of the fragment header', () => {
    const { header } = parse(piece(UDP, '00 06', datagram));
    expect(header).toMatchObject({ part: FragmentPart.Whole, kind: PacketKind.Udp });
  });
});

describe('quotes', () => {
  function parseQuote(quote: Uint8Array): { outcome: string; header: PacketHeader } {
    const header = new PacketHeader();
    const view = new GuardedView(quote, 0, quote.length);
    return { outcome: nameOf(header.parseQuote(view, 0, quote.length)), header };
  }

  test('walks the extension headers of a quote, which must all be quoted', () => {
    const packet = behind(hopByHop, routing, destination);
    for (let length = 40; length <= packet.length; length++) {
      const outcome = length < 40 + 24 + 8 ? 'Malformed' : 'Ok';
      expect([length, parseQuote(packet.slice(0, length)).outcome]).toEqual([length, outcome]);
    }
  });

  test.each<[name: string, quote: Uint8Array, outcome: keyof typeof Parse]>([
    ['a whole packet with a fragment header', behind(fragment(WHOLE)), 'Ok'],
    ['a first fragment', behind(fragment(FIRST)), 'Ok'],
    ['a later fragment', behind(fragment(LATER)), 'BadFragment'],
    ['a segment left', behind(extension(ROUTING, '00 04 01 00 00 00 00')), 'Unsupported'],
    ['hop-by-hop options in the second place', behind(destination, hopByHop), 'Malformed'],
    ['two fragment headers', behind(fragment(WHOLE), fragment(WHOLE)), 'Malformed'],
  ])('%s', (_name, quote, outcome) => {
    expect(parseQuote(quote).outcome).toBe(outcome);
  });
});

function hex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
}
