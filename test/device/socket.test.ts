import { spawn } from 'node:child_process';
import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  SocketDevice,
  type UdpDeviceOptions,
  type UnixDeviceOptions,
} from '../../src/device/index.ts';
import { ApiMisuseError, EnvironmentError } from '../../src/errors.ts';
import { plainDatagram, plainFrame } from '../support/datagrams.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { refusingUdpPort } from '../support/refusing-port.ts';
import { type DevicePair, describeDevice, nextFrame, readFrame, until } from './conformance.ts';

const QUEUE_LENGTH = 8;
const PACKET = plainDatagram({ source: '10.0.0.1', destination: '10.0.0.2' });

let directory: string;
const cleanups: (() => unknown)[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'device-'));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  rmSync(directory, { recursive: true });
});

/** Opens two UDP devices. The first has learned the second from a packet, which was read already. */
async function udpPair(loopback: string): Promise<DevicePair> {
  const local = { host: loopback, port: 0 };
  const first = await SocketDevice.open({
    type: 'udp',
    local,
    learnPeer: true,
    queueLength: QUEUE_LENGTH,
  });
  const second = await SocketDevice.open({
    type: 'udp',
    local,
    peer: first.local!,
    queueLength: QUEUE_LENGTH,
  });
  await learn(first, second);
  return { first, second };
}

async function learn(learner: SocketDevice, peer: SocketDevice): Promise<void> {
  write(peer, PACKET);
  await nextFrame(learner);
  // The connection to the peer may take another turn.
  await until(() => write(learner, PACKET));
  await nextFrame(peer);
}

function write(device: SocketDevice, packet: Buffer): boolean {
  const frame = plainFrame(packet);
  return device.write(frame, 0, frame.length);
}

async function unixPair(): Promise<DevicePair> {
  const path = join(mkdtempSync(join(directory, 'pair-')), 's');
  const first = await SocketDevice.open({
    type: 'unix',
    path,
    role: 'listen',
    queueLength: QUEUE_LENGTH,
  });
  const second = await SocketDevice.open({
    type: 'unix',
    path,
    role: 'connect',
    queueLength: QUEUE_LENGTH,
  });
  await until(() => write(first, PACKET));
  await nextFrame(second);
  return { first, second };
}

describeDevice('SocketDevice over UDP on 127.0.0.1', () => udpPair('127.0.0.1'), {
  offload: false,
  queueLength: QUEUE_LENGTH,
});
describeDevice('SocketDevice over UDP on ::1', () => udpPair('::1'), {
  offload: false,
  queueLength: QUEUE_LENGTH,
});
describeDevice('SocketDevice over a unix socket', unixPair, {
  offload: false,
  queueLength: QUEUE_LENGTH,
});

describe('SocketDevice over UDP', () => {
  const local = { host: '127.0.0.1', port: 0 };

  async function datagramSocket(): Promise<DatagramSocket & { port: number }> {
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    cleanups.push(() => socket.close());
    await once(socket, 'listening');
    return Object.assign(socket, { port: (socket.address() as AddressInfo).port });
  }
  async function udpDevice(options: Partial<UdpDeviceOptions>): Promise<SocketDevice> {
    const device = await SocketDevice.open({ type: 'udp', local, ...options });
    cleanups.push(() => device.close());
    return device;
  }

  test('sends the packet without a header, and reads it behind a header of zeros', async () => {
    const peer = await datagramSocket();
    const device = await udpDevice({ peer: { host: '127.0.0.1', port: peer.port } });
    write(device, PACKET);
    const [message, from] = await once(peer, 'message');
    expect(message).toEqual(PACKET);
    expect(from).toMatchObject({ address: '127.0.0.1', port: device.local!.port });
    peer.send(PACKET, device.local!.port, '127.0.0.1');
    expect(await nextFrame(device)).toEqual(plainFrame(PACKET));
  });

  test('reads datagrams of the peer only', async () => {
    const peer = await datagramSocket();
    const outsider = await datagramSocket();
    const device = await udpDevice({ peer: { host: '127.0.0.1', port: peer.port } });
    outsider.send('outsider', device.local!.port, '127.0.0.1');
    await until(() => outsider.getSendQueueCount() === 0);
    peer.send(PACKET, device.local!.port, '127.0.0.1');
    await until(() => device.counters.readPackets > 0 || readFrame(device).length > 0);
    expect(device.counters).toMatchObject({ readPackets: 1, readBytes: PACKET.length });
  });

  test('has no peer until the first datagram, whose source stays its peer, with learnPeer', async () => {
    const peer = await datagramSocket();
    const outsider = await datagramSocket();
    const device = await udpDevice({ learnPeer: true });
    expect(write(device, PACKET)).toBe(false);
    peer.send(PACKET, device.local!.port, '127.0.0.1');
    // These two arrive before the socket is connected to the peer, or the kernel drops them.
    outsider.send('outsider', device.local!.port, '127.0.0.1');
    outsider.send('outsider', device.local!.port, '127.0.0.1');
    await nextFrame(device);
    await until(() => write(device, PACKET));
    await once(peer, 'message');
    peer.send(PACKET, device.local!.port, '127.0.0.1');
    await nextFrame(device);
    expect(device.counters.readPackets).toBe(2);
    expect(device.counters.readBytes).toBe(2 * PACKET.length);
  });

  test('counts an empty datagram as malformed', async () => {
    const peer = await datagramSocket();
    const device = await udpDevice({ peer: { host: '127.0.0.1', port: peer.port } });
    peer.send('', device.local!.port, '127.0.0.1');
    await until(() => device.counters.malformed === 1);
    expect(readFrame(device)).toHaveLength(0);
  });

  test('drops and counts packets that arrive while its queue is full', async () => {
    const peer = await datagramSocket();
    const device = await udpDevice({
      peer: { host: '127.0.0.1', port: peer.port },
      queueLength: 2,
    });
    for (let i = 0; i < 5; i++) peer.send(PACKET, device.local!.port, '127.0.0.1');
    await until(() => device.counters.readDrops === 3);
    expect([1, 2, 3].map(() => readFrame(device).length > 0)).toEqual([true, true, false]);
  });

  test('survives a peer at which nobody listens, and counts the errors', async () => {
    const nobody = await refusingUdpPort();
    cleanups.push(() => nobody.close());
    const device = await udpDevice({ peer: { host: '127.0.0.1', port: nobody.port } });
    await until(() => {
      write(device, PACKET);
      return device.counters.socketErrors > 0;
    });
  });

  test('refuses a busy address with an EnvironmentError that names it', async () => {
    const other = await datagramSocket();
    const taken = { host: '127.0.0.1', port: other.port };
    const opening = SocketDevice.open({
      type: 'udp',
      local: taken,
      peer: { host: '127.0.0.1', port: 9 },
    });
    await expect(opening).rejects.toThrow(EnvironmentError);
    await expect(opening).rejects.toThrow(
      new RegExp(`^UDP 127.0.0.1 port ${other.port} .*EADDRINUSE`)
    );
  });

  test.each([
    ['neither peer nor learnPeer', { local }],
    ['both', { local, learnPeer: true, peer: { host: '127.0.0.1', port: 9 } }],
    ['a peer of another family', { local, peer: { host: '::1', port: 9 } }],
    ['a host name', { local: { host: 'localhost', port: 0 }, learnPeer: true }],
    ['peer port 0', { local, peer: { host: '127.0.0.1', port: 0 } }],
    ['local port 65536', { local: { host: '127.0.0.1', port: 65_536 }, learnPeer: true }],
    ['an MTU no datagram has', { local, learnPeer: true, mtu: 65_508 }],
    ['queueLength 0', { local, learnPeer: true, queueLength: 0 }],
  ])('refuses %s', async (_, options) => {
    await expect(SocketDevice.open({ type: 'udp', ...options })).rejects.toThrow(ApiMisuseError);
  });
});

describe('SocketDevice over a unix socket', () => {
  async function unixDevice(
    options: Partial<UnixDeviceOptions> & { role: 'listen' | 'connect' }
  ): Promise<SocketDevice> {
    const device = await SocketDevice.open({
      type: 'unix',
      path: join(directory, 's'),
      ...options,
    });
    cleanups.push(() => device.close());
    return device;
  }
  async function plainClient(): Promise<Socket> {
    const socket = connect(join(directory, 's'));
    cleanups.push(() => socket.destroy());
    await once(socket, 'connect');
    return socket;
  }
  function prefixed(packet: Buffer): Buffer {
    return Buffer.concat([Buffer.from([0, 0, 0, packet.length]), packet]);
  }

  test('speaks the framing of QEMU and passt: 32-bit big-endian length, then the packet', async () => {
    const device = await unixDevice({ role: 'listen' });
    const client = await plainClient();
    await until(() => write(device, PACKET));
    const [data] = await once(client, 'data');
    expect(data).toEqual(prefixed(PACKET));
    client.write(prefixed(PACKET));
    expect(await nextFrame(device)).toEqual(plainFrame(PACKET));
  });

  test('closes the connection after an invalid length, and accepts the next connection', async () => {
    const device = await unixDevice({ role: 'listen' });
    const hostile = await plainClient();
    hostile.on('error', () => {});
    hostile.write(Buffer.from([0xff, 0xff, 0xff, 0xff]));
    await once(hostile, 'close');
    expect(device.counters.malformed).toBe(1);
    const client = await plainClient();
    client.write(prefixed(PACKET));
    await nextFrame(device);
  });

  test('refuses a second connection while it has one', async () => {
    const device = await unixDevice({ role: 'listen' });
    const client = await plainClient();
    await until(() => write(device, PACKET));
    const second = await plainClient();
    await once(second, 'close');
    expect(device.counters.strangers).toBe(1);
    client.write(prefixed(PACKET));
    await nextFrame(device);
  });

  test('stops its sender instead of dropping packets when the reader is slow', async () => {
    const path = join(directory, 's');
    const slow = await unixDevice({ role: 'listen', queueLength: 200 });
    const sender = await SocketDevice.open({
      type: 'unix',
      path,
      role: 'connect',
      queueLength: 1024,
    });
    cleanups.push(() => sender.close());
    const big = Buffer.alloc(1500, 1);
    let sent = 0;
    await until(() => {
      for (let i = 0; i < 500; i++) if (write(sender, big)) sent++;
      return sender.counters.writeDrops > 3000;
    });
    // The sender's own queue has overflowed.
    let received = 0;
    await until(() => {
      while (readFrame(slow).length > 0) received++;
      return received === sent;
    });
    expect(slow.counters.readDrops).toBe(0);
    expect(sent).toBeGreaterThan(200);
  });

  test('drops and counts tiny packets that one read of the stream brings beyond its queue', async () => {
    const device = await unixDevice({ role: 'listen', queueLength: 2 });
    const client = await plainClient();
    client.write(Buffer.concat(Array.from({ length: 5 }, () => prefixed(PACKET))));
    await until(() => device.counters.readDrops === 3);
    expect([1, 2, 3].map(() => readFrame(device).length > 0)).toEqual([true, true, false]);
  });

  test('connects again when its listener is back, after the time that it was given', async () => {
    const path = join(directory, 's');
    const clock = new FakeClock();
    const listen = async (onSocket: (socket: Socket) => void): Promise<Server> => {
      const server = createServer(onSocket).listen(path);
      cleanups.push(() => server.close());
      await once(server, 'listening');
      return server;
    };
    let peer: Socket | undefined;
    const server = await listen((socket) => {
      peer = socket;
    });
    const device = await unixDevice({
      role: 'connect',
      reconnectMs: 250,
      clock,
    });
    await until(() => peer !== undefined);
    peer!.destroy();
    server.close();
    await until(() => clock.delays.length === 1);
    expect(clock.delays).toEqual([250]);
    expect(write(device, PACKET)).toBe(false);
    clock.advance(249);
    expect(clock.delays).toEqual([250]);
    clock.advance(1);
    await until(() => clock.delays.length === 1); // nobody listens: it waits once more
    let received = Buffer.alloc(0);
    await listen((socket) => {
      socket.on('data', (data) => {
        received = Buffer.concat([received, data as Buffer]);
      });
    });
    clock.advance(250);
    await until(() => write(device, PACKET));
    await until(() => received.length === PACKET.length + 4);
    expect(received).toEqual(prefixed(PACKET));
  });

  test('refuses a path at which another process listens, and does not remove it', async () => {
    const path = join(directory, 's');
    await unixDevice({ role: 'listen' });
    const opening = SocketDevice.open({ type: 'unix', path, role: 'listen' });
    await expect(opening).rejects.toThrow(EnvironmentError);
    await expect(opening).rejects.toThrow(`unix socket ${path} cannot be listened at`);
    await plainClient();
  });

  test('takes over a socket file whose process has ended, and removes it on close', async () => {
    const path = join(directory, 's');
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    await once(spawn(process.execPath, ['-e', script]), 'exit');
    expect(existsSync(path)).toBe(true);
    const device = await SocketDevice.open({ type: 'unix', path, role: 'listen' });
    await device.close();
    expect(existsSync(path)).toBe(false);
  });

  test('refuses to connect to a path at which nobody listens', async () => {
    const path = join(directory, 's');
    const opening = SocketDevice.open({ type: 'unix', path, role: 'connect' });
    await expect(opening).rejects.toThrow(EnvironmentError);
    await expect(opening).rejects.toThrow(`unix socket ${path} cannot be connected to`);
  });

  test.each([
    ['an empty path', ''],
    ['a path of 108 bytes', `/tmp/${'x'.repeat(103)}`],
    ['a zero byte', '/tmp/a\0b'],
  ])('refuses %s', async (_, path) => {
    await expect(SocketDevice.open({ type: 'unix', path, role: 'listen' })).rejects.toThrow(
      ApiMisuseError
    );
  });

  test('takes packets up to the MTU, which does not include the virtio-net header', async () => {
    const device = await unixDevice({ role: 'listen', mtu: 100 });
    await plainClient();
    await until(() => write(device, Buffer.alloc(100)));
    expect(write(device, Buffer.alloc(101))).toBe(false);
    expect(device.counters.writtenBytes).toBe(100);
  });
});
