/**
 * A client of a SOCKS5 proxy (RFC 1928) with a user name and a password (RFC 1929). It leaves names to the proxy.
 * @module
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/**
 * Connects by the proxy.
 *
 * @throws an error with a `code`, if the proxy refuses.
 */
export async function connectBySocks(proxy: string, host: string, port: number): Promise<Socket> {
  const { hostname, port: proxyPort, username, password } = new URL(proxy);
  const socket = connect(Number(proxyPort), hostname);
  await once(socket, 'connect');
  socket.write(Buffer.from([5, 1, PASSWORD]));
  const [, method] = await read(socket, 2);
  if (method !== PASSWORD) throw refusal('EPROTO');
  socket.write(Buffer.concat([Buffer.from([1]), field(username), field(password)]));
  const [, isWrong] = await read(socket, 2);
  if (isWrong) throw refusal('EACCES');
  const portBytes = Buffer.from([port >> 8, port & 0xff]);
  socket.write(Buffer.concat([Buffer.from([5, CONNECT, 0, NAME]), field(host), portBytes]));
  const [, reply, , type] = await read(socket, 4);
  await read(socket, (type === IPV6 ? 16 : 4) + 2);
  if (reply !== 0) throw refusal(CODES[reply!] ?? `SOCKS5 reply ${reply}`);
  return socket;
}

function field(text: string): Buffer {
  const bytes = Buffer.from(decodeURIComponent(text));
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

function refusal(code: string): Error {
  return Object.assign(new Error(`the proxy refuses: ${code}`), { code });
}

async function read(socket: Socket, bytes: number): Promise<Buffer> {
  for (;;) {
    const chunk: Buffer | null = socket.read(bytes);
    if (chunk?.length === bytes) return chunk;
    if (!socket.readable) throw refusal('ECONNRESET');
    await once(socket, 'readable');
  }
}

const PASSWORD = 2;
const CONNECT = 1;
const NAME = 3;
const IPV6 = 4;
/** What the replies of RFC 1928 section 6 mean. */
const CODES: Readonly<Record<number, string>> = {
  1: 'general failure',
  3: 'ENETUNREACH',
  4: 'EHOSTUNREACH',
  5: 'ECONNREFUSED',
};
