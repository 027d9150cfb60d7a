/** UDP and echoes between two stacks, with all that is between the sockets and the device. */
import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { type PresenceDatagramSocket, SocketStack } from '../../../src/sockets/index.ts';
import { counting } from '../../support/bytes.ts';
import { pump } from '../../support/device-pump.ts';
import {
  echoPacket,
  fragment,
  icmpError,
  repairIpv4Checksum,
  udp,
  udpPacket,
} from '../../support/packets.ts';
import { Random } from '../../support/random.ts';
import { framed } from '../../support/vnet.ts';

const OWN = { 4: '10.0.0.1', 6: 'fd00::1' } as const;
const FAR = { 4: '10.0.1.1', 6: 'fd01::1' } as const;

let stacks: SocketStack[] = [];

function open(options: { mtu?: number; offload?: boolean }): SocketStack[] {
  stacks = [OWN, FAR].map((own, i) => {
    const stack = new SocketStack({ name: `stack-${i}`, ...options });
    const other = i === 0 ? FAR : OWN;
    stack.setSite({
      sources: [`${own[4]}/32`, `${own[6]}/128`],
      pools: [`${other[4]}/32`, `${other[6]}/128`],
      zone: 'example.test',
      hosts: [
        {
          name: 'far.example.test',
          addresses: [other[4], other[6]],
          ports: ['udp/1-65535', 'icmp'],
        },
      ],
    });
    return stack;
  });
  pump(stacks[0]!, stacks[1]!);
  return stacks;
}

afterEach(async () => {
  await Promise.all(stacks.map((stack) => stack.close()));
});

async function bound(socket: PresenceDatagramSocket): Promise<number> {
  socket.bind();
  await once(socket, 'listening');
  return socket.address().port;
}

describe.each([
  ['with offload', { offload: true }],
  ['without offload, MTU 1500', { offload: false, mtu: 1500 }],
] as const)('%s', (_, options) => {
  describe.each([4, 6] as const)('over IPv%i', (family) => {
    const type = `udp${family}` as const;

    test('datagrams of all lengths arrive whole', async () => {
      const [near, far] = open(options);
      const receiver = far!.datagram(type);
      const port = await bound(receiver);
      const sender = near!.datagram(type);
      const longest = family === 4 ? 65_507 : 65_527;
      for (const length of [0, 1, 1452, 1453, 1472, 1473, 9000, longest]) {
        const arrived = once(receiver, 'message');
        sender.send(counting(length), port, 'far');
        const [message, from] = (await arrived) as [Buffer, { address: string; size: number }];
        expect(message.equals(counting(length)), `${length} bytes`).toBe(true);
        expect(from).toMatchObject({ address: OWN[family], size: length });
      }
    });

    test('a closed port refuses a connected socket', async () => {
      const [near] = open(options);
      const socket = near!.datagram(type);
      socket.connect(9, 'far');
      await once(socket, 'connect');
      const failed = new Promise((resolve) => socket.on('error', resolve));
      socket.send(counting(5000));
      expect(await failed).toMatchObject({
        code: 'ECONNREFUSED',
        syscall: 'recvmsg',
        address: FAR[family],
        port: 9,
      });
    });

    test('echoes of all sizes come back', async () => {
      const [near] = open(options);
      for (const size of [0, 56, 1452, 1453, 1473, 60_000]) {
        const result = await near!.ping('far', { size, family });
        expect(result).toMatchObject({ address: FAR[family], bytes: size });
        expect(result.rttMs).toBeGreaterThanOrEqual(0);
      }
    });
  });
});

test('mutated packets throw nothing, and afterwards datagrams still arrive', async () => {
  const seed = 20_261_130;
  const random = new Random(seed);
  const [near, far] = open({});
  const socket = far!.datagram('udp4');
  const port = await bound(socket);
  const heard: Buffer[] = [];
  socket.on('message', (message) => heard.push(message));
  const frame = Buffer.alloc(70_000);
  for (let i = 0; i < 2500; i++) {
    const family = random.pick([4, 6] as const);
    const ends = { source: OWN[family], destination: FAR[family] };
    const payload = random.bytes(random.below(200));
    const fields = { sourcePort: 5, destinationPort: random.pick([port, 9]), payload };
    const quoted = udpPacket({ source: ends.destination, destination: ends.source }, fields);
    const packet = random.pick([
      () => udpPacket(ends, fields),
      () => echoPacket(ends, { payload, reply: random.chance(0.5) }),
      () => icmpError(ends, { type: family === 4 ? 3 : 1, code: random.below(16), quoted }),
      () => fragment(ends, udp(fields), [8 * random.below(4), 40], { fragment: 0, more: true }),
    ])();
    for (let k = random.below(4); k > 0; k--) {
      packet[random.below(packet.length)] = random.below(256);
    }
    repairIpv4Checksum(packet);
    const vnet = random.chance(0.5)
      ? {}
      : {
          flags: random.below(4),
          gsoType: random.below(6),
          gsoSize: random.below(100),
          checksumStart: random.pick([20, 40, random.below(100)]),
          checksumOffset: 6,
        };
    const bytes = framed(packet, vnet);
    frame.set(bytes, 0);
    expect(() => far!.write(frame, 0, bytes.length), `seed ${seed}, packet ${i}`).not.toThrow();
    if (i % 50 === 0) await new Promise(setImmediate);
  }
  const arrived = new Promise<void>((resolve) => {
    socket.on('message', (message) => message.equals(Buffer.from('still here')) && resolve());
  });
  near!.datagram('udp4').send('still here', port, 'far');
  await arrived;
  expect(heard.length).toBeGreaterThan(10);
  const { counters } = far!;
  expect(counters.dropMalformed).toBeGreaterThan(100);
});

test('a connected socket learns that its peer or its port is withdrawn, and goes on', async () => {
  const [near, far] = open({});
  const site = {
    sources: [`${OWN[4]}/32`],
    pools: [`${FAR[4]}/32`],
    zone: 'example.test',
    hosts: [{ name: 'far.example.test', addresses: [FAR[4]], ports: ['udp/514'] }],
  };
  near!.setSite(site);
  const [socket, quiet, free] = [1, 2, 3].map(() => near!.datagram('udp4'));
  const errors: unknown[] = [];
  socket!.on('error', (error) => errors.push(error));
  free!.on('error', (error) => errors.push(error));
  for (const each of [socket!, quiet!]) {
    each.connect(514, 'far');
    await once(each, 'connect');
  }
  await bound(free!);
  for (const [change, reason] of [
    [{ hosts: [] }, 'udp/514 of far.example.test was withdrawn'],
    [{ pools: [] }, `${FAR[4]} is not in the pools of the site any more`],
  ] as const) {
    near!.setSite({ ...site, ...change });
    await new Promise(setImmediate);
    expect(errors.splice(0)).toMatchObject([
      {
        code: 'ECONNREFUSED',
        syscall: 'recvmsg',
        address: FAR[4],
        port: 514,
        cause: { message: reason },
      },
    ]);
    near!.setSite(site);
    await new Promise(setImmediate);
    expect(errors).toEqual([]);
  }
  const receiver = far!.datagram('udp4').bind(514);
  const arrived = once(receiver, 'message');
  socket!.send('again');
  expect(String((await arrived)[0])).toBe('again');
});

test('the end of a stack ends its sockets and echoes', async () => {
  const [near, far] = open({});
  await far!.close();
  const socket = near!.datagram('udp4');
  await bound(socket);
  const codes: unknown[] = [];
  socket.on('error', (error: NodeJS.ErrnoException) => codes.push(error.code));
  const closed = new Promise((resolve) => socket.on('close', resolve));
  const waiting = expect(near!.ping('far')).rejects.toMatchObject({ code: 'ENETDOWN' });
  await new Promise(setImmediate);
  await near!.close();
  await Promise.all([waiting, closed]);
  expect(codes).toEqual(['ENETDOWN']);
});
