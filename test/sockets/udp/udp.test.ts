import { describe, expect, test, vi } from 'vitest';
import { UdpVerdict } from '../../../src/sockets/udp/udp.ts';
import { UdpEvent, type UdpOwner, type UdpSocket } from '../../../src/sockets/udp/udp-socket.ts';
import { counting } from '../../support/bytes.ts';
import { udp, udpPacket } from '../../support/packets.ts';
import { Random } from '../../support/random.ts';
import { framed, GSO_UDP, GSO_UDP_L4, NEEDS_CSUM } from '../../support/vnet.ts';
import { address, naiveReassembly, OWN, PEER, packetOf, partOf, UdpKit } from './udp-kit.ts';

const FAMILIES = [4, 6] as const;
const PARTIAL = {
  4: { flags: NEEDS_CSUM, checksumStart: 20, checksumOffset: 6 },
  6: { flags: NEEDS_CSUM, checksumStart: 40, checksumOffset: 6 },
};

/** Takes all that a socket has received. */
function received(socket: UdpSocket): { from: string; payload: Buffer }[] {
  const all: { from: string; payload: Buffer }[] = [];
  for (let next = socket.receive(); next !== undefined; next = socket.receive()) {
    all.push({ from: `${next.remote}#${next.remotePort}`, payload: next.payload });
  }
  return all;
}

describe.each(FAMILIES)('over IPv%i', (family) => {
  const ends = { source: OWN[family], destination: PEER[family] };
  const peer = address(PEER[family]);

  test.each([
    { offload: true, checksum: 'partial', vnet: PARTIAL[family] },
    { offload: false, checksum: 'complete', vnet: {} },
  ] as const)('a datagram leaves as one packet (offload: $offload)', (setup) => {
    const { offload, checksum, vnet } = setup;
    for (const length of [0, 1, 2, 7, 1000, 1452]) {
      const kit = new UdpKit({ offload });
      const payload = counting(length);
      expect(kit.bind(family, 1000).send(payload, peer, 2000, undefined)).toBeUndefined();
      const [frame, ...others] = kit.readAll();
      expect(others).toEqual([]);
      const identification = family === 4 ? packetOf(frame!).readUInt16BE(4) : 0;
      const fields = { sourcePort: 1000, destinationPort: 2000, payload, checksum };
      const packet = udpPacket(ends, { ...fields, identification, fragment: 0 });
      expect(frame!.equals(framed(packet, vnet)), `${length} bytes`).toBe(true);
      expect(kit.udp.counters.sent).toBe(1);
    }
  });

  test('a datagram is received, with its source', () => {
    const kit = new UdpKit();
    const socket = kit.bind(family, 1000);
    for (const length of [0, 1, 500, 1400]) {
      expect(kit.fromPeer(family, { payload: counting(length) })).toBe(UdpVerdict.Taken);
    }
    expect(received(socket).map(({ payload }) => payload.length)).toEqual([0, 1, 500, 1400]);
    expect(kit.fromPeer(family, { payload: counting(9), sourcePort: 3000 })).toBe(UdpVerdict.Taken);
    expect(received(socket)).toEqual([{ from: `${peer}#3000`, payload: Buffer.from(counting(9)) }]);
    expect(kit.udp.counters.received).toBe(5);
  });

  test('a wrong checksum is dropped and counted, also for a closed port', () => {
    const kit = new UdpKit();
    const socket = kit.bind(family, 1000);
    for (const destinationPort of [1000, 1001]) {
      const fields = { payload: counting(50), destinationPort, checksum: 0x1234 };
      expect(kit.fromPeer(family, fields)).toBe(UdpVerdict.Dropped);
    }
    expect(received(socket)).toEqual([]);
    expect(kit.udp.counters.badChecksums).toBe(2);
  });

  test('a checksum that the sender vouches for, or has left to do, is not verified', () => {
    const kit = new UdpKit();
    const socket = kit.bind(family, 1000);
    kit.fromPeer(family, { payload: counting(50), checksum: 0x1234 }, { flags: 2 });
    kit.fromPeer(family, { payload: counting(50), checksum: 'partial' }, PARTIAL[family]);
    expect(received(socket)).toHaveLength(2);
  });

  test('a datagram without a checksum is taken over IPv4 alone', () => {
    const kit = new UdpKit();
    const socket = kit.bind(family, 1000);
    kit.fromPeer(family, { payload: counting(50), checksum: 'none' });
    expect(received(socket)).toHaveLength(family === 4 ? 1 : 0);
  });

  test('a super-packet is split into its datagrams', () => {
    const kit = new UdpKit();
    const socket = kit.bind(family, 1000);
    const payload = counting(2500);
    const vnet = { ...PARTIAL[family], gsoType: GSO_UDP_L4, gsoSize: 1000 };
    expect(kit.fromPeer(family, { payload, checksum: 'partial' }, vnet)).toBe(UdpVerdict.Taken);
    const parts = received(socket).map((each) => each.payload);
    expect(parts.map(({ length }) => length)).toEqual([1000, 1000, 500]);
    expect(Buffer.concat(parts).equals(payload)).toBe(true);
  });

  test.each([
    ['without a size', { gsoType: GSO_UDP_L4 }],
    ['with a complete checksum', { flags: 0, gsoType: GSO_UDP_L4, gsoSize: 100 }],
    ['to be fragmented', { gsoType: GSO_UDP, gsoSize: 100 }],
    ['of TCP', { gsoType: 1, gsoSize: 100 }],
    ['of too many datagrams', { gsoType: GSO_UDP_L4, gsoSize: 1 }],
  ])('a super-packet %s is dropped', (_, wrong) => {
    const kit = new UdpKit();
    const socket = kit.bind(family, 1000);
    const vnet = { ...PARTIAL[family], ...wrong };
    const fields = { payload: counting(1000), checksum: 'partial' } as const;
    expect(kit.fromPeer(family, fields, vnet)).toBe(UdpVerdict.Dropped);
    expect(received(socket)).toEqual([]);
    expect(kit.udp.counters.malformed).toBe(1);
  });

  test('a port that no socket has is closed', () => {
    const kit = new UdpKit();
    kit.bind(family, 1000).close();
    kit.bind(family === 4 ? 6 : 4, 1000);
    expect(kit.fromPeer(family)).toBe(UdpVerdict.Closed);
    expect(kit.udp.counters.closedPorts).toBe(1);
  });

  test('a connected socket takes datagrams of its peer alone', () => {
    const kit = new UdpKit();
    const socket = kit.bind(family, 1000);
    kit.fromPeer(family);
    socket.connect(peer, 2000);
    expect(kit.fromPeer(family, { sourcePort: 2001 })).toBe(UdpVerdict.Closed);
    expect(kit.fromPeer(family, { payload: counting(3) })).toBe(UdpVerdict.Taken);
    // What arrived before is of nobody in particular.
    expect(received(socket).map(({ payload }) => payload.length)).toEqual([3]);
    socket.disconnect();
    expect(kit.fromPeer(family, { sourcePort: 2001 })).toBe(UdpVerdict.Taken);
  });

  test.each([
    { mtu: 1500, offload: false },
    { mtu: 65_515, offload: true },
    { mtu: 1280, offload: true },
  ])('long datagrams are cut to fit (MTU $mtu), whatever their length', ({ mtu, offload }) => {
    const longest = family === 4 ? mtu : Math.min(mtu, 1500);
    for (let seed = 1; seed <= 8; seed++) {
      const kit = new UdpKit({ seed, mtu, offload });
      const random = new Random(seed);
      const most = family === 4 ? 65_507 : 65_527;
      const payload = counting(random.pick([random.between(1200, 5000), most, random.below(most)]));
      kit.bind(family, 1000).send(payload, peer, 2000, undefined);
      const packets = kit.readAll().map((frame) => {
        const isPlain = frame.subarray(0, 10).every((byte) => byte === 0);
        expect(isPlain || (offload && frame[0] === NEEDS_CSUM)).toBe(true);
        return Buffer.from(packetOf(frame));
      });
      const sizes = packets.map(({ length }) => length);
      expect(Math.max(...sizes), `seed ${seed}`).toBeLessThanOrEqual(longest);
      if (packets.length === 1) continue;
      expect(new Set(packets.map((packet) => partOf(packet).id)).size).toBe(1);
      const whole = naiveReassembly(packets);
      const fields = { sourcePort: 1000, destinationPort: 2000, payload };
      const expected = udp(fields)(ends).bytes;
      expect(whole?.equals(expected), `seed ${seed}`).toBe(true);
    }
  });

  test('datagrams that are too long, and those of the other IP version, are refused', () => {
    const kit = new UdpKit();
    const socket = kit.bind(family, 1000);
    const most = family === 4 ? 65_507 : 65_527;
    expect(socket.send(new Uint8Array(most + 1), peer, 2000, undefined)).toBe('EMSGSIZE');
    const other = address(PEER[family === 4 ? 6 : 4]);
    expect(socket.send(new Uint8Array(1), other, 2000, undefined)).toBe('ENETUNREACH');
    expect(kit.readAll()).toEqual([]);
  });

  test('an error of the peer reaches a connected socket alone', () => {
    const kit = new UdpKit();
    const events: number[] = [];
    const owner: UdpOwner = { onUdpEvents: (_, bits) => events.push(bits) };
    const socket = kit.bind(family, 1000, owner);
    const quote = { local: address(OWN[family]), localPort: 1000, remote: peer, remotePort: 2000 };
    const error = { ...quote, family, protocol: 'udp', sequence: 0, mtu: 0 } as const;
    const told = (kind: 'port-unreachable' | 'prohibited', change: object = {}): boolean =>
      kit.udp.onIcmpError({ ...error, kind, ...change });
    expect(told('port-unreachable')).toBe(true);
    kit.udp.takeEvents();
    expect(events).toEqual([]);
    socket.connect(peer, 2000);
    expect(told('port-unreachable', { remotePort: 2001 })).toBe(false);
    expect(told('port-unreachable', { localPort: 1001 })).toBe(false);
    expect(told('port-unreachable')).toBe(true);
    kit.udp.takeEvents();
    expect(events).toEqual([UdpEvent.Failed]);
    expect(socket.takeFailure()?.code).toBe('ECONNREFUSED');
    expect(told('prohibited')).toBe(true);
    expect(socket.takeFailure()?.code).toBe('EHOSTUNREACH');
    expect(socket.takeFailure()).toBeUndefined();
  });
});

test('IPv6 datagrams are cut to the path MTU that was reported', () => {
  const kit = new UdpKit();
  const remote = address(PEER[6]);
  const socket = kit.bind(6, 1000);
  const longest = (): number => {
    socket.send(counting(4000), remote, 2000, undefined);
    return Math.max(...kit.readAll().map((frame) => packetOf(frame).length));
  };
  expect(longest()).toBeGreaterThan(1490);
  kit.pathMtus.learn(remote, 1400);
  expect(longest()).toBe(1400);
  kit.nowMs += 600_000;
  expect(longest()).toBeGreaterThan(1490);
});

describe('binding', () => {
  const owner: UdpOwner = { onUdpEvents: () => {} };

  test('a port is of one socket for each address', () => {
    const { udp } = new UdpKit();
    const own = address(OWN[4]);
    const first = udp.bind(4, own, 1000, owner) as UdpSocket;
    expect(udp.bind(4, own, 1000, owner)).toBe('EADDRINUSE');
    expect(udp.bind(4, undefined, 1000, owner)).toBe('EADDRINUSE');
    expect(udp.bind(6, undefined, 1000, owner)).toBeTypeOf('object');
    expect(udp.bind(4, address(PEER[4]), 1001, owner)).toBe('EADDRNOTAVAIL');
    first.close();
    expect(udp.bind(4, undefined, 1000, owner)).toBeTypeOf('object');
    expect(udp.bind(4, own, 1000, owner)).toBe('EADDRINUSE');
  });

  test('random ports are ephemeral and differ; there is a bound', () => {
    const { udp } = new UdpKit();
    const ports = new Set<number>();
    for (;;) {
      const socket = udp.bind(4, undefined, 0, owner);
      if (typeof socket === 'string') {
        expect(socket).toBe('ENOBUFS');
        break;
      }
      expect(socket.localPort).toBeGreaterThanOrEqual(32_768);
      expect(socket.localPort).toBeLessThanOrEqual(60_999);
      ports.add(socket.localPort);
    }
    expect(ports.size).toBe(16_384);
    expect(udp.size).toBe(16_384);
  });
});

describe('queues', () => {
  const peer = address(PEER[4]);

  test('a socket that is not read holds 256 KiB at most, whatever the size of the datagrams', () => {
    for (const length of [0, 100, 60_000]) {
      const kit = new UdpKit();
      const socket = kit.bind(4, 1000);
      const ends = { source: PEER[4], destination: OWN[4] };
      const fields = { sourcePort: 2000, destinationPort: 1000, checksum: 'none' } as const;
      const packet = udpPacket(ends, { ...fields, payload: new Uint8Array(length) });
      for (let i = 0; i < 2000; i++) kit.receive(packet);
      expect(socket.received.bytes).toBeLessThanOrEqual(262_144);
      const { received: taken, receiveDrops } = kit.udp.counters;
      expect(taken + receiveDrops).toBe(2000);
      expect(receiveDrops).toBeGreaterThan(900);
      expect(received(socket)).toHaveLength(taken);
      expect(socket.received.bytes).toBe(0);
      expect(kit.fromPeer(4)).toBe(UdpVerdict.Taken);
    }
  });

  test('what cannot be sent is bounded too', () => {
    const kit = new UdpKit();
    const socket = kit.bind(4, 1000);
    let count = 0;
    while (socket.send(new Uint8Array(1000), peer, 2000, undefined) === undefined) count++;
    expect(socket.send(new Uint8Array(1000), peer, 2000, undefined)).toBe('ENOBUFS');
    expect(count).toBe(Math.floor(262_144 / 1256));
    expect(kit.readAll()).toHaveLength(count);
  });

  test('sockets take turns', () => {
    const kit = new UdpKit();
    const [a, b] = [kit.bind(4, 1000), kit.bind(4, 1001)];
    for (let i = 0; i < 3; i++) a.send(counting(1), peer, 2000, undefined);
    for (let i = 0; i < 3; i++) b.send(counting(1), peer, 2000, undefined);
    const ports = kit.readAll().map((frame) => packetOf(frame).readUInt16BE(20));
    expect(ports).toEqual([1000, 1001, 1000, 1001, 1000, 1001]);
  });

  test('readiness is told once until everything was read', () => {
    const kit = new UdpKit();
    const onReady = vi.fn();
    kit.udp.onReady = onReady;
    const socket = kit.bind(4, 1000);
    socket.send(counting(1), peer, 2000, undefined);
    socket.send(counting(1), peer, 2000, undefined);
    expect(onReady).toHaveBeenCalledTimes(1);
    kit.read();
    socket.send(counting(1), peer, 2000, undefined);
    expect(onReady).toHaveBeenCalledTimes(1);
    kit.readAll();
    socket.send(counting(1), peer, 2000, undefined);
    expect(onReady).toHaveBeenCalledTimes(2);
  });

  test('a datagram that left its queue is told of if that was asked for', () => {
    const kit = new UdpKit();
    const sent: unknown[] = [];
    const owner: UdpOwner = { onUdpEvents: (socket) => sent.push(...socket.takeSent()) };
    const socket = kit.bind(4, 1000, owner);
    socket.send(counting(5), peer, 2000, 'a');
    socket.send(counting(6), peer, 2000, undefined);
    socket.send(counting(7), peer, 2000, 'b');
    kit.udp.takeEvents();
    expect(sent).toEqual([]);
    kit.readAll();
    kit.udp.takeEvents();
    expect(sent).toEqual([
      { request: 'a', bytes: 5, failure: undefined },
      { request: 'b', bytes: 7, failure: undefined },
    ]);
  });

  test('a datagram that nobody takes fails after 5 s', () => {
    const kit = new UdpKit();
    const sent: unknown[] = [];
    const owner: UdpOwner = { onUdpEvents: (socket) => sent.push(...socket.takeSent()) };
    const socket = kit.bind(4, 1000, owner);
    expect(kit.udp.deadline).toBe(Number.POSITIVE_INFINITY);
    socket.send(counting(5), peer, 2000, 'a');
    expect(kit.udp.deadline).toBe(kit.nowMs + 5000);
    kit.nowMs += 3000;
    socket.send(counting(5), peer, 2000, 'b');
    kit.nowMs += 2000;
    kit.udp.expire();
    kit.udp.takeEvents();
    expect(sent).toEqual([{ request: 'a', bytes: 5, failure: 'ENETDOWN' }]);
    expect(kit.udp.deadline).toBe(kit.nowMs + 3000);
    expect(kit.readAll()).toHaveLength(1);
    expect(kit.udp.deadline).toBe(Number.POSITIVE_INFINITY);
    expect(kit.udp.counters).toMatchObject({ sent: 1, sendDrops: 1 });
  });

  test('what closed sockets leave is sent, within a bound', () => {
    const kit = new UdpKit();
    for (let i = 0; i < 100; i++) {
      const socket = kit.bind(4, 0);
      for (let k = 0; k < 10; k++) socket.send(new Uint8Array(1000), peer, 2000, undefined);
      socket.close();
    }
    expect(kit.udp.size).toBe(0);
    const frames = kit.readAll().length;
    expect(frames).toBe(200);
    expect(kit.udp.counters.sendDrops).toBe(800);
    // The room is free again.
    const socket = kit.bind(4, 0);
    socket.send(counting(1), peer, 2000, undefined);
    socket.close();
    expect(kit.readAll()).toHaveLength(1);
  });

  test('the queues of all sockets have a bound together, for what arrives and for what is sent', () => {
    const kit = new UdpKit({ queueBytes: 10_000 });
    const [one, two] = [kit.bind(4, 1000), kit.bind(4, 1001)];
    const payload = new Uint8Array(1000 - 256);
    for (let i = 0; i < 4; i++) kit.fromPeer(4, { payload });
    for (let i = 0; i < 4; i++) kit.fromPeer(4, { payload, destinationPort: 1001 });
    expect(one.send(payload, peer, 2000, undefined)).toBeUndefined();
    expect(two.send(payload, peer, 2000, undefined)).toBeUndefined();
    expect(kit.udp.memory.bytes).toBe(10_000);
    expect(two.send(payload, peer, 2000, undefined)).toBe('ENOBUFS');
    kit.fromPeer(4, { payload });
    expect(kit.udp.counters).toMatchObject({ received: 8, receiveDrops: 1, memoryDrops: 2 });
    // What is taken, sent, or closed gives its room back.
    two.receive();
    expect(kit.udp.memory.bytes).toBe(9000);
    kit.readAll();
    expect(kit.udp.memory.bytes).toBe(7000);
    one.close();
    expect(kit.udp.memory.bytes).toBe(3000);
    two.close();
    expect(kit.udp.memory.bytes).toBe(0);
  });

  test('all queues may hold 16 MiB by default', () => {
    const kit = new UdpKit();
    const sockets = Array.from({ length: 80 }, () => kit.bind(4, 0));
    for (let i = 0; i < 4; i++) {
      for (const each of sockets) each.send(new Uint8Array(60_000), peer, 2000, undefined);
    }
    expect(kit.udp.memory.bytes).toBe(278 * 60_256);
    expect(kit.udp.counters.memoryDrops).toBe(320 - 278);
  });

  test('closing returns the requests that were not told of', () => {
    const kit = new UdpKit();
    const socket = kit.bind(4, 1000);
    socket.send(counting(1), peer, 2000, 'a');
    kit.readAll();
    socket.send(counting(2), peer, 2000, 'b');
    expect(socket.close()).toEqual([
      { request: 'a', bytes: 1, failure: undefined },
      { request: 'b', bytes: 2, failure: undefined },
    ]);
    expect(socket.close()).toEqual([]);
    expect(socket.send(counting(1), peer, 2000, undefined)).toBe('ENETDOWN');
  });

  test('the rest of a datagram of which a fragment was refused is not sent', () => {
    const kit = new UdpKit({ mtu: 1500 });
    const socket = kit.bind(4, 1000);
    socket.send(counting(20_000), peer, 2000, undefined);
    socket.send(counting(10), peer, 2000, undefined);
    kit.read();
    kit.udp.refused();
    expect(kit.readAll()).toHaveLength(1);
    expect(kit.udp.counters.sendDrops).toBe(1);
  });
});

describe('sockets of one flow', () => {
  const ends = {
    local: address('10.7.0.1'),
    localPort: 53,
    remote: address(PEER[4]),
    remotePort: 2000,
  };
  const owner: UdpOwner = { onUdpEvents: () => {} };

  test('each has what comes for its ends, and sends from its own address', () => {
    const kit = new UdpKit();
    const [one, two] = [2000, 2001].map((remotePort) =>
      kit.udp.open({ ...ends, remotePort }, owner)
    );
    expect(kit.udp.size).toBe(0);
    for (const sourcePort of [2000, 2001, 2002]) {
      const fields = { sourcePort, destinationPort: 53, payload: counting(sourcePort - 1999) };
      kit.receive(udpPacket({ source: PEER[4], destination: '10.7.0.1' }, fields));
    }
    expect(received(one!).map(({ payload }) => payload.length)).toEqual([1]);
    expect(received(two!).map(({ payload }) => payload.length)).toEqual([2]);
    expect(kit.udp.counters.closedPorts).toBe(1);
    two!.send(counting(3), ends.remote, 2001, undefined);
    const packet = packetOf(kit.read()!);
    expect(packet.subarray(12, 16)).toEqual(Buffer.from([10, 7, 0, 1]));
    one!.close();
    expect(kit.udp.counters.closedPorts).toBe(1);
    const fields = { sourcePort: 2000, destinationPort: 53 };
    const verdict = kit.receive(udpPacket({ source: PEER[4], destination: '10.7.0.1' }, fields));
    expect(verdict).toBe(UdpVerdict.Closed);
  });

  test('a socket that is discarded sends nothing more', () => {
    const kit = new UdpKit({ mtu: 1500 });
    const first = kit.udp.open(ends, owner)!;
    first.send(counting(5000), ends.remote, 2000, undefined);
    kit.read();
    kit.udp.discard(first);
    expect(kit.readAll()).toEqual([]);
    expect(kit.udp.counters.sendDrops).toBe(1);
    for (let remotePort = 1; remotePort <= 100; remotePort++) {
      const socket = kit.udp.open({ ...ends, remotePort }, owner)!;
      socket.send(counting(9), ends.remote, remotePort, undefined);
      kit.udp.discard(socket);
    }
    expect(kit.udp.memory.bytes).toBe(0);
    kit.nowMs += 5000;
    kit.udp.expire();
    expect(kit.udp.deadline).toBe(Number.POSITIVE_INFINITY);
    expect(kit.readAll()).toEqual([]);
    expect(kit.udp.counters.sendDrops).toBe(101);
  });
});

describe('events', () => {
  test('they are told of by takeEvents alone, once for each socket', () => {
    const kit = new UdpKit();
    const onEvents = vi.fn();
    kit.udp.onEvents = onEvents;
    const told: [number, number][] = [];
    const owner: UdpOwner = {
      onUdpEvents: (socket, bits) => told.push([socket.localPort, bits]),
    };
    kit.bind(4, 1000, owner);
    kit.bind(4, 1001, owner);
    kit.fromPeer(4);
    kit.fromPeer(4, { destinationPort: 1001 });
    kit.fromPeer(4);
    expect(onEvents).toHaveBeenCalledTimes(1);
    expect(told).toEqual([]);
    kit.udp.takeEvents();
    kit.udp.takeEvents();
    expect(told).toEqual([
      [1000, UdpEvent.Readable],
      [1001, UdpEvent.Readable],
    ]);
    kit.fromPeer(4);
    expect(onEvents).toHaveBeenCalledTimes(2);
  });

  test('a closed endpoint tells its sockets, fails what waits, and binds no more', () => {
    const kit = new UdpKit();
    const told: unknown[] = [];
    const owner: UdpOwner = {
      onUdpEvents: (socket, bits) => told.push(bits, ...socket.takeSent()),
    };
    kit.bind(4, 1000, owner).send(counting(1), address(PEER[4]), 2000, 'a');
    kit.udp.close();
    kit.udp.takeEvents();
    expect(told).toEqual([
      UdpEvent.Sent | UdpEvent.Closed,
      { request: 'a', bytes: 1, failure: 'ENETDOWN' },
    ]);
    expect(kit.readAll()).toEqual([]);
    expect(kit.udp.bind(4, undefined, 0, owner)).toBe('ENETDOWN');
  });
});
