/** UDP and echoes between a stack and the kernel, through a TUN. */
import { execFile } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterEach, describe, expect, test } from 'vitest';
import { LinuxTun, type PacketDevice } from '../../../src/device/index.ts';
import {
  MAX_PACKET_LENGTH,
  PacketSegmenter,
  SegmentResult,
  VNET_HEADER_LENGTH,
} from '../../../src/packet/index.ts';
import { SocketStack } from '../../../src/sockets/index.ts';
import { counting } from '../../support/bytes.ts';
import { ip, titled, useNamespace } from '../../support/namespace.ts';

const skipReason = await useNamespace();

const STACK = { 4: '10.9.1.2', 6: 'fd09:1::2' } as const;
const KERNEL = { 4: '10.9.1.1', 6: 'fd09:1::1' } as const;

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close();
});

/** A stack whose packets a TUN gets, as a gateway would hand them over. */
async function open(offload: boolean, mtu = 1500): Promise<SocketStack> {
  const tun = await LinuxTun.open({ name: 'vp%d', offload, mtu });
  opened.push(tun);
  for (const [key, value] of [
    ['disable_ipv6', '0'],
    ['accept_dad', '0'],
  ]) {
    writeFileSync(`/proc/sys/net/ipv6/conf/${tun.name}/${key}`, value!);
  }
  ip('address', 'add', `${KERNEL[4]}/24`, 'dev', tun.name);
  ip('address', 'add', `${KERNEL[6]}/64`, 'dev', tun.name, 'nodad');
  const stack = new SocketStack({ name: 'stack', offload, ...(offload ? {} : { mtu }) });
  opened.push(stack);
  stack.setSite({
    sources: [`${STACK[4]}/32`, `${STACK[6]}/128`],
    pools: [`${KERNEL[4]}/32`, `${KERNEL[6]}/128`],
    zone: 'example.test',
    hosts: [
      {
        name: 'far.example.test',
        addresses: [KERNEL[4], KERNEL[6]],
        ports: ['udp/1-65535', 'icmp'],
      },
    ],
  });
  move(stack, tun);
  move(tun, stack);
  return stack;
}

/** Packets that are longer than the MTU of the device are cut, as data planes do it. */
function move(from: PacketDevice, to: PacketDevice): void {
  const buffer = Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  const segmenter = new PacketSegmenter();
  from.linkChanged?.(true);
  from.start(() => {
    for (let length = from.read(buffer, 0); length > 0; length = from.read(buffer, 0)) {
      if (length - VNET_HEADER_LENGTH <= to.mtu || buffer[1] !== 0) {
        to.write(buffer, 0, length);
        continue;
      }
      const outcome = segmenter.begin(buffer, 0, VNET_HEADER_LENGTH, length, to.mtu);
      expect(outcome).toBe(SegmentResult.Ready);
      for (let next = segmenter.next(); next > 0; next = segmenter.next()) {
        to.write(segmenter.frame, 0, next);
      }
    }
  });
}

/** Sends datagrams until there is an answer: a busy kernel may leave out an ICMP error. */
async function askUntil(
  answer: Promise<unknown>,
  socket: { send(message: string): void }
): Promise<unknown> {
  socket.send('anybody?');
  const timer = setInterval(() => socket.send('anybody?'), 1_000);
  return answer.finally(() => clearInterval(timer));
}

async function kernelSocket(family: 4 | 6): Promise<Socket> {
  const socket = createSocket(`udp${family}`);
  opened.push(socket);
  socket.bind(0, KERNEL[family]);
  await once(socket, 'listening');
  return socket;
}

describe.skipIf(skipReason).each([true, false])(titled('offload %s', skipReason), (offload) => {
  describe.each([4, 6] as const)('IPv%i', (family) => {
    const type = `udp${family}` as const;
    const lengths = [0, 1, 1452, 1453, 1472, 1473, 9000, 60_000, 65_507];

    test('the kernel takes datagrams of all lengths', async () => {
      const stack = await open(offload);
      const kernel = await kernelSocket(family);
      const socket = stack.datagram(type);
      for (const length of lengths) {
        const arrived = once(kernel, 'message');
        socket.send(counting(length), kernel.address().port, 'far');
        const [message, from] = (await arrived) as [Buffer, { address: string; port: number }];
        expect(message.equals(counting(length)), `${length} bytes`).toBe(true);
        expect(from).toMatchObject({ address: STACK[family], port: socket.address().port });
      }
    });

    test('datagrams of the kernel of all lengths arrive', async () => {
      const stack = await open(offload);
      const kernel = await kernelSocket(family);
      const socket = stack.datagram(type);
      socket.bind();
      await once(socket, 'listening');
      for (const length of lengths) {
        const arrived = once(socket, 'message');
        kernel.send(counting(length), socket.address().port, STACK[family]);
        const [message, from] = (await arrived) as [Buffer, { address: string; port: number }];
        expect(message.equals(counting(length)), `${length} bytes`).toBe(true);
        expect(from).toMatchObject({ address: KERNEL[family], port: kernel.address().port });
      }
    });

    test('a closed port is refused on both sides', async () => {
      const stack = await open(offload);
      const kernel = await kernelSocket(family);
      const other = await kernelSocket(family);
      // The port is taken, but for another peer.
      kernel.connect(other.address().port, KERNEL[family]);
      await once(kernel, 'connect');
      const socket = stack.datagram(type);
      socket.connect(kernel.address().port, 'far');
      await once(socket, 'connect');
      const refused = new Promise((resolve) => socket.on('error', resolve));
      expect(await askUntil(refused, socket)).toMatchObject({
        code: 'ECONNREFUSED',
        address: KERNEL[family],
      });

      kernel.disconnect();
      kernel.connect(socket.address().port, STACK[family]);
      await once(kernel, 'connect');
      socket.close();
      await once(socket, 'close');
      const told = new Promise((resolve) => kernel.on('error', resolve));
      expect(await askUntil(told, kernel)).toMatchObject({ code: 'ECONNREFUSED' });
    });

    test('echoes of all sizes are answered on both sides', async () => {
      const stack = await open(offload);
      for (const size of [0, 56, 1452, 1473, 20_000, 65_507]) {
        expect(await stack.ping('far', { size, family })).toMatchObject({ bytes: size });
        const wait = ['-c', '1', '-W', '10', '-s', String(size)];
        const { stdout } = await promisify(execFile)('ping', [...wait, STACK[family]]);
        expect(stdout).toContain('1 received');
      }
    });
  });
});

test.skipIf(skipReason)(
  titled('a path MTU below that of the link is learned from the kernel', skipReason),
  async () => {
    const stack = await open(true);
    // A network behind the kernel, with a smaller MTU, that nobody answers from.
    const narrow = await LinuxTun.open({ name: 'narrow%d', mtu: 1300 });
    opened.push(narrow);
    writeFileSync(`/proc/sys/net/ipv6/conf/${narrow.name}/disable_ipv6`, '0');
    writeFileSync('/proc/sys/net/ipv6/conf/all/forwarding', '1');
    ip('address', 'add', 'fd09:2::1/64', 'dev', narrow.name, 'nodad');
    stack.setSite({
      sources: [`${STACK[6]}/128`],
      pools: ['fd09:2::/64'],
      zone: 'example.test',
      hosts: [{ name: 'x.example.test', addresses: ['fd09:2::2'], ports: ['udp/1-65535'] }],
    });
    const socket = stack.datagram('udp6');
    socket.connect(1000, 'x');
    await once(socket, 'connect');
    const told = new Promise((resolve) => socket.once('error', resolve));
    socket.send(counting(1400));
    expect(await told).toMatchObject({ code: 'EMSGSIZE', address: 'fd09:2::2' });
    const packets = stack.counters.readPackets;
    await new Promise((resolve) => socket.send(counting(1400), resolve));
    await new Promise(setImmediate);
    expect(stack.counters.readPackets).toBe(packets + 2);
  }
);
