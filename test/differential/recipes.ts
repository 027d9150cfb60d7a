/**
 * Random packets of each protocol. A recipe makes the same packet for any ends: as it enters, as it
 * leaves, as an error quotes it.
 * @module
 */
import { bytesOf } from '../support/address.ts';
import { checksumOf, onesSum, pseudoHeader, wordsOf } from '../support/checksum.ts';
import {
  ACK,
  type ChecksumFill,
  type Ends,
  echoPacket,
  GRE,
  ICMP,
  ICMPV6,
  type IpOptions,
  ipPacket,
  PSH,
  SCTP,
  SYN,
  TCP,
  tcpPacket,
  UDP,
  UDPLITE,
  udpPacket,
} from '../support/packets.ts';
import type { Random } from '../support/random.ts';
import { OTHER_PROTOCOLS, type PacketPath } from './scene.ts';

const IP_IN_IP = 4;
const SCTP_INIT = 1;

export const PROTOCOLS = ['tcp', 'udp', 'echo', 'udplite', 'sctp', 'other'] as const;
export type Protocol = (typeof PROTOCOLS)[number];

export interface Recipe {
  /** Its number in the IP header. */
  readonly number: number;
  /** Bytes of the transport header that a first fragment must have. */
  readonly headerLength: number;
  /** Where in the transport header the checksum is, if the protocol has one that covers addresses. */
  readonly checksumAt: number | undefined;
  /** Whether the checksum is right, and there is one. */
  readonly isRight: boolean;
  make(ends: Ends, ip: IpOptions): Uint8Array;
}

/** What the packets of one session have in common. */
export interface Session {
  readonly protocol: Protocol;
  /** Port, identifier, verification tag or number of the protocol, as the protocol needs. */
  readonly client: number;
  readonly service: number;
}

export interface RecipeOptions {
  /** Longest payload; 1400 by default. */
  readonly longest?: number;
  /** Shortest payload; 0 by default. */
  readonly shortest?: number;
  /** Whether it makes only packets that a strict observer of connections (conntrack) finds valid. */
  readonly isStrict?: boolean;
  /** No wrong or missing checksums. */
  readonly isRight?: boolean;
}

export function randomSession(random: Random, protocol: Protocol): Session {
  return {
    protocol,
    client: randomPort(random),
    service: protocol === 'other' ? random.pick(OTHER_PROTOCOLS) : randomPort(random),
  };
}

/** Any port except the one of SCTP over UDP, as which tshark would judge the payload. */
function randomPort(random: Random): number {
  const port = random.between(1, 0xffff);
  return port === 9899 ? 1 : port;
}

/** A packet of the session: a request from `near`, a reply from `far`. */
export function randomRecipe(
  random: Random,
  session: Session,
  path: PacketPath,
  options: RecipeOptions = {}
): Recipe {
  return MAKERS[session.protocol](random, session, path, options);
}

/** TOS or traffic class, hop limit, identification and DF; no hop limit that a router cannot lower. */
export function randomIp(random: Random): IpOptions {
  return {
    trafficClass: random.below(256),
    hopLimit: random.between(1, 254),
    identification: random.below(0x10000),
    fragment: random.pick([0, 0x4000]),
  };
}

const MAKERS: Readonly<
  Record<
    Protocol,
    (random: Random, session: Session, path: PacketPath, options: RecipeOptions) => Recipe
  >
> = {
  tcp(random, session, path, options) {
    const tcpOptions = random.pick(TCP_OPTIONS);
    const flags = tcpFlags(random, path, options);
    const make = (ends: Ends, payload: Uint8Array, checksum: ChecksumFill, ip: IpOptions) =>
      tcpPacket(ends, { ...ip, ...ports(session, path), flags, tcpOptions, payload, checksum });
    const headerLength = 20 + Math.ceil(tcpOptions.length / 4) * 4;
    return checked(random, path, options, { number: TCP, headerLength, checksumAt: 16 }, make);
  },
  udp(random, session, path, options) {
    const make = (ends: Ends, payload: Uint8Array, checksum: ChecksumFill, ip: IpOptions) =>
      udpPacket(ends, { ...ip, ...ports(session, path), payload, checksum });
    return checked(random, path, options, { number: UDP, headerLength: 8, checksumAt: 6 }, make);
  },
  echo(random, session, path, options) {
    const sequence = random.below(0x10000);
    const reply = path.from === 'far';
    const make = (ends: Ends, payload: Uint8Array, checksum: ChecksumFill, ip: IpOptions) =>
      echoPacket(ends, { ...ip, reply, id: session.client, sequence, payload, checksum });
    const number = path.family === 'ip' ? ICMP : ICMPV6;
    const checksumAt = path.family === 'ip' ? undefined : 2;
    return checked(random, path, options, { number, headerLength: 8, checksumAt }, make);
  },
  udplite(random, session, path, options) {
    const share = random.pick([0, 1, random.next()]);
    const make = (ends: Ends, payload: Uint8Array, checksum: ChecksumFill, ip: IpOptions) => {
      const coverage = share === 0 ? 0 : 8 + Math.floor(share * payload.length);
      return udplitePacket(ends, ports(session, path), coverage, payload, checksum, ip);
    };
    return checked(
      random,
      path,
      options,
      { number: UDPLITE, headerLength: 8, checksumAt: 6 },
      make
    );
  },
  sctp(random, session, path, options) {
    const isFirst = path.from === 'near' && (options.isStrict || random.chance(0.3));
    const chunk = random.bytes(random.between(16, options.longest ?? 1400));
    const segment = new Uint8Array(16 + chunk.length);
    const view = new DataView(segment.buffer);
    const { sourcePort, destinationPort } = ports(session, path);
    view.setUint16(0, sourcePort);
    view.setUint16(2, destinationPort);
    view.setUint32(4, isFirst ? 0 : session.client * 0x10001); // verification tag
    view.setUint8(12, isFirst ? SCTP_INIT : random.pick([0, 3, 4, 5]));
    view.setUint16(14, 4 + chunk.length);
    segment.set(chunk, 16);
    view.setUint32(8, crc32c(segment), true);
    const isRight = options.isRight || options.isStrict || random.chance(0.9);
    if (!isRight) segment[9]! ^= 1;
    return {
      number: SCTP,
      headerLength: 12,
      checksumAt: undefined,
      isRight,
      make: (ends, ip) => ipPacket(ends, SCTP, segment, ip),
    };
  },
  other(random, session, path, options) {
    const payload = randomPayload(random, { shortest: 8, ...options });
    if (session.service === IP_IN_IP) payload[0] = 0; // a random packet has wrong checksums
    if (session.service === GRE) payload.set([0, 0, path.family === 'ip' ? 8 : 0x86, 0]);
    return {
      number: session.service,
      headerLength: 0,
      checksumAt: undefined,
      isRight: true,
      make: (ends, ip) => ipPacket(ends, session.service, payload, ip),
    };
  },
};

function ports(
  session: Session,
  path: PacketPath
): { sourcePort: number; destinationPort: number } {
  return path.from === 'near'
    ? { sourcePort: session.client, destinationPort: session.service }
    : { sourcePort: session.service, destinationPort: session.client };
}

function tcpFlags(random: Random, path: PacketPath, { isStrict }: RecipeOptions): number {
  if (isStrict) return path.from === 'near' ? random.pick([SYN, ACK]) : ACK | PSH;
  const flags = random.below(256);
  // a SYN opens a session, which is for clients to do
  return path.from === 'far' ? flags & ~SYN : flags;
}

/**
 * A recipe with the Internet checksum: mostly right, also one that is or becomes 0, wrong, and for
 * UDP over IPv4 none.
 */
function checked(
  random: Random,
  path: PacketPath,
  options: RecipeOptions,
  shape: Pick<Recipe, 'number' | 'headerLength' | 'checksumAt'>,
  make: (ends: Ends, payload: Uint8Array, checksum: ChecksumFill, ip: IpOptions) => Uint8Array
): Recipe {
  const payload = randomPayload(random, options);
  let checksum: ChecksumFill = 'complete';
  if (payload.length >= 2 && random.chance(0.15)) {
    // A word that is the checksum of all others makes the checksum 0: here or after translation.
    payload.fill(0, 0, 2);
    const ends = random.pick([path.before, path.after]);
    const whole = make(ends, payload, 'complete', {});
    const at = whole.length - payload.length - shape.headerLength;
    const place = at + (shape.checksumAt ?? 2);
    payload.set(whole.subarray(place, place + 2));
  } else if (!options.isRight && random.chance(0.1)) {
    const isOptional = shape.number === UDP && path.family === 'ip';
    checksum = isOptional && random.chance(0.7) ? 'none' : random.between(1, 0xffff);
  }
  return {
    ...shape,
    isRight: checksum === 'complete' || checksum === 'none',
    make: (ends, ip) => make(ends, payload, checksum, ip),
  };
}

function randomPayload(
  random: Random,
  { shortest = 0, longest = 1400 }: RecipeOptions
): Uint8Array {
  const limit = random.chance(0.7) ? Math.max(shortest, Math.min(longest, 64)) : longest;
  return random.bytes(random.between(shortest, limit));
}

/** [RFC 3828](https://www.rfc-editor.org/rfc/rfc3828); the pseudo-header has the IP payload's length. */
function udplitePacket(
  ends: Ends,
  { sourcePort, destinationPort }: { sourcePort: number; destinationPort: number },
  coverage: number,
  payload: Uint8Array,
  checksum: ChecksumFill,
  ip: IpOptions
): Uint8Array {
  const datagram = new Uint8Array(8 + payload.length);
  const view = new DataView(datagram.buffer);
  view.setUint16(0, sourcePort);
  view.setUint16(2, destinationPort);
  view.setUint16(4, coverage);
  datagram.set(payload, 8);
  const [source, destination] = [bytesOf(ends.source), bytesOf(ends.destination)];
  const sum = onesSum([
    ...pseudoHeader(source, destination, UDPLITE, datagram.length),
    ...wordsOf(coverage === 0 ? datagram : datagram.subarray(0, coverage)),
  ]);
  const complete = checksumOf([sum]) || 0xffff;
  view.setUint16(6, typeof checksum === 'number' ? checksum : complete);
  return ipPacket(ends, UDPLITE, datagram, ip);
}

/** [RFC 9260 appendix A](https://www.rfc-editor.org/rfc/rfc9260#appendix-A), of a packet whose checksum is 0. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

const TCP_OPTIONS: readonly Uint8Array[] = [
  [],
  [],
  [2, 4, 0x05, 0xb4],
  [1, 1, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0],
  [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7],
  [1, 1, 5, 34, ...Array<number>(32).fill(0x5a)],
].map((bytes) => Uint8Array.from(bytes));
