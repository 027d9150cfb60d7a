/**
 * The ioctls that attach an open `/dev/net/tun` to a TUN interface and set it up
 * ([tuntap](https://docs.kernel.org/networking/tuntap.html), netdevice(7)).
 * @module
 */
import { ApiMisuseError, EnvironmentError } from '../errors.ts';
import { VNET_HEADER_LENGTH } from '../packet/virtio.ts';
import type { Syscalls } from './syscalls.ts';

/** `csum`: partial checksums; `tso`, `tso-ecn`, `uso`: TCP (with CWR) and UDP super-packets. */
export type TunOffload = 'csum' | 'tso' | 'tso-ecn' | 'uso';

/** @throws {ApiMisuseError} if Linux would refuse the name (`dev_valid_name`). */
export function checkTunName(name: string): void {
  const isText = typeof name === 'string';
  if (
    !isText ||
    !/^[\x21-\x7e]{1,15}$/.test(name) ||
    /[/:]/.test(name) ||
    name === '.' ||
    name === '..'
  ) {
    throw new ApiMisuseError(
      `"${name}" is not an interface name: 1 to 15 printable characters without blank, "/" and ":"`
    );
  }
}

/**
 * Attaches `fd` to the interface, which is created if it does not exist, and switches its offloads on. Returns
 * the real name of the interface and the offloads that the kernel accepted.
 *
 * @throws {EnvironmentError} if the kernel refuses.
 */
export function attachTun(
  syscalls: Syscalls,
  fd: number,
  wantedName: string,
  offload: boolean,
  persist: boolean
): { name: string; offloads: readonly TunOffload[] } {
  const request = interfaceRequest(wantedName);
  request.writeUInt16LE(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, IFREQ_VALUE);
  if (syscalls.ioctl(fd, TUNSETIFF, request) < 0) {
    const code = syscalls.errnoName();
    const reason = ATTACH_FAULTS[code];
    throw new EnvironmentError(
      reason ? `TUN ${wantedName}: ${reason}` : `TUN ${wantedName} cannot be created (${code})`
    );
  }
  const name = request.toString('latin1', 0, request.indexOf(0));

  const headerLength = Buffer.alloc(4);
  headerLength.writeInt32LE(VNET_HEADER_LENGTH);
  check(syscalls, syscalls.ioctl(fd, TUNSETVNETHDRSZ, headerLength), name, 'virtio-net headers');
  // Offloads are set even if there are none: a persistent interface may have them switched on.
  const choices = offload ? OFFLOAD_CHOICES : [[]];
  const offloads = choices.find(
    (choice) => syscalls.ioctl(fd, TUNSETOFFLOAD, offloadBits(choice)) === 0
  );
  if (offloads === undefined) check(syscalls, -1, name, 'offloads');
  if (persist) check(syscalls, syscalls.ioctl(fd, TUNSETPERSIST, 1), name, 'persistence');
  return { name, offloads: offloads ?? [] };
}

/**
 * Sets the MTU of the interface and the length of its queue, and sets it up.
 *
 * @throws {EnvironmentError} if the kernel refuses.
 */
export function bringUp(syscalls: Syscalls, name: string, mtu: number, queueLength: number): void {
  const socket = syscalls.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  check(syscalls, socket, name, 'a control socket');
  try {
    const request = interfaceRequest(name);
    request.writeInt32LE(mtu, IFREQ_VALUE);
    check(syscalls, syscalls.ioctl(socket, SIOCSIFMTU, request), name, `an MTU of ${mtu}`);
    request.writeInt32LE(queueLength, IFREQ_VALUE);
    const result = syscalls.ioctl(socket, SIOCSIFTXQLEN, request);
    // In a user namespace nobody may change the length, and the TUN works nevertheless.
    const isForbidden = result < 0 && syscalls.errnoName() === 'EPERM';
    if (!isForbidden) check(syscalls, result, name, `a queue of ${queueLength}`);
    check(syscalls, syscalls.ioctl(socket, SIOCGIFFLAGS, request), name, 'its flags');
    request.writeUInt16LE(request.readUInt16LE(IFREQ_VALUE) | IFF_UP, IFREQ_VALUE);
    check(syscalls, syscalls.ioctl(socket, SIOCSIFFLAGS, request), name, 'to go up');
  } finally {
    syscalls.close(socket);
  }
}

/** @throws {EnvironmentError} if `result` is that of a call that has failed. */
function check(syscalls: Syscalls, result: number, name: string, what: string): void {
  if (result >= 0) return;
  throw new EnvironmentError(`TUN ${name}: the kernel refuses ${what} (${syscalls.errnoName()})`);
}

/** Returns a `struct ifreq`: the name, then a union whose first bytes are used. */
export function interfaceRequest(name: string): Buffer {
  const request = Buffer.alloc(40);
  request.write(name, 'latin1');
  return request;
}

function offloadBits(offloads: readonly TunOffload[]): number {
  return offloads.reduce((bits, offload) => bits | OFFLOAD_BITS[offload], 0);
}

// These values are in linux/if_tun.h and linux/if.h.
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const IFF_UP = 0x1;
const IFREQ_VALUE = 16;
const OFFLOAD_BITS: Readonly<Record<TunOffload, number>> = {
  csum: 0x01,
  tso: 0x02 | 0x04, // TCP over IPv4, IPv6
  'tso-ecn': 0x08,
  uso: 0x20 | 0x40, // UDP over IPv4, IPv6
};

/** The direction bits of an ioctl that passes an `int` to the kernel; PowerPC has its own. */
const IOW_INT = process.arch === 'ppc64' ? 0x80045400 : 0x40045400;
const TUNSETIFF: number = IOW_INT + 202;
const TUNSETPERSIST: number = IOW_INT + 203;
const TUNSETOFFLOAD: number = IOW_INT + 208;
const TUNSETVNETHDRSZ: number = IOW_INT + 216;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCSIFMTU = 0x8922;
const SIOCSIFTXQLEN = 0x8943;
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;

/** The best set first; the kernel accepts all of a set or none. */
const OFFLOAD_CHOICES: readonly (readonly TunOffload[])[] = [
  ['csum', 'tso', 'tso-ecn', 'uso'],
  ['csum', 'tso', 'tso-ecn'],
  ['csum', 'tso'],
];

const ATTACH_FAULTS: Readonly<Record<string, string>> = {
  EPERM: 'this process lacks CAP_NET_ADMIN, or the interface belongs to another user',
  EBUSY: 'another process has this interface open',
  EINVAL: 'an interface of another kind has this name',
  ENFILE: 'no free number for this name',
};
