/**
 * Tells how many bytes of a TCP connection its peer has acknowledged: `TCP_INFO` of
 * [tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html), with the fields that Linux has since 4.19.
 * @module
 */
import type { Socket } from 'node:net';
import { loadSyscalls, type Syscalls } from './syscalls.ts';

/**
 * Returns a function that tells how far the bytes of a connection have got, encryption included: `done` were
 * acknowledged of the `end` that the kernel has taken so far. It returns undefined for a connection that is closed or
 * of which the kernel does not tell. Resolves with undefined if the system has no such call or koffi is not installed.
 */
export async function loadSendProgress(): Promise<
  ((socket: Socket) => { readonly done: number; readonly end: number } | undefined) | undefined
> {
  if (process.platform !== 'linux') return undefined;
  const syscalls = await loadSyscalls().catch(() => undefined);
  return syscalls && ((socket) => sendProgress(syscalls, socket));
}

function sendProgress(
  syscalls: Syscalls,
  socket: Socket
): { readonly done: number; readonly end: number } | undefined {
  // Node does not expose the descriptor of a socket in another way; it is -1 after the socket was closed.
  const fd = (socket as { _handle?: { fd?: number } | null })._handle?.fd ?? -1;
  if (fd < 0) return undefined;
  length.writeUInt32LE(info.length);
  if (syscalls.getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, length) !== 0) return undefined;
  if (length.readUInt32LE() < info.length) return undefined;
  const sent = info.readBigUInt64LE(BYTES_SENT) - info.readBigUInt64LE(BYTES_RETRANSMITTED);
  return {
    done: Number(info.readBigUInt64LE(BYTES_ACKNOWLEDGED)),
    end: Number(sent) + info.readUInt32LE(BYTES_NOT_SENT),
  };
}

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
/** Offsets in `struct tcp_info` of linux/tcp.h. */
const BYTES_ACKNOWLEDGED = 120;
const BYTES_NOT_SENT = 144;
const BYTES_SENT = 200;
const BYTES_RETRANSMITTED = 208;
const info: Buffer = Buffer.alloc(BYTES_RETRANSMITTED + 8);
const length: Buffer = Buffer.alloc(4);
