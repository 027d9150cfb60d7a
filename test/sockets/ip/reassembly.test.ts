import { describe, expect, test } from 'vitest';
import { Parse } from '../../../src/packet/fields.ts';
import { PacketHeader } from '../../../src/packet/header.ts';
import { Reassembler } from '../../../src/sockets/ip/reassembly.ts';
import { counting } from '../../support/bytes.ts';
import {
  type Ends,
  fragment,
  fragmentHeader,
  HOP_BY_HOP,
  type IpOptions,
  ipPacket,
  isIpv6,
  optionsHeader,
  packet,
  raw,
  UDP,
  udp,
} from '../../support/packets.ts';
import { Random } from '../../support/random.ts';
import { framed, NEEDS_CSUM, VNET, type VnetHeader } from '../../support/vnet.ts';
import { OWN, PEER } from '../udp/udp-kit.ts';

const FAMILIES = [4, 6] as const;
/** A protocol whose header the parser does not look into. */
const OTHER = 47;

class Kit {
  nowMs = 0;
  readonly reassembler: Reassembler = new Reassembler(() => this.nowMs);
  readonly #header = new PacketHeader();
  readonly #buffer: Buffer = Buffer.alloc(70_000);

  /** Returns the datagram if it became complete. */
  receive(bytes: Uint8Array, vnet: VnetHeader = {}): Buffer | undefined {
    const frame = framed(bytes, vnet);
    this.#buffer.fill(0xa5);
    this.#buffer.set(frame, 5);
    const view = new DataView(this.#buffer.buffer, this.#buffer.byteOffset, this.#buffer.length);
    const outcome = this.#header.parse(view, 5 + VNET, 5 + frame.length);
    if (outcome !== Parse.Ok) throw new Error(`the fragment is not valid: ${outcome}`);
    const length = this.reassembler.receive(this.#buffer, 5, this.#header);
    return length === 0 ? undefined : Buffer.from(this.reassembler.packet.subarray(0, length));
  }
}

function endsOf(family: 4 | 6): Ends {
  return { source: PEER[family], destination: OWN[family] };
}

/** Bytes `from` to `to` of a payload of this many bytes, as a fragment. */
function part(
  family: 4 | 6,
  length: number,
  range: readonly [number, number],
  ip: IpOptions & { more?: boolean; ends?: Ends; payload?: Uint8Array } = {}
): Uint8Array {
  const payload = ip.payload ?? counting(length);
  return fragment(ip.ends ?? endsOf(family), raw(OTHER, payload), range, { fragment: 0, ...ip });
}

/** The whole packet, as the one host would have sent it that did not cut it. */
function wholeOf(ends: Ends, payload: Uint8Array, identification: number): Buffer {
  const id = isIpv6(ends) ? 0 : identification;
  return Buffer.from(ipPacket(ends, OTHER, payload, { identification: id, fragment: 0 }));
}

describe.each(FAMILIES)('over IPv%i', (family) => {
  const ends = endsOf(family);

  test('a datagram is put together whatever the order of its fragments', () => {
    const sizes = [
      [0, 800],
      [800, 1600],
      [1600, 1999],
    ] as const;
    const orders = [
      [0, 1, 2],
      [0, 2, 1],
      [1, 0, 2],
      [1, 2, 0],
      [2, 0, 1],
      [2, 1, 0],
    ];
    for (const order of orders) {
      const kit = new Kit();
      const results = order.map((i) => kit.receive(part(family, 1999, sizes[i]!)));
      expect(results.slice(0, 2)).toEqual([undefined, undefined]);
      expect(results[2]!.equals(wholeOf(ends, counting(1999), 0xbeef)), `${order}`).toBe(true);
      expect(kit.reassembler.size).toBe(0);
      expect(kit.reassembler.bytes).toBe(0);
    }
  });

  test('a UDP datagram can be parsed again', () => {
    const kit = new Kit();
    const transport = udp({ sourcePort: 1, destinationPort: 2, payload: counting(2992) });
    kit.receive(fragment(ends, transport, [0, 1480], { fragment: 0 }));
    const whole = kit.receive(fragment(ends, transport, [1480, 3000], { fragment: 0 }))!;
    const id = family === 4 ? 0xbeef : 0;
    expect(whole.equals(packet(ends, transport, { identification: id, fragment: 0 }))).toBe(true);
    const header = new PacketHeader();
    const view = new DataView(whole.buffer, whole.byteOffset, whole.length);
    expect(header.parse(view, 0, whole.length)).toBe(Parse.Ok);
    expect(header.destinationPort).toBe(2);
  });

  test('interleaved datagrams come out as a naive model says', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = new Random(seed);
      const kit = new Kit();
      const pieces: { id: number; bytes: Uint8Array }[] = [];
      const wanted = new Map<number, Buffer>();
      for (let id = 1; id <= 10; id++) {
        const payload = random.bytes(random.between(9, 3000));
        wanted.set(id, wholeOf(ends, payload, id));
        for (let from = 0; from < payload.length; ) {
          const to = Math.min(payload.length, from + 8 * random.between(1, 60));
          if (from === 0 && to === payload.length) break;
          const options = { identification: id, payload };
          const bytes = part(family, 0, [from, to], options);
          // Networks repeat packets.
          for (let i = random.chance(0.2) ? 2 : 1; i > 0; i--) pieces.push({ id, bytes });
          from = to;
        }
      }
      const cut = new Set(pieces.map(({ id }) => id));
      const missing = new Map([...cut].map((id) => [id, piecesOf(pieces, id).size]));
      const arrived = new Map([...cut].map((id) => [id, new Set<Uint8Array>()]));
      for (let i = pieces.length - 1; i > 0; i--) {
        const k = random.below(i + 1);
        [pieces[i], pieces[k]] = [pieces[k]!, pieces[i]!];
      }
      for (const { id, bytes } of pieces) {
        const seen = arrived.get(id)!;
        seen.add(bytes);
        const whole = kit.receive(bytes);
        const isComplete = seen.size === missing.get(id);
        expect(whole !== undefined, `seed ${seed}, datagram ${id}`).toBe(isComplete);
        if (isComplete) {
          expect(whole!.equals(wanted.get(id)!), `seed ${seed}, datagram ${id}`).toBe(true);
          // A copy that comes later begins a datagram of its own.
          arrived.set(id, new Set());
        }
      }
    }
  });

  test('fragments that overlap take the datagram with them, also what comes later', () => {
    const overlapping = [
      [part(family, 1000, [0, 400]), part(family, 1000, [392, 800], { more: true })],
      [part(family, 1000, [400, 800], { more: true }), part(family, 1000, [0, 408])],
      [part(family, 1000, [0, 800]), part(family, 1000, [400, 408], { more: true })],
      [part(family, 1000, [400, 408], { more: true }), part(family, 1000, [0, 800])],
      // Other bytes at the same place.
      [part(family, 1000, [0, 400]), part(family, 0, [0, 400], { payload: new Uint8Array(1000) })],
      // Two ends, an end in front of what is there, and bytes behind the end.
      [part(family, 1000, [800, 1000]), part(family, 1000, [400, 800], { more: false })],
      [part(family, 1000, [400, 800]), part(family, 1000, [0, 400], { more: false })],
      [part(family, 600, [400, 600]), part(family, 1000, [600, 800], { more: true })],
      // The same range, as the last fragment and as another one.
      [part(family, 800, [400, 800]), part(family, 800, [400, 800], { more: true })],
    ];
    for (const [index, [first, second]] of overlapping.entries()) {
      const kit = new Kit();
      expect(kit.receive(first!)).toBeUndefined();
      expect(kit.receive(second!)).toBeUndefined();
      const { counters } = kit.reassembler;
      expect(counters.overlaps, `case ${index}`).toBe(1);
      expect(kit.reassembler.bytes).toBe(0);
      for (const range of [
        [0, 400],
        [400, 800],
        [800, 1000],
      ] as const) {
        expect(kit.receive(part(family, 1000, range))).toBeUndefined();
      }
      expect(counters).toMatchObject({ late: 3, datagrams: 0 });
      kit.nowMs += 60_000;
      kit.reassembler.expire();
      expect(kit.reassembler.size).toBe(0);
    }
  });

  test('an incomplete datagram is dropped at its time limit', () => {
    const limitMs = family === 4 ? 30_000 : 60_000;
    const kit = new Kit();
    expect(kit.reassembler.deadline).toBe(Number.POSITIVE_INFINITY);
    kit.receive(part(family, 1000, [0, 400]));
    expect(kit.reassembler.deadline).toBe(limitMs);
    kit.nowMs = limitMs - 1;
    kit.reassembler.expire();
    expect(kit.reassembler.size).toBe(1);
    kit.nowMs = limitMs;
    // Even where nobody calls `expire`, an old fragment never meets a new one.
    expect(kit.receive(part(family, 1000, [400, 1000]))).toBeUndefined();
    expect(kit.reassembler.counters.timeouts).toBe(1);
    kit.nowMs = 2 * limitMs;
    kit.reassembler.expire();
    expect(kit.reassembler).toMatchObject({ size: 0, bytes: 0 });
  });

  test('datagrams of other sources, destinations and identifications are others', () => {
    const kit = new Kit();
    const others = [
      { identification: 1 },
      { ends: { ...ends, source: family === 4 ? '10.0.0.9' : 'fd00::9' } },
      { ends: { ...ends, destination: family === 4 ? '10.0.0.9' : 'fd00::9' } },
    ];
    kit.receive(part(family, 1000, [0, 400]));
    for (const other of others) {
      expect(kit.receive(part(family, 1000, [400, 1000], other))).toBeUndefined();
    }
    expect(kit.reassembler.size).toBe(4);
    expect(kit.receive(part(family, 1000, [400, 1000]))).toBeDefined();
  });

  test('there are at most 64 datagrams, of one source 16; the oldest go', () => {
    const kit = new Kit();
    for (let host = 10; host < 20; host++) {
      const source = family === 4 ? `10.0.1.${host}` : `fd00::1:${host}`;
      for (let id = 0; id < 30; id++) {
        const options = { identification: id, ends: { ...ends, source } };
        kit.receive(part(family, 1000, [0, 400], options));
        expect(kit.reassembler.size).toBeLessThanOrEqual(Math.min(64, 16 * (host - 9)));
      }
    }
    expect(kit.reassembler.size).toBe(64);
    expect(kit.reassembler.counters.evictions).toBe(300 - 64);
    const last = { ...ends, source: family === 4 ? '10.0.1.19' : 'fd00::1:19' };
    const end = part(family, 1000, [400, 1000], { identification: 29, ends: last });
    expect(kit.receive(end)).toBeDefined();
  });

  test('a site has a quarter of the datagrams and of the bytes, from all its addresses', () => {
    const kit = new Kit();
    const { destination } = endsOf(family);
    const quiet = endsOf(family).source;
    kit.reassembler.siteOf = (host) => (host.toString() === quiet ? 'quiet' : 'flood');
    kit.receive(part(family, 3000, [0, 1480], { more: true }));
    const payload = counting(65_000);
    for (let i = 1; i <= 25; i++) {
      const source = family === 4 ? `10.8.0.${i}` : `fd08::${i}`;
      for (let from = 0; from < 60_000; from += 12_000) {
        const ends = { source, destination };
        kit.receive(part(family, 0, [from, from + 12_000], { more: true, ends, payload }));
      }
      expect(kit.reassembler.size).toBeLessThanOrEqual(17);
      expect(kit.reassembler.bytes).toBeLessThanOrEqual(256 * 1024 + 2000);
    }
    for (let i = 1; i <= 60; i++) {
      const ends = { source: family === 4 ? `10.9.0.${i}` : `fd09::${i}`, destination };
      kit.receive(part(family, 3000, [0, 8], { more: true, ends }));
    }
    expect(kit.reassembler.size).toBe(17);
    expect(kit.receive(part(family, 3000, [1480, 3000]))).toBeDefined();
  });

  test('the bytes that are held are bounded, whatever the fragments', () => {
    for (const size of [8, 1024, 60_000]) {
      const kit = new Kit();
      const random = new Random(size);
      const payload = new Uint8Array(65_000);
      for (let i = 0; i < 600; i++) {
        const from = 8 * random.below((65_000 - size) / 8);
        const source = family === 4 ? `10.0.1.${i % 8}` : `fd00::1:${i % 8}`;
        const identification = random.below(100);
        const options = { identification, ends: { ...ends, source }, payload, more: true };
        kit.receive(part(family, 0, [from, from + size], options));
        expect(kit.reassembler.bytes).toBeLessThanOrEqual(1_048_576 + 110_000);
      }
      kit.nowMs += 60_000;
      kit.reassembler.expire();
      expect(kit.reassembler).toMatchObject({ size: 0, bytes: 0 });
    }
  });

  test('a datagram has at most 256 fragments', () => {
    const kit = new Kit();
    const payload = new Uint8Array(4000);
    for (let i = 0; i < 257; i++) {
      kit.receive(part(family, 0, [8 * i, 8 * i + 8], { payload, more: true }));
    }
    expect(kit.reassembler.counters.malformed).toBe(1);
    expect(kit.reassembler.bytes).toBe(0);
  });

  test('a fragment with a partial checksum or of a super-packet is dropped', () => {
    const kit = new Kit();
    const vnet = { flags: NEEDS_CSUM, checksumStart: 20, checksumOffset: 6 };
    kit.receive(part(family, 1000, [0, 400]), vnet);
    kit.receive(part(family, 1000, [0, 400]), { gsoType: 3, gsoSize: 8 });
    expect(kit.reassembler).toMatchObject({ size: 0, counters: { malformed: 2 } });
  });

  test('mutated fragments throw nothing, and leave nothing behind', () => {
    const random = new Random(family);
    const kit = new Kit();
    const view = new PacketHeader();
    for (let i = 0; i < 1500; i++) {
      const from = 8 * random.below(50);
      const options = { identification: random.below(4), more: random.chance(0.8) };
      const bytes = part(family, 1000, [from, from + 8 * random.between(1, 60)], options);
      const at = random.below(bytes.length);
      if (random.chance(0.5)) bytes[at] = random.below(256);
      const isValid = view.parse(new DataView(bytes.buffer), 0, bytes.length) === Parse.Ok;
      if (isValid && view.part !== 0) kit.receive(bytes);
    }
    kit.nowMs += 60_000;
    kit.reassembler.expire();
    expect(kit.reassembler).toMatchObject({ size: 0, bytes: 0 });
  });
});

test('IPv4 options and IPv6 extension headers in front of the fragment header are left out', () => {
  const kit = new Kit();
  const options = Uint8Array.of(0x94, 4, 0, 0); // router alert
  for (const range of [
    [0, 400],
    [400, 1000],
  ] as const) {
    const whole = kit.receive(part(4, 1000, range, { options }));
    if (range[0] > 0) expect(whole!.equals(wholeOf(endsOf(4), counting(1000), 0xbeef))).toBe(true);
  }
  const extensions = [optionsHeader(HOP_BY_HOP, Uint8Array.of(1, 2, 0, 0))];
  for (const range of [
    [0, 400],
    [400, 1000],
  ] as const) {
    const whole = kit.receive(part(6, 1000, range, { extensions }));
    if (range[0] > 0) expect(whole!.equals(wholeOf(endsOf(6), counting(1000), 0))).toBe(true);
  }
});

test('IPv4 datagrams of different protocols are different', () => {
  const kit = new Kit();
  kit.receive(part(4, 1000, [0, 400]));
  const other = fragment(endsOf(4), raw(50, counting(1000)), [400, 1000], { fragment: 0 });
  expect(kit.receive(other)).toBeUndefined();
  expect(kit.reassembler.size).toBe(2);
});

test('an IPv4 datagram longer than 65,535 bytes is dropped', () => {
  const kit = new Kit();
  const payload = new Uint8Array(65_520);
  kit.receive(part(4, 0, [0, 800], { payload }));
  kit.receive(part(4, 0, [65_000, 65_516], { payload, more: false }));
  expect(kit.reassembler.counters.malformed).toBe(1);
});

test('the longest datagrams come through', () => {
  for (const [family, length] of [
    [4, 65_515],
    [6, 65_535],
  ] as const) {
    const kit = new Kit();
    let whole: Buffer | undefined;
    for (let from = 0; from < length; from += 1400) {
      whole = kit.receive(part(family, length, [from, Math.min(length, from + 1400)]));
    }
    expect(whole!.equals(wholeOf(endsOf(family), counting(length), 0xbeef))).toBe(true);
  }
});

test('the fragment header of the first fragment says what follows', () => {
  const kit = new Kit();
  const first = { offset: 0, more: true, id: 7 };
  const header = ipPacket(
    endsOf(6),
    UDP,
    udp({
      sourcePort: 1,
      destinationPort: 2,
      payload: counting(392),
      udpLength: 408,
    })(endsOf(6)).bytes,
    { extensions: [fragmentHeader(first)] }
  );
  kit.receive(header);
  const last = fragmentHeader({ offset: 400, more: false, id: 7 });
  const whole = kit.receive(ipPacket(endsOf(6), OTHER, counting(8), { extensions: [last] }))!;
  expect(whole[6]).toBe(UDP);
});

function piecesOf(pieces: readonly { id: number; bytes: Uint8Array }[], id: number) {
  return new Set(pieces.filter((each) => each.id === id).map(({ bytes }) => bytes));
}
