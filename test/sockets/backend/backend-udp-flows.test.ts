/** What becomes of the flows of a UDP backend, with sockets of the host that the test plays. */
import type { Socket } from 'node:dgram';
import { describe, expect, test } from 'vitest';
import { Parse } from '../../../src/packet/fields.ts';
import { PacketHeader } from '../../../src/packet/header.ts';
import { hasRightChecksum } from '../../../src/packet/transport-checksum.ts';
import { targetOf } from '../../../src/sockets/backend/backend-dial.ts';
import { UdpVerdict } from '../../../src/sockets/udp/udp.ts';
import { counting } from '../../support/bytes.ts';
import { udpPacket } from '../../support/packets.ts';
import { GSO_UDP_L4, NEEDS_CSUM } from '../../support/vnet.ts';
import { address, OWN, packetOf } from '../udp/udp-kit.ts';
import { catchUncaught } from '../uncaught.ts';
import { settled } from '../worlds.ts';
import { CLIENT, FakeHostSocket, PORT, SERVICE, UdpBackendKit } from './backend-udp-kit.ts';

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const [client, service] = [CLIENT[family], SERVICE[family]];

  test('a datagram goes to the host in a later tick, and the reply leaves from the service', () => {
    const kit = new UdpBackendKit();
    expect(kit.arrive('question', { client })).toBe(UdpVerdict.Taken);
    expect(kit.hosts).toEqual([]);
    kit.udp.takeEvents();
    expect(kit.host.target).toEqual({
      address: service,
      port: PORT,
      family,
      client: { address: client, port: 4000 },
      localAddress: undefined,
    });
    expect(kit.host.sent.map(String)).toEqual(['question']);
    expect(kit.host.isRefd).toBe(false);
    kit.host.reply(Buffer.from('answer'));
    const [frame, ...others] = kit.readAll();
    expect(others).toEqual([]);
    const ends = { source: service, destination: client };
    const expected = udpPacket(ends, {
      sourcePort: PORT,
      destinationPort: 4000,
      payload: Buffer.from('answer'),
      checksum: 'partial',
      identification: family === 4 ? packetOf(frame!).readUInt16BE(4) : 0,
      fragment: 0,
    });
    expect(packetOf(frame!).equals(expected)).toBe(true);
    expect(kit.backend.counters).toMatchObject({ opened: 1, toServices: 1, toClients: 1 });
  });

  test('each pair of ports has a flow of its own, and each flow gets its own replies', () => {
    const kit = new UdpBackendKit();
    kit.isAllowed = () => true;
    for (const [clientPort, port] of [
      [4000, 53],
      [4001, 53],
      [4000, 54],
    ] as const) {
      kit.send(`${clientPort}-${port}`, { client, clientPort, port });
      kit.send('again', { client, clientPort, port });
    }
    expect(kit.backend.size).toBe(3);
    expect(kit.hosts.map(({ sent }) => sent.map(String))).toEqual([
      ['4000-53', 'again'],
      ['4001-53', 'again'],
      ['4000-54', 'again'],
    ]);
    kit.hosts[1]!.reply(Buffer.from('x'));
    const header = family === 4 ? 20 : 40;
    const [frame] = kit.readAll();
    expect(packetOf(frame!).readUInt16BE(header)).toBe(53);
    expect(packetOf(frame!).readUInt16BE(header + 2)).toBe(4001);
  });

  test('what no service takes is refused and counted, and opens nothing', () => {
    const kit = new UdpBackendKit();
    kit.isAllowed = (at, port) => at.equals(address(service)) && port === PORT;
    expect(kit.send('x', { client, port: PORT + 1 })).toBe(UdpVerdict.Closed);
    const elsewhere = family === 4 ? '10.7.0.2' : 'fd07::2';
    expect(kit.send('x', { client, service: elsewhere })).toBe(UdpVerdict.Closed);
    expect(kit.hosts).toEqual([]);
    expect(kit.backend.size).toBe(0);
    expect(kit.backend.counters.notAllowed).toBe(2);
    expect(kit.udp.counters.closedPorts).toBe(2);
  });

  test('a socket of the stack has its own address alone; the backend has what no socket has', () => {
    const kit = new UdpBackendKit();
    const socket = kit.bind(family, PORT);
    kit.send('for the socket', { client, service: OWN[family] });
    expect(String(socket.receive()!.payload)).toBe('for the socket');
    kit.send('for the service', { client });
    expect(socket.receive()).toBeUndefined();
    expect(kit.host.sent.map(String)).toEqual(['for the service']);
    socket.close();
    kit.send('for a service at the address of the stack', { client, service: OWN[family] });
    expect(kit.host.target.address).toBe(OWN[family]);
  });

  test.each([
    ['ECONNREFUSED', 'port'],
    ['EHOSTUNREACH', 'host'],
    ['ENETUNREACH', 'network'],
    ['EPERM', 'prohibited'],
  ] as const)(
    '%s of the host ends the flow, and an ICMP error quotes the datagram',
    (code, what) => {
      const kit = new UdpBackendKit();
      kit.send('first', { client });
      kit.send('second', { client });
      kit.host.emit('error', systemError(code));
      expect(kit.host.isClosed).toBe(true);
      expect(kit.backend.size).toBe(0);
      expect(kit.backend.counters).toMatchObject({ refused: 1, failed: 0 });
      const [report] = kit.reports;
      expect(report).toMatchObject({ what, from: service, to: client });
      const quoted = udpPacket(
        { source: client, destination: service },
        {
          sourcePort: 4000,
          destinationPort: PORT,
          payload: Buffer.from('second'),
          identification: 0,
          fragment: 0,
        }
      );
      expect(report!.quote.equals(quoted)).toBe(true);
      // The next datagram begins a new flow.
      kit.send('third', { client });
      expect(kit.hosts).toHaveLength(2);
      expect(kit.host.sent.map(String)).toEqual(['third']);
    }
  );

  test('a long datagram is quoted in part, with its real length', () => {
    const kit = new UdpBackendKit();
    kit.send(counting(3000), { client });
    kit.host.emit('error', systemError('ECONNREFUSED'));
    const { quote } = kit.reports[0]!;
    expect(quote.length).toBeLessThanOrEqual(1280 - 48);
    const header = new PacketHeader();
    const view = new DataView(quote.buffer, quote.byteOffset, quote.length);
    expect(header.parseQuote(view, 0, quote.length)).toBe(Parse.Ok);
    expect(header.payloadLength).toBe(3008);
    expect(quote.readUInt16BE(header.transport + 4)).toBe(3008);
    expect(quote.readUInt16BE(header.transport + 6)).toBe(0);
  });

  test('a short datagram is quoted with a right checksum', () => {
    for (const length of [0, 1, 8, 1183]) {
      const kit = new UdpBackendKit();
      kit.send(counting(length), { client });
      kit.host.emit('error', systemError('ECONNREFUSED'));
      const { quote } = kit.reports[0]!;
      const header = new PacketHeader();
      const view = new DataView(quote.buffer, quote.byteOffset, quote.length);
      expect(header.parse(view, 0, quote.length)).toBe(Parse.Ok);
      expect(hasRightChecksum(view, header)).toBe(true);
    }
  });

  test('an ICMP error of the client ends the flow', () => {
    const kit = new UdpBackendKit();
    kit.send('x', { client });
    const error = {
      kind: 'port-unreachable',
      family,
      protocol: 'udp',
      local: address(service),
      localPort: PORT,
      remote: address(client),
      remotePort: 4000,
      sequence: 0,
      mtu: 0,
    } as const;
    expect(kit.udp.onIcmpError({ ...error, remotePort: 4001 })).toBe(false);
    expect(kit.udp.onIcmpError({ ...error, kind: 'host-unreachable' })).toBe(true);
    kit.udp.takeEvents();
    expect(kit.backend.size).toBe(1);
    expect(kit.udp.onIcmpError(error)).toBe(true);
    kit.udp.takeEvents();
    expect(kit.backend.size).toBe(0);
    expect(kit.host.isClosed).toBe(true);
    expect(kit.backend.counters.clientGone).toBe(1);
  });

  test('a super-packet is split into its datagrams', () => {
    const kit = new UdpBackendKit();
    const fields = {
      sourcePort: 4000,
      destinationPort: PORT,
      payload: counting(2500),
      checksum: 'partial',
    } as const;
    const verdict = kit.receive(udpPacket({ source: client, destination: service }, fields), {
      flags: NEEDS_CSUM,
      checksumStart: family === 4 ? 20 : 40,
      checksumOffset: 6,
      gsoType: GSO_UDP_L4,
      gsoSize: 1000,
    });
    expect(verdict).toBe(UdpVerdict.Taken);
    kit.udp.takeEvents();
    expect(kit.host.sent.map(({ length }) => length)).toEqual([1000, 1000, 500]);
    expect(Buffer.concat(kit.host.sent).equals(counting(2500))).toBe(true);
  });

  test('a damaged datagram opens no flow', () => {
    const kit = new UdpBackendKit();
    const ends = { source: client, destination: service };
    const fields = { sourcePort: 4000, destinationPort: PORT, payload: counting(9), checksum: 7 };
    expect(kit.receive(udpPacket(ends, fields))).toBe(UdpVerdict.Dropped);
    expect(kit.backend.size).toBe(0);
    expect(kit.udp.counters.badChecksums).toBe(1);
  });
});

test('datagrams wait for the socket of the host, up to 256 KiB, in their order', () => {
  const kit = new UdpBackendKit();
  kit.isAccepting = false;
  for (let i = 0; i < 300; i++) kit.send(Buffer.alloc(1024 - 256, i));
  expect(kit.hosts).toHaveLength(1);
  expect(kit.host.sent).toEqual([]);
  expect(kit.udp.counters.receiveDrops).toBe(300 - 256);
  kit.host.accept();
  expect(kit.host.sent.map(([byte]) => byte)).toEqual(Array.from({ length: 256 }, (_, i) => i));
  expect(kit.udp.memory.bytes).toBe(0);
});

test('the host holds one datagram at a time', () => {
  const kit = new UdpBackendKit();
  kit.send('1');
  kit.host.isFull = true;
  for (const text of ['2', '3', '4']) kit.send(text);
  expect(kit.host.sent.map(String)).toEqual(['1', '2']);
  kit.host.drain();
  expect(kit.host.sent.map(String)).toEqual(['1', '2', '3', '4']);
});

test('replies wait for the device up to 256 KiB; the rest is dropped and counted', () => {
  const kit = new UdpBackendKit();
  kit.send('x');
  for (let i = 0; i < 300; i++) kit.host.reply(Buffer.alloc(1024 - 256, i));
  expect(kit.backend.counters).toMatchObject({ toClients: 256, clientDrops: 44 });
  expect(kit.readAll()).toHaveLength(256);
  expect(kit.udp.memory.bytes).toBe(0);
});

test.each(['EMFILE', 'ENFILE', 'EADDRNOTAVAIL'])('%s ends the flow without a word', (code) => {
  const kit = new UdpBackendKit();
  kit.isAccepting = false;
  kit.send('x');
  kit.host.emit('error', systemError(code));
  expect(kit.backend.size).toBe(0);
  expect(kit.reports).toEqual([]);
  expect(kit.backend.counters).toMatchObject({ failed: 1, refused: 0, serviceDrops: 1 });
});

test.each(['ENOBUFS', 'EMSGSIZE'])('%s drops one datagram, and the flow goes on', (code) => {
  const kit = new UdpBackendKit();
  kit.send('1');
  kit.host.failure = systemError(code);
  kit.send('2');
  kit.host.failure = null;
  kit.send('3');
  expect(kit.host.sent.map(String)).toEqual(['1', '3']);
  expect(kit.backend.counters).toMatchObject({ toServices: 2, serviceDrops: 1, failed: 0 });
});

test('a refusal that `send` reports counts like any other', () => {
  const kit = new UdpBackendKit();
  kit.send('1');
  kit.host.failure = systemError('ECONNREFUSED');
  kit.send('2');
  expect(kit.reports).toHaveLength(1);
  expect(kit.backend.size).toBe(0);
});

test('a network that is unreachable before anything was sent is reported with the first datagram', () => {
  const kit = new UdpBackendKit();
  kit.isAccepting = false;
  kit.send('first');
  kit.send('second');
  kit.host.emit('error', systemError('ENETUNREACH'));
  expect(kit.reports[0]!.what).toBe('network');
  expect(String(kit.reports[0]!.quote.subarray(28))).toBe('first');
});

const uncaught = catchUncaught();
test('a dial that throws, or returns nothing, fails the flow', async () => {
  for (const dial of [
    () => {
      throw systemError('EMFILE');
    },
    () => {
      throw undefined;
    },
    () => undefined as never,
  ]) {
    const kit = new UdpBackendKit({ dial });
    kit.send('1');
    expect(kit.backend.counters).toMatchObject({ failed: 1, serviceDrops: 1 });
    expect(kit.backend.size).toBe(0);
  }
  // What is no socket is a fault of the program, which learns of it.
  await settled();
  expect(uncaught.splice(0).map(({ name }) => name)).toEqual(['ApiMisuseError']);
});

test('a dial that ends its own flow gets its socket closed', () => {
  const made: FakeHostSocket[] = [];
  const kit: UdpBackendKit = new UdpBackendKit({
    dial: (target) => {
      kit.backend.withdrawWhere(() => true);
      made.push(new FakeHostSocket(target));
      return made[0] as unknown as Socket;
    },
  });
  kit.send('1');
  expect(made.map(({ isClosed }) => isClosed)).toEqual([true]);
  made[0]!.emit('error', systemError('ECONNREFUSED'));
  expect(kit.backend.counters).toMatchObject({ withdrawn: 1, failed: 0, refused: 0 });
});

test('a socket that the program closes ends the flow', () => {
  const kit = new UdpBackendKit();
  kit.send('1');
  kit.host.close();
  expect(kit.backend.size).toBe(0);
  expect(kit.backend.counters.failed).toBe(1);
  kit.send('2');
  expect(kit.hosts).toHaveLength(2);
});

test('a flow goes to where the service is reached, and knows its client', () => {
  const kit = new UdpBackendKit({
    targetOf: (ends) => targetOf(ends, address('127.0.0.9'), true),
  });
  kit.send('1');
  expect(kit.host.target).toEqual({
    address: '127.0.0.9',
    port: PORT,
    family: 4,
    client: { address: CLIENT[4], port: 4000 },
    localAddress: '127.133.0.1',
  });
});

test('an error of a socket whose flow has ended is ignored', () => {
  const kit = new UdpBackendKit();
  kit.send('1');
  const { host } = kit;
  kit.backend.close();
  host.emit('error', systemError('ECONNREFUSED'));
  host.reply(Buffer.from('late'));
  expect(kit.reports).toEqual([]);
  expect(kit.readAll()).toEqual([]);
});

test('what anybody sends to the socket of a flow is not passed on as the service', () => {
  const kit = new UdpBackendKit();
  kit.isAccepting = false;
  kit.send('question');
  kit.host.reply(Buffer.from('too early'));
  kit.host.accept();
  kit.host.reply(Buffer.from('of another host'), { address: '10.7.0.2' });
  kit.host.reply(Buffer.from('of another port'), { port: PORT + 1 });
  expect(kit.backend.counters).toMatchObject({ strangers: 3, toClients: 0 });
  kit.host.reply(Buffer.from('answer'));
  expect(kit.backend.counters).toMatchObject({ strangers: 3, toClients: 1 });
});
