/**
 * Special packets for any path of a request: the smallest, the largest, and those with bytes that are easy to
 * get wrong in a sum.
 * @module
 */
import { echoPacket, SYN, tcpPacket, udpPacket } from '../support/packets.ts';
import type { PacketPath } from './scene.ts';

/** All of them with right checksums. */
export function edgeCases({ family, before }: PacketPath): Uint8Array[] {
  const ports = { sourcePort: 65_535, destinationPort: 1 };
  const payloads = [[], [0], [0xff], [0, 0], [0xff, 0xff], [0xff, 0xff, 0xff]].map((bytes) =>
    Uint8Array.from(bytes)
  );
  const headers = family === 'ip' ? 20 : 40;
  const longest = new Uint8Array(65_535 - headers - 8).fill(0xff);
  return [
    ...payloads.flatMap((payload) => [
      tcpPacket(before, { ...ports, payload }),
      udpPacket(before, { ...ports, payload }),
      echoPacket(before, { payload }),
    ]),
    tcpPacket(before, { ...ports, flags: SYN, tcpOptions: new Uint8Array(40).fill(1) }),
    tcpPacket(before, { sourcePort: 1, destinationPort: 65_535, hopLimit: 1 }),
    udpPacket(before, { ...ports, hopLimit: 254, trafficClass: 0xff }),
    ...(family === 'ip'
      ? [
          udpPacket(before, { ...ports, checksum: 'none' }),
          udpPacket(before, { ...ports, checksum: 'none', payload: Uint8Array.of(1, 2, 3) }),
          udpPacket(before, { ...ports, identification: 0, fragment: 0 }),
          tcpPacket(before, { ...ports, options: new Uint8Array(40).fill(1) }),
          tcpPacket(before, { ...ports, options: new Uint8Array(40) }),
          tcpPacket(before, { ...ports, options: Uint8Array.of(0x94, 4, 0, 0) }),
        ]
      : []),
    udpPacket(before, { ...ports, payload: longest }),
  ];
}
