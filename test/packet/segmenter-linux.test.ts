import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { configureTun, LinuxTun } from '../../src/device/index.ts';
import { PacketSegmenter, SegmentResult } from '../../src/packet/index.ts';
import { readFrame, until } from '../device/conformance.ts';
import { titled, useNamespace } from '../support/namespace.ts';
import {
  ACK,
  CWR,
  FIN,
  type IpOptions,
  PSH,
  repairIpv4Checksum,
  type TcpFields,
  tcpPacket,
  udpPacket,
} from '../support/packets.ts';
import { framed, type VnetHeader } from '../support/vnet.ts';
import { partialHeader, pieces, ROUTER_ALERT, UNCOPIED_OPTION } from './pieces.ts';

const skipReason = await useNamespace();

const ENDS4 = { source: '10.9.1.1', destination: '10.9.2.1' };
const ENDS6 = { source: 'fd09:1::1', destination: 'fd09:2::1' };
const MTU = 1280;
const PAYLOAD: Uint8Array = Uint8Array.from({ length: 9001 }, (_, i) => (i * 7 + (i >> 8)) & 255);

const devices: LinuxTun[] = [];
afterEach(async () => {
  for (const device of devices.splice(0)) await device.close();
});

async function openTun(name: string, offload: boolean): Promise<LinuxTun> {
  const tun = await LinuxTun.open({ name, offload, mtu: MTU });
  devices.push(tun);
  writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '0');
  writeFileSync(`/proc/sys/net/ipv6/conf/${name}/accept_dad`, '0');
  return tun;
}

function segment(options: Partial<TcpFields> & IpOptions) {
  return {
    sourcePort: 49_152,
    destinationPort: 5672,
    payload: PAYLOAD,
    checksum: 'partial' as const,
    ...options,
  };
}

const FLAGS = ACK | FIN | PSH | CWR;
const TCP_OPTIONS = Uint8Array.of(1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8); // timestamps
const TCP4 = tcpPacket(ENDS4, segment({ flags: FLAGS, tcpOptions: TCP_OPTIONS }));
const TCP6 = tcpPacket(ENDS6, segment({ flags: FLAGS, tcpOptions: TCP_OPTIONS }));
const UDP4 = udpPacket(ENDS4, segment({}));
const UDP6 = udpPacket(ENDS6, segment({}));
const OPTIONS = Buffer.concat([UNCOPIED_OPTION, ROUTER_ALERT]);
const LONG4 = udpPacket(ENDS4, segment({ fragment: 0 }));
const LONG4_OPTIONS = udpPacket(ENDS4, segment({ fragment: 0, options: OPTIONS }));
const FRAGMENT4 = udpPacket(ENDS4, segment({ fragment: 0x20, payload: PAYLOAD.subarray(1) }));

const CASES: readonly (readonly [string, Uint8Array, VnetHeader])[] = [
  ['TCP over IPv4', TCP4, partialHeader(TCP4, { gsoType: 0x81, gsoSize: 1208 })],
  [
    'TCP over IPv4 in segments of odd size',
    TCP4,
    partialHeader(TCP4, { gsoType: 0x81, gsoSize: 999 }),
  ],
  ['TCP over IPv6', TCP6, partialHeader(TCP6, { gsoType: 0x84, gsoSize: 1188 })],
  ['UDP over IPv4', UDP4, partialHeader(UDP4, { gsoType: 5, gsoSize: 1200 })],
  ['UDP over IPv6', UDP6, partialHeader(UDP6, { gsoType: 5, gsoSize: 1201 })],
  ['a datagram without DF', LONG4, partialHeader(LONG4)],
  ['a datagram with options', LONG4_OPTIONS, partialHeader(LONG4_OPTIONS)],
  ['a fragment', FRAGMENT4, {}],
];

describe.skipIf(skipReason !== undefined)(
  titled('PacketSegmenter and the kernel', skipReason),
  () => {
    test.each(CASES)('split %s alike', async (_, packet, header) => {
      const from = await openTun('from', true);
      const to = await openTun('to', false);
      execFileSync('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
      await configureTun({ name: 'from', routes: ['10.9.1.0/24', 'fd09:1::/64'] });
      await configureTun({ name: 'to', routes: ['10.9.2.0/24', 'fd09:2::/64'] });
      const forwarded = packet.slice();
      forwarded[packet[0]! >> 4 === 4 ? 8 : 7]!--; // one hop less to live
      repairIpv4Checksum(forwarded);
      const expected = pieces(forwarded, MTU, header);
      expect(expected.length).toBeGreaterThan(1);

      const frame = Buffer.from(framed(packet, header));
      expect(from.write(frame, 0, frame.length)).toBe(true);
      const got: Uint8Array[] = [];
      await until(() => {
        const read = readFrame(to).subarray(10);
        if (read.length > 0 && !isOfKernel(read)) got.push(new Uint8Array(read));
        return got.length === expected.length;
      });
      expect(got).toEqual(expected);
    });

    test.each([
      ['IPv4', 'udp4', { source: '10.9.1.1', destination: '10.9.1.9' }],
      ['IPv6', 'udp6', { source: 'fd09:1::1', destination: 'fd09:1::9' }],
    ] as const)('of %s: the kernel puts the fragments together', async (_, type, ends) => {
      const tun = await openTun('from', false);
      const addresses = [`${ends.destination}/${type === 'udp4' ? 32 : 128}`];
      await configureTun({ name: 'from', addresses, routes: ['10.9.1.0/24', 'fd09:1::/64'] });
      const socket = createSocket(type).bind(0, ends.destination);
      await once(socket, 'listening');
      const message = once(socket, 'message');

      const ports = { sourcePort: 4242, destinationPort: socket.address().port };
      const packet = udpPacket(ends, { ...segment({ fragment: 0 }), ...ports });
      const frame = framed(packet, partialHeader(packet));
      const segmenter = new PacketSegmenter();
      expect(segmenter.begin(frame, 0, 10, frame.length, MTU)).toBe(SegmentResult.Ready);
      for (let length = segmenter.next(); length > 0; length = segmenter.next()) {
        expect(tun.write(segmenter.frame, 0, length)).toBe(true);
      }
      expect((await message)[0]).toEqual(Buffer.from(PAYLOAD));
      socket.close();
    });
  }
);

/** Whether it is one of the packets that the kernel sends to every IPv6 interface: to multicast. */
function isOfKernel(packet: Uint8Array): boolean {
  return packet[0]! >> 4 === 6 && packet[24] === 0xff;
}
