/**
 * TCP sockets by system calls that return at once: Node's own hide when what happens, and lack options.
 * @module
 */
import { bytesOf } from '../../support/address.ts';
import { bytes, u16 } from '../../support/bytes.ts';
import type { CallName } from './script.ts';
import { type Outcome, PENDING, type Place } from './subject.ts';

/** A socket is its file descriptor. Errors are returned by their names. */
export class KernelSockets {
  static async load(): Promise<KernelSockets> {
    return new KernelSockets(await import('koffi'));
  }

  readonly #libc: ReturnType<typeof bind>;
  readonly #errno: () => string;

  private constructor(koffi: typeof import('koffi')) {
    this.#libc = bind(koffi);
    const names = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));
    this.#errno = () => names.get(koffi.errno()) ?? String(koffi.errno());
  }

  /** Returns a socket that is bound to the local address and port. @throws if the kernel refuses */
  socket({ family, local, localPort }: Place): number {
    const fd = this.#libc.socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_FLAGS, 0);
    if (fd < 0) throw new Error(`socket: ${this.#errno()}`);
    this.#libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, int(1), 4);
    const address = socketAddress(local, localPort);
    if (this.#libc.bind(fd, address, address.length) < 0) throw new Error(`bind: ${this.#errno()}`);
    return fd;
  }

  listen(fd: number, backlog: number): Outcome {
    return this.#result(this.#libc.listen(fd, backlog));
  }

  accept(listener: number): Outcome {
    return this.#result(this.#libc.accept4(listener, null, null, SOCK_FLAGS));
  }

  connect(fd: number, { remote, remotePort }: Place): Outcome {
    const address = socketAddress(remote, remotePort);
    if (this.#libc.connect(fd, address, address.length) === 0) return 0;
    const code = this.#errno();
    return code === 'EINPROGRESS' ? 0 : code;
  }

  connected(fd: number): Outcome {
    const events = this.#poll(fd);
    if ((events & POLLOUT) === 0) return PENDING;
    return (events & (POLLERR | POLLHUP)) === 0 ? 0 : this.error(fd);
  }

  /** Returns the socket's error, and takes it away. */
  error(fd: number): Outcome {
    const value = int(0);
    this.#libc.getsockopt(fd, SOL_SOCKET, SO_ERROR, value, int(4));
    const number = value.readInt32LE();
    return number === 0 ? PENDING : this.#libc.nameOf(number);
  }

  write(fd: number, content: Uint8Array): Outcome {
    return this.#result(this.#libc.send(fd, Buffer.from(content), content.length, MSG_NOSIGNAL));
  }

  read(fd: number, length: number): Uint8Array | string | typeof PENDING {
    const buffer = Buffer.alloc(length);
    const outcome = this.#result(this.#libc.read(fd, buffer, length));
    return typeof outcome === 'number' ? Uint8Array.from(buffer.subarray(0, outcome)) : outcome;
  }

  shutdown(fd: number): Outcome {
    return this.#result(this.#libc.shutdown(fd, SHUT_WR));
  }

  close(fd: number): Outcome {
    return this.#result(this.#libc.close(fd));
  }

  abort(fd: number): Outcome {
    const linger = Buffer.concat([int(1), int(0)]);
    this.#libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, linger.length);
    return this.close(fd);
  }

  set(fd: number, name: CallName, argument: number): Outcome {
    const options = OPTIONS[name];
    if (options === undefined) throw new Error(`no option of a socket: ${name}`);
    for (const [level, option, value] of options) {
      const result = this.#libc.setsockopt(fd, level, option, int(value ?? argument), 4);
      if (result < 0) return this.#errno();
    }
    return 0;
  }

  #poll(fd: number): number {
    const pollfd = Buffer.alloc(8);
    pollfd.writeInt32LE(fd);
    pollfd.writeInt16LE(POLLOUT, 4);
    this.#libc.poll(pollfd, 1, 0);
    return pollfd.readInt16LE(6);
  }

  #result(result: number): Outcome {
    if (result >= 0) return result;
    const code = this.#errno();
    return code === 'EAGAIN' || code === 'EWOULDBLOCK' ? PENDING : code;
  }
}

function bind(koffi: typeof import('koffi')) {
  const libc = koffi.load(null);
  const names = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));
  return {
    nameOf: (number: number): string => names.get(number) ?? String(number),
    socket: libc.func('int socket(int domain, int type, int protocol)'),
    bind: libc.func('int bind(int fd, const void *address, uint32_t length)'),
    listen: libc.func('int listen(int fd, int backlog)'),
    accept4: libc.func('int accept4(int fd, void *address, void *length, int flags)'),
    connect: libc.func('int connect(int fd, const void *address, uint32_t length)'),
    send: libc.func('long send(int fd, const void *bytes, size_t length, int flags)'),
    read: libc.func('long read(int fd, _Out_ void *bytes, size_t length)'),
    shutdown: libc.func('int shutdown(int fd, int how)'),
    close: libc.func('int close(int fd)'),
    poll: libc.func('int poll(_Inout_ void *fds, unsigned long count, int timeout)'),
    setsockopt: libc.func(
      'int setsockopt(int fd, int level, int option, const void *value, uint32_t length)'
    ),
    getsockopt: libc.func(
      'int getsockopt(int fd, int level, int option, _Out_ void *value, _Inout_ void *length)'
    ),
  };
}

/** A `sockaddr_in` or `sockaddr_in6`. */
function socketAddress(address: string, port: number): Buffer {
  const isIpv6 = address.includes(':');
  const family = Buffer.alloc(2);
  family.writeUInt16LE(isIpv6 ? AF_INET6 : AF_INET);
  const parts = isIpv6
    ? [u16(port), new Uint8Array(4), bytesOf(address), new Uint8Array(4)]
    : [u16(port), bytesOf(address), new Uint8Array(8)];
  return Buffer.from(bytes(family, ...parts));
}

function int(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32LE(value);
  return buffer;
}

// These values are those of Linux on x86 and ARM.
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
/** SOCK_NONBLOCK and SOCK_CLOEXEC. */
const SOCK_FLAGS = 0o4000 | 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_ERROR = 4;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_KEEPALIVE = 9;
const SO_LINGER = 13;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_SYNCNT = 7;
const TCP_LINGER2 = 8;
const TCP_QUICKACK = 12;
const TCP_USER_TIMEOUT = 18;
const SHUT_WR = 1;
const MSG_NOSIGNAL = 0x4000;
const POLLOUT = 0x004;
const POLLERR = 0x008;
const POLLHUP = 0x010;

/** Level, option and value; without a value it is the argument of the call. */
const OPTIONS: Partial<Record<CallName, readonly (readonly [number, number, number?])[]>> = {
  nodelay: [[IPPROTO_TCP, TCP_NODELAY]],
  keepalive: [
    [SOL_SOCKET, SO_KEEPALIVE, 1],
    [IPPROTO_TCP, TCP_KEEPIDLE],
    [IPPROTO_TCP, TCP_KEEPINTVL, 1],
    [IPPROTO_TCP, TCP_KEEPCNT, 10],
  ],
  user_timeout: [[IPPROTO_TCP, TCP_USER_TIMEOUT]],
  quickack: [[IPPROTO_TCP, TCP_QUICKACK]],
  sndbuf: [[SOL_SOCKET, SO_SNDBUF]],
  rcvbuf: [[SOL_SOCKET, SO_RCVBUF]],
  syncnt: [[IPPROTO_TCP, TCP_SYNCNT]],
  linger2: [[IPPROTO_TCP, TCP_LINGER2]],
};
