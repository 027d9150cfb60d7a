/** When the device of a stack sends, delivers and expires, and whose a packet is. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { VNET_HEADER_LENGTH } from '../../src/packet/index.ts';
import { SiteView } from '../../src/sockets/site/site-view.ts';
import { StackDevice } from '../../src/sockets/stack-device.ts';
import { READ_LENGTH, turn, until } from '../device/conformance.ts';
import { fragmentPacket } from '../oracle/fragment-packet.ts';
import { FakeClock } from '../support/fake-clock.ts';
import {
  type Ends,
  echoPacket,
  icmpError,
  sctpPacket,
  tcpPacket,
  udpPacket,
} from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { FakeEndpoint } from './fake-endpoint.ts';

const ENDS: Ends = { source: '10.0.0.129', destination: '10.0.0.5' };
const PORTS = { sourcePort: 1, destinationPort: 2 };
const SITE = { sources: [], pools: ['0.0.0.0/0', '::/0'], zone: 'test', hosts: [] };
const OWN = [IpAddress.parse('10.0.0.5'), IpAddress.parse('2001:db8::5')];

let clock: FakeClock;
let tcp: FakeEndpoint;
let udp: FakeEndpoint;
let icmp: FakeEndpoint;
let device: StackDevice;
/** What has happened, in order. */
let log: string[];

beforeEach(() => {
  clock = new FakeClock();
  tcp = new FakeEndpoint();
  udp = new FakeEndpoint();
  icmp = new FakeEndpoint();
  const view = new SiteView(SITE, OWN, undefined);
  device = new StackDevice({
    name: 'sockets0',
    mtu: 65_515,
    offload: true,
    clock,
    endpoints: { tcp, udp, icmp },
    view: () => view,
    hasBackend: () => false,
    onUnknownProtocol: () => {},
  });
  log = [];
});

afterEach(() => device.close());

const buffer = Buffer.alloc(READ_LENGTH);
const frame = (number = 0): Uint8Array => framed(udpPacket(ENDS, { ...PORTS, sourcePort: number }));
const write = (packet: Uint8Array): boolean => device.write(Buffer.from(packet), 0, packet.length);
/** Resolves when all ticks and promises of this callback are over, before the loop goes on. */
const ticks = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await new Promise<void>((resolve) => process.nextTick(resolve));
};

/** Starts the device with a reader that reads all, or `batch` packets. */
function start(batch = Number.POSITIVE_INFINITY): void {
  const started = device;
  started.start(() => {
    let count = 0;
    while (count < batch && started.read(buffer, 0) > 0) count++;
    log.push(`send ${count}`);
  });
}

describe('sending', () => {
  test('begins in the tick behind the call, and goes on in the next turn of the loop', async () => {
    start();
    tcp.send(frame(), frame());
    expect(log).toEqual([]);
    await ticks();
    expect(log).toEqual(['send 2']);
    udp.send(frame());
    await ticks();
    expect(log).toEqual(['send 2']);
    await turn();
    expect(log).toEqual(['send 2', 'send 1']);
    await turn();
    await turn();
    tcp.send(frame());
    await ticks();
    expect(log).toEqual(['send 2', 'send 1', 'send 1']);
  });

  test('goes on with what the reader has left, once in each turn', async () => {
    start(2);
    tcp.send(...[1, 2, 3, 4, 5].map(frame));
    await ticks();
    expect(log).toEqual(['send 2']);
    await turn();
    expect(log).toEqual(['send 2', 'send 2']);
    await turn();
    expect(log).toEqual(['send 2', 'send 2', 'send 1']);
    await turn();
    expect(log).toHaveLength(3);
  });

  test('waits while the link is down', async () => {
    start();
    device.linkChanged(false);
    tcp.send(frame());
    await turn();
    expect(log).toEqual([]);
    device.linkChanged(true);
    await ticks();
    expect(log).toEqual(['send 1']);
  });

  test('tells the source of the packet read last that it was refused', async () => {
    const counts: number[] = [];
    device.start(() => {
      for (let n = device.read(buffer, 0); n > 0; n = device.read(buffer, 0)) counts.push(n);
    });
    tcp.send(frame());
    udp.send(frame());
    await ticks();
    device.refused();
    expect([...tcp.calls, ...udp.calls]).toEqual([]);
    tcp.send(frame());
    device.read(buffer, 0);
    device.refused();
    expect([tcp.calls, udp.calls]).toEqual([['refused'], []]);
    expect(device.counters).toMatchObject({ readPackets: 3, refused: 2 });
    expect(device.counters.readBytes).toBe(3 * (frame().length - VNET_HEADER_LENGTH));
  });
});

describe('events', () => {
  test('are delivered in the tick behind the packets, and what they write leaves in the next', async () => {
    start();
    tcp.onFrame = () => {
      tcp.send(frame());
      tcp.onEvents();
    };
    tcp.onTake = () => {
      log.push('events');
      process.nextTick(() => {
        log.push('stream');
        tcp.send(frame());
      });
    };
    const segment = framed(tcpPacket(ENDS, PORTS));
    write(segment);
    write(segment);
    expect(log).toEqual([]);
    await ticks();
    expect(log).toEqual(['events', 'stream', 'send 3']);
    expect(tcp.received).toHaveLength(2);
  });

  test('of all protocols are delivered, also when a listener throws', async () => {
    start();
    const thrown = new Promise<Error>((resolve) => {
      const others = process.listeners('uncaughtException');
      process.removeAllListeners('uncaughtException');
      process.once('uncaughtException', (error) => {
        for (const listener of others) process.on('uncaughtException', listener);
        resolve(error);
      });
    });
    tcp.onTake = () => {
      tcp.onTake = () => {};
      throw new Error('of a listener');
    };
    udp.onTake = () => void log.push('udp');
    udp.send(frame());
    tcp.onEvents();
    udp.onEvents();
    expect(await thrown).toMatchObject({ message: 'of a listener' });
    await turn();
    expect(log).toEqual(['udp', 'send 1']);
  });

  test('are delivered after the device was closed', async () => {
    tcp.onEvents();
    await device.close();
    await ticks();
    expect(tcp.calls).toEqual(['takeEvents']);
  });
});

describe('time', () => {
  test('is the same for all packets of one callback, and another in the next', async () => {
    const times: number[] = [];
    udp.onFrame = () => times.push(udp.nowMs);
    write(frame());
    clock.advance(5);
    write(frame());
    await ticks();
    write(frame());
    expect(times[1]).toBe(times[0]);
    expect(times[2]).toBe(times[0]! + 5);
  });

  test('has one timer for the earliest deadline, and none without a deadline', async () => {
    const now = clock.monotonicMs();
    tcp.deadline = now + 200;
    udp.deadline = now + 100;
    write(frame());
    await ticks();
    expect(clock.delays).toEqual([100]);
    clock.advance(100);
    expect(udp.calls).toEqual([]);
    await turn();
    expect([udp.calls, tcp.calls]).toEqual([[`expire ${now + 100}`], [`expire ${now + 100}`]]);
    await ticks();
    expect(clock.delays).toEqual([]);
  });

  test('is looked at again when the program has changed a deadline', async () => {
    icmp.deadline = clock.monotonicMs() + 70;
    icmp.onDeadline();
    await ticks();
    expect(clock.delays).toEqual([70]);
    await device.close();
    expect(clock.delays).toEqual([]);
  });

  test('expires nothing that became due while packets were read, before they are read again', async () => {
    const now = clock.monotonicMs();
    tcp.deadline = now + 10;
    tcp.onDeadline();
    await ticks();
    clock.advance(10);
    // The deadline moves, then the loop is blocked in the same turn.
    tcp.deadline = now + 20;
    clock.advance(300);
    await turn();
    expect(tcp.calls).toEqual([]);
    expect(clock.delays).toEqual([1]);
    clock.advance(1);
    await turn();
    expect(tcp.calls).toEqual([`expire ${now + 311}`]);
  });

  test('lets what has arrived meanwhile be read before a deadline expires', async () => {
    tcp.deadline = clock.monotonicMs() + 10;
    tcp.onDeadline();
    await ticks();
    clock.advance(300);
    // The poll comes between the timers and the immediates.
    tcp.onFrame = () => {
      tcp.deadline = Number.POSITIVE_INFINITY;
    };
    write(framed(tcpPacket(ENDS, PORTS)));
    await turn();
    expect(tcp.calls).toEqual([]);
  });
});

test('a packet of an address that is no presence is counted, unless it is an ICMP error', () => {
  const view = new SiteView({ ...SITE, pools: ['10.0.0.128/25'] }, OWN, undefined);
  const strict = new StackDevice({
    name: 'strict',
    mtu: 65_515,
    offload: true,
    clock,
    endpoints: { tcp, udp, icmp },
    view: () => view,
    hasBackend: () => false,
    onUnknownProtocol: () => {},
  });
  const from = { ...ENDS, source: '192.0.2.1' };
  const quoted = udpPacket({ source: ENDS.destination, destination: ENDS.source }, PORTS);
  const packets = [
    udpPacket(ENDS, PORTS),
    udpPacket(from, PORTS),
    icmpError(from, { type: 3, code: 1, quoted }),
  ];
  for (const packet of packets) {
    const bytes = Buffer.from(framed(packet));
    strict.write(bytes, 0, bytes.length);
  }
  expect([udp.received.length, icmp.received.length]).toEqual([1, 1]);
  expect(strict.counters.dropBadSource).toBe(1);
});

describe('a packet', () => {
  const echo = (ends: Ends): Uint8Array => framed(echoPacket(ends, {}));

  test('goes to its protocol', () => {
    write(framed(tcpPacket(ENDS, PORTS)));
    write(frame());
    write(echo(ENDS));
    const six = { source: '2001:db8::1:5', destination: '2001:db8::5' };
    write(framed(udpPacket(six, PORTS)));
    expect([tcp, udp, icmp].map(({ received }) => received.length)).toEqual([1, 2, 1]);
    expect(device.counters).toMatchObject({ writtenPackets: 4, writeDrops: 0, dropNotOwn: 0 });
  });

  test('goes to UDP if it is a fragment of UDP, and nowhere if it is one of TCP', () => {
    const payload = new Uint8Array(3000);
    for (const packet of [
      udpPacket(ENDS, { ...PORTS, payload }),
      tcpPacket(ENDS, { ...PORTS, payload }),
    ]) {
      for (const fragment of fragmentPacket(packet, [1400], 7)) write(framed(fragment));
    }
    expect([tcp, udp].map(({ received }) => received.length)).toEqual([0, 2]);
    expect(device.counters.dropUnsupported).toBe(2);
  });

  test.each([
    ['another destination', { ...ENDS, destination: '10.0.0.6' }, 'dropNotOwn'],
    ['a destination that is no host', { ...ENDS, destination: '255.255.255.255' }, 'dropNotOwn'],
    ['the own address as its source', { ...ENDS, source: '10.0.0.5' }, 'dropBadSource'],
    ['a loopback source', { ...ENDS, source: '127.0.0.1' }, 'dropBadSource'],
    ['a multicast source', { ...ENDS, source: '224.0.0.1' }, 'dropBadSource'],
    ['the broadcast source', { ...ENDS, source: '255.255.255.255' }, 'dropBadSource'],
    ['no source', { ...ENDS, source: '0.0.0.0' }, 'dropBadSource'],
    [
      'an IPv6 multicast source',
      { source: 'ff02::1', destination: '2001:db8::5' },
      'dropBadSource',
    ],
    ['the IPv6 loopback source', { source: '::1', destination: '2001:db8::5' }, 'dropBadSource'],
    ['no IPv6 source', { source: '::', destination: '2001:db8::5' }, 'dropBadSource'],
  ] as const)('with %s is counted and goes nowhere', (_, ends, counter) => {
    expect(write(framed(udpPacket(ends, PORTS)))).toBe(true);
    expect(device.counters[counter]).toBe(1);
    expect(udp.received).toEqual([]);
  });

  test('that is malformed is counted, and never an exception', () => {
    const whole = frame();
    for (let length = VNET_HEADER_LENGTH + 1; length < whole.length; length++) {
      write(whole.subarray(0, length));
    }
    for (let at = VNET_HEADER_LENGTH; at < VNET_HEADER_LENGTH + 20; at++) {
      const wrong = Buffer.from(whole);
      wrong[at]! ^= 0x55;
      // A packet that begins with version 4 or 6 instead of a virtio-net header is a misuse.
      write(wrong);
    }
    expect(udp.received).toEqual([]);
    expect(device.counters.dropMalformed).toBe(whole.length - VNET_HEADER_LENGTH - 1 + 20);
  });

  test('of another protocol is counted', () => {
    write(framed(sctpPacket(ENDS, PORTS)));
    expect(device.counters.dropUnsupported).toBe(1);
  });
});

test('a callback that throws is an uncaught exception, and sending goes on', async () => {
  const error = new Promise((resolve) => {
    const others = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.once('uncaughtException', (it) => {
      for (const listener of others) process.on('uncaughtException', listener);
      resolve(it);
    });
  });
  let calls = 0;
  device.start(() => {
    if (++calls === 1) throw new Error('of the reader');
    while (device.read(buffer, 0) > 0) log.push('read');
  });
  tcp.send(frame());
  expect(await error).toMatchObject({ message: 'of the reader' });
  await until(() => calls === 2);
  expect(log).toEqual(['read']);
});
