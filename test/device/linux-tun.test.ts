import { execFile, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { createConnection } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { formatIPv4 } from '../../src/base/address.ts';
import {
  configureTun,
  LinuxTun,
  type LinuxTunOptions,
  type PacketDevice,
} from '../../src/device/index.ts';
import { ApiMisuseError, EnvironmentError } from '../../src/errors.ts';
import {
  VNET_F_NEEDS_CSUM,
  VNET_FLAGS,
  VNET_GSO_NONE,
  VNET_GSO_TYPE,
  VNET_HEADER_LENGTH,
} from '../../src/packet/virtio.ts';
import { outcome, spawnNode } from '../support/child.ts';
import { forwarded, plainDatagram, plainFrame } from '../support/datagrams.ts';
import { ip, titled, useNamespace } from '../support/namespace.ts';
import {
  type DevicePair,
  describeDevice,
  nextFrame,
  READ_LENGTH,
  readFrame,
  until,
} from './conformance.ts';

const skipReason = await useNamespace();
const describeTun = describe.skipIf(skipReason !== undefined);

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function openTun(options: Partial<LinuxTunOptions> = {}): Promise<LinuxTun> {
  const tun = await LinuxTun.open({ name: 'vp%d', ...options });
  cleanups.push(() => tun.close());
  return tun;
}

/** Opens two TUNs; the kernel routes a packet that is written to one to the other. */
async function routedPair(options: Partial<LinuxTunOptions>): Promise<DevicePair> {
  const first = await LinuxTun.open({ name: 'first', ...options });
  const second = await LinuxTun.open({ name: 'second', ...options });
  execFileSync('sysctl', ['-qw', 'net.ipv4.ip_forward=1']);
  await configureTun({ name: 'first', routes: ['10.9.1.0/24'] });
  await configureTun({ name: 'second', routes: ['10.9.2.0/24'] });
  return { first, second, arrives: forwarded };
}

for (const wakeup of ['libuv', 'thread-pool'] as const) {
  describeDevice(`LinuxTun by ${wakeup}`, () => routedPair({ wakeup }), {
    offload: true,
    skipReason,
  });
}
describeDevice('LinuxTun without offload', () => routedPair({ offload: false }), {
  offload: false,
  skipReason,
});

describeTun(titled('LinuxTun and the kernel', skipReason), () => {
  async function boundSocket(address: string): Promise<DatagramSocket> {
    const socket = createSocket('udp4').bind(0, address);
    cleanups.push(() => socket.close());
    await once(socket, 'listening');
    return socket;
  }

  test('reads the datagram of a local socket to an address routed to the TUN', async () => {
    const tun = await openTun();
    await configureTun({
      name: tun.name,
      addresses: ['192.0.2.1/32'],
      routes: ['198.51.100.0/24'],
    });
    const socket = await boundSocket('192.0.2.1');
    socket.send('to the far side', 4242, '198.51.100.7');
    const frame = await nextFrame(tun);
    const packet = frame.subarray(VNET_HEADER_LENGTH);
    expect(frame[VNET_FLAGS]).toBe(VNET_F_NEEDS_CSUM);
    expect(frame[VNET_GSO_TYPE]).toBe(VNET_GSO_NONE);
    expect(formatIPv4(packet.readInt32BE(12))).toBe('192.0.2.1');
    expect(formatIPv4(packet.readInt32BE(16))).toBe('198.51.100.7');
    expect(packet.readUInt16BE(22)).toBe(4242);
    expect(packet.toString('utf8', 28)).toBe('to the far side');
  });

  test('delivers a packet that is written to the socket of its destination', async () => {
    const tun = await openTun();
    await configureTun({
      name: tun.name,
      addresses: ['192.0.2.1/32'],
      routes: ['198.51.100.0/24'],
    });
    const socket = await boundSocket('192.0.2.1');
    const packet = plainDatagram({
      source: '198.51.100.7',
      destination: '192.0.2.1',
      sourcePort: 4242,
      destinationPort: socket.address().port,
      length: 100,
    });
    const frame = plainFrame(packet);
    expect(tun.write(frame, 0, frame.length)).toBe(true);
    const [message, from] = await once(socket, 'message');
    expect(message).toEqual(packet.subarray(28));
    expect(from).toMatchObject({ address: '198.51.100.7', port: 4242 });
  });

  test('reads complete packets of a local socket behind a header of zeros, without offload', async () => {
    const tun = await openTun({ offload: false });
    await configureTun({
      name: tun.name,
      addresses: ['192.0.2.1/32'],
      routes: ['198.51.100.0/24'],
    });
    const socket = await boundSocket('192.0.2.1');
    socket.send('x'.repeat(100), 4242, '198.51.100.7');
    const frame = await nextFrame(tun);
    expect(frame.subarray(0, VNET_HEADER_LENGTH)).toEqual(Buffer.alloc(VNET_HEADER_LENGTH));
    expect(udpSum(frame.subarray(VNET_HEADER_LENGTH))).toBe(0xffff);
  });

  test('counts a packet that the kernel refuses as dropped', async () => {
    const tun = await openTun();
    const frame = plainFrame(plainDatagram({ source: '10.9.1.1', destination: '10.9.1.2' }));
    frame[VNET_GSO_TYPE] = 0x7f; // no such kind
    expect(tun.write(frame, 0, frame.length)).toBe(false);
    frame[VNET_GSO_TYPE] = VNET_GSO_NONE;
    ip('link', 'set', 'dev', tun.name, 'down');
    expect(tun.write(frame, 0, frame.length)).toBe(false);
    expect(tun.counters).toMatchObject({ writeDrops: 2, writtenPackets: 0 });
  });

  test('carries a TCP stream between two namespaces in super-packets', async () => {
    const [near, far] = [await openTun({ name: 'near' }), await openTun({ name: 'far' })];
    const server = spawn('unshare', ['-n', process.execPath, '-e', DIGEST_SERVER], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    cleanups.push(() => server.kill('SIGKILL'));
    const [port] = await once(server.stdout!.setEncoding('utf8'), 'data');
    const inside = ['-t', String(server.pid), '-n', 'ip'];
    ip('link', 'set', 'dev', 'far', 'netns', String(server.pid));
    await run('nsenter', [...inside, 'address', 'add', '10.9.0.2/24', 'dev', 'far']);
    await run('nsenter', [...inside, 'link', 'set', 'dev', 'far', 'mtu', '1500', 'up']);
    ip('address', 'add', '10.9.0.1/24', 'dev', 'near');

    const longest = { packet: 0, gso: 0 };
    const forward = (from: PacketDevice, to: PacketDevice): void => {
      const buffer = Buffer.allocUnsafeSlow(READ_LENGTH);
      from.start(() => {
        for (let i = 0; i < 64; i++) {
          const length = from.read(buffer, 0);
          if (length === 0) return;
          to.write(buffer, 0, length);
          if (length - VNET_HEADER_LENGTH > longest.packet) {
            longest.packet = length - VNET_HEADER_LENGTH;
            longest.gso = buffer[VNET_GSO_TYPE]!;
          }
        }
      });
    };
    forward(near, far);
    forward(far, near);

    const data = Buffer.alloc(8_000_000, 'the quick brown fox ');
    const client = createConnection({ host: '10.9.0.2', port: Number(port) });
    client.end(data);
    let answer = '';
    for await (const chunk of client) answer += chunk;
    expect(answer).toBe(createHash('sha256').update(data).digest('hex'));
    expect(longest.packet).toBeGreaterThan(near.mtu);
    expect(longest.gso).not.toBe(VNET_GSO_NONE);
    expect(near.counters.writeDrops + far.counters.writeDrops).toBe(0);
  });

  test('switches on every offload that this kernel has', async () => {
    const tun = await openTun();
    expect(tun.offloads.slice(0, 3)).toEqual(['csum', 'tso', 'tso-ecn']);
    expect((await openTun({ offload: false })).offloads).toEqual([]);
  });

  test('sets the MTU of the interface and sets it up', async () => {
    const tun = await openTun({ mtu: 1380, queueLength: 2_000 });
    const [link] = JSON.parse(ip('-j', 'link', 'show', 'dev', tun.name));
    expect(link).toMatchObject({
      mtu: 1380,
      txqlen: 2_000,
      flags: expect.arrayContaining(['UP']),
    });
    expect(tun.mtu).toBe(1380);
  });

  test('numbers the interface if the name has %d', async () => {
    expect((await openTun({ name: 'num%d' })).name).toBe('num0');
    expect((await openTun({ name: 'num%d' })).name).toBe('num1');
  });

  test('removes its interface when it is closed', async () => {
    const tun = await openTun({ name: 'passing' });
    await tun.close();
    expect(() => ip('link', 'show', 'dev', 'passing')).toThrow();
  });

  test('keeps a persistent interface with its routes, and opens it again', async () => {
    const tun = await openTun({ name: 'kept', persist: true });
    await configureTun({ name: 'kept', routes: ['198.51.100.0/24'] });
    await tun.close();
    expect(ip('route', 'show', 'dev', 'kept')).toContain('198.51.100.0/24');
    const again = await openTun({ name: 'kept' });
    expect(again.name).toBe('kept');
    await again.close();
    ip('link', 'delete', 'kept');
  });

  test.each(['libuv', 'thread-pool'] as const)(
    'reports once by %s that the interface was deleted',
    async (wakeup) => {
      const errors: Error[] = [];
      const tun = await openTun({ name: 'lost', wakeup, onGone: (error) => errors.push(error) });
      expect(tun.wakeup).toBe(wakeup);
      let calls = 0;
      tun.start(() => {
        calls++;
      });
      ip('link', 'delete', 'lost');
      await until(() => errors.length > 0);
      tun.pause();
      tun.resume();
      await new Promise((resolve) => setImmediate(resolve));
      expect(errors).toEqual([expect.any(EnvironmentError)]);
      expect(errors[0]!.message).toBe('interface lost is gone');
      expect([calls, readFrame(tun).length]).toEqual([0, 0]);
    }
  );
});

describeTun(titled('LinuxTun.open', skipReason), () => {
  test.each(['', 'sixteen-letters-', 'a b', 'a/b', 'a:b', '.', '..', 'ä', 'a\0b', 'a\n'])(
    'refuses the name %j',
    async (name) => {
      await expect(LinuxTun.open({ name })).rejects.toThrow(ApiMisuseError);
    }
  );

  test.each([0, 100_001, 1.5])('refuses a queue of %s packets', async (queueLength) => {
    await expect(LinuxTun.open({ name: 'vp0', queueLength })).rejects.toThrow(ApiMisuseError);
  });

  test.each([67, 65_536, 1400.5, Number.NaN])('refuses an MTU of %s', async (mtu) => {
    await expect(LinuxTun.open({ name: 'vp0', mtu })).rejects.toThrow(ApiMisuseError);
  });

  test('reports that another process has the interface', async () => {
    await openTun({ name: 'busy' });
    const opening = LinuxTun.open({ name: 'busy' });
    await expect(opening).rejects.toThrow(EnvironmentError);
    await expect(opening).rejects.toThrow('TUN busy: another process has this interface open');
  });

  test('reports that an interface of another kind has the name', async () => {
    await expect(LinuxTun.open({ name: 'lo' })).rejects.toThrow(
      'TUN lo: an interface of another kind has this name'
    );
  });

  test.each([
    [
      'lacks CAP_NET_ADMIN',
      ['setpriv', '--bounding-set', '-net_admin', '--inh-caps', '-net_admin'],
      'TUN vp0: this process lacks CAP_NET_ADMIN, or the interface belongs to another user',
    ],
    [
      'may not open /dev/net/tun',
      [
        'setpriv',
        '--reuid',
        '65534',
        '--regid',
        '65534',
        '--clear-groups',
        '--bounding-set',
        '-all',
      ],
      'this process has no permission to open /dev/net/tun',
    ],
    [
      'has no /dev/net/tun',
      ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs none /dev/net && exec "$0" "$@"'],
      '/dev/net/tun is missing; load the kernel module tun, or pass the device into the container',
    ],
  ])('reports in one sentence that the process %s', async (_, prefix, sentence) => {
    const { output } = await outcome(spawnNode(['-e', OPEN_SCRIPT], prefix));
    expect(output).toBe(`EnvironmentError ${sentence}\n`);
  });

  test('leaves no descriptor open when it fails', async () => {
    await openTun({ name: 'busy' });
    for (let i = 0; i < 5; i++) await LinuxTun.open({ name: 'busy' }).catch(() => {});
    expect(openTuns()).toBe(1);
  });
});

/** Returns the one's complement sum of pseudo-header and datagram, which is 0xffff for a correct UDP checksum. */
function udpSum(packet: Buffer): number {
  let sum = 17 + packet.length - 20;
  for (let i = 12; i < packet.length; i += 2) {
    sum += packet[i]! * 256 + (packet[i + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** Returns the number of open descriptors of /dev/net/tun in this process. */
function openTuns(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === '/dev/net/tun';
    } catch {
      return false; // the one that listed the directory
    }
  }).length;
}

function run(command: string, args: string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile(command, args, (error) => (error ? reject(error) : resolve()));
  });
}

const OPEN_SCRIPT = `
import(${JSON.stringify(new URL('../../src/device/index.ts', import.meta.url).href)})
  .then(({ LinuxTun }) => LinuxTun.open({ name: 'vp0' }))
  .then(() => console.log('opened'), (error) => console.log(error.name, error.message));
`;

/** Answers each connection with the SHA-256 of the bytes that it sent. */
const DIGEST_SERVER = `
const { createServer } = require('node:net');
const { createHash } = require('node:crypto');
createServer({ allowHalfOpen: true }, (socket) => {
  const hash = createHash('sha256');
  socket.on('data', (data) => hash.update(data));
  socket.on('end', () => socket.end(hash.digest('hex')));
}).listen(0, '0.0.0.0', function () { console.log(this.address().port); });
`;
