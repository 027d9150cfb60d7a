/**
 * What all services of the scene have in common: the address at which they listen (`VP_DEMO_ADDRESS` in the
 * environment, by default all addresses), and the PROXY protocol (`VP_DEMO_PROXY_PROTOCOL`), by which a gateway without
 * a TUN says who the client is.
 * @module
 */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';

const { VP_DEMO_ADDRESS: address = '0.0.0.0', VP_DEMO_PROXY_PROTOCOL: hasHeader } = process.env;

/** Listens, and calls `onClient` with each connection and the address of its client. */
export async function serve(
  port: number,
  onClient: (socket: Socket, client: string) => void
): Promise<void> {
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    if (hasHeader === undefined) onClient(socket, socket.remoteAddress!);
    else readHeader(socket).then((client) => onClient(socket, client), socket.destroy.bind(socket));
  });
  server.listen(port, address);
  await once(server, 'listening');
}

/** Reads a header of version 2 of a connection by TCP over IPv4, and returns the client's address. */
async function readHeader(socket: Socket): Promise<string> {
  const start = await read(socket, FIXED_BYTES);
  if (!start.subarray(0, SIGNATURE.length).equals(SIGNATURE)) throw new Error('no PROXY header');
  const addresses = await read(socket, start.readUInt16BE(FIXED_BYTES - 2));
  return addresses.subarray(0, 4).join('.');
}

async function read(socket: Socket, bytes: number): Promise<Buffer> {
  for (;;) {
    const chunk: Buffer | null = socket.read(bytes);
    if (chunk?.length === bytes) return chunk;
    if (!socket.readable) throw new Error('ended before the end of the PROXY header');
    await once(socket, 'readable');
  }
}

const SIGNATURE: Buffer = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const FIXED_BYTES = 16;
