/**
 * The header of the PROXY protocol, version 2, which tells a service whose connection a gateway has made
 * ([the specification](https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt), section 2.2).
 * @module
 */
import type { Flow } from '../../tcp/index.ts';

/** Returns the header of a connection. The source is the remote end of the flow, the destination its local one. */
export function proxyHeader({ family, local, localPort, remote, remotePort }: Flow): Buffer {
  const size = family === 4 ? 4 : 16;
  const header = Buffer.alloc(SIGNATURE.length + 4 + 2 * size + 4);
  let at = SIGNATURE.copy(header);
  at = header.writeUInt8(VERSION_2_PROXY, at);
  at = header.writeUInt8(family === 4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6, at);
  at = header.writeUInt16BE(2 * size + 4, at);
  for (const { words } of [remote, local]) {
    for (const word of words) at = header.writeInt32BE(word, at);
  }
  at = header.writeUInt16BE(remotePort, at);
  header.writeUInt16BE(localPort, at);
  return header;
}

const SIGNATURE: Buffer = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const VERSION_2_PROXY = 0x21;
const TCP_OVER_IPV4 = 0x11;
const TCP_OVER_IPV6 = 0x21;
