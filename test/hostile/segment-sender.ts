/**
 * An attacker on the network between the gateways: impersonates the edge of a site, and sends
 * super-packets whose segments others must make. Arguments: token, port of the tunnels, the
 * service's presence, then for each frame the protocol, the payload's length and the segment's.
 */
import { enrol } from '../../src/pki/index.ts';
import { tcpPacket, udpPacket } from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { openTunnel, packetFrame, settled } from './attacker.ts';

const [token, host, port, presence, ...frames] = process.argv.slice(2);
const credentials = await enrol(token!);
const options = { host, localAddress: undefined };
const peer = await openTunnel(Number(port), credentials, undefined, options);
for (const text of frames) {
  const [protocol, length, gsoSize] = text.split('/');
  const ends = { source: '10.0.0.20', destination: presence! };
  const ports = { sourcePort: 40_000, destinationPort: 7000 };
  const segment = {
    ...ports,
    payload: new Uint8Array(Number(length)),
    checksum: 'partial',
  } as const;
  const isTcp = protocol === 'tcp';
  peer.socket.write(
    packetFrame(
      framed(isTcp ? tcpPacket(ends, segment) : udpPacket(ends, segment), {
        flags: 1,
        gsoType: isTcp ? 1 : 5,
        gsoSize: Number(gsoSize),
        checksumStart: 20,
        checksumOffset: isTcp ? 16 : 6,
      })
    )
  );
}
await settled(peer);
peer.socket.destroy();
console.log('sent');
