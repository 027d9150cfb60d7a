/**
 * The system calls that Node does not offer, through koffi, which only `loadSyscalls` loads.
 * @module
 */
import { EnvironmentError } from '../errors.ts';

export type Koffi = typeof import('koffi');

/**
 * Pointers are numbers: a user address has 47 bits, and a number needs no allocation, while a
 * `Buffer.subarray` for each packet does. `errno` is valid only directly after a call.
 */
export interface Syscalls {
  readonly koffi: Koffi;
  read(fd: number, address: number, length: number): number;
  write(fd: number, address: number, length: number): number;
  /** `argument` is a number, or memory whose address is passed. */
  ioctl(fd: number, request: number, argument: number | Buffer): number;
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Buffer, length: number): number;
  close(fd: number): number;
  setsockopt(fd: number, level: number, option: number, value: Buffer, length: number): number;
  /** Writes to `value`; `length` is a number of 32 bits: that of bytes in `value`, and then of those that were written. */
  getsockopt(fd: number, level: number, option: number, value: Buffer, length: Buffer): number;
  poll: {
    /** Calls `poll` on another thread. The memory at `address` must exist until `done` is called. */
    async(
      address: number,
      count: number,
      timeoutMs: number,
      done: (error: unknown, ready: number) => void
    ): void;
  };
  /** Returns the name of the error of the last call, such as `EPERM`, or its number if it has no name. */
  errnoName(): string;
  /** Returns the address of the bytes of `buffer`; it is valid as long as `buffer` is referenced. */
  addressOf(buffer: Buffer): number;
}

let loaded: Syscalls | undefined;

/** @throws {EnvironmentError} if koffi is not installed or does not load. */
export async function loadSyscalls(): Promise<Syscalls> {
  loaded ??= bind(await importKoffi());
  return loaded;
}

async function importKoffi(): Promise<Koffi> {
  try {
    return await import('koffi');
  } catch (cause) {
    throw new EnvironmentError(
      `a Linux TUN needs the package koffi, which could not be loaded (npm install koffi): ${(cause as Error).message}`,
      { cause }
    );
  }
}

function bind(koffi: Koffi): Syscalls {
  const libc = koffi.load(null);
  const names = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));
  const ioctl = libc.func('int ioctl(int fd, unsigned long request, uintptr_t argument)');
  const addressOf = (buffer: Buffer): number => Number(koffi.address(buffer));
  return {
    koffi,
    read: libc.func('long read(int fd, uintptr_t address, size_t length)'),
    write: libc.func('long write(int fd, uintptr_t address, size_t length)'),
    ioctl: (fd, request, argument) =>
      ioctl(fd, request, typeof argument === 'number' ? argument : addressOf(argument)),
    socket: libc.func('int socket(int domain, int type, int protocol)'),
    bind: libc.func('int bind(int fd, const void *address, uint32_t length)'),
    close: libc.func('int close(int fd)'),
    setsockopt: libc.func(
      'int setsockopt(int fd, int level, int option, const void *value, uint32_t length)'
    ),
    getsockopt: libc.func(
      'int getsockopt(int fd, int level, int option, void *value, void *length)'
    ),
    poll: libc.func('int poll(uintptr_t address, unsigned long count, int timeout)'),
    errnoName: () => names.get(koffi.errno()) ?? String(koffi.errno()),
    addressOf,
  };
}
