/**
 * A socket that sends Ethernet frames at one interface
 * ([packet(7)](https://man7.org/linux/man-pages/man7/packet.7.html)). It receives nothing.
 * @module
 */
import { EnvironmentError } from '../errors.ts';
import type { Syscalls } from './syscalls.ts';
import { interfaceRequest } from './tun-setup.ts';

export class PacketSocket {
  /**
   * Opens a socket. Needs CAP_NET_RAW.
   *
   * @throws {EnvironmentError} if the kernel refuses, or the interface is missing or not Ethernet.
   */
  static open(syscalls: Syscalls, name: string): PacketSocket {
    const fd = syscalls.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) throw fault(name, syscalls, 'a packet socket');
    try {
      const request = interfaceRequest(name);
      if (syscalls.ioctl(fd, SIOCGIFHWADDR, request) < 0) {
        throw fault(name, syscalls, 'its hardware address');
      }
      if (request.readUInt16LE(IFREQ_VALUE) !== ARPHRD_ETHER) {
        throw new EnvironmentError(
          `interface ${name} is not Ethernet: nothing can be announced there`
        );
      }
      const hardware = Buffer.from(request.subarray(IFREQ_VALUE + 2, IFREQ_VALUE + 8));
      if (syscalls.ioctl(fd, SIOCGIFINDEX, request) < 0) throw fault(name, syscalls, 'its number');
      const address = Buffer.alloc(SOCKADDR_LL_LENGTH);
      // The protocol stays 0: no frame is received.
      address.writeUInt16LE(AF_PACKET);
      address.writeInt32LE(request.readInt32LE(IFREQ_VALUE), SLL_IFINDEX);
      if (syscalls.bind(fd, address, address.length) < 0) throw fault(name, syscalls, 'frames');
      return new PacketSocket(syscalls, fd, name, hardware);
    } catch (error) {
      syscalls.close(fd);
      throw error;
    }
  }

  /** The 6 bytes of the interface's Ethernet address when the socket was opened. */
  readonly hardware: Buffer;
  readonly #syscalls: Syscalls;
  readonly #fd: number;
  readonly #name: string;

  private constructor(syscalls: Syscalls, fd: number, name: string, hardware: Buffer) {
    this.#syscalls = syscalls;
    this.#fd = fd;
    this.#name = name;
    this.hardware = hardware;
  }

  /**
   * Sends a frame with its Ethernet header. Returns false if the kernel takes none now.
   *
   * @throws {EnvironmentError} if the interface is down or gone.
   */
  send(frame: Buffer): boolean {
    const { length } = frame;
    if (this.#syscalls.write(this.#fd, this.#syscalls.addressOf(frame), length) === length)
      return true;
    const code = this.#syscalls.errnoName();
    if (code === 'EAGAIN' || code === 'ENOBUFS') return false;
    throw new EnvironmentError(`interface ${this.#name} sends nothing (${code})`);
  }

  /** Called once. */
  close(): void {
    this.#syscalls.close(this.#fd);
  }
}

function fault(name: string, syscalls: Syscalls, what: string): EnvironmentError {
  const code = syscalls.errnoName();
  const reason = code === 'EPERM' ? 'this process lacks CAP_NET_RAW' : code;
  return new EnvironmentError(`interface ${name}: the kernel refuses ${what} (${reason})`);
}

// These values are in linux/if_packet.h, linux/sockios.h and linux/if_arp.h.
const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const SIOCGIFHWADDR = 0x8927;
const SIOCGIFINDEX = 0x8933;
const IFREQ_VALUE = 16;
const ARPHRD_ETHER = 1;
const SOCKADDR_LL_LENGTH = 20;
const SLL_IFINDEX = 4;
