/**
 * What Linux lets a program set and see of a TCP connection, and Node does not, through koffi
 * ([tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html)):
 *
 * - `TCP_NOTSENT_LOWAT` limits the bytes that the kernel accepts and has not sent yet. Without it the send buffer grows to
 *   several round trips of data, and the last bytes wait behind all of it.
 * - `TCP_INFO` tells how many bytes the peer has acknowledged, with the fields that Linux has since 4.19.
 * - `TCP_RTO_MAX_MS`, since Linux 6.15, bounds the time between two retransmissions, and between two probes of a peer
 *   that takes nothing; the kernel's own bound is 120 s. By the kernel's rule 15 retransmissions then end a connection
 *   much sooner than before, unless `TCP_USER_TIMEOUT` says after which time without an acknowledgement it ends.
 * @module
 */
import type { Socket } from 'node:net';
import { loadSyscalls, type Syscalls } from './syscalls.ts';

/** Resolves with undefined if the system is not Linux, or koffi is not installed. */
export async function loadTcpControl(): Promise<TcpControl | undefined> {
  if (process.platform !== 'linux') return undefined;
  const syscalls = await loadSyscalls().catch(() => undefined);
  return syscalls && new TcpControl(syscalls);
}

/** Made by `loadTcpControl`. No method throws; on a connection that is closed none does anything. */
export class TcpControl {
  readonly #syscalls: Syscalls;

  /** @internal */
  constructor(syscalls: Syscalls) {
    this.#syscalls = syscalls;
  }

  /** Limits the bytes that the kernel accepts before it sends them. */
  limitUnsent(socket: Socket, bytes: number): void {
    this.#set(socket, TCP_NOTSENT_LOWAT, bytes);
  }

  /**
   * Returns how far the bytes of a connection have got, encryption included: `done` were acknowledged of the `end` that
   * the kernel has taken so far. Returns undefined if the kernel does not tell.
   */
  sendProgress(socket: Socket): { readonly done: number; readonly end: number } | undefined {
    const fd = descriptorOf(socket);
    if (fd < 0) return undefined;
    length.writeUInt32LE(info.length);
    if (this.#syscalls.getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, length) !== 0) return undefined;
    if (length.readUInt32LE() < info.length) return undefined;
    const sent = info.readBigUInt64LE(BYTES_SENT) - info.readBigUInt64LE(BYTES_RETRANSMITTED);
    return {
      done: Number(info.readBigUInt64LE(BYTES_ACKNOWLEDGED)),
      end: Number(sent) + info.readUInt32LE(BYTES_NOT_SENT),
    };
  }

  /**
   * Has the kernel try at least every `maxWaitMs` (1,000 or more) whether the peer is back, and end the connection after
   * `giveUpMs` without an acknowledgement. Returns false, and changes nothing, if the kernel has no such bound.
   */
  boundRetransmission(socket: Socket, maxWaitMs: number, giveUpMs: number): boolean {
    if (!this.#set(socket, TCP_RTO_MAX_MS, maxWaitMs)) return false;
    return this.#set(socket, TCP_USER_TIMEOUT, giveUpMs);
  }

  #set(socket: Socket, option: number, number: number): boolean {
    const fd = descriptorOf(socket);
    if (fd < 0) return false;
    value.writeInt32LE(number);
    return this.#syscalls.setsockopt(fd, IPPROTO_TCP, option, value, value.length) === 0;
  }
}

/** Node does not expose the descriptor of a socket in another way; it is -1 after the socket was closed. */
function descriptorOf(socket: Socket): number {
  return (socket as { _handle?: { fd?: number } | null })._handle?.fd ?? -1;
}

const value: Buffer = Buffer.alloc(4);
const IPPROTO_TCP = 6;
/** The options of linux/tcp.h. */
const TCP_INFO = 11;
const TCP_USER_TIMEOUT = 18;
const TCP_NOTSENT_LOWAT = 25;
const TCP_RTO_MAX_MS = 44;
/** Offsets in `struct tcp_info` of linux/tcp.h. */
const BYTES_ACKNOWLEDGED = 120;
const BYTES_NOT_SENT = 144;
const BYTES_SENT = 200;
const BYTES_RETRANSMITTED = 208;
const info: Buffer = Buffer.alloc(BYTES_RETRANSMITTED + 8);
const length: Buffer = Buffer.alloc(4);
