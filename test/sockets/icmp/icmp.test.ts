import { describe, expect, test, vi } from 'vitest';
import { Parse } from '../../../src/packet/fields.ts';
import { PacketHeader } from '../../../src/packet/header.ts';
import type { EchoOutcome } from '../../../src/sockets/icmp/echo-requests.ts';
import { IcmpEndpoint } from '../../../src/sockets/icmp/icmp.ts';
import type { IcmpError } from '../../../src/sockets/icmp/icmp-error.ts';
import { counting, u32 } from '../../support/bytes.ts';
import {
  type Ends,
  echoPacket,
  GRE,
  ICMP,
  ICMPV6,
  type IcmpErrorFields,
  icmp,
  icmpError,
  packet,
  raw,
  tcpPacket,
  udpPacket,
} from '../../support/packets.ts';
import { Random } from '../../support/random.ts';
import { framed, VNET, type VnetHeader } from '../../support/vnet.ts';
import {
  address,
  naiveReassembly,
  OWN,
  PEER,
  packetOf,
  readFrame,
  UdpKit,
} from '../udp/udp-kit.ts';

const FAMILIES = [4, 6] as const;

class IcmpKit extends UdpKit {
  readonly tcpErrors: IcmpError[] = [];
  readonly udpErrors: IcmpError[] = [];
  /** What the protocols say about the quotes. */
  isSent = true;
  readonly icmp: IcmpEndpoint = new IcmpEndpoint({
    now: () => this.nowMs,
    random: this.word,
    identifications: this.identifications,
    pathMtus: this.pathMtus,
    mtu: 65_515,
    localAddress: (family) => address(OWN[family]),
    onTcpError: (error) => this.tcpErrors.push(error) > 0 && this.isSent,
    onUdpError: (error) => this.udpErrors.push(error) > 0 && this.isSent,
  });

  deliver(bytes: Uint8Array, vnet: VnetHeader = {}): Parse {
    return this.#parsed(bytes, vnet, (buffer, header) => this.icmp.receive(buffer, 0, header));
  }

  unreachable(bytes: Uint8Array, what: 'port' | 'protocol'): void {
    this.#parsed(bytes, {}, (buffer, header) => this.icmp.unreachable(buffer, header, what));
  }

  sent(): Buffer[] {
    const frames: Buffer[] = [];
    for (let next = readFrame(this.icmp); next !== undefined; next = readFrame(this.icmp)) {
      frames.push(packetOf(next));
    }
    return frames;
  }

  #parsed(
    bytes: Uint8Array,
    vnet: VnetHeader,
    use: (buffer: Uint8Array, header: PacketHeader) => void
  ): Parse {
    const frame = framed(bytes, vnet);
    const header = new PacketHeader();
    const outcome = header.parse(new DataView(frame.buffer), VNET, frame.length);
    if (outcome === Parse.Ok) use(frame, header);
    return outcome;
  }
}

describe.each(FAMILIES)('over IPv%i', (family) => {
  const toUs: Ends = { source: PEER[family], destination: OWN[family] };
  const fromUs: Ends = { source: OWN[family], destination: PEER[family] };
  const router: Ends = {
    source: family === 4 ? '10.9.9.9' : 'fd09::9',
    destination: OWN[family],
  };
  const unreachable = family === 4 ? 3 : 1;
  const port = family === 4 ? 3 : 4;

  function own(bytes: Uint8Array): Buffer {
    return Buffer.from(bytes);
  }

  /** The identification is not ours to choose, and there is no DF. */
  function sameBut(got: Buffer, build: (ip: object) => Uint8Array): void {
    const identification = family === 4 ? got.readUInt16BE(4) : 0;
    expect(got.equals(own(build({ identification, fragment: 0 })))).toBe(true);
  }

  test('an echo request is answered with the same bytes', () => {
    for (const length of [0, 1, 56, 1400]) {
      const kit = new IcmpKit();
      const onReady = vi.fn();
      kit.icmp.onReady = onReady;
      kit.deliver(echoPacket(toUs, { id: 7, sequence: 9, payload: counting(length) }));
      expect(onReady).toHaveBeenCalledTimes(1);
      const [answer, ...others] = kit.sent();
      expect(others).toEqual([]);
      const fields = { id: 7, sequence: 9, payload: counting(length), reply: true };
      sameBut(answer!, (ip) => echoPacket(fromUs, { ...fields, ...ip }));
    }
  });

  test('a long answer is cut to fit', () => {
    const kit = new IcmpKit();
    kit.deliver(echoPacket(toUs, { payload: counting(20_000) }));
    const answer = naiveReassembly(kit.sent())!;
    expect(answer.subarray(8).equals(counting(20_000))).toBe(true);
  });

  test('a request to another address or with a wrong checksum gets no answer', () => {
    const kit = new IcmpKit();
    const other = family === 4 ? '10.0.0.7' : 'fd00::7';
    kit.deliver(echoPacket({ ...toUs, destination: other }, {}));
    kit.deliver(echoPacket(toUs, { checksum: 1 }));
    expect(kit.sent()).toEqual([]);
    expect(kit.icmp.counters).toMatchObject({ malformed: 1, echoesNotOwn: 1 });
    kit.deliver(echoPacket(toUs, { checksum: 1 }), { flags: 2 });
    expect(kit.sent()).toHaveLength(1);
  });

  test.each([
    ['network', 0, 0],
    ['host', 1, 3],
    ['prohibited', 13, 1],
    ['port', 3, 4],
  ] as const)('a service behind the stack is reported: %s unreachable', (what, v4, v6) => {
    const kit = new IcmpKit();
    const service = family === 4 ? '10.7.0.1' : 'fd07::1';
    const toService = { source: PEER[family], destination: service };
    const quoted = udpPacket(toService, {
      sourcePort: 2000,
      destinationPort: 53,
      payload: counting(2000),
    });
    kit.icmp.report(what, address(service), address(PEER[family]), quoted);
    const [error, ...others] = kit.sent();
    expect(others).toEqual([]);
    const ends = { source: service, destination: PEER[family] };
    const type = { type: unreachable, code: family === 4 ? v4 : v6 };
    const quoteLength = (family === 4 ? 576 - 20 : 1280 - 40) - 8;
    sameBut(error!, (ip) => icmpError(ends, { ...type, quoted, quoteLength, ...ip }));
    expect(kit.icmp.counters.errorsSent).toBe(1);
    for (let i = 0; i < 200; i++) {
      kit.icmp.report(what, address(service), address(PEER[family]), quoted);
    }
    expect(kit.icmp.counters.limited).toBe(101);
  });

  test('a site gets a quarter of the answers and errors, and other sites theirs', () => {
    const kit = new IcmpKit();
    const quiet = family === 4 ? '10.0.9.1' : 'fd00:9::1';
    const send = (source: string): void => {
      kit.deliver(echoPacket({ ...toUs, source }, {}));
      kit.unreachable(
        udpPacket({ ...toUs, source }, { sourcePort: 1, destinationPort: 2 }),
        'port'
      );
    };
    kit.icmp.siteOf = (client) => (client.equals(address(quiet)) ? 'quiet' : 'flood');
    for (let i = 1; i <= 300; i++) send(family === 4 ? `10.0.8.${1 + (i % 9)}` : `fd00:8::${i}`);
    expect(kit.icmp.counters).toMatchObject({ echoesAnswered: 25, errorsSent: 25, limited: 550 });
    send(quiet);
    expect(kit.icmp.counters).toMatchObject({ echoesAnswered: 26, errorsSent: 26 });
  });

  test('at most 100 answers a second are sent, and as many errors', () => {
    const kit = new IcmpKit();
    for (let i = 0; i < 300; i++) {
      kit.deliver(echoPacket(toUs, {}));
      kit.unreachable(udpPacket(toUs, { sourcePort: 1, destinationPort: 2 }), 'port');
    }
    expect(kit.sent()).toHaveLength(200);
    expect(kit.icmp.counters).toMatchObject({ echoesAnswered: 100, errorsSent: 100, limited: 400 });
    kit.nowMs += 100;
    for (let i = 0; i < 300; i++) kit.deliver(echoPacket(toUs, {}));
    expect(kit.sent()).toHaveLength(10);
  });

  test('what waits to be sent is bounded, and old answers are not sent', () => {
    const kit = new IcmpKit();
    const request = echoPacket(toUs, { payload: counting(60_000) });
    for (let i = 0; i < 100; i++) kit.deliver(request);
    expect(kit.icmp.counters).toMatchObject({ echoesAnswered: 4, sendDrops: 96 });
    kit.nowMs += 5001;
    expect(kit.sent()).toEqual([]);
    expect(kit.icmp.counters.sendDrops).toBe(100);
  });

  test('a datagram to a closed port is quoted in an error', () => {
    for (const length of [0, 100, 3000]) {
      const kit = new IcmpKit();
      const fields = { sourcePort: 2000, destinationPort: 1000, payload: counting(length) };
      const quoted = udpPacket(toUs, fields);
      kit.unreachable(quoted, 'port');
      const quoteLength = Math.min(quoted.length, family === 4 ? 548 : 1232);
      const error = { type: unreachable, code: port, quoted, quoteLength };
      const [answer] = kit.sent();
      sameBut(answer!, (ip) => icmpError(fromUs, { ...error, ...ip }));
      expect(answer!.length).toBeLessThanOrEqual(family === 4 ? 576 : 1280);
    }
  });

  test('a protocol that nobody has is quoted in an error', () => {
    const kit = new IcmpKit();
    const quoted = packet(toUs, raw(GRE, counting(20)), {});
    kit.unreachable(quoted, 'protocol');
    const error = family === 4 ? { type: 3, code: 2 } : { type: 4, code: 1, rest: 6 };
    sameBut(kit.sent()[0]!, (ip) => icmpError(fromUs, { ...error, quoted, ...ip }));
  });

  const segment = tcpPacket(fromUs, {
    sourcePort: 40_000,
    destinationPort: 80,
    sequence: 0xfedcba98,
    payload: counting(100),
  });
  const datagram = udpPacket(fromUs, { sourcePort: 1000, destinationPort: 2000 });

  function errorOf(fields: Partial<IcmpErrorFields>): Uint8Array {
    return icmpError(router, { type: unreachable, quoted: segment, ...fields });
  }

  const kinds: readonly (readonly [number, number, string])[] =
    family === 4
      ? [
          [3, 0, 'network-unreachable'],
          [3, 1, 'host-unreachable'],
          [3, 2, 'protocol-unreachable'],
          [3, 3, 'port-unreachable'],
          [3, 6, 'network-unreachable'],
          [3, 7, 'host-unreachable'],
          [3, 9, 'prohibited'],
          [3, 10, 'prohibited'],
          [3, 13, 'prohibited'],
          [11, 0, 'time-exceeded'],
        ]
      : [
          [1, 0, 'network-unreachable'],
          [1, 1, 'prohibited'],
          [1, 3, 'host-unreachable'],
          [1, 4, 'port-unreachable'],
          [1, 6, 'prohibited'],
          [3, 0, 'time-exceeded'],
          [4, 1, 'protocol-unreachable'],
        ];

  test.each(kinds)('type %i, code %i is %s, handed to TCP and UDP', (type, code, kind) => {
    const kit = new IcmpKit();
    kit.deliver(errorOf({ type, code }));
    kit.deliver(errorOf({ type, code, quoted: datagram, quoteLength: datagram.length }));
    const places = { family, kind, local: OWN[family], remote: PEER[family], mtu: 0 };
    const ofTcp = { protocol: 'tcp', localPort: 40_000, remotePort: 80, sequence: -19_088_744 };
    expect(kit.tcpErrors).toEqual([{ ...places, ...ofTcp }]);
    const ofUdp = { protocol: 'udp', localPort: 1000, remotePort: 2000, sequence: 0 };
    expect(kit.udpErrors).toEqual([{ ...places, ...ofUdp }]);
    expect(kit.icmp.counters.errorsReceived).toBe(2);
  });

  test('a quote of eight bytes of the transport header is enough', () => {
    const kit = new IcmpKit();
    const quoteLength = (family === 4 ? 20 : 40) + 8;
    kit.deliver(errorOf({ code: port, quoteLength }));
    kit.deliver(errorOf({ code: port, quoteLength: quoteLength - 1 }));
    expect(kit.tcpErrors).toHaveLength(1);
  });

  test('extensions behind the quote are no part of it', () => {
    const kit = new IcmpKit();
    const icmpExtensions = counting(16);
    kit.deliver(errorOf({ code: port, quoteLength: 68, icmpExtensions }));
    expect(kit.tcpErrors).toHaveLength(1);
  });

  const bigType = family === 4 ? { type: 3, code: 4 } : { type: 2, code: 0 };

  test('a packet that is too big teaches the path MTU, if it was really sent', () => {
    const kit = new IcmpKit();
    const remote = address(PEER[family]);
    kit.isSent = false;
    kit.deliver(errorOf({ ...bigType, rest: 1300 }));
    expect(kit.pathMtus.get(remote)).toBe(0);
    expect(kit.icmp.counters.errorsIgnored).toBe(1);
    kit.isSent = true;
    kit.deliver(errorOf({ ...bigType, rest: 1300 }));
    expect(kit.tcpErrors[1]).toMatchObject({ kind: 'too-big', mtu: 1300 });
    expect(kit.pathMtus.get(remote)).toBe(1300);
    kit.deliver(errorOf({ ...bigType, rest: 100 }));
    expect(kit.pathMtus.get(remote)).toBe(family === 4 ? 552 : 1300);
  });

  test('a report about somebody else is ignored', () => {
    const kit = new IcmpKit();
    const other = family === 4 ? '10.0.0.7' : 'fd00::7';
    const foreign = tcpPacket({ ...fromUs, source: other }, { sourcePort: 1, destinationPort: 2 });
    kit.deliver(errorOf({ code: port, quoted: foreign }));
    const gre = packet(fromUs, raw(GRE, counting(20)), {});
    kit.deliver(errorOf({ code: port, quoted: gre }));
    const reply = echoPacket(fromUs, { reply: true });
    kit.deliver(errorOf({ code: port, quoted: reply }));
    expect([...kit.tcpErrors, ...kit.udpErrors]).toEqual([]);
    expect(kit.icmp.counters.errorsIgnored).toBe(3);
  });

  test('hostile messages throw nothing', () => {
    const kit = new IcmpKit();
    const random = new Random(family);
    for (let i = 0; i < 2000; i++) {
      const type = random.pick(family === 4 ? [0, 3, 8, 11, 12] : [1, 2, 3, 4, 128, 129]);
      const quoted = Uint8Array.from(random.pick([segment, datagram, random.bytes(60)]));
      for (let k = random.below(4); k > 0; k--) {
        quoted[random.below(quoted.length)] = random.below(256);
      }
      const rest = random.chance(0.5) ? 0 : random.below(2 ** 32);
      const quoteLength = random.below(quoted.length + 1);
      kit.deliver(icmpError(router, { type, code: random.below(20), rest, quoted, quoteLength }));
      const payload = random.bytes(random.below(80));
      const message = { type, code: random.below(20), rest: u32(rest), payload };
      kit.deliver(packet(toUs, icmp(message), {}));
    }
    const { counters } = kit.icmp;
    expect(counters.errorsIgnored).toBeGreaterThan(50);
    expect(kit.tcpErrors.length).toBeGreaterThan(10);
    expect(kit.sent().length).toBeLessThanOrEqual(100);
  });

  describe('an echo request', () => {
    const remote = address(PEER[family]);
    const local = address(OWN[family]);

    function started(payload: Uint8Array = counting(56)) {
      const kit = new IcmpKit();
      const outcomes: EchoOutcome[] = [];
      const request = kit.icmp.request(local, remote, payload, (each) => outcomes.push(each))!;
      return { kit, outcomes, request };
    }

    test('leaves as a packet, and its reply ends it', () => {
      const { kit, outcomes, request } = started();
      const id = request.identifier;
      const [sent] = kit.sent();
      sameBut(sent!, (ip) => echoPacket(fromUs, { id, payload: counting(56), ...ip }));
      const reply = echoPacket(toUs, { id, payload: counting(56), reply: true });
      kit.deliver(reply);
      expect(outcomes).toEqual([{ error: undefined }]);
      kit.deliver(reply);
      expect(outcomes).toHaveLength(1);
      expect(kit.icmp.counters).toMatchObject({ repliesReceived: 1, repliesUnknown: 1 });
      expect(kit.icmp.waiting).toBe(0);
    });

    test('is not ended by a reply of another host, identifier, number or content', () => {
      const { kit, outcomes, request } = started();
      const id = request.identifier;
      const right = { id, payload: counting(56), reply: true };
      kit.deliver(echoPacket(router, right));
      kit.deliver(echoPacket(toUs, { ...right, id: id ^ 1 }));
      kit.deliver(echoPacket(toUs, { ...right, sequence: 2 }));
      kit.deliver(echoPacket(toUs, { ...right, payload: counting(57) }));
      kit.deliver(echoPacket(toUs, { ...right, payload: new Uint8Array(56) }));
      expect(outcomes).toEqual([]);
      expect(kit.icmp.counters.repliesUnknown).toBe(5);
    });

    test('is ended by an error that quotes it', () => {
      const { kit, outcomes } = started();
      const [quoted] = kit.sent();
      const elsewhere = Uint8Array.from(quoted!);
      elsewhere[family === 4 ? 19 : 39]! ^= 1;
      kit.deliver(icmpError(router, { type: unreachable, code: 0, quoted: elsewhere }));
      expect(outcomes).toEqual([]);
      kit.deliver(icmpError(router, { type: unreachable, code: 0, quoted: quoted! }));
      expect(outcomes).toEqual([{ error: 'network-unreachable' }]);
    });

    test('has an identifier of its own; there is a bound', () => {
      const kit = new IcmpKit();
      const identifiers = new Set<number>();
      for (let i = 0; i < 1024; i++) {
        const request = kit.icmp.request(local, remote, counting(0), () => {});
        if (request === undefined) throw new Error(`${i}`);
        identifiers.add(request.identifier);
        kit.sent();
      }
      expect(identifiers.size).toBe(1024);
      expect(kit.icmp.request(local, remote, counting(0), () => {})).toBeUndefined();
    });

    test('ends when the endpoint is closed', () => {
      const { kit, outcomes } = started();
      kit.icmp.close();
      expect(outcomes).toEqual([{ error: 'closed' }]);
      expect(kit.sent()).toEqual([]);
    });
  });
});

test('a router that does not know RFC 1191 means the next plateau', () => {
  const kit = new IcmpKit();
  const fromUs = { source: OWN[4], destination: PEER[4] };
  const quoted = tcpPacket(fromUs, { sourcePort: 1, destinationPort: 2, payload: counting(1460) });
  const router = { source: '10.9.9.9', destination: OWN[4] };
  kit.deliver(icmpError(router, { type: 3, code: 4, quoted, quoteLength: 28 }));
  expect(kit.pathMtus.get(address(PEER[4]))).toBe(1492);
});

test('ICMP of the other IP version is no ICMP', () => {
  const kit = new IcmpKit();
  const v4 = { source: PEER[4], destination: OWN[4] };
  const v6 = { source: PEER[6], destination: OWN[6] };
  expect(kit.deliver(packet(v4, raw(ICMPV6, counting(20)), {}))).not.toBe(Parse.Ok);
  expect(kit.deliver(packet(v6, raw(ICMP, counting(20)), {}))).not.toBe(Parse.Ok);
});
