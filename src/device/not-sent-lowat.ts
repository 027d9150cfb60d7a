/**
 * Limits the bytes of a TCP connection that the kernel accepts and has not sent yet: `TCP_NOTSENT_LOWAT` of
 * [tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html). Without it the send buffer grows to several
 * round trips of data, and the last bytes wait behind all of it.
 * @module
 */
import type { Socket } from 'node:net';
import { loadSyscalls, type Syscalls } from './syscalls.ts';

/**
 * Returns a function that sets the limit of a connection in bytes, or undefined if the system has no such
 * limit or koffi is not installed.
 */
export async function loadNotSentLowat(): Promise<
  ((socket: Socket, bytes: number) => void) | undefined
> {
  if (process.platform !== 'linux') return undefined;
  const syscalls = await loadSyscalls().catch(() => undefined);
  return syscalls && ((socket, bytes) => setNotSentLowat(syscalls, socket, bytes));
}

function setNotSentLowat(syscalls: Syscalls, socket: Socket, bytes: number): void {
  // Node does not expose the descriptor of a socket in another way; it is -1 after the socket was closed.
  const fd = (socket as { _handle?: { fd?: number } | null })._handle?.fd ?? -1;
  if (fd < 0) return;
  value.writeInt32LE(bytes);
  syscalls.setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value, value.length);
}

const value: Buffer = Buffer.alloc(4);
const IPPROTO_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;
